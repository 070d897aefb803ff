//! Everything that crosses a socket, and the only module that touches raw bytes.
//!
//! | message | source → target | purpose |
//! |---|---|---|
//! | [`RequestFrame`] | client → leader (all on a timeout) | 1..k operations, one sequence number, one authenticator |
//! | [`ClientReply`] | replica → client | the results of one frame, or a typed refusal of it |
//! | [`PrePrepare`] | leader → replicas | a batch proposed for a sequence number in a view |
//! | [`ProtocolMessages`] | replica → replicas | the ordering protocol's own, of one flush; PBFT's are [`Vote`]s |
//! | [`SyncMessage::Checkpoint`] | replica → replicas | "my state after this decision has this digest" |
//! | [`ViewChange`], [`NewView`] | replica → replicas | a view is left; a view begins |
//! | [`ViewTransferMessage::Complaint`] | replica → replicas | "I want the next view"; soft |
//! | [`ViewTransferMessage::FetchViewChanges`] | replica → replica | view changes that a new view names, by their digests |
//! | [`Status`] | replica → replicas | what the sender has; what it lacks is sent again |
//! | [`SyncMessage::FetchBatches`], [`BatchResponse`](SyncMessage::BatchResponse) | replica ↔ replica | a batch by its digest |
//! | [`SyncMessage::Decisions`] | replica → replica | what was decided, believed from f+1 |
//! | [`SyncMessage::Stable`] | replica → replica | a stable checkpoint with its proof |
//! | [`LogTransferMessage`] | replica ↔ replica | decisions in bulk |
//! | [`StateTransferMessage`] | replica ↔ replica | the contents of a checkpoint |
//! | [`ReconfigurationMessage`](crate::smr::reconfiguration::ReconfigurationMessage) | members ↔ anybody | where an epoch ends and who follows; no archive, as it outlives protocol versions |
//! | [`ForwardedRequests`] | replica → leader | frames that clients sent to everybody |
//! | [`AdminRequest`], [`AdminReply`] | operator ↔ replica | status |
//! | [`LinkMessage`] | both ends of a link | that it is there, who it is, which session it serves, why it is about to close |
//!
//! A message is an [`Envelope`] of fixed size followed by one rkyv archive. The archive is checked once,
//! where it is received ([`Checked`]), and refused if it has bytes that nothing in it points to
//! ([`Canonical`]); after that every room reads the received bytes in place. Archives are flat: no type holds
//! a pointer to a pointer beyond [`DEPTH_MAX`], and variable data are byte strings with a table of ends
//! beside them. Frames travel inside batches as the bytes the client sent: nothing is serialised twice, and
//! what is proposed, logged and hashed are those bytes.

mod batch;
mod checked;
mod client;
mod envelope;
pub mod lengths;
mod ordering;
mod pbft;
mod request;
pub(crate) mod snapshot;
mod sync;
mod system;
mod transfer;

pub use crate::smr::types::PROTOCOL_VERSION;
pub use batch::{Batch, BatchError, Frame, FrameId, FrameKey, Proposal};
pub use checked::{Canonical, Checked, DEPTH_MAX, Malformed, Message, archive, encode, encode_bytes};
pub use client::{
    AdminReply, AdminRequest, CheckpointTold, ClientReply, FailedOperation, Failure, LinkMessage,
    OperationResult, RefusalReason, ReplyBody, ReplyBuilder, StateRead,
};
pub use envelope::{ENVELOPE_BYTES, Envelope, EnvelopeError, Family, Kind};
pub use lengths::Lengths;
pub use ordering::{CheckpointClaim, LightCheckpoint, PrePrepare, SignedCheckpoint, TakenCheckpoint};
pub use pbft::{
    NamedViewChange, NewView, PbftRecord, Phase, SlotDigest, SlotStatus, ViewChange, ViewEvidence, ViewStart,
    ViewTransferMessage, Vote,
};
pub use request::{
    Authenticator, FrameBuilder, FrameError, Mode, Operations, RequestBody, RequestFrame, SplitError,
    ends_are_sound,
};
pub use snapshot::{
    PartDescription, PieceReader, PieceWriter, SnapshotChunk, SnapshotError, SnapshotHead, SnapshotIndex,
    StateDescriptor, state_digest,
};
pub(crate) use snapshot::{index_slices, whole_index};
pub use sync::{BatchRef, STATUS_DISPUTES, STATUS_SLOTS, Status, SyncMessage};
use system::ArchivedSystemMessage;
pub use system::{ForwardedRequests, ProtocolMessages, SystemMessage};
pub use transfer::{
    CheckpointOffer, ChunkOf, CoveringCheckpoint, DECIDED_MAX, LogTransferMessage, PieceRange,
    StateTransferMessage,
};

/// A message as its archive is read, in place.
pub use rkyv::Archived;

/// The generated archived forms, for code that names them.
pub mod archived {
    pub use super::client::{
        ArchivedAdminReply, ArchivedAdminRequest, ArchivedClientReply, ArchivedFailedOperation,
        ArchivedLinkMessage, ArchivedRefusalReason, ArchivedReplyBody,
    };
    pub use super::ordering::ArchivedPrePrepare;
    pub use super::pbft::{
        ArchivedNamedViewChange, ArchivedNewView, ArchivedViewChange, ArchivedViewTransferMessage,
        ArchivedVote,
    };
    pub use super::request::{ArchivedAuthenticator, ArchivedRequestBody, ArchivedRequestFrame};
    pub use super::sync::{ArchivedBatchRef, ArchivedStatus, ArchivedSyncMessage};
    pub use super::system::{ArchivedForwardedRequests, ArchivedProtocolMessages, ArchivedSystemMessage};
    pub use super::transfer::{ArchivedLogTransferMessage, ArchivedStateTransferMessage};
}

#[cfg(test)]
mod tests;
