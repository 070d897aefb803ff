//! Prometheus' text format, as far as a view needs it: its samples. What is no sample is passed over.

/// Labels of a sample that are read.
const LABELS_MAX: usize = 16;

/// A number with its name and labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'a> {
    pub name: &'a str,
    pub labels: Vec<(&'a str, String)>,
    pub value: f64,
}

impl Sample<'_> {
    /// What a label says; nothing if the sample has no such label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| *label == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The samples of a page, in its order.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter_map(sample)
}

/// `name{label="value",…} value`, and perhaps the time after it.
fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let end = line
        .find(|letter: char| !is_of_name(letter))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// What stands between braces, and what follows.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start().trim_start_matches(',').trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        let name = name.trim();
        if name.is_empty() || !name.chars().all(is_of_name) || found.len() == LABELS_MAX {
            return None;
        }
        found.push((name, value));
        rest = after;
    }
}

/// What stands before the closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            other => value.push(other),
        }
    }
    None
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sample_is_a_name_its_labels_and_a_number() {
        let text = "# HELP a_total Help.\n# TYPE a_total counter\na_total 3\n\
            b{node=\"r0\",le=\"+Inf\"} 1.5e3 1700000000\nc { x = \"a\\\"b\\\\c\\nd}\" , } +Inf\n";
        let found: Vec<_> = samples(text).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].name, found[0].value), ("a_total", 3.0));
        assert_eq!((found[1].label("le"), found[1].value), (Some("+Inf"), 1500.0));
        assert_eq!(found[1].label("nothing"), None);
        let escaped = sample("c{x=\"a\\\"b\\\\c\\nd}\",} +Inf").unwrap();
        assert_eq!(escaped.label("x"), Some("a\"b\\c\nd}"));
        assert!(escaped.value.is_infinite());
    }

    #[test]
    fn what_is_no_sample_is_passed_over() {
        for line in [
            "",
            "#",
            "{a=\"b\"} 1",
            "a",
            "a{",
            "a{b",
            "a{b=",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\\",
            "a{=\"c\"} 1",
            "a{b=\"c\"}",
            "a b",
            "1a 1",
            "<html>",
        ] {
            assert_eq!(sample(line), None, "{line}");
        }
        let many: String = (0..=LABELS_MAX).map(|label| format!("l{label}=\"v\",")).collect();
        assert_eq!(sample(&format!("a{{{many}}} 1")), None);
    }

    proptest! {
        #[test]
        fn any_text_has_samples_or_none(text in "[a-z_]{0,3}[{}=\", \\\\a-z0-9_.+\n#-]{0,80}|\\PC{0,80}") {
            for sample in samples(&text) {
                prop_assert!(!sample.name.is_empty() && sample.labels.len() <= LABELS_MAX);
            }
        }
    }
}
