use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open_system};
use super::{Actor, Stage};
use crate::sim::SimConfig;
use crate::smr::execution::apps::kv;
use crate::smr::messages::{
    Authenticator, Envelope, ForwardedRequests, FrameBuilder, Kind, Mode, PrePrepare, RequestFrame,
    SignedCheckpoint, StateTransferMessage, Status, SyncMessage, SystemMessage, ViewChange,
    ViewTransferMessage, encode,
};
use crate::smr::types::{ClientId, Epoch, FrameSeq, NodeId};

/// Signatures of frames that one status that is heard is worth, and the messages that they are in at most.
const SIGNATURES: usize = 512;
const MESSAGES_MAX: usize = 64;
/// Words that one status is worth.
const WORDS: usize = 64;
/// Statuses that are answered so.
const ROUNDS_MAX: u64 = 60;

/// Has others verify signatures: forged ones, and true ones that it heard of, in frames passed on, in batches
/// that nobody asked for, in pre-prepares of views that it leads, now and later; and in checkpoints, proofs,
/// offers and view changes.
pub(super) struct Flood {
    bytes_max: usize,
    frames_max: usize,
    forged: Vec<Bytes>,
    /// Frames that clients signed.
    heard: Vec<Bytes>,
    /// The time of the last proposal heard.
    time: u64,
    rounds: u64,
}

/// Frames that their clients never signed.
fn forge_frames(config: &SimConfig) -> Vec<Bytes> {
    let operation = kv::put(b"k0", b"never").expect("the key is short");
    let forge = |number: u64| {
        let mut builder = FrameBuilder::default();
        builder.push(&operation).expect("one operation fits");
        let client = ClientId::new((number % config.honest_clients as u64) as u32);
        let body = builder.finish(client, FrameSeq::new((1 << 40) + number), Mode::Ordered);
        let authenticator = Authenticator::Signature([1; 64]);
        RequestFrame { body, authenticator }.to_archive()
    };
    let mut room = config.limits.batch_bytes_max;
    let fits = |frame: &Bytes| {
        room = room.saturating_sub(frame.len());
        room > 0
    };
    (0..).map(forge).take_while(fits).collect()
}

impl Flood {
    pub(super) fn new(config: &SimConfig) -> Self {
        Self {
            bytes_max: config.limits.batch_bytes_max,
            frames_max: config.limits.batch_frames_max,
            forged: forge_frames(config),
            heard: Vec::new(),
            rounds: 0,
            time: 0,
        }
    }

    /// Keeps frames to send them again, as many as one message has room for.
    fn keep(&mut self, proposal: &PrePrepare) {
        self.time = proposal.time;
        let mut room = self.bytes_max - self.heard.iter().map(Bytes::len).sum::<usize>();
        for frame in frames_of(proposal) {
            if frame.len() >= room {
                break;
            }
            room -= frame.len();
            self.heard.push(frame);
        }
    }

    /// Either forged frames or true ones.
    fn frames(&self, stage: &mut Stage<'_>) -> &[Bytes] {
        match stage.rng.chance(30) && !self.heard.is_empty() {
            true => &self.heard,
            false => &self.forged,
        }
    }

    fn batch(&self, stage: &mut Stage<'_>, view: u64, seq: u64) -> PrePrepare {
        let place = PrePrepare {
            view,
            seq,
            digest: [0; 32],
            time: self.time,
            ends: Vec::new(),
            frames: Vec::new(),
        };
        let frames = self.frames(stage);
        stage.with_frames(&place, &frames[..frames.len().min(self.frames_max)])
    }

