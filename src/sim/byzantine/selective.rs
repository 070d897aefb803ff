use bytes::Bytes;

use super::{Actor, Stage};
use crate::sim::SimRng;
use crate::smr::types::NodeId;

/// Speaks to some replicas and never to the others.
pub(super) struct Selective {
    spoken_to: Vec<bool>,
}

impl Selective {
    pub(super) fn new(rng: &mut SimRng, n: usize) -> Self {
        let percent = rng.pick(&[30, 60, 90]);
        Self {
            spoken_to: (0..n).map(|_| rng.chance(percent)).collect(),
        }
    }
}

impl Actor for Selective {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match self.spoken_to[to.index()] {
            true => stage.pass(to, message.clone()),
            false => stage.hit(),
        }
    }
}
