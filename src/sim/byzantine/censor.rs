use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};
use crate::sim::keys::CLUSTER;
use crate::sim::{SimConfig, SimRng};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::Frame;
use crate::smr::types::{ClientId, NodeId};

/// Proposes no frames of one client.
pub(super) struct Censor {
    client: ClientId,
}

impl Censor {
    pub(super) fn new(rng: &mut SimRng, config: &SimConfig) -> Self {
        Self {
            client: ClientId::new(rng.below(config.honest_clients as u64) as u32),
        }
    }
}

impl Actor for Censor {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(OrderingMessage::PrePrepare(proposal)) = open(message) else {
            return stage.pass(to, message.clone());
        };
        let digester = Digester::new(CLUSTER);
        let client_of = |bytes: &Bytes| {
            let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
            let frame = Frame::check(bytes.clone(), usize::MAX, usize::MAX, digest_of);
            frame.ok().map(|frame| frame.key().client)
        };
        let mut frames = frames_of(&proposal);
        let count = frames.len();
        frames.retain(|frame| client_of(frame) != Some(self.client));
        if frames.len() == count {
            return stage.pass(to, message.clone());
        }
        stage.lie(
            to,
            stage.close(OrderingMessage::PrePrepare(stage.with_frames(&proposal, &frames))),
        );
    }
}