    /// A message with frames in it, about what the sender of a status lacks or soon will, and how often it is
    /// sent.
    fn with_frames(&self, stage: &mut Stage<'_>, heard: &Status) -> (Bytes, usize) {
        let n = stage.n as u64;
        let seq = heard.decided.saturating_add(stage.rng.between(1, 8));
        let (message, frames) = match stage.rng.below(4) {
            0 => {
                let batch = self.batch(stage, heard.view, seq);
                let frames = batch.ends.len();
                (stage.close_sync(SyncMessage::BatchResponse(batch)), frames)
            }
            1 => {
                // The next view that it leads: perhaps the present one.
                let ahead = (stage.node.index() as u64 + n - heard.view % n) % n;
                let view = heard.view.saturating_add(ahead + n * stage.rng.below(2));
                let batch = self.batch(stage, view, seq);
                let frames = batch.ends.len();
                (stage.close(OrderingMessage::PrePrepare(batch)), frames)
            }
            _ => {
                let frames = self.frames(stage);
                let mut passed_on = ForwardedRequests {
                    ends: Vec::new(),
                    frames: Vec::new(),
                };
                for frame in frames {
                    passed_on.frames.extend_from_slice(frame);
                    passed_on.ends.push(passed_on.frames.len() as u32);
                }
                let message = SystemMessage::ForwardedRequestMessage(passed_on);
                let envelope = Envelope::new(Kind::SystemWithFrames, stage.cluster, Epoch::ZERO);
                (encode(envelope, &message, 1024), frames.len())
            }
        };
        (message, SIGNATURES.div_ceil(frames.max(1)).min(MESSAGES_MAX))
    }
}

/// A checkpoint far ahead in the name of `signer`, who never signed it.
fn forge_checkpoint(seq: u64, signer: NodeId) -> SignedCheckpoint {
    SignedCheckpoint {
        seq,
        digest: [0x44; 32],
        signer: signer.get(),
        signature: [2; 64],
    }
}

/// Words without frames, with forged signatures.
fn words(stage: &Stage<'_>, heard: &Status) -> [Bytes; 3] {
    let seq = heard.stable.saturating_add(1000);
    let proof = NodeId::all(stage.n).map(|signer| forge_checkpoint(seq, signer));
    let view_change = ViewChange {
        view: heard.view.saturating_add(1),
        stable_seq: 0,
        stable_digest: [0; 32],
        stable_proof: Vec::new(),
        prepared: Vec::new(),
        pre_prepared: Vec::new(),
        signer: stage.node.get(),
        signature: [2; 64],
    };
    [
        stage.close_sync(SyncMessage::Stable(proof.collect())),
        stage.close(OrderingMessage::Checkpoint(forge_checkpoint(seq, stage.node))),
        stage.close_view(ViewTransferMessage::ViewChange(view_change)),
    ]
}

impl Actor for Flood {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        if let Some(SystemMessage::StateTransferMessage(StateTransferMessage::Offer(mut offer))) =
            open_system(message)
        {
            offer.seq += 1;
            let proof = NodeId::all(stage.n).map(|signer| forge_checkpoint(offer.seq, signer));
            offer.proof = proof.collect();
            let forged = StateTransferMessage::Offer(offer).encode(stage.cluster, Epoch::ZERO);
            (0..WORDS).for_each(|_| stage.lie(to, forged.clone()));
        }
        stage.pass(to, message.clone());
    }

    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        let heard = match open_system(message) {
            Some(SystemMessage::ProposalMessage(proposal)) => {
                return self.keep(&proposal);
            }
            Some(SystemMessage::SyncMessage(SyncMessage::Status(heard))) => heard,
            _ => return,
        };
        if self.rounds == ROUNDS_MAX {
            return;
        }
        self.rounds += 1;
        let to = stage.others()[stage.rng.below(stage.n as u64 - 1) as usize];
        if stage.rng.chance(60) {
            let (flood, times) = self.with_frames(stage, &heard);
            (0..times).for_each(|_| stage.lie(to, flood.clone()));
        } else {
            let words = words(stage, &heard);
            for word in (0..WORDS).flat_map(|_| &words) {
                stage.lie(to, word.clone());
            }
        }
    }
}
