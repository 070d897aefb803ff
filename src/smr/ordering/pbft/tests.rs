//! The contract suite: input → the exact list of effects. Effects are compared as short lines of text.

mod checkpoints;
mod epochs;
mod normal_case;
mod resends;
mod seeds;
mod views;

use std::time::Duration;

use super::*;
use crate::smr::crypto::{Digester, SigningKey};
use crate::smr::messages::archived::{ArchivedBatchRef, ArchivedSyncMessage, ArchivedSystemMessage};
use crate::smr::messages::{Batch, Checked, CheckpointClaim, PbftRecord, archive};
use crate::smr::protocol::When;
use crate::smr::types::{ClusterId, Epoch, Quorum, UnixTime};
use crate::smr::types::{Digest, Lsn};

const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);
/// The window of the replicas under test.
const WINDOW: u64 = 8;
/// Their leader's pipeline.
const PIPELINE: usize = 3;

fn signing(node: u16) -> SigningKey {
    SigningKey::from_seed(&[node as u8 + 1; 32])
}

/// Replica `node` of `n`, whose keys follow from their numbers.
pub(crate) fn context(n: usize, node: u16) -> PartContext {
    PartContext {
        node: NodeId::new(node),
        quorum: Quorum::of(n).unwrap(),
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        base: CheckpointClaim::NONE,
        digester: Digester::new(CLUSTER),
        window: WINDOW,
        undecided_bytes_max: 64 << 20,
        clock_bound: Duration::from_secs(10),
        signing: signing(node),
        verifying: NodeId::all(n)
            .map(|node| signing(node.get()).verifying_key())
            .collect(),
        has_log: false,
    }
}

/// A digest that reads as one letter.
fn digest(letter: char) -> Digest {
    Digest::from_bytes([letter as u8; 32])
}

fn letter(digest: &Digest) -> char {
    match digest.as_bytes()[0] {
        0 => '0',
        byte => char::from(byte),
    }
}

fn batch(letter: char) -> Arc<Batch> {
    Arc::new(Batch {
        digest: digest(letter),
        time: UnixTime::EPOCH,
        frames: Vec::new(),
        bytes: 0,
    })
}

fn vote_for(phase: Phase, view: u64, seq: u64, letter: char) -> Vote {
    Vote {
        phase,
        view,
        seq,
        digest: *digest(letter).as_bytes(),
    }
}

fn claim(seq: u64, letter: char) -> CheckpointClaim {
    CheckpointClaim {
        seq: SeqNo::new(seq),
        digest: digest(letter),
    }
}

/// The batch of a letter; `0` is the null request.
fn chosen(letter: char) -> Digest {
    match letter {
        '0' => Digest::ZERO,
        letter => digest(letter),
    }
}

fn start(view: u64, stable: CheckpointClaim, batches: &str) -> ViewStart {
    ViewStart {
        view: View::new(view),
        stable,
        proof: Vec::new(),
        chosen: batches.chars().map(chosen).collect(),
    }
}

/// A replica under test, and its outbox.
struct Bench {
    pbft: Pbft,
    out: Outbox,
}

impl Bench {
    fn new(n: usize, node: u16) -> Self {
        Self {
            pbft: Pbft::new(OrderingConfig { pipeline: PIPELINE }, context(n, node)),
            out: Outbox::new(Lsn::ZERO),
        }
    }

    /// What the last event asked for, one line per effect.
    fn told(&mut self) -> Vec<String> {
        while self.pbft.take_early(Time::START, &mut self.out) {}
        self.out.drain().map(|effect| line(&effect)).collect()
    }

    fn propose(&mut self, letter: char) -> Vec<String> {
        self.pbft.propose(Time::START, batch(letter), &mut self.out);
        self.told()
    }

    /// A proposal of the leader with this time.
    fn proposal_at(&mut self, seq: u64, letter: char, time: UnixTime) -> Vec<String> {
        let proposal = Proposal {
            view: View::ZERO,
            seq: SeqNo::new(seq),
            batch: Arc::new(Batch {
                time,
                ..Batch::clone(&batch(letter))
            }),
            message: bytes::Bytes::new(),
            authentic: true,
        };
        let leader = NodeId::new(0);
        self.pbft
            .on_proposal(Time::START, leader, proposal, &mut self.out);
        self.told()
    }

