//! The report of a run as one self-contained page: nothing in it is fetched from anywhere.

mod figures;
mod tables;

use super::chart::{escape, short};
use super::hdr::HdrError;
use super::report::grouped;
use super::{Group, Results, Row};

const STYLE: &str = include_str!("style.css");

/// How it was measured, in the page's own words; `perf/README.md` has the whole of it.
const METHOD: &str = "<p>Latency counts from the time an operation was meant to be sent. In a closed loop that is when one of the \
    outstanding operations ended: it shows what the system can do, and its latency follows from its throughput. In the open loop operations are due at fixed \
    times whatever the system does, so a stall is charged to every operation it delays (no coordinated omission): compare latencies there.</p>\
    <p>All replicas, all clients and the load share the cores named above. Conclude what an operation costs (CPU time); do not conclude \
    what one replica per machine does, nor what more cores give to a model that uses several threads. \
    Others on the machine halve a figure easily: compare within one run.</p>";

/// The report of a run as HTML.
///
/// # Errors
/// When a case's latencies are not readable.
pub fn page(results: &Results) -> Result<String, HdrError> {
    let mut body = header(results);
    let mut section = |title: &str, text: &str, content: String| {
        if !content.is_empty() {
            body.push_str(&format!("<h2>{title}</h2><p class=quiet>{text}</p>{content}"));
        }
    };
    section(
        "In short",
        "Each model's figure divided by that of the first model under the same load: more operations are better, and less of the others. \
         A load is named by the processor time of an operation, the share of operations that touch one and the same key, and the bytes of \
         an operation.",
        tables::in_short(results),
    );
    section(
        "Throughput by model",
        "One line for each load, one dot for each model; the scale is logarithmic. Closed loop.",
        figures::throughput(results, Group::Models),
    );
    section(
        "Latency by model",
        "How the latencies of one load are spread, models laid over each other. Closed loop; the scale is logarithmic.",
        figures::histograms(results, Group::Models)?,
    );
    section(
        "Latency at a given rate",
        "Open loop. Full lines are medians, broken lines are what 99 of 100 stay below; a hollow dot could not keep the rate.",
        figures::sweep(results),
    );
    section(
        "Executions repeated",
        "Only speculation repeats: the single-threaded and the mixed model execute every operation once.",
        figures::aborts(results),
    );
    section(
        Group::Reads.title(),
        "The same load, its reads ordered like writes, or answered by the replicas at once.",
        figures::histograms(results, Group::Reads)?,
    );
    section(
        Group::Alone.title(),
        "What the models do when a replica does not share its cores with others: nothing is replicated here, so this is the \
         executor with the network and the log around it.",
        figures::throughput(results, Group::Alone),
    );
    section(
        "What this machine can do at most",
        "Each term of an operation's cost, measured alone in the same run with the same primitives.",
        tables::limits(results),
    );
    section("All cases", "", tables::all(results));
    section("How it was measured", "", METHOD.to_owned());
    Ok(format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content='width=device-width, initial-scale=1'>\
         <title>Execution models of Atlas SMR Replica</title>\n<style>\n{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    ))
}

fn header(results: &Results) -> String {
    let parameters = &results.parameters;
    let pairs = [
        (
            "machine",
            format!(
                "{}, {} cores, Linux {}",
                results.machine, results.cores, results.kernel
            ),
        ),
        ("commit", results.commit.clone()),
        ("command", results.command.clone()),
        (
            "each case",
            format!(
                "{} s measured after {} s of warm-up, {} run{}, durability {}",
                short(parameters.seconds),
                short(parameters.warm_up_seconds),
                parameters.repeats,
                if parameters.repeats == 1 {
                    ""
                } else {
                    "s, the median shown"
                },
                parameters.durability
            ),
        ),
    ];
    let rows = pairs.map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(&value)));
    format!(
        "<h1>Execution models of Atlas SMR Replica</h1><dl>{}</dl>",
        rows.concat()
    )
}

/// The models of a group, in the order they appear.
fn models<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let mut models = Vec::new();
    for model in rows.iter().filter_map(|row| row.model.as_deref()) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    models
}

/// The class that gives a model its colour.
fn class(models: &[&str], row: &Row) -> String {
    let place = models
        .iter()
        .position(|model| Some(*model) == row.model.as_deref());
    format!("s{}", place.unwrap_or(0) % 6)
}

fn legend(entries: impl Iterator<Item = (String, String)>) -> String {
    let entries = entries.map(|(class, text)| format!("<span class={class}>{}</span>", escape(&text)));
    format!("<div class=legend>{}</div>", entries.collect::<String>())
}

/// What a load is like, apart from the model: the same for all models of one comparison.
fn load_name(row: &Row) -> String {
    let (report, shape) = (&row.report, &row.report.shape);
    format!(
        "{} µs · {} % conflict · {} B",
        short(report.compute_us),
        short(100.0 * shape.conflict),
        grouped(report.payload_bytes as f64)
    )
}

/// The loads of a group in order, each with its rows.
fn by_load<'a>(rows: &[&'a Row]) -> Vec<(String, Vec<&'a Row>)> {
    let mut loads: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let name = load_name(row);
        match loads.iter_mut().find(|(load, _)| *load == name) {
            Some((_, rows)) => rows.push(row),
            None => loads.push((name, vec![row])),
        }
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{results, row};
    use super::*;

    #[test]
    fn a_page_fetches_nothing_and_names_every_case_and_model() {
        let mut rows = vec![row("a", "single", 1000.0), row("b", "speculative", 1500.0)];
        rows[1].report.aborts_per_op = 0.25;
        let mut swept = row("at a rate", "single", 500.0);
        (swept.group, swept.report.rate) = (Group::Sweep, 500.0);
        rows.push(swept);
        let page = page(&results(rows)).unwrap();
        for text in [
            "single",
            "speculative",
            "at a rate",
            "a processor",
            "0.25",
            "</html>",
        ] {
            assert!(page.contains(text), "{text}");
        }
        for word in [
            "http:", "https:", "src=", "url(", "@import", "<script", "<link", "NaN", "inf",
        ] {
            assert!(!page.contains(word), "{word}");
        }
        assert_eq!(
            page.matches("<svg").count(),
            4,
            "throughput, one load, the sweep, repetitions"
        );
    }

    #[test]
    fn names_from_a_file_cannot_leave_their_place_in_the_page() {
        let mut results = results(vec![row("<img>", "<b>", 1000.0)]);
        results.command = "<script>".to_owned();
        let page = page(&results).unwrap();
        assert!(!page.contains("<img>") && !page.contains("<b>") && !page.contains("<script>"));
    }

    #[test]
    fn a_case_without_latencies_is_shown_in_the_table_alone() {
        let mut row = row("a", "single", 1000.0);
        row.latency_histogram.clear();
        assert!(page(&results(vec![row])).unwrap().contains("All cases"));
    }

    #[test]
    fn latencies_that_cannot_be_read_are_an_error() {
        let mut row = row("a", "single", 1000.0);
        row.latency_histogram = "AAAA".to_owned();
        assert!(page(&results(vec![row])).is_err());
    }
}
