use std::time::Duration;

use bytes::Bytes;

use super::{Actor, Stage};
use crate::sim::SimRng;
use crate::smr::types::NodeId;

/// Says everything, late.
pub(super) struct Slow {
    by: Duration,
}

impl Slow {
    pub(super) fn new(rng: &mut SimRng) -> Self {
        Self {
            by: rng.millis(10, 800),
        }
    }
}

impl Actor for Slow {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        stage.hit();
        stage.pass_later(to, message.clone(), self.by);
    }
}
