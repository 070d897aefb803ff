mod canonical;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, SeqNo, UnixTime, View};

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-tests");

fn fake_digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(*blake3::hash(bytes).as_bytes())
}

fn frame_bytes(operations: &[Vec<u8>]) -> Bytes {
    let mut builder = FrameBuilder::default();
    for operation in operations {
        builder.push(operation).unwrap();
    }
    let body = builder.finish(ClientId::new(7), FrameSeq::new(9), Mode::Ordered);
    RequestFrame {
        body,
        authenticator: Authenticator::Macs(vec![[1; 16]; 4]),
    }
    .to_archive()
}

fn proposal_message(frames: &[Frame]) -> Bytes {
    let bytes = frames.iter().map(|f| f.bytes().len()).sum();
    let batch = Batch {
        digest: Digest::from_bytes([5; 32]),
        time: UnixTime::from_nanos(7),
        frames: frames.to_vec(),
        bytes,
    };
    PrePrepare::encode(CLUSTER, Epoch::ZERO, View::new(3), SeqNo::new(11), &batch)
}

#[test]
fn frames_travel_inside_a_pre_prepare_as_the_bytes_the_client_sent() {
    let frames: Vec<Frame> = [
        vec![b"a".to_vec()],
        vec![b"bb".to_vec(), Vec::new(), b"ccc".to_vec()],
    ]
    .iter()
    .map(|operations| Frame::check(frame_bytes(operations), 16, 4096, fake_digest).unwrap())
    .collect();
    let message = proposal_message(&frames);
    let envelope = Envelope::open(&message, CLUSTER, Epoch::ZERO).unwrap();
    assert_eq!(envelope.kind, Kind::SystemWithFrames);
    let checked = Checked::<SystemMessage>::body_of(&message).unwrap();
    let (head, received) = checked.pre_prepare(1 << 20).unwrap().unwrap();
    assert_eq!((head.view(), head.seq()), (View::new(3), SeqNo::new(11)));
    let received: Vec<Bytes> = received.collect();
    assert_eq!(
        received,
        frames.iter().map(|f| f.bytes().clone()).collect::<Vec<_>>()
    );
    let again = Frame::check(received[1].clone(), 16, 4096, fake_digest).unwrap();
    assert_eq!(
        again.body().operations().collect::<Vec<_>>(),
        [&b"bb"[..], b"", b"ccc"]
    );
    assert_eq!(again.digest(), frames[1].digest());
}

#[test]
fn a_message_of_another_cluster_epoch_version_or_length_is_refused_by_its_envelope() {
    let message = SystemMessage::votes(CLUSTER, Epoch::ZERO, Vec::new());
    let other = ClusterId::from_bytes([9; 16]);
    assert!(matches!(
        Envelope::open(&message, other, Epoch::ZERO),
        Err(EnvelopeError::Cluster { .. })
    ));
    assert!(matches!(
        Envelope::open(&message, CLUSTER, Epoch::new(1)),
        Err(EnvelopeError::Epoch { .. })
    ));
    assert!(matches!(
        Envelope::open(&message[..message.len() - 1], CLUSTER, Epoch::ZERO),
        Err(EnvelopeError::Length { .. })
    ));
    assert!(matches!(
        Envelope::open(&message[..5], CLUSTER, Epoch::ZERO),
        Err(EnvelopeError::Length { .. })
    ));
    let mut bytes = message.to_vec();
    bytes[0] = 0xff;
    assert!(matches!(
        Envelope::open(&bytes, CLUSTER, Epoch::ZERO),
        Err(EnvelopeError::Version(_))
    ));
    bytes[0] = PROTOCOL_VERSION as u8;
    bytes[2] = 99;
    assert_eq!(
        Envelope::open(&bytes, CLUSTER, Epoch::ZERO),
        Err(EnvelopeError::Kind(99))
    );
}

#[test]
fn limits_on_frames_are_enforced_before_anything_is_hashed() {
    let never = |_: &[u8]| -> Digest { panic!("a refused frame was hashed") };
    let bytes = frame_bytes(&[vec![0; 100], vec![0; 100]]);
    assert_eq!(
        Frame::check(bytes.clone(), 1, 4096, never).unwrap_err(),
        FrameError::OperationCount { got: 2, max: 1 }
    );
    assert!(matches!(
        Frame::check(bytes, 16, 128, never),
        Err(FrameError::TooLong { .. })
    ));
    let body = RequestBody {
        client: 1,
        session: 0,
        sequence: 1,
        process: 0,
        mode: Mode::Ordered,
        ends: vec![5, 3],
        operations: vec![0; 3],
    };
    let body = super::checked::archive(&body, 0);
    let frame = RequestFrame {
        body,
        authenticator: Authenticator::Signature([0; 64]),
    };
    assert_eq!(
        Frame::check(frame.to_archive(), 16, 4096, never).unwrap_err(),
        FrameError::Ends
    );
}

proptest! {
    #[test]
    fn corrupted_bytes_never_panic_and_never_reach_outside(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let frame = Frame::check(frame_bytes(&[b"one".to_vec(), b"two".to_vec()]), 16, 4096, fake_digest).unwrap();
        for message in [proposal_message(std::slice::from_ref(&frame)), frame.bytes().clone()] {
            let mut bytes = message.to_vec();
            for (at, value) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= value;
            }
            bytes.truncate(bytes.len() - cut.index(bytes.len()) / 8);
            let bytes = Bytes::from(bytes);
            let _ = Envelope::open(&bytes, CLUSTER, Epoch::ZERO);
            if let Ok(frame) = Frame::check(bytes.clone(), 16, 4096, fake_digest) {
                prop_assert_eq!(frame.body().operations().count(), frame.operation_count());
            }
            if let Ok(checked) = Checked::<SystemMessage>::body_of(&bytes)
                && let Some(Ok((_, frames))) = checked.pre_prepare(1 << 20)
            {
                for frame in frames {
                    let _ = Frame::check(frame, 16, 4096, fake_digest);
                }
            }
        }
    }
}
