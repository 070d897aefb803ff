//! The established links of one data shard, on its ring.
//!
//! Receiving is one multishot operation per link into provided buffers. Sending is one operation at a time:
//! while it is under way messages gather, a line for each family, and leave together in the next records,
//! those of transfers last. A link whose messages are not taken stops receiving until they are: the peer's window
//! closes, and the pressure ends with it.
//!
//! Each end says something every second on every link, a ping if need be: a link on which nothing comes,
//! though a proxy or a half-dead host acknowledges what is sent, is closed like a broken one.
//!
//! A link that breaks is reported once, and its slot is reused only after the kernel has let go of everything
//! that was submitted for it.

use std::any::Any;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;

use super::keepalive::{Keepalive, Quiet};
use super::reactor::{Completion, Reactor, Token};
pub use super::send_queue::QueueBudgets;
use super::send_queue::{Overflow, SendQueue};
use crate::runtime::net::framing::{FramingError, RecordReader, RecordWriter};
use crate::runtime::net::handshake::Established;
use crate::runtime::net::pool::BufferPool;
use crate::smr::messages::Family;
use crate::smr::types::Peer;
use crate::smr::types::Time;

/// The limits of one link.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// The longest record that is accepted.
    pub record_bytes_max: usize,
    /// The most bytes of messages of each family that wait to be sent.
    pub queues: QueueBudgets,
    /// The most bytes of messages to all clients together, beyond a share for each and one message of any
    /// length.
    pub queues_bytes_max: usize,
    /// Received bytes that wait to be taken; beyond it the link stops receiving.
    pub backlog_bytes_max: usize,
    /// How long the other end may say nothing before the link is given up: it says something every second if
    /// it can.
    pub silence_max: Duration,
}

/// Which link: a slot, and how often the slot was reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireId {
    slot: u16,
    generation: u32,
}

impl WireId {
    /// The link's slot: two open links never share one.
    #[must_use]
    pub fn slot(self) -> usize {
        usize::from(self.slot)
    }
}

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The other end closed or reset it.
    Disconnected,
    /// What it sent broke the framing.
    Framing(FramingError),
    /// It takes messages too slowly.
    QueueFull,
    /// This end closed it.
    Closed,
    /// Nothing came for too long, not even a ping: what is sent on it may reach nobody.
    Silent,
}

/// The budget of a message's family is used up on its link, and the message dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link takes messages too slowly")]
pub struct QueueFull;

/// Sealed bytes handed to the kernel at once.
const SEND_BYTES: usize = 256 * 1024;

/// Free receive buffers that a shard keeps: about what the batches between two checkpoints take.
const POOLED_BUFFERS: usize = 256;

const RECEIVE: u8 = 1;
const SEND: u8 = 2;
const CANCEL: u8 = 3;

struct Wire {
    socket: TcpStream,
    /// Held while the link is up: its drop frees the peer's place, or has the peer dialled again.
    _lease: Box<dyn Any + Send>,
    peer: Peer,
    limits: WireLimits,
    reader: RecordReader,
    writer: RecordWriter,
    queue: SendQueue,
    /// Sealed bytes under way. Invariant: unchanged while `is_sending`.
    sending: Vec<u8>,
    sent: usize,
    is_sending: bool,
    is_receiving: bool,
    is_paused: bool,
    is_ready: bool,
    is_dirty: bool,
    is_closing: bool,
    /// Something came, or was sent, since the last look.
    was_heard: bool,
    was_sent: bool,
    quiet: Quiet,
}

/// All links of a shard.
pub struct Wires {
    owner: u8,
    wires: Vec<Option<Wire>>,
    generations: Vec<u32>,
    pool: BufferPool,
    free: Vec<u16>,
    dirty: Vec<u16>,
    ready_replicas: VecDeque<u16>,
    ready_clients: VecDeque<u16>,
    closed: Vec<(WireId, Peer, CloseReason)>,
    open: usize,
    keepalive: Keepalive,
    /// Bytes of messages that wait to be sent to clients.
    clients_queue_bytes: usize,
}

