use std::collections::BTreeMap;

use bytes::Bytes;

use super::forged_view_changes::forge;
use super::stage::{name_view_change, open_view, sign_new_view};
use super::{Actor, Stage};
use crate::smr::messages::{NewView, ViewChange, ViewTransferMessage};
use crate::smr::types::NodeId;

/// As the leader of a view that begins, leaves out what was prepared: chooses among the view changes, says
/// less in its own, alters others', counts one twice, takes too few, names what nobody has. Different new
/// views for different replicas; or none for anybody, so that the next view begins with what this one left.
/// The view changes that it chose come with it, altered or not.
pub(super) struct OmittingNewView {
    window: u64,
    /// Everybody's latest view change, its own among them.
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
                let is_withheld = stage.rng.chance(50);
                self.latest = Some((view, is_withheld));
                is_withheld
            }
        }
    }

    /// The view changes that a new view names, as far as they were heard.
    fn chosen(&self, truth: &NewView) -> Vec<ViewChange> {
        let named = |held: &&ViewChange| truth.view_changes.contains(&name_view_change(held));
        self.heard.values().filter(named).cloned().collect()
    }

    /// So many view changes that saw as little as possible, our own, which lies, among them.
    fn least(&self, stage: &mut Stage<'_>, truth: &NewView, count: usize) -> Vec<ViewChange> {
        let own = stage.node.get();
        let all = self.heard.values().filter(|held| held.view == truth.view);
        let mut all: Vec<ViewChange> = all.filter(|held| held.signer != own).cloned().collect();
        all.sort_by_key(|held| held.prepared.len());
        all.truncate(count.saturating_sub(1));
        let ours = self.heard.get(&own).filter(|ours| ours.view == truth.view);
        all.extend(ours.map(|ours| forge(stage, self.window, ours)));
        all.sort_by_key(|held| held.signer);
        all
    }

    /// A new view in the place of the true one, and the view changes it names.
    fn forge(&self, stage: &mut Stage<'_>, truth: &NewView) -> (NewView, Vec<ViewChange>) {
        let mut chosen = self.chosen(truth);
        let count = truth.view_changes.len();
        match stage.rng.below(8) {
            // A quorum, and one less.
            0 | 1 => chosen = self.least(stage, truth, count),
            4 | 5 => chosen = self.least(stage, truth, count - 1),
            // Others' words altered.
            2 => chosen.iter_mut().for_each(|held| {
                held.prepared.clear();
                held.pre_prepared.clear();
            }),
            // One replica counted twice.
            3 => {
                chosen.pop();
                chosen.extend(chosen.first().cloned());
            }
            // The names of what was heard, and other words for them.
            6 => {
                let forged = NewView {
                    view_changes: chosen.iter().map(name_view_change).collect(),
                    ..truth.clone()
                };
                let altered = self.least(stage, truth, count);
                return (sign_new_view(stage.node, forged), altered);
            }
            // Too few.
            _ => chosen.truncate(count - 1),
        }
        let mut forged = NewView {
            view_changes: chosen.iter().map(name_view_change).collect(),
            ..truth.clone()
        };
        if stage.rng.chance(10)
            && let Some(last) = forged.view_changes.last_mut()
        {
            // What nobody ever signed.
            last.digest[0] ^= 1;
        }
        (sign_new_view(stage.node, forged), chosen)
    }
}

impl Actor for OmittingNewView {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open_view(message) {
            Some(ViewTransferMessage::NewView(truth)) if truth.signer == stage.node.get() => {
                if self.is_withheld(stage, truth.view) {
                    return stage.hit();
                }
                let (forged, chosen) = self.forge(stage, &truth);
                stage.lie(to, stage.close_view(ViewTransferMessage::NewView(forged)));
                for held in chosen {
                    stage.lie(to, stage.close_view(ViewTransferMessage::ViewChange(held)));
                }
            }
            Some(ViewTransferMessage::ViewChange(said)) => {
                self.hold(said);
                stage.pass(to, message.clone());
            }
            _ => stage.pass(to, message.clone()),
        }
    }

    fn hear(&mut self, _: &mut Stage<'_>, message: &Bytes) {
        if let Some(ViewTransferMessage::ViewChange(heard)) = open_view(message) {
            self.hold(heard);
        }
    }
}

impl OmittingNewView {
    fn hold(&mut self, said: ViewChange) {
        let known = self.heard.get(&said.signer);
        if known.is_none_or(|known| known.view <= said.view) {
            self.heard.insert(said.signer, said);
        }
    }
}
