//! One replica as it was seen over the last minutes: its answers, what moved between them, and what changed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::answer::Answer;
use super::histogram::Histogram;

/// Samples of throughput that are kept: four minutes of one each second.
pub(super) const HISTORY_MAX: usize = 240;
/// Looks that durations are taken from, the oldest against the newest.
const LOOKS_MAX: usize = 11;
/// One that was asked so long ago and has not answered is taken for lost, whoever still waits for it.
const SILENCE: Duration = Duration::from_secs(8);

/// Counters that mean that somebody has to act, as soon as they move.
const ALARMS: [&str; 4] = [
    "divergences",
    "identity used twice",
    "peers running twice",
    "application panics",
];

/// What the counters of what peers did wrong begin with; then comes the peer.
const OFFENCES: &str = "peer offences ";

/// Whether a replica answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Contact {
    /// It was never heard of so far.
    Asked,
    /// It does.
    Answers,
    /// It does not, since when and why.
    Silent { since: Duration, why: String },
}

/// What was noticed about a replica between two answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// It does not answer any more, or never did.
    Lost(String),
    /// It answers again.
    Back,
    /// Its process was started again.
    Restarted,
    /// It has begun to receive a state of so many pieces.
    TransferBegan(u64),
    /// No state comes any more.
    TransferEnded,
    /// It does not do its part, for these reasons that it had not before.
    Unready(Vec<String>),
    /// It does its part again.
    Ready,
    /// A counter that should stand still has moved by so many.
    Alarm(&'static str, f64),
    /// A peer of it has sent so much more that no correct one sends.
    Misbehaves(String, f64),
}

/// A replica, and what is known of it.
#[derive(Debug)]
pub(super) struct ReplicaView {
    /// Its name, or until it has told that, what it is asked by.
    pub label: String,
    /// Where it is asked.
    pub address: String,
    /// Whether it answers.
    pub contact: Contact,
    /// What it said last, perhaps long ago.
    pub last: Option<Answer>,
    /// Operations per second between its last two answers; `None` without two of one process.
    pub operations_rate: Option<f64>,
    /// Every counter that moved between them, per second.
    pub counter_rates: BTreeMap<String, f64>,
    /// Its operations per second, the newest last.
    pub history: VecDeque<u64>,
    /// When it was heard of last.
    heard_at: Duration,
    /// When `last` came.
    answered_at: Duration,
    looks: VecDeque<Vec<(String, Histogram)>>,
}

impl ReplicaView {
    /// One that was not asked yet.
    pub fn new(label: String, address: String) -> Self {
        Self {
            label,
            address,
            contact: Contact::Asked,
            last: None,
            operations_rate: None,
            counter_rates: BTreeMap::new(),
            history: VecDeque::new(),
            heard_at: Duration::ZERO,
            answered_at: Duration::ZERO,
            looks: VecDeque::new(),
        }
    }

    /// Whether what is known of it is of now.
    pub fn answers(&self) -> bool {
        self.contact == Contact::Answers
    }

    /// What it says now; `None` while it does not answer.
    pub fn current(&self) -> Option<&Answer> {
        self.last.as_ref().filter(|_| self.answers())
    }

    /// Whether it does its part.
    pub fn is_ready(&self) -> bool {
        self.current().is_some_and(|answer| answer.unready().is_empty())
    }

    /// It was heard of, but nothing of that is to be shown.
    pub fn hear(&mut self, at: Duration) {
        self.heard_at = at;
    }

    /// Takes what it answered, or why it did not: what has changed.
    pub fn on_answer(&mut self, at: Duration, answer: Result<Answer, String>) -> Vec<Change> {
        match answer {
            Ok(answer) => self.on_said(at, answer),
            Err(why) => self.on_silence(at, why).into_iter().collect(),
        }
    }

    /// Time passes: one that is awaited for too long is lost.
    pub fn on_time(&mut self, at: Duration) -> Option<Change> {
        let waited = at.saturating_sub(self.heard_at);
        let is_late = waited > SILENCE && !matches!(self.contact, Contact::Silent { .. });
        is_late
            .then(|| self.on_silence(at, format!("no answer for {} s", waited.as_secs())))
            .flatten()
    }

    /// Keeps how fast it was.
    pub fn keep_history(&mut self) {
        push(&mut self.history, self.operations_rate.unwrap_or(0.0));
    }

    fn on_silence(&mut self, at: Duration, why: String) -> Option<Change> {
        self.operations_rate = None;
        self.counter_rates.clear();
        self.looks.clear();
        if let Contact::Silent { why: last, .. } = &mut self.contact {
            *last = why;
            return None;
        }
        self.contact = Contact::Silent {
            since: at,
            why: why.clone(),
        };
        Some(Change::Lost(why))
    }

