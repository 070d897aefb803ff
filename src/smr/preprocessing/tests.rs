use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::smr::crypto::{Digester, Domain, LinkSecret, MacKey, SigningKey, VerifyingKey};
use crate::smr::messages::{
    Authenticator, Batch, BatchError, Checked, Frame, FrameBuilder, Mode, PrePrepare, RefusalReason,
    RequestFrame, SystemMessage,
};
use crate::smr::preprocessing::RequireSignature;
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, NodeId, SeqNo, UnixTime, View};

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-tests");
const FOREIGN: ClusterId = ClusterId::from_bytes(*b"another cluster!");
pub(super) const REPLICAS: usize = 4;
/// The client whose public key is the identity point: under ZIP-215 anybody can sign for it.
const SMALL_ORDER: u32 = 3;
pub(super) const LIMITS: CheckerLimits = CheckerLimits {
    frame_bytes_max: 4096,
    frame_operations_max: 8,
    batch_bytes_max: 1 << 20,
    batch_frames_max: 6,
    frame_macs: REPLICAS,
};

fn link(seed: u8) -> LinkSecret {
    LinkSecret::from_bytes(&[seed; 32])
}

fn signing(client: u32) -> SigningKey {
    SigningKey::from_seed(&[client as u8 + 100; 32])
}

fn verifying(client: u32) -> VerifyingKey {
    if client == SMALL_ORDER {
        let mut identity = [0; 32];
        identity[0] = 1;
        return VerifyingKey::from_bytes(identity);
    }
    signing(client).verifying_key()
}

fn mac_key(client: u32, node: NodeId, cluster: ClusterId) -> MacKey {
    MacKey::between(
        &link(client as u8 + 50),
        &link(node.get() as u8 + 1).public(),
        cluster,
    )
    .unwrap()
}

pub(super) fn checker(node: u16, auth: ClientAuth) -> FrameChecker {
    checker_with(node, auth, LIMITS)
}

pub(super) fn checker_with(node: u16, auth: ClientAuth, limits: CheckerLimits) -> FrameChecker {
    let clients = (0..=SMALL_ORDER).map(|client| ClientKeys {
        verifying: verifying(client),
        mac: MacKey::between(&link(node as u8 + 1), &link(client as u8 + 50).public(), CLUSTER),
        must_sign: RequireSignature::default(),
    });
    let directory = ClientDirectory::new(clients.collect());
    FrameChecker::new(
        NodeId::new(node),
        REPLICAS,
        auth,
        limits,
        Digester::new(CLUSTER),
        directory,
    )
}

pub(super) fn body(client: u32, sequence: u64, mode: Mode) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    builder.push(b"first operation").unwrap();
    builder.push(b"second").unwrap();
    builder.finish(ClientId::new(client), FrameSeq::new(sequence), mode)
}

fn digest_of(body: &[u8], cluster: ClusterId) -> Digest {
    Digester::new(cluster).digest(Domain::RequestFrame, body)
}

fn macs_of(client: u32, digest: &Digest, cluster: ClusterId) -> Vec<[u8; 16]> {
    NodeId::all(REPLICAS)
        .map(|node| mac_key(client, node, cluster).mac(digest))
        .collect()
}

pub(super) fn archive(body: Vec<u8>, authenticator: Authenticator) -> Bytes {
    RequestFrame { body, authenticator }.to_archive()
}

/// A frame under MACs; the one for replica `spoil` is wrong.
pub(super) fn with_macs(client: u32, sequence: u64, spoil: Option<usize>) -> Bytes {
    let body = body(client, sequence, Mode::Ordered);
    let mut macs = macs_of(client, &digest_of(&body, CLUSTER), CLUSTER);
    if let Some(node) = spoil {
        macs[node][3] ^= 1;
    }
    archive(body, Authenticator::Macs(macs))
}

/// A body that its client signs.
pub(super) fn signed_body(client: u32, body: Vec<u8>) -> Bytes {
    let digest = digest_of(&body, CLUSTER);
    let signature = signing(client).sign(Domain::RequestFrame, &digest);
    archive(body, Authenticator::Signature(signature))
}

pub(super) fn with_signature(client: u32, sequence: u64, signer: u32) -> Bytes {
    let body = body(client, sequence, Mode::Ordered);
    let digest = digest_of(&body, CLUSTER);
    let signature = signing(signer).sign(Domain::RequestFrame, &digest);
    archive(body, Authenticator::Signature(signature))
}

pub(super) fn from(client: u32) -> FrameSource {
    FrameSource::Client(ClientId::new(client))
}

