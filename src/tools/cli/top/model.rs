//! A whole cluster as it is seen from outside: fed with times, answers and keys, and read by whoever draws
//! it. It asks nobody and reads no clock.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use super::answer::Answer;
use super::histogram::Histogram;
use super::replica::{Change, ReplicaView, push};
use super::sources::SOURCES_MAX;
use crate::smr::types::{Quorum, View};

/// What was noticed last, so much of it.
const EVENTS_MAX: usize = 200;

/// A key, as far as one does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Enter,
    Escape,
    /// Ctrl-C.
    Interrupt,
    Letter(char),
}

/// Whether the view goes on after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Quit,
}

/// What replicas are in the order of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortBy {
    Node,
    Rate,
    Executed,
    Lag,
    Disk,
    Refused,
    State,
}

impl SortBy {
    /// Every one, in the order in which the key goes through them.
    const ALL: [Self; 7] = [
        Self::Node,
        Self::Rate,
        Self::Executed,
        Self::Lag,
        Self::Disk,
        Self::Refused,
        Self::State,
    ];

    /// Its column's head.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Rate => "op/s",
            Self::Executed => "executed",
            Self::Lag => "lag",
            Self::Disk => "disk",
            Self::Refused => "refused",
            Self::State => "state",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|own| *own == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Good,
    Notable,
    Bad,
}

/// Something that was noticed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopEvent {
    pub at: Duration,
    pub weight: Weight,
    pub text: String,
}

/// What the screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// All replicas.
    Cluster,
    /// The selected one.
    Replica,
}

/// A cluster, and how it is looked at.
#[derive(Debug)]
pub(super) struct Model {
    /// What is looked at, in words.
    pub title: String,
    /// In the order of their endpoints.
    pub replicas: Vec<ReplicaView>,
    /// The cluster's operations per second, the newest last.
    pub history: VecDeque<u64>,
    /// The newest last.
    pub events: VecDeque<TopEvent>,
    /// The time of what is shown, since the view began.
    pub now: Duration,
    /// Between two samples.
    pub interval: Duration,
    pub page: Page,
    pub shows_help: bool,
    pub is_paused: bool,
    pub sort_by: SortBy,
    pub is_reversed: bool,
    /// Which of `replicas`.
    pub selected: usize,
    /// Lines of a replica's page that are passed over.
    pub scroll: usize,
    view: Option<u64>,
}

impl Model {
    /// Of replicas that were not asked yet: what each is called and where it is asked.
    pub fn new(title: String, sources: Vec<(String, String)>, interval: Duration) -> Self {
        let replicas = sources.into_iter();
        Self {
            title,
            replicas: replicas
                .map(|(label, address)| ReplicaView::new(label, address))
                .collect(),
            history: VecDeque::new(),
            events: VecDeque::new(),
            now: Duration::ZERO,
            interval,
            page: Page::Cluster,
            shows_help: false,
            is_paused: false,
            sort_by: SortBy::Node,
            is_reversed: false,
            selected: 0,
            scroll: 0,
            view: None,
        }
    }

    /// A replica answered, or why it did not.
    pub fn on_answer(&mut self, at: Duration, replica: usize, answer: Result<Answer, String>) {
        let Some(view) = self.replicas.get_mut(replica) else {
            return;
        };
        if self.is_paused {
            view.hear(at);
            return;
        }
        self.now = self.now.max(at);
        for change in view.on_answer(at, answer) {
            self.note_change(replica, &change);
        }
    }

    /// A round of questions has ended, and the next begins.
    pub fn on_round(&mut self, at: Duration) {
        if self.is_paused {
            return;
        }
        self.now = self.now.max(at);
        for index in 0..self.replicas.len() {
            if let Some(change) = self.replicas[index].on_time(at) {
                self.note_change(index, &change);
            }
            self.replicas[index].keep_history();
        }
        let rate = self.throughput().unwrap_or(0.0);
        push(&mut self.history, rate);
        self.note_view();
    }

