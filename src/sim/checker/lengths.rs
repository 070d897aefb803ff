use std::fmt::Arguments;

use bytes::Bytes;

use super::{Broken, Rule};
use crate::sim::SimConfig;
use crate::smr::messages::archived::{
    ArchivedLogTransferMessage, ArchivedStateTransferMessage, ArchivedSyncMessage, ArchivedSystemMessage,
    ArchivedViewTransferMessage,
};
use crate::smr::messages::{Checked, SystemMessage};
use crate::smr::protocol::{Recipients, Record};

/// The envelope, and the fixed part of whatever there is.
const AROUND: usize = 320;

/// A link of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Toward {
    /// From a replica to a client.
    Client,
    /// From a client to a replica.
    FromClient,
}

/// What a record adds to a message that is alone in it.
const RECORD_AROUND: usize = 4 + 16;

/// How long what replicas say and log may be, from the run's config, counted in elements: what takes up more
/// room than its elements, or has more of them than there can be, is refused, whatever the links and the log
/// would take.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Sizes {
    replicas: usize,
    window: usize,
    votes: usize,
    batch_bytes: usize,
    batch_frames: usize,
    /// What the links and the log of the run take.
    link: usize,
    record: usize,
    /// What links of clients take, both ways.
    to_client: usize,
    from_client: usize,
}

impl Sizes {
    pub(in crate::sim) fn new(config: &SimConfig) -> Self {
        let (limits, lengths) = (config.limits, config.lengths());
        Self {
            replicas: config.replicas,
            window: config.window as usize,
            votes: config.votes_max,
            batch_bytes: limits.batch_bytes_max.max(limits.frame_bytes_max),
            batch_frames: limits.batch_frames_max,
            link: lengths.replica_message(),
            record: lengths.log_record(),
            to_client: lengths.reply_record(),
            from_client: lengths.request_record(),
        }
    }

    /// Somebody correct sends a client, or as a client, a message of so many bytes.
    pub(in crate::sim) fn sends(
        &self,
        who: Arguments<'_>,
        toward: Toward,
        bytes: usize,
    ) -> Result<(), Broken> {
        let most = match toward {
            Toward::Client => self.to_client,
            Toward::FromClient => self.from_client,
        };
        match bytes + RECORD_AROUND <= most {
            true => Ok(()),
            false => Err((
                Rule::Lengths,
                format!("{who} sends {bytes} bytes, and the link of a client takes records of {most}"),
            )),
        }
    }

    /// Whether a link takes a message.
    pub(in crate::sim) fn is_taken(&self, message: &Bytes) -> bool {
        message.len() <= self.link
    }

    /// A correct replica sends this.
    pub(in crate::sim) fn says(
        &self,
        host: usize,
        to: Recipients,
        message: &Bytes,
        checked: &Checked<SystemMessage>,
    ) -> Result<(), Broken> {
        let bytes = message.len();
        let (what, most) = self.most(to, checked);
        match bytes <= most && self.is_taken(message) {
            true => Ok(()),
            false => Err((
                Rule::Lengths,
                format!(
                    "host {host} sends {what} of {bytes} bytes, at most {most} may be; its links take {}",
                    self.link
                ),
            )),
        }
    }

    /// What a message is, and how long one of its kind is at most.
    fn most(&self, to: Recipients, message: &Checked<SystemMessage>) -> (&'static str, usize) {
        let signatures = self.replicas * 108;
        let batch = self.batch_bytes + 4 * self.batch_frames;
        let (what, most) = match &**message {
            ArchivedSystemMessage::ForwardedRequestMessage(_) => {
                ("frames", self.batch_bytes + self.batch_bytes / 16)
            }
            ArchivedSystemMessage::ProposalMessage(_) => ("a proposal", batch),
            ArchivedSystemMessage::ProtocolMessage(_) => {
                // What a peer lacks: one of each phase for each place that its status describes.
                let votes = match to {
                    Recipients::Others => self.votes,
                    Recipients::One(_) => 2 * 64,
                };
                // A phase, a view, a place, a digest; and where it ends.
                ("votes", votes * (49 + 4))
            }
            ArchivedSystemMessage::SyncMessage(message) => match message {
                ArchivedSyncMessage::Checkpoint(_) => ("a checkpoint", 0),
                ArchivedSyncMessage::Stable(_) => ("a proof", signatures),
                ArchivedSyncMessage::Status(_) => ("a status", 8 * self.replicas + 64 + 4 * 64),
                ArchivedSyncMessage::FetchBatches(_) | ArchivedSyncMessage::Decisions(_) => {
                    ("references", 64 * 40)
                }
                ArchivedSyncMessage::BatchResponse(_) => ("a batch", batch),
            },
            ArchivedSystemMessage::ViewTransferMessage(_) => match message.of_views().as_deref() {
                None => ("nothing about views", 0),
                // One entry of P and eight of Q, of a place, a view and a digest.
                Some(ArchivedViewTransferMessage::ViewChange(_)) => {
                    ("a view change", signatures + self.window * (1 + 8) * (8 + 8 + 32))
                }
                Some(
                    ArchivedViewTransferMessage::NewView(_)
                    | ArchivedViewTransferMessage::FetchViewChanges(_),
                ) => ("a new view, or a question for what it names", self.replicas * 34),
                Some(ArchivedViewTransferMessage::Complaint(_)) => ("a complaint", 0),
            },
            ArchivedSystemMessage::LogTransferMessage(message) => match message {
                ArchivedLogTransferMessage::Decided { .. } => ("digests", 2048 * 32),
                _ => ("a question", 0),
            },
            ArchivedSystemMessage::StateTransferMessage(message) => match message {
                ArchivedStateTransferMessage::Offer(_) => ("an offer", signatures),
                ArchivedStateTransferMessage::Chunk(_) => ("a chunk", 2 * (256 << 10)),
                _ => ("a question", 0),
            },
        };
        (what, most + AROUND)
    }

    /// A correct replica's log holds this.
    pub(in crate::sim) fn logs(&self, host: usize, record: &Record) -> Result<(), Broken> {
        let bytes = match record {
            Record::Proposal(proposal) | Record::Batch(proposal) => 53 + proposal.message.len(),
            Record::ViewTransfer(message) => 5 + message.len(),
            Record::Stable { proof, .. } => 45 + 106 * proof.len(),
            _ => 0,
        };
        match bytes <= self.record {
            true => Ok(()),
            false => Err((
                Rule::Lengths,
                format!(
                    "host {host} logs a record of {bytes} bytes, at most {} may be",
                    self.record
                ),
            )),
        }
    }
}
