use bytes::Bytes;

use super::{Actor, Stage};
use crate::smr::types::NodeId;

/// Messages that are kept to be sent again.
const KEPT: usize = 64;

/// Sends everything twice, and old messages again, to whomever.
#[derive(Default)]
pub(super) struct Replay {
    kept: Vec<Bytes>,
}

impl Actor for Replay {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        stage.pass(to, message.clone());
        stage.lie(to, message.clone());
        if let Some(old) = self.kept.get(stage.rng.below(KEPT as u64) as usize) {
            stage.lie(to, old.clone());
        }
        match self.kept.len() < KEPT {
            true => self.kept.push(message.clone()),
            false => self.kept[stage.rng.below(KEPT as u64) as usize] = message.clone(),
        }
    }
}
