use std::collections::VecDeque;

use super::arrivals::{Arrivals, Ticket};
use crate::execution::{SessionWindows, Standing};
use crate::messages::archived::ArchivedAuthenticator;
use crate::messages::{Batch, Frame, FrameId, FrameKey};
use crate::mutants::{Mutant, active};
use crate::types::{ClientId, FrameSeq, Time};

/// How much may be pending: queued or proposed, not decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Frames of one client.
    pub frames_per_client: usize,
    /// Bytes of one client's frames.
    pub bytes_per_client: usize,
    /// Bytes of all clients' frames.
    pub bytes_max: usize,
}

/// What became of an offered frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offer {
    /// It waits to be proposed.
    Queued,
    /// A frame with its key is pending already.
    Duplicate,
    /// It was decided: its reply is in the client table, or will be.
    AlreadyDecided,
    /// It lies before its session's window, or the client is none: it is never executed.
    Stale,
    /// Its session has ended: it is never executed.
    SessionEnded,
    /// Its client, or all together, have too much pending; it may be offered again later.
    OverQuota,
}

#[derive(Debug)]
struct Pending {
    frame: Frame,
    ticket: Ticket,
}

impl Pending {
    fn sequence(&self) -> FrameSeq {
        self.frame.key().sequence
    }
}

/// One client's pending frames. Both lists ascend by sequence number; a frame is in at most one of them.
#[derive(Debug, Default)]
struct ClientQueue {
    queued: VecDeque<Pending>,
    /// Taken for a batch that is not decided yet.
    in_flight: VecDeque<Pending>,
    bytes: usize,
    decided: SessionWindows,
    /// The session whose frame was taken last.
    served: u64,
    in_round: bool,
}

impl ClientQueue {
    /// The place of the frame to be taken next: the first of the session after the one served last, so that none of a
    /// client's sessions waits for another that has much to ask.
    fn next(&self) -> Option<usize> {
        let (first, last) = (self.queued.front()?, self.queued.back()?);
        if first.sequence().session() == last.sequence().session() {
            return Some(0);
        }
        let is_served = |pending: &Pending| pending.sequence().session() <= self.served;
        let next = self.queued.partition_point(is_served);
        Some(if next < self.queued.len() { next } else { 0 })
    }
}

fn position(frames: &VecDeque<Pending>, sequence: FrameSeq) -> Result<usize, usize> {
    // Frames are decided oldest first and arrive newest last: most look-ups end at one of the ends.
    match (frames.front(), frames.back()) {
        (Some(first), _) if first.sequence() == sequence => Ok(0),
        (_, Some(last)) if last.sequence() < sequence => Err(frames.len()),
        _ => frames.binary_search_by_key(&sequence, Pending::sequence),
    }
}

/// Inserts a frame whose key is not in the list.
fn insert(frames: &mut VecDeque<Pending>, pending: Pending) {
    let (Ok(at) | Err(at)) = position(frames, pending.sequence());
    frames.insert(at, pending);
}

/// The frames that are not decided yet: each at most once, each client within its quota, and batches made from
/// them fairly. A client without frames costs nothing but its entry.
///
/// Invariants: a client is in `round` exactly when its `in_round` is set, once, and at least whenever it has
/// queued frames; `bytes`, `frames` and `queued` are the sums over the clients; every pending frame has its
/// ticket in `arrivals`; no pending frame was decided or is stale.
#[derive(Debug)]
pub struct RequestPool {
    limits: PoolLimits,
    clients: Vec<ClientQueue>,
    /// Whose turn is next: the clients with queued frames, and some that just lost theirs.
    round: VecDeque<ClientId>,
    arrivals: Arrivals,
    frames: usize,
    queued: usize,
    bytes: usize,
}

impl RequestPool {
    /// An empty pool for clients `0..clients`.
    #[must_use]
    pub fn new(clients: usize, limits: PoolLimits) -> Self {
        Self {
            limits,
            clients: (0..clients).map(|_| ClientQueue::default()).collect(),
            round: VecDeque::new(),
            arrivals: Arrivals::new(),
            frames: 0,
            queued: 0,
            bytes: 0,
        }
    }

