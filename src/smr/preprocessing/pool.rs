use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::smr::execution::{FrameStatus, SessionWindows};
use crate::smr::messages::{Batch, Frame, FrameId, FrameKey, Mode};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ClientId, FrameSeq, Time};
use crate::smr::view_transfer::{Proven, Waiting};

/// How much may be pending: queued or proposed, not decided.
///
/// Whatever others fill the pool with, each client has room for one frame. So what is pending takes
/// `bytes_max`, or one frame of each client if that is more; and beside it what is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Frames of one client.
    pub frames_per_client: usize,
    /// Bytes of one client's frames.
    pub bytes_per_client: usize,
    /// Bytes of all clients' frames. Half of it is shared out among the clients; the other half is for
    /// whoever comes first.
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

fn sequence(frame: &Frame) -> FrameSeq {
    frame.key().sequence
}

/// The place of a frame in its client's order: what is signed goes first, then by session and number.
fn order(frame: &Frame) -> (bool, FrameSeq) {
    (!frame.is_signed(), sequence(frame))
}

/// How long a client waits for its first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    first: FrameSeq,
    since: Time,
    /// Since when that frame is signed.
    proven: Option<Time>,
}

/// One client's pending frames. Both lists ascend by sequence number; a frame is in at most one of them.
#[derive(Debug, Default)]
struct ClientQueue {
    queued: VecDeque<Frame>,
    /// Taken for a batch that is not decided yet.
    in_flight: VecDeque<Frame>,
    bytes: usize,
    decided: SessionWindows,
    /// How many of the frames in both lists are signed.
    signed: usize,
    /// The session whose turn it was last, and whether the next turn is the first frame's.
    served: u64,
    first_is_next: bool,
    in_round: bool,
    clock: Option<Clock>,
    /// The clock is to be set anew: the frames are others.
    is_touched: bool,
    /// A frame of this client was decided that its first one had to wait for.
    has_progressed: bool,
}

impl ClientQueue {
    /// The place of the first frame of a list, in the client's order.
    fn first_of(&self, frames: &VecDeque<Frame>) -> Option<usize> {
        let signed = match self.signed {
            0 => None,
            _ => frames.iter().position(Frame::is_signed),
        };
        signed.or((!frames.is_empty()).then_some(0))
    }

    /// The first pending frame, in the client's order.
    fn first(&self) -> Option<&Frame> {
        let lists = [&self.queued, &self.in_flight].into_iter();
        let first = lists.filter_map(|frames| frames.get(self.first_of(frames)?));
        first.min_by_key(|frame| order(frame))
    }

    /// The places of the queued frames that come after this one in the client's order, from the last on.
    fn behind(&self, frame: &Frame) -> impl Iterator<Item = usize> {
        let of_kind = |signed: bool| {
            let places = (0..self.queued.len()).rev();
            places.filter(move |at| self.queued[*at].is_signed() == signed)
        };
        let behind = of_kind(false).chain(of_kind(true));
        let own = order(frame);
        behind.take_while(move |at| order(&self.queued[*at]) > own)
    }

    /// The place of the frame to be taken next. Every other turn is the first frame's, which backups wait
    /// for; the others go round the client's sessions, so that none waits for another that has much to ask.
    fn next(&self) -> Option<usize> {
        let (first, last) = (self.queued.front()?, self.queued.back()?);
        if self.first_is_next {
            return self.first_of(&self.queued);
        }
        let is_one_session = sequence(first).session() == sequence(last).session();
        if is_one_session {
            return Some(0);
        }
        let is_served = |frame: &Frame| sequence(frame).session() <= self.served;
        let next = self.queued.partition_point(is_served);
        Some(if next < self.queued.len() { next } else { 0 })
    }

    /// Takes the frame at that place out.
    fn take(&mut self, next: usize) -> Option<Frame> {
        let taken = self.queued.remove(next)?;
        if !self.first_is_next {
            self.served = sequence(&taken).session();
        }
        self.first_is_next = !self.first_is_next;
        Some(taken)
    }
}

