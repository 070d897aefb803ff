use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};
use crate::smr::execution::apps::kv;
use crate::smr::messages::{Authenticator, FrameBuilder, Mode, RequestFrame};
use crate::smr::types::{ClientId, FrameSeq, NodeId};

/// Proposes frames in the names of clients that never made them.
pub(super) struct Fabricate;

impl Actor for Fabricate {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(OrderingMessage::PrePrepare(proposal)) = open(message) else {
            return stage.pass(to, message.clone());
        };
        if proposal.seq % 3 != 1 {
            return stage.pass(to, message.clone());
        }
        let mut builder = FrameBuilder::default();
        let operation = kv::put(b"k0", &u64::MAX.to_le_bytes()).expect("the key is short");
        builder.push(&operation).expect("one operation fits");
        let sequence = FrameSeq::new(proposal.seq.saturating_add(1_000_000));
        let frame = RequestFrame {
            body: builder.finish(ClientId::new(0), sequence, Mode::Ordered),
            // The same one for everybody.
            authenticator: match proposal.digest[0] % 2 {
                0 => Authenticator::Signature([1; 64]),
                _ => Authenticator::Macs(vec![[0; 16]; stage.n]),
            },
        };
        let mut frames = frames_of(&proposal);
        frames.push(frame.to_archive());
        stage.lie(
            to,
            stage.close(OrderingMessage::PrePrepare(stage.with_frames(&proposal, &frames))),
        );
    }
}
