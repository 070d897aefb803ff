mod link_messages;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::consensus_record::record_refusal;
use super::twins::Starts;
use super::{Role, STEP_MESSAGES};
use crate::runtime::config::RoleKind;
use crate::runtime::evidence::{EvidenceKind, Exhibit};
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen, close_code};
use crate::runtime::metrics::{Lane, Measure, Metrics, Recorder, count};
use crate::runtime::shard::control::EstablishedLink;
use crate::runtime::shard::lanes::{FromReplica, LinkReceiver, LinkSender, Outgoing, Raw};
use crate::runtime::shard::network_node::SmrReplicaNetworkNode;
use crate::runtime::shard::reactor::{Completion, Reactor};
use crate::runtime::shard::wires::{CloseReason, QueueFull, WireId};
use crate::smr::messages::{ENVELOPE_BYTES, Envelope, EnvelopeError, Family, Kind, LinkMessage, encode};
use crate::smr::node::{Route, Unroutable, route};
use crate::smr::protocol::{Allowance, Recipients};
use crate::smr::types::Peer;
use crate::smr::types::{ClientId, ClusterId, Epoch, NodeId, Time};

/// The lanes of one network role.
pub(crate) struct NetworkLanes {
    /// Links that came up.
    pub links: LinkReceiver<EstablishedLink>,
    /// Client frames.
    pub client_frames: LinkSender<Raw>,
    /// Replicas' messages with frames: a lane of their own, so that clients never hold them up.
    pub replica_frames: LinkSender<Raw>,
    /// Replicas' other messages.
    pub replica_messages: LinkSender<FromReplica>,
    /// What the other roles send, one lane each.
    pub outgoing: Vec<(Lane, LinkReceiver<Outgoing>)>,
}

/// Serves the sockets of one shard: bytes in, messages out, and back.
pub(crate) struct NetworkRole<N> {
    node: N,
    lanes: NetworkLanes,
    cluster: ClusterId,
    epoch: Epoch,
    replicas: Vec<Option<WireId>>,
    /// By client: a link for each process that uses its identity.
    clients: Vec<Vec<ClientLink>>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    /// What is timed of the replies of this turn, and since when.
    timed: Vec<(Measure, Time)>,
    /// How often operators may still ask, by the client whose keys they use.
    questions: BTreeMap<ClientId, Allowance>,
    now: Time,
    draining: bool,
    said_goodbye: bool,
    ping: Bytes,
    /// What is said first on links with replicas.
    instance: Bytes,
    /// By replica.
    starts: Vec<Starts>,
    pen: FlightPen,
}

/// A link of a client.
struct ClientLink {
    wire: WireId,
    /// The session it serves; `None` before the client says.
    session: Option<u64>,
}

impl<N: SmrReplicaNetworkNode> NetworkRole<N> {
    /// A role whose links are `node`'s, for so many replicas and clients. `instance` is the number of this
    /// start of the replica.
    pub fn new(
        node: N,
        lanes: NetworkLanes,
        (cluster, epoch, instance): (ClusterId, Epoch, u64),
        (replicas, clients): (usize, usize),
        metrics: Arc<Metrics>,
    ) -> Self {
        let link = |message| encode(Envelope::new(Kind::Link, cluster, epoch), &message, 16);
        Self {
            node,
            lanes,
            cluster,
            epoch,
            replicas: vec![None; replicas],
            clients: (0..clients).map(|_| Vec::new()).collect(),
            recorder: metrics.measures.recorder(),
            metrics,
            timed: Vec::new(),
            questions: BTreeMap::new(),
            now: Time::START,
            draining: false,
            said_goodbye: false,
            ping: link(LinkMessage::Ping),
            instance: link(LinkMessage::Instance(instance)),
            starts: (0..replicas).map(|_| Starts::default()).collect(),
            pen: FlightPen::default(),
        }
    }

    fn record(&self, kind: FlightKind, peer: Peer, number: u64) {
        let event = FlightEvent::of(kind).with(Some(peer));
        self.pen.record(self.now, event.numbers(number, 0));
    }

    fn refused(&self, peer: Peer, kind: EvidenceKind, message: Option<&Bytes>) {
        let exhibit = Exhibit {
            message: message.map(|message| &message[..]),
            ..Exhibit::default()
        };
        record_refusal(&self.pen, &self.metrics, self.now, (peer, kind, 1), exhibit);
    }

    fn take_links(&mut self, reactor: &mut Reactor) -> bool {
        let mut any = false;
        while let Some(new) = self.lanes.links.pop() {
            any = true;
            let peer = new.established.peer;
            match peer {
                Peer::Replica(node) => {
                    let Some(entry) = self.replicas.get_mut(node.index()) else {
                        continue;
                    };
                    // The newest link of a replica is the one it uses.
                    if let Some(old) = entry.take() {
                        self.node.close_link(old, CloseReason::Closed);
                    }
                }
                Peer::Client(client) if self.clients.get(client.get() as usize).is_some() => {}
                Peer::Client(_) => continue,
            }
            let Some(wire) = self.node.add_link(reactor, new) else {
                continue;
            };
            let counters = &self.metrics.counters;
            match peer {
                Peer::Replica(node) => {
                    self.replicas[node.index()] = Some(wire);
                    count(&counters.replica_links_up);
                    self.metrics.links_waiters.wake();
                    let _ = self.node.send_reconfiguration(wire, self.instance.clone());
                }
                Peer::Client(client) => {
                    let session = None;
                    self.clients[client.get() as usize].push(ClientLink { wire, session });
                    count(&counters.client_links_up);
                }
            }
            self.record(FlightKind::LinkUp, peer, 0);
            tracing::debug!(peer = %peer, "link up");
        }
        any
    }

