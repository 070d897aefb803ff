use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Rule};
use crate::smr::messages::archived::{ArchivedSystemMessage, ArchivedViewTransferMessage};
use crate::smr::messages::{Checked, Phase, SystemMessage, ViewChange};
use crate::smr::types::Digest;

/// So many batches of one place are carried at most.
const CARRIED_MAX: usize = 8;

/// What correct replicas said of one batch at one place, in one view.
#[derive(Default)]
struct Support {
    /// Proposed or prepared it.
    prepared: BTreeSet<usize>,
    committed: BTreeSet<usize>,
}

/// What was or may yet be committed at each place, which no later view may have another batch for: a batch to
/// which so many correct replicas committed that with all faulty ones they are a quorum.
pub(in crate::sim) struct CommitStability {
    n: usize,
    window: u64,
    /// By place: by view and batch.
    places: BTreeMap<u64, BTreeMap<(u64, Digest), Support>>,
    /// The last place of the epoch, once it is decided: whatever comes after it is void.
    last: u64,
}

impl CommitStability {
    pub(in crate::sim) fn new(n: usize, window: u64) -> Self {
        Self {
            n,
            window,
            places: BTreeMap::new(),
            last: u64::MAX,
        }
    }

    /// A correct host has a decision that is the last of the epoch.
    pub(in crate::sim) fn ends(&mut self, last: u64) {
        if last < self.last {
            self.last = last;
            self.places.retain(|seq, _| *seq <= last);
        }
    }

    /// A correct host sends a message; `is_correct` says of each host whether it still is.
    pub(in crate::sim) fn says(
        &mut self,
        host: usize,
        message: &Checked<SystemMessage>,
        is_correct: impl Fn(usize) -> bool,
    ) -> Result<(), Broken> {
        match &**message {
            ArchivedSystemMessage::ProposalMessage(head) => {
                let place = (head.view().get(), head.seq().get());
                self.speaks(host, place, head.digest(), Phase::Prepare, is_correct)
            }
            ArchivedSystemMessage::ProtocolMessage(_) => {
                for vote in message.votes() {
                    let place = (vote.view, vote.seq);
                    self.speaks(host, place, vote.digest(), vote.phase, &is_correct)?;
                }
                Ok(())
            }
            _ => match message.of_views().as_deref() {
                Some(ArchivedViewTransferMessage::ViewChange(message)) => {
                    self.carries(host, &message.to_view_change(), is_correct)
                }
                _ => Ok(()),
            },
        }
    }

    /// All that a correct host proposed or prepared in earlier views is in Q, and what others prepared in a
    /// view that it led: they did so because it proposed it, or because its new view chose it.
    fn carries(
        &self,
        host: usize,
        message: &ViewChange,
        is_correct: impl Fn(usize) -> bool,
    ) -> Result<(), Broken> {
        if usize::from(message.signer) != host {
            return Ok(());
        }
        let first = message.stable_seq + 1;
        for (seq, place) in self.places.range(first..first + self.window) {
            let carried = || message.pre_prepared.iter().filter(|placed| placed.seq == *seq);
            if carried().count() >= CARRIED_MAX {
                continue;
            }
            for ((view, digest), support) in place.iter().filter(|((view, _), _)| *view < message.view) {
                let led = *view > 0 && (*view % self.n as u64) as usize == host;
                let by_others = || support.prepared.iter().any(|other| is_correct(*other));
                let is_due = support.prepared.contains(&host) || (led && by_others());
                let is_there = carried().any(|placed| placed.digest() == *digest && placed.view >= *view);
                if is_due && !is_there {
                    return Err((
                        Rule::Evidence,
                        format!(
                            "r{host} asks for v{} without {digest:?}, which it pre-prepared at v{view} s{seq}",
                            message.view
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    fn speaks(
        &mut self,
        host: usize,
        (view, seq): (u64, u64),
        digest: Digest,
        phase: Phase,
        is_correct: impl Fn(usize) -> bool,
    ) -> Result<(), Broken> {
        if seq > self.last {
            return Ok(());
        }
        let place = self.places.entry(seq).or_default();
        let support = place.entry((view, digest)).or_default();
        let is_new = match phase {
            Phase::Prepare => support.prepared.insert(host),
            Phase::Commit => support.committed.insert(host),
        };
        if !is_new || place.len() == 1 {
            return Ok(());
        }
        let faulty = (self.n - 1) / 3;
        let enough = (self.n + faulty) / 2 + 1 - faulty;
        for ((earlier, lasting), support) in place.iter() {
            let committed = support.committed.iter().filter(|host| is_correct(**host));
            if committed.count() < enough {
                continue;
            }
            let speakers = |support: &Support| support.prepared.iter().any(|host| is_correct(*host));
            let other = place
                .iter()
                .find(|((later, other), said)| later > earlier && other != lasting && speakers(said));
            if let Some(((later, other), _)) = other {
                return Err((
                    Rule::Agreement,
                    format!(
                        "at s{seq} {lasting:?} may be committed in v{earlier}, by {:?}; v{later} has {other:?}",
                        support.committed
                    ),
                ));
            }
        }
        Ok(())
    }
}