    /// A key was pressed.
    pub fn on_key(&mut self, key: Key) -> Flow {
        match key {
            Key::Interrupt | Key::Letter('q' | 'Q') => return Flow::Quit,
            _ if self.shows_help => self.shows_help = false,
            Key::Escape if self.page == Page::Cluster => return Flow::Quit,
            Key::Escape => self.page = Page::Cluster,
            Key::Enter => self.zoom(),
            Key::Up | Key::Letter('k') => self.step(-1),
            Key::Down | Key::Letter('j') => self.step(1),
            Key::Letter('s') => self.sort_by = self.sort_by.next(),
            Key::Letter('r') => self.is_reversed = !self.is_reversed,
            Key::Letter('p') => self.is_paused = !self.is_paused,
            Key::Letter('?' | 'h') => self.shows_help = true,
            Key::Letter(_) => {}
        }
        Flow::Continue
    }

    fn zoom(&mut self) {
        self.scroll = 0;
        self.page = match self.page {
            Page::Cluster => Page::Replica,
            Page::Replica => Page::Cluster,
        };
    }

    /// Down by one, or up: the selection, or what is scrolled.
    fn step(&mut self, by: isize) {
        if self.page == Page::Replica {
            let replica = self.replicas.get(self.selected);
            let end = replica.map_or(0, |replica| replica.counter_rates.len().saturating_sub(1));
            self.scroll = self.scroll.saturating_add_signed(by).min(end);
            return;
        }
        let order = self.order();
        let at = order.iter().position(|index| *index == self.selected);
        let at = at.unwrap_or_default().saturating_add_signed(by);
        if let Some(index) = order.get(at) {
            self.selected = *index;
        }
    }

