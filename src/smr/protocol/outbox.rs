use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Record, Rejected, SnapshotTask, Timer};
use crate::smr::messages::{CheckpointClaim, Message, Proposal, SignedCheckpoint, archive};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Lsn, NodeId, SeqNo, Time, View};

/// Who a message goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipients {
    /// Every other replica.
    Others,
    /// One replica.
    One(NodeId),
}

/// When an effect may leave the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// At once: it promises nothing.
    Now,
    /// When the log is on disk up to and including this record.
    Durable(Lsn),
    /// Like [`When::Durable`], and never if too much waits for the disk: it is a repetition, and will be
    /// asked for again.
    DurableIfRoom(Lsn),
}

/// What a protocol wants done. The orchestrator carries effects out in the order in which they were given.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Write a record to the persistent log at the next position.
    Persist {
        /// Its position.
        lsn: Lsn,
        /// What to write.
        record: Record,
    },
    /// Send a whole message, envelope included.
    Send {
        /// To whom.
        to: Recipients,
        /// The message.
        message: Bytes,
        /// When it may leave.
        when: When,
    },
    /// Send a small message of the ordering protocol's own to every other replica: those of one flush travel
    /// together.
    SendTogether {
        /// Its archive.
        message: Bytes,
        /// When it may leave.
        when: When,
    },
    /// The batch is committed, and so is everything before it: execute it next.
    Decide(Arc<Proposal>),
    /// A quorum signed this checkpoint: everything up to it may be forgotten.
    Stable {
        /// What is stable.
        claim: CheckpointClaim,
        /// The signatures that prove it, of distinct replicas.
        proof: Vec<SignedCheckpoint>,
    },
    /// (Re)start a timer.
    SetTimer {
        /// Which.
        timer: Timer,
        /// When it fires.
        at: Time,
    },
    /// Have the disk, or execution, do something with the snapshot of a checkpoint.
    Snapshot(SnapshotTask),
    /// Stop a timer.
    CancelTimer(Timer),
    /// A message was refused: count it.
    Rejected(Rejected),
    /// Our own checkpoint differs from one that a quorum signed: our state is wrong.
    Diverged {
        /// What the quorum says.
        stable: CheckpointClaim,
        /// What we have.
        ours: CheckpointClaim,
    },
    /// Leave the current view for this one: ordering stops voting and hands out its evidence.
    LeaveView(View),
    /// Pass pending requests on to everybody: the leader has not ordered them for a while.
    BroadcastPending,
    /// Requests wait for so long: pass each on to the leader once more, and have their clients prove them to
    /// everybody.
    UrgePending(Duration),
    /// A view begins: ordering starts it with what the view transfer hands out for it, one for each such
    /// effect.
    EnterView(View),
    /// We lack decisions that the others have forgotten: only a transfer brings us back.
    FellBehind {
        /// The stable checkpoint we have to reach.
        stable: SeqNo,
    },
}

/// The proof that a record was given to the log: what it promises may be sent once it is durable.
/// Made by [`Outbox::persist`] alone, or read back from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Persisted(Lsn);

impl Persisted {
    /// The proof for what was read back from the log: it is durable.
    pub const RESTORED: Self = Self(Lsn::ZERO);

    /// Once the log holds it.
    #[must_use]
    pub const fn when(self) -> When {
        When::Durable(self.0)
    }
}

/// Collects the effects of one event.
#[derive(Debug)]
pub struct Outbox {
    effects: Vec<Effect>,
    next_lsn: Lsn,
}

impl Outbox {
    /// An empty outbox of a replica whose log continues at `next_lsn`.
    #[must_use]
    pub fn new(next_lsn: Lsn) -> Self {
        Self {
            effects: Vec::new(),
            next_lsn,
        }
    }

    /// Gives a record to the log.
    pub fn persist(&mut self, record: Record) -> Persisted {
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        self.effects.push(Effect::Persist { lsn, record });
        Persisted(lsn)
    }

    /// Sends a message that promises nothing.
    pub fn send(&mut self, to: Recipients, message: Bytes) {
        self.effects.push(Effect::Send {
            to,
            message,
            when: When::Now,
        });
    }

    /// The messages to this replica alone.
    pub fn sent_to(&self, node: NodeId) -> impl Iterator<Item = &Bytes> {
        self.effects.iter().filter_map(move |effect| match effect {
            Effect::Send { to, message, .. } if *to == Recipients::One(node) => Some(message),
            _ => None,
        })
    }

    /// Sends a message that binds the replica, once what it promises is on disk.
    pub fn send_promise(&mut self, to: Recipients, message: Bytes, promise: Persisted) {
        self.effects.push(Effect::Send {
            to,
            message,
            when: match active(Mutant::PromiseBeforeDurable) {
                true => When::Now,
                false => When::Durable(promise.0),
            },
        });
    }

    /// Sends again what binds the replica, once it is on disk; or not at all, if too much waits for the disk.
    pub fn send_again(&mut self, to: Recipients, message: Bytes, promise: Persisted) {
        self.effects.push(Effect::Send {
            to,
            message,
            when: When::DurableIfRoom(promise.0),
        });
    }

    /// Says something of the ordering protocol's own that binds the replica, once it is on disk; together
    /// with what else is said in this flush.
    pub fn send_together<M: Message>(&mut self, message: &M, promise: Persisted) {
        self.effects.push(Effect::SendTogether {
            message: Bytes::from(archive(message, 64)),
            when: match active(Mutant::VoteBeforeDurable) {
                true => When::Now,
                false => When::Durable(promise.0),
            },
        });
    }

    /// (Re)starts a timer.
    pub fn set_timer(&mut self, timer: Timer, at: Time) {
        self.effects.push(Effect::SetTimer { timer, at });
    }

    /// Adds any effect that sends nothing.
    pub fn push(&mut self, effect: Effect) {
        debug_assert!(
            !matches!(
                effect,
                Effect::Send { .. } | Effect::SendTogether { .. } | Effect::Persist { .. }
            ),
            "what is sent or logged goes through its own method"
        );
        self.effects.push(effect);
    }

    /// Takes the effects out, in order; the allocation stays.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// The effects so far.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}