    /// A client says which of its sessions a link serves. Another link that served it is what its process had
    /// before.
    fn serve_session(&mut self, client: ClientId, id: WireId, session: u64) {
        let links = &mut self.clients[client.get() as usize];
        for link in links.iter_mut() {
            if link.wire == id {
                link.session = Some(session);
            } else if link.session == Some(session) {
                self.node.close_link(link.wire, CloseReason::Closed);
            }
        }
    }

    fn take_closed(&mut self) {
        for (id, peer, reason) in self.node.take_closed() {
            let counters = &self.metrics.counters;
            match reason {
                CloseReason::Framing(error) => {
                    self.metrics.refuse_record(error);
                    self.refused(peer, EvidenceKind::Record(error), None);
                }
                CloseReason::QueueFull => count(&counters.links_closed_slow),
                CloseReason::Silent => {
                    count(&counters.links_closed_silent);
                    tracing::warn!(%peer, "the link is given up: nothing came on it for too long");
                }
                CloseReason::Disconnected | CloseReason::Closed => {}
            }
            self.record(FlightKind::LinkDown, peer, close_code(reason));
            tracing::debug!(peer = %peer, ?reason, "link down");
            match peer {
                Peer::Replica(node) => {
                    count(&counters.replica_links_down);
                    let entry = &mut self.replicas[node.index()];
                    if *entry == Some(id) {
                        *entry = None;
                    }
                }
                Peer::Client(client) => {
                    count(&counters.client_links_down);
                    self.clients[client.get() as usize].retain(|link| link.wire != id);
                }
            }
        }
    }

    /// Gives one message to the role that reads it; false when its sender may not send such a message.
    fn route(&mut self, id: WireId, peer: Peer, message: Bytes) -> bool {
        let route = match route(&message, peer, (self.cluster, self.epoch)) {
            Ok(route) => route,
            // Who is in another epoch may be late, or ahead.
            Err(Unroutable::Envelope(EnvelopeError::Epoch { .. })) => return false,
            Err(Unroutable::Envelope(_)) => {
                self.refused(peer, EvidenceKind::NoMessage, Some(&message));
                return false;
            }
            Err(Unroutable::Kind) => {
                self.refused(peer, EvidenceKind::Kind, Some(&message));
                return false;
            }
        };
        match route {
            Route::Consensus(from) => {
                self.lanes.replica_messages.push(FromReplica { from, message });
            }
            Route::Frames(from) => {
                self.lanes.replica_frames.push(Raw::WithFrames {
                    from,
                    message,
                    received: self.now,
                });
            }
            Route::Request(client) => {
                // A draining replica answers nothing new; the client goes to the others.
                if !self.draining {
                    let bytes = message.slice(ENVELOPE_BYTES..);
                    self.lanes.client_frames.push(Raw::Frame {
                        client,
                        bytes,
                        received: self.now,
                    });
                }
            }
            // Whoever speaks of another epoch is not of this cluster's only one.
            Route::Reconfiguration(_) | Route::OtherEpoch(..) => return false,
            Route::Question(client) => {
                let is_one = self.on_question(id, client, &message);
                return is_one || self.no_message(peer, &message);
            }
            Route::Link => {
                let may = self.on_link_message(id, peer, &message);
                return may || self.no_message(peer, &message);
            }
        }
        true
    }

    /// What is none, or not of this sender; false.
    fn no_message(&self, peer: Peer, message: &Bytes) -> bool {
        self.refused(peer, EvidenceKind::NoMessage, Some(message));
        false
    }

    fn dispatch(&mut self) -> bool {
        let mut any = false;
        for replicas in [true, false] {
            for _ in 0..STEP_MESSAGES {
                let blocked = match replicas {
                    true => {
                        self.lanes.replica_frames.is_blocked() || self.lanes.replica_messages.is_blocked()
                    }
                    false => self.lanes.client_frames.is_blocked(),
                };
                if blocked {
                    break;
                }
                let Some((id, peer, message)) = self.node.next_message(replicas) else {
                    break;
                };
                any = true;
                self.count_received(peer, message.len());
                if !self.route(id, peer, message) {
                    count(&self.metrics.counters.messages_refused);
                    self.node.close_link(id, CloseReason::Closed);
                }
            }
        }
        self.lanes.client_frames.ring();
        self.lanes.replica_frames.ring();
        self.lanes.replica_messages.ring();
        any
    }

