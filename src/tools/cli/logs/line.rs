//! One line of logs, for people or for programs. Whatever a message contains, it stays one line, and a terminal
//! is told nothing by it.

use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::runtime::config::LogFormat;
use crate::runtime::metrics::LogContext;

/// Lines are objects from then on. A line that is under way in another thread may still look as before.
static IS_JSON: AtomicBool = AtomicBool::new(false);

pub(super) fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Whether lines are objects.
pub(in crate::tools::cli) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogLine {
    /// Lines for people are coloured.
    pub in_colour: bool,
}

impl<S, N> FormatEvent<S, N> for LogLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let target = said.target.take();
        let target = target.as_deref().unwrap_or(event.metadata().target());
        let line = Line::new(event.metadata().level(), target, said);
        if is_json() {
            return writeln!(to, "{}", line.json());
        }
        line.write_text(&mut to, self.in_colour)
    }
}

/// A message that is no event, as it is written to standard error: what people are told is as it is.
pub(in crate::tools::cli) fn of_message(level: Level, text: String) -> Vec<u8> {
    if !is_json() {
        return text.into_bytes();
    }
    let message = text.trim_end();
    let message = message.strip_prefix("atlas: ").unwrap_or(message).to_owned();
    let said = Said {
        message,
        ..Said::default()
    };
    let mut line = Line::new(&level, "atlas", said).json();
    line.push('\n');
    line.into_bytes()
}

/// What an event says.
#[derive(Debug, Default)]
struct Said {
    message: String,
    /// Of an event of the crate `log`: its metadata come as fields.
    target: Option<String>,
    fields: Map<String, Value>,
}

impl Said {
    fn take(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = value,
            name if name.starts_with("log.") => {}
            _ => self.take(field, Value::String(value)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            _ => self.take(field, value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            self.take(field, value.into());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }
}

/// What a line says; its names are those of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    level: &'a str,
    node: Option<String>,
    view: Option<u64>,
    epoch: Option<u64>,
    thread: Option<String>,
    target: &'a str,
    message: String,
    fields: Map<String, Value>,
}

impl<'a> Line<'a> {
    fn new(level: &Level, target: &'a str, said: Said) -> Self {
        let mut time = String::new();
        // A clock that cannot be written leaves it empty.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let context = LogContext::current();
        let context = context.as_ref();
        Self {
            time,
            level: level.as_str(),
            node: context.map(|context| context.node().to_string()),
            view: context.map(|context| context.view().get()),
            epoch: context.map(|context| context.epoch().get()),
            thread: std::thread::current().name().map(str::to_owned),
            target,
            message: said.message,
            fields: said.fields,
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn write_text(&self, to: &mut Writer<'_>, in_colour: bool) -> fmt::Result {
        let (colour, dim, plain) = if in_colour {
            (colour_of(self.level), "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        write!(to, "{dim}{}{plain} {colour}{:>5}{plain}", self.time, self.level)?;
        if let (Some(node), Some(view), Some(epoch)) = (&self.node, self.view, self.epoch) {
            write!(to, " node={node} view={view} epoch={epoch}")?;
        }
        write!(to, " {dim}{}:{plain} ", self.target)?;
        write_visible(to, &self.message)?;
        for (name, value) in &self.fields {
            write!(to, " {name}=")?;
            match value {
                Value::String(text) if is_a_word(text) => write!(to, "{text}")?,
                Value::String(text) => write!(to, "{text:?}")?,
                other => write!(to, "{other}")?,
            }
        }
        writeln!(to)
    }
}

/// Whether a text needs no quotes to be told from what follows.
fn is_a_word(text: &str) -> bool {
    let is_part = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    !text.is_empty() && text.chars().all(is_part)
}

/// Writes a text without what would begin another line, or steer a terminal.
fn write_visible(to: &mut Writer<'_>, text: &str) -> fmt::Result {
    for letter in text.chars() {
        if letter.is_control() {
            write!(to, "{}", letter.escape_default())?;
        } else {
            to.write_char(letter)?;
        }
    }
    Ok(())
}

/// The ANSI colour of a level: red, yellow, green, blue, magenta.
fn colour_of(level: &str) -> &'static str {
    match level {
        "ERROR" => "\x1b[31m",
        "WARN" => "\x1b[33m",
        "INFO" => "\x1b[32m",
        "DEBUG" => "\x1b[34m",
        _ => "\x1b[35m",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::runtime::metrics::Metrics;
    use crate::smr::types::{Epoch, NodeId};

    fn said() -> Said {
        let fields = [
            ("error", Value::from("no \"space\"\nleft")),
            ("peer", Value::from("r2")),
            ("held_back", Value::from(7_u64)),
        ];
        Said {
            message: "a link\x1b[31m is\nrefused".to_owned(),
            target: None,
            fields: fields
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
        }
    }

    fn text_of(line: &Line<'_>, in_colour: bool) -> String {
        let mut text = String::new();
        line.write_text(&mut Writer::new(&mut text), in_colour).unwrap();
        text
    }

    #[test]
    fn a_line_names_replica_view_and_epoch_and_stays_one_line_whatever_it_says() {
        let metrics = Arc::new(Metrics::new(NodeId::new(3)));
        metrics.publish_epoch(Epoch::new(1));
        LogContext::new(metrics).enter();
        let line = Line::new(&Level::WARN, "atlas_smr_replica::x", said());
        let text = text_of(&line, false);
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{time}");
        assert_eq!(
            rest,
            " WARN node=r3 view=0 epoch=1 atlas_smr_replica::x: a link\\u{1b}[31m is\\nrefused \
             error=\"no \\\"space\\\"\\nleft\" held_back=7 peer=r2\n"
        );
        assert!(text_of(&line, true).contains("\x1b[33m WARN\x1b[0m"));

        let json: Value = serde_json::from_str(&line.json()).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let expected = [
            "epoch", "fields", "level", "message", "node", "target", "thread", "time", "view",
        ];
        assert_eq!(keys, expected);
        assert_eq!(
            (&json["node"], &json["view"], &json["epoch"]),
            (&"r3".into(), &0.into(), &1.into())
        );
        assert_eq!(json["message"], "a link\x1b[31m is\nrefused");
        assert_eq!(json["fields"]["held_back"], 7);
        assert!(!line.json().contains('\n'));
    }

    #[test]
    fn a_line_of_no_replica_says_so() {
        let line = std::thread::spawn(|| {
            let line = Line::new(&Level::INFO, "t", said());
            (text_of(&line, false), line.json())
        });
        let (text, json) = line.join().unwrap();
        assert!(text.contains("  INFO t: ") && !text.contains("node="), "{text}");
        let json: Value = serde_json::from_str(&json).unwrap();
        assert!(json["node"].is_null() && json["view"].is_null() && json["epoch"].is_null());
    }
}
