//! The longest legal message of every kind is as long as is worked out, for clusters and limits of every
//! size.

use bytes::Bytes;

use super::*;
use crate::smr::messages::{
    Authenticator, BatchRef, CheckpointOffer, ChunkOf, ClientReply, CoveringCheckpoint, Envelope, Failure,
    ForwardedRequests, FrameBuilder, FrameId, FrameKey, Kind, LogTransferMessage, Mode, NamedViewChange,
    NewView, Phase, PrePrepare, ReplyBuilder, RequestFrame, SignedCheckpoint, SlotDigest,
    StateTransferMessage, Status, SyncMessage, SystemMessage, ViewChange, ViewTransferMessage, Vote, encode,
};
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, View};

const CLUSTER: ClusterId = ClusterId::from_bytes([9; 16]);

/// Small, default and large limits, for clusters of every kind of size.
fn all() -> Vec<Lengths> {
    let limits = [
        // window, frame bytes, operations, batch bytes, batch frames
        (2, FRAME_LIMIT_MIN, 1, 1024, 1),
        (64, 96 << 10, 16, 96 << 10, 64),
        (2000, 1 << 20, 4096, 1 << 20, 4096),
        (10, 4 << 20, 1 << 10, 1 << 20, 1 << 18),
    ];
    let with = |replicas: usize| {
        limits.map(
            |(window, frame_bytes_max, frame_operations_max, batch_bytes_max, batch_frames_max)| Lengths {
                replicas,
                window,
                frame_bytes_max,
                frame_operations_max,
                frame_result_bytes_max: 3 << 20,
                batch_bytes_max,
                batch_frames_max,
            },
        )
    };
    [1, 4, 7, 64].into_iter().flat_map(with).collect()
}

fn signed(signer: usize) -> SignedCheckpoint {
    SignedCheckpoint {
        seq: u64::MAX,
        digest: [1; 32],
        signer: signer as u16,
        signature: [2; 64],
    }
}

fn of_views(message: ViewTransferMessage) -> Bytes {
    message.encode(CLUSTER, Epoch::ZERO)
}

fn of_all(message: SyncMessage) -> Bytes {
    message.encode(CLUSTER, Epoch::ZERO)
}

fn longest_view_change(lengths: &Lengths) -> Bytes {
    let placed = |seq: u64, byte: usize| SlotDigest {
        seq,
        digest: [byte as u8; 32],
        view: u64::MAX,
    };
    let places = || 1..=lengths.window;
    of_views(ViewTransferMessage::ViewChange(ViewChange {
        view: u64::MAX,
        stable_seq: 0,
        stable_digest: [3; 32],
        stable_proof: (0..lengths.replicas).map(signed).collect(),
        prepared: places().map(|seq| placed(seq, 0)).collect(),
        pre_prepared: places()
            .flat_map(|seq| (0..PRE_PREPARED_MAX).map(move |byte| placed(seq, byte)))
            .collect(),
        signer: 0,
        signature: [4; 64],
    }))
}

fn longest_status(lengths: &Lengths) -> Bytes {
    of_all(SyncMessage::Status(Status {
        view: 1,
        active: true,
        stable: 1,
        decided: 1,
        view_changes: vec![7; lengths.replicas],
        asks: true,
        slots: vec![7; STATUS_SLOTS],
        disputed: vec![7; STATUS_DISPUTES],
        complaint: 1,
    }))
}

fn longest_batch(lengths: &Lengths) -> PrePrepare {
    PrePrepare {
        view: 1,
        seq: 1,
        digest: [5; 32],
        time: u64::MAX,
        ends: vec![0; lengths.batch_frames_max],
        frames: vec![6; lengths.batch_bytes()],
    }
}

fn system(kind: Kind, message: &SystemMessage) -> Bytes {
    encode(Envelope::new(kind, CLUSTER, Epoch::ZERO), message, 0)
}

