//! Histograms in the formats of the HdrHistogram tools: a text of percentiles (`.hgrm`), which plotters read,
//! and an interval log (`.hlog`, version 1.3), which keeps every count.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// Values are nanoseconds; the tools show milliseconds.
const NANOS_PER_MS: f64 = 1e6;
/// Lines of the text of percentiles for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
/// The line that names the columns of an interval log.
const LEGEND: &[u8] =
    b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// A histogram that is not one, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum HdrError {
    /// The text is not base64.
    #[error("a histogram is not base64: {0}")]
    Text(#[from] base64::DecodeError),
    /// The bytes are no histogram.
    #[error("a histogram cannot be read: {0}")]
    Read(String),
    /// It cannot be written.
    #[error("a histogram cannot be written: {0}")]
    Write(String),
}

/// A histogram as the text that interval logs hold: V2, deflated, base64.
///
/// # Errors
/// When it cannot be written.
pub fn encode(histogram: &Histogram<u64>) -> Result<String, HdrError> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(|error| HdrError::Write(error.to_string()))?;
    Ok(STANDARD.encode(bytes))
}

/// The histogram of an [`encode`]d text.
///
/// # Errors
/// When the text is none.
pub fn decode(text: &str) -> Result<Histogram<u64>, HdrError> {
    let bytes = STANDARD.decode(text)?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| HdrError::Read(error.to_string()))
}

/// The distribution by percentiles, as `outputPercentileDistribution` of the Java library prints it; values
/// in milliseconds.
#[must_use]
pub fn percentiles(histogram: &Histogram<u64>) -> String {
    let ms = |nanos: f64| nanos / NANOS_PER_MS;
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for value in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += value.count_since_last_iteration();
        let quantile = value.quantile_iterated_to();
        let upper = ms(value.value_iterated_to() as f64);
        // Writing into a string does not fail.
        let _ = write!(text, "{upper:>12.3} {quantile:>14.12} {count:>10}");
        let _ = match quantile < 1.0 {
            true => writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text),
        };
    }
    let digits = u32::from(histogram.sigfig());
    let sub_buckets = (2 * 10u64.pow(digits)).next_power_of_two();
    let _ = write!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
         #[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        ms(histogram.mean()),
        ms(histogram.stdev()),
        ms(histogram.max() as f64),
        histogram.len(),
        histogram.buckets(),
        sub_buckets
    );
    text
}

/// One line of an interval log.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    /// What was measured: without commas and spaces.
    pub tag: &'a str,
    /// When it began, since the log's beginning.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// Latencies in nanoseconds.
    pub latency_ns: &'a Histogram<u64>,
}

/// An interval log that began at `begin`. Its lines hold nanoseconds; the greatest value shown in each is in
/// milliseconds, as the tools expect.
///
/// # Errors
/// When a histogram cannot be written.
pub fn interval_log(begin: SystemTime, comment: &str, lines: &[LogLine<'_>]) -> Result<Vec<u8>, HdrError> {
    let failed = |error: &dyn std::fmt::Display| HdrError::Write(error.to_string());
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(comment)
        .with_start_time(begin)
        .with_base_time(begin)
        .begin_log_with(&mut log, &mut serializer)
        .map_err(|error| failed(&error))?;
    log.extend_from_slice(LEGEND);
    let mut lines_only = Vec::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(NANOS_PER_MS)
        .begin_log_with(&mut lines_only, &mut serializer)
        .map_err(|error| failed(&error))?;
    for line in lines {
        writer
            .write_histogram(line.latency_ns, line.start, line.length, Tag::new(line.tag))
            .map_err(|error| failed(&error))?;
    }
    log.extend_from_slice(&lines_only);
    Ok(log)
}

/// A name for a file or a tag: small letters, digits and single hyphens.
#[must_use]
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars() {
        match letter {
            'a'..='z' | '0'..='9' | '.' => slug.push(letter),
            'A'..='Z' => slug.push(letter.to_ascii_lowercase()),
            'µ' => slug.push('u'),
            '%' => slug.push_str("pct"),
            // A comma between digits groups them.
            ',' => {}
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    fn histogram() -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for value in 1..=1000u64 {
            histogram.record(value * 10_000).unwrap();
        }
        histogram
    }

    #[test]
    fn an_encoded_histogram_comes_back() {
        let text = encode(&histogram()).unwrap();
        assert!(text.starts_with("HISTFAAA"), "{text}");
        assert_eq!(decode(&text).unwrap(), histogram());
    }

    #[test]
    fn texts_that_are_no_histogram_are_refused() {
        assert!(matches!(decode("§"), Err(HdrError::Text(_))));
        assert!(matches!(decode("aGVsbG8="), Err(HdrError::Read(_))));
    }

    #[test]
    fn the_text_of_percentiles_has_the_columns_and_the_footer_the_tools_look_for() {
        let text = percentiles(&histogram());
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0]
                .split_whitespace()
                .eq(["Value", "Percentile", "TotalCount", "1/(1-Percentile)"])
        );
        let median = lines.iter().find(|line| line.contains(" 0.500000000000 "));
        let columns: Vec<&str> = median.unwrap().split_whitespace().collect();
        assert_eq!(columns[2..], ["500", "2.00"]);
        assert!((columns[0].parse::<f64>().unwrap() - 5.0).abs() < 0.01);
        let last = lines[lines.len() - 4];
        assert!(
            last.split_whitespace().skip(1).eq(["1.000000000000", "1000"]),
            "{last}"
        );
        assert!(
            lines[lines.len() - 2].starts_with("#[Max     =") && lines[lines.len() - 2].contains("1000]")
        );
    }

    #[test]
    fn an_interval_log_is_read_back_with_its_tags_and_times() {
        let histogram = histogram();
        let line = |tag, start| LogLine {
            tag,
            start: Duration::from_secs(start),
            length: Duration::from_secs(1),
            latency_ns: &histogram,
        };
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let log = interval_log(begin, "by a test", &[line("a", 0), line("b", 1)]).unwrap();
        let text = String::from_utf8(log.clone()).unwrap();
        assert!(
            text.starts_with("#[Histogram log format version 1.3]\n"),
            "{text}"
        );
        let entries: Vec<_> = IntervalLogIterator::new(&log).map(Result::unwrap).collect();
        let intervals: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        assert!(entries.contains(&LogEntry::BaseTime(Duration::from_secs(1_700_000_000))));
        assert_eq!(intervals.len(), 2);
        assert_eq!(intervals[1].tag().unwrap().as_str(), "b");
        assert_eq!(intervals[1].start_timestamp(), Duration::from_secs(1));
        assert!((intervals[1].max() - 10.0).abs() < 0.01, "milliseconds");
        assert_eq!(decode(intervals[1].encoded_histogram()).unwrap(), histogram);
    }

    #[test]
    fn a_slug_is_fit_for_files_and_tags() {
        let name = slug("single · 64 B · 20 µs · conflict 100 % · 10,000/s");
        assert_eq!(name, "single-64-b-20-us-conflict-100-pct-10000-s");
        assert!(Tag::new(&name).is_some());
    }
}
