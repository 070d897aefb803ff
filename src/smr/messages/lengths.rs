//! How long messages and records are at most: worked out here and nowhere else, from what all replicas agree
//! on.
//!
//! ```text
//!  agreement (n, window, frame and batch limits)
//!     └─► message, by kind ─► longest message of a link ─► longest record of a link
//!               └─► record of the log ─► smallest segment
//! ```
//!
//! An archive is its root, and behind it the elements of its lists, without gaps: so the lengths are exact,
//! not estimated. Whatever a correct replica sends is no longer than its kind's length here, whatever is
//! accepted is no longer either, and links and log take the longest. What could be longer is split: votes
//! after [`VOTES_MAX`], forwarded frames where a batch would end, a snapshot after [`IMAGE_CHUNK_BYTES`].
//!
//! | what | at most |
//! |---|---|
//! | pre-prepare, fetched batch, frames passed on | the bytes of a batch, and 4 bytes for each frame in it |
//! | votes | [`VOTES_MAX`] of them |
//! | VIEW-CHANGE | for each place of the window one entry of P and [`PRE_PREPARED_MAX`] of Q, and a signature for each replica |
//! | NEW-VIEW, and the question for VIEW-CHANGEs | a signer and a digest for each replica |
//! | status, references, digests of decisions | constants, and 8 bytes for each replica |
//! | proofs, offers | a signature for each replica |
//! | chunk of a snapshot | [`IMAGE_CHUNK_BYTES_MAX`] |

use super::archived::{
    ArchivedBatchRef, ArchivedClientReply, ArchivedFailedOperation, ArchivedReplyBody, ArchivedRequestBody,
    ArchivedRequestFrame, ArchivedVote,
};
use super::ordering::ArchivedSignedCheckpoint;
use super::pbft::{ArchivedNamedViewChange, ArchivedSlotDigest, ArchivedViewTransferMessage};
use super::system::ArchivedSystemMessage;
use super::transfer::DECIDED_MAX;
use super::{ENVELOPE_BYTES, STATUS_DISPUTES, STATUS_SLOTS};
use crate::smr::crypto::TAG_BYTES;
use crate::smr::types::REPLICAS_MAX;

/// How many votes share a message.
pub const VOTES_MAX: usize = 1024;

/// How many batches of one place a replica carries as pre-prepared (Q): one more is added only by another
/// view whose leader failed as well.
pub const PRE_PREPARED_MAX: usize = 8;

/// The largest window: a VIEW-CHANGE that speaks of each of its places fits [`VIEW_CHANGE_BYTES_MAX`].
pub const WINDOW_MAX: u64 = 150_000;

/// No VIEW-CHANGE is longer, in bytes, whatever is agreed on.
pub const VIEW_CHANGE_BYTES_MAX: usize = 64 << 20;

/// About how long a chunk of a snapshot is, in bytes.
pub const IMAGE_CHUNK_BYTES: usize = 256 << 10;

/// The longest chunk of a snapshot, in bytes: it is begun while there is room for a piece, and no piece in it
/// is longer than [`IMAGE_CHUNK_BYTES`].
pub const IMAGE_CHUNK_BYTES_MAX: usize = 2 * IMAGE_CHUNK_BYTES + 64;

/// About how many bytes answer one question of a peer.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// How many bytes of messages are gathered into one record of a link before the next is begun. A longer
/// message has a record of its own.
pub const LINK_RECORD_BYTES: usize = 64 << 10;

/// The shortest client frame there is, in bytes: a root, a body's root, and an authenticator.
pub const FRAME_BYTES_MIN: usize = size_of::<ArchivedRequestFrame>() + size_of::<ArchivedRequestBody>();

/// The smallest limit on the bytes of a client frame: there is room for the MACs of the largest cluster and
/// an operation of 1 KiB.
pub const FRAME_LIMIT_MIN: usize = 4096;

/// What an administrator's question, or its answer, has at most, in bytes.
pub const ADMIN_BYTES_MAX: usize = 1 << 20;

/// What the log writes before the message of a record, in bytes: length, kind, view, place and digest.
pub const LOG_HEAD_BYTES: usize = 4 + 1 + 8 + 8 + 32;

/// One MAC of a client frame, in bytes.
const MAC_BYTES: usize = 16;

