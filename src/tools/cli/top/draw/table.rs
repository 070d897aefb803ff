//! A line for each replica.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::{Pane, or_dash, progress};
use crate::tools::cli::top::answer::Answer;
use crate::tools::cli::top::model::{Model, SortBy};
use crate::tools::cli::top::replica::{Contact, ReplicaView};
use crate::tools::cli::top::units::{age, bytes, rate, short, signed};

/// Columns before the state.
const COLUMNS: [(&str, usize, Option<SortBy>); 9] = [
    ("node", 6, Some(SortBy::Node)),
    ("op/s", 7, Some(SortBy::Rate)),
    ("executed", 9, Some(SortBy::Executed)),
    ("durable", 7, None),
    ("stable", 6, None),
    ("lag", 6, Some(SortBy::Lag)),
    ("links", 5, None),
    ("disk", 5, Some(SortBy::Disk)),
    ("refused", 7, Some(SortBy::Refused)),
];

/// Where a replica's second line begins.
const INDENT: &str = "       ";

/// How many lines the replicas need.
pub(super) fn lines(model: &Model) -> usize {
    let words = model
        .replicas
        .iter()
        .filter(|replica| words(model, replica).is_some());
    model.replicas.len() + words.count()
}

/// Draws the replicas that there is room for, the selected one among them if there is a selection.
pub(super) fn draw(model: &Model, pane: &mut Pane<'_>, has_selection: bool) {
    pane.line(head(model, pane));
    let order = model.order();
    let selected = order
        .iter()
        .position(|index| *index == model.selected)
        .unwrap_or_default();
    // Each takes two lines at most.
    let room = usize::from(pane.left.height / 2).max(1);
    let fits = lines(model) <= usize::from(pane.left.height);
    let first = if fits || !has_selection {
        0
    } else {
        (selected + 1).saturating_sub(room)
    };
    for index in order.into_iter().skip(first) {
        let replica = &model.replicas[index];
        let mut line = row(model, index, pane);
        if has_selection && index == model.selected {
            line = line.style(pane.theme.head().add_modifier(Modifier::REVERSED));
        }
        pane.line(line);
        if let Some(words) = words(model, replica) {
            let words = format!("{INDENT}{words}");
            pane.line(Span::styled(words, pane.theme.aside()));
        }
    }
}

fn head<'a>(model: &Model, pane: &Pane<'_>) -> Line<'a> {
    let head = pane.theme.head();
    let style = |by: Option<SortBy>| match by == Some(model.sort_by) {
        true => head.add_modifier(Modifier::UNDERLINED),
        false => head,
    };
    let mut spans = Vec::new();
    for (index, (name, width, by)) in COLUMNS.into_iter().enumerate() {
        let text = if index == 0 {
            format!("  {name}")
        } else {
            name.to_owned()
        };
        let blanks = (width + usize::from(index > 0)).saturating_sub(text.len());
        if index > 0 {
            spans.push(Span::raw(" ".repeat(blanks)));
        }
        spans.push(Span::styled(text, style(by)));
        if index == 0 {
            spans.push(Span::raw(" ".repeat(blanks)));
        }
    }
    spans.push(Span::raw(" "));
    spans.push(Span::styled("state", style(Some(SortBy::State))));
    Line::from(spans)
}

fn row<'a>(model: &Model, index: usize, pane: &Pane<'_>) -> Line<'a> {
    let (replica, theme) = (&model.replicas[index], pane.theme);
    let leads = model.leader().is_some_and(|leader| leader == replica.label);
    let mark = if leads { "*" } else { "" };
    let name: String = format!("{}{mark}", replica.label).chars().take(22).collect();
    let cells = match replica.current() {
        None => ["-", "-", "-", "-", "-", "-", "-", "-"].map(str::to_owned),
        Some(answer) => {
            let row = &answer.row;
            let numbers = answer.numbers.as_ref().ok();
            let from_executed = |seq: u64| signed(i128::from(seq) - i128::from(row.executed));
            [
                replica.operations_rate.map_or_else(|| "-".to_owned(), rate),
                executed(row.executed),
                from_executed(row.durable),
                from_executed(row.stable),
                or_dash(model.lag(index).map(|lag| lag as f64)),
                format!("{}+{}", row.replica_links, short(row.client_links as f64)),
                numbers.map_or_else(|| "-".to_owned(), |numbers| bytes(numbers.disk_bytes)),
                or_dash(numbers.map(|numbers| numbers.refusals)),
            ]
        }
    };
    let mut text = format!("  {name:<4}");
    // A name that is an address takes the place of the first numbers, until the replica has told its own.
    let mut width = COLUMNS[0].1;
    for (cell, (_, column, _)) in cells.iter().zip(&COLUMNS[1..]) {
        width += column + 1;
        let blanks = width
            .saturating_sub(text.chars().count() + cell.chars().count())
            .max(1);
        text.push_str(&" ".repeat(blanks));
        text.push_str(cell);
    }
    let (state, style) = match (&replica.contact, replica.is_ready()) {
        (Contact::Asked, _) => ("is asked".to_owned(), theme.aside()),
        (Contact::Silent { .. }, _) => ("no answer".to_owned(), theme.bad()),
        (Contact::Answers, true) => (phase(replica), theme.good()),
        (Contact::Answers, false) => (reason(replica), theme.notable()),
    };
    Line::from(vec![Span::raw(text + " "), Span::styled(state, style)])
}

/// A decision's number in nine columns.
fn executed(seq: u64) -> String {
    if seq > 999_999_999 {
        short(seq as f64)
    } else {
        seq.to_string()
    }
}

fn phase(replica: &ReplicaView) -> String {
    replica
        .current()
        .map_or_else(String::new, |answer| answer.row.phase.clone())
}

/// The first reason why it is not ready; the others are in its second line.
fn reason(replica: &ReplicaView) -> String {
    let reasons = replica.current().map_or(&[][..], Answer::unready);
    reasons.first().cloned().unwrap_or_default()
}

/// What one that is not ready does, in words: how far a state is, if one comes.
fn does(answer: &Answer) -> String {
    let does = answer
        .row
        .transfer
        .as_ref()
        .map_or_else(|| answer.row.phase.clone(), progress);
    match answer.unready() {
        [] | [_] => does,
        [_, others @ ..] => format!("also {}; {does}", others.join(", ")),
    }
}

/// What a second line says of a replica that does not do its part.
fn words(model: &Model, replica: &ReplicaView) -> Option<String> {
    match &replica.contact {
        Contact::Asked => None,
        Contact::Answers if replica.is_ready() => None,
        Contact::Answers => replica.current().map(does),
        Contact::Silent { since, why } => {
            let ago = age(model.now.saturating_sub(*since).as_secs());
            let last = replica.last.as_ref().map(|answer| answer.row.executed);
            let last = last.map_or_else(String::new, |seq| format!(", last seen at decision {seq}"));
            let address = match replica.address.as_str() {
                "" => String::new(),
                address => format!("{address}: "),
            };
            Some(format!("{address}{why}, for {ago}{last}"))
        }
    }
}