    fn count_received(&self, peer: Peer, bytes: usize) {
        let Metrics {
            counters, measures, ..
        } = &*self.metrics;
        match peer {
            Peer::Replica(node) => {
                count(&counters.messages_from_replicas);
                if let Some(peer) = measures.peer(node) {
                    peer.traffic.received(bytes);
                }
            }
            Peer::Client(_) => {
                count(&counters.messages_from_clients);
                self.recorder.clients.received(bytes);
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Replicas {
                family,
                to: Recipients::Others,
                message,
            } => {
                for index in 0..self.replicas.len() {
                    self.send_to_replica(family, index, message.clone());
                }
            }
            Outgoing::Replicas {
                family,
                to: Recipients::One(node),
                message,
            } => {
                self.send_to_replica(family, node.index(), message);
            }
            Outgoing::Client { to, session, message } => self.send_to_client(to, session, &message),
            Outgoing::Replied { executed } => self.timed.push((Measure::BatchReplied, executed)),
            Outgoing::Answered { received } => self.timed.push((Measure::Request, received)),
        }
    }

    /// The replies of this turn are given to their links.
    fn time_replies(&mut self) {
        if self.timed.is_empty() {
            return;
        }
        let now = self.metrics.measures.now();
        for (measure, since) in self.timed.drain(..) {
            self.recorder.record_time(measure, now.since(since));
        }
    }

    fn send_to_replica(&mut self, family: Family, index: usize, message: Bytes) {
        let counters = &self.metrics.counters;
        let Some(Some(id)) = self.replicas.get(index) else {
            return count(&counters.messages_unsent);
        };
        let bytes = message.len();
        match (self.node.send(family, *id, message), family) {
            (Ok(()), _) => {
                if let Some(peer) = self.metrics.measures.peer(NodeId::new(index as u16)) {
                    peer.traffic.sent(bytes);
                }
            }
            (Err(QueueFull), Family::Application) => count(&counters.forwards_dropped),
            (Err(QueueFull), Family::StateTransfer) => count(&counters.transfers_dropped),
            // The link is closed, which is counted when it has ended.
            (Err(QueueFull), Family::Reconfiguration | Family::Protocol) => {}
        }
    }

    /// Sends to the links that serve a session, and to those that may: before a client has said, a link may
    /// serve any, and session 0 is all of them.
    fn send_to_client(&mut self, client: ClientId, session: u64, message: &Bytes) {
        let links = self.clients.get(client.get() as usize);
        let serves = |link: &&ClientLink| session == 0 || link.session.is_none_or(|serves| serves == session);
        let mut sent = false;
        for link in links.into_iter().flatten().filter(serves) {
            sent = true;
            match self.node.send_application(link.wire, message.clone()) {
                Ok(()) => self.recorder.clients.sent(message.len()),
                Err(QueueFull) => count(&self.metrics.counters.replies_dropped),
            }
        }
        if !sent {
            count(&self.metrics.counters.replies_unsent);
        }
    }

    fn say_goodbye(&mut self) {
        let envelope = Envelope::new(Kind::Link, self.cluster, self.epoch);
        let goodbye = encode(envelope, &LinkMessage::Goodbye, 8);
        let clients = self.clients.iter().flatten().map(|link| link.wire);
        for id in self.replicas.iter().flatten().copied().chain(clients) {
            let _ = self.node.send_reconfiguration(id, goodbye.clone());
        }
    }
}

impl<N: SmrReplicaNetworkNode> Role for NetworkRole<N> {
    fn kind(&self) -> Option<RoleKind> {
        Some(RoleKind::Network)
    }

    fn record_with(&mut self, pen: FlightPen) {
        self.pen = pen;
    }

    fn step(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        self.now = now;
        let links = self.take_links(reactor);
        self.dispatch() || links
    }

    fn finish(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        let mut any = false;
        for lane in 0..self.lanes.outgoing.len() {
            while let Some(outgoing) = self.lanes.outgoing[lane].1.pop() {
                any = true;
                self.send(outgoing);
            }
        }
        self.node.keep_alive(now, &self.ping);
        self.node.flush(reactor);
        self.time_replies();
        self.take_closed();
        any
    }

    fn observe(&mut self) {
        for (lane, receiver) in &self.lanes.outgoing {
            self.recorder.record_depth(*lane, receiver.len());
        }
    }

    fn on_completion(&mut self, reactor: &mut Reactor, completion: Completion) {
        self.node.on_completion(reactor, completion);
    }

    fn has_input(&self) -> bool {
        self.node.has_messages()
            || !self.lanes.links.is_empty()
            || self.lanes.outgoing.iter().any(|(_, lane)| !lane.is_empty())
            || self.lanes.client_frames.has_overflow()
            || self.lanes.replica_frames.has_overflow()
            || self.lanes.replica_messages.has_overflow()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.node.next_look()
    }

    fn drain(&mut self, finishing: bool) -> bool {
        self.draining = true;
        // What the others sent before they settled is in the lanes already.
        if !finishing || self.has_input() {
            return false;
        }
        if !self.said_goodbye && self.node.is_flushed() {
            self.said_goodbye = true;
            self.say_goodbye();
        }
        self.said_goodbye && self.node.is_flushed()
    }
}