const FORWARDED: FrameSource = FrameSource::Replica(NodeId::new(2));

fn check(
    checker: &mut FrameChecker,
    frames: impl IntoIterator<Item = (FrameSource, Bytes)>,
) -> Vec<Result<Frame, RefusedFrame>> {
    let mut verdicts = Vec::new();
    checker.check_frames(frames, |_, verdict| verdicts.push(verdict));
    verdicts
}

pub(super) fn check_one(
    checker: &mut FrameChecker,
    source: FrameSource,
    bytes: Bytes,
) -> Result<Frame, FrameRefusal> {
    let verdict = check(checker, [(source, bytes)]).pop().unwrap();
    verdict.map_err(|refused| refused.refusal)
}

pub(super) fn propose_with(frames: &[Bytes], digest: Option<Digest>) -> Bytes {
    propose_at(7 * u64::from(!frames.is_empty()), frames, digest)
}

pub(super) fn propose_at(time: u64, frames: &[Bytes], digest: Option<Digest>) -> Bytes {
    let time = UnixTime::from_nanos(time);
    let digester = Digester::new(CLUSTER);
    let check = |bytes: &Bytes| {
        Frame::check(bytes.clone(), 8, 4096, |body| {
            digester.digest(Domain::RequestFrame, body)
        })
    };
    let frames: Vec<Frame> = frames.iter().map(|bytes| check(bytes).unwrap()).collect();
    let batch = Batch {
        digest: digest.unwrap_or_else(|| batch_digest(&digester, time, &frames)),
        time,
        bytes: frames.iter().map(|frame| frame.bytes().len()).sum(),
        frames,
    };
    PrePrepare::encode(CLUSTER, Epoch::ZERO, View::new(2), SeqNo::new(9), &batch)
}

pub(super) fn propose(frames: &[Bytes]) -> Bytes {
    propose_with(frames, None)
}

/// Whether the proposal in `message` is authentic, or why it is refused.
pub(super) fn check_proposal(checker: &mut FrameChecker, message: &Bytes) -> Result<bool, BatchError> {
    let checked = Checked::<SystemMessage>::body_of(message).unwrap();
    let proposal = checker.check_proposal(&checked, message).unwrap()?;
    assert_eq!(
        (proposal.view, proposal.seq, &proposal.message),
        (View::new(2), SeqNo::new(9), message)
    );
    let bytes: usize = proposal
        .batch
        .frames
        .iter()
        .map(|frame| frame.archived().body.len() + 73 + 16 * REPLICAS)
        .sum();
    assert_eq!(
        proposal.batch.bytes, bytes,
        "whatever proves them, as if they had MACs"
    );
    Ok(proposal.authentic)
}

#[test]
fn a_mac_convinces_the_replica_it_is_for_and_a_signature_everybody() {
    let mut mac = checker(2, ClientAuth::Mac);
    assert!(check_one(&mut mac, from(1), with_macs(1, 5, None)).is_ok());
    assert!(
        check_one(&mut mac, from(1), with_macs(1, 5, Some(3))).is_ok(),
        "another replica's MAC is not ours to judge"
    );
    assert_eq!(
        check_one(&mut mac, from(1), with_macs(1, 5, Some(2))).unwrap_err(),
        FrameRefusal::Mac
    );
    assert!(check_one(&mut mac, from(1), with_signature(1, 5, 1)).is_ok());

    let mut signature = checker(2, ClientAuth::Signature);
    assert!(check_one(&mut signature, from(1), with_signature(1, 5, 1)).is_ok());
    let forged = check_one(&mut signature, from(1), with_signature(1, 5, 2));
    assert_eq!(forged.unwrap_err(), FrameRefusal::Signature);
    let macs = check_one(&mut signature, from(1), with_macs(1, 5, None));
    assert_eq!(macs.unwrap_err(), FrameRefusal::MustSign);
}

#[test]
fn a_flagged_client_has_to_sign_what_it_sends() {
    let mut checker = checker(0, ClientAuth::Mac);
    checker.require_signature(ClientId::new(1), true);
    checker.require_signature(ClientId::new(77), true);
    for source in [from(1), FORWARDED] {
        let verdict = check_one(&mut checker, source, with_macs(1, 5, None));
        assert_eq!(verdict.unwrap_err(), FrameRefusal::MustSign);
        assert!(check_one(&mut checker, source, with_signature(1, 5, 1)).is_ok());
    }
    assert!(check_one(&mut checker, from(0), with_macs(0, 5, None)).is_ok());
    let proposal = propose(&[with_macs(1, 5, None)]);
    assert_eq!(
        check_proposal(&mut checker, &proposal),
        Ok(true),
        "others need not know of the dispute"
    );
}