/// What every message between replicas has: the envelope and the root of the archive.
const HEAD_BYTES: usize = ENVELOPE_BYTES + size_of::<ArchivedSystemMessage>();

/// What every message about views has: one archive inside another.
const VIEW_HEAD_BYTES: usize = HEAD_BYTES + size_of::<ArchivedViewTransferMessage>();

const PLACED_BYTES: usize = size_of::<ArchivedSlotDigest>();
const SIGNED_BYTES: usize = size_of::<ArchivedSignedCheckpoint>();
const NAMED_BYTES: usize = size_of::<ArchivedNamedViewChange>();

/// What lengths follow from. Equal at every replica of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// How many replicas there are.
    pub replicas: usize,
    /// How many places after its stable checkpoint a replica speaks of.
    pub window: u64,
    /// The most bytes of one client frame.
    pub frame_bytes_max: usize,
    /// The most operations of one client frame.
    pub frame_operations_max: usize,
    /// The most bytes of the results of one client frame.
    pub frame_result_bytes_max: usize,
    /// The most bytes of frames in one batch.
    pub batch_bytes_max: usize,
    /// The most frames in one batch.
    pub batch_frames_max: usize,
}

/// The longest message that carries a batch of so many bytes and frames.
#[must_use]
pub const fn batch_message_bytes(bytes: usize, frames: usize) -> usize {
    HEAD_BYTES + bytes + 4 * frames
}

/// The longest record of a link whose messages have at most so many bytes, as its length field says.
#[must_use]
pub const fn link_record_bytes(message_bytes: usize) -> usize {
    4 + longer(message_bytes, LINK_RECORD_BYTES) + TAG_BYTES
}

/// How many bytes a client frame has for its operations and their table, beside everything else in it.
#[must_use]
pub const fn operations_room(frame_bytes_max: usize, replicas: usize) -> usize {
    frame_bytes_max.saturating_sub(FRAME_BYTES_MIN + MAC_BYTES * replicas)
}

