use hdrhistogram::Histogram;

use super::super::chart::{Axis, Chart, Size, count, escape, micros, short};
use super::super::hdr::HdrError;
use super::super::report::{grouped, time};
use super::super::{Group, Results, Row};
use super::{by_load, class, legend, load_name, models};

/// Bins for each power of ten of latency.
const BINS_PER_DECADE: f64 = 12.0;
/// A rate is kept when so much of it was answered.
const KEPT: f64 = 0.95;
/// Pixels of one line of a chart with named rows.
const ROW_HEIGHT: f64 = 26.0;

fn figure(caption: &str, svg: &str, legend: &str) -> String {
    format!(
        "<figure><figcaption>{}</figcaption>{svg}{legend}</figure>",
        escape(caption)
    )
}

fn panels(figures: Vec<String>) -> String {
    match figures.is_empty() {
        true => String::new(),
        false => format!("<div class=panels>{}</div>", figures.concat()),
    }
}

fn rows_size(rows: usize) -> Size {
    Size {
        width: 1100.0,
        height: 60.0 + ROW_HEIGHT * rows as f64,
        left: 250.0,
        right: 60.0,
        ..Size::PANEL
    }
}

/// One line for each load, one dot for each model.
pub(super) fn throughput(results: &Results, group: Group) -> String {
    let rows: Vec<&Row> = results.group(group).collect();
    let (models, loads) = (models(&rows), by_load(&rows));
    if models.is_empty() {
        return String::new();
    }
    let values = rows.iter().map(|row| row.report.throughput_ops_s);
    let x = Axis::log("operations per second", values, count);
    let mut chart = Chart::with_rows(rows_size(loads.len()), x, loads.len());
    for (line, (name, rows)) in loads.iter().enumerate() {
        let y = line as f64 + 0.5;
        chart.row_name(y, name);
        for row in rows {
            let ops = row.report.throughput_ops_s;
            let title = format!("{}: {} operations/s", row.case, grouped(ops));
            chart.dot(&class(&models, row), &title, ops, y, false);
        }
    }
    let title = group.title();
    let entries = models.iter().enumerate();
    let legend = legend(entries.map(|(place, model)| (format!("s{}", place % 6), (*model).to_owned())));
    figure(&common(&rows), &chart.finish(title), &legend)
}

/// What all rows have in common, for a caption.
fn common(rows: &[&Row]) -> String {
    let Some(report) = rows.first().map(|row| &row.report) else {
        return String::new();
    };
    let pace = match report.outstanding {
        0 => String::new(),
        outstanding => format!(", {} outstanding", grouped(outstanding as f64)),
    };
    format!(
        "{}, {} % reads{pace}, {} clients, auth {}, durability {}, n = {}",
        report.app,
        short(100.0 * report.shape.reads),
        report.clients,
        report.auth,
        report.durability,
        report.n
    )
}

/// The share of operations in each bin: `(from, to, percent)`, in microseconds.
fn bins(histogram: &Histogram<u64>) -> Vec<(f64, f64, f64)> {
    let edge = |bin: i32| 10f64.powf(f64::from(bin) / BINS_PER_DECADE);
    let mut bins: Vec<(i32, u64)> = Vec::new();
    for value in histogram.iter_recorded() {
        let us = value.value_iterated_to() as f64 / 1000.0;
        let bin = (us.max(1e-3).log10() * BINS_PER_DECADE).floor() as i32;
        match bins.last_mut() {
            Some((last, counted)) if *last == bin => *counted += value.count_since_last_iteration(),
            _ => bins.push((bin, value.count_since_last_iteration())),
        }
    }
    let all = histogram.len().max(1) as f64;
    bins.iter()
        .map(|(bin, counted)| (edge(*bin), edge(bin + 1), 100.0 * *counted as f64 / all))
        .collect()
}

/// For each load of a group the latencies of its models, laid over each other.
pub(super) fn histograms(results: &Results, group: Group) -> Result<String, HdrError> {
    let rows: Vec<&Row> = results.group(group).collect();
    let models = models(&rows);
    let mut figures = Vec::new();
    for (name, rows) in by_load(&rows) {
        let mut drawn = Vec::new();
        for row in rows {
            if let Some(histogram) = row.histogram()? {
                drawn.push((row, bins(&histogram)));
            }
        }
        if drawn.is_empty() {
            continue;
        }
        let all = || drawn.iter().flat_map(|(_, bins)| bins);
        let x = Axis::log("latency", all().flat_map(|(from, to, _)| [*from, *to]), micros);
        let y = Axis::linear(
            "% of operations in a bin",
            all().map(|(_, _, share)| *share),
            short,
        );
        let mut chart = Chart::new(Size::PANEL, x, y);
        for (row, bins) in &drawn {
            chart.area(&class(&models, row), &row.case, bins);
        }
        let entry = |row: &Row| {
            let (model, l) = (row.model.as_deref().unwrap_or(&row.case), &row.report.latency_us);
            let text = format!(
                "{model}: p50 {}, p99 {}, max {}",
                time(l.p50),
                time(l.p99),
                time(l.max)
            );
            (class(&models, row), text)
        };
        let legend = legend(drawn.iter().map(|(row, _)| entry(row)));
        figures.push(figure(&name, &chart.finish(&name), &legend));
    }
    Ok(panels(figures))
}

