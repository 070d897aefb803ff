use bytes::Bytes;

use super::stage::{OrderingMessage, open};
use super::{Actor, Stage};
use crate::sim::keys::{CLUSTER, Keyring};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::SignedCheckpoint;
use crate::smr::types::{Digest, NodeId};

/// Signs states that never were, signs for others, and sends signatures that do not hold.
pub(super) struct ForgedCheckpoints;

impl Actor for ForgedCheckpoints {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(OrderingMessage::Checkpoint(truth)) = open(message) else {
            return stage.pass(to, message.clone());
        };
        let forged = match stage.rng.below(4) {
            // A state of its own, signed properly.
            0 => sign(stage.node, truth.seq, [0x66; 32]),
            // The right state, with a signature that is none.
            1 => SignedCheckpoint {
                signature: [3; 64],
                ..truth
            },
            // Far ahead.
            2 => sign(stage.node, truth.seq + 1_000_000, truth.digest),
            // In another's name.
            _ => SignedCheckpoint {
                signer: (stage.node.get() + 1) % stage.n as u16,
                ..truth
            },
        };
        stage.lie(to, stage.close(OrderingMessage::Checkpoint(forged)));
        if stage.rng.chance(50) {
            stage.pass(to, message.clone());
        }
    }
}

fn sign(node: NodeId, seq: u64, digest: [u8; 32]) -> SignedCheckpoint {
    let mut hasher = Digester::new(CLUSTER).hasher(Domain::Checkpoint);
    hasher.update(b"claim");
    hasher.update(&seq.to_le_bytes());
    hasher.update(&digest);
    let signed = Digest::from_bytes(*hasher.finalize().as_bytes());
    SignedCheckpoint {
        seq,
        digest,
        signer: node.get(),
        signature: Keyring::get().replica(node).sign(Domain::Checkpoint, &signed),
    }
}
