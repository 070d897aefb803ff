//! Execution: decided batches become state and replies.
//!
//! An [`Application`] is deterministic code over a [`MonolithicState`]. An [`Executor`] runs it: it takes
//! decisions in order, executes each frame once ([`ClientTable`]), answers per frame, and takes checkpoints at places
//! that follow from the decisions alone, so that every replica takes the same ones. Every executor gives
//! byte-identical replies and digests for the same decisions.

mod application;
pub mod apps;
mod client_table;
mod image;
mod part;
mod parts;
mod single;
mod window;

pub use application::{Application, MonolithicState, PANIC_RESULT, TOO_LONG_RESULT};
pub use client_table::ClientTable;
pub use image::{CheckpointImage, ImageError};
pub use parts::{PARTS, PartitionedStore, PartsSnapshot};
pub use single::{CheckpointRule, FRAME_RESULT_BYTES_MAX, SingleThreaded};
pub use window::{CLIENT_WINDOW, SequenceWindow, Standing};

use std::sync::Arc;

use bytes::Bytes;

use crate::decision_log::Chain;
use crate::messages::{CheckpointClaim, Frame, FrameKey, Proposal};
use crate::types::{SeqNo, View};

/// What execution tells the rest of the replica.
#[derive(Debug)]
pub enum ExecutionEvent {
    /// Answer a client.
    Reply {
        /// The frame that is answered.
        key: FrameKey,
        /// The view in which it was decided, or the latest one known.
        view: View,
        /// The archive of a [`ReplyBody`](crate::messages::ReplyBody).
        body: Bytes,
    },
    /// A decision was executed.
    Executed {
        /// Its place.
        seq: SeqNo,
        /// Operations executed; frames executed before do not count.
        operations: usize,
    },
    /// The digest of a checkpoint is known.
    Checkpoint(CheckpointClaim),
    /// The contents of the checkpoint whose digest was just told, to be kept on disk.
    Image(Box<dyn CheckpointImage>),
}

/// Runs an application over decisions. Deterministic: the same calls give the same events.
pub trait Executor: Send {
    /// Executes the next decision. Decisions come in order, without gaps.
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>);

    /// Executes a frame of read-only operations on the current state.
    fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>);

    /// Sends the cached reply of an executed frame once more, if it is still there.
    fn reply_again(&mut self, key: FrameKey, events: &mut Vec<ExecutionEvent>);

    /// Does about `budget_bytes` of pending checkpoint work; true while some is left. Called between decisions,
    /// so that a checkpoint never stops execution.
    fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool;

    /// The checkpoint claim for the state as it is now, computed at once: for tools and tests, not for load.
    fn digest_now(&mut self) -> CheckpointClaim;

    /// Whether checkpoints give [images](ExecutionEvent::Image) from the next one on.
    fn keep_images(&mut self, keep: bool);

    /// Takes one chunk of an image in; the first one empties the state and the client table.
    ///
    /// # Errors
    /// When it is no chunk of an image of this service and this cluster.
    fn read_image_chunk(&mut self, chunk: &[u8]) -> Result<(), ImageError>;

    /// All chunks of an image were read: what the contents amount to, if they are those the image's head promised.
    ///
    /// # Errors
    /// When they are not.
    fn finish_image(&mut self) -> Result<CheckpointClaim, ImageError>;

    /// The chain of the decisions that were executed.
    fn chain(&self) -> Chain;

    /// What was executed of each client's frames.
    fn client_windows(&self) -> Vec<SequenceWindow>;

    /// The last decision executed.
    fn executed(&self) -> SeqNo;

    /// How many operations panicked. Each gave the defined error result, at every replica alike.
    fn panics(&self) -> u64;
}

#[cfg(test)]
mod tests;
