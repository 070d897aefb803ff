//! Whether a cluster is well: a function of what its replicas said in two looks, a moment apart.
//!
//! The verdict is about what would happen if one more replica failed now. So a replica counts only if it
//! would be there for the others: it answers, votes, stands in the view of the others, has a place for its
//! log, has their state, and moves when they do. None of that is judged by how long it has lasted; what may
//! last a moment and still mean nothing, as a lag, is judged by both looks together.

use std::fmt;

use serde::Serialize;

use crate::smr::types::{Digest, Quorum};

/// What a replica said of itself in one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub view: u64,
    pub ordered: u64,
    pub durable: u64,
    pub executed: u64,
    pub stable: u64,
    pub links: u64,
    /// It is in a view, not between two.
    pub orders: bool,
    /// Decisions or a state come from others.
    pub transfers: bool,
    pub abstains: bool,
    pub waits_for_space: bool,
    /// Others say that a second process runs with its identity.
    pub runs_twice: bool,
    /// What it does, in words.
    pub phase: String,
    /// The last checkpoints it took, in order and without gaps.
    pub checkpoints: Vec<(u64, Digest)>,
}

/// Two looks at a replica; the second is the one that counts.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    pub node: String,
    /// `None` when it did not answer.
    pub first: Option<Facts>,
    /// Or why it did not answer.
    pub second: Result<Facts, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Verdict {
    /// Every replica takes part.
    Ok,
    /// The cluster serves, and can lose fewer replicas than it should.
    Degraded,
    /// Fewer replicas take part than are needed.
    Stalled,
    /// Replicas have different states.
    Diverged,
    /// Not all replicas were asked, and those that were do not differ.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Degraded => "DEGRADED",
            Self::Stalled => "STALLED",
            Self::Diverged => "DIVERGED",
            Self::Unknown => "UNKNOWN",
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Health {
    pub verdict: Verdict,
    /// Replicas that take part.
    pub sound: usize,
    pub needed: usize,
    /// Replicas that were asked.
    pub asked: usize,
    /// Replicas there are.
    pub replicas: usize,
    /// How many more may fail before the cluster stalls.
    pub faults_tolerable: usize,
    /// What is not as it should be.
    pub findings: Vec<String>,
}

impl Health {
    /// The exit code that tells it.
    pub fn code(&self) -> u8 {
        match self.verdict {
            Verdict::Ok => 0,
            Verdict::Degraded => 1,
            Verdict::Stalled => 2,
            Verdict::Diverged => 3,
            Verdict::Unknown => u8::from(!self.findings.is_empty()),
        }
    }
}

/// What a quorum has in common.
struct Common {
    /// So far a quorum had executed in the first look; zero where no quorum was asked.
    executed: u64,
    /// Up to here a quorum's checkpoints were stable then.
    stable: u64,
    /// The view that most replicas are in, a later one if as many are.
    view: u64,
    needed: usize,
}

impl Common {
    fn of(looks: &[Looks], needed: usize) -> Self {
        let reached = |read: fn(&Facts) -> u64| {
            let mut places: Vec<u64> = looks
                .iter()
                .map(|look| look.first.as_ref().map_or(0, read))
                .collect();
            places.sort_unstable_by(|a, b| b.cmp(a));
            places.get(needed - 1).copied().unwrap_or(0)
        };
        let views = || {
            looks
                .iter()
                .filter_map(|look| Some(look.second.as_ref().ok()?.view))
        };
        let supported = |view: &u64| (views().filter(|other| other == view).count(), *view);
        Self {
            executed: reached(|facts| facts.executed),
            stable: reached(|facts| facts.stable),
            view: views().max_by_key(supported).unwrap_or(0),
            needed,
        }
    }

    /// Why a replica does not take part; `None` if it does.
    fn finding(&self, look: &Looks) -> Option<String> {
        let now = match &look.second {
            Err(error) => return Some(format!("does not answer: {error}")),
            Ok(now) => now,
        };
        let both = |is_so: fn(&Facts) -> bool| look.first.as_ref().is_some_and(is_so) && is_so(now);
        let either = |is_so: fn(&Facts) -> bool| look.first.as_ref().is_some_and(is_so) || is_so(now);
        let before = look.first.as_ref().unwrap_or(now);
        let stands = now.executed == before.executed;
        if now.links + 1 < self.needed as u64 {
            return Some(format!("is linked with {} replicas only", now.links));
        }
        if either(|facts| facts.waits_for_space) {
            return Some("has no space for its log and votes for nothing: free some on its disk".into());
        }
        if now.runs_twice {
            return Some("runs twice, others say: stop the copy, and restart the one that stays".into());
        }
        if now.abstains {
            return Some(format!("votes for nothing: {}", now.phase));
        }
        if now.executed < self.stable && (now.transfers || stands) {
            let behind = self.executed - now.executed;
            return Some(format!("is {behind} decisions behind: {}", now.phase));
        }
        if both(|facts| facts.transfers) {
            return Some(format!("has not all that the others have: {}", now.phase));
        }
        if stands && now.executed < self.executed {
            let behind = self.executed - now.executed;
            return Some(format!("stands still, {behind} decisions behind: {}", now.phase));
        }
        if now.durable == before.durable && now.durable < before.ordered {
            return Some("does not get to its disk what it decided: look at the disk".into());
        }
        let between_views = either(|facts| !facts.orders) || now.view != before.view;
        if (stands && between_views) || now.view != self.view {
            return Some(format!("is in view {}: {}", now.view, now.phase));
        }
        None
    }
}

/// Whether one of two replicas took a checkpoint that the other should have taken as well and did not, or
/// took differently: where.
fn differ_at(a: &Facts, b: &Facts) -> Option<u64> {
    let missed = |of: &Facts, other: &Facts| {
        let (first, last) = (other.checkpoints.first()?.0, other.checkpoints.last()?.0);
        let due = of
            .checkpoints
            .iter()
            .filter(|(seq, _)| (first..=last).contains(seq));
        let mut due = due.filter(|checkpoint| !other.checkpoints.contains(checkpoint));
        due.next().map(|(seq, _)| *seq)
    };
    [missed(a, b), missed(b, a)].into_iter().flatten().min()
}

/// The largest set of replicas of which all are alike with its first one, and for each of the others where it
/// differs.
fn states(looks: &[Looks]) -> Vec<(usize, u64)> {
    let facts = |index: usize| looks[index].second.as_ref().ok();
    let differing = |of: usize| -> Vec<(usize, u64)> {
        let others = 0..looks.len();
        let differs = |other: usize| Some((other, differ_at(facts(of)?, facts(other)?)?));
        others.filter_map(differs).collect()
    };
    let answering = (0..looks.len()).filter(|index| facts(*index).is_some());
    answering.map(differing).min_by_key(Vec::len).unwrap_or_default()
}

/// How well the cluster is, of which all replicas or some were looked at.
pub(super) fn judge(looks: &[Looks], quorum: Quorum) -> Health {
    let (needed, mut findings, mut sound) = (quorum.quorum(), Vec::new(), 0);
    let common = Common::of(looks, needed);
    let diverged = states(looks);
    for (index, look) in looks.iter().enumerate() {
        let node = &look.node;
        let wrong = diverged.iter().find(|(other, _)| *other == index);
        if let Some((_, seq)) = wrong {
            findings.push(format!(
                "{node} has another checkpoint at {seq} than most others: its state, or its disk, or its application is another"
            ));
        }
        match common.finding(look) {
            Some(found) => findings.push(format!("{node} {found}")),
            None => sound += usize::from(wrong.is_none()),
        }
    }
    let verdict = match sound {
        _ if !diverged.is_empty() => Verdict::Diverged,
        _ if looks.len() < quorum.n() => Verdict::Unknown,
        all if all == looks.len() => Verdict::Ok,
        some if some >= needed => Verdict::Degraded,
        _ => Verdict::Stalled,
    };
    Health {
        verdict,
        sound,
        needed,
        asked: looks.len(),
        replicas: quorum.n(),
        faults_tolerable: sound.saturating_sub(needed),
        findings,
    }
}

#[cfg(test)]
mod tests;
