//! States that a later light checkpoint proves: not every checkpoint includes the state.

use super::*;
use crate::smr::messages::{CoveringCheckpoint, LightCheckpoint};

/// The light checkpoint that correct replicas take at `seq`.
fn light(seq: u64) -> LightCheckpoint {
    let taken = executed(seq, THIRD)
        .into_iter()
        .rev()
        .find_map(|event| match event {
            ExecutionEvent::Checkpoint(taken) => Some(taken),
            _ => None,
        });
    let light = taken.and_then(|taken| taken.light).expect("it includes no state");
    assert_eq!(light.seq.get(), seq);
    light
}

fn claim_of(light: &LightCheckpoint) -> CheckpointClaim {
    light.claim(&Digester::new(CLUSTER))
}

/// What a correct replica offers that has the state of this checkpoint, and the signatures of the light one.
fn covered(checkpoint: &Checkpoint, light: &LightCheckpoint) -> CheckpointOffer {
    CheckpointOffer {
        seq: checkpoint.claim.seq.get(),
        digest: *checkpoint.claim.digest.as_bytes(),
        cover: Some(CoveringCheckpoint {
            seq: light.seq.get(),
            chain: *light.chain.head().as_bytes(),
        }),
        proof: certificate(claim_of(light)),
    }
}

fn sparse() -> Bench {
    let log = ChainedLog::new(Digester::new(CLUSTER)).keep_for_peers(0);
    Bench::with(THIRD, log.on_disk(true))
}

fn say(bench: &mut Bench, from: u16, message: StateTransferMessage) {
    bench.hear(from, &message.encode(CLUSTER, Epoch::ZERO));
}

/// The offers that were made since the last call.
fn offers(bench: &mut Bench) -> Vec<CheckpointOffer> {
    let sent = std::mem::take(&mut bench.sent);
    sent.into_iter()
        .filter_map(|(_, message)| match message {
            SystemMessage::StateTransferMessage(StateTransferMessage::Offer(offer)) => Some(offer),
            _ => None,
        })
        .collect()
}

/// Decides up to `last`; a quorum signs the light checkpoints on the way, and of those with the state nobody
/// hears.
fn go_on(bench: &mut Bench, last: u64) {
    for seq in bench.replica.ordering().decided().get() + 1..=last {
        bench.decide(seq..=seq);
        if seq % PERIOD == 0 && seq % (3 * PERIOD) != 0 {
            bench.sign(claim_of(&light(seq)));
        }
    }
}

#[test]
fn a_state_is_installed_that_only_a_later_light_checkpoint_proves() {
    let mut bench = sparse();
    let (state, cover) = (checkpoint_of(30, THIRD), light(50));
    bench.fall_behind(55);
    for donor in 1..3 {
        say(
            &mut bench,
            donor,
            StateTransferMessage::Offer(covered(&state, &cover)),
        );
    }
    bench.wait_ms(60);
    bench.serve(&state);
    assert!(bench.told().contains(&"installed 30".to_string()));
    assert_eq!(bench.replica.ordering().decided(), SeqNo::new(30));
    assert_eq!(
        bench.replica.ordering().stable(),
        SeqNo::new(50),
        "what was signed is stable"
    );
    bench.decide(31..=55);
    assert_eq!(bench.executor.executed(), SeqNo::new(55));
    // It can prove it to others as it was proved to it.
    bench.sent.clear();
    say(&mut bench, 3, StateTransferMessage::AskOffer { after: 0 });
    assert_eq!(offers(&mut bench), [covered(&state, &cover)]);
}