impl Wires {
    /// No links yet; at most `capacity`. `owner` marks this set's completions.
    #[must_use]
    pub fn new(owner: u8, capacity: u16) -> Self {
        Self {
            owner,
            wires: (0..capacity).map(|_| None).collect(),
            generations: vec![0; usize::from(capacity)],
            pool: BufferPool::new(POOLED_BUFFERS),
            free: (0..capacity).rev().collect(),
            dirty: Vec::new(),
            ready_replicas: VecDeque::new(),
            ready_clients: VecDeque::new(),
            closed: Vec::new(),
            open: 0,
            keepalive: Keepalive::default(),
            clients_queue_bytes: 0,
        }
    }

    /// Takes over an established link and begins to receive; `lease` is dropped when the link has ended.
    /// `None` when there is no slot or the socket is dead.
    pub fn add(
        &mut self,
        reactor: &mut Reactor,
        socket: OwnedFd,
        link: Established,
        lease: Box<dyn Any + Send>,
        limits: WireLimits,
    ) -> Option<WireId> {
        let slot = self.free.pop()?;
        let socket = TcpStream::from(socket);
        if reactor.set_file(slot, socket.as_raw_fd()).is_err() {
            self.free.push(slot);
            return None;
        }
        self.wires[usize::from(slot)] = Some(Wire {
            socket,
            _lease: lease,
            peer: link.peer,
            limits,
            reader: RecordReader::new(link.opener, limits.record_bytes_max, self.pool.clone()),
            writer: RecordWriter::new(link.sealer),
            queue: SendQueue::default(),
            sending: Vec::new(),
            sent: 0,
            is_sending: false,
            is_receiving: true,
            is_paused: false,
            is_ready: false,
            is_dirty: false,
            is_closing: false,
            was_heard: true,
            was_sent: false,
            quiet: Quiet::default(),
        });
        self.open += 1;
        reactor.receive(slot, self.token(slot, RECEIVE));
        Some(WireId {
            slot,
            generation: self.generations[usize::from(slot)],
        })
    }

    /// How many links are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Queues a message of a family. It leaves with the next [`flush`](Self::flush) that finds the link idle.
    ///
    /// # Errors
    /// When too much of its family is waiting already. If it is
    /// [asked for again](Family::is_asked_for_again) the message is dropped, and the link stays: nobody can
    /// end it by having much sent on it. Otherwise the link is being closed, because a message was lost on it.
    pub fn queue(&mut self, id: WireId, family: Family, message: Bytes) -> Result<(), QueueFull> {
        let (queued, links) = (self.clients_queue_bytes + message.len(), self.wires.len().max(1));
        let Some(wire) = self.get(id) else { return Ok(()) };
        let is_client = matches!(wire.peer, Peer::Client(_));
        let (waiting, limits) = (wire.queue.bytes_of(family), wire.limits);
        let is_crowd = is_client
            && family.is_asked_for_again()
            && queued > limits.queues_bytes_max
            && waiting + message.len() > limits.queues_bytes_max / links;
        if is_crowd && waiting > 0 {
            return Err(QueueFull);
        }
        match wire.queue.push(family, message, &limits.queues) {
            Ok(()) => {}
            Err(Overflow::Dropped) => return Err(QueueFull),
            Err(Overflow::Lost) => {
                self.close(id, CloseReason::QueueFull);
                return Err(QueueFull);
            }
        }
        if !wire.is_dirty {
            wire.is_dirty = true;
            self.dirty.push(id.slot);
        }
        if is_client {
            self.clients_queue_bytes = queued;
        }
        Ok(())
    }

    /// The next received message of any replica (or of any client), the links taking turns.
    pub fn next_message(&mut self, replicas: bool) -> Option<(WireId, Peer, Bytes)> {
        loop {
            let ready = if replicas {
                &mut self.ready_replicas
            } else {
                &mut self.ready_clients
            };
            let slot = ready.pop_front()?;
            let generation = self.generations[usize::from(slot)];
            let Some(wire) = self.wires[usize::from(slot)]
                .as_mut()
                .filter(|wire| !wire.is_closing)
            else {
                continue;
            };
            match wire.reader.next_message() {
                Ok(Some(message)) => {
                    let ready = if replicas {
                        &mut self.ready_replicas
                    } else {
                        &mut self.ready_clients
                    };
                    ready.push_back(slot);
                    if wire.is_paused
                        && wire.reader.backlog_bytes() < wire.limits.backlog_bytes_max / 2
                        && !wire.is_dirty
                    {
                        wire.is_dirty = true;
                        self.dirty.push(slot);
                    }
                    return Some((WireId { slot, generation }, wire.peer, message));
                }
                Ok(None) => wire.is_ready = false,
                Err(error) => self.close(WireId { slot, generation }, CloseReason::Framing(error)),
            }
        }
    }

