use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::stage::open_system;
use super::{Actor, Stage};
use crate::sim::app::SmallKv;
use crate::smr::crypto::Digester;
use crate::smr::execution::{
    CheckpointRule, CheckpointSnapshot, ExecutionEvent, Executor, SingleThreaded, StateRule,
};
use crate::smr::messages::{
    Batch, CheckpointOffer, ChunkOf, PieceRange, Proposal, SignedCheckpoint, SnapshotChunk, SnapshotHead,
    StateTransferMessage, SystemMessage,
};
use crate::smr::types::{Epoch, NodeId, SeqNo, View};

/// How many inventions are handed out; they are remembered, so that their pieces are always the same.
const INVENTED_MAX: usize = 64;

/// Offers those that need a state one that never was: a service without any data, whole and sound in itself,
/// a few places after one that is true. Only the signatures are wrong.
pub(super) struct InventedState {
    clients: usize,
    /// By place: head, index and pieces.
    invented: BTreeMap<u64, [Bytes; 3]>,
}

impl InventedState {
    pub(super) const fn new(clients: usize) -> Self {
        Self {
            clients,
            invented: BTreeMap::new(),
        }
    }

    /// A checkpoint without any data at this place, and what it amounts to.
    fn invent(&mut self, digester: &Digester, seq: u64) -> Option<[u8; 32]> {
        let rule = CheckpointRule {
            decisions: 1,
            bytes: u64::MAX,
            state: StateRule::ALWAYS,
        };
        let mut executor = SingleThreaded::new(SmallKv, self.clients, digester.clone(), Epoch::ZERO, rule);
        executor.keep_snapshots(true);
        let nothing = Proposal {
            view: View::ZERO,
            seq: SeqNo::new(1),
            batch: Arc::new(Batch::null()),
            message: Bytes::new(),
            authentic: true,
        };
        let mut events = Vec::new();
        executor.execute(&Arc::new(nothing), &mut events);
        while executor.background_step(usize::MAX, &mut events) {}
        let mut snapshot = events.into_iter().find_map(|event| match event {
            ExecutionEvent::Snapshot(snapshot) => Some(snapshot),
            _ => None,
        })?;
        let [head, index, pieces] = [(); 3].map(|()| chunk(&mut *snapshot));
        let Ok(SnapshotChunk::Head(head)) = SnapshotChunk::parse(&head) else {
            return None;
        };
        let head = SnapshotHead {
            seq: SeqNo::new(seq),
            ..head
        };
        self.invented
            .insert(seq, [Bytes::from(head.to_chunk()), index, pieces]);
        Some(*head.claim(digester).digest.as_bytes())
    }
}

fn chunk(snapshot: &mut dyn CheckpointSnapshot) -> Bytes {
    let mut chunk = Vec::new();
    snapshot.next_chunk(usize::MAX, &mut chunk);
    chunk.into()
}

impl Actor for InventedState {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open_system(message) {
            Some(SystemMessage::StateTransferMessage(StateTransferMessage::Offer(truth)))
                if self.invented.len() < INVENTED_MAX =>
            {
                let seq = truth.seq.saturating_add(stage.rng.between(1, 4));
                let Some(digest) = self.invent(&Digester::new(stage.cluster), seq) else {
                    return stage.pass(to, message.clone());
                };
                let proof = NodeId::all(stage.n).map(|signer| SignedCheckpoint {
                    seq,
                    digest,
                    signer: signer.get(),
                    signature: [7; 64],
                });
                let offer = CheckpointOffer {
                    seq,
                    digest,
                    cover: None,
                    proof: proof.collect(),
                };
                stage.lie(
                    to,
                    StateTransferMessage::Offer(offer).encode(stage.cluster, Epoch::ZERO),
                );
            }
            // "I do not have it": but now there is one.
            Some(SystemMessage::StateTransferMessage(StateTransferMessage::Chunk(chunk)))
                if self.invented.contains_key(&chunk.seq) => {}
            _ => stage.pass(to, message.clone()),
        }
    }

    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        let Some(SystemMessage::StateTransferMessage(StateTransferMessage::Fetch(range))) =
            open_system(message)
        else {
            return;
        };
        let Some([head, index, pieces]) = self.invented.get(&range.seq).cloned() else {
            return;
        };
        let answer = match range.piece {
            PieceRange::HEAD => vec![head, index],
            _ => vec![pieces],
        };
        let chunks = answer.len();
        for (place, bytes) in answer.into_iter().enumerate() {
            let chunk = ChunkOf {
                seq: range.seq,
                last: place + 1 == chunks,
                bytes: bytes.to_vec(),
            };
            let chunk = StateTransferMessage::Chunk(chunk).encode(stage.cluster, Epoch::ZERO);
            // To everybody: who did not ask does not listen.
            for to in stage.others() {
                stage.lie(to, chunk.clone());
            }
        }
    }
}
