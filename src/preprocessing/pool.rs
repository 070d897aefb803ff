use std::collections::{BTreeMap, VecDeque};

use crate::execution::{SequenceWindow, Standing};
use crate::messages::{Batch, Frame, FrameKey};
use crate::types::{ClientId, FrameSeq, Time};

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// Frames of one client.
    pub frames_per_client: usize,
    /// Bytes of one client's frames.
    pub bytes_per_client: usize,
    /// Bytes of all frames.
    pub bytes_max: usize,
}

/// What became of an offered frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It waits to be proposed.
    Queued,
    /// It waits or is proposed already.
    Duplicate,
    /// It was decided: its reply is in the client table.
    AlreadyDecided,
    /// It lies before the client's window.
    Stale,
    /// The client, or everybody together, has too much waiting.
    OverQuota,
}

#[derive(Debug)]
struct Waiting {
    frame: Frame,
    since: Time,
    proposed: bool,
}

#[derive(Debug, Default)]
struct ClientQueue {
    /// By sequence number: queued frames and proposed ones that are not decided yet.
    frames: BTreeMap<FrameSeq, Waiting>,
    queued: usize,
    bytes: usize,
    decided: SequenceWindow,
    /// Whether the client is in the round of those with queued frames.
    in_round: bool,
}

/// The frames that are not decided yet: each at most once, each client within its quota, and batches made
/// from them fairly.
///
/// Invariants: `queued` counts the entries of `frames` that are not proposed; a client is in `round` exactly when its
/// `in_round` is set, and whenever it has queued frames; `bytes` are the sums over `frames`.
#[derive(Debug)]
pub struct RequestPool {
    limits: PoolLimits,
    clients: Vec<ClientQueue>,
    round: VecDeque<ClientId>,
    bytes: usize,
    frames: usize,
    /// Keys in the order of arrival; those no longer waiting are dropped when they come to the front.
    arrivals: VecDeque<(Time, FrameKey)>,
}

impl RequestPool {
    /// An empty pool for clients `0..clients`.
    #[must_use]
    pub fn new(clients: usize, limits: PoolLimits) -> Self {
        Self {
            limits,
            clients: (0..clients).map(|_| ClientQueue::default()).collect(),
            round: VecDeque::new(),
            bytes: 0,
            frames: 0,
            arrivals: VecDeque::new(),
        }
    }

    /// Takes a checked frame in, if it is new and there is room.
    pub fn offer(&mut self, now: Time, frame: Frame) -> Offer {
        let key = frame.key();
        let Some(client) = self.clients.get_mut(key.client.get() as usize) else {
            return Offer::Stale;
        };
        match client.decided.check(key.sequence) {
            Standing::Executed => return Offer::AlreadyDecided,
            Standing::Stale => return Offer::Stale,
            Standing::Fresh => {}
        }
        if client.frames.contains_key(&key.sequence) {
            return Offer::Duplicate;
        }
        let bytes = frame.bytes().len();
        if client.frames.len() >= self.limits.frames_per_client
            || client.bytes + bytes > self.limits.bytes_per_client
            || self.bytes + bytes > self.limits.bytes_max
        {
            return Offer::OverQuota;
        }
        client.frames.insert(
            key.sequence,
            Waiting {
                frame,
                since: now,
                proposed: false,
            },
        );
        client.queued += 1;
        client.bytes += bytes;
        self.bytes += bytes;
        self.frames += 1;
        if !client.in_round {
            client.in_round = true;
            self.round.push_back(key.client);
        }
        self.arrivals.push_back((now, key));
        if self.arrivals.len() > 2 * self.frames + 64 {
            self.drop_old_arrivals();
        }
        Offer::Queued
    }

    /// Takes the next batch: one frame of each client in turn, each client's in the order of its numbers, up to the
    /// limits (at least one frame). `None` when nothing is queued. The frames stay in the pool as
    /// proposed until they are decided or [returned](Self::return_proposed).
    pub fn take_batch(&mut self, bytes_max: usize, frames_max: usize) -> Option<(Vec<Frame>, usize)> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < frames_max {
            let Some(id) = self.round.pop_front() else { break };
            let client = &mut self.clients[id.get() as usize];
            let Some(waiting) = client.frames.values_mut().find(|waiting| !waiting.proposed) else {
                client.in_round = false;
                continue;
            };
            let frame_bytes = waiting.frame.bytes().len();
            if !batch.is_empty() && bytes + frame_bytes > bytes_max {
                self.round.push_front(id);
                break;
            }
            waiting.proposed = true;
            batch.push(waiting.frame.clone());
            bytes += frame_bytes;
            client.queued -= 1;
            if client.queued > 0 {
                self.round.push_back(id);
            } else {
                client.in_round = false;
            }
        }
        (!batch.is_empty()).then_some((batch, bytes))
    }

    /// Forgets a decided batch's frames, here and for ever.
    pub fn on_decided(&mut self, batch: &Batch) {
        for frame in &batch.frames {
            let key = frame.key();
            let Some(client) = self.clients.get_mut(key.client.get() as usize) else {
                continue;
            };
            client.decided.record(key.sequence);
            if let Some(waiting) = client.frames.remove(&key.sequence) {
                let bytes = waiting.frame.bytes().len();
                client.bytes -= bytes;
                self.bytes -= bytes;
                self.frames -= 1;
                client.queued -= usize::from(!waiting.proposed);
            }
        }
    }

    /// Queues all proposed frames again: their proposals may be lost with the view.
    pub fn return_proposed(&mut self) {
        for (number, client) in (0u32..).zip(&mut self.clients) {
            for waiting in client.frames.values_mut().filter(|waiting| waiting.proposed) {
                waiting.proposed = false;
                client.queued += 1;
            }
            if client.queued > 0 && !client.in_round {
                client.in_round = true;
                self.round.push_back(ClientId::new(number));
            }
        }
    }

    /// When the frame that waits longest arrived.
    pub fn oldest_pending_since(&mut self) -> Option<Time> {
        while let Some((since, key)) = self.arrivals.front() {
            if self.is_waiting(*since, *key) {
                return Some(*since);
            }
            self.arrivals.pop_front();
        }
        None
    }

    /// How many frames wait or are proposed.
    #[must_use]
    pub fn pending_frames(&self) -> usize {
        self.frames
    }

    /// How many bytes they have.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    fn is_waiting(&self, since: Time, key: FrameKey) -> bool {
        let client = self.clients.get(key.client.get() as usize);
        client
            .and_then(|client| client.frames.get(&key.sequence))
            .is_some_and(|waiting| waiting.since == since)
    }

    fn drop_old_arrivals(&mut self) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        arrivals.retain(|(since, key)| self.is_waiting(*since, *key));
        self.arrivals = arrivals;
    }
}
