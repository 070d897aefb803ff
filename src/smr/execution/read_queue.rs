//! Reads beside the order, before they are executed: who asks too much waits for itself.
//!
//! A read costs its client a frame and every replica an execution, and nobody agrees on it first. So reads
//! have a quota and turns of their own, and the order keeps its share of the executor:
//!
//! - **Quota.** A client has so many frames and bytes waiting; beyond that they are refused. All together
//!   have room for so many bytes, half of which is shared out among the clients, as in the
//!   [`RequestPool`](crate::smr::preprocessing::RequestPool).
//! - **Turns by work, not by frames** (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996). The
//!   client is next whose reads have taken the least so far; who comes back after a pause starts where the
//!   others are. So a client with cheap reads waits for no more than one frame of each other one.
//! - **The order's share.** While decisions wait to be executed, reads take at most [`READ_SHARE_PERCENT`] of
//!   the executor's work in the long run. When none wait, reads take what there is, frame by frame.
//!
//! What a unit of work is, is the caller's: nanoseconds of the executor's thread on a shard, operations in
//! the simulator.

use std::collections::{BTreeSet, VecDeque};

use crate::smr::messages::Frame;
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::ClientId;

/// How much of the executor reads beside the order take at most while there are decisions to execute.
pub const READ_SHARE_PERCENT: u64 = 25;

/// How many reads may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Frames of one client.
    pub frames_per_client: usize,
    /// Bytes of one client's frames; one frame of any length always waits.
    pub bytes_per_client: usize,
    /// Bytes of all clients' frames beyond their shares.
    pub bytes_max: usize,
    /// How much work reads may take at once, after a pause, although decisions wait.
    pub burst: u64,
}

impl ReadLimits {
    /// For a replica's pool of this many bytes in all, and per client: a quarter of it, so that a flood of
    /// reads takes no more memory than one of ordered operations. Work is in nanoseconds.
    #[must_use]
    pub const fn of_pool(frames_per_client: usize, bytes_per_client: usize, bytes_max: usize) -> Self {
        Self {
            frames_per_client,
            bytes_per_client: bytes_per_client / 4,
            bytes_max: bytes_max / 4,
            burst: 1_000_000,
        }
    }
}

#[derive(Debug, Default)]
struct ClientReads {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// How much work its reads have taken, counted from where the others were when it last came back.
    used: u64,
}

/// The reads that wait, and whose turn is next.
///
/// Invariants: a client is in `turns`, with what it used, exactly when it has frames; `bytes` is the sum over
/// the clients, `crowd` that of what they have beyond their shares.
#[derive(Debug)]
pub struct ReadQueue {
    limits: ReadLimits,
    clients: Vec<ClientReads>,
    turns: BTreeSet<(u64, ClientId)>,
    /// What the client had used whose turn was last.
    started: u64,
    bytes: usize,
    crowd: usize,
    frames: usize,
    /// Work that reads may take while decisions wait; below zero after a frame that took more.
    credit: i64,
}

impl ReadQueue {
    /// An empty queue for clients `0..clients`.
    #[must_use]
    pub fn new(clients: usize, limits: ReadLimits) -> Self {
        Self {
            limits,
            clients: (0..clients).map(|_| ClientReads::default()).collect(),
            turns: BTreeSet::new(),
            started: 0,
            bytes: 0,
            crowd: 0,
            frames: 0,
            credit: clamped(limits.burst),
        }
    }

    /// Takes a checked read-only frame in; whether there is room.
    pub fn offer(&mut self, frame: Frame) -> bool {
        let id = frame.key().client;
        let Some(client) = self.clients.get(id.get() as usize) else {
            return false;
        };
        let (frames, bytes) = (client.frames.len(), client.bytes + frame.bytes().len());
        let crowd = self.crowd - self.beyond_share(client.bytes) + self.beyond_share(bytes);
        let fits = frames == 0
            || (frames < self.limits.frames_per_client
                && bytes <= self.limits.bytes_per_client
                && (bytes <= self.share() || crowd <= self.limits.bytes_max / 2));
        if !fits && !active(Mutant::ReadsUnlimited) {
            return false;
        }
        (self.crowd, self.bytes) = (crowd, self.bytes + frame.bytes().len());
        self.frames += 1;
        let started = self.started;
        let client = &mut self.clients[id.get() as usize];
        client.bytes = bytes;
        client.frames.push_back(frame);
        if frames == 0 {
            client.used = client.used.max(started);
            self.turns.insert((client.used, id));
        }
        true
    }

    /// The frame whose turn is next, if reads may be executed now; `order_waits` says whether decisions wait.
    /// [`spent`](Self::spent) follows when it was executed.
    pub fn next(&mut self, order_waits: bool) -> Option<Frame> {
        if order_waits && self.credit <= 0 {
            return None;
        }
        let (used, id) = match active(Mutant::ReadsUnfair) {
            true => *self.turns.iter().max_by_key(|(_, id)| *id)?,
            false => *self.turns.first()?,
        };
        self.turns.remove(&(used, id));
        let client = &mut self.clients[id.get() as usize];
        let frame = client.frames.pop_front()?;
        let (before, after) = (client.bytes, client.bytes - frame.bytes().len());
        client.bytes = after;
        if !client.frames.is_empty() {
            self.turns.insert((used, id));
        }
        self.started = self.started.max(used);
        self.crowd = self.crowd - self.beyond_share(before) + self.beyond_share(after);
        self.bytes -= before - after;
        self.frames -= 1;
        Some(frame)
    }

