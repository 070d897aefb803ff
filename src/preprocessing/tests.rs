use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::crypto::{Digester, Domain, LinkSecret, MacKey, SigningKey};
use crate::messages::{
    Authenticator, Batch, BatchError, Checked, Frame, FrameBuilder, Mode, PrePrepare, RequestFrame,
    SystemMessage,
};
use crate::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, NodeId, SeqNo, Time, View};

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-tests");
const REPLICAS: usize = 4;
const LIMITS: CheckerLimits = CheckerLimits {
    frame_bytes_max: 4096,
    frame_operations_max: 8,
    batch_bytes_max: 1 << 20,
    batch_frames_max: 64,
};

fn link(seed: u8) -> LinkSecret {
    LinkSecret::from_bytes(&[seed; 32])
}

fn signing(client: u32) -> SigningKey {
    SigningKey::from_seed(&[client as u8 + 100; 32])
}

fn checker(node: u16, auth: ClientAuth) -> FrameChecker {
    let clients = (0..3)
        .map(|client| ClientKeys {
            verifying: signing(client).verifying_key(),
            mac: MacKey::between(&link(node as u8 + 1), &link(client as u8 + 50).public(), CLUSTER),
            must_sign: false,
        })
        .collect();
    let directory = ClientDirectory::new(clients);
    FrameChecker::new(
        NodeId::new(node),
        REPLICAS,
        auth,
        LIMITS,
        Digester::new(CLUSTER),
        directory,
    )
}

fn body(client: u32, sequence: u64, mode: Mode) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    builder.push(b"operation").unwrap();
    builder.finish(ClientId::new(client), FrameSeq::new(sequence), mode)
}

fn with_macs(client: u32, sequence: u64, spoil: Option<u16>) -> Bytes {
    let body = body(client, sequence, Mode::Ordered);
    let digest = Digester::new(CLUSTER).digest(Domain::RequestFrame, &body);
    let macs = NodeId::all(REPLICAS).map(|node| {
        let key = MacKey::between(
            &link(client as u8 + 50),
            &link(node.get() as u8 + 1).public(),
            CLUSTER,
        )
        .unwrap();
        let mut mac = key.mac(&digest);
        mac[3] ^= u8::from(spoil == Some(node.get()));
        mac
    });
    RequestFrame {
        authenticator: Authenticator::Macs(macs.collect()),
        body,
    }
    .to_archive()
}

fn with_signature(client: u32, sequence: u64, signer: u32) -> Bytes {
    let body = body(client, sequence, Mode::Ordered);
    let digest = Digester::new(CLUSTER).digest(Domain::RequestFrame, &body);
    let authenticator = Authenticator::Signature(signing(signer).sign(Domain::RequestFrame, &digest));
    RequestFrame { body, authenticator }.to_archive()
}

/// The final verdict on a frame that came by the link of `client`.
fn verdict(checker: &mut FrameChecker, client: u32, bytes: Bytes) -> Result<Frame, FrameRefusal> {
    match checker.take_frame(ClientId::new(client), bytes) {
        Ok(Some(frame)) => Ok(frame),
        Err((_, refusal)) => Err(refusal),
        Ok(None) => {
            let mut result = None;
            checker.verify(|frame, verdict| result = Some(verdict.map(|()| frame)));
            result.unwrap()
        }
    }
}

fn propose(frames: &[Bytes], digest: Option<Digest>) -> Bytes {
    let digester = Digester::new(CLUSTER);
    let check = |bytes: &Bytes| {
        Frame::check(bytes.clone(), 8, 4096, |b| {
            digester.digest(Domain::RequestFrame, b)
        })
    };
    let frames: Vec<Frame> = frames.iter().map(|bytes| check(bytes).unwrap()).collect();
    let digest = digest.unwrap_or_else(|| batch_digest(&digester, &frames));
    let batch = Batch {
        digest,
        bytes: frames.iter().map(|f| f.bytes().len()).sum(),
        frames,
    };
    PrePrepare::encode(CLUSTER, Epoch::ZERO, View::ZERO, SeqNo::new(1), &batch)
}

