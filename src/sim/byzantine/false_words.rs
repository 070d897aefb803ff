use bytes::Bytes;

use super::stage::open_sync;
use super::{Actor, Stage};
use crate::smr::messages::{BatchRef, STATUS_SLOTS, SyncMessage, ViewTransferMessage};
use crate::smr::types::NodeId;

/// Tells those that lag behind of decisions that never were, answers fetches with other batches, and
/// describes itself as being wherever it is not, so that others send and fetch for nothing.
pub(super) struct FalseWords;

impl Actor for FalseWords {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let mut said = match open_sync(message) {
            Some(said) => said,
            None => return stage.pass(to, message.clone()),
        };
        match &mut said {
            SyncMessage::Decisions(decisions) => {
                for decision in decisions {
                    decision.digest[stage.rng.below(32) as usize] ^= 1;
                }
            }
            SyncMessage::BatchResponse(batch) => match stage.rng.below(3) {
                0 => batch.digest[0] ^= 1,
                1 => batch.seq = batch.seq.wrapping_add(1),
                _ => {
                    batch.frames.clear();
                    batch.ends.clear();
                }
            },
            SyncMessage::Status(status) => {
                status.asks = true;
                match stage.rng.below(4) {
                    0 => (status.decided, status.stable) = (0, 0),
                    1 => (status.decided, status.stable) = (u64::MAX - 1, u64::MAX - 1),
                    2 => status.view = u64::MAX,
                    _ => status.slots = vec![0; STATUS_SLOTS],
                }
            }
            SyncMessage::FetchBatches(wanted) => wanted.reverse(),
            SyncMessage::Stable(proof) => match stage.rng.below(3) {
                0 => proof.truncate(1),
                1 => proof.iter_mut().for_each(|signed| signed.digest[0] ^= 1),
                _ => proof.iter_mut().for_each(|signed| signed.seq += 1),
            },
            _ => return stage.pass(to, message.clone()),
        }
        stage.lie(to, stage.close_sync(said));
    }

    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        let Some(SyncMessage::Status(status)) = open_sync(message) else {
            return;
        };
        let made_up = |step: u64| BatchRef {
            seq: status.decided.saturating_add(step),
            digest: [step as u8; 32],
        };
        let made_up: Vec<BatchRef> = (1..=8).map(made_up).collect();
        let to = stage.others()[stage.rng.below(stage.n as u64 - 1) as usize];
        let lie = match stage.rng.below(6) {
            0..3 => stage.close_sync(SyncMessage::Decisions(made_up)),
            3..5 => stage.close_sync(SyncMessage::FetchBatches(made_up)),
            _ => {
                let view = status.view.saturating_add(stage.rng.below(3));
                stage.close_view(ViewTransferMessage::Complaint(view))
            }
        };
        stage.lie(to, lie);
    }
}
