//! The page of one replica: where it stands, and what it counts.

use ratatui::text::Span;

use super::{DURATIONS_COLUMNS, DURATIONS_COLUMNS_FEW, Pane, graph, list_durations, progress, wrapped};
use crate::tools::cli::top::answer::Answer;
use crate::tools::cli::top::model::Model;
use crate::tools::cli::top::replica::{Contact, ReplicaView};
use crate::tools::cli::top::units::{bytes, rate, short};
use crate::tools::load::grouped;

/// Draws the selected replica.
pub(super) fn draw(model: &Model, pane: &mut Pane<'_>) {
    let Some(replica) = model.replicas.get(model.selected) else {
        return;
    };
    let theme = pane.theme;
    let speed = replica.operations_rate.map_or_else(|| "-".to_owned(), rate);
    pane.line(vec![
        Span::styled(format!("{} ", replica.label), theme.head()),
        Span::raw(format!("at {}   {speed} op/s   ", replica.address)),
        match &replica.contact {
            Contact::Asked => Span::styled("is asked", theme.aside()),
            Contact::Answers if replica.is_ready() => Span::styled("ready", theme.good()),
            Contact::Answers => Span::styled("not ready", theme.notable()),
            Contact::Silent { why, .. } => Span::styled(why.clone(), theme.bad()),
        },
    ]);
    if let Some(answer) = &replica.last {
        standing(model, answer, pane);
    }
    if pane.left.height >= 12 {
        let area = pane.take(2);
        graph(&replica.history, pane, area);
    }
    // What it counts has long names.
    let width = pane.left.width;
    let right = if width < 100 {
        DURATIONS_COLUMNS_FEW
    } else {
        DURATIONS_COLUMNS
    };
    let (mut counters, mut durations) = (pane.left, pane.left);
    counters.width = width.saturating_sub(right + 1).max(width.min(right));
    durations.x += counters.width + 1;
    durations.width = width.saturating_sub(counters.width + 1);
    list_counters(model, replica, &mut Pane::new(pane.buffer, counters, theme));
    let measured = replica.durations();
    list_durations(&measured, &mut Pane::new(pane.buffer, durations, theme));
}

/// Where it stands, in full numbers.
fn standing(model: &Model, answer: &Answer, pane: &mut Pane<'_>) {
    let row = &answer.row;
    let reasons = match answer.unready() {
        [] => String::new(),
        reasons => format!("{}: ", reasons.join(", ")),
    };
    let does = wrapped(&format!("{reasons}{}", row.phase), usize::from(pane.left.width));
    does.into_iter().for_each(|line| pane.line(line));
    pane.line(format!(
        "view {}   ordered {}   durable {}   executed {}   stable {}",
        row.view, row.ordered, row.durable, row.executed, row.stable
    ));
    let lag = model.lag(model.selected).map_or_else(|| "-".to_owned(), grouped);
    let checkpoint = match &row.checkpoint_digest {
        None => "none yet".to_owned(),
        Some(digest) => format!("{digest} at {}", row.checkpoint),
    };
    pane.line(format!(
        "lag {lag}   operations {}   checkpoint {checkpoint}",
        grouped(row.operations)
    ));
    let numbers = match &answer.numbers {
        Err(why) => format!("no /metrics: {why}"),
        Ok(numbers) => format!(
            "disk {}   memory {}   refused {}",
            bytes(numbers.disk_bytes),
            bytes(numbers.memory_bytes),
            short(numbers.refusals)
        ),
    };
    pane.line(format!(
        "links with {} replicas and {} clients   {numbers}",
        row.replica_links, row.client_links
    ));
    if let Some(transfer) = &row.transfer {
        pane.line(progress(transfer));
    }
}

/// The counters that move, the fastest first.
fn list_counters(model: &Model, replica: &ReplicaView, pane: &mut Pane<'_>) {
    let theme = pane.theme;
    let name_width = usize::from(pane.left.width).saturating_sub(16).max(10);
    let head = format!(
        "{:<name_width$} {:>6} {:>7}",
        "counters that move", "per s", "all"
    );
    pane.line(Span::styled(head, theme.head()));
    let mut moving: Vec<(&String, f64)> = replica
        .counter_rates
        .iter()
        .map(|(name, rate)| (name, *rate))
        .collect();
    moving.sort_by(|a, b| b.1.total_cmp(&a.1));
    if moving.is_empty() {
        pane.line(Span::styled("none", theme.aside()));
    }
    let numbers = replica
        .last
        .as_ref()
        .and_then(|answer| answer.numbers.as_ref().ok());
    for (name, per_second) in moving.into_iter().skip(model.scroll) {
        let all = numbers.map_or(0.0, |numbers| numbers.counter(name));
        let name: String = name.chars().take(name_width).collect();
        pane.line(format!(
            "{name:<name_width$} {:>6} {:>7}",
            rate(per_second),
            short(all)
        ));
    }
}
