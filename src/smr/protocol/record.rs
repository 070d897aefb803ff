use std::sync::Arc;

use bytes::Bytes;

use crate::smr::crypto::Chain;
use crate::smr::messages::{CheckpointClaim, Proposal, SignedCheckpoint};
use crate::smr::types::{Digest, Lsn, NodeId, SeqNo, View};

/// What a protocol writes to the persistent log: everything that binds the replica after a restart, and what
/// it needs to go on from where it was.
#[derive(Debug, Clone)]
pub enum Record {
    /// A proposal this replica made or accepted in the proposal's view, with its batch.
    Proposal(Arc<Proposal>),
    /// A batch others vouched for, fetched by its digest. It was accepted in no view; its `view` means
    /// nothing.
    Batch(Arc<Proposal>),
    /// What is the ordering protocol's own: a vote that this replica cast, say.
    Ordering {
        /// The place it is about, if it is about one: then it is not needed once a later checkpoint is kept.
        seq: Option<SeqNo>,
        /// What it says, as the protocol writes it.
        contents: Bytes,
    },
    /// A batch was decided at a place.
    Decision {
        /// The place.
        seq: SeqNo,
        /// The batch.
        digest: Digest,
        /// The chain of decisions up to and including this one.
        chain: Chain,
    },
    /// A checkpoint this replica signed.
    Checkpoint(SignedCheckpoint),
    /// A checkpoint became stable.
    Stable {
        /// What is stable.
        claim: CheckpointClaim,
        /// The signatures that prove it, of distinct replicas.
        proof: Vec<SignedCheckpoint>,
    },
    /// Decisions up to here were not made here: the state they lead to comes from others, and the log goes on
    /// after them.
    Jump {
        /// The last of them.
        seq: SeqNo,
        /// The chain of decisions up to it.
        chain: Chain,
    },
    /// The view this replica moved to; it votes in no earlier one any more.
    View(View),
    /// What is the view transfer protocol's own: what a view began with, say.
    ViewTransfer(Bytes),
    /// What is the reconfiguration protocol's own: what this replica signed of the end of its epoch, say.
    Reconfiguration(Bytes),
}

/// What a record that is a protocol's own says, for those who look at a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnRecord {
    /// A word for its kind.
    pub kind: &'static str,
    /// The view: a replica that wrote it was in this one, or asked for it.
    pub view: Option<View>,
    /// The batch.
    pub digest: Option<Digest>,
    /// Who signed it, or what it names.
    pub signers: Vec<NodeId>,
}

impl Record {
    /// The place this record is about; it is needed while a later checkpoint is not kept. `None` for what is
    /// about a view or the window as a whole: what still matters of it is written again before the log is
    /// cut.
    #[must_use]
    pub fn seq(&self) -> Option<SeqNo> {
        match self {
            Self::Proposal(proposal) | Self::Batch(proposal) => Some(proposal.seq),
            Self::Ordering { seq, .. } => *seq,
            Self::Decision { seq, .. } | Self::Jump { seq, .. } => Some(*seq),
            Self::Checkpoint(checkpoint) => Some(checkpoint.claim().seq),
            Self::Stable { .. } | Self::View(_) | Self::ViewTransfer(_) | Self::Reconfiguration(_) => None,
        }
    }
}

/// Which records are not needed any more: those about places up to `seq`, and those about none, as far as
/// they were written before `before`. From there on lie the ones about none that were written again for this
/// cut, and newer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCut {
    /// The last place.
    pub seq: SeqNo,
    /// The first record that stays, whatever it is about.
    pub before: Lsn,
    /// The view that the log is in from there on.
    pub view: View,
}

/// Why what the log says cannot be restored: the log is damaged, or another software's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A decision whose batch the log does not have.
    #[error("the log decides {seq} with a batch that it does not hold")]
    BatchMissing {
        /// The place.
        seq: SeqNo,
    },
    /// A decision does not follow the one before.
    #[error("the log's decision {found} does not follow {last}")]
    Gap {
        /// The last decision before.
        last: SeqNo,
        /// The next one in the log.
        found: SeqNo,
    },
    /// The chain of decisions does not fit.
    #[error("the log's decision {seq} does not belong to the chain before it")]
    Chain {
        /// The place.
        seq: SeqNo,
    },
    /// A protocol cannot read what it wrote.
    #[error("the log holds a record of the {protocol} protocol that cannot be read")]
    Unreadable {
        /// Which.
        protocol: &'static str,
    },
}
