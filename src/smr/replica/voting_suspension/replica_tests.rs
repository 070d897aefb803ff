//! An abstaining replica as a whole: what goes in, and what comes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::tests::status;
use super::*;
use crate::smr::crypto::{Digester, SigningKey};
use crate::smr::execution::apps::null::Null;
use crate::smr::messages::archived::{
    ArchivedSyncMessage, ArchivedSystemMessage, ArchivedViewTransferMessage,
};
use crate::smr::messages::{
    Batch, Checked, CheckpointClaim, Phase, Proposal, SignedCheckpoint, SyncMessage, SystemMessage, Vote,
};
use crate::smr::ordering::pbft::tests::context;
use crate::smr::preprocessing::{PoolLimits, RequestPool};
use crate::smr::protocol::PartContext;
use crate::smr::replica::tests::parts;
use crate::smr::replica::{Action, DefaultStack, Protocols, ReplicaSettings};
use crate::smr::types::{ClusterId, Digest, Epoch, Lsn};

const CLUSTER: ClusterId = ClusterId::from_bytes([9; 16]);
const WINDOW: u64 = 8;

fn key(node: u16) -> SigningKey {
    SigningKey::from_seed(&[node as u8 + 1; 32])
}

/// Replica 3 of four.
struct Subject {
    replica: Replica<DefaultStack<Null>>,
    now: Time,
    logged: Lsn,
}

impl Subject {
    fn new() -> Self {
        let context = PartContext {
            cluster: CLUSTER,
            digester: Digester::new(CLUSTER),
            window: WINDOW,
            ..context(4, 3)
        };
        let settings = ReplicaSettings {
            node: context.node,
            cluster: CLUSTER,
            epoch: context.epoch,
            base: context.base,
            quorum: context.quorum,
            batch_bytes_max: 1 << 16,
            batch_frames_max: 16,
            votes_max: 8,
            held_effects_max: 1000,
            must_sign_for: std::time::Duration::from_secs(60),
        };
        let limits = PoolLimits {
            frames_per_client: 10,
            bytes_per_client: 1 << 20,
            bytes_max: 1 << 20,
        };
        let protocols = Protocols::make(&parts(), &context);
        let pool = RequestPool::new(1, limits);
        Self {
            replica: Replica::new(settings, context.digester, protocols, pool, Lsn::ZERO),
            now: Time::START,
            logged: Lsn::ZERO,
        }
    }

    /// One that abstains, and has heard from everybody else that nothing was decided in view zero.
    fn abstaining(view: Option<u64>) -> Self {
        let mut this = Self::new();
        this.replica.abstain(LostPromises {
            view: view.map(View::new),
        });
        (0..3).for_each(|peer| this.hear(peer, &SyncMessage::Status(status(0, 0))));
        this.said();
        this
    }

    fn hear(&mut self, from: u16, message: &SyncMessage) {
        let message = message.clone().encode(CLUSTER, Epoch::ZERO);
        let checked = Checked::<SystemMessage>::body_of(&message).unwrap();
        let from = NodeId::new(from);
        assert!(self.replica.on_message(self.now, from, &checked, &message));
    }

    /// The others agree on a place.
    fn others_decide(&mut self, seq: u64) {
        let digest = Digest::from_bytes([seq as u8; 32]);
        let batch = Batch {
            digest,
            ..Batch::null()
        };
        let proposal = Proposal {
            view: View::ZERO,
            seq: SeqNo::new(seq),
            batch: Arc::new(batch),
            message: Bytes::new(),
            authentic: true,
        };
        self.replica.on_proposal(self.now, NodeId::new(0), proposal);
        for (peer, phase) in [
            (1, Phase::Prepare),
            (2, Phase::Prepare),
            (0, Phase::Commit),
            (1, Phase::Commit),
            (2, Phase::Commit),
        ] {
            let vote = Vote {
                phase,
                view: 0,
                seq,
                digest: *digest.as_bytes(),
            };
            let message = SystemMessage::votes(CLUSTER, Epoch::ZERO, vec![vote]);
            let checked = Checked::<SystemMessage>::body_of(&message).unwrap();
            let peer = NodeId::new(peer);
            assert!(self.replica.on_message(self.now, peer, &checked, &message));
        }
    }

    fn others_sign(&mut self, seq: u64) {
        let claim = CheckpointClaim {
            seq: SeqNo::new(seq),
            digest: Digest::from_bytes([7; 32]),
        };
        for peer in 0..3 {
            let signed = claim.signed_digest(&Digester::new(CLUSTER));
            let checkpoint = SignedCheckpoint {
                seq,
                digest: *claim.digest.as_bytes(),
                signer: peer,
                signature: key(peer).sign(crate::smr::crypto::Domain::Checkpoint, &signed),
            };
            self.replica
                .on_checkpoint(self.now, NodeId::new(peer), checkpoint);
        }
    }

