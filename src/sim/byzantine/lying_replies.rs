use bytes::Bytes;

use super::{Actor, Stage};
use crate::sim::keys::CLUSTER;
use crate::smr::messages::archived::ArchivedClientReply;
use crate::smr::messages::{Checked, ClientReply, ReplyBody, ReplyBuilder, StateRead};
use crate::smr::types::{Epoch, SeqNo, View};

/// Answers clients with results that are not the state's.
pub(super) struct LyingReplies;

fn lie(message: &Bytes) -> Option<Bytes> {
    let checked = Checked::<ClientReply>::body_of(message).ok()?;
    let ArchivedClientReply::Results {
        view,
        whole,
        begun,
        body,
    } = &*checked
    else {
        return None;
    };
    // It says that it has read the state that it should have.
    let state = StateRead {
        whole: SeqNo::new(whole.to_native()),
        begun: SeqNo::new(begun.to_native()),
    };
    let truth = Checked::<ReplyBody>::new(checked.slice_of(body.as_slice())).ok()?;
    let mut builder = ReplyBuilder::default();
    let frame = truth.frame();
    // Where the client stands is told in session 0: as high as can be, so that no number is left.
    let lie = match frame.key.sequence.session() {
        0 => &[0xff; 8][..],
        _ => &[1, 0xbb, 0xbb, 0xbb, 0xbb, 0, 0, 0, 0],
    };
    for _ in 0..truth.ends.len() {
        builder.buffer().extend_from_slice(lie);
        builder.end_result(None);
    }
    let body = builder.finish(&frame);
    Some(ClientReply::read_results(
        CLUSTER,
        Epoch::ZERO,
        View::new(view.to_native()),
        state,
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
