use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open_system};
use super::{Actor, Stage};
use crate::sim::SimRng;
use crate::smr::messages::{Authenticator, Checked, PrePrepare, RequestFrame, SyncMessage, SystemMessage};
use crate::smr::types::NodeId;

/// Makes MACs in clients' frames wrong for those to whom it proposes them, or sends them as they asked: what
/// the digest covers stays as it is.
pub(super) struct SpoilMacs {
    percent: u64,
}

impl SpoilMacs {
    pub(super) fn new(rng: &mut SimRng) -> Self {
        Self {
            percent: rng.pick(&[10, 60, 100]),
        }
    }
}

/// The frame with another MAC for `to`; as it is, if it is signed.
fn spoil(frame: &Bytes, to: NodeId) -> Bytes {
    let Ok(checked) = Checked::<RequestFrame>::new(frame.clone()) else {
        return frame.clone();
    };
    let opened = rkyv::deserialize::<RequestFrame, rkyv::rancor::Failure>(&*checked);
    let Ok(mut opened) = opened else {
        return frame.clone();
    };
    match &mut opened.authenticator {
        Authenticator::Macs(macs) => {
            if let Some(mac) = macs.get_mut(to.index()) {
                mac[0] ^= 1;
            }
            opened.to_archive()
        }
        Authenticator::Signature(_) => frame.clone(),
    }
}

fn spoil_all(stage: &Stage<'_>, to: NodeId, message: &PrePrepare) -> PrePrepare {
    let frames: Vec<Bytes> = frames_of(message).iter().map(|frame| spoil(frame, to)).collect();
    PrePrepare {
        digest: message.digest,
        ..stage.with_frames(message, &frames)
    }
}

impl Actor for SpoilMacs {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let spoiled = match open_system(message) {
            Some(SystemMessage::ProposalMessage(proposal)) => {
                stage.close(OrderingMessage::PrePrepare(spoil_all(stage, to, &proposal)))
            }
            Some(SystemMessage::SyncMessage(SyncMessage::BatchResponse(batch))) => {
                stage.close_sync(SyncMessage::BatchResponse(spoil_all(stage, to, &batch)))
            }
            _ => return stage.pass(to, message.clone()),
        };
        match stage.rng.chance(self.percent) {
            true => stage.lie(to, spoiled),
            false => stage.pass(to, message.clone()),
        }
    }
}
