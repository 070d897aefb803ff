//! Floods: what one peer, or one client, can make a replica do and keep.

use super::*;
use crate::messages::{Authenticator, FrameBuilder, Mode, RequestFrame};
use crate::protocol::Rejection;
use crate::types::FrameSeq;

fn frame() -> Frame {
    let mut builder = FrameBuilder::default();
    builder.push(&[0; 8]).unwrap();
    let body = builder.finish(ClientId::new(0), FrameSeq::new(1), Mode::Ordered);
    let authenticator = Authenticator::Macs(Vec::new());
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
        let replica = &mut bench.replica;
        let from = NodeId::new(peer);
        replica
            .view_transfer
            .on_complaint(from, View::new(1), &mut replica.outbox);
    }
    bench.wait_ms(3000);
    assert_eq!(bench.replica.phase(), ExecutionPhase::ViewTransferProtocol);
    for _ in 0..3 * FORWARDED_FRAMES_MAX {
        bench.replica.on_frame(bench.now, frame());
    }
    assert!(
        bench.replica.forward.is_empty(),
        "nobody takes them while the view changes"
    );
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