fn check_proposal(checker: &mut FrameChecker, message: &Bytes) -> Result<bool, BatchError> {
    let checked = Checked::<SystemMessage>::body_of(message).unwrap();
    checker
        .check_proposal(&checked, message)
        .unwrap()
        .map(|proposal| proposal.authentic)
}

#[test]
fn a_frame_is_judged_by_its_client_link_and_authenticator() {
    let mut mac = checker(2, ClientAuth::Mac);
    assert!(verdict(&mut mac, 1, with_macs(1, 5, None)).is_ok());
    assert!(
        verdict(&mut mac, 1, with_macs(1, 5, Some(3))).is_ok(),
        "another replica's MAC is not ours to judge"
    );
    assert_eq!(
        verdict(&mut mac, 1, with_macs(1, 5, Some(2))).unwrap_err(),
        FrameRefusal::NotAuthentic
    );
    assert_eq!(
        verdict(&mut mac, 2, with_macs(1, 5, None)).unwrap_err(),
        FrameRefusal::WrongClient
    );
    assert!(
        verdict(&mut mac, 1, with_signature(1, 5, 1)).is_ok(),
        "a signature always convinces"
    );
    mac.require_signature(ClientId::new(1));
    assert_eq!(
        verdict(&mut mac, 1, with_macs(1, 5, None)).unwrap_err(),
        FrameRefusal::MustSign
    );
    assert!(verdict(&mut mac, 1, with_signature(1, 5, 1)).is_ok());

    let mut signature = checker(2, ClientAuth::Signature);
    assert!(verdict(&mut signature, 1, with_signature(1, 5, 1)).is_ok());
    assert_eq!(
        verdict(&mut signature, 1, with_signature(1, 5, 2)).unwrap_err(),
        FrameRefusal::NotAuthentic
    );
    assert_eq!(
        verdict(&mut signature, 1, with_macs(1, 5, None)).unwrap_err(),
        FrameRefusal::NotAuthentic
    );
    assert_eq!(
        verdict(&mut signature, 9, with_signature(9, 5, 9)).unwrap_err(),
        FrameRefusal::UnknownClient
    );
}

#[test]
fn a_foreign_number_of_macs_is_refused_by_structure() {
    let body = body(1, 1, Mode::Ordered);
    let frame = RequestFrame {
        body,
        authenticator: Authenticator::Macs(vec![[0; 16]; 3]),
    }
    .to_archive();
    assert!(matches!(
        verdict(&mut checker(0, ClientAuth::Mac), 1, frame),
        Err(FrameRefusal::Structure(_))
    ));
}

#[test]
fn a_proposal_is_refused_for_one_bad_signature_and_disputed_for_one_bad_mac() {
    let good = propose(&[with_signature(0, 1, 0), with_signature(1, 1, 1)], None);
    let bad = propose(&[with_signature(0, 1, 0), with_signature(1, 1, 2)], None);
    let mut signature = checker(1, ClientAuth::Signature);
    assert_eq!(
        check_proposal(&mut signature, &bad),
        Err(BatchError::NotAuthentic(0))
    );
    assert_eq!(check_proposal(&mut signature, &good), Ok(true));
    let mut mac = checker(1, ClientAuth::Mac);
    let disputed = propose(&[with_macs(0, 1, None), with_macs(1, 1, Some(1))], None);
    assert_eq!(check_proposal(&mut mac, &disputed), Ok(false));
    assert_eq!(
        check_proposal(&mut checker(2, ClientAuth::Mac), &disputed),
        Ok(true)
    );
    let lie = propose(&[with_macs(0, 1, None)], Some(Digest::from_bytes([1; 32])));
    assert_eq!(check_proposal(&mut mac, &lie), Err(BatchError::Digest));
    assert_eq!(
        check_proposal(&mut mac, &propose(&[], None)),
        Ok(true),
        "the null request"
    );
}