    /// A read of this client has taken so much work; `order_waits` as it was when it was begun.
    pub fn spent(&mut self, id: ClientId, work: u64, order_waits: bool) {
        if order_waits {
            self.credit = self.credit.saturating_sub(clamped(work));
        }
        let Some(client) = self.clients.get_mut(id.get() as usize) else {
            return;
        };
        // Nothing is free: whoever is never charged would have every turn.
        let used = client.used.saturating_add(work.max(1));
        if self.turns.remove(&(client.used, id)) {
            self.turns.insert((used, id));
        }
        client.used = used;
    }

    /// Decisions have taken so much work: reads have earned theirs.
    pub fn spent_on_order(&mut self, work: u64) {
        let earned = work.saturating_mul(READ_SHARE_PERCENT) / (100 - READ_SHARE_PERCENT);
        let credit = self.credit.saturating_add(clamped(earned));
        self.credit = credit.min(clamped(self.limits.burst)).max(self.credit);
    }

    /// Forgets what waits: other replicas answer it.
    pub fn clear(&mut self) {
        while self.next(false).is_some() {}
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// How many frames wait.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// How many bytes the waiting frames have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn share(&self) -> usize {
        self.limits.bytes_max / 2 / self.clients.len().max(1)
    }

    fn beyond_share(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.share())
    }
}

fn clamped(work: u64) -> i64 {
    i64::try_from(work).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::smr::messages::{Authenticator, FrameBuilder, Mode, RequestFrame};
    use crate::smr::types::{Digest, FrameSeq};

    const LIMITS: ReadLimits = ReadLimits {
        frames_per_client: 4,
        bytes_per_client: 3000,
        bytes_max: 8000,
        burst: 100,
    };

    fn read(client: u32, sequence: u64, bytes: usize) -> Frame {
        let mut builder = FrameBuilder::default();
        builder.push(&vec![0; bytes]).unwrap();
        let body = builder.finish(ClientId::new(client), FrameSeq::new(sequence), Mode::Unordered);
        let authenticator = Authenticator::Signature([0; 64]);
        let bytes = RequestFrame { body, authenticator }.to_archive();
        Frame::check(bytes, 8, 1 << 20, |_| Digest::ZERO).unwrap()
    }

    fn client_of(frame: &Frame) -> u32 {
        frame.key().client.get()
    }

    #[test]
    fn a_client_has_a_quota_and_room_for_one_frame_whatever_others_have() {
        let mut queue = ReadQueue::new(3, LIMITS);
        for sequence in 1..=4 {
            assert!(queue.offer(read(0, sequence, 10)));
        }
        assert!(!queue.offer(read(0, 5, 10)));
        assert!(queue.offer(read(1, 1, 2500)));
        assert!(!queue.offer(read(1, 2, 2500)));
        assert!(
            queue.offer(read(2, 1, 6000)),
            "the first of its client, however long"
        );
        assert!(!queue.offer(read(9, 1, 10)), "a stranger");
        queue.clear();
        assert!(queue.is_empty());
        assert_eq!((queue.frames(), queue.bytes(), queue.crowd), (0, 0, 0));
        assert!(queue.offer(read(0, 5, 10)));
    }

    #[test]
    fn whoever_reads_little_waits_for_one_frame_of_each_other_client() {
        let mut queue = ReadQueue::new(3, LIMITS);
        for sequence in 1..=4 {
            queue.offer(read(0, sequence, 10));
        }
        for _ in 0..1000 {
            let frame = queue.next(false).unwrap();
            queue.spent(frame.key().client, 1_000_000, false);
            queue.offer(frame);
        }
        queue.offer(read(2, 1, 10));
        let turns: Vec<u32> = (0..2)
            .map(|_| {
                let frame = queue.next(false).unwrap();
                queue.spent(frame.key().client, 1, false);
                client_of(&frame)
            })
            .collect();
        assert!(turns.contains(&2), "{turns:?}");
    }

    proptest! {
        #[test]
        fn the_order_keeps_its_share_whatever_reads_cost(costs in proptest::collection::vec(1u64..5000, 50..300)) {
            let mut queue = ReadQueue::new(2, LIMITS);
            let (mut reads, mut order, mut longest) = (0, 0, 0);
            for (cost, number) in costs.iter().zip(0..) {
                queue.offer(read(number % 2, u64::from(number), 10));
                // Decisions wait all the time, and each takes as much as one of the reads.
                queue.spent_on_order(*cost);
                order += *cost;
                while let Some(frame) = queue.next(true) {
                    queue.spent(frame.key().client, *cost, true);
                    reads += *cost;
                    longest = longest.max(*cost);
                }
            }
            let share = (reads + order) * READ_SHARE_PERCENT / 100;
            prop_assert!(reads <= share + longest + LIMITS.burst, "{reads} of {}", reads + order);
        }

        #[test]
        fn two_clients_that_always_have_reads_get_as_much_work_each(costs in proptest::collection::vec((1u64..200, 1u64..200), 50..200)) {
            let mut queue = ReadQueue::new(2, LIMITS);
            let (mut used, mut longest) = ([0u64; 2], 0);
            for client in 0..2 {
                queue.offer(read(client, 1, 10));
                queue.offer(read(client, 2, 10));
            }
            for costs in costs {
                let frame = queue.next(false).unwrap();
                let client = client_of(&frame);
                let cost = if client == 0 { costs.0 } else { costs.1 };
                longest = longest.max(cost);
                used[client as usize] += cost;
                queue.spent(frame.key().client, cost, false);
                queue.offer(frame);
            }
            prop_assert!(used[0].abs_diff(used[1]) <= longest, "{used:?}");
        }
    }
}
