use std::collections::BTreeMap;

use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};
use crate::sim::app::READ;
use crate::sim::keys::CLUSTER;
use crate::smr::messages::archived::ArchivedClientReply;
use crate::smr::messages::{
    Checked, ClientReply, OperationResult, PrePrepare, ReplyBody, ReplyBuilder, RequestFrame, StateRead,
};
use crate::smr::types::{Epoch, NodeId, SeqNo, View};

/// Answers reads of the key-value store with what stood there before: what a replica that lags behind would
/// say.
#[derive(Default)]
pub(super) struct StaleReads {
    /// The last place that was looked at.
    seq: u64,
    /// What stands at each key after it.
    last: BTreeMap<Vec<u8>, Vec<u8>>,
    /// By value, none of which is written twice: what stood in its place before.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl StaleReads {
    fn look_at(&mut self, message: &Bytes) {
        if let Some(OrderingMessage::PrePrepare(proposal)) = open(message)
            && proposal.seq > self.seq
        {
            self.seq = proposal.seq;
            self.take(&proposal);
        }
    }

    fn take(&mut self, proposal: &PrePrepare) {
        for frame in frames_of(proposal) {
            let Ok(frame) = Checked::<RequestFrame>::new(frame) else {
                continue;
            };
            let Ok(body) = frame.open_body() else { continue };
            body.operations().for_each(|operation| self.execute(operation));
        }
    }

    fn execute(&mut self, operation: &[u8]) {
        let Some(([kind, low, high], rest)) = operation.split_first_chunk::<3>() else {
            return;
        };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let Some((key, value)) = rest.split_at_checked(length) else {
            return;
        };
        match kind {
            1 => {
                let before = self.last.insert(key.to_vec(), value.to_vec());
                self.before.insert(value.to_vec(), before);
            }
            3 => {
                self.last.remove(key);
            }
            _ => {}
        }
    }

    fn older(&self, result: &[u8]) -> Option<Vec<u8>> {
        let result = result.strip_suffix(&[READ])?;
        let (1, value) = result.split_first().map(|(kind, value)| (*kind, value))? else {
            return None;
        };
        Some(match self.before.get(value)? {
            Some(before) => [&[1], before.as_slice(), &[READ]].concat(),
            None => vec![0, READ],
        })
    }

    fn lie(&self, message: &Bytes) -> Option<Bytes> {
        let checked = Checked::<ClientReply>::body_of(message).ok()?;
        let ArchivedClientReply::Results {
            view,
            whole,
            begun,
            body,
        } = &*checked
        else {
            return None;
        };
        // It says that it has read the state that it should have.
        let state = StateRead {
            whole: SeqNo::new(whole.to_native()),
            begun: SeqNo::new(begun.to_native()),
        };
        let truth = Checked::<ReplyBody>::new(checked.slice_of(body.as_slice())).ok()?;
        let (mut builder, mut any) = (ReplyBuilder::default(), false);
        for result in truth.results() {
            let OperationResult::Value(result) = result else {
                return None;
            };
            let older = self.older(result);
            any |= older.is_some();
            builder
                .buffer()
                .extend_from_slice(older.as_deref().unwrap_or(result));
            builder.end_result(None);
        }
        let body = builder.finish(&truth.frame());
        let view = View::new(view.to_native());
        any.then(|| ClientReply::read_results(CLUSTER, Epoch::ZERO, view, state, &body))
    }
}

impl Actor for StaleReads {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        self.look_at(message);
        stage.pass(to, message.clone());
    }

    fn hear(&mut self, _: &mut Stage<'_>, message: &Bytes) {
        self.look_at(message);
    }

    fn reply(&mut self, stage: &mut Stage<'_>, message: &Bytes) -> Option<Bytes> {
        match self.lie(message) {
            Some(lie) => {
                stage.hit();
                Some(lie)
            }
            None => Some(message.clone()),
        }
    }
}