/// For each load of the sweep, latency over throughput.
pub(super) fn sweep(results: &Results) -> String {
    let rows: Vec<&Row> = results.group(Group::Sweep).collect();
    let models = models(&rows);
    let figures = by_load(&rows).into_iter().map(|(name, rows)| {
        let throughput = rows.iter().map(|row| row.report.throughput_ops_s);
        let latency = rows.iter().flat_map(|row| {
            let l = &row.report.latency_us;
            [l.p50, l.p99]
        });
        let x = Axis::linear("operations per second, answered", throughput, count);
        let y = Axis::log("latency", latency, micros);
        let size = Size {
            width: 1100.0,
            height: 380.0,
            ..Size::PANEL
        };
        let mut chart = Chart::new(size, x, y);
        for (place, model) in models.iter().enumerate() {
            let mut of_model: Vec<&Row> = rows
                .iter()
                .filter(|row| row.model.as_deref() == Some(*model))
                .copied()
                .collect();
            of_model.sort_by(|a, b| a.report.rate.total_cmp(&b.report.rate));
            draw_curves(&mut chart, &format!("s{}", place % 6), &of_model);
        }
        let entries = models.iter().enumerate();
        let legend = legend(entries.map(|(place, model)| (format!("s{}", place % 6), (*model).to_owned())));
        figure(
            &format!("{name}: {}", common(&rows)),
            &chart.finish(&name),
            &legend,
        )
    });
    figures.collect()
}

fn draw_curves(chart: &mut Chart, class: &str, rows: &[&Row]) {
    let points = |latency: fn(&Row) -> f64| -> Vec<(f64, f64)> {
        rows.iter()
            .map(|row| (row.report.throughput_ops_s, latency(row)))
            .collect()
    };
    let (medians, tails) = (
        points(|row| row.report.latency_us.p50),
        points(|row| row.report.latency_us.p99),
    );
    chart.line(class, &medians);
    chart.line(&format!("{class} dashed"), &tails);
    for (row, (median, tail)) in rows.iter().zip(medians.iter().zip(&tails)) {
        let (report, l) = (&row.report, &row.report.latency_us);
        let title = format!(
            "{}: {} of {} operations/s answered, p50 {}, p99 {}, max {}",
            row.model.as_deref().unwrap_or_default(),
            grouped(report.throughput_ops_s),
            grouped(report.rate),
            time(l.p50),
            time(l.p99),
            time(l.max)
        );
        let is_hollow = report.throughput_ops_s < KEPT * report.rate;
        chart.dot(class, &title, median.0, median.1, is_hollow);
        chart.dot(class, &title, tail.0, tail.1, is_hollow);
    }
}

/// Executions repeated for each operation, of the cases that speculate.
pub(super) fn aborts(results: &Results) -> String {
    let groups = [Group::Models, Group::Alone];
    let all: Vec<&Row> = groups.iter().flat_map(|group| results.group(*group)).collect();
    let models = models(&all);
    let speculating = |row: &&Row| row.report.executor == "speculative" || row.report.aborts_per_op > 0.0;
    let rows: Vec<&Row> = all.into_iter().filter(speculating).collect();
    if rows.is_empty() {
        return String::new();
    }
    let x = Axis::linear(
        "executions of no use, per operation",
        rows.iter().map(|row| row.report.aborts_per_op),
        short,
    );
    let mut chart = Chart::with_rows(rows_size(rows.len()), x, rows.len());
    for (line, row) in rows.iter().enumerate() {
        let (line, aborts) = (line as f64, row.report.aborts_per_op);
        chart.row_name(line + 0.5, &format!("{} · n = {}", load_name(row), row.report.n));
        chart.bar(&class(&models, row), aborts, line + 0.25, 0.5, &short(aborts));
    }
    figure("speculative", &chart.finish("executions repeated"), "")
}