#[test]
fn an_unordered_frame_has_no_place_in_a_batch() {
    let body = body(1, 1, Mode::Unordered);
    let frame = RequestFrame {
        body,
        authenticator: Authenticator::Macs(vec![[0; 16]; 4]),
    }
    .to_archive();
    let message = propose(&[with_macs(0, 1, None), frame], None);
    assert_eq!(
        check_proposal(&mut checker(1, ClientAuth::Mac), &message),
        Err(BatchError::Unordered(1))
    );
}

fn pool_frame(client: u32, sequence: u64, bytes: usize) -> Frame {
    let mut builder = FrameBuilder::default();
    builder.push(&vec![0; bytes]).unwrap();
    let body = builder.finish(ClientId::new(client), FrameSeq::new(sequence), Mode::Ordered);
    let frame = RequestFrame {
        body,
        authenticator: Authenticator::Macs(Vec::new()),
    };
    Frame::check(frame.to_archive(), 8, 1 << 20, |body| {
        Digester::new(CLUSTER).digest(Domain::RequestFrame, body)
    })
    .unwrap()
}

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

const POOL: PoolLimits = PoolLimits {
    frames_per_client: 4,
    bytes_per_client: 4000,
    bytes_max: 6000,
};

#[test]
fn quotas_hold_per_client_and_for_all_together() {
    let mut pool = RequestPool::new(3, POOL);
    for sequence in 1..=4 {
        assert_eq!(
            pool.offer(at(sequence), pool_frame(0, sequence, 10)),
            Offer::Queued
        );
    }
    assert_eq!(
        pool.offer(at(5), pool_frame(0, 5, 10)),
        Offer::OverQuota,
        "frames"
    );
    assert_eq!(pool.offer(at(5), pool_frame(0, 1, 10)), Offer::Duplicate);
    assert_eq!(pool.offer(at(6), pool_frame(1, 1, 3500)), Offer::Queued);
    assert_eq!(
        pool.offer(at(6), pool_frame(1, 2, 3500)),
        Offer::OverQuota,
        "bytes of one"
    );
    assert_eq!(
        pool.offer(at(6), pool_frame(2, 2, 3500)),
        Offer::OverQuota,
        "bytes of all"
    );
    assert_eq!(pool.offer(at(6), pool_frame(7, 2, 1)), Offer::Stale, "a stranger");
    assert_eq!(pool.oldest_pending_since(), Some(at(1)));
}

