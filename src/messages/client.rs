use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::{archive, encode};
use super::envelope::{Envelope, Kind};
use super::request::ends_are_sound;
use crate::types::{ClientId, ClusterId, Epoch, FrameSeq, View};

/// The results of one frame: equal at all correct replicas, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ReplyBody {
    /// The client that asked.
    pub client: u32,
    /// The frame that is answered.
    pub sequence: u64,
    /// Where each result ends in `results`, one per operation.
    pub ends: Vec<u32>,
    /// The results, end to end.
    pub results: Vec<u8>,
}

/// Why a replica does not take a frame. A client believes a refusal only from f+1 replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq))]
#[repr(u8)]
pub enum RefusalReason {
    /// The frame's structure or size breaks a rule.
    Malformed,
    /// The authenticator does not prove the client.
    NotAuthentic,
    /// The client's pending frames fill its quota; try again later.
    Overloaded,
    /// The sequence number lies before the client's window: it was answered long ago or never will be.
    Stale,
    /// After a disputed MAC this client has to sign.
    MustSign,
    /// Of a read beside the order: this replica may have answered from a later state than it has now, before it restarted or its state was
    /// replaced.
    CatchingUp,
    /// The leader does not order this frame, and only a signature is held against a leader: it is to be sent once more, signed.
    Unproven,
    /// The cluster does not answer reads beside the order.
    OrderedOnly,
}

/// What a replica answers to a client.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ClientReply {
    /// The results of a frame.
    Results {
        /// The replica's view: f+1 equal ones tell the client who leads.
        view: u64,
        /// The archive of a [`ReplyBody`].
        body: Vec<u8>,
    },
    /// The frame was not taken.
    Refused {
        /// The replica's view.
        view: u64,
        /// The frame that was refused.
        sequence: u64,
        /// Why.
        reason: RefusalReason,
    },
}

/// What an operator asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AdminRequest {
    /// Where this replica stands.
    Status,
}

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct AdminReply {
    /// The replica that answers.
    pub node: u16,
    /// Its view.
    pub view: u64,
    /// The last decision it executed.
    pub executed: u64,
    /// The last decision it ordered.
    pub ordered: u64,
    /// The last decision up to which all that it promised is on disk.
    pub durable: u64,
    /// What it does, in a few words.
    pub phase: String,
    /// Pieces of a state from others that are here; zero while none comes, as all that follows about it.
    pub transfer_pieces: u64,
    /// Pieces there are.
    pub transfer_pieces_of: u64,
    /// Bytes received.
    pub transfer_bytes: u64,
    /// Replicas that send them.
    pub transfer_donors: u64,
    /// Bytes a second.
    pub transfer_bytes_per_second: u64,
    /// How long the rest takes at that rate, in milliseconds; zero if that is not known.
    pub transfer_milliseconds_left: u64,
    /// The last stable checkpoint.
    pub stable: u64,
    /// Whether it is in a view, not between two.
    pub orders: bool,
    /// Whether decisions or a state come from others.
    pub transfers: bool,
    /// Whether it votes for nothing, because it may have forgotten what it promised.
    pub abstains: bool,
    /// Whether nothing is logged, hence nothing voted, for lack of space.
    pub waits_for_space: bool,
    /// The last checkpoints that it took one after the other, in order: those of replicas with equal states are at the same places, and
    /// equal.
    pub checkpoints: Vec<CheckpointTold>,
    /// Operations it executed.
    pub operations: u64,
    /// Links with other replicas that are up.
    pub replica_links: u64,
    /// Links with clients that are up.
    pub client_links: u64,
    /// Counters by name, one `name value` per line.
    pub counters: String,
}

/// A checkpoint that a replica took, as it tells an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CheckpointTold {
    /// Its place.
    pub seq: u64,
    /// Its digest.
    pub digest: [u8; 32],
}

/// What one end of a link tells the other about the link itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LinkMessage {
    /// This end is shutting down in good order.
    Goodbye,
    /// This end is there, and has nothing else to say.
    Ping,
    /// The first message on a link between replicas: which start of the sender's process this is, by a random number.
    Instance(u64),
    /// Another process speaks with your identity: it and you take turns in having a link with this end.
    Twin,
}

impl ReplyBody {
    /// Whether the table of ends describes the results.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        ends_are_sound(self.ends.iter().copied(), self.results.len())
    }
}

impl ArchivedReplyBody {
    /// Whether the table of ends describes the results.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        ends_are_sound(self.ends.iter().map(|end| end.to_native()), self.results.len())
    }

    /// The results, in the order of the operations. Only after [`is_sound`](Self::is_sound).
    pub fn results(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let end = end.to_native() as usize;
            let result = &self.results[start..end];
            start = end;
            result
        })
    }
}

/// Collects the results of one frame's operations into a reply body. Reused from frame to frame.
#[derive(Debug, Default)]
pub struct ReplyBuilder {
    ends: Vec<u32>,
    results: Vec<u8>,
}

impl ReplyBuilder {
    /// Where the next result is to be appended; [`end_result`](Self::end_result) closes it.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.results
    }

    /// Closes the result of one operation.
    pub fn end_result(&mut self) {
        self.ends
            .push(u32::try_from(self.results.len()).expect("the results of a frame are under 4 GiB"));
    }

    /// The archive of the body; the builder is empty afterwards.
    #[must_use]
    pub fn finish(&mut self, client: ClientId, sequence: FrameSeq) -> Bytes {
        let body = ReplyBody {
            client: client.get(),
            sequence: sequence.get(),
            ends: std::mem::take(&mut self.ends),
            results: std::mem::take(&mut self.results),
        };
        let bytes = archive(&body, body.results.len() + 4 * body.ends.len() + 64);
        self.ends = body.ends;
        self.results = body.results;
        self.ends.clear();
        self.results.clear();
        Bytes::from(bytes)
    }
}

impl ClientReply {
    /// The whole message that carries a reply body to its client.
    #[must_use]
    pub fn results(cluster: ClusterId, epoch: Epoch, view: View, body: &[u8]) -> Bytes {
        let reply = Self::Results {
            view: view.get(),
            body: body.to_vec(),
        };
        encode(
            Envelope::new(Kind::Reply, cluster, epoch),
            &reply,
            body.len() + 32,
        )
    }

    /// The whole message that refuses a frame.
    #[must_use]
    pub fn refusal(
        cluster: ClusterId,
        epoch: Epoch,
        view: View,
        sequence: FrameSeq,
        reason: RefusalReason,
    ) -> Bytes {
        let reply = Self::Refused {
            view: view.get(),
            sequence: sequence.get(),
            reason,
        };
        encode(Envelope::new(Kind::Reply, cluster, epoch), &reply, 64)
    }
}
