use std::collections::BTreeMap;

use bytes::Bytes;

use super::forged_view_changes::forge;
use super::stage::{open_view, sign_new_view};
use super::{Actor, Stage};
use crate::messages::{NewView, ViewChange, ViewTransferMessage};
use crate::types::NodeId;

/// As the leader of a view that begins, leaves out what was prepared: chooses among the view changes, says less in its own,
/// alters others', counts one twice, takes too few. Different new views for different replicas; or none for anybody, so that the
/// next view begins with what this one left.
pub(super) struct OmittingNewView {
    window: u64,
    /// Everybody's latest view change.
    heard: BTreeMap<u16, ViewChange>,
    /// The view that was begun last, and whether nobody hears of it.
    latest: Option<(u64, bool)>,
}

impl OmittingNewView {
    pub(super) const fn new(window: u64) -> Self {
        Self {
            window,
            heard: BTreeMap::new(),
            latest: None,
        }
    }

    fn is_withheld(&mut self, stage: &mut Stage<'_>, view: u64) -> bool {
        match self.latest {
            Some((latest, is_withheld)) if latest == view => is_withheld,
            _ => {
                let is_withheld = stage.dice.chance(50);
                self.latest = Some((view, is_withheld));
                is_withheld
            }
        }
    }

    /// So many view changes that saw as little as possible, our own, which lies, among them.
    fn least(&self, stage: &mut Stage<'_>, truth: &NewView, count: usize) -> Vec<ViewChange> {
        let own = stage.node.get();
        let all = self.heard.values().filter(|held| held.view == truth.view);
        let mut all: Vec<ViewChange> = all.filter(|held| held.signer != own).cloned().collect();
        all.sort_by_key(|held| held.prepared.len());
        all.truncate(count.saturating_sub(1));
        let ours = truth.view_changes.iter().find(|held| held.signer == own);
        all.extend(ours.map(|ours| forge(stage, self.window, ours)));
        all
    }

    fn forge(&self, stage: &mut Stage<'_>, truth: &NewView) -> NewView {
        let mut forged = truth.clone();
        let count = truth.view_changes.len();
        match stage.dice.below(7) {
            // A quorum, and one less.
            0 | 1 => forged.view_changes = self.least(stage, truth, count),
            4 | 5 => forged.view_changes = self.least(stage, truth, count - 1),
            // Others' words altered.
            2 => forged.view_changes.iter_mut().for_each(|held| {
                held.prepared.clear();
                held.pre_prepared.clear();
            }),
            // One replica counted twice.
            3 => {
                forged.view_changes.pop();
                forged.view_changes.extend(truth.view_changes.first().cloned());
            }
            // Too few.
            _ => forged.view_changes.truncate(count - 1),
        }
        sign_new_view(stage.node, forged)
    }
}

impl Actor for OmittingNewView {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open_view(message) {
            Some(ViewTransferMessage::NewView(truth)) if truth.signer == stage.node.get() => {
                if self.is_withheld(stage, truth.view) {
                    return stage.hit();
                }
                let forged = self.forge(stage, &truth);
                stage.lie(to, stage.close_view(ViewTransferMessage::NewView(forged)));
            }
            _ => stage.pass(to, message.clone()),
        }
    }

    fn hear(&mut self, _: &mut Stage<'_>, message: &Bytes) {
        if let Some(ViewTransferMessage::ViewChange(heard)) = open_view(message) {
            self.heard.insert(heard.signer, heard);
        }
    }
}
