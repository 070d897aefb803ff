use bytes::Bytes;

use super::stage::{open_view, sign_view_change};
use super::{Actor, Stage};
use crate::smr::messages::lengths::PRE_PREPARED_MAX;
use crate::smr::messages::{SlotDigest, ViewChange, ViewTransferMessage};
use crate::smr::types::NodeId;

/// Says in its view changes all that they have room for: what it pre-prepared, and other batches beside it
/// until each place of the window has as many as may be; in some that it prepared something everywhere.
/// Another view change for each replica, each valid: whoever leads the next view names one of them, and the
/// others have to get that one. When it is asked for one that is named it says the truth, and now and then
/// another lie.
pub(super) struct FullViewChanges {
    window: u64,
    /// The view it lied about last, and to whom.
    told: (u64, Vec<NodeId>),
}

impl FullViewChanges {
    pub(super) const fn new(window: u64) -> Self {
        Self {
            window,
            told: (0, Vec::new()),
        }
    }

    fn forge(&self, stage: &mut Stage<'_>, truth: &ViewChange) -> ViewChange {
        let mut forged = truth.clone();
        let (view, mark) = (truth.view.saturating_sub(1), stage.rng.below(256) as u8);
        let boasts = stage.rng.chance(30);
        forged.pre_prepared.clear();
        let until = truth.stable_seq.saturating_add(self.window);
        for seq in (truth.stable_seq..until).map(|before| before + 1) {
            let mut place: Vec<SlotDigest> = truth
                .pre_prepared
                .iter()
                .copied()
                .filter(|q| q.seq == seq)
                .collect();
            for number in 0..PRE_PREPARED_MAX as u8 {
                if place.len() < PRE_PREPARED_MAX {
                    let digest = [mark ^ number; 32];
                    place.retain(|placed| placed.digest != digest);
                    place.push(SlotDigest { seq, digest, view });
                }
            }
            place.sort_unstable();
            if boasts {
                forged.prepared.retain(|placed| placed.seq != seq);
                forged.prepared.push(place[0]);
            }
            forged.pre_prepared.append(&mut place);
        }
        forged.prepared.sort_unstable();
        sign_view_change(stage.node, forged)
    }
}

impl Actor for FullViewChanges {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(ViewTransferMessage::ViewChange(truth)) = open_view(message) else {
            return stage.pass(to, message.clone());
        };
        if truth.signer != stage.node.get() || truth.view == 0 {
            return stage.pass(to, message.clone());
        }
        if self.told.0 != truth.view {
            self.told = (truth.view, Vec::new());
        }
        if self.told.1.contains(&to) && stage.rng.chance(80) {
            return stage.pass(to, message.clone());
        }
        self.told.1.push(to);
        let forged = self.forge(stage, &truth);
        stage.lie(to, stage.close_view(ViewTransferMessage::ViewChange(forged)));
    }
}