fn position(frames: &VecDeque<Frame>, number: FrameSeq) -> Result<usize, usize> {
    // Frames are decided oldest first and arrive newest last: most look-ups end at one of the ends.
    match (frames.front(), frames.back()) {
        (Some(first), _) if sequence(first) == number => Ok(0),
        (_, Some(last)) if sequence(last) < number => Err(frames.len()),
        _ => frames.binary_search_by_key(&number, sequence),
    }
}

/// Inserts a frame whose key is not in the list.
fn insert(frames: &mut VecDeque<Frame>, frame: Frame) {
    let (Ok(at) | Err(at)) = position(frames, sequence(&frame));
    frames.insert(at, frame);
}

/// The frames that are not decided yet: each at most once, each client within its quota, and batches made
/// from them fairly. A client without frames costs nothing but its entry.
///
/// # Whom a leader can be blamed for
/// A backup replaces a leader for a client's sake, so a client must not be able to have a leader refuse what
/// a backup waits for. Quotas are what a client plays with: it fills its own at the leader, or has others
/// fill all, and shows one frame more to backups. So:
///
/// - **A client's frames have an order everywhere:** what is signed before what is not, and then by session
///   and number. The first has at least every other turn, and crowds out its client's later ones where there
///   is no room. A client that has nothing queued may queue one frame, however full the pool is. So
///   *whatever* is pending at a leader, it takes in a frame before all that its client has queued there.
/// - **A client waits for its first frame alone, from when it became that,** or from when one below it was
///   decided, last ([`waiting`](Self::waiting)). What is later waits for what is earlier, at a correct leader
///   as well.
/// - **Only what proves itself to everybody is held against a leader.** MACs convince those that a client
///   chose; a client none of whose frames is signed is asked for a signature when it waits long, whichever it
///   sends ([`lacks_proof`](Self::lacks_proof), `Replica::urge_pending`), and that counts from when it came.
///   What a process left behind that has ended is signed by nobody, nor is what others have executed and
///   answered before a leader fell silent: were such a frame first by its number, its client could not have a
///   leader replaced for what comes after it.
/// - **What waits is passed on again** once in a review period, and then nothing else of its client: so that
///   it is not lost in what the leader may refuse to look at ([`PeerVerifyGate`](super::PeerVerifyGate)).
///
/// *A client cannot have a correct leader blamed.* Let its first frame x wait at a backup, signed. It is
/// passed on, and the leader takes it in: by the order if it is before what its client has queued there, and
/// because nothing is queued otherwise. If its client has signed ones with lower numbers there, these are
/// proposed first, in turn with other clients' frames, and each that is decided sets the backup's clock back;
/// if it has none, x is in the next turn or the one after. What settles x at the leader (decided, or left
/// behind by its client's window) settles it at the backup, by the same decisions.
///
/// *A leader that censors an honest client is blamed.* f+1 correct replicas hold the client's first frame x,
/// signed. Only decisions of frames below it set the clock back. An honest client has fewer than
/// [`CLIENT_WINDOW`](crate::smr::execution::CLIENT_WINDOW) such in each session, and each of them is the first
/// in its turn: so each has to be decided in time. *This is about an identity, not about each of its processes:* one with
/// a higher session can be kept waiting by a faulty leader for as long as the leader serves another with a
/// lower one. Who cannot have that gives each process an identity.
///
/// Invariants: a client is in `round` exactly when its `in_round` is set, once, and at least whenever it has
/// queued frames; `bytes`, `frames` and `queued` are the sums over the clients, `crowd` that of what is
/// beyond their shares; a client has a clock if it has a frame, unless it is in `touched`; no pending frame
/// was decided or is stale.
#[derive(Debug)]
pub struct RequestPool {
    limits: PoolLimits,
    clients: Vec<ClientQueue>,
    /// Whose turn is next: the clients with queued frames, and some that just lost theirs.
    round: VecDeque<ClientId>,
    /// The clients' clocks, by time; and of those with a frame that is signed.
    waiting: BTreeSet<(Time, ClientId)>,
    proven: BTreeSet<(Time, ClientId)>,
    /// Clients whose clocks are to be set.
    touched: Vec<ClientId>,
    frames: usize,
    queued: usize,
    bytes: usize,
    /// How many bytes clients have pending beyond their shares.
    crowd: usize,
    crowded_out: u64,
}

