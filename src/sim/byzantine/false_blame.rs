use bytes::Bytes;

use super::stage::open_sync;
use super::{Actor, Stage};
use crate::smr::messages::{STATUS_DISPUTES, Status, SyncMessage};
use crate::smr::types::NodeId;

/// Names as many clients as it can as ones whose MACs cost it a view.
pub(super) struct FalseBlame;

impl Actor for FalseBlame {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open_sync(message) {
            Some(SyncMessage::Status(status)) => {
                let disputed = (0..STATUS_DISPUTES as u32).collect();
                let status = Status { disputed, ..status };
                stage.lie(to, stage.close_sync(SyncMessage::Status(status)));
            }
            _ => stage.pass(to, message.clone()),
        }
    }
}