    /// Says `ping` on every link on which nothing was said for a while, and ends those on which nothing is
    /// heard. To be called in every turn, and at [`next_look`](Self::next_look) at the latest.
    pub fn keep_alive(&mut self, now: Time, ping: &Bytes) {
        let Some(unheard) = self.keepalive.look(now) else {
            return;
        };
        for slot in 0..self.wires.len() {
            let generation = self.generations[slot];
            let Some(wire) = self.wires[slot].as_mut().filter(|wire| !wire.is_closing) else {
                continue;
            };
            // A link that takes nothing for the moment hears nothing.
            let was_heard = std::mem::take(&mut wire.was_heard) || wire.is_paused;
            let is_idle = !std::mem::take(&mut wire.was_sent) && !wire.is_sending && wire.queue.is_empty();
            let silence = wire.quiet.after(unheard, was_heard);
            let id = WireId {
                slot: slot as u16,
                generation,
            };
            if silence > wire.limits.silence_max {
                self.close(id, CloseReason::Silent);
            } else if is_idle {
                // One small message fits into an empty queue.
                let _ = self.queue(id, Family::Reconfiguration, ping.clone());
            }
        }
    }

    /// When links are to be looked at again; never if there are none.
    #[must_use]
    pub fn next_look(&self) -> Option<Time> {
        (self.open > 0).then(|| self.keepalive.next_look())
    }