    /// Takes in a checked frame of ordered operations, if it is new and there is room. `now` never runs
    /// backwards from one offer to the next.
    pub fn offer(&mut self, now: Time, frame: Frame) -> Offer {
        debug_assert!(frame.mode().is_ordered(), "this frame is not for the order");
        let FrameKey { client: id, sequence } = frame.key();
        let Some(client) = self.clients.get_mut(id.get() as usize) else {
            return Offer::Stale;
        };
        match client.decided.check(sequence) {
            Standing::Executed => return Offer::AlreadyDecided,
            Standing::Stale => return Offer::Stale,
            Standing::Ended => return Offer::SessionEnded,
            Standing::Fresh => {}
        }
        let Err(at) = position(&client.queued, sequence) else {
            return Offer::Duplicate;
        };
        if position(&client.in_flight, sequence).is_ok() {
            return Offer::Duplicate;
        }
        let bytes = frame.bytes().len();
        let is_over = client.queued.len() + client.in_flight.len() >= self.limits.frames_per_client
            || client.bytes + bytes > self.limits.bytes_per_client
            || self.bytes + bytes > self.limits.bytes_max;
        if is_over && !active(Mutant::QuotaUnchecked) {
            return Offer::OverQuota;
        }
        let ticket = self.arrivals.push(now);
        client.queued.insert(at, Pending { frame, ticket });
        client.bytes += bytes;
        self.bytes += bytes;
        self.frames += 1;
        self.queued += 1;
        if !client.in_round {
            client.in_round = true;
            self.round.push_back(id);
        }
        Offer::Queued
    }

    /// Takes the next batch and its size in bytes: one frame of each client in turn, of each of its sessions in turn, each
    /// session's in the order of their numbers, until a limit is met. `None` when nothing is queued. The turn that could not be
    /// served is the first of the next batch. A frame longer than `bytes_max` makes a batch of its own.
    ///
    /// The frames stay pending until they are decided or [returned](Self::return_in_flight).
    pub fn take_batch(&mut self, bytes_max: usize, frames_max: usize) -> Option<(Vec<Frame>, usize)> {
        let likely = self.queued.min(frames_max).min(128);
        if likely == 0 {
            return None;
        }
        let (mut batch, mut bytes) = (Vec::with_capacity(likely), 0);
        while batch.len() < frames_max {
            let Some(id) = self.round.pop_front() else { break };
            let client = &mut self.clients[id.get() as usize];
            let Some(next) = client.next() else {
                client.in_round = false;
                continue;
            };
            let frame_bytes = client.queued[next].frame.bytes().len();
            if !batch.is_empty() && bytes + frame_bytes > bytes_max {
                self.round.push_front(id);
                break;
            }
            let Some(taken) = client.queued.remove(next) else {
                break;
            };
            client.served = taken.sequence().session();
            bytes += frame_bytes;
            batch.push(taken.frame.clone());
            insert(&mut client.in_flight, taken);
            self.queued -= 1;
            if client.queued.is_empty() {
                client.in_round = false;
            } else {
                self.round.push_back(id);
            }
        }
        (!batch.is_empty()).then_some((batch, bytes))
    }

    /// Removes a decided batch's frames, wherever they are, and remembers that they were decided. Frames that
    /// fall out of their client's window by this are removed as well: they would never be executed.
    pub fn on_decided(&mut self, batch: &Batch) {
        for frame in &batch.frames {
            let FrameKey { client: id, sequence } = frame.key();
            let Some(client) = self.clients.get_mut(id.get() as usize) else {
                continue;
            };
            let ended = client.decided.record(sequence);
            if let Ok(at) = position(&client.in_flight, sequence) {
                let gone = client.in_flight.remove(at);
                self.leave(id, gone);
            } else if let Ok(at) = position(&client.queued, sequence) {
                let gone = client.queued.remove(at);
                self.queued -= 1;
                self.leave(id, gone);
            }
            self.drop_settled(id, sequence.session());
            if ended.is_some() {
                self.drop_never_executed(id);
            }
        }
    }

