use bytes::Bytes;

use super::{Actor, Stage};
use crate::messages::archived::ArchivedClientReply;
use crate::messages::{Checked, ClientReply, ReplyBody, ReplyBuilder};
use crate::sim::keys::CLUSTER;
use crate::types::{ClientId, Epoch, FrameSeq, View};

/// Answers clients with results that are not the state's.
pub(super) struct LyingReplies;

fn lie(message: &Bytes) -> Option<Bytes> {
    let checked = Checked::<ClientReply>::body_of(message).ok()?;
    let ArchivedClientReply::Results { view, body } = &*checked else {
        return None;
    };
    let truth = Checked::<ReplyBody>::new(checked.slice_of(body.as_slice())).ok()?;
    let mut builder = ReplyBuilder::default();
    for _ in 0..truth.ends.len() {
        builder
            .buffer()
            .extend_from_slice(&[1, 0xbb, 0xbb, 0xbb, 0xbb, 0, 0, 0, 0]);
        builder.end_result();
    }
    let (client, sequence) = (truth.client.to_native(), truth.sequence.to_native());
    let body = builder.finish(ClientId::new(client), FrameSeq::new(sequence));
    Some(ClientReply::results(
        CLUSTER,
        Epoch::ZERO,
        View::new(view.to_native()),
        &body,
    ))
}

impl Actor for LyingReplies {
    fn reply(&mut self, stage: &mut Stage<'_>, message: &Bytes) -> Option<Bytes> {
        let lie = lie(message)?;
        stage.hit();
        Some(lie)
    }
}
