use bytes::Bytes;

use super::stage::{frames_of, open_system};
use super::{Actor, Stage};
use crate::smr::messages::{
    LogTransferMessage, PrePrepare, SignedCheckpoint, StateTransferMessage, SyncMessage, SystemMessage,
};
use crate::smr::types::{Epoch, NodeId};

/// Gives those that catch up what never was: other decisions, whole batches that were decided nowhere,
/// checkpoints that nobody signed, and pieces of states with a bit turned. Now and then the truth, to be
/// asked again.
pub(super) struct FalseTransfers;

impl Actor for FalseTransfers {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let said = open_system(message).filter(|_| stage.rng.chance(60));
        let lie = match said {
            Some(SystemMessage::LogTransferMessage(LogTransferMessage::Decided {
                after,
                first,
                mut digests,
            })) => {
                let place = stage.rng.below(digests.len() as u64) as usize;
                if let Some(digest) = digests.get_mut(place) {
                    digest[0] ^= 1;
                }
                let lie = LogTransferMessage::Decided {
                    after,
                    first,
                    digests,
                };
                lie.encode(stage.cluster, Epoch::ZERO)
            }
            Some(SystemMessage::StateTransferMessage(StateTransferMessage::Offer(mut offer))) => {
                match stage.rng.below(3) {
                    0 => offer.digest[0] ^= 1,
                    1 => offer.proof.truncate(1),
                    _ => {
                        offer.seq += 1;
                        let own = SignedCheckpoint {
                            seq: offer.seq,
                            digest: offer.digest,
                            signer: stage.node.get(),
                            signature: [7; 64],
                        };
                        offer.proof = vec![own; stage.n];
                    }
                }
                StateTransferMessage::Offer(offer).encode(stage.cluster, Epoch::ZERO)
            }
            Some(SystemMessage::StateTransferMessage(StateTransferMessage::Chunk(mut chunk))) => {
                let place = stage.rng.below(chunk.bytes.len() as u64) as usize;
                if let Some(byte) = chunk.bytes.get_mut(place) {
                    *byte ^= 1 << stage.rng.below(8);
                }
                StateTransferMessage::Chunk(chunk).encode(stage.cluster, Epoch::ZERO)
            }
            Some(SystemMessage::SyncMessage(SyncMessage::BatchResponse(batch))) => {
                let batch = other_batch(stage, &batch);
                stage.close_sync(SyncMessage::BatchResponse(batch))
            }
            _ => return stage.pass(to, message.clone()),
        };
        stage.lie(to, lie);
    }
}

/// A batch as sound as the true one, with the digest that belongs to it.
fn other_batch(stage: &Stage<'_>, truth: &PrePrepare) -> PrePrepare {
    let mut frames = frames_of(truth);
    match frames.len() {
        0 | 1 => frames.clear(),
        _ => frames.reverse(),
    }
    stage.with_frames(truth, &frames)
}
