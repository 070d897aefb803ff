use std::time::Duration;

use bytes::Bytes;

use super::stage::{OrderingMessage, open};
use super::{Actor, Stage};
use crate::sim::{SimConfig, SimRng};

use crate::smr::types::NodeId;

/// As a leader, proposes just before the others lose patience with it.
pub(super) struct JustInTime {
    by: Duration,
}

impl JustInTime {
    pub(super) fn new(rng: &mut SimRng, config: &SimConfig) -> Self {
        let percent = rng.between(50, 95) as u32;
        Self {
            by: config.timings.timeout * percent / 100,
        }
    }
}

impl Actor for JustInTime {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open(message) {
            Some(OrderingMessage::PrePrepare(_)) => {
                stage.hit();
                stage.pass_later(to, message.clone(), self.by);
            }
            _ => stage.pass(to, message.clone()),
        }
    }
}
