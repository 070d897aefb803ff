use std::time::Duration;

use super::{Broken, Rule};
use crate::sim::keys::CLUSTER;
use crate::smr::crypto::Digester;
use crate::smr::messages::archived::{ArchivedStateTransferMessage, ArchivedSystemMessage};
use crate::smr::messages::{Checked, CheckpointClaim, SnapshotChunk, SystemMessage};
use crate::smr::types::{NodeId, SeqNo, Time};

/// What was offered, or given in part, is given for so long, by the donor's clock. A little less than
/// replicas say: an answer may come somewhat after its question.
const GIVEN_FOR: Duration = Duration::from_secs(8);
/// For so long in all.
const GIVEN_MAX: Duration = Duration::from_secs(29 * 60);
/// Of the checkpoints that were offered at once, so many of the newest.
const OFFERED: usize = 2;

/// What one peer was promised.
#[derive(Default)]
struct Promised {
    /// The checkpoints that were offered last, and when.
    offered: (Vec<u64>, Option<Time>),
    /// The checkpoint of which something was given last, since when, and when.
    given: Option<(u64, Time, Time)>,
}

impl Promised {
    fn is_promised(&self, now: Time, seq: u64) -> bool {
        let is_offered =
            self.offered.0.contains(&seq) && self.offered.1.is_some_and(|at| now.since(at) < GIVEN_FOR);
        let is_given = self.given.is_some_and(|(given, since, at)| {
            given == seq && now.since(at) < GIVEN_FOR && now.since(since) < GIVEN_MAX
        });
        is_offered || is_given
    }

    fn offers(&mut self, now: Time, seq: u64) {
        if self.offered.1 != Some(now) {
            self.offered = (Vec::new(), Some(now));
        }
        let seqs = &mut self.offered.0;
        if !seqs.contains(&seq) {
            seqs.push(seq);
        }
        seqs.sort_unstable_by(|a, b| b.cmp(a));
        seqs.truncate(OFFERED);
    }

    fn gives(&mut self, now: Time, seq: u64) {
        let since = match self.given {
            Some((given, since, _)) if given == seq => since,
            _ => now,
        };
        self.given = Some((seq, since, now));
    }

    fn asks(&mut self, seq: u64) {
        if self.offered.0.contains(&seq) {
            self.offered.0.retain(|offered| *offered == seq);
        }
        if self.given.is_some_and(|(given, ..)| given != seq) {
            self.given = None;
        }
    }
}

/// What one correct replica promised to those that fetch states: a checkpoint that was offered is given, and
/// is what it is called.
pub(in crate::sim) struct Donors {
    node: usize,
    /// By peer.
    peers: Vec<Promised>,
    /// Its disk rotted: what it promised may be gone.
    is_rotten: bool,
}

impl Donors {
    pub(in crate::sim) fn new(node: usize, n: usize) -> Self {
        Self {
            node,
            peers: (0..n).map(|_| Promised::default()).collect(),
            is_rotten: false,
        }
    }

    /// It starts again, or goes on from another state: nobody was promised anything.
    pub(in crate::sim) fn starts_again(&mut self) {
        self.peers.iter_mut().for_each(|peer| *peer = Promised::default());
    }

    /// Something happened to its disk.
    pub(in crate::sim) fn rots(&mut self) {
        self.is_rotten = true;
    }

    /// A peer's message was delivered here.
    pub(in crate::sim) fn hears(&mut self, from: NodeId, message: &Checked<SystemMessage>) {
        if let ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Fetch(range)) =
            &**message
            && let Some(peer) = self.peers.get_mut(from.index())
        {
            peer.asks(range.to_range().seq);
        }
    }

    /// This replica sends a message to a peer that follows the protocol. `right` says which checkpoint
    /// correct replicas took at a place.
    pub(in crate::sim) fn says(
        &mut self,
        now: Time,
        to: NodeId,
        message: &Checked<SystemMessage>,
        right: impl Fn(u64) -> Option<CheckpointClaim>,
    ) -> Result<(), Broken> {
        let (ArchivedSystemMessage::StateTransferMessage(message), Some(peer)) =
            (&**message, self.peers.get_mut(to.index()))
        else {
            return Ok(());
        };
        match message {
            ArchivedStateTransferMessage::Offer(offer) => peer.offers(now, offer.to_offer().seq),
            ArchivedStateTransferMessage::Chunk(chunk) if chunk.bytes.is_empty() => {
                let seq = chunk.seq.to_native();
                if peer.is_promised(now, seq) && !self.is_rotten {
                    return Err((
                        Rule::Donors,
                        format!(
                            "r{} does not have the checkpoint at s{seq} any more, which it offered to {to:?}",
                            self.node
                        ),
                    ));
                }
                peer.given = None;
            }
            ArchivedStateTransferMessage::Chunk(chunk) => {
                let seq = chunk.seq.to_native();
                peer.gives(now, seq);
                return is_right(self.node, seq, &chunk.bytes, right(seq));
            }
            _ => {}
        }
        Ok(())
    }
}

/// What begins a checkpoint says which one it is.
fn is_right(node: usize, seq: u64, bytes: &[u8], right: Option<CheckpointClaim>) -> Result<(), Broken> {
    let Ok(SnapshotChunk::Head(head)) = SnapshotChunk::parse(bytes) else {
        return Ok(());
    };
    let given = head.claim(&Digester::new(CLUSTER));
    let is_right = given.seq == SeqNo::new(seq) && right.is_none_or(|right| right == given);
    match is_right {
        true => Ok(()),
        false => Err((
            Rule::Donors,
            format!("r{node} gives {given:?} as the checkpoint at s{seq}, correct replicas took {right:?}"),
        )),
    }
}
