use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::smr::membership::tests::{client, founding, member_key, signed};
use crate::smr::membership::{
    Change, HandoverCertificate, HandoverSignature, HandoverStatement, Membership, MembershipChain,
};
use crate::smr::messages::ENVELOPE_BYTES;
use crate::smr::protocol::{Effect, Recipients, Rejection, When};
use crate::smr::types::{Digest, Lsn, SeqNo};

fn ms(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn claim(seq: u64, letter: char) -> CheckpointClaim {
    CheckpointClaim {
        seq: SeqNo::new(seq),
        digest: Digest::from_bytes([letter as u8; 32]),
    }
}

fn history(members: u16) -> EpochHistory {
    EpochHistory::new(founding(members))
}

/// The membership of each epoch from the first on: one more client each.
fn memberships(members: u16, epochs: u32) -> Vec<Membership> {
    let mut all = vec![founding(members)];
    for _ in 0..epochs {
        let last = all.last().unwrap();
        all.push(last.next(&request(last)).unwrap());
    }
    all
}

/// What ends the epoch of one of these memberships.
fn request(ending: &Membership) -> ChangeRequest {
    let number = ending.clients().len() as u32;
    signed(ending, vec![Change::AddClient(client(number))], 2)
}

fn statement(ending: &Membership, closing: CheckpointClaim, next: &Membership) -> HandoverStatement {
    HandoverStatement {
        cluster: ending.head().cluster(),
        epoch: ending.head().epoch(),
        closing,
        next: next.digest(),
    }
}

fn handover(statement: HandoverStatement, signer: u16) -> ReconfigurationMessage {
    let signature = statement.sign(NodeId::new(signer), &member_key(signer));
    ReconfigurationMessage::Handover(SignedHandover { statement, signature })
}

/// One replica, what it said, and what its log holds.
struct Bench {
    protocol: EpochHandover,
    out: Outbox,
    log: Vec<Record>,
    /// How many records are on disk.
    durable: u64,
    /// What waits for the disk.
    held: Vec<(Lsn, Recipients, Bytes)>,
}

impl Bench {
    fn new(node: u16, members: u16) -> Self {
        Self {
            protocol: EpochHandover::new(NodeId::new(node), member_key(node), history(members)),
            out: Outbox::new(Lsn::new(1)),
            log: Vec::new(),
            durable: 0,
            held: Vec::new(),
        }
    }

    fn closes(&mut self, at: u64, closing: CheckpointClaim, ending: &Membership) -> Vec<String> {
        if self.protocol.closing().is_none() {
            let decided = self
                .protocol
                .on_decided(closing.seq, &request(ending), &mut self.out);
            assert!(decided.is_some(), "the change is possible");
        }
        self.protocol.on_closed(ms(at), closing, &mut self.out);
        self.said()
    }

    fn chain(&self) -> &MembershipChain {
        self.protocol.history().chain()
    }

    /// Is told what ended these epochs, which it knows to have ended.
    fn hears_changes(&mut self, at: u64, from: u16, ending: &[Membership]) {
        for ending in ending {
            self.hears(at, from, ReconfigurationMessage::Change(request(ending)));
        }
    }

    fn hears(&mut self, at: u64, from: u16, message: ReconfigurationMessage) -> Vec<String> {
        self.protocol
            .on_message(ms(at), NodeId::new(from), message, &mut self.out);
        self.said()
    }

    /// The effects since the last time, in words.
    fn said(&mut self) -> Vec<String> {
        let cluster = self.chain().cluster();
        let read =
            |message: &Bytes| ReconfigurationMessage::decode(cluster, &message[ENVELOPE_BYTES..]).unwrap();
        let words = |message: &ReconfigurationMessage| match message {
            ReconfigurationMessage::Handover(signed) => {
                format!("handover {:?}", signed.statement.closing.seq)
            }
            ReconfigurationMessage::FetchChain(epoch) => format!("fetch {epoch:?}"),
            ReconfigurationMessage::Chain(certificates) => format!("chain of {}", certificates.len()),
            ReconfigurationMessage::FetchChange(epoch) => format!("fetch change {epoch:?}"),
            ReconfigurationMessage::Change(request) => format!("change {:?}", request.base_epoch),
            ReconfigurationMessage::Closing(seq, _) => format!("closing {seq:?}"),
        };
        let effects: Vec<Effect> = self.out.drain().collect();
        let told = effects.into_iter().map(|effect| match effect {
            Effect::Persist { record, .. } => {
                self.log.push(record.clone());
                match record {
                    Record::Reconfiguration(body) => {
                        format!(
                            "log {}",
                            words(&ReconfigurationMessage::decode(cluster, &body).unwrap())
                        )
                    }
                    other => format!("{other:?}"),
                }
            }
            Effect::Send { to, message, when } => {
                let to = match to {
                    Recipients::Others => "all".to_owned(),
                    Recipients::One(node) => node.to_string(),
                };
                let when = match when {
                    When::Now => "now".to_owned(),
                    When::Durable(lsn) | When::DurableIfRoom(lsn) => format!("after {lsn}"),
                };
                format!("send {to} {} {when}", words(&read(&message)))
            }
            Effect::Rejected(rejected) => format!("rejected {:?}", rejected.reason),
            Effect::Diverged { stable, ours } => {
                format!(
                    "diverged at {:?}: {:?} is not {:?}",
                    stable.seq, ours.digest, stable.digest
                )
            }
            other => format!("{other:?}"),
        });
        told.collect()
    }

    /// What is left after a loss of power: as much of the log.
    fn restarted(&self, node: u16, members: u16, records: usize) -> Self {
        let mut again = Self::new(node, members);
        for record in &self.log[..records] {
            again.protocol.restore(record).unwrap();
        }
        again.log = self.log[..records].to_vec();
        again
    }

    fn ended(&mut self) -> Vec<Epoch> {
        std::iter::from_fn(|| self.protocol.take_ended())
            .map(|ended| ended.certificate.epoch())
            .collect()
    }
}

#[test]
fn a_quorum_of_one_end_ends_the_epoch_at_who_executed_it() {
    let all = memberships(4, 1);
    let end = statement(&all[0], claim(9, 'a'), &all[1]);
    let mut bench = Bench::new(0, 4);
    assert_eq!(bench.hears(0, 3, handover(end, 3)), [""; 0]);
    let closed = bench.closes(1, claim(9, 'a'), &all[0]);
    let expected = [
        "log closing s9",
        "log handover s9",
        "send all handover s9 after 2",
    ];
    assert_eq!(closed, expected);
    assert_eq!(bench.ended(), []);
    assert_eq!(bench.hears(2, 1, handover(end, 1)), ["log chain of 1"]);
    assert_eq!(bench.ended(), [Epoch::ZERO]);
    let certificate = bench.chain().ended(Epoch::ZERO).unwrap();
    let signers: Vec<u16> = certificate
        .signatures()
        .iter()
        .map(|one| one.signer.get())
        .collect();
    assert_eq!(signers, [0, 1, 3]);
    assert_eq!(bench.chain().newest(), all[1].head());
    // What comes later is of an epoch that is over: its sender may lack the certificate.
    assert_eq!(
        bench.hears(3, 2, handover(end, 2)),
        ["send r2 chain of 1 after 3"]
    );
}

#[test]
fn a_cluster_of_one_goes_on_alone() {
    let all = memberships(1, 1);
    let mut bench = Bench::new(0, 1);
    let said = bench.closes(0, claim(3, 'a'), &all[0]);
    assert_eq!(
        said,
        [
            "log closing s3",
            "log handover s3",
            "send all handover s3 after 2",
            "log chain of 1"
        ]
    );
    assert_eq!(bench.ended(), [Epoch::ZERO]);
}

#[test]
fn who_signed_what_counts_and_not_how_often() {
    let all = memberships(4, 1);
    let (end, other) = (
        statement(&all[0], claim(9, 'a'), &all[1]),
        statement(&all[0], claim(9, 'b'), &all[1]),
    );
    let mut bench = Bench::new(0, 4);
    bench.closes(0, claim(9, 'a'), &all[0]);
    bench.hears(1, 1, handover(end, 1));
    for (from, message, reason) in [
        (1, handover(end, 1), Rejection::Duplicate),
        (1, handover(other, 1), Rejection::ConflictingVote),
        // In another's name, and nobody's.
        (2, handover(end, 3), Rejection::BadSignature),
        (7, handover(end, 7), Rejection::BadSignature),
        (0, handover(end, 0), Rejection::BadSignature),
    ] {
        assert_eq!(bench.hears(2, from, message), [format!("rejected {reason:?}")]);
    }
    let ReconfigurationMessage::Handover(mut forged) = handover(end, 2) else {
        unreachable!()
    };
    forged.signature.signature[5] ^= 1;
    let forged = ReconfigurationMessage::Handover(forged);
    assert_eq!(bench.hears(3, 2, forged), ["rejected BadSignature"]);
    assert_eq!(
        bench.hears(4, 2, handover(other, 2)),
        [""; 0],
        "a liar's end is its own"
    );
    assert_eq!(bench.ended(), []);
    assert_eq!(bench.hears(5, 3, handover(end, 3)), ["log chain of 1"]);
}

#[test]
fn a_member_signs_one_end_whatever_its_disk_forgets() {
    let all = memberships(4, 1);
    let mut bench = Bench::new(0, 4);
    bench.closes(0, claim(9, 'a'), &all[0]);
    // It was logged: another state after the restart is not signed.
    let mut again = bench.restarted(0, 4, 2);
    assert_eq!(again.closes(1, claim(9, 'b'), &all[0]), [""; 0]);
    again.protocol.on_status_due(ms(2), &mut again.out);
    assert_eq!(again.said(), ["send all handover s9 after 0"]);
    // The others end the epoch without it, and it with them.
    let end = statement(&all[0], claim(9, 'b'), &all[1]);
    for signer in 1..=3 {
        again.hears(3, signer, handover(end, signer));
    }
    assert_eq!(again.ended(), [Epoch::ZERO]);
    // It was not: nobody has heard of it.
    let mut again = bench.restarted(0, 4, 0);
    let said = again.closes(1, claim(9, 'b'), &all[0]);
    let expected = [
        "log closing s9",
        "log handover s9",
        "send all handover s9 after 2",
    ];
    assert_eq!(said, expected);
    // Which decision is the last was logged before it was executed, and nothing more.
    let mut again = bench.restarted(0, 4, 1);
    assert_eq!(again.protocol.closing(), Some(SeqNo::new(9)));
    let said = again.closes(1, claim(9, 'b'), &all[0]);
    assert_eq!(said, ["log handover s9", "send all handover s9 after 1"]);
}

#[test]
fn a_state_that_a_quorum_contradicts_is_found_out_once() {
    let all = memberships(4, 1);
    let end = statement(&all[0], claim(9, 'a'), &all[1]);
    let mut bench = Bench::new(0, 4);
    bench.closes(0, claim(9, 'w'), &all[0]);
    let mut said = Vec::new();
    for signer in 1..=3 {
        said.extend(bench.hears(1, signer, handover(end, signer)));
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("diverged at s9"), "{said:?}");
    assert_eq!(bench.ended(), []);
    // With the right state it has the right end.
    assert_eq!(bench.closes(2, claim(9, 'a'), &all[0]), ["log chain of 1"]);
    assert_eq!(bench.ended(), [Epoch::ZERO]);
}

/// The certificates that end the epochs of these memberships.
fn certificates(all: &[Membership]) -> Vec<HandoverCertificate> {
    let ends = (0..).zip(all.windows(2));
    ends.map(|(epoch, pair)| {
        let closing = claim(10 * (epoch + 1), 'a');
        let end = statement(&pair[0], closing, &pair[1]);
        let sign = |member: u16| end.sign(NodeId::new(member), &member_key(member));
        let signatures: Vec<HandoverSignature> = (0..3).map(sign).collect();
        HandoverCertificate::gather(pair[0].head(), closing, pair[1].head().clone(), &signatures).unwrap()
    })
    .collect()
}

#[test]
fn who_was_away_follows_the_chain_from_any_epoch() {
    let all = memberships(4, 5);
    let certificates = certificates(&all);
    let mut knows = Bench::new(1, 4);
    for certificate in &certificates {
        knows.hears(0, 2, ReconfigurationMessage::Chain(vec![certificate.clone()]));
    }
    assert_eq!(knows.ended().len(), 0, "it is not known who follows");
    knows.hears_changes(0, 2, &all[..5]);
    assert_eq!(knows.ended().len(), 5);
    for epoch in 0..5 {
        let mut away = Bench::new(3, 4);
        away.hears(
            0,
            2,
            ReconfigurationMessage::Chain(certificates[..epoch].to_vec()),
        );
        away.hears_changes(0, 2, &all[..epoch]);
        assert_eq!(away.ended().len(), epoch);
        away.protocol
            .on_other_epoch(ms(1), NodeId::new(1), Epoch::new(5), &mut away.out);
        assert_eq!(
            away.said(),
            [format!("send r1 fetch {:?} now", Epoch::new(epoch as u64))]
        );
        let at = 1000 * (epoch as u64 + 1);
        let question = ReconfigurationMessage::FetchChain(Epoch::new(epoch as u64));
        let answer = knows.hears(at, 3, question.clone());
        assert_eq!(answer, [format!("send r3 chain of {} after 5", 5 - epoch)]);
        assert_eq!(knows.hears(at + 99, 3, question), [""; 0], "no amplifier");
        let said = away.hears(
            2,
            1,
            ReconfigurationMessage::Chain(certificates[epoch..].to_vec()),
        );
        let fetches = format!("send r1 fetch change {:?} now", Epoch::new(epoch as u64));
        assert_eq!(said.last().unwrap(), &fetches, "nobody knows yet who follows");
        assert_eq!(away.ended(), []);
        let question = ReconfigurationMessage::FetchChange(Epoch::new(epoch as u64));
        let answer = format!("send r3 change {:?} now", Epoch::new(epoch as u64));
        assert_eq!(knows.hears(at + 100, 3, question), [answer]);
        let lie = ReconfigurationMessage::Change(signed(&all[epoch], vec![Change::AddClient(client(9))], 2));
        assert_eq!(away.hears(3, 1, lie), ["rejected BadSignature"]);
        away.hears_changes(3, 2, &all[epoch..5]);
        assert_eq!(away.ended().len(), 5 - epoch);
        assert_eq!(away.protocol.history(), knows.protocol.history());
        // Its log has all of it, and so has one that was cut.
        let again = away.restarted(3, 4, away.log.len());
        assert_eq!(again.chain(), knows.chain());
        let mut cut = Bench::new(3, 4);
        for record in again.protocol.base_records() {
            cut.protocol.restore(&record).unwrap();
        }
        assert_eq!(cut.chain(), knows.chain());
    }
}

#[test]
fn who_claims_to_know_more_all_the_time_keeps_nobody_from_asking_others() {
    let mut bench = Bench::new(0, 4);
    let mut hears_of = |at, from, epoch| {
        let (now, from, epoch) = (ms(at), NodeId::new(from), Epoch::new(epoch));
        bench.protocol.on_other_epoch(now, from, epoch, &mut bench.out);
        bench.said()
    };
    for at in (0..500).step_by(50) {
        let expected = if at % 100 == 0 { 1 } else { 0 };
        assert_eq!(hears_of(at, 1, 99).len(), expected);
    }
    assert_eq!(hears_of(451, 2, 1), ["send r2 fetch e0 now"]);
}

#[test]
fn certificates_that_nobody_asked_for_cost_their_sender() {
    let all = memberships(4, 1);
    let certificate = certificates(&all).remove(0);
    let mut bench = Bench::new(0, 4);
    let known = ReconfigurationMessage::Chain(vec![certificate; 32]);
    // Its second one is the answer to a question.
    for (at, expected) in [(0, 2), (0, 0), (0, 0)] {
        let said = bench.hears(at, 9, known.clone());
        assert_eq!(said.len(), expected, "{said:?}");
    }
    assert_eq!(bench.hears(0, 9, known.clone()), ["rejected OverBudget"]);
    assert_eq!(bench.hears(0, 2, known), [""; 0], "each has its own");
    for stranger in 100..1000 {
        bench.hears(0, stranger, ReconfigurationMessage::FetchChain(Epoch::ZERO));
    }
    assert!(bench.protocol.remembered() <= 128);
    let answer = bench.hears(0, 3, ReconfigurationMessage::FetchChain(Epoch::ZERO));
    assert_eq!(answer.len(), 1, "strangers do not keep a member from its answer");
}

#[test]
fn a_false_certificate_is_refused_and_a_second_true_one_is_proof() {
    let all = memberships(4, 1);
    let certificate = certificates(&all).remove(0);
    let mut bytes = certificate.encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = HandoverCertificate::decode(&bytes).unwrap();
    let mut bench = Bench::new(0, 4);
    let said = bench.hears(0, 1, ReconfigurationMessage::Chain(vec![forged]));
    assert_eq!(said, ["rejected BadSignature"]);
    bench.hears(0, 1, ReconfigurationMessage::Chain(vec![certificate]));
    let end = statement(&all[0], claim(11, 'x'), &all[1]);
    let signatures: Vec<HandoverSignature> = (1..4)
        .map(|member| end.sign(NodeId::new(member), &member_key(member)))
        .collect();
    let other =
        HandoverCertificate::gather(all[0].head(), claim(11, 'x'), all[1].head().clone(), &signatures)
            .unwrap();
    assert_eq!(
        bench.hears(0, 1, ReconfigurationMessage::Chain(vec![other])),
        [""; 0]
    );
    let liars: Vec<u16> = bench.protocol.fork().unwrap().liars().map(NodeId::get).collect();
    assert_eq!(liars, [1, 2]);
    assert_eq!(bench.chain().newest(), all[1].head());
}

#[test]
fn if_a_quorum_ended_without_us_one_after_the_other_is_asked() {
    let all = memberships(4, 1);
    let end = statement(&all[0], claim(9, 'a'), &all[1]);
    let mut bench = Bench::new(0, 4);
    for signer in 1..=3 {
        assert_eq!(bench.hears(0, signer, handover(end, signer)), [""; 0]);
    }
    let mut asked = Vec::new();
    for turn in 0..3 {
        bench.protocol.on_status_due(ms(250 * (turn + 1)), &mut bench.out);
        asked.extend(bench.said());
    }
    asked.sort();
    assert_eq!(
        asked,
        [
            "send r1 fetch e0 now",
            "send r2 fetch e0 now",
            "send r3 fetch e0 now"
        ]
    );
}

#[test]
fn a_message_has_one_form_and_is_read_or_refused() {
    let all = memberships(4, 2);
    let cluster = all[0].head().cluster();
    let end = statement(&all[0], claim(9, 'a'), &all[1]);
    for message in [
        handover(end, 2),
        ReconfigurationMessage::FetchChain(Epoch::new(7)),
        ReconfigurationMessage::Chain(certificates(&all)),
        ReconfigurationMessage::Chain(Vec::new()),
        ReconfigurationMessage::FetchChange(Epoch::new(7)),
        ReconfigurationMessage::Change(request(&all[1])),
        ReconfigurationMessage::Closing(SeqNo::new(9), request(&all[1])),
    ] {
        let bytes = message.encode();
        assert_eq!(ReconfigurationMessage::decode(cluster, &bytes), Ok(message));
        for length in 0..bytes.len() {
            assert!(ReconfigurationMessage::decode(cluster, &bytes[..length]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(ReconfigurationMessage::decode(cluster, &longer).is_err());
    }
    let huge = vec![0; ReconfigurationMessage::BYTES_MAX + 1];
    assert!(ReconfigurationMessage::decode(cluster, &huge).is_err());
}

/// Who is told what, in an order that dice decide; some of it lost, some twice.
struct World {
    hosts: Vec<Bench>,
    wire: Vec<(usize, usize, Bytes)>,
    /// It signs other ends, each time another one.
    liar: Option<usize>,
    /// The membership of each epoch.
    epochs: Vec<Membership>,
}

/// The right end of an epoch.
fn right(epoch: u64) -> CheckpointClaim {
    claim(10 * (epoch + 1), 'a')
}

impl World {
    /// Something happens to a host, or to a message.
    fn step(&mut self, (what, whom): (u8, usize), now: Time, is_calm: bool) {
        let (n, members) = (self.hosts.len(), self.hosts.len() as u16);
        let host = whom % n;
        match what % 8 {
            0 => self.close(host, whom, now),
            1 => {
                let bench = &mut self.hosts[host];
                bench.protocol.on_status_due(now, &mut bench.out);
            }
            2 if !is_calm && what > 220 => self.restart(host, members),
            2 | 3 if is_calm => self.flush(host, u64::MAX),
            2 | 3 => {
                let records = self.hosts[host].log.len() + 1;
                self.flush(host, (whom % records) as u64);
            }
            _ if self.wire.is_empty() => {}
            kind => {
                let (from, to, message) = self.wire.swap_remove(whom % self.wire.len());
                if kind == 6 && !is_calm {
                    self.wire.push((from, to, message.clone()));
                }
                // Some are lost.
                if kind != 7 || is_calm || what > 127 {
                    self.deliver(now, (from, to), &message);
                }
            }
        }
        (0..n).for_each(|host| self.take_effects(host));
    }

    /// A host has executed the last decision of its epoch.
    fn close(&mut self, host: usize, dice: usize, now: Time) {
        let bench = &mut self.hosts[host];
        let epoch = bench.protocol.history().membership().head().epoch().get();
        let Some([ending, _]) = self.epochs.get(epoch as usize..epoch as usize + 2) else {
            return;
        };
        let lie = claim(10 * (epoch + 1), char::from(b'b' + (dice % 20) as u8));
        let closing = if self.liar == Some(host) {
            lie
        } else {
            right(epoch)
        };
        let (protocol, out) = (&mut bench.protocol, &mut bench.out);
        if protocol.closing().is_none() && protocol.on_decided(closing.seq, &request(ending), out).is_none() {
            return;
        }
        protocol.on_closed(now, closing, out);
    }

    fn deliver(&mut self, now: Time, (from, to): (usize, usize), message: &Bytes) {
        let bench = &mut self.hosts[to];
        let cluster = bench.chain().cluster();
        let message = ReconfigurationMessage::decode(cluster, &message[ENVELOPE_BYTES..]).unwrap();
        let from = NodeId::new(from as u16);
        bench.protocol.on_message(now, from, message, &mut bench.out);
    }

    fn take_effects(&mut self, host: usize) {
        let effects: Vec<Effect> = self.hosts[host].out.drain().collect();
        for effect in effects {
            match effect {
                Effect::Persist { record, .. } => self.hosts[host].log.push(record),
                Effect::Send { to, message, when } => {
                    let at = match when {
                        When::Now => Lsn::ZERO,
                        When::Durable(lsn) | When::DurableIfRoom(lsn) => lsn,
                    };
                    self.hosts[host].held.push((at, to, message));
                }
                _ => {}
            }
        }
    }

    /// The disk has got this far: what waited for it leaves.
    fn flush(&mut self, host: usize, records: u64) {
        let n = self.hosts.len();
        let bench = &mut self.hosts[host];
        bench.durable = bench.durable.max(records.min(bench.log.len() as u64));
        let durable = bench.durable;
        let (leaves, stays) = std::mem::take(&mut bench.held)
            .into_iter()
            .partition::<Vec<_>, _>(|(lsn, ..)| lsn.get() <= durable);
        bench.held = stays;
        for (_, to, message) in leaves {
            let to: Vec<usize> = match to {
                Recipients::Others => (0..n).filter(|other| *other != host).collect(),
                Recipients::One(node) => vec![node.index()],
            };
            for to in to.into_iter().filter(|to| *to < n) {
                self.wire.push((host, to, message.clone()));
            }
        }
    }

    /// Loses what was not on disk.
    fn restart(&mut self, host: usize, members: u16) {
        let old = &self.hosts[host];
        let records = old.durable as usize;
        let mut again = old.restarted(host as u16, members, records);
        again.durable = old.durable;
        again.out = Outbox::new(Lsn::new(records as u64 + 1));
        self.hosts[host] = again;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is lost, doubled, forgotten before it was durable, or signed by one liar: an epoch has one
    /// end, of a quorum, and all that go on reach the newest epoch together.
    #[test]
    fn all_that_are_correct_go_from_epoch_to_epoch_together(
        members in 1u16..8,
        lies in any::<bool>(),
        steps in proptest::collection::vec((any::<u8>(), any::<u16>()), 400),
    ) {
        let n = usize::from(members);
        let mut world = World {
            hosts: (0..members).map(|node| Bench::new(node, members)).collect(),
            wire: Vec::new(),
            liar: (lies && n >= 4).then_some(n - 1),
            epochs: memberships(members, 3),
        };
        // In the end everything is written and delivered, and each says now and then where it stands.
        let calm = (0..4000u32).map(|step| {
            let what = [0, 3, 4, 5, 6, 7, 4, 5, 1, 3, 4, 5, 6, 7, 4, 5][step as usize % 16];
            (what, (step.wrapping_mul(2_654_435_761) >> 16) as u16)
        });
        for (number, (what, whom)) in steps.into_iter().chain(calm).enumerate() {
            world.step((what, usize::from(whom)), ms(7 * number as u64), number >= 400);
        }
        let newest = world.hosts.iter().map(|bench| bench.chain().newest().epoch()).max();
        prop_assert_eq!(newest, Some(Epoch::new(3)));
        for (host, bench) in world.hosts.iter().enumerate() {
            if world.liar != Some(host) {
                let known = bench.protocol.history().membership();
                prop_assert_eq!(known, &world.epochs[3], "host {}", host);
            }
            for epoch in 0..bench.chain().newest().epoch().get() {
                let certificate = bench.chain().ended(Epoch::new(epoch)).unwrap();
                prop_assert_eq!(certificate.closing(), right(epoch));
            }
            prop_assert!(bench.protocol.fork().is_none());
        }
    }
}