#[test]
fn a_frame_replayed_on_another_clients_link_is_refused_but_another_replica_may_forward_it() {
    for (auth, bytes) in [
        (ClientAuth::Mac, with_macs(1, 5, None)),
        (ClientAuth::Signature, with_signature(1, 5, 1)),
    ] {
        let mut checker = checker(0, auth);
        let refused = check(&mut checker, [(from(2), bytes.clone())]).pop().unwrap();
        let expected = RefusedFrame {
            refusal: FrameRefusal::WrongClient,
            answer: None,
        };
        assert_eq!(refused.unwrap_err(), expected);
        let forwarded = check_one(&mut checker, FORWARDED, bytes.clone()).unwrap();
        assert_eq!(forwarded.bytes(), &bytes);
        assert_ne!(
            forwarded.bytes().as_ptr(),
            bytes.as_ptr(),
            "a forwarded frame must not pin its message"
        );
    }
}

#[test]
fn only_the_link_that_sent_a_frame_is_answered() {
    let mut checker = checker(0, ClientAuth::Mac);
    let spoilt = with_macs(1, 5, Some(0));
    let verdicts = check(&mut checker, [(from(1), spoilt.clone()), (FORWARDED, spoilt)]);
    let answers: Vec<_> = verdicts.into_iter().map(|v| v.unwrap_err().answer).collect();
    assert_eq!(answers[0].map(|frame| frame.key.sequence), Some(FrameSeq::new(5)));
    assert_eq!(
        answers[1], None,
        "a faulty replica could make all refuse a client's frame"
    );
}

#[test]
fn proofs_of_another_client_frame_or_cluster_are_refused() {
    let ours = body(1, 5, Mode::Ordered);
    let other = digest_of(&body(1, 6, Mode::Ordered), CLUSTER);
    let digest = digest_of(&ours, CLUSTER);
    let mut mac = checker(0, ClientAuth::Mac);
    for macs in [
        macs_of(2, &digest, CLUSTER),
        macs_of(1, &other, CLUSTER),
        macs_of(1, &digest, FOREIGN),
    ] {
        let bytes = archive(ours.clone(), Authenticator::Macs(macs));
        assert_eq!(
            check_one(&mut mac, from(1), bytes).unwrap_err(),
            FrameRefusal::Mac
        );
    }
    let foreign = digest_of(&ours, FOREIGN);
    let mut signature = checker(0, ClientAuth::Signature);
    for (domain, digest) in [
        (Domain::RequestFrame, other),
        (Domain::RequestFrame, foreign),
        (Domain::Checkpoint, digest),
    ] {
        let proof = Authenticator::Signature(signing(1).sign(domain, &digest));
        let verdict = check_one(&mut signature, from(1), archive(ours.clone(), proof));
        assert_eq!(verdict.unwrap_err(), FrameRefusal::Signature);
    }
}

#[test]
fn strangers_garbage_and_wrong_sizes_are_refused_with_their_kind() {
    let mut checker = checker(1, ClientAuth::Mac);
    let short = archive(body(1, 1, Mode::Ordered), Authenticator::Macs(vec![[0; 16]; 3]));
    let mut many = FrameBuilder::default();
    (0..9).for_each(|_| many.push(b"x").unwrap());
    let many = many.finish(ClientId::new(1), FrameSeq::new(1), Mode::Ordered);
    let cases = [
        (Bytes::new(), FrameRefusal::Malformed),
        (Bytes::from_static(&[7; 300]), FrameRefusal::Malformed),
        (Bytes::from_static(&[7; 5000]), FrameRefusal::TooLong),
        (
            archive(many, Authenticator::Signature([0; 64])),
            FrameRefusal::OperationCount,
        ),
        (short, FrameRefusal::MacCount),
        (with_signature(9, 1, 9), FrameRefusal::UnknownClient),
    ];
    for (bytes, refusal) in cases {
        for source in [from(9), FORWARDED] {
            let verdict = check_one(&mut checker, source, bytes.clone());
            assert_eq!(verdict.unwrap_err(), refusal);
        }
    }
}

