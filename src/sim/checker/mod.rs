//! What must be true of every run, by arithmetic of its own: nothing here calls a predicate of the protocol.
//!
//! | checker | looks at | finds |
//! |---|---|---|
//! | [`ledger`](self) | what each correct replica hears, logs, says | votes before they are durable, two votes for one place, commits, views and stable checkpoints without a quorum of distinct signers, votes outside the window, or about what a damaged disk forgot |
//! | lasting | what correct replicas vote for, view after view, and carry from one to the next | another batch where one may be committed; less than was pre-prepared |
//! | donors | what correct replicas offer and give to those that fetch a state | a state that was offered and is gone, or is another one |
//! | agreement | what correct replicas execute | two batches at one place, gaps, frames no client sent, frames executed twice, replies and checkpoints that differ, checkpoints at other places |
//! | [`linearizability`] | the history that clients see | results that no order of the operations explains |
//! | reads | from which states correct replicas answer, and what reads saw | answers that go back in time |
//! | effort | what each correct replica verifies because of each other one | more signatures than that one may have verified |
//! | conduct | what correct replicas refuse | correct replicas that take each other for liars |
//! | lengths | messages and records of correct replicas, messages of clients | what no link or log takes, or is not split |
//! | blame | which clients correct replicas have sign | honest ones whose MACs held, or have held for long |
//! | charges | what each correct replica does for clients | answers that nobody paid for, reads where none are enabled or out of turn |
//! | times | at which times correct replicas execute decisions | two times for one decision, one that goes back, one that is near no correct replica's clock |
//! | memory | queues, pools, answers, and how many bytes peers are sent because they ask | more than the limits allow, and what is never freed |
//! | budget | what each correct replica logs and keeps | more bytes than what clients asked for explains, or than there is room for; certificates with more than a quorum |

mod agreement;
mod answers;
mod blame;
mod budget;
mod charges;
mod commit_stability;
mod conduct;
mod donors;
mod lengths;
pub mod linearizability;
mod reads;
mod times;
mod verify_effort;
mod views;
mod vote_audit;

pub(super) use agreement::Agreement;
pub(super) use blame::Blame;
pub(super) use budget::Budget;
pub(super) use charges::Charges;
pub(super) use commit_stability::CommitStability;
pub(super) use conduct::Refusal;
pub(super) use donors::Donors;
pub(super) use lengths::{Sizes, Toward};
pub(super) use reads::{Answered, Seen, judge_reads};
pub(super) use times::Times;
pub(super) use verify_effort::Efforts;
pub(super) use vote_audit::VoteAudit;

use crate::smr::types::Time;

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
    /// No two correct replicas execute different batches at one place, and none votes for another where one
    /// may be committed.
    Agreement,
    /// Decisions are executed in order, without gaps.
    Order,
    /// What is executed was asked by its client.
    Validity,
    /// Each frame is executed once.
    ExactlyOnce,
    /// Correct replicas give equal replies.
    Replies,
    /// Correct replicas take equal checkpoints, at the same places.
    Checkpoints,
    /// A decision has one agreed time, no earlier than the one before it, and near a correct replica's clock.
    Times,
    /// Nothing that binds a replica leaves it before it is on disk.
    Durability,
    /// A correct replica casts one vote per phase, view and place.
    OneVote,
    /// A commit follows a quorum of prepares, a decision a quorum of commits, a stable checkpoint a quorum of
    /// signatures, a view a quorum of view changes; a view is asked for when a quorum wants it, or f+1 others
    /// ask for it.
    Certificates,
    /// A correct replica takes no part outside its window.
    Window,
    /// What clients see is linearizable.
    Linearizability,
    /// Queues, pools, logs and what is remembered stay within their limits, and queues and pools are empty
    /// once everything is done; nobody is answered beyond them.
    Memory,
    /// What another replica sends makes a correct one verify so many signatures and no more.
    VerifyEffort,
    /// After the faults have healed, everything pending completes, and every correct replica has executed
    /// what the others have.
    Progress,
    /// Once everything is in order, a leader that does its work is not replaced.
    Stability,
    /// View changes carry what their sender committed to before.
    Evidence,
    /// A replica whose disk lost what it promised says nothing of what that was about.
    VotingSuspension,
    /// The state of a checkpoint that was offered is given to who asks for it in time, and is the one that
    /// correct replicas had.
    Donors,
    /// A replica whose disk kept what was acknowledged starts again, with all of it, and from no state that a
    /// quorum contradicted; one whose disk is empty does not start.
    Recovery,
    /// Correct replicas know the same epochs, and begin each with what correct replicas had there.
    Epochs,
    /// No assertion of the protocol fails.
    NoPanic,
    /// No correct replica refuses as misbehaviour what another correct one sent.
    Conduct,
    /// What correct replicas and clients send fits a link, and what a replica logs a record.
    Lengths,
    /// A correct replica answers reads from no earlier state than it answered from before, however often it
    /// restarted or its state was replaced; a read sees every write that was acknowledged before it began.
    Reads,
    /// What a replica does for a client, that client has asked for by itself, and others' reads wait no
    /// longer for it than its share.
    Charges,
    /// An honest client has to sign only if one of its MACs failed at a correct replica, and for a time.
    Blame,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {:?}: {}", self.rule, self.at, self.what)
    }
}

/// A rule with what broke it: when is added by the world.
pub(super) type Broken = (Rule, String);