#[test]
fn a_cover_that_was_not_signed_or_names_another_state_proves_nothing() {
    let (state, cover) = (checkpoint_of(30, THIRD), light(50));
    let good = covered(&state, &cover);
    let with = |seq: u64, chain: [u8; 32]| CheckpointOffer {
        cover: Some(CoveringCheckpoint { seq, chain }),
        ..good.clone()
    };
    let chain = *cover.chain.head().as_bytes();
    let lies = [
        ("another place", with(40, chain)),
        ("a place before the state", with(20, chain)),
        ("the last place there is", with(u64::MAX, chain)),
        ("another history", with(50, [7; 32])),
        (
            "no cover",
            CheckpointOffer {
                cover: None,
                ..good.clone()
            },
        ),
        (
            "another state",
            CheckpointOffer {
                digest: [7; 32],
                ..good.clone()
            },
        ),
        (
            "another state's place",
            CheckpointOffer {
                seq: 31,
                ..good.clone()
            },
        ),
        (
            "one signer's word",
            CheckpointOffer {
                proof: vec![good.proof[0]; 3],
                ..good.clone()
            },
        ),
        (
            "nobody's word",
            CheckpointOffer {
                proof: Vec::new(),
                ..good.clone()
            },
        ),
    ];
    for (lie, offer) in lies {
        let mut bench = sparse();
        bench.fall_behind(55);
        for donor in 1..3 {
            say(&mut bench, donor, StateTransferMessage::Offer(offer.clone()));
        }
        bench.wait_ms(60);
        assert!(bench.asked().is_empty(), "{lie} is believed");
    }
}

#[test]
fn a_light_checkpoint_passed_off_as_a_state_leads_nowhere() {
    let mut bench = sparse();
    let (state, cover) = (checkpoint_of(30, THIRD), light(50));
    bench.fall_behind(55);
    let claim = claim_of(&cover);
    // It was signed, but no contents fit it.
    let lie = CheckpointOffer {
        seq: claim.seq.get(),
        digest: *claim.digest.as_bytes(),
        cover: None,
        proof: certificate(claim),
    };
    say(&mut bench, 1, StateTransferMessage::Offer(lie));
    bench.wait_ms(60);
    for donor in bench.asked() {
        bench.send_chunks(donor, &state, 0..2);
        let mut false_head = state.chunks[0].to_vec();
        false_head[1..9].copy_from_slice(&50_u64.to_le_bytes());
        let chunk = ChunkOf {
            seq: 50,
            last: true,
            bytes: false_head,
        };
        say(&mut bench, donor, StateTransferMessage::Chunk(chunk));
    }
    assert_eq!(
        bench.replica.ordering().decided(),
        SeqNo::ZERO,
        "nothing was gone on from"
    );
    for donor in 2..4 {
        say(
            &mut bench,
            donor,
            StateTransferMessage::Offer(covered(&state, &cover)),
        );
    }
    bench.wait_ms(60);
    bench.serve(&state);
    assert!(bench.told().contains(&"installed 30".to_string()));
}

#[test]
fn the_last_state_is_offered_under_the_light_checkpoint_that_names_it() {
    let mut bench = sparse();
    go_on(&mut bench, 55);
    say(&mut bench, 3, StateTransferMessage::AskOffer { after: 0 });
    let state = checkpoint_of(30, THIRD);
    let (offered, expected) = (offers(&mut bench), covered(&state, &light(40)));
    assert_eq!(offered.len(), 1);
    assert_eq!(
        (offered[0].claim(), offered[0].cover),
        (expected.claim(), expected.cover)
    );
    say(&mut bench, 3, StateTransferMessage::AskOffer { after: 30 });
    assert_eq!(
        offers(&mut bench),
        [],
        "a light checkpoint brings nobody anything"
    );
    // What is signed itself needs no other.
    bench.sign(state.claim);
    go_on(&mut bench, 60);
    bench.sign(checkpoint_of(60, THIRD).claim);
    say(&mut bench, 3, StateTransferMessage::AskOffer { after: 30 });
    let offered = offers(&mut bench);
    assert_eq!(offered.len(), 1);
    assert_eq!((offered[0].seq, offered[0].cover), (60, None));
}

#[test]
fn the_log_is_cut_at_the_state_and_never_at_a_light_checkpoint() {
    let mut bench = sparse();
    go_on(&mut bench, 29);
    let cuts = |bench: &mut Bench| -> Vec<String> {
        bench
            .told()
            .into_iter()
            .filter(|told| told.starts_with("cut"))
            .collect()
    };
    assert_eq!(
        cuts(&mut bench),
        Vec::<String>::new(),
        "there is no state to go on from"
    );
    go_on(&mut bench, 59);
    assert_eq!(cuts(&mut bench), ["cut 30"]);
}