    fn proposal_with(
        &mut self,
        from: u16,
        (view, seq): (u64, u64),
        letter: char,
        authentic: bool,
    ) -> Vec<String> {
        let proposal = Proposal {
            view: View::new(view),
            seq: SeqNo::new(seq),
            batch: batch(letter),
            message: bytes::Bytes::new(),
            authentic,
        };
        self.pbft
            .on_proposal(Time::START, NodeId::new(from), proposal, &mut self.out);
        self.told()
    }

    /// An authentic proposal of the leader of view zero.
    fn proposal(&mut self, seq: u64, letter: char) -> Vec<String> {
        self.proposal_with(0, (0, seq), letter, true)
    }

    fn vote(&mut self, from: u16, vote: Vote) -> Vec<String> {
        let message = Checked::<Vote>::new(archive(&vote, 64).into()).unwrap();
        self.pbft
            .on_message(Time::START, NodeId::new(from), &message, &mut self.out);
        self.told()
    }

    fn prepare(&mut self, from: u16, seq: u64, letter: char) -> Vec<String> {
        self.vote(from, vote_for(Phase::Prepare, 0, seq, letter))
    }

    fn commit(&mut self, from: u16, seq: u64, letter: char) -> Vec<String> {
        self.vote(from, vote_for(Phase::Commit, 0, seq, letter))
    }

    fn own_checkpoint(&mut self, seq: u64, letter: char) -> Vec<String> {
        self.pbft
            .on_own_checkpoint(Time::START, claim(seq, letter), &mut self.out);
        self.told()
    }

    fn checkpoint(&mut self, from: u16, seq: u64, letter: char) -> Vec<String> {
        let signed = signed_by(from, seq, letter);
        self.pbft
            .on_checkpoint(Time::START, NodeId::new(from), signed, &mut self.out);
        self.told()
    }

    fn stable(&mut self, from: u16, proof: &[SignedCheckpoint]) -> Vec<String> {
        self.pbft
            .on_stable(Time::START, NodeId::new(from), proof, &mut self.out);
        self.told()
    }

    fn status(&mut self, from: u16, at_ms: u64, status: &Status) -> Vec<String> {
        let now = Time::from_nanos(at_ms * 1_000_000);
        self.pbft.on_status(now, NodeId::new(from), status, &mut self.out);
        self.told()
    }

    fn status_due(&mut self) -> Vec<String> {
        self.pbft.on_timeout(Time::START, Timer::Status, &mut self.out);
        self.told()
    }

    fn batch(&mut self, from: u16, seq: u64, letter: char) -> Vec<String> {
        let batch = Proposal {
            view: View::ZERO,
            seq: SeqNo::new(seq),
            batch: batch(letter),
            message: bytes::Bytes::new(),
            authentic: false,
        };
        self.pbft
            .on_batch(Time::START, NodeId::new(from), batch, &mut self.out);
        self.told()
    }

    fn decisions(&mut self, from: u16, decisions: &[(u64, char)]) -> Vec<String> {
        let refs: Vec<BatchRef> = decisions
            .iter()
            .map(|(seq, letter)| BatchRef::new(SeqNo::new(*seq), &digest(*letter)))
            .collect();
        self.pbft
            .on_decisions(Time::START, NodeId::new(from), &refs, &mut self.out);
        self.told()
    }

    /// A view begins after `stable` with these batches; `'0'` is the null request.
    fn enter(&mut self, view: u64, stable: CheckpointClaim, chosen: &str) -> Vec<String> {
        let start = start(view, stable, chosen);
        self.pbft.enter_view(Time::START, &start, &mut self.out);
        self.told()
    }

    /// Takes a backup of four through a whole instance without looking.
    fn decide(&mut self, seq: u64, letter: char) {
        self.proposal(seq, letter);
        self.prepare(2, seq, letter);
        self.prepare(3, seq, letter);
        self.commit(2, seq, letter);
        self.commit(3, seq, letter);
    }
}

/// The checkpoint that `node` signs for a claim.
fn signed_by(node: u16, seq: u64, letter: char) -> SignedCheckpoint {
    let digester = Digester::new(CLUSTER);
    let verifying = (0..=node).map(|node| signing(node).verifying_key()).collect();
    Checkpoints::new(digester, verifying).sign(claim(seq, letter), NodeId::new(node), &signing(node))
}

/// "3" for one replica, "all" for the others.
fn to_text(to: Recipients) -> String {
    match to {
        Recipients::Others => "all".into(),
        Recipients::One(node) => node.to_string(),
    }
}

fn when_text(when: When) -> String {
    match when {
        When::Now => "now".into(),
        When::Durable(lsn) | When::DurableIfRoom(lsn) => format!("after {lsn}"),
    }
}