#[test]
fn decided_frames_leave_and_never_come_back() {
    let mut pool = RequestPool::new(1, POOL);
    pool.offer(at(1), pool_frame(0, 100, 10));
    pool.offer(at(2), pool_frame(0, 101, 10));
    let (frames, bytes) = pool.take_batch(1 << 20, 1).unwrap();
    pool.on_decided(&Batch {
        digest: Digest::ZERO,
        frames,
        bytes,
    });
    assert_eq!(pool.offer(at(3), pool_frame(0, 100, 10)), Offer::AlreadyDecided);
    assert_eq!(pool.offer(at(3), pool_frame(0, 30, 10)), Offer::Stale);
    assert_eq!(
        (pool.pending_frames(), pool.oldest_pending_since()),
        (1, Some(at(2)))
    );
    let (frames, _) = pool.take_batch(1 << 20, 10).unwrap();
    assert_eq!(frames[0].key().sequence.get(), 101);
    assert!(
        pool.take_batch(1 << 20, 10).is_none(),
        "what is proposed is not proposed again"
    );
    pool.return_proposed();
    assert_eq!(
        pool.take_batch(1 << 20, 10).unwrap().0.len(),
        1,
        "until its view is lost"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Offer {
        client: u32,
        sequence: u64,
        bytes: usize,
    },
    Take {
        bytes: usize,
        frames: usize,
    },
    Decide,
    ViewLost,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u32..3, 1u64..40, 0usize..900).prop_map(|(client, sequence, bytes)| Step::Offer { client, sequence, bytes }),
        3 => (0usize..2000, 1usize..6).prop_map(|(bytes, frames)| Step::Take { bytes, frames }),
        2 => Just(Step::Decide),
        1 => Just(Step::ViewLost),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn batching_keeps_per_client_order_fairness_and_exactly_once(steps in steps()) {
        let mut pool = RequestPool::new(3, POOL);
        let mut model: BTreeMap<(u32, u64), (usize, bool)> = BTreeMap::new();
        let mut decided = BTreeSet::new();
        let mut proposed: Vec<Vec<Frame>> = Vec::new();
        for (time, step) in (0u64..).zip(steps) {
            match step {
                Step::Offer { client, sequence, bytes } => {
                    let frame = pool_frame(client, sequence, bytes);
                    let length = frame.bytes().len();
                    let offer = pool.offer(at(time), frame);
                    let known = model.contains_key(&(client, sequence));
                    prop_assert_eq!(offer == Offer::AlreadyDecided, decided.contains(&(client, sequence)));
                    prop_assert_eq!(offer == Offer::Duplicate, known);
                    if offer == Offer::Queued {
                        model.insert((client, sequence), (length, false));
                    }
                }
                Step::Take { bytes, frames } => {
                    let Some((batch, total)) = pool.take_batch(bytes, frames) else {
                        prop_assert!(model.values().all(|(_, proposed)| *proposed));
                        continue;
                    };
                    prop_assert!(batch.len() <= frames && (batch.len() == 1 || total <= bytes));
                    let mut taken: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
                    for frame in &batch {
                        let key = (frame.key().client.get(), frame.key().sequence.get());
                        let entry = model.get_mut(&key).unwrap();
                        prop_assert!(!entry.1, "proposed twice");
                        entry.1 = true;
                        taken.entry(key.0).or_default().push(key.1);
                    }
                    for (client, sequences) in &taken {
                        prop_assert!(sequences.is_sorted(), "a client's frames out of order");
                        let left = model.iter().filter(|((c, _), (_, p))| c == client && !p);
                        prop_assert!(left.map(|((_, s), _)| s).all(|s| s > sequences.last().unwrap()));
                    }
                    let most = taken.values().map(Vec::len).max().unwrap_or(0);
                    for client in 0..3u32 {
                        let got = taken.get(&client).map_or(0, Vec::len);
                        let waits = model.iter().any(|((c, _), (_, p))| *c == client && !p);
                        prop_assert!(!waits || got + 2 > most, "client {} waits while another got {}", client, most);
                    }
                    proposed.push(batch);
                }
                Step::Decide => {
                    let Some(frames) = (!proposed.is_empty()).then(|| proposed.remove(0)) else { continue };
                    for frame in &frames {
                        let key = (frame.key().client.get(), frame.key().sequence.get());
                        model.remove(&key);
                        decided.insert(key);
                    }
                    let batch = Arc::new(Batch { digest: Digest::ZERO, frames, bytes: 0 });
                    pool.on_decided(&batch);
                    pool.on_decided(&batch);
                }
                Step::ViewLost => {
                    proposed.clear();
                    pool.return_proposed();
                    model.values_mut().for_each(|(_, proposed)| *proposed = false);
                }
            }
            prop_assert_eq!(pool.pending_frames(), model.len());
            prop_assert_eq!(pool.pending_bytes(), model.values().map(|(bytes, _)| bytes).sum::<usize>());
            prop_assert!(pool.pending_bytes() <= POOL.bytes_max);
            prop_assert_eq!(pool.oldest_pending_since().is_some(), !model.is_empty());
        }
    }
}
