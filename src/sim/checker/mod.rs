//! What must be true of every run, by arithmetic of its own: nothing here calls a predicate of the protocol.
//!
//! | checker | looks at | finds |
//! |---|---|---|
//! | [`ledger`](self) | what each correct replica hears, logs, says | votes before they are durable, two votes for one place, commits, views and stable checkpoints without a quorum of distinct signers, votes outside the window, or about what a damaged disk forgot |
//! | lasting | what correct replicas vote for, view after view, and carry from one to the next | another batch where one may be committed; less than was pre-prepared |
//! | donors | what correct replicas offer and give to those that fetch a state | a state that was offered and is gone, or is another one |
//! | agreement | what correct replicas execute | two batches at one place, gaps, frames no client sent, frames executed twice, replies and checkpoints that differ |
//! | [`linearizability`] | the history that clients see | results that no order of the operations explains |
//! | effort | what each correct replica verifies because of each other one | more signatures than that one may have verified |
//! | lengths | messages and records of correct replicas | what no link or log takes, or is not split |
//! | memory | queues, pools and answers | more than the limits allow, and what is never freed |

mod agreement;
mod answers;
mod donors;
mod effort;
mod lasting;
mod ledger;
mod lengths;
pub mod linearizability;
mod views;

pub(super) use agreement::Agreement;
pub(super) use donors::Donors;
pub(super) use effort::Efforts;
pub(super) use lasting::Lasting;
pub(super) use ledger::Ledger;
pub(super) use lengths::Sizes;

use crate::types::Time;

/// A rule that a run broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// What was seen.
    pub what: String,
    /// When, in virtual time.
    pub at: Time,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No two correct replicas execute different batches at one place, and none votes for another where one may be committed.
    Agreement,
    /// Decisions are executed in order, without gaps.
    Order,
    /// What is executed was asked by its client.
    Validity,
    /// Each frame is executed once.
    ExactlyOnce,
    /// Correct replicas give equal replies.
    Replies,
    /// Correct replicas take equal checkpoints.
    Checkpoints,
    /// Nothing that binds a replica leaves it before it is on disk.
    Durability,
    /// A correct replica casts one vote per phase, view and place.
    OneVote,
    /// A commit follows a quorum of prepares, a decision a quorum of commits, a stable checkpoint a quorum of signatures, a
    /// view a quorum of view changes; a view out of turn is asked for when f+1 others do.
    Certificates,
    /// A correct replica takes no part outside its window.
    Window,
    /// What clients see is linearizable.
    Linearizability,
    /// Queues and pools stay within their limits, and are empty once everything is done; nobody is answered beyond them.
    Memory,
    /// What another replica sends makes a correct one verify so many signatures and no more.
    Effort,
    /// After the faults have healed, everything pending completes, and every correct replica has executed what the others have.
    Progress,
    /// Once everything is in order, a leader that does its work is not replaced.
    Stability,
    /// View changes carry what their sender committed to before.
    Evidence,
    /// A replica whose disk lost what it promised says nothing of what that was about.
    Abstention,
    /// The state of a checkpoint that was offered is given to who asks for it in time, and is the one that correct replicas had.
    Donors,
    /// A replica whose disk kept what was acknowledged starts again, with all of it, and from no state that a quorum contradicted; one whose disk is empty does not start.
    Recovery,
    /// No assertion of the protocol fails.
    NoPanic,
    /// What a correct replica sends fits a link, and what it logs a record.
    Lengths,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {:?}: {}", self.rule, self.at, self.what)
    }
}

/// A rule with what broke it: when is added by the world.
pub(super) type Broken = (Rule, String);
