use bytes::Bytes;

use super::stage::{OrderingMessage, open};
use super::{Actor, Stage};
use crate::smr::messages::{Phase, Vote};
use crate::smr::types::NodeId;

/// Speaks of places and views far ahead, so that whoever keeps it runs out of memory.
pub(super) struct FutureBombs {
    window: u64,
}

impl FutureBombs {
    pub(super) const fn new(window: u64) -> Self {
        Self { window }
    }

    fn ahead(&self, stage: &mut Stage<'_>) -> u64 {
        let far = stage.rng.throw() >> 1;
        stage
            .rng
            .pick(&[self.window, self.window + 1, 3 * self.window, far, u64::MAX])
    }
}

impl Actor for FutureBombs {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        stage.pass(to, message.clone());
        match open(message) {
            Some(OrderingMessage::PrePrepare(mut proposal)) => {
                match stage.rng.chance(50) {
                    true => proposal.seq = proposal.seq.saturating_add(self.ahead(stage)),
                    false => {
                        proposal.view = stage
                            .rng
                            .pick(&[proposal.view.saturating_add(stage.n as u64), u64::MAX])
                    }
                }
                stage.lie(to, stage.close(OrderingMessage::PrePrepare(proposal)));
            }
            Some(OrderingMessage::Votes(cast)) => {
                let Some(first) = cast.first().copied() else {
                    return;
                };
                let mut bombs = Vec::new();
                for phase in [Phase::Prepare, Phase::Commit] {
                    for _ in 0..8 {
                        let seq = first.seq.saturating_add(self.ahead(stage));
                        let view = stage.rng.pick(&[
                            first.view,
                            first.view,
                            first.view.saturating_add(1),
                            1 << 40,
                            u64::MAX,
                        ]);
                        bombs.push(Vote {
                            phase,
                            view,
                            seq,
                            ..first
                        });
                    }
                }
                stage.lie(to, stage.votes(bombs));
            }
            _ => {}
        }
    }
}
