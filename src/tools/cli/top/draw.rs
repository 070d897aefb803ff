//! The picture of a model: a function of it and of a rectangle, whatever that is drawn on.

mod replica_page;
mod table;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{RenderDirection, Sparkline, Widget};

use super::histogram::{Histogram, Quantile};
use super::model::{Model, Page, Weight};
use super::units::{age, bytes, duration, short};
use crate::runtime::metrics::TransferRow;
use crate::tools::load::grouped;

/// Columns that a picture without a terminal has.
const PLAIN_COLUMNS: u16 = 80;
/// Lines of the throughput's graph.
const GRAPH_LINES: u16 = 3;
/// Cells of a transfer's bar.
const BAR_CELLS: u64 = 10;
/// Columns of the pane of durations: a name and three durations, or without the mean two.
const DURATIONS_COLUMNS: u16 = 44;
const DURATIONS_COLUMNS_FEW: u16 = 34;

/// What the parts of a picture look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    /// Whether colours may be used.
    pub has_colours: bool,
}

impl Theme {
    fn coloured(self, colour: Color) -> Style {
        if self.has_colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn notable(self) -> Style {
        self.coloured(Color::Yellow)
    }

    fn graph(self) -> Style {
        self.coloured(Color::Cyan)
    }

    fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn aside(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn of(self, weight: Weight) -> Style {
        match weight {
            Weight::Good => self.good(),
            Weight::Notable => self.notable(),
            Weight::Bad => self.bad(),
        }
    }
}

/// A rectangle that is filled from its top on; what does not fit is not drawn.
struct Pane<'a> {
    buffer: &'a mut Buffer,
    left: Rect,
    theme: Theme,
}

impl<'a> Pane<'a> {
    fn new(buffer: &'a mut Buffer, area: Rect, theme: Theme) -> Self {
        Self {
            left: area.intersection(buffer.area),
            buffer,
            theme,
        }
    }

    fn line<'t>(&mut self, line: impl Into<Line<'t>>) {
        if self.left.height > 0 {
            let Rect { x, y, width, .. } = self.left;
            self.buffer.set_line(x, y, &line.into(), width);
            self.take(1);
        }
    }

    /// So many lines from the top, which are somebody else's from now on.
    fn take(&mut self, lines: u16) -> Rect {
        let lines = lines.min(self.left.height);
        let taken = Rect {
            height: lines,
            ..self.left
        };
        self.left.y += lines;
        self.left.height -= lines;
        taken
    }

    /// So many lines from the bottom.
    fn take_from_bottom(&mut self, lines: u16) -> Rect {
        let lines = lines.min(self.left.height);
        self.left.height -= lines;
        Rect {
            y: self.left.y + self.left.height,
            height: lines,
            ..self.left
        }
    }

    fn is_full(&self) -> bool {
        self.left.height == 0
    }
}

/// Draws a model on a terminal.
pub(super) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    let mut pane = Pane::new(frame.buffer_mut(), area, theme);
    let hints = pane.take_from_bottom(1);
    if model.shows_help {
        help(&mut pane);
    } else {
        head(model, &mut pane);
        match model.page {
            Page::Cluster => cluster(model, &mut pane),
            Page::Replica => replica_page::draw(model, &mut pane),
        }
    }
    Pane::new(frame.buffer_mut(), hints, theme).line(keys(model));
}

/// The picture of one moment as plain text, in lines without blanks at their ends.
pub(super) fn plain(model: &Model) -> String {
    let theme = Theme { has_colours: false };
    let durations = model.durations();
    // Each replica has a line, and another one if something is wrong with it.
    let lines = 8 + 2 * model.replicas.len() + durations.len();
    let area = Rect::new(0, 0, PLAIN_COLUMNS, lines as u16);
    let mut buffer = Buffer::empty(area);
    let mut pane = Pane::new(&mut buffer, area, theme);
    head(model, &mut pane);
    throughput(model, &mut pane);
    pane.line("");
    table::draw(model, &mut pane, false);
    if !durations.is_empty() {
        pane.line("");
        list_durations(&durations, &mut pane);
    }
    let rows = (0..area.height).map(|y| {
        let row: String = (0..area.width).map(|x| buffer[(x, y)].symbol()).collect();
        row.trim_end().to_owned()
    });
    let rows: Vec<String> = rows.collect();
    rows.join("\n").trim_end().to_owned() + "\n"
}