    /// Removes a client's queued frames that MACs prove, and says which: perhaps they do not prove them to everybody.
    pub fn drop_unsigned(&mut self, id: ClientId) -> Vec<FrameId> {
        let Some(client) = self.clients.get_mut(id.get() as usize) else {
            return Vec::new();
        };
        let has_macs = |pending: &Pending| {
            let authenticator = &pending.frame.archived().authenticator;
            matches!(authenticator, ArchivedAuthenticator::Macs(_))
        };
        let queued = std::mem::take(&mut client.queued);
        let (unsigned, queued): (VecDeque<_>, VecDeque<_>) = queued.into_iter().partition(has_macs);
        client.queued = queued;
        self.queued -= unsigned.len();
        let frames = unsigned.iter().map(|pending| pending.frame.id()).collect();
        unsigned.into_iter().for_each(|gone| self.leave(id, Some(gone)));
        frames
    }

    /// How many clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Takes over what is known to be decided of a client, from a checkpoint. Pending frames that it settles are
    /// removed.
    pub fn adopt_windows(&mut self, id: ClientId, windows: SessionWindows) {
        if let Some(client) = self.clients.get_mut(id.get() as usize) {
            client.decided = windows;
            self.drop_never_executed(id);
        }
    }

    /// Removes all of a client's frames that are settled: a session has ended, or much was decided at once.
    fn drop_never_executed(&mut self, id: ClientId) {
        let client = &mut self.clients[id.get() as usize];
        let (queued, in_flight) = (
            std::mem::take(&mut client.queued),
            std::mem::take(&mut client.in_flight),
        );
        let is_fresh = |pending: &Pending| client.decided.check(pending.sequence()) == Standing::Fresh;
        let (queued, settled): (VecDeque<_>, VecDeque<_>) = queued.into_iter().partition(is_fresh);
        let (in_flight, taken): (VecDeque<_>, VecDeque<_>) = in_flight.into_iter().partition(is_fresh);
        client.queued = queued;
        client.in_flight = in_flight;
        self.queued -= settled.len();
        let gone = settled.into_iter().chain(taken);
        gone.for_each(|gone| self.leave(id, Some(gone)));
    }

    /// Queues again what was taken and not decided: its proposals may be lost with the view. Looks at every
    /// client.
    pub fn return_in_flight(&mut self) {
        for (number, client) in (0..).zip(&mut self.clients) {
            self.queued += client.in_flight.len();
            for pending in client.in_flight.drain(..).rev() {
                insert(&mut client.queued, pending);
            }
            if !client.queued.is_empty() && !client.in_round {
                client.in_round = true;
                self.round.push_back(ClientId::new(number));
            }
        }
    }

    /// When the frame that is pending longest arrived: what a progress timer is set by.
    #[must_use]
    pub fn oldest_pending_since(&self) -> Option<Time> {
        self.arrivals.oldest()
    }

    /// How many frames are pending: queued or in flight.
    #[must_use]
    pub fn pending_frames(&self) -> usize {
        self.frames
    }

    /// How many bytes the pending frames have.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// How many of the pending frames wait to be taken.
    #[must_use]
    pub fn queued_frames(&self) -> usize {
        self.queued
    }

    /// Removes a session's frames that its window has left behind: they are its oldest.
    fn drop_settled(&mut self, id: ClientId, session: u64) {
        loop {
            let ClientQueue {
                queued,
                in_flight,
                decided,
                ..
            } = &mut self.clients[id.get() as usize];
            let settled = |frames: &VecDeque<Pending>| {
                let (Ok(at) | Err(at)) = position(frames, FrameSeq::of(session, 0));
                let first = frames.get(at)?.sequence();
                let is_settled = first.session() == session && decided.check(first) == Standing::Stale;
                is_settled.then_some(at)
            };
            let gone = if let Some(at) = settled(queued) {
                self.queued -= 1;
                queued.remove(at)
            } else if let Some(at) = settled(in_flight) {
                in_flight.remove(at)
            } else {
                return;
            };
            self.leave(id, gone);
        }
    }

    /// Books a frame out that was removed from its client's list.
    fn leave(&mut self, id: ClientId, gone: Option<Pending>) {
        let Some(Pending { frame, ticket }) = gone else {
            return;
        };
        let bytes = frame.bytes().len();
        self.clients[id.get() as usize].bytes -= bytes;
        self.bytes -= bytes;
        self.frames -= 1;
        self.arrivals.remove(ticket);
    }
}