    /// Ends the turn with everything on disk: what was said and done, in a word each.
    fn said(&mut self) -> Vec<&'static str> {
        let mut words = self.turn();
        self.replica.on_durable(self.logged);
        words.extend(self.turn());
        words
    }

    fn turn(&mut self) -> Vec<&'static str> {
        self.replica.finish_turn(self.now);
        let actions: Vec<Action> = self.replica.drain_actions().collect();
        let mut words = Vec::new();
        for action in actions {
            words.push(match action {
                Action::ToReplicas { message, .. } | Action::PassOn { message, .. } => word(&message),
                Action::Execute(_) => "execute",
                Action::AbstentionOver => "over",
                Action::Log { lsn, .. } => {
                    self.logged = lsn.next();
                    continue;
                }
                _ => continue,
            });
        }
        words
    }
}

fn word(message: &Bytes) -> &'static str {
    let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
        return "?";
    };
    match &*checked {
        ArchivedSystemMessage::ProposalMessage(_)
        | ArchivedSystemMessage::ProtocolMessage(_)
        | ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::Checkpoint(_)) => "promise",
        ArchivedSystemMessage::SyncMessage(_) => "status",
        ArchivedSystemMessage::ViewTransferMessage(_) => match checked.of_views().as_deref() {
            Some(ArchivedViewTransferMessage::ViewChange(_)) => "view change",
            _ => "status",
        },
        _ => "transfer",
    }
}

#[test]
fn it_decides_what_others_decide_and_votes_on_nothing() {
    let mut subject = Subject::abstaining(None);
    for seq in 1..=WINDOW {
        subject.others_decide(seq);
        assert_eq!(subject.said(), ["execute"], "at {seq}");
    }
    // The same without the abstention: the test can fail.
    let mut other = Subject::new();
    other.others_decide(1);
    assert_eq!(other.said(), ["execute", "promise"]);
}

#[test]
fn it_votes_again_after_a_checkpoint_past_everything_it_may_have_voted_on() {
    let mut subject = Subject::abstaining(Some(0));
    (1..WINDOW).for_each(|seq| subject.others_decide(seq));
    subject.others_sign(WINDOW - 1);
    assert_eq!(subject.said(), ["execute"; WINDOW as usize - 1]);
    assert_eq!(
        subject.replica.reads_from(),
        None,
        "it may have answered from a later state"
    );
    subject.others_decide(WINDOW);
    subject.others_sign(WINDOW);
    assert_eq!(subject.replica.ordering().stable(), SeqNo::new(WINDOW));
    let turn = subject.turn();
    assert!(
        turn.is_empty(),
        "neither a decision nor the end counts before the log holds it: {turn:?}"
    );
    subject.replica.on_durable(subject.logged);
    assert_eq!(subject.turn(), ["execute", "over"]);
    assert_eq!(subject.replica.participation(), Participation::Full);
    // Of what it forgot that it executed nothing lies beyond.
    assert_eq!(subject.replica.reads_from(), Some(SeqNo::new(WINDOW)));
    subject.others_decide(WINDOW + 1);
    assert_eq!(subject.said(), ["execute", "promise"]);
}

#[test]
fn a_view_change_it_may_have_asked_for_has_to_begin_first() {
    let mut subject = Subject::abstaining(None);
    (1..=WINDOW).for_each(|seq| subject.others_decide(seq));
    subject.others_sign(WINDOW);
    assert_eq!(subject.said(), ["execute"; WINDOW as usize]);
    subject.others_decide(WINDOW + 1);
    assert_eq!(subject.said(), ["execute"], "it may have asked for view one");
    // f+1 others ask for the next view: what it says of itself now is true.
    subject.replica.leave_view(subject.now, View::new(1));
    assert_eq!(subject.said(), ["view change", "over"]);
}

#[test]
fn what_it_would_say_of_itself_before_the_checkpoint_is_not_said() {
    let mut subject = Subject::abstaining(None);
    subject.others_decide(1);
    assert_eq!(subject.said(), ["execute"]);
    subject.replica.leave_view(subject.now, View::new(1));
    assert!(subject.said().is_empty());
    let is_abstaining = |subject: &Subject| subject.replica.participation() != Participation::Full;
    assert!(is_abstaining(&subject));
    // Nor later, while the view has not begun: the view change it holds was made before the checkpoint.
    subject.others_sign(WINDOW);
    subject.hear(0, &SyncMessage::Status(status(1, 0)));
    assert!(!subject.said().contains(&"view change"));
    assert!(is_abstaining(&subject));
}

#[test]
fn it_asks_for_no_view_of_its_own_accord() {
    let mut subject = Subject::abstaining(None);
    for _ in 0..100 {
        subject.now = subject.now.after(Duration::from_secs(1));
        subject.replica.on_time(subject.now);
        assert!(subject.said().iter().all(|word| *word == "status"));
    }
    assert_eq!(subject.replica.view(), View::ZERO);
}
