//! An archive has no bytes that its root does not reach, whatever was done to it.

use rkyv::Deserialize;
use rkyv::api::high::HighDeserializer;
use rkyv::rancor::Failure;

use super::super::checked::archive;
use super::*;

fn signed(signer: u16) -> SignedCheckpoint {
    SignedCheckpoint {
        seq: 9,
        digest: [3; 32],
        signer,
        signature: [4; 64],
    }
}

fn placed(seq: u64) -> SlotDigest {
    SlotDigest::new(SeqNo::new(seq), &Digest::from_bytes([7; 32]), View::new(2))
}

fn named(signer: u16) -> NamedViewChange {
    NamedViewChange {
        signer,
        digest: [4; 32],
    }
}

fn view_change(signer: u16, proofs: u16) -> ViewChange {
    ViewChange {
        view: 3,
        stable_seq: 9,
        stable_digest: [3; 32],
        stable_proof: (0..proofs).map(signed).collect(),
        prepared: vec![placed(10), placed(11)],
        pre_prepared: vec![placed(10)],
        signer,
        signature: [1; 64],
    }
}

fn pre_prepare() -> PrePrepare {
    let frames = [frame_bytes(&[b"one".to_vec()]), frame_bytes(&[Vec::new()])];
    PrePrepare {
        view: 1,
        seq: 2,
        digest: [5; 32],
        time: 3,
        ends: vec![frames[0].len() as u32, (frames[0].len() + frames[1].len()) as u32],
        frames: frames.concat(),
    }
}

fn system_messages() -> Vec<SystemMessage> {
    let reference = BatchRef::new(SeqNo::new(4), &Digest::from_bytes([6; 32]));
    let vote = Vote {
        phase: Phase::Commit,
        view: 1,
        seq: 2,
        digest: [8; 32],
    };
    let offer = |cover| CheckpointOffer {
        seq: 9,
        digest: [3; 32],
        cover,
        proof: vec![signed(0), signed(2)],
    };
    let cover = CoveringCheckpoint {
        seq: 11,
        chain: [2; 32],
    };
    let votes = |count: usize| {
        let vote = archive(&vote, 64);
        ProtocolMessages::of(std::iter::repeat_n(&vote[..], count))
    };
    let ordering = [
        SystemMessage::ProposalMessage(pre_prepare()),
        SystemMessage::ProtocolMessage(votes(3)),
        SystemMessage::ProtocolMessage(votes(0)),
    ];
    let views = [
        ViewTransferMessage::ViewChange(view_change(1, 3)),
        ViewTransferMessage::NewView(NewView {
            view: 3,
            view_changes: vec![named(0), named(2), named(3)],
            signer: 3,
            signature: [2; 64],
        }),
        ViewTransferMessage::FetchViewChanges(vec![named(1), named(2)]),
        ViewTransferMessage::Complaint(3),
    ];
    let sync = [
        SyncMessage::Checkpoint(signed(1)),
        SyncMessage::Status(Status {
            view: 3,
            active: true,
            stable: 9,
            decided: 11,
            view_changes: vec![0, 3, 3, 0],
            asks: true,
            slots: vec![7, 3, 1],
            disputed: vec![5],
            complaint: 2,
        }),
        SyncMessage::FetchBatches(vec![reference; 2]),
        SyncMessage::BatchResponse(pre_prepare()),
        SyncMessage::Decisions(vec![reference]),
        SyncMessage::Stable(vec![signed(0), signed(1)]),
    ];
    let log = [
        LogTransferMessage::AskDecided { after: 4 },
        LogTransferMessage::Decided {
            after: 4,
            first: 5,
            digests: vec![[1; 32], [2; 32]],
        },
        LogTransferMessage::FetchDecisions { first: 5, count: 2 },
    ];
    let state = [
        StateTransferMessage::AskOffer { after: 3 },
        StateTransferMessage::Offer(offer(None)),
        StateTransferMessage::Offer(offer(Some(cover))),
        StateTransferMessage::Fetch(PieceRange {
            seq: 9,
            piece: 1,
            offset: 2,
            until: 3,
        }),
        StateTransferMessage::Chunk(ChunkOf {
            seq: 9,
            last: true,
            bytes: vec![9; 40],
        }),
    ];
    let forwarded = ForwardedRequests {
        ends: pre_prepare().ends,
        frames: pre_prepare().frames,
    };
    let views = views.map(|message| SystemMessage::ViewTransferMessage(archive(&message, 64)));
    let sync = sync.map(SystemMessage::SyncMessage);
    let (log, state) = (
        log.map(SystemMessage::LogTransferMessage),
        state.map(SystemMessage::StateTransferMessage),
    );
    let mut all = vec![SystemMessage::ForwardedRequestMessage(forwarded)];
    all.extend(
        ordering
            .into_iter()
            .chain(views)
            .chain(sync)
            .chain(log)
            .chain(state),
    );
    all
}