    /// The replicas in the order in which they are shown.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.replicas.len()).collect();
        // A stable sort, largest first: replicas that are alike stay in the order of their endpoints.
        order.sort_by(|a, b| {
            let ordering = self.compare(*a, *b);
            if self.is_reversed {
                ordering.reverse()
            } else {
                ordering
            }
        });
        order
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let by = |of: fn(&Self, usize) -> f64| of(self, b).total_cmp(&of(self, a));
        let numbers = |this: &Self, index: usize, of: fn(&super::answer::Numbers) -> f64| {
            let answer = this.replicas[index].current();
            answer
                .and_then(|answer| answer.numbers.as_ref().ok())
                .map_or(-1.0, of)
        };
        match self.sort_by {
            SortBy::Node => a.cmp(&b),
            SortBy::Rate => by(|this, index| this.replicas[index].operations_rate.unwrap_or(-1.0)),
            SortBy::Executed => by(|this, index| {
                let answer = this.replicas[index].current();
                answer.map_or(-1.0, |answer| answer.row.executed as f64)
            }),
            SortBy::Lag => by(|this, index| this.lag(index).map_or(f64::INFINITY, |lag| lag as f64)),
            SortBy::Disk => {
                let disk = |index| numbers(self, index, |numbers| numbers.disk_bytes);
                disk(b).total_cmp(&disk(a))
            }
            SortBy::Refused => {
                let refused = |index| numbers(self, index, |numbers| numbers.refusals);
                refused(b).total_cmp(&refused(a))
            }
            // Those that need somebody first.
            SortBy::State => by(|this, index| {
                let replica = &this.replicas[index];
                f64::from(u8::from(!replica.answers()) * 2 + u8::from(!replica.is_ready()))
            }),
        }
    }

    /// How many replicas there are: as many as are asked, or more if their names say so, or the quorum that
    /// they wait for; `None` if that is no number of replicas.
    pub fn quorum(&self) -> Option<Quorum> {
        let named = self.replicas.iter().filter_map(|replica| {
            let number = replica.label.strip_prefix('r')?.parse::<usize>().ok()?;
            number.checked_add(1).filter(|count| *count <= SOURCES_MAX)
        });
        let links = self.replicas.iter().filter_map(|replica| {
            let numbers = replica.last.as_ref()?.numbers.as_ref().ok()?;
            Some(numbers.links_needed)
        });
        // A liar may say more than there can be.
        let links = links.fold(0.0, f64::max);
        let sizes = (1..=SOURCES_MAX).filter_map(|count| Quorum::of(count).ok());
        let needs = |quorum: &Quorum| quorum.quorum() as f64 >= links + 1.0;
        let linked = sizes.into_iter().find(needs).map_or(0, Quorum::n);
        let count = named.max().unwrap_or(0).max(self.replicas.len()).max(linked);
        Quorum::of(count).ok()
    }

    /// Operations per second that at least f+1 replicas execute: at least one of them does not lie, and one
    /// that catches up does not count for all.
    pub fn throughput(&self) -> Option<f64> {
        let mut rates: Vec<f64> = self
            .replicas
            .iter()
            .filter_map(|replica| replica.operations_rate)
            .collect();
        rates.sort_by(|a, b| b.total_cmp(a));
        rates.get(self.quorum()?.weak() - 1).copied()
    }

    /// The view that most of those that answer are in, a later one if as many are.
    pub fn view(&self) -> Option<u64> {
        let views = || {
            self.replicas
                .iter()
                .filter_map(|replica| Some(replica.current()?.row.view))
        };
        views().max_by_key(|view| (views().filter(|other| other == view).count(), *view))
    }

    /// Who leads a view.
    pub fn leader_of(&self, view: u64) -> Option<String> {
        Some(View::new(view).turn(self.quorum()?.n()).to_string())
    }

    /// Who leads now.
    pub fn leader(&self) -> Option<String> {
        self.leader_of(self.view()?)
    }

    /// How many decisions a replica is behind the one that executed most; `None` while it does not answer.
    pub fn lag(&self, index: usize) -> Option<u64> {
        let executed = |replica: &ReplicaView| Some(replica.current()?.row.executed);
        let most = self.replicas.iter().filter_map(executed).max()?;
        Some(most - executed(&self.replicas[index])?)
    }

    /// How many replicas do their part.
    pub fn ready(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.is_ready()).count()
    }

    /// Whether anybody answers.
    pub fn is_heard(&self) -> bool {
        self.replicas.iter().any(ReplicaView::answers)
    }

    /// The durations that were measured over the last looks, at all replicas together.
    pub fn durations(&self) -> Vec<(String, Histogram)> {
        let mut all: Vec<(String, Histogram)> = Vec::new();
        for (name, histogram) in self.replicas.iter().flat_map(ReplicaView::durations) {
            match all.iter_mut().find(|(own, _)| *own == name) {
                Some((_, own)) => own.merge(&histogram),
                None => all.push((name, histogram)),
            }
        }
        all
    }

    /// Says when most replicas are in a later view than before.
    fn note_view(&mut self) {
        let Some(view) = self.view() else { return };
        let before = self.view.replace(view);
        if before.is_some_and(|before| before < view) {
            let leader = self.leader_of(view).unwrap_or_default();
            self.note(Weight::Notable, format!("view {view}: {leader} leads"));
        }
    }

    fn note_change(&mut self, replica: usize, change: &Change) {
        let label = &self.replicas[replica].label;
        let (weight, text) = match change {
            Change::Lost(why) => (Weight::Bad, format!("{label} does not answer: {why}")),
            Change::Back => (Weight::Good, format!("{label} answers again")),
            Change::Restarted => (Weight::Notable, format!("{label} was restarted")),
            Change::TransferBegan(pieces) => (
                Weight::Notable,
                format!("{label} receives a state, {pieces} pieces"),
            ),
            Change::TransferEnded => (Weight::Notable, format!("{label} receives no state any more")),
            Change::Unready(reasons) => (
                Weight::Bad,
                format!("{label} is not ready: {}", reasons.join(", ")),
            ),
            Change::Ready => (Weight::Good, format!("{label} is ready")),
            Change::Alarm(counter, more) => (Weight::Bad, format!("{label}: {counter}, {more} more")),
            Change::Misbehaves(peer, more) => (
                Weight::Bad,
                format!("{peer} misbehaves: {more} more refused by {label}"),
            ),
        };
        self.note(weight, text);
    }

    fn note(&mut self, weight: Weight, text: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        let at = self.now;
        self.events.push_back(TopEvent { at, weight, text });
    }
}