impl RequestPool {
    /// An empty pool for clients `0..clients`.
    #[must_use]
    pub fn new(clients: usize, limits: PoolLimits) -> Self {
        Self {
            limits,
            clients: (0..clients).map(|_| ClientQueue::default()).collect(),
            round: VecDeque::new(),
            waiting: BTreeSet::new(),
            proven: BTreeSet::new(),
            touched: Vec::new(),
            frames: 0,
            queued: 0,
            bytes: 0,
            crowd: 0,
            crowded_out: 0,
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
            FrameStatus::Executed => return Offer::AlreadyDecided,
            FrameStatus::Stale => return Offer::Stale,
            FrameStatus::Ended => return Offer::SessionEnded,
            FrameStatus::Fresh => {}
        }
        match position(&client.queued, sequence) {
            Ok(at) => {
                self.prove(now, id, at, frame);
                return Offer::Duplicate;
            }
            Err(_) if position(&client.in_flight, sequence).is_ok() => return Offer::Duplicate,
            Err(_) => {}
        }
        if !self.make_room(&frame) && !active(Mutant::QuotaUnchecked) {
            return Offer::OverQuota;
        }
        self.enter(id, frame);
        let client = &mut self.clients[id.get() as usize];
        if !client.in_round {
            client.in_round = true;
            self.round.push_back(id);
        }
        self.set_clock(now, id);
        Offer::Queued
    }

    /// A frame is offered that is queued at `at`. One with a signature takes the place of one with MACs.
    fn prove(&mut self, now: Time, id: ClientId, at: usize, frame: Frame) {
        let client = &mut self.clients[id.get() as usize];
        if !frame.is_signed() || client.queued[at].is_signed() {
            return;
        }
        let gone = client.queued.remove(at);
        self.queued -= 1;
        self.leave(id, gone);
        self.enter(id, frame);
        self.set_clock(now, id);
    }

    /// Whether there is room for a frame, perhaps because its client's later ones make it.
    fn make_room(&mut self, frame: &Frame) -> bool {
        let id = frame.key().client;
        let bytes = frame.bytes().len();
        let client = &self.clients[id.get() as usize];
        let count = client.queued.len() + client.in_flight.len();
        let (mut gone, mut freed) = (Vec::new(), 0);
        let mut behind = client.behind(frame);
        while !self.fits(id, count - gone.len(), client.bytes - freed + bytes) {
            match behind.next() {
                Some(at) => {
                    freed += client.queued[at].bytes().len();
                    gone.push(at);
                }
                None if gone.len() == client.queued.len() => break,
                None => return false,
            }
        }
        drop(behind);
        gone.sort_unstable();
        for at in gone.into_iter().rev() {
            let crowded_out = self.clients[id.get() as usize].queued.remove(at);
            self.queued -= 1;
            self.crowded_out += 1;
            self.leave(id, crowded_out);
        }
        true
    }

    /// Whether a client may have so many frames of so many bytes before it has one more.
    fn fits(&self, id: ClientId, frames: usize, bytes: usize) -> bool {
        let client = &self.clients[id.get() as usize];
        let crowd = self.crowd - self.beyond_share(client.bytes) + self.beyond_share(bytes);
        frames < self.limits.frames_per_client
            && bytes <= self.limits.bytes_per_client
            && (bytes <= self.share() || crowd <= self.limits.bytes_max / 2)
    }

    /// What is kept for each client, whatever others do.
    fn share(&self) -> usize {
        self.limits.bytes_max / 2 / self.clients.len().max(1)
    }

