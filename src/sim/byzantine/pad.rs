use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open_system, padded};
use super::{Actor, Stage};
use crate::sim::keys::{CLUSTER, Keyring};
use crate::sim::{SimConfig, SimRng};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::{Authenticator, Frame, PrePrepare, RequestFrame, SyncMessage, SystemMessage};
use crate::smr::types::NodeId;

/// Sends each replica the same batches in other bytes: either frames, and now and then whole messages, with
/// bytes in front that nothing points to; or the faulty clients' frames, now with MACs and now signed. The
/// digests are the same everywhere: they cover what clients ask, and nothing else.
pub(super) struct Pad {
    /// Else it only sends frames in another form.
    pads: bool,
    frame_bytes_max: usize,
    batch_bytes_max: usize,
    /// The clients whose keys the liar has: those that are faulty as well.
    accomplices: std::ops::Range<u32>,
}

impl Pad {
    pub(super) fn new(rng: &mut SimRng, config: &SimConfig) -> Self {
        let first = config.honest_clients as u32;
        Self {
            pads: config.faulty_clients == 0 || rng.chance(40),
            frame_bytes_max: config.limits.frame_bytes_max,
            batch_bytes_max: config.limits.batch_bytes_max,
            accomplices: first..first + config.faulty_clients as u32,
        }
    }

    /// The batch with the same digest, in bytes of this recipient's own.
    fn pad(&self, stage: &mut Stage<'_>, truth: &PrePrepare) -> PrePrepare {
        let mut room = self.batch_bytes_max.saturating_sub(truth.frames.len());
        let mut lie = PrePrepare {
            ends: Vec::new(),
            frames: Vec::new(),
            ..truth.clone()
        };
        for frame in frames_of(truth) {
            let frame = self.in_another_form(stage, &frame).unwrap_or(frame);
            let most = match self.pads {
                true => self.frame_bytes_max.saturating_sub(frame.len()).min(room),
                false => 0,
            };
            let bytes = stage.rng.between(0, most as u64) as usize;
            room -= bytes;
            lie.frames.extend(std::iter::repeat_n(0, bytes));
            lie.frames.extend_from_slice(&frame);
            lie.ends.push(lie.frames.len() as u32);
        }
        lie
    }

    /// An accomplice's frame that had MACs, signed: as good, and shorter.
    fn in_another_form(&self, stage: &mut Stage<'_>, frame: &Bytes) -> Option<Bytes> {
        let digest_of = |body: &[u8]| Digester::new(CLUSTER).digest(Domain::RequestFrame, body);
        let checked = Frame::check(frame.clone(), usize::MAX, usize::MAX, digest_of).ok()?;
        let client = checked.key().client;
        if !self.accomplices.contains(&client.get()) || stage.rng.chance(50) {
            return None;
        }
        let key = Keyring::get().client(client);
        let signed = RequestFrame {
            body: checked.archived().body.to_vec(),
            authenticator: Authenticator::Signature(key.sign(Domain::RequestFrame, checked.digest())),
        };
        Some(signed.to_archive())
    }
}

impl Actor for Pad {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let lie = match open_system(message) {
            Some(SystemMessage::ProposalMessage(truth)) => {
                let lie = self.pad(stage, &truth);
                stage.close(OrderingMessage::PrePrepare(lie))
            }
            Some(SystemMessage::SyncMessage(SyncMessage::BatchResponse(truth))) => {
                let lie = self.pad(stage, &truth);
                stage.close_sync(SyncMessage::BatchResponse(lie))
            }
            // Who says nothing that is understood is as good as silent.
            _ if self.pads && stage.rng.chance(10) => {
                let lie = padded(stage.rng, message);
                return stage.lie(to, lie);
            }
            _ => return stage.pass(to, message.clone()),
        };
        let lie = match self.pads && stage.rng.chance(20) {
            true => padded(stage.rng, &lie),
            false => lie,
        };
        stage.lie(to, lie);
    }
}
