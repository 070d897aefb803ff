use super::super::chart::escape;
use super::super::report::{grouped, latency};
use super::super::table::{aborts, cpu};
use super::super::{Group, Report, Results, Row};
use super::{by_load, models};

/// A ratio this far from one stands out.
const NOTABLE: f64 = 0.1;

/// What each other model does beside the first one of its load: a line for each load.
pub(super) fn in_short(results: &Results) -> String {
    let mut body = String::new();
    for group in [Group::Models, Group::Alone, Group::Reads] {
        let rows: Vec<&Row> = results.group(group).collect();
        let models = models(&rows);
        let Some((base, others)) = models.split_first().filter(|(_, others)| !others.is_empty()) else {
            continue;
        };
        let columns = others.iter().map(|model| {
            let colour = models.iter().position(|other| other == model).unwrap_or(0) % 6;
            format!(
                "<th colspan=3><span class='key s{colour}'>{}</span></th>",
                escape(model)
            )
        });
        body.push_str(&format!(
            "<tr class=head><td>{}, beside \"{}\"</td>{}</tr><tr><td></td>{}</tr>",
            group.title(),
            escape(base),
            columns.collect::<String>(),
            "<th>operations/s</th><th>p99</th><th>CPU/op</th>".repeat(others.len())
        ));
        for (name, rows) in by_load(&rows) {
            let find = |model: &str| rows.iter().find(|row| row.model.as_deref() == Some(model));
            let Some(base) = find(base) else { continue };
            let cells = others.iter().map(|model| match find(model) {
                Some(row) => beside(row, base),
                None => "<td></td>".repeat(3),
            });
            body.push_str(&format!(
                "<tr><td>{}</td>{}</tr>",
                escape(&name),
                cells.collect::<String>()
            ));
        }
    }
    match body.is_empty() {
        true => String::new(),
        false => format!("<figure class=scroll><table>{body}</table></figure>"),
    }
}

/// A row's throughput, tail and CPU time, divided by another one's.
fn beside(row: &Row, base: &Row) -> String {
    let ratio =
        |figure: fn(&Report) -> f64| figure(&row.report) / figure(&base.report).max(f64::MIN_POSITIVE);
    let cell = |ratio: f64, more_is_better: bool| {
        let class = match (ratio > 1.0 + NOTABLE, ratio < 1.0 - NOTABLE) {
            (false, false) => "quiet",
            (more, _) if more == more_is_better => "good",
            _ => "bad",
        };
        format!("<td class={class}>{ratio:.2} ×</td>")
    };
    [
        cell(ratio(|report| report.throughput_ops_s), true),
        cell(ratio(|report| report.latency_us.p99), false),
        cell(ratio(|report| report.cpu_us_per_op_per_replica), false),
    ]
    .concat()
}

/// The machine's limits, and what an operation of the first single case needs of each.
pub(super) fn limits(results: &Results) -> String {
    let Some(limits) = &results.limits else {
        return String::new();
    };
    let rows = limits.rows().into_iter();
    let rows = rows.map(|(name, value)| format!("<tr><td>{name}</td><td>{value}</td></tr>"));
    let mut html = format!(
        "<div class=panels><figure><table>{}</table></figure>",
        rows.collect::<String>()
    );
    let case = results.group(Group::Cases).next().or(results.rows.first());
    if let Some(row) = case {
        let floor = limits.floor(&row.report);
        let total: f64 = floor.iter().map(|(_, us)| us).sum();
        let measured = row.report.cpu_us_per_op_per_replica;
        let line = |name: &str, us: f64| {
            format!(
                "<tr><td>{name}</td><td>{us:.3} µs</td><td>{:.0} %</td></tr>",
                100.0 * us / measured.max(f64::MIN_POSITIVE)
            )
        };
        let terms: String = floor.iter().map(|(name, us)| line(name, *us)).collect();
        html.push_str(&format!(
            "<figure><figcaption>\"{}\": the least CPU time per operation and replica</figcaption>\
             <table>{terms}{}{}</table></figure>",
            escape(&row.case),
            line("together", total),
            line("measured", measured)
        ));
    }
    html + "</div>"
}

/// Every case in one table.
pub(super) fn all(results: &Results) -> String {
    let mut body = String::new();
    for group in Group::ALL {
        for (place, row) in results.group(group).enumerate() {
            if place == 0 {
                body.push_str(&format!(
                    "<tr class=head><td colspan=11>{}</td></tr>",
                    group.title()
                ));
            }
            body.push_str(&line(results, row));
        }
    }
    if body.is_empty() {
        return body;
    }
    let heads = [
        "case",
        "load",
        "operations/s",
        "p50",
        "p99",
        "p99.9",
        "max",
        "repeated/op",
        "CPU/op·replica",
        "floor",
        "errors",
    ];
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    format!("<div class=scroll><table><tr>{heads}</tr>{body}</table></div>")
}

fn line(results: &Results, row: &Row) -> String {
    let (report, l) = (&row.report, &row.report.latency_us);
    let pace = match report.outstanding {
        0 => format!("{}/s asked", grouped(report.rate)),
        outstanding => format!("{} outstanding", grouped(outstanding as f64)),
    };
    let share = results.limits.as_ref().map(|limits| 100.0 * limits.share(report));
    let cells = [
        escape(&row.case),
        format!("{}, {pace}", report.app),
        grouped(report.throughput_ops_s),
        latency(l.p50),
        latency(l.p99),
        latency(l.p999),
        latency(l.max),
        aborts(report),
        cpu(report.cpu_us_per_op_per_replica),
        share.map_or_else(String::new, |share| format!("{share:.0} %")),
        report.errors.to_string(),
    ];
    let cells = cells.map(|cell| format!("<td>{cell}</td>"));
    format!("<tr>{}</tr>", cells.concat())
}
