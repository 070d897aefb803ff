use std::time::Duration;

use super::authenticator::Authentication;
use crate::runtime::config::ReadLevel;
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::LeaderRule;
use crate::smr::types::{ClientId, ClusterId, Epoch, Quorum};

/// What a session must know.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The membership.
    pub epoch: Epoch,
    /// The client.
    pub client: ClientId,
    /// The cluster's arithmetic.
    pub quorum: Quorum,
    /// Who leads a view: by the ordering protocol of the cluster's replicas.
    pub leaders: LeaderRule,
    /// How many answers are enough.
    pub answers: AnswerRule,
    /// How frames are proven.
    pub authentication: Authentication,
    /// The most operations in a frame.
    pub frame_operations_max: usize,
    /// The most bytes of operations in a frame.
    pub frame_bytes_max: usize,
    /// The most frames under way.
    pub frames_in_flight_max: usize,
    /// The most operations under way or gathered.
    pub operations_max: usize,
    /// How long to wait for answers before asking everybody.
    pub retransmit_timeout: Duration,
    /// Random, from the system: keeps the sessions of processes apart that begin with one identity at the
    /// same moment.
    pub seed: u64,
    /// Random, from the system: keeps their frames apart even if their sessions are the same.
    pub process: u64,
}

/// How many equal answers, each of another replica, end an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerRule {
    /// Of ordered operations.
    pub ordered: usize,
    /// Of reads beside the order; `None` where reads are asked in order.
    pub unordered: Option<usize>,
}

impl AnswerRule {
    /// The rule of a cluster in which reads beside the order are enabled or not, for a client that wants
    /// its reads at this level. The reasons stand with [`Session`](super::Session).
    #[must_use]
    pub fn new(quorum: Quorum, unordered: bool, reads: ReadLevel) -> Self {
        Self {
            ordered: match unordered {
                true if !active(Mutant::OrderedAnswersWeak) => quorum.quorum(),
                _ => quorum.weak(),
            },
            unordered: match (reads, unordered) {
                (_, false) => None,
                (ReadLevel::Relaxed, true) => Some(quorum.weak()),
                (ReadLevel::Linearizable, true) => Some(quorum.quorum()),
            },
        }
    }
}

/// An operation is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many are under way.
    #[error("too many operations are under way")]
    Full,
    /// It is larger than a frame may be.
    #[error("the operation has {got} bytes, at most {max} fit a frame")]
    TooLarge {
        /// Its size.
        got: usize,
        /// The limit.
        max: usize,
    },
}

/// What a session counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Frames sent for the first time.
    pub frames_sent: u64,
    /// Frames sent again to everybody.
    pub retransmissions: u64,
    /// Messages that no correct replica sends: not sound, not for us, or about frames that were never sent.
    pub answers_ignored: u64,
    /// Read-only frames asked again beside the order, because equal answers were of states that differ.
    pub reads_again: u64,
    /// Read-only frames asked again in order.
    pub reads_ordered: u64,
    /// Frames that were signed because f+1 replicas had asked for it.
    pub frames_proven: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Operations sent under another number because they were not executed under their first one.
    pub operations_again: u64,
}