    /// Whether a received message may be waiting.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        !self.ready_replicas.is_empty() || !self.ready_clients.is_empty()
    }

    /// Whether everything queued was given to the kernel and taken by it.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.wires
            .iter()
            .flatten()
            .all(|wire| wire.is_closing || (!wire.is_sending && wire.queue.is_empty()))
    }

    /// Submits what can be sent, and resumes links whose backlog was taken.
    pub fn flush(&mut self, reactor: &mut Reactor) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let (send_token, receive_token) = (self.token(slot, SEND), self.token(slot, RECEIVE));
            let Some(wire) = self.wires[usize::from(slot)].as_mut() else {
                continue;
            };
            wire.is_dirty = false;
            if wire.is_closing {
                self.release(reactor, slot);
                continue;
            }
            if wire.is_paused && wire.reader.backlog_bytes() < wire.limits.backlog_bytes_max / 2 {
                wire.is_paused = false;
                if !wire.is_receiving {
                    wire.is_receiving = true;
                    reactor.receive(slot, receive_token);
                }
            }
            let before = wire.queue.bytes();
            if !wire.is_sending && !wire.queue.is_empty() && wire.seal().is_ok() {
                wire.is_sending = true;
                if matches!(wire.peer, Peer::Client(_)) {
                    self.clients_queue_bytes -= before - wire.queue.bytes();
                }
                // SAFETY: `sending` is not touched while `is_sending`, and the slot is kept until the
                // completion.
                unsafe { reactor.send(slot, &wire.sending, send_token) };
            }
        }
        self.dirty = dirty;
    }

    /// Handles a completion that carries this set's owner.
    pub fn on_completion(&mut self, reactor: &mut Reactor, completion: Completion) {
        let Token {
            slot,
            operation,
            generation,
            ..
        } = completion.token;
        let current = self.generations.get(usize::from(slot)) == Some(&generation);
        match operation {
            RECEIVE if current => self.on_received(reactor, slot, completion),
            SEND if current => self.on_sent(reactor, slot, completion.result),
            _ => {
                if let Some(buffer) = completion.buffer {
                    reactor.recycle(buffer);
                }
            }
        }
        if current {
            self.release(reactor, slot);
        }
    }

    fn on_received(&mut self, reactor: &mut Reactor, slot: u16, completion: Completion) {
        let (receive, cancel) = (self.token(slot, RECEIVE), self.token(slot, CANCEL));
        let id = WireId {
            slot,
            generation: self.generations[usize::from(slot)],
        };
        let Some(wire) = self.wires[usize::from(slot)].as_mut() else {
            return;
        };
        wire.is_receiving = completion.more;
        wire.was_heard |= completion.result > 0;
        let mut outcome = Ok(());
        if let Some(buffer) = completion.buffer {
            if completion.result > 0 && !wire.is_closing {
                outcome = wire
                    .reader
                    .push(reactor.received(buffer, completion.result as usize));
            }
            reactor.recycle(buffer);
        }
        if wire.is_closing {
            return;
        }
        match completion.result {
            1.. => {}
            // Out of buffers for the moment, or stopped by ourselves.
            result if result == -libc::ENOBUFS || result == -libc::ECANCELED => {}
            _ => return self.close(id, CloseReason::Disconnected),
        }
        if let Err(error) = outcome {
            return self.close(id, CloseReason::Framing(error));
        }
        if !wire.is_ready && wire.reader.backlog_bytes() > 0 {
            wire.is_ready = true;
            match wire.peer {
                Peer::Replica(_) => self.ready_replicas.push_back(slot),
                Peer::Client(_) => self.ready_clients.push_back(slot),
            }
        }
        if !wire.is_paused && wire.reader.backlog_bytes() > wire.limits.backlog_bytes_max {
            wire.is_paused = true;
            if wire.is_receiving {
                reactor.cancel(receive, cancel);
            }
        }
        if !wire.is_receiving && !wire.is_paused {
            wire.is_receiving = true;
            reactor.receive(slot, receive);
        }
    }

    fn on_sent(&mut self, reactor: &mut Reactor, slot: u16, result: i32) {
        let token = self.token(slot, SEND);
        let id = WireId {
            slot,
            generation: self.generations[usize::from(slot)],
        };
        let Some(wire) = self.wires[usize::from(slot)].as_mut() else {
            return;
        };
        wire.is_sending = false;
        wire.was_sent = true;
        if result <= 0 {
            return self.close(id, CloseReason::Disconnected);
        }
        wire.sent += result as usize;
        if wire.is_closing {
            return;
        }
        if wire.sent < wire.sending.len() {
            // A short send: the rest goes next.
            wire.is_sending = true;
            // SAFETY: as in `flush`.
            unsafe { reactor.send(slot, &wire.sending[wire.sent..], token) };
        } else if !wire.queue.is_empty() && !wire.is_dirty {
            wire.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Ends a link. Its messages are lost; its end is reported by [`take_closed`](Self::take_closed).
    pub fn close(&mut self, id: WireId, reason: CloseReason) {
        let Some(wire) = self.get(id) else { return };
        wire.is_closing = true;
        let gone = wire.queue.clear();
        // Makes everything under way complete.
        let _ = wire.socket.shutdown(Shutdown::Both);
        let peer = wire.peer;
        if !wire.is_dirty {
            wire.is_dirty = true;
            self.dirty.push(id.slot);
        }
        if matches!(peer, Peer::Client(_)) {
            self.clients_queue_bytes -= gone;
        }
        self.closed.push((id, peer, reason));
        self.open -= 1;
    }

    /// The links that ended since the last call.
    pub fn take_closed(&mut self) -> Vec<(WireId, Peer, CloseReason)> {
        std::mem::take(&mut self.closed)
    }

    fn release(&mut self, reactor: &mut Reactor, slot: u16) {
        let index = usize::from(slot);
        let done = |wire: &Wire| wire.is_closing && !wire.is_sending && !wire.is_receiving;
        if self.wires[index].as_ref().is_some_and(done) {
            let _ = reactor.set_file(slot, -1);
            self.wires[index] = None;
            self.generations[index] = self.generations[index].wrapping_add(1);
            self.free.push(slot);
        }
    }

    fn get(&mut self, id: WireId) -> Option<&mut Wire> {
        if self.generations.get(usize::from(id.slot)) != Some(&id.generation) {
            return None;
        }
        self.wires[usize::from(id.slot)]
            .as_mut()
            .filter(|wire| !wire.is_closing)
    }

    fn token(&self, slot: u16, operation: u8) -> Token {
        Token {
            owner: self.owner,
            operation,
            slot,
            generation: self.generations[usize::from(slot)],
        }
    }
}

impl Wire {
    fn seal(&mut self) -> Result<(), crate::smr::crypto::SealError> {
        if self.sending.capacity() > 16 * SEND_BYTES {
            self.sending = Vec::new();
        }
        self.sending.clear();
        self.sent = 0;
        self.queue.seal(&mut self.writer, &mut self.sending, SEND_BYTES)
    }
}

#[cfg(test)]
mod tests;
