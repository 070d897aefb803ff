use bytes::Bytes;

use super::stage::open_sync;
use super::{Actor, Stage};
use crate::smr::messages::{
    BatchRef, LogTransferMessage, PieceRange, STATUS_SLOTS, StateTransferMessage, Status, SyncMessage,
};
use crate::smr::types::Epoch;

/// Questions that one status that is heard is worth.
const QUESTIONS: u64 = 24;
/// Questions in all: answers make a run long.
const QUESTIONS_MAX: u64 = 3000;

/// Asks everybody for everything that they have, again and again, as if it lacked it.
#[derive(Default)]
pub(super) struct Leech {
    asked: u64,
}

impl Actor for Leech {
    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        let Some(SyncMessage::Status(heard)) = open_sync(message) else {
            return;
        };
        for _ in 0..QUESTIONS.min(QUESTIONS_MAX - self.asked) {
            self.asked += 1;
            let to = stage.others()[stage.rng.below(stage.n as u64 - 1) as usize];
            let question = ask(stage, &heard);
            stage.lie(to, question);
        }
    }
}

/// A question of one that lacks what the sender of this status has.
fn ask(stage: &mut Stage<'_>, heard: &Status) -> Bytes {
    let after = heard.decided.saturating_sub(stage.rng.between(1, 8));
    let (cluster, epoch) = (stage.cluster, Epoch::ZERO);
    match stage.rng.below(12) {
        0 => LogTransferMessage::AskDecided { after }.encode(cluster, epoch),
        1 => {
            let (first, count) = (after.saturating_add(1), 4);
            LogTransferMessage::FetchDecisions { first, count }.encode(cluster, epoch)
        }
        2 => {
            let digest = [0; 32];
            let wanted = (1..9).map(|ahead| BatchRef {
                seq: after.saturating_add(ahead),
                digest,
            });
            stage.close_sync(SyncMessage::FetchBatches(wanted.collect()))
        }
        3..6 => StateTransferMessage::Fetch(PieceRange {
            seq: heard.stable,
            piece: stage.rng.pick(&[PieceRange::HEAD, 0]),
            offset: 0,
            until: u32::MAX,
        })
        .encode(cluster, epoch),
        _ => stage.close_sync(SyncMessage::Status(Status {
            decided: after,
            stable: heard.stable.min(after),
            asks: true,
            slots: vec![0; STATUS_SLOTS],
            ..heard.clone()
        })),
    }
}
