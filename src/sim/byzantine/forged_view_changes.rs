use bytes::Bytes;

use super::stage::{open_sync, open_view, sign_view_change};
use super::{Actor, Stage};
use crate::smr::messages::{SignedCheckpoint, SlotDigest, SyncMessage, ViewChange, ViewTransferMessage};
use crate::smr::types::{NodeId, Quorum};

/// Says in view changes what never was and hides what was, different things to different replicas; signs for
/// others; sends old ones again; and asks for views that nobody wants, some of them far ahead.
pub(super) struct ForgedViewChanges {
    window: u64,
    old: Option<ViewChange>,
}

impl ForgedViewChanges {
    pub(super) const fn new(window: u64) -> Self {
        Self { window, old: None }
    }

    fn forge(&self, stage: &mut Stage<'_>, truth: &ViewChange) -> ViewChange {
        let mut forged = truth.clone();
        match stage.rng.below(10) {
            0..=6 => forged = forge(stage, self.window, truth),
            // In another's name.
            7 => {
                forged.signer = (forged.signer + 1) % stage.n as u16;
                return forged;
            }
            // An old one, made to look new.
            8 => {
                let mut old = self.old.clone().unwrap_or(forged);
                old.view = truth.view;
                return old;
            }
            // The order of places turned around, one of them twice.
            _ => {
                forged.pre_prepared.reverse();
                forged
                    .prepared
                    .extend_from_slice(&truth.prepared[..truth.prepared.len().min(1)]);
            }
        }
        sign_view_change(stage.node, forged)
    }
}

/// What a liar says it saw: less than it did, or more.
pub(super) fn forge(stage: &mut Stage<'_>, window: u64, truth: &ViewChange) -> ViewChange {
    let mut forged = truth.clone();
    match stage.rng.below(8) {
        // Nothing was ever prepared.
        0 => forged.prepared.clear(),
        1 => {
            forged.prepared.clear();
            forged.pre_prepared.clear();
        }
        // Something else was, lately.
        2 => boast(&mut forged, window, [0x77; 32]),
        // The null request was: a batch that everybody has.
        3..=5 => boast(&mut forged, window, [0; 32]),
        // What was proposed first was, and nothing that came after it.
        6 => {
            forged.prepared = truth.pre_prepared.clone();
            forged.prepared.sort_by_key(|placed| (placed.seq, placed.view));
            forged.prepared.dedup_by_key(|placed| placed.seq);
        }
        // A checkpoint that only the liar has signed, as often as it takes, or in the names of others.
        _ => {
            forged.stable_seq = forged.stable_seq.saturating_add(window);
            forged.stable_digest = [0x55; 32];
            let (own, in_others_names) = (stage.node.get(), stage.rng.chance(50));
            let made_up = |signer| SignedCheckpoint {
                seq: forged.stable_seq,
                digest: forged.stable_digest,
                signer: if in_others_names { signer } else { own },
                signature: [5; 64],
            };
            let quorum = Quorum::of(stage.n).map_or(stage.n, Quorum::quorum);
            forged.stable_proof = (0..).take(quorum).map(made_up).collect();
            forged.prepared.clear();
            forged.pre_prepared.clear();
        }
    }
    sign_view_change(stage.node, forged)
}

/// Claims other batches for every place that it speaks of, and for the next one.
fn boast(forged: &mut ViewChange, window: u64, digest: [u8; 32]) {
    let view = forged.view.saturating_sub(1);
    let last = forged
        .prepared
        .last()
        .map_or(forged.stable_seq, |placed| placed.seq);
    for placed in &mut forged.prepared {
        (placed.digest, placed.view) = (digest, view);
    }
    if last < forged.stable_seq.saturating_add(window) {
        let seq = last + 1;
        forged.prepared.push(SlotDigest { seq, digest, view });
    }
    forged.pre_prepared.clone_from(&forged.prepared);
}

impl Actor for ForgedViewChanges {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(ViewTransferMessage::ViewChange(truth)) = open_view(message) else {
            return stage.pass(to, message.clone());
        };
        let forged = self.forge(stage, &truth);
        stage.lie(to, stage.close_view(ViewTransferMessage::ViewChange(forged)));
        if stage.rng.chance(30) {
            stage.pass(to, message.clone());
        }
        self.old = Some(truth);
    }

    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        // Without being asked, now and then: everybody's status says which view comes next.
        let Some(SyncMessage::Status(status)) = open_sync(message) else {
            return;
        };
        if !stage.rng.chance(4) {
            return;
        }
        let next = status.view.saturating_add(1);
        let unasked = ViewChange {
            view: stage
                .rng
                .pick(&[next, next, next.saturating_add(1), 1 << 40, u64::MAX]),
            stable_seq: 0,
            stable_digest: [0; 32],
            stable_proof: Vec::new(),
            prepared: Vec::new(),
            pre_prepared: Vec::new(),
            signer: stage.node.get(),
            signature: [0; 64],
        };
        let unasked = sign_view_change(stage.node, unasked);
        let unasked = stage.close_view(ViewTransferMessage::ViewChange(unasked));
        for to in stage.others() {
            stage.lie(to, unasked.clone());
        }
    }
}