    fn on_said(&mut self, at: Duration, answer: Answer) -> Vec<Change> {
        let mut changes = Vec::new();
        if matches!(self.contact, Contact::Silent { .. }) {
            changes.push(Change::Back);
        }
        let elapsed = at.saturating_sub(self.answered_at).as_secs_f64();
        let was_answering = self.answers();
        let before = self.last.take();
        let is_anew = before
            .as_ref()
            .is_some_and(|before| is_restarted(before, &answer));
        if is_anew {
            changes.push(Change::Restarted);
            self.looks.clear();
        }
        if let Some(before) = &before {
            self.compare(before, &answer, is_anew, &mut changes);
        }
        let reasons_before = before.as_ref().map_or(&[][..], Answer::unready);
        changes.extend(readiness_change(reasons_before, answer.unready()));
        self.counter_rates.clear();
        self.operations_rate = None;
        let before = before.filter(|_| was_answering && !is_anew && elapsed > 0.0);
        if let Some(before) = before {
            let more = answer.row.operations.saturating_sub(before.row.operations);
            self.operations_rate = Some(more as f64 / elapsed);
            self.counter_rates = counter_rates(&before, &answer, elapsed);
        }
        if let Ok(numbers) = &answer.numbers {
            if self.looks.len() == LOOKS_MAX {
                self.looks.pop_front();
            }
            self.looks.push_back(numbers.histograms.clone());
        }
        self.label.clone_from(&answer.row.node);
        self.contact = Contact::Answers;
        (self.heard_at, self.answered_at) = (at, at);
        self.last = Some(answer);
        changes
    }

    /// What two answers differ in that one wants to be told.
    fn compare(&self, before: &Answer, now: &Answer, is_anew: bool, changes: &mut Vec<Change>) {
        match (&before.row.transfer, &now.row.transfer) {
            (None, Some(transfer)) => changes.push(Change::TransferBegan(transfer.pieces_of)),
            (Some(_), None) => changes.push(Change::TransferEnded),
            _ => {}
        }
        if let (Ok(before), Ok(now), false) = (&before.numbers, &now.numbers, is_anew) {
            for alarm in ALARMS {
                let more = now.counter(alarm) - before.counter(alarm);
                if more > 0.0 {
                    changes.push(Change::Alarm(alarm, more));
                }
            }
            for (name, offences) in &now.counters {
                let peer = name.strip_prefix(OFFENCES);
                let more = offences - before.counter(name);
                if let Some(peer) = peer.filter(|_| more > 0.0) {
                    changes.push(Change::Misbehaves(peer.to_owned(), more));
                }
            }
        }
    }

    /// The durations that were measured over the last looks, by name.
    pub fn durations(&self) -> Vec<(String, Histogram)> {
        let (Some(then), Some(now)) = (self.looks.front(), self.looks.back()) else {
            return Vec::new();
        };
        let since = |(name, now): &(String, Histogram)| {
            let then = then.iter().find(|(other, _)| other == name);
            let between = match then {
                Some((_, then)) => now.since(then)?,
                // It appeared in between.
                None => now.clone(),
            };
            Some((name.clone(), between))
        };
        now.iter().filter_map(since).collect()
    }
}

/// Keeps a rate as the newest of a row.
pub(super) fn push(history: &mut VecDeque<u64>, rate: f64) {
    if history.len() == HISTORY_MAX {
        history.pop_front();
    }
    history.push_back(rate.round() as u64);
}

/// Whether its process was started again in between: what it counts begins anew then.
fn is_restarted(before: &Answer, now: &Answer) -> bool {
    let has_shrunk = match (&before.numbers, &now.numbers) {
        (Ok(before), Ok(now)) => now.is_after_restart(before),
        _ => false,
    };
    has_shrunk || now.row.operations < before.row.operations
}

fn readiness_change(before: &[String], now: &[String]) -> Option<Change> {
    let new = now.iter().filter(|reason| !before.contains(reason));
    let new: Vec<String> = new.cloned().collect();
    if !new.is_empty() {
        return Some(Change::Unready(new));
    }
    (now.is_empty() && !before.is_empty()).then_some(Change::Ready)
}

/// What moved between two answers of one process, per second.
fn counter_rates(before: &Answer, now: &Answer, elapsed: f64) -> BTreeMap<String, f64> {
    let (Ok(before), Ok(now)) = (&before.numbers, &now.numbers) else {
        return BTreeMap::new();
    };
    let moved = now.counters.iter().filter_map(|(name, value)| {
        let more = value - before.counter(name);
        (more > 0.0).then(|| (name.clone(), more / elapsed))
    });
    moved.collect()
}