/// What a message is, where the tests tell it apart.
fn what_text(message: &bytes::Bytes) -> String {
    let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
        return " again".into();
    };
    let places = |list: &[ArchivedBatchRef]| {
        let refs = list.iter().map(|r| r.to_ref());
        let texts = refs.map(|r| format!("s{}{}", r.seq, letter(&r.digest())));
        texts.collect::<Vec<_>>().join(" ")
    };
    match &*checked {
        ArchivedSystemMessage::ProtocolMessage(_) => {
            let votes = checked.votes();
            let votes = votes.iter().map(vote_text);
            format!(" [{}]", votes.collect::<Vec<_>>().join(", "))
        }
        ArchivedSystemMessage::SyncMessage(message) => match message {
            ArchivedSyncMessage::FetchBatches(list) => format!(" fetch {}", places(list)),
            ArchivedSyncMessage::Stable(proof) => {
                let signers: Vec<_> = proof.iter().map(|signed| signed.signer.to_native()).collect();
                format!(" stable by {signers:?}")
            }
            ArchivedSyncMessage::Decisions(list) => format!(" decisions {}", places(list)),
            ArchivedSyncMessage::BatchResponse(batch) => {
                format!(" batch {:?} {}", batch.seq(), letter(&batch.digest()))
            }
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn vote_text(vote: &Vote) -> String {
    let phase = match vote.phase {
        Phase::Prepare => "prepare",
        Phase::Commit => "commit",
    };
    format!("{phase} v{} s{} {}", vote.view, vote.seq, letter(&vote.digest()))
}

fn record_text(record: &Record) -> String {
    match record {
        Record::Proposal(p) => format!("proposal {:?} {:?} {}", p.view, p.seq, letter(&p.batch.digest)),
        Record::Batch(p) => format!("batch {:?} {}", p.seq, letter(&p.batch.digest)),
        Record::Decision { seq, digest, .. } => format!("decision {seq:?} {}", letter(digest)),
        Record::Stable { claim, .. } => format!("stable {:?}", claim.seq),
        Record::Ordering { contents, .. } => match PbftRecord::read(contents).unwrap() {
            PbftRecord::Vote(vote) => vote_text(&vote),
            PbftRecord::Announced(placed) => {
                format!("announced s{} {}", placed.seq, letter(&placed.digest()))
            }
        },
        Record::Checkpoint(c) => format!("checkpoint s{} {}", c.seq, letter(&c.claim().digest)),
        Record::Jump { seq, .. } => format!("jump {seq:?}"),
        Record::View(view) => format!("view {view}"),
        Record::ViewTransfer(_) => "view transfer".into(),
        Record::Reconfiguration(_) => "reconfiguration".into(),
    }
}

/// One effect as one line.
fn line(effect: &Effect) -> String {
    match effect {
        Effect::Persist { lsn, record } => format!("log {lsn}: {}", record_text(record)),
        Effect::Send { to, when, message } => {
            format!("send{} {} {}", what_text(message), to_text(*to), when_text(*when))
        }
        Effect::SendTogether { message, when } => {
            let vote = Checked::<Vote>::new(message.clone()).unwrap().to_vote();
            format!("vote {} {}", vote_text(&vote), when_text(*when))
        }
        Effect::Decide(p) => format!("decide {:?} {}", p.seq, letter(&p.batch.digest)),
        Effect::Stable { claim, proof } => {
            let signers: Vec<u16> = proof.iter().map(|c| c.signer).collect();
            format!("stable {:?} {} by {signers:?}", claim.seq, letter(&claim.digest))
        }
        Effect::SetTimer { timer, at } => format!("timer {timer:?} at {at:?}"),
        Effect::Snapshot(task) => format!("snapshot {task:?}"),
        Effect::CancelTimer(timer) => format!("no timer {timer:?}"),
        Effect::Rejected(r) => format!("refused {} {:?} {:?} {:?}", r.from, r.view, r.seq, r.reason),
        Effect::Diverged { stable, ours } => format!(
            "diverged {:?} {} ours {}",
            stable.seq,
            letter(&stable.digest),
            letter(&ours.digest)
        ),
        Effect::LeaveView(view) => format!("leave for {view:?}"),
        Effect::EnterView(view) => format!("enter {view:?}"),
        Effect::FellBehind { stable } => format!("fell behind {stable:?}"),
        Effect::BroadcastPending => "share".into(),
        Effect::UrgePending(_) => "urge".into(),
    }
}

/// No effect at all.
const NOTHING: [&str; 0] = [];
