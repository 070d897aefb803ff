use bytes::Bytes;

use super::{Actor, Stage};
use crate::smr::types::NodeId;

/// Says nothing to replicas and clients.
pub(super) struct Silent;

impl Actor for Silent {
    fn send(&mut self, stage: &mut Stage<'_>, _: NodeId, _: &Bytes) {
        stage.hit();
    }

    fn reply(&mut self, stage: &mut Stage<'_>, _: &Bytes) -> Option<Bytes> {
        stage.hit();
        None
    }
}