/// What is looked at, and how the cluster is.
fn head(model: &Model, pane: &mut Pane<'_>) {
    let theme = pane.theme;
    let (ready, all) = (model.ready(), model.replicas.len());
    let readiness = format!("{ready} of {all} ready");
    let needed = model.quorum().map_or(all, |quorum| quorum.quorum());
    let style = match ready {
        ready if ready == all => theme.good(),
        ready if ready >= needed => theme.notable(),
        _ => theme.bad(),
    };
    let sizes = model.quorum().map_or_else(String::new, |quorum| {
        format!("n = {}, f = {}", quorum.n(), quorum.f())
    });
    let view = model.view().map_or_else(
        || "no view".to_owned(),
        |view| format!("view {view}, {} leads", model.leader().unwrap_or_default()),
    );
    let mut spans = vec![
        Span::styled("atlas top", theme.head()),
        Span::raw(format!("  {sizes}   {view}   ")),
        Span::styled(readiness, style),
    ];
    if model.is_paused {
        spans.push(Span::styled(
            "   PAUSED",
            theme.notable().add_modifier(Modifier::BOLD),
        ));
    }
    spans.push(Span::styled(format!("   {}", model.title), theme.aside()));
    pane.line(spans);
}

/// The page of all replicas.
fn cluster(model: &Model, pane: &mut Pane<'_>) {
    throughput(model, pane);
    // Where there is little room, the replicas come first.
    if pane.left.height >= 12 {
        let area = pane.take(GRAPH_LINES);
        graph(&model.history, pane, area);
    }
    let table = 1 + table::lines(model);
    let below = if pane.left.height > 14 { 6 } else { 0 };
    let area = pane.take((table as u16).min(pane.left.height.saturating_sub(below)));
    let theme = pane.theme;
    table::draw(model, &mut Pane::new(pane.buffer, area, theme), true);
    pane.line("");
    let mut durations = pane.left;
    durations.width = durations.width.min(DURATIONS_COLUMNS);
    let mut events_area = pane.left;
    events_area.x += durations.width + 1;
    events_area.width = events_area.width.saturating_sub(durations.width + 1);
    let measured = model.durations();
    list_durations(&measured, &mut Pane::new(pane.buffer, durations, theme));
    events(model, &mut Pane::new(pane.buffer, events_area, theme));
}

/// How fast the cluster is and was.
fn throughput(model: &Model, pane: &mut Pane<'_>) {
    let now = model.throughput();
    let rate = now.map_or_else(|| "-".to_owned(), |rate| grouped(rate.round() as u64));
    let most = model.history.iter().max().copied().unwrap_or_default();
    let executed = model
        .replicas
        .iter()
        .filter_map(|replica| Some(replica.current()?.row.executed));
    let executed = executed.max().map_or_else(|| "-".to_owned(), grouped);
    let mut spans = vec![
        Span::styled(format!("{rate} op/s"), pane.theme.head()),
        Span::raw(format!("   decision {executed}")),
    ];
    // One sample is the rate itself.
    if model.history.len() > 1 {
        let seconds = model.history.len() as u64 * model.interval.as_millis() as u64 / 1000;
        let span = format!("   at most {} op/s in {}", grouped(most), age(seconds));
        spans.push(Span::styled(span, pane.theme.aside()));
    }
    pane.line(spans);
}

/// Rates over time, the newest at the right.
fn graph(history: &std::collections::VecDeque<u64>, pane: &mut Pane<'_>, area: Rect) {
    // What is out of sight does not set the scale.
    let newest_first = history.iter().rev().take(usize::from(area.width));
    let newest_first: Vec<u64> = newest_first.copied().collect();
    let graph = Sparkline::default()
        .data(&newest_first)
        .direction(RenderDirection::RightToLeft)
        .style(pane.theme.graph());
    graph.render(area, pane.buffer);
}

/// How long what takes, over the last ten looks. Without the mean where there are few columns.
fn list_durations(durations: &[(String, Histogram)], pane: &mut Pane<'_>) {
    let theme = pane.theme;
    let has_mean = pane.left.width + 1 >= DURATIONS_COLUMNS;
    let row = |name: &str, mean: &str, median: &str, p99: &str| {
        let mean = if has_mean {
            format!(" {mean:>8}")
        } else {
            String::new()
        };
        format!("{name:<16}{mean} {median:>8} {p99:>8}")
    };
    let head = row("durations", "mean", "median", "p99");
    pane.line(Span::styled(head, theme.head()));
    let mut measured = durations
        .iter()
        .filter(|(_, histogram)| histogram.count > 0.0)
        .peekable();
    if measured.peek().is_none() {
        pane.line(Span::styled("none were measured", theme.aside()));
    }
    for (name, histogram) in measured {
        let name = name.strip_prefix(super::answer::PHASE).unwrap_or(name);
        let name: String = name.chars().take(16).collect();
        let mean = duration(histogram.sum / histogram.count);
        let quantile = |share| match histogram.quantile(share) {
            None => "-".to_owned(),
            Some(Quantile::Within(at)) => duration(at),
            Some(Quantile::Beyond(at)) => format!(">{}", duration(at)),
        };
        pane.line(row(&name, &mean, &quantile(0.5), &quantile(0.99)));
    }
}