#[test]
fn the_longest_messages_between_replicas_are_as_long_as_is_worked_out() {
    for lengths in all() {
        let named = vec![
            NamedViewChange {
                signer: 1,
                digest: [1; 32],
            };
            lengths.replicas
        ];
        let new_view = NewView {
            view: 1,
            view_changes: named.clone(),
            signer: 1,
            signature: [2; 64],
        };
        let vote = Vote {
            phase: Phase::Commit,
            view: 1,
            seq: 1,
            digest: [3; 32],
        };
        let references = vec![
            BatchRef {
                seq: 1,
                digest: [4; 32],
            };
            STATUS_SLOTS
        ];
        let proof: Vec<SignedCheckpoint> = (0..lengths.replicas).map(signed).collect();
        let offer = CheckpointOffer {
            seq: 1,
            digest: [5; 32],
            cover: Some(CoveringCheckpoint {
                seq: 2,
                chain: [6; 32],
            }),
            proof: proof.clone(),
        };
        let decided = LogTransferMessage::Decided {
            after: 1,
            first: 1,
            digests: vec![[7; 32]; DECIDED_MAX],
        };
        let chunk = StateTransferMessage::Chunk(ChunkOf {
            seq: 1,
            last: true,
            bytes: vec![8; IMAGE_CHUNK_BYTES_MAX],
        });
        let frames = lengths.batch_bytes() / FRAME_BYTES_MIN;
        let passed_on = SystemMessage::ForwardedRequestMessage(ForwardedRequests {
            ends: vec![0; frames],
            frames: vec![9; lengths.batch_bytes()],
        });
        let proposal = SystemMessage::ProposalMessage(longest_batch(&lengths));
        let references = [
            of_all(SyncMessage::FetchBatches(references.clone())),
            of_all(SyncMessage::Decisions(references)),
        ];
        let built = [
            (system(Kind::SystemWithFrames, &proposal), lengths.batch_message()),
            (
                of_all(SyncMessage::BatchResponse(longest_batch(&lengths))),
                lengths.batch_message(),
            ),
            (system(Kind::SystemWithFrames, &passed_on), lengths.forwarded()),
            (
                SystemMessage::votes(CLUSTER, Epoch::ZERO, vec![vote; VOTES_MAX]),
                Lengths::votes(VOTES_MAX),
            ),
            (
                SystemMessage::checkpoint(CLUSTER, Epoch::ZERO, signed(0)),
                Lengths::votes(0),
            ),
            (longest_view_change(&lengths), lengths.view_change()),
            (
                of_views(ViewTransferMessage::NewView(new_view)),
                lengths.new_view(),
            ),
            (
                of_views(ViewTransferMessage::FetchViewChanges(named)),
                lengths.new_view(),
            ),
            (longest_status(&lengths), lengths.status()),
            (references[0].clone(), Lengths::references()),
            (references[1].clone(), Lengths::references()),
            (of_all(SyncMessage::Stable(proof)), lengths.proof()),
            (
                StateTransferMessage::Offer(offer).encode(CLUSTER, Epoch::ZERO),
                lengths.proof(),
            ),
            (decided.encode(CLUSTER, Epoch::ZERO), Lengths::decided()),
            (chunk.encode(CLUSTER, Epoch::ZERO), Lengths::chunk()),
        ];
        for (number, (message, length)) in built.iter().enumerate() {
            assert_eq!(message.len(), *length, "message {number} of {lengths:?}");
            assert!(
                message.len() <= lengths.replica_message(),
                "message {number} of {lengths:?}"
            );
        }
    }
}

#[test]
fn a_view_change_of_the_largest_cluster_and_window_is_within_its_bound() {
    let message = longest_view_change(&LARGEST);
    assert_eq!(message.len(), LARGEST.view_change());
    assert!(message.len() <= VIEW_CHANGE_BYTES_MAX);
    assert!(LARGEST.log_record() >= LOG_HEAD_BYTES + message.len());
}

/// A frame of so many operations with so many bytes together.
fn frame(operations: usize, bytes: usize, authenticator: Authenticator) -> Bytes {
    let mut builder = FrameBuilder::default();
    let first = vec![1; bytes];
    builder.push(&first).unwrap();
    (1..operations).for_each(|_| builder.push(&[]).unwrap());
    let body = builder.finish(ClientId::new(1), FrameSeq::new(1), Mode::Ordered);
    RequestFrame { body, authenticator }.to_archive()
}

#[test]
fn what_a_client_may_put_into_a_frame_makes_one_of_the_longest() {
    for lengths in all() {
        let room = operations_room(lengths.frame_bytes_max, lengths.replicas);
        let operations = lengths.frame_operations_max.min(room / 8);
        let macs = Authenticator::Macs(vec![[2; 16]; lengths.replicas]);
        let longest = frame(operations, room - 4 * operations, macs);
        assert_eq!(longest.len(), lengths.frame_bytes_max, "{lengths:?}");
    }
    let shortest = frame(1, 0, Authenticator::Signature([0; 64]));
    assert!(shortest.len() >= FRAME_BYTES_MIN);
}

#[test]
fn the_longest_answer_fits_a_clients_link_whatever_its_frames_may_be() {
    for lengths in all() {
        let key = FrameKey {
            client: ClientId::new(1),
            sequence: FrameSeq::of(1, 1),
        };
        let mut builder = ReplyBuilder::default();
        builder.buffer().resize(lengths.frame_result_bytes_max, 1);
        for _ in 0..lengths.frame_operations_max {
            builder.end_result(Some(Failure::Application));
        }
        let body = builder.finish(&FrameId {
            key,
            digest: Digest::ZERO,
        });
        let reply = ClientReply::results(CLUSTER, Epoch::ZERO, View::ZERO, &body);
        assert_eq!(reply.len(), lengths.reply(), "{lengths:?}");
        assert!(4 + reply.len() + TAG_BYTES <= lengths.reply_record());
    }
}
