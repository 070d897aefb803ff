use std::collections::BTreeMap;

use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};
use crate::sim::{SimConfig, SimRng};
use crate::smr::messages::PrePrepare;
use crate::smr::types::NodeId;

/// Proposes its batches at other times, the same for all replicas, and votes for what it made of them: mostly
/// so little off that they are accepted, so that time would go back and forth.
pub(super) struct FalseTimes {
    /// How many of a hundred batches are from a time that nobody accepts.
    absurd_percent: u64,
    /// How far the others are off at most, in nanoseconds.
    swing: u64,
    /// By the digest of the first batch: the one in its place.
    others: BTreeMap<[u8; 32], PrePrepare>,
}

impl FalseTimes {
    pub(super) fn new(rng: &mut SimRng, config: &SimConfig) -> Self {
        let bound = config.clock_bound.as_nanos() as u64;
        Self {
            absurd_percent: rng.pick(&[0, 5, 50, 100]),
            swing: rng.pick(&[bound / 4, bound / 2, bound]),
            others: BTreeMap::new(),
        }
    }

    fn time(&self, rng: &mut SimRng, truth: u64) -> u64 {
        const YEAR: u64 = 365 * 86_400 * 1_000_000_000;
        if rng.chance(self.absurd_percent) {
            let (past, future) = (truth.saturating_sub(YEAR), truth.saturating_add(YEAR));
            return rng.pick(&[0, 1, past, future, u64::MAX]);
        }
        truth.saturating_sub(self.swing) + rng.between(0, 2 * self.swing)
    }
}

impl Actor for FalseTimes {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open(message) {
            Some(OrderingMessage::PrePrepare(truth)) => {
                if !self.others.contains_key(&truth.digest) {
                    let time = self.time(stage.rng, truth.time);
                    let other = stage.at_time(&truth, time, &frames_of(&truth));
                    self.others.insert(truth.digest, other);
                }
                let other = PrePrepare {
                    view: truth.view,
                    seq: truth.seq,
                    ..self.others[&truth.digest].clone()
                };
                stage.lie(to, stage.close(OrderingMessage::PrePrepare(other)));
            }
            Some(OrderingMessage::Votes(mut cast)) => {
                for vote in &mut cast {
                    if let Some(other) = self.others.get(&vote.digest) {
                        vote.digest = other.digest;
                    }
                }
                stage.pass(to, stage.votes(cast));
            }
            _ => stage.pass(to, message.clone()),
        }
    }
}