/// What was noticed, the newest first.
fn events(model: &Model, pane: &mut Pane<'_>) {
    let theme = pane.theme;
    pane.line(Span::styled("events", theme.head()));
    if model.events.is_empty() {
        pane.line(Span::styled("none so far", theme.aside()));
    }
    for event in model.events.iter().rev() {
        if pane.is_full() {
            return;
        }
        let ago = age(model.now.saturating_sub(event.at).as_secs());
        let width = usize::from(pane.left.width).saturating_sub(6);
        for (number, text) in wrapped(&event.text, width).into_iter().enumerate() {
            let ago = if number == 0 { ago.as_str() } else { "" };
            pane.line(vec![
                Span::styled(format!("{ago:>5} "), theme.aside()),
                Span::styled(text, theme.of(event.weight)),
            ]);
        }
    }
}

/// How far a state is on its way.
fn progress(transfer: &TransferRow) -> String {
    let of = transfer.pieces_of.max(1);
    let here = transfer.pieces.min(of);
    let full = (u128::from(here) * u128::from(BAR_CELLS) / u128::from(of)) as u64;
    let bar: String = (0..BAR_CELLS)
        .map(|cell| if cell < full { '█' } else { '░' })
        .collect();
    let left = transfer.seconds_left.filter(|left| left.is_finite());
    let left = left.map_or_else(String::new, |left| format!(", {left:.0} s left"));
    format!(
        "state {bar} {here} of {of} pieces, {}B/s{left}",
        bytes(transfer.bytes_per_second as f64)
    )
}

/// A text in lines of so many letters, broken at blanks where there are any; three of them at most.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let letters = word.chars().count();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + letters <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.truncate(3);
    lines
}

/// The last line: what can be pressed.
fn keys(model: &Model) -> Line<'static> {
    let theme = Theme { has_colours: false };
    let order = if model.is_reversed { ", reversed" } else { "" };
    let text = match (model.shows_help, model.page) {
        (true, _) => "any key goes back   q quits".to_owned(),
        (false, Page::Cluster) => format!(
            "q quit  s sort: {}{order}  r reverse  ↑↓ select  Enter zoom  p pause  ? help",
            model.sort_by.name()
        ),
        (false, Page::Replica) => "q quit  Esc back  ↑↓ scroll  p pause  ? help".to_owned(),
    };
    Line::styled(text, theme.aside())
}

fn help(pane: &mut Pane<'_>) {
    let theme = pane.theme;
    pane.line(Span::styled("atlas top", theme.head()));
    pane.line("");
    for (key, does) in [
        ("q, Ctrl-C", "quits; Esc goes back, or quits"),
        ("s", "sorts by the next column"),
        ("r", "reverses the order"),
        ("↑ ↓, k j", "selects a replica"),
        (
            "Enter",
            "shows the selected replica alone: what it counts, per second",
        ),
        ("p", "has the picture stand still, or go on"),
    ] {
        pane.line(format!("{key:<11}{does}"));
    }
    pane.line("");
    for (column, means) in [
        (
            "op/s",
            "operations executed per second; at the top: by f+1 replicas at least",
        ),
        ("executed", "the last decision executed"),
        ("durable", "up to where all is on disk, from there; ahead is +"),
        ("stable", "the last stable checkpoint, from there"),
        ("lag", "decisions behind the replica that executed most"),
        ("links", "with replicas + with clients"),
        ("disk", "bytes of log and snapshots"),
        (
            "refused",
            "messages, frames and handshakes refused since its start",
        ),
        (
            "state",
            "what it does, or why it is not ready, as /readyz says it",
        ),
        ("*", "leads the view that most are in"),
        (
            "durations",
            "the last ten looks, all replicas together; turns are 1 of 64",
        ),
    ] {
        pane.line(format!("{column:<11}{means}"));
    }
}

/// A number, or a dash where there is none.
fn or_dash(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), short)
}