/// What is done to the bytes of an archive.
#[derive(Debug, Clone)]
enum Change {
    Insert(prop::sample::Index, Vec<u8>),
    /// Bytes are there once more, behind themselves.
    Double(prop::sample::Index, usize),
    Remove(prop::sample::Index, usize),
    Set(prop::sample::Index, u8),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &prop::sample::Index, bytes: &Vec<u8>| index.index(bytes.len() + 1);
        match self {
            Self::Insert(index, more) => {
                let at = at(index, bytes);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Double(index, count) => {
                let at = at(index, bytes);
                let more = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, more);
            }
            Self::Remove(index, count) => {
                let at = at(index, bytes);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Set(index, value) => {
                let at = at(index, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *value;
                }
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<prop::sample::Index>();
    let change = prop_oneof![
        4 => (index.clone(), proptest::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, more)| Change::Insert(at, more)),
        2 => (index.clone(), 1usize..40).prop_map(|(at, count)| Change::Double(at, count)),
        1 => (index.clone(), 1usize..40).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (index, any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
    ];
    proptest::collection::vec(change, 1..4)
}

/// What we encode is accepted, with bytes before it refused; changed, it is refused or as long as what it
/// says.
fn is_canonical<T>(value: &T, changes: &[Change])
where
    T: Message,
    T::Archived: Deserialize<T, HighDeserializer<Failure>>,
{
    let sound = archive(value, 0);
    let name = std::any::type_name::<T>();
    assert!(Checked::<T>::new(sound.clone().into()).is_ok(), "{name}");
    for length in [1, 4, 100] {
        let padded = [vec![0; length], sound.clone()].concat();
        assert!(
            Checked::<T>::new(padded.into()).is_err(),
            "{name} padded by {length}"
        );
    }
    let mut changed = sound;
    changes.iter().for_each(|change| change.apply(&mut changed));
    let length = changed.len();
    if let Ok(checked) = Checked::<T>::new(changed.into()) {
        let said: T = rkyv::deserialize::<T, Failure>(&*checked).unwrap();
        assert_eq!(archive(&said, 0).len(), length, "{name} after {changes:?}");
    }
}

proptest! {
    #[test]
    fn no_archive_has_bytes_that_its_root_does_not_reach(changes in changes()) {
        system_messages().iter().for_each(|message| is_canonical(message, &changes));
        let body = RequestBody {
            client: 1,
            session: 2,
            sequence: 3,
            process: 4,
            mode: Mode::Ordered,
            ends: vec![3, 3, 8],
            operations: vec![1; 8],
        };
        is_canonical(&body, &changes);
        for authenticator in [Authenticator::Signature([1; 64]), Authenticator::Macs(vec![[2; 16]; 4])] {
            let body = archive(&body, 0);
            is_canonical(&RequestFrame { body, authenticator }, &changes);
        }
        let reply = ReplyBody {
            client: 1,
            session: 2,
            sequence: 3,
            request: [4; 32],
            failures: vec![FailedOperation {
                operation: 1,
                failure: crate::smr::messages::Failure::Application,
            }],
            ends: vec![3, 8],
            results: vec![1; 8],
        };
        is_canonical(&reply, &changes);
        let body = archive(&reply, 0);
        is_canonical(&ClientReply::Results { view: 1, whole: 2, begun: 3, body }, &changes);
        let refused = ClientReply::Refused {
            view: 1,
            session: 2,
            sequence: 3,
            request: [4; 32],
            reason: RefusalReason::Stale,
        };
        is_canonical(&refused, &changes);
        is_canonical(&AdminRequest::Status, &changes);
        is_canonical(&LinkMessage::Goodbye, &changes);
    }
}

#[test]
fn bytes_between_two_lists_and_a_shared_list_are_refused_where_rkyv_itself_lets_the_first_pass() {
    let body = RequestBody {
        client: 1,
        session: 2,
        sequence: 3,
        process: 4,
        mode: Mode::Ordered,
        ends: vec![3],
        operations: vec![1, 2, 3],
    };
    let sound = archive(&body, 0);
    // The table of ends, the operations, the body: a gap after the table, which points as far back as before.
    let mut gap = sound.clone();
    gap.splice(4..4, [0; 5]);
    let ends_at = gap.len() - size_of::<rkyv::Archived<RequestBody>>() + 4 + 8 + 8 + 8 + 1;
    let offset = i32::from_le_bytes(gap[ends_at..ends_at + 4].try_into().unwrap());
    gap[ends_at..ends_at + 4].copy_from_slice(&(offset - 5).to_le_bytes());
    let lenient = rkyv::access::<rkyv::Archived<RequestBody>, Failure>(&gap);
    assert_eq!(lenient.unwrap().ends.as_slice()[0], 3, "it means the same");
    assert!(Checked::<RequestBody>::new(gap.into()).is_err());
    assert!(Checked::<RequestBody>::new(sound.into()).is_ok());
}

#[test]
fn a_padded_frame_is_refused_alone_and_in_a_batch_and_so_is_a_padded_message() {
    let frame = frame_bytes(&[b"operation".to_vec()]);
    let padded = Bytes::from([&[0; 7], &frame[..]].concat());
    assert_eq!(
        Frame::check(padded, 16, 4096, fake_digest).unwrap_err(),
        FrameError::Malformed
    );
    // A padded body has another digest, but would have been as good a frame.
    let body = Checked::<RequestFrame>::new(frame.clone()).unwrap().body.to_vec();
    let padded = RequestFrame {
        body: [&[0; 7], &body[..]].concat(),
        authenticator: Authenticator::Signature([0; 64]),
    };
    assert_eq!(
        Frame::check(padded.to_archive(), 16, 4096, fake_digest).unwrap_err(),
        FrameError::Malformed
    );
    let message = SystemMessage::votes(CLUSTER, Epoch::ZERO, Vec::new());
    let (envelope, votes) = message.split_at(ENVELOPE_BYTES);
    let padded = Bytes::from([envelope, &[0; 7], votes].concat());
    assert!(Checked::<SystemMessage>::body_of(&message).is_ok());
    assert!(Checked::<SystemMessage>::body_of(&padded).is_err());
}
