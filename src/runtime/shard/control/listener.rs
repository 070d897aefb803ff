//! Accepting: a bounded number of handshakes at once, each with a deadline, and a place for whoever proves to
//! have one.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Instant;

use futures_channel::oneshot;
use futures_lite::future;
use glommio::io::PollableFd;
use glommio::timer::sleep;

use super::connection_slots::ConnectionSlot;
use super::handshakes::Evicted;
use super::socket::{read_exactly, write_all};
use super::{EstablishedLink, LinkLease, Shard};
use crate::runtime::flight::{FlightEvent, FlightKind};
use crate::runtime::net::handshake::{Established, Responder, Then};
use crate::runtime::net::hello::HandshakeRefusal;

/// Accepts connections until it is cancelled.
pub(super) async fn accept_all(shard: Rc<Shard>, listener: TcpListener) {
    let listener = match PollableFd::new(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the listening socket cannot be awaited: nobody can connect");
            return;
        }
    };
    loop {
        if let Err(error) = listener.readable().await {
            tracing::warn!(%error, "waiting for connections failed");
            sleep(shard.limits.accept_pause).await;
            continue;
        }
        shard.reap();
        shard.make_room().await;
        match listener.get_ref().accept() {
            Ok((stream, from)) => shard.begin(stream, from),
            Err(error) => match on_accept_error(&error) {
                AfterAcceptError::Wait => {}
                AfterAcceptError::Next => shard.counters.on_accept_error(),
                AfterAcceptError::Pause => {
                    shard.counters.on_accept_error();
                    if let Some(held_back) = shard.refusal_log.pass(Instant::now()) {
                        tracing::warn!(%error, held_back, "connections wait: accepting failed");
                    }
                    sleep(shard.limits.accept_pause).await;
                }
            },
        }
        glommio::yield_if_needed().await;
    }
}

/// What to do after an accept that gave no connection.
#[derive(Debug, PartialEq, Eq)]
enum AfterAcceptError {
    /// Nobody is there.
    Wait,
    /// That one connection is gone: on to the next.
    Next,
    /// A lack of the process or the system, which the waiting connection would meet again at once.
    Pause,
}

fn on_accept_error(error: &io::Error) -> AfterAcceptError {
    match error.kind() {
        ErrorKind::WouldBlock => AfterAcceptError::Wait,
        ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {
            AfterAcceptError::Next
        }
        _ => AfterAcceptError::Pause,
    }
}

impl Shard {
    /// Waits until one more handshake may begin. When none ends in time, one is ended that has had its grace:
    /// strangers cannot keep others out for long.
    async fn make_room(&self) {
        let max = self.limits.handshakes_max.max(1);
        while self.handshakes.under_way() >= max {
            let limits = &self.limits;
            let evicted = self
                .handshakes
                .evict(Instant::now(), limits.silent_grace, limits.handshake_grace);
            match evicted {
                Evicted::One | Evicted::None => return,
                Evicted::NotBefore(wait) => {
                    future::or(self.handshakes.fewer_than(max), sleep(wait)).await;
                }
            }
        }
    }

    /// Forgets the tasks that have ended.
    fn reap(&self) {
        let mut tasks = self.tasks.borrow_mut();
        for id in self.ended.take() {
            tasks.remove(&id);
        }
    }

    fn begin(self: &Rc<Self>, stream: TcpStream, from: SocketAddr) {
        self.counters.on_accepted();
        let id = self.next_task.get();
        self.next_task.set(id + 1);
        let evicted = self.handshakes.begin(id, from.ip(), Instant::now());
        let shard = Rc::clone(self);
        let task = glommio::spawn_local(async move {
            shard.serve(id, stream, from, evicted).await;
            shard.ended.borrow_mut().push(id);
        });
        self.tasks.borrow_mut().insert(id, task);
    }

    /// One accepted connection from its first byte until its link is down.
    async fn serve(&self, id: u64, stream: TcpStream, from: SocketAddr, evicted: oneshot::Receiver<()>) {
        let stream = match self
            .limits
            .socket
            .apply(&stream)
            .map(|()| PollableFd::new(stream))
        {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => {
                self.handshakes.end(id, false);
                self.on_refused(from, HandshakeRefusal::Disconnected);
                return;
            }
        };
        let result = self.answer(id, &stream, evicted).await;
        self.handshakes.end(id, result.is_ok());
        match result {
            Ok((established, place)) => {
                let peer = established.peer;
                let (lease, down) = LinkLease::new();
                tracing::info!(%peer, %from, "link up");
                self.hand_out(EstablishedLink {
                    socket: stream.into_inner().into(),
                    established,
                    dialled: false,
                    lease,
                });
                let _ = down.await;
                drop(place);
                tracing::info!(%peer, %from, "link down");
            }
            Err(refusal) => {
                self.on_refused(from, refusal);
                // Says why, if that is possible at once.
                let _ = stream.get_ref().write(&refusal.verdict());
            }
        }
    }

    /// The handshake within its bounds.
    async fn answer(
        &self,
        id: u64,
        stream: &PollableFd<TcpStream>,
        evicted: oneshot::Receiver<()>,
    ) -> Result<(Box<Established>, ConnectionSlot), HandshakeRefusal> {
        let evicted = async {
            let _ = evicted.await;
            Err(HandshakeRefusal::Capacity)
        };
        let bounded = async {
            glommio::future::timeout(self.limits.handshake_deadline, self.respond(id, stream))
                .await
                .unwrap_or(Err(HandshakeRefusal::Timeout))
        };
        future::or(bounded, evicted).await
    }

    /// The responder's side of the exchange. The place is taken before the peer is told that it is welcome.
    async fn respond(
        &self,
        id: u64,
        stream: &PollableFd<TcpStream>,
    ) -> Result<(Box<Established>, ConnectionSlot), HandshakeRefusal> {
        let (mut responder, mut progress) = Responder::start(self.identity.clone());
        loop {
            match progress.then {
                Then::Read(wanted) => {
                    write_all(stream, &progress.write).await?;
                    let bytes = read_exactly(stream, wanted).await?;
                    progress = responder.on_bytes(&bytes, &*self.directory)?;
                    self.handshakes.on_hello(id);
                }
                Then::Established(established) => {
                    let place = self.slots.take(established.peer)?;
                    write_all(stream, &progress.write).await?;
                    return Ok((established, place));
                }
            }
        }
    }

    fn on_refused(&self, from: SocketAddr, refusal: HandshakeRefusal) {
        self.counters.on_refused(refusal);
        let event = FlightEvent::of(FlightKind::HandshakeRefused);
        self.pen.record_now(event.numbers(refusal.index() as u64, 0));
        if let Some(held_back) = self.refusal_log.pass(Instant::now()) {
            tracing::warn!(%from, held_back, "connection refused: {refusal}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_descriptors_or_memory_pauses_accepting_and_a_vanished_peer_does_not() {
        for lack in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::EPERM,
        ] {
            let error = io::Error::from_raw_os_error(lack);
            assert_eq!(on_accept_error(&error), AfterAcceptError::Pause, "{error}");
        }
        for gone in [libc::ECONNABORTED, libc::ECONNRESET, libc::EINTR] {
            let error = io::Error::from_raw_os_error(gone);
            assert_eq!(on_accept_error(&error), AfterAcceptError::Next, "{error}");
        }
        let nobody = io::Error::from_raw_os_error(libc::EAGAIN);
        assert_eq!(on_accept_error(&nobody), AfterAcceptError::Wait);
    }
}