    fn beyond_share(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.share())
    }

    /// Books a frame in that is queued from now on.
    fn enter(&mut self, id: ClientId, frame: Frame) {
        self.change_bytes(id, frame.bytes().len() as isize);
        self.frames += 1;
        self.queued += 1;
        let client = &mut self.clients[id.get() as usize];
        client.signed += usize::from(frame.is_signed());
        insert(&mut client.queued, frame);
    }

    fn change_bytes(&mut self, id: ClientId, by: isize) {
        let before = self.clients[id.get() as usize].bytes;
        let after = before.saturating_add_signed(by);
        self.crowd = self.crowd - self.beyond_share(before) + self.beyond_share(after);
        self.bytes = self.bytes.saturating_add_signed(by);
        self.clients[id.get() as usize].bytes = after;
    }

    /// The clock of a client whose frames are others, or whose lower ones were decided.
    fn set_clock(&mut self, now: Time, id: ClientId) {
        let client = &mut self.clients[id.get() as usize];
        client.is_touched = false;
        let has_progressed = std::mem::take(&mut client.has_progressed);
        let before = client.clock;
        let first = client.first();
        let number = first.map(sequence);
        let goes_on = before.filter(|clock| Some(clock.first) == number && !has_progressed);
        let is_signed = first.is_some_and(Frame::is_signed);
        let since = goes_on.map_or(now, |clock| clock.since);
        let proven = is_signed.then(|| goes_on.and_then(|clock| clock.proven).unwrap_or(now));
        client.clock = number.map(|first| Clock { first, since, proven });
        if client.clock == before {
            return;
        }
        if let Some(clock) = before {
            self.waiting.remove(&(clock.since, id));
            clock.proven.map(|proven| self.proven.remove(&(proven, id)));
        }
        if let Some(clock) = client.clock {
            self.waiting.insert((clock.since, id));
            clock.proven.map(|proven| self.proven.insert((proven, id)));
        }
    }

    fn touch(&mut self, id: ClientId) {
        let client = &mut self.clients[id.get() as usize];
        if !std::mem::replace(&mut client.is_touched, true) {
            self.touched.push(id);
        }
    }

    /// Since when the client waits that waits longest: for its first pending frame, from when it became that, and from when one below it was decided last. Called at the end of a turn; `now`
    /// never runs backwards.
    pub fn waiting(&mut self, now: Time) -> Waiting {
        for id in std::mem::take(&mut self.touched) {
            if self.clients[id.get() as usize].is_touched {
                self.set_clock(now, id);
            }
        }
        let clocks = match active(Mutant::MacsBlamed) {
            true => &self.waiting,
            false => &self.proven,
        };
        let proven = clocks.first().and_then(|(at, id)| {
            let Clock { since, .. } = self.clients[id.get() as usize].clock?;
            Some(Proven { since, at: *at })
        });
        Waiting {
            oldest: self.waiting.first().map(|(since, _)| *since),
            proven,
        }
    }

    /// The first frame of each client that waits for so long, and whether it is signed: who waits longest
    /// first.
    pub fn overdue(&self, now: Time, long: Duration) -> impl Iterator<Item = (&Frame, bool)> {
        let overdue = self
            .waiting
            .iter()
            .take_while(move |(since, _)| now.since(*since) >= long);
        overdue.filter_map(|(_, id)| {
            let first = self.clients[id.get() as usize].first()?;
            Some((first, first.is_signed()))
        })
    }

    /// Whether a client waits so long for what proves itself to some only, and has nothing pending that proves
    /// itself to everybody. It is asked for a signature whichever frame it sends, also when there is no room for
    /// it: what is first here may be another process's that has ended, or have been executed and answered by
    /// others, and then nobody would sign that. A client signs the first that it still waits for.
    #[must_use]
    pub fn lacks_proof(&self, now: Time, client: ClientId, long: Duration) -> bool {
        let client = self.clients.get(client.get() as usize);
        let waits = |clock: Clock| clock.proven.is_none() && now.since(clock.since) >= long;
        client.and_then(|client| client.clock).is_some_and(waits)
    }

    /// Whether a client waits so long for an earlier frame than this one.
    #[must_use]
    pub fn waits_for_earlier(&self, now: Time, frame: &Frame, long: Duration) -> bool {
        let client = self.clients.get(frame.key().client.get() as usize);
        client.and_then(|client| client.clock).is_some_and(|clock| {
            (clock.proven.is_none(), clock.first) < order(frame) && now.since(clock.since) >= long
        })
    }

    /// How many frames made room for earlier ones of their clients.
    #[must_use]
    pub fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    /// Takes the next batch and what it [counts](Frame::counted_bytes) as in bytes: one frame of each client
    /// in turn, of each of its sessions in turn, each session's in the order of their numbers, until a limit
    /// is met. `None` when nothing is queued. The turn that could not be served is the first of the next
    /// batch. A frame longer than `bytes_max` makes a batch of its own, and so does a change of the membership.
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
            let frame_bytes = client.queued[next].counted_bytes();
            let is_change = client.queued[next].mode() == Mode::Change && !active(Mutant::ChangesMixed);
            if !batch.is_empty() && (is_change || bytes + frame_bytes > bytes_max) {
                self.round.push_front(id);
                break;
            }
            let Some(taken) = client.take(next) else {
                break;
            };
            bytes += frame_bytes;
            batch.push(taken.clone());
            insert(&mut client.in_flight, taken);
            self.queued -= 1;
            if client.queued.is_empty() {
                client.in_round = false;
            } else {
                self.round.push_back(id);
            }
            if is_change {
                break;
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
            // A faulty leader may have old frames decided again.
            let is_new = client.decided.check(sequence) == FrameStatus::Fresh;
            let ended = client.decided.record(sequence);
            if let Some(clock) = client.clock {
                client.has_progressed |= is_new && sequence <= clock.first && !active(Mutant::QuotaBlamed);
                self.touch(id);
            }
            let client = &mut self.clients[id.get() as usize];
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

    /// Removes a client's queued frames that MACs prove, and says which: perhaps they do not prove them to
    /// everybody.
    pub fn drop_unsigned(&mut self, id: ClientId) -> Vec<FrameId> {
        let Some(client) = self.clients.get_mut(id.get() as usize) else {
            return Vec::new();
        };
        let queued = std::mem::take(&mut client.queued);
        let (queued, unsigned): (VecDeque<_>, VecDeque<_>) = queued.into_iter().partition(Frame::is_signed);
        client.queued = queued;
        self.queued -= unsigned.len();
        let frames = unsigned.iter().map(Frame::id).collect();
        unsigned.into_iter().for_each(|gone| self.leave(id, Some(gone)));
        self.touch(id);
        frames
    }

    /// Whether a frame was decided, or never will be executed.
    #[must_use]
    pub fn is_decided(&self, key: FrameKey) -> bool {
        let client = self.clients.get(key.client.get() as usize);
        client.is_none_or(|client| client.decided.check(key.sequence) != FrameStatus::Fresh)
    }

    /// How many clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Takes over what is known to be decided of a client, from a checkpoint. Pending frames that it settles
    /// are removed.
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
        let is_fresh = |frame: &Frame| client.decided.check(sequence(frame)) == FrameStatus::Fresh;
        let (queued, settled): (VecDeque<_>, VecDeque<_>) = queued.into_iter().partition(is_fresh);
        let (in_flight, taken): (VecDeque<_>, VecDeque<_>) = in_flight.into_iter().partition(is_fresh);
        client.queued = queued;
        client.in_flight = in_flight;
        self.queued -= settled.len();
        let gone = settled.into_iter().chain(taken);
        gone.for_each(|gone| self.leave(id, Some(gone)));
        self.touch(id);
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
            let settled = |frames: &VecDeque<Frame>| {
                let (Ok(at) | Err(at)) = position(frames, FrameSeq::of(session, 0));
                let first = sequence(frames.get(at)?);
                let is_settled = first.session() == session && decided.check(first) == FrameStatus::Stale;
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
    fn leave(&mut self, id: ClientId, gone: Option<Frame>) {
        let Some(frame) = gone else {
            return;
        };
        self.change_bytes(id, -(frame.bytes().len() as isize));
        self.clients[id.get() as usize].signed -= usize::from(frame.is_signed());
        self.frames -= 1;
    }
}