const fn longer(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

impl Lengths {
    /// The most bytes of frames that travel together: a frame longer than a batch should be makes one of its
    /// own.
    #[must_use]
    pub const fn batch_bytes(&self) -> usize {
        longer(self.batch_bytes_max, self.frame_bytes_max)
    }

    /// A pre-prepare, or a batch that answers a question.
    #[must_use]
    pub const fn batch_message(&self) -> usize {
        batch_message_bytes(self.batch_bytes(), self.batch_frames_max)
    }

    /// Frames passed on: as many bytes as a batch, and as many frames as these hold.
    #[must_use]
    pub const fn forwarded(&self) -> usize {
        batch_message_bytes(self.batch_bytes(), self.batch_bytes() / FRAME_BYTES_MIN)
    }

    /// So many votes together.
    #[must_use]
    pub const fn votes(count: usize) -> usize {
        HEAD_BYTES + count * (size_of::<ArchivedVote>() + 4)
    }

    /// A VIEW-CHANGE.
    #[must_use]
    pub const fn view_change(&self) -> usize {
        VIEW_HEAD_BYTES
            + self.replicas * SIGNED_BYTES
            + self.window as usize * (1 + PRE_PREPARED_MAX) * PLACED_BYTES
    }

    /// A NEW-VIEW, or a question for VIEW-CHANGEs.
    #[must_use]
    pub const fn new_view(&self) -> usize {
        VIEW_HEAD_BYTES + self.replicas * NAMED_BYTES
    }

    /// A status.
    #[must_use]
    pub const fn status(&self) -> usize {
        HEAD_BYTES + 8 * self.replicas + STATUS_SLOTS + 4 * STATUS_DISPUTES
    }

    /// Decisions, or a question for batches.
    #[must_use]
    pub const fn references() -> usize {
        HEAD_BYTES + STATUS_SLOTS * size_of::<ArchivedBatchRef>()
    }

    /// The proof of a stable checkpoint, or an offer of one.
    #[must_use]
    pub const fn proof(&self) -> usize {
        HEAD_BYTES + self.replicas * SIGNED_BYTES
    }

    /// Digests of decisions.
    #[must_use]
    pub const fn decided() -> usize {
        HEAD_BYTES + 32 * DECIDED_MAX
    }

    /// A chunk of a snapshot.
    #[must_use]
    pub const fn chunk() -> usize {
        HEAD_BYTES + IMAGE_CHUNK_BYTES_MAX
    }

    /// The longest message between replicas.
    #[must_use]
    pub const fn replica_message(&self) -> usize {
        let with_frames = longer(self.batch_message(), self.forwarded());
        let of_views = longer(self.view_change(), longer(self.new_view(), self.status()));
        let constant = longer(
            longer(Self::votes(VOTES_MAX), Self::references()),
            longer(Self::decided(), Self::chunk()),
        );
        longer(longer(with_frames, of_views), longer(constant, self.proof()))
    }

    /// The longest record of a link between replicas.
    #[must_use]
    pub const fn replica_record(&self) -> usize {
        link_record_bytes(self.replica_message())
    }

    /// The longest record that a replica takes from a client.
    #[must_use]
    pub const fn request_record(&self) -> usize {
        link_record_bytes(ENVELOPE_BYTES + self.frame_bytes_max)
    }

    /// The longest answer to a client's frame: each of its operations may have failed.
    #[must_use]
    pub const fn reply(&self) -> usize {
        let operation = 4 + size_of::<ArchivedFailedOperation>();
        let body = size_of::<ArchivedReplyBody>()
            + self.frame_result_bytes_max
            + self.frame_operations_max * operation;
        ENVELOPE_BYTES + size_of::<ArchivedClientReply>() + body
    }

    /// The longest record that a client takes from a replica.
    #[must_use]
    pub const fn reply_record(&self) -> usize {
        link_record_bytes(longer(self.reply(), ADMIN_BYTES_MAX))
    }

    /// The longest record of the log.
    #[must_use]
    pub const fn log_record(&self) -> usize {
        LOG_HEAD_BYTES + longer(longer(self.batch_message(), self.view_change()), self.new_view())
    }

    /// What the log has of the view that the replica is in, at most: it is written again before each cut.
    #[must_use]
    pub const fn view_records(&self) -> usize {
        let view_changes = self.replicas * (LOG_HEAD_BYTES + self.view_change());
        let announced = self.window as usize * PRE_PREPARED_MAX * (LOG_HEAD_BYTES + 8);
        view_changes + LOG_HEAD_BYTES + self.new_view() + announced
    }

    /// The smallest segment of the log, in bytes: it holds two of the longest records.
    #[must_use]
    pub const fn segment_bytes_min(&self) -> u64 {
        (2 * self.log_record() as u64).next_multiple_of(1 << 20)
    }

    /// How many effects may wait for the disk: room for every place of the window, several times.
    #[must_use]
    pub const fn held_effects(&self) -> usize {
        8 * self.window as usize + 64
    }

    /// The most bytes that one event has a replica send to one peer at once, about: a queue of a link has to
    /// hold them.
    #[must_use]
    pub const fn burst(&self) -> usize {
        ANSWER_BYTES_MAX + 2 * self.replica_message()
    }

    /// The same of what a peer catches up with.
    #[must_use]
    pub const fn transfer_burst(&self) -> usize {
        ANSWER_BYTES_MAX + 2 * longer(self.batch_message(), Self::chunk())
    }
}

/// The largest cluster with the largest window.
const LARGEST: Lengths = Lengths {
    replicas: REPLICAS_MAX,
    window: WINDOW_MAX,
    frame_bytes_max: FRAME_LIMIT_MIN,
    frame_operations_max: 1,
    frame_result_bytes_max: 0,
    batch_bytes_max: FRAME_LIMIT_MIN,
    batch_frames_max: 1,
};

const _: () = assert!(
    LARGEST.view_change() <= VIEW_CHANGE_BYTES_MAX,
    "the largest view change is bounded"
);
const _: () = assert!(
    Lengths::votes(VOTES_MAX) <= LINK_RECORD_BYTES,
    "a turn's votes leave in ordinary records"
);
const _: () = assert!(
    operations_room(FRAME_LIMIT_MIN, REPLICAS_MAX) >= 1024,
    "the smallest frame has room for an operation"
);
const _: () = assert!(
    LARGEST.new_view() <= LINK_RECORD_BYTES && LARGEST.status() <= LINK_RECORD_BYTES,
    "what is about no place is small"
);
const _: () = assert!(
    Lengths::chunk() <= ANSWER_BYTES_MAX,
    "an answer holds at least one chunk"
);

#[cfg(test)]
mod tests;
