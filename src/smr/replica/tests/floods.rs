//! Floods: what one peer, or one client, can make a replica do and keep.

use super::*;
use crate::smr::messages::archived::ArchivedViewTransferMessage;
use crate::smr::messages::{Authenticator, Checked, FrameBuilder, Mode, RequestFrame, ViewTransferMessage};
use crate::smr::protocol::Rejection;
use crate::smr::types::FrameSeq;

fn frame() -> Frame {
    numbered(1)
}

fn numbered(sequence: u64) -> Frame {
    proven(sequence, Authenticator::Signature([0; 64]))
}

fn with_macs(sequence: u64) -> Frame {
    proven(sequence, Authenticator::Macs(vec![[0; 16]; 4]))
}

fn proven(sequence: u64, authenticator: Authenticator) -> Frame {
    let mut builder = FrameBuilder::default();
    builder.push(&[0; 8]).unwrap();
    let body = builder.finish(ClientId::new(0), FrameSeq::new(sequence), Mode::Ordered);
    let bytes = RequestFrame { body, authenticator }.to_archive();
    Frame::check(bytes, 8, 1 << 16, |_| Digest::from_bytes([5; 32])).unwrap()
}

#[test]
fn a_client_that_repeats_a_frame_has_a_bounded_number_passed_on() {
    let mut bench = Bench::new();
    // Replica 0 leads view 0: a backup is what passes frames on.
    bench.wait_ms(10);
    bench.replica.on_frame(bench.now, frame());
    for peer in [2, 3] {
        let message = ViewTransferMessage::Complaint(1).encode(CLUSTER, Epoch::ZERO);
        let checked = Checked::<SystemMessage>::body_of(&message).unwrap();
        let from = NodeId::new(peer);
        assert!(bench.replica.on_message(bench.now, from, &checked, &message));
    }
    bench.wait_ms(3000);
    assert_eq!(bench.replica.phase(), ExecutionPhase::ViewTransferProtocol);
    for _ in 0..3 * FORWARDED_FRAMES_MAX {
        bench.replica.on_frame(bench.now, frame());
    }
    assert!(
        bench.replica.forwarding.is_empty(),
        "nobody takes them while the view changes"
    );
}

/// What clients are told, since the last call.
fn told_to_clients(bench: &mut Bench) -> Vec<&'static str> {
    bench.replica.finish_turn(bench.now);
    let actions: Vec<Action> = bench.replica.drain_actions().collect();
    let told = actions.iter().filter_map(|action| match action {
        Action::ReplyAgain(_) => Some("reply again"),
        Action::Refuse { reason, .. } => Some(match reason {
            RefusalReason::Stale => "stale",
            RefusalReason::Unproven => "sign it",
            _ => "refused",
        }),
        _ => None,
    });
    told.collect()
}

#[test]
fn nobody_is_answered_for_what_a_replica_passes_on() {
    let mut bench = Bench::new();
    bench.wait_ms(10);
    let (old, decided) = (numbered(1), numbered(100));
    bench.replica.pool.on_decided(&Batch {
        frames: vec![decided.clone()],
        ..Batch::null()
    });
    for _ in 0..100 {
        bench.replica.on_passed_on(bench.now, old.clone());
        bench.replica.on_passed_on(bench.now, decided.clone());
    }
    assert_eq!(told_to_clients(&mut bench), [""; 0]);
    bench.replica.on_frame(bench.now, old);
    bench.replica.on_frame(bench.now, decided);
    assert_eq!(told_to_clients(&mut bench), ["stale", "reply again"]);
}

#[test]
fn a_client_whose_macs_wait_for_the_leader_is_asked_to_sign_whenever_it_asks() {
    let mut bench = Bench::backup();
    bench.wait_ms(10);
    bench.replica.on_frame(bench.now, with_macs(1));
    assert_eq!(told_to_clients(&mut bench), [""; 0]);
    bench.wait_ms(5000);
    assert_eq!(
        bench.replica.phase(),
        ExecutionPhase::OrderProtocol,
        "nobody is blamed"
    );
    bench.replica.on_frame(bench.now, with_macs(1));
    assert_eq!(told_to_clients(&mut bench), ["sign it"]);
    bench.replica.on_frame(bench.now, numbered(1));
    assert_eq!(told_to_clients(&mut bench), [""; 0]);
    let complains = |bench: &Bench| {
        let view = |message: &SystemMessage| match message {
            SystemMessage::ViewTransferMessage(archive) => {
                let message = Checked::<ViewTransferMessage>::new(archive.clone().into()).unwrap();
                match &*message {
                    ArchivedViewTransferMessage::Complaint(view) => Some(view.to_native()),
                    _ => None,
                }
            }
            _ => None,
        };
        bench
            .sent
            .iter()
            .filter_map(|(_, message)| view(message))
            .next_back()
    };
    assert_eq!(complains(&bench), None);
    bench.wait_ms(1000);
    assert_eq!(complains(&bench), Some(1));
}

#[test]
fn a_flood_of_checkpoints_is_verified_in_part() {
    let mut bench = Bench::new();
    for seq in 1..=2000 {
        let forged = SignedCheckpoint {
            seq,
            digest: [1; 32],
            signer: 1,
            signature: [0; 64],
        };
        bench.hear(1, &SystemMessage::checkpoint(CLUSTER, Epoch::ZERO, forged));
    }
    let rejected = &bench.replica.counters().rejected;
    let over_budget = rejected[Rejection::OverBudget.index()];
    let verified = rejected.iter().sum::<u64>() - over_budget;
    assert!((100..=400).contains(&verified), "{verified}");
    assert_eq!(verified + over_budget, 2000, "what is not looked at is counted");
    // Another's is heard all the same.
    let signed = certificate(checkpoint(PERIOD).claim);
    for signed in signed.into_iter().filter(|signed| signed.signer != 1) {
        bench.hear(
            signed.signer,
            &SystemMessage::checkpoint(CLUSTER, Epoch::ZERO, signed),
        );
    }
    bench.decide(1..=PERIOD);
    assert!(bench.told().contains(&format!("stable {PERIOD}")));
}