#[test]
fn every_refusal_has_its_own_counter_and_an_answer() {
    for (index, refusal) in FrameRefusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal.index(), index);
        let name = FrameRefusal::NAMES[index];
        assert_eq!(
            FrameRefusal::NAMES.iter().filter(|other| **other == name).count(),
            1
        );
    }
    assert_eq!(FrameRefusal::Mac.reason(), RefusalReason::NotAuthentic);
    assert_eq!(FrameRefusal::MustSign.reason(), RefusalReason::MustSign);
    assert_eq!(FrameRefusal::Ends.reason(), RefusalReason::Malformed);
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_changes_nothing_the_client_asked() {
    for (auth, bytes) in [
        (ClientAuth::Mac, with_macs(1, 5, None)),
        (ClientAuth::Signature, with_signature(1, 5, 1)),
    ] {
        let mut checker = checker(0, auth);
        let original = check_one(&mut checker, from(1), bytes.clone()).unwrap();
        let proposal = propose(std::slice::from_ref(&bytes));
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match check_one(&mut checker, from(1), Bytes::from(flipped)) {
                Ok(frame) => {
                    assert_eq!((frame.key(), frame.digest()), (original.key(), original.digest()));
                    assert!(frame.body().operations().eq(original.body().operations()));
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 8 * body(1, 5, Mode::Ordered).len() / 2);
        for bit in 0..proposal.len() * 8 {
            let mut flipped = proposal.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = Bytes::from(flipped);
            let Ok(checked) = Checked::<SystemMessage>::body_of(&flipped) else {
                continue;
            };
            if let Some(Ok(proposal)) = checker.check_proposal(&checked, &flipped) {
                assert_eq!(proposal.batch.frames[0].digest(), original.digest());
            }
        }
        assert_eq!(
            check_proposal(&mut checker, &proposal),
            Ok(true),
            "nothing is left behind"
        );
    }
}

/// What a generated frame's authenticator is.
#[derive(Debug, Clone, Copy)]
enum Proof {
    Macs { spoilt: bool },
    Signature { signer: u32 },
    FlippedSignature { bit: usize },
    IdentityPoint,
}

fn proofs() -> impl Strategy<Value = Vec<(u32, Proof)>> {
    let proof = prop_oneof![
        any::<bool>().prop_map(|spoilt| Proof::Macs { spoilt }),
        (0u32..3).prop_map(|signer| Proof::Signature { signer }),
        (0usize..512).prop_map(|bit| Proof::FlippedSignature { bit }),
        Just(Proof::IdentityPoint),
    ];
    proptest::collection::vec((0..=SMALL_ORDER, proof), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn verdicts_of_a_batch_are_those_of_each_frame_alone_and_come_in_order(proofs in proofs()) {
        let mut frames = Vec::new();
        let mut expected = Vec::new();
        for (sequence, (client, proof)) in (1u64..).zip(proofs) {
            let body = body(client, sequence, Mode::Ordered);
            let digest = digest_of(&body, CLUSTER);
            let mut signature = [0; 64];
            match proof {
                Proof::Macs { spoilt } => {
                    frames.push((from(client), with_macs(client, sequence, spoilt.then_some(0))));
                    expected.push((sequence, !spoilt));
                    continue;
                }
                Proof::Signature { signer } => {
                    signature = signing(signer).sign(Domain::RequestFrame, &digest);
                }
                Proof::FlippedSignature { bit } => {
                    signature = signing(client).sign(Domain::RequestFrame, &digest);
                    signature[bit / 8] ^= 1 << (bit % 8);
                }
                // R the identity, s zero: valid for a key of small order only, and only under ZIP-215.
                Proof::IdentityPoint => signature[0] = 1,
            }
            let alone = verifying(client).verify(Domain::RequestFrame, &digest, &signature).is_ok();
            frames.push((from(client), archive(body, Authenticator::Signature(signature))));
            expected.push((sequence, alone));
        }
        let mut checker = checker(0, ClientAuth::Mac);
        let mut one_by_one = Vec::new();
        for (source, bytes) in frames.clone() {
            let FrameSource::Client(client) = source else { continue };
            match checker.take_frame(client, bytes) {
                Ok(Some(frame)) => one_by_one.push((frame.key().sequence.number(), true)),
                Ok(None) => {}
                Err((frame, _)) => one_by_one.push((frame.unwrap().key.sequence.number(), false)),
            }
        }
        checker.verify(|frame, verdict| one_by_one.push((frame.key().sequence.number(), verdict.is_ok())));
        one_by_one.sort_unstable();
        prop_assert_eq!(&one_by_one, &expected);
        prop_assert_eq!(checker.waiting(), 0);
        let verdicts: Vec<_> = check(&mut checker, frames)
            .into_iter()
            .map(|verdict| match verdict {
                Ok(frame) => (frame.key().sequence.number(), true),
                Err(refused) => (refused.answer.unwrap().key.sequence.number(), false),
            })
            .collect();
        prop_assert_eq!(verdicts, expected);
    }
}
