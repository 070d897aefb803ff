use std::collections::BTreeMap;

use bytes::Bytes;

use super::stage::{open_view, sign_new_view, sign_view_change};
use super::{Actor, Stage};
use crate::messages::{NewView, ViewChange, ViewTransferMessage};
use crate::types::NodeId;

/// As the leader of a view that begins, leaves out what was prepared: chooses among the view changes, says less in its own,
/// alters others', counts one twice, takes too few. Different new views for different replicas.
#[derive(Default)]
pub(super) struct OmittingNewView {
    /// Everybody's latest view change.
    heard: BTreeMap<u16, ViewChange>,
}

impl OmittingNewView {
    fn forge(&self, stage: &mut Stage<'_>, truth: &NewView) -> NewView {
        let mut forged = truth.clone();
        let own = stage.node.get();
        match stage.dice.below(5) {
            // A quorum that saw as little as possible, and our own view change silent.
            0 | 1 => {
                let all = self.heard.values().filter(|held| held.view == truth.view);
                let mut all: Vec<ViewChange> = all.filter(|held| held.signer != own).cloned().collect();
                all.sort_by_key(|held| held.prepared.len());
                all.truncate(truth.view_changes.len().saturating_sub(1));
                let ours = truth.view_changes.iter().find(|held| held.signer == own);
                all.extend(ours.map(|ours| conceal(stage.node, ours)));
                forged.view_changes = all;
            }
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
            _ => forged.view_changes.truncate(truth.view_changes.len() - 1),
        }
        sign_new_view(stage.node, forged)
    }
}

fn conceal(node: NodeId, truth: &ViewChange) -> ViewChange {
    let mut silent = truth.clone();
    silent.prepared.clear();
    silent.pre_prepared.clear();
    sign_view_change(node, silent)
}

impl Actor for OmittingNewView {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open_view(message) {
            Some(ViewTransferMessage::NewView(truth)) if truth.signer == stage.node.get() => {
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
