//! The roles: plain actors with one bounded step each.

mod consensus;
mod consensus_port;
mod consensus_record;
mod execution;
mod log;
mod network;
mod phase_timer;
mod preprocess;
mod twins;

pub(crate) use consensus::{ConsensusLanes, ConsensusRole};
pub(crate) use execution::{ExecutionLanes, ExecutionRole};
pub(crate) use log::{LogLanes, LogRole};
pub(crate) use network::{NetworkLanes, NetworkRole};
pub(crate) use preprocess::{PreprocessLanes, PreprocessRole};

use super::reactor::{Completion, Reactor};
use crate::runtime::config::RoleKind;
use crate::runtime::flight::FlightPen;
use crate::runtime::storage::StorageError;
use crate::smr::types::Time;

/// How many messages of one lane a role takes in one step.
pub(crate) const STEP_MESSAGES: usize = 256;

/// One role on one shard. Its shard calls the hooks; a role never blocks.
pub(crate) trait Role: Send {
    /// Takes a bounded amount of input; true if there was any.
    fn step(&mut self, now: Time, reactor: &mut Reactor) -> bool;

    /// Sends what the turn made. Called after every role's step, in reverse order; true if there was any.
    fn finish(&mut self, now: Time, reactor: &mut Reactor) -> bool;

    /// Which of a replica's roles it is, if it is one.
    fn kind(&self) -> Option<RoleKind> {
        None
    }

    /// From now on events are recorded with this pen, which is its shard's. Called before the first step.
    fn record_with(&mut self, _: FlightPen) {}

    /// Measures what waits for it. Called before one of its steps now and then.
    fn observe(&mut self) {}

    /// One of this role's operations completed.
    fn on_completion(&mut self, _: &mut Reactor, _: Completion) {}

    /// Whether a step would find input. Asked before the shard sleeps.
    fn has_input(&self) -> bool;

    /// When a step is due even without input.
    fn next_timeout(&self) -> Option<Time> {
        None
    }

    /// The replica drains: no new client work is taken. True once this role has nothing left to do.
    /// `finishing` says that everything taken was decided, executed and answered, on all shards.
    fn drain(&mut self, finishing: bool) -> bool;

    /// Why this role cannot go on, once: its shard ends, and the replica with it.
    fn failure(&mut self) -> Option<StorageError> {
        None
    }

    /// Whether this role knows that everything taken was decided and executed: of the one that orders.
    fn is_settled(&self) -> bool {
        false
    }
}
