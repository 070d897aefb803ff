//! What begins an epoch, and what ends it.

use super::*;
use crate::smr::execution::fixtures::frame;
use crate::smr::messages::Mode;

/// The replica in an epoch that begins after the checkpoint at s20.
fn in_epoch(node: u16) -> Bench {
    let context = PartContext {
        epoch: Epoch::new(3),
        base: claim(20, 'b'),
        ..context(4, node)
    };
    Bench {
        pbft: Pbft::new(OrderingConfig { pipeline: PIPELINE }, context),
        out: Outbox::new(Lsn::ZERO),
    }
}

/// A proposal of the leader that asks for a change of the membership.
fn close(bench: &mut Bench, seq: u64, letter: char) -> Vec<String> {
    let change = frame(1, 1, Mode::Change, &[b"a request".to_vec()]);
    let proposal = Proposal {
        view: View::ZERO,
        seq: SeqNo::new(seq),
        batch: Arc::new(Batch {
            frames: vec![change],
            ..Batch::clone(&batch(letter))
        }),
        message: bytes::Bytes::new(),
        authentic: true,
    };
    let (leader, pbft) = (NodeId::new(0), &mut bench.pbft);
    pbft.on_proposal(Time::START, leader, proposal, &mut bench.out);
    bench.told()
}

#[test]
fn an_epoch_begins_behind_its_base_which_everybody_holds_for_stable() {
    let mut leader = in_epoch(0);
    assert_eq!(leader.pbft.decided(), SeqNo::new(20));
    assert_eq!(leader.pbft.stable(), SeqNo::new(20));
    assert_eq!(
        leader.propose('a'),
        ["log 0: proposal v0 s21 a", "send all after 0"]
    );
    let mut backup = in_epoch(1);
    assert_eq!(backup.proposal(20, 'x'), ["refused r0 v0 s20 BelowWindow"]);
    backup.decide(21, 'a');
    assert_eq!(backup.pbft.decided(), SeqNo::new(21));
    let evidence = backup.pbft.evidence();
    assert_eq!((evidence.stable, evidence.proof), (claim(20, 'b'), Vec::new()));
    let base = backup.pbft.base_records();
    assert!(
        base.is_empty(),
        "whoever reads the log knows where the epoch begins"
    );
}

#[test]
fn nothing_behind_the_last_decision_is_voted_on_or_decided_in_any_view() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(2, 'b');
    close(&mut backup, 1, 'a');
    for from in [2, 3] {
        backup.prepare(from, 2, 'b');
        backup.commit(from, 2, 'b');
    }
    assert_eq!(
        backup.pbft.decided(),
        SeqNo::ZERO,
        "s2 is committed and waits for s1"
    );
    backup.prepare(2, 1, 'a');
    backup.commit(2, 1, 'a');
    assert_eq!(backup.commit(3, 1, 'a'), ["decide s1 a"]);
    // What lies above the window is kept, in case it gets there: it never does.
    assert_eq!(backup.proposal(3, 'c'), NOTHING);
    assert_eq!(backup.prepare(2, 3, 'c'), NOTHING);
    // The next leader had not heard of the end: what it begins with behind it is void as well.
    let mut evidence = backup.pbft.leave_view(View::new(2));
    evidence.pre_prepared.retain(|placed| placed.seq > 1);
    assert_eq!(evidence.pre_prepared, [], "it is no evidence of anything");
    let said = backup.enter(2, claim(0, '0'), "abc");
    assert!(
        said.iter()
            .all(|line| !line.contains("s2") && !line.contains("s3")),
        "{said:?}"
    );
    assert_eq!(backup.pbft.decided(), SeqNo::new(1));
}

#[test]
fn a_leader_that_asks_for_the_end_proposes_nothing_behind_it() {
    let mut leader = Bench::new(4, 0);
    assert!(leader.pbft.free_slots() > 1);
    let change = frame(1, 1, Mode::Change, &[b"a request".to_vec()]);
    let closing = Batch {
        frames: vec![change],
        ..Batch::clone(&batch('a'))
    };
    leader
        .pbft
        .propose(Time::START, Arc::new(closing), &mut leader.out);
    assert_eq!(leader.pbft.free_slots(), 0);
}
