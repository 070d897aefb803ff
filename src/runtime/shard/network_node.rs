//! The network node as a part of a replica: what has the links of one shard, and a sending end for each
//! family of messages.
//!
//! The network role is the only caller; each has a node of its own, on its shard's ring. In a turn it
//!
//! 1. gives completions that are the node's to [`on_completion`](SmrReplicaNetworkNode::on_completion), and
//!    links that came up to [`add_link`](SmrReplicaNetworkNode::add_link);
//! 2. takes messages with [`next_message`](SmrReplicaNetworkNode::next_message), those of replicas first, as
//!    long as the roles that read them have room. What is not taken is the node's to hold back: it stops
//!    receiving, and the pressure ends with the peer;
//! 3. sends, by family, what the other roles had for peers;
//! 4. [`keep_alive`](SmrReplicaNetworkNode::keep_alive), [`flush`](SmrReplicaNetworkNode::flush), and takes
//!    the links that ended.
//!
//! **What a node promises.** Messages of one family and link arrive in the order in which they were sent, or
//! the link ends; between families there is no order. A message of the protocol or of reconfiguration is
//! never dropped while its link lives, and waits in no line of the other families. What clients and lagging
//! peers ask for again may be dropped, and whoever sends it is told. Whom a message came from is what the
//! handshake proved.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::control::EstablishedLink;
use super::reactor::{Completion, Reactor};
use super::wires::{CloseReason, QueueBudgets, QueueFull, WireId, WireLimits, Wires};
use crate::smr::messages::{Family, Lengths};
use crate::smr::protocol::{InvalidSetting, PartConfig, in_range};
use crate::smr::types::{Peer, Time};

/// How many full queues of clients are held for all together at a shard that serves sockets; each client has
/// its share beside.
const CLIENT_QUEUES: usize = 8;

/// Sends what replicas agree by: proposals, votes, views, checkpoints, and what they ask each other for.
pub trait ProtocolNode {
    /// Sends a whole message to a replica.
    ///
    /// # Errors
    /// When its budget is used up: the link is closed.
    fn send_protocol(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull>;
}

/// Sends what clients asked and are answered: replies, refusals; frames on their way to the leader.
pub trait ApplicationNode {
    /// Sends a whole message to a client or a replica.
    ///
    /// # Errors
    /// When its budget is used up: the message is dropped.
    fn send_application(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull>;
}

/// Sends what a peer catches up with: states, and decisions in bulk.
pub trait StateTransferNode {
    /// Sends a whole message to a replica.
    ///
    /// # Errors
    /// When its budget is used up: the message is dropped.
    fn send_state_transfer(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull>;
}

/// Sends what is about links and who is linked.
pub trait ReconfigurationNode {
    /// Sends a whole message to a peer.
    ///
    /// # Errors
    /// When its budget is used up: the link is closed.
    fn send_reconfiguration(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull>;
}

/// The links of one shard. What it is called with, and what it promises: the module's text in
/// `shard/network_node.rs`.
pub trait SmrReplicaNetworkNode:
    ProtocolNode + ApplicationNode + StateTransferNode + ReconfigurationNode + Sized + Send + 'static
{
    /// What it may decide for itself: `[network]` in the replica's file.
    type Config: NetworkPartConfig;

    /// A node without links. `config` was validated.
    fn make(config: &Self::Config, context: &NetworkContext) -> Self;

    /// Takes over a link that is up, and begins to receive. `None` when there is no place for it or its
    /// socket is dead.
    fn add_link(&mut self, reactor: &mut Reactor, link: EstablishedLink) -> Option<WireId>;

    /// Ends a link: what waits on it is lost.
    fn close_link(&mut self, link: WireId, reason: CloseReason);

    /// The links that ended since the last call, each once, whoever ended them.
    fn take_closed(&mut self) -> Vec<(WireId, Peer, CloseReason)>;

    /// The next message of any replica (or of any client), the links taking turns.
    fn next_message(&mut self, replicas: bool) -> Option<(WireId, Peer, Bytes)>;

    /// Whether a received message may be waiting.
    fn has_messages(&self) -> bool;

    /// Says `ping` on links on which nothing was said for a while, and ends those on which nothing is heard.
    fn keep_alive(&mut self, now: Time, ping: &Bytes);

    /// When [`keep_alive`](Self::keep_alive) is due again, if ever.
    fn next_look(&self) -> Option<Time>;

    /// Hands what waits to the kernel, as much as each link takes now.
    fn flush(&mut self, reactor: &mut Reactor);

    /// Whether everything that was sent was taken by the kernel.
    fn is_flushed(&self) -> bool;

    /// An operation of this node's completed.
    fn on_completion(&mut self, reactor: &mut Reactor, completion: Completion);

    /// Sends a whole message by the end of its family.
    ///
    /// # Errors
    /// As that end.
    fn send(&mut self, family: Family, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        match family {
            Family::Reconfiguration => self.send_reconfiguration(to, message),
            Family::Protocol => self.send_protocol(to, message),
            Family::Application => self.send_application(to, message),
            Family::StateTransfer => self.send_state_transfer(to, message),
        }
    }
}

/// What every node is made with: where it runs, and what holds for its links.
#[derive(Debug, Clone)]
pub struct NetworkContext {
    /// Marks the completions that are its own; see [`Token`](super::reactor::Token).
    pub owner: u8,
    /// How many links there are at once, at most. Each has a slot of its own below it.
    pub links_max: u16,
    /// How long messages are in this cluster.
    pub lengths: Lengths,
    /// How long the other end of a link may say nothing.
    pub silence_max: Duration,
}

/// What every network node is told of its queues, whatever else it may decide.
pub trait NetworkPartConfig: PartConfig {
    /// What may wait to be sent to one replica.
    fn replica_queues(&self) -> QueueBudgets;

    /// What may wait to be sent to one client.
    fn client_queues(&self) -> QueueBudgets;
}

/// The budgets of links: how many bytes of each family may wait on one.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkNodeConfig {
    /// Proposals, votes and what else replicas agree by, to one replica. Beyond it the link is closed.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub protocol_queue_bytes_max: usize,
    /// Clients' frames that are passed on, to one replica. Beyond it they are dropped.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub forwarding_queue_bytes_max: usize,
    /// States and decisions in bulk, to one replica. Beyond it they are dropped.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub state_transfer_queue_bytes_max: usize,
    /// What is about the link itself, to one peer. Beyond it the link is closed.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub reconfiguration_queue_bytes_max: usize,
    /// Answers, to one client. Beyond it they are dropped.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub client_queue_bytes_max: usize,
}

impl Default for NetworkNodeConfig {
    fn default() -> Self {
        Self {
            protocol_queue_bytes_max: 256 << 20,
            forwarding_queue_bytes_max: 64 << 20,
            state_transfer_queue_bytes_max: 192 << 20,
            reconfiguration_queue_bytes_max: 1 << 20,
            client_queue_bytes_max: 32 << 20,
        }
    }
}

impl PartConfig for NetworkNodeConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range(
            "protocol_queue_bytes_max",
            self.protocol_queue_bytes_max,
            1 << 20..=1 << 34,
        )?;
        in_range(
            "forwarding_queue_bytes_max",
            self.forwarding_queue_bytes_max,
            64 << 10..=1 << 34,
        )?;
        in_range(
            "state_transfer_queue_bytes_max",
            self.state_transfer_queue_bytes_max,
            1 << 20..=1 << 34,
        )?;
        in_range(
            "reconfiguration_queue_bytes_max",
            self.reconfiguration_queue_bytes_max,
            64 << 10..=1 << 30,
        )?;
        in_range(
            "client_queue_bytes_max",
            self.client_queue_bytes_max,
            64 << 10..=1 << 32,
        )
    }
}

impl NetworkPartConfig for NetworkNodeConfig {
    fn replica_queues(&self) -> QueueBudgets {
        QueueBudgets {
            reconfiguration: self.reconfiguration_queue_bytes_max,
            protocol: self.protocol_queue_bytes_max,
            application: self.forwarding_queue_bytes_max,
            state_transfer: self.state_transfer_queue_bytes_max,
        }
    }

    fn client_queues(&self) -> QueueBudgets {
        QueueBudgets {
            application: self.client_queue_bytes_max,
            ..self.replica_queues()
        }
    }
}

/// Sealed links over TCP on the shard's ring.
pub struct SealedLinks {
    wires: Wires,
    replica_limits: WireLimits,
    client_limits: WireLimits,
}

impl ProtocolNode for SealedLinks {
    fn send_protocol(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        self.wires.queue(to, Family::Protocol, message)
    }
}

impl ApplicationNode for SealedLinks {
    fn send_application(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        self.wires.queue(to, Family::Application, message)
    }
}

impl StateTransferNode for SealedLinks {
    fn send_state_transfer(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        self.wires.queue(to, Family::StateTransfer, message)
    }
}

impl ReconfigurationNode for SealedLinks {
    fn send_reconfiguration(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        self.wires.queue(to, Family::Reconfiguration, message)
    }
}

impl SmrReplicaNetworkNode for SealedLinks {
    type Config = NetworkNodeConfig;

    fn make(config: &NetworkNodeConfig, context: &NetworkContext) -> Self {
        let replica_limits = WireLimits {
            record_bytes_max: context.lengths.replica_record(),
            queues: config.replica_queues(),
            queues_bytes_max: usize::MAX,
            backlog_bytes_max: 16 << 20,
            silence_max: context.silence_max,
        };
        let client_limits = WireLimits {
            record_bytes_max: context.lengths.request_record(),
            queues: config.client_queues(),
            queues_bytes_max: CLIENT_QUEUES * config.client_queue_bytes_max,
            backlog_bytes_max: 1 << 20,
            silence_max: context.silence_max,
        };
        Self {
            wires: Wires::new(context.owner, context.links_max),
            replica_limits,
            client_limits,
        }
    }

    fn add_link(&mut self, reactor: &mut Reactor, link: EstablishedLink) -> Option<WireId> {
        let limits = match link.established.peer {
            Peer::Replica(_) => self.replica_limits,
            Peer::Client(_) => self.client_limits,
        };
        let lease = Box::new(link.lease);
        self.wires
            .add(reactor, link.socket, *link.established, lease, limits)
    }

    fn close_link(&mut self, link: WireId, reason: CloseReason) {
        self.wires.close(link, reason);
    }

    fn take_closed(&mut self) -> Vec<(WireId, Peer, CloseReason)> {
        self.wires.take_closed()
    }

    fn next_message(&mut self, replicas: bool) -> Option<(WireId, Peer, Bytes)> {
        self.wires.next_message(replicas)
    }

    fn has_messages(&self) -> bool {
        self.wires.has_messages()
    }

    fn keep_alive(&mut self, now: Time, ping: &Bytes) {
        self.wires.keep_alive(now, ping);
    }

    fn next_look(&self) -> Option<Time> {
        self.wires.next_look()
    }

    fn flush(&mut self, reactor: &mut Reactor) {
        self.wires.flush(reactor);
    }

    fn is_flushed(&self) -> bool {
        self.wires.is_flushed()
    }

    fn on_completion(&mut self, reactor: &mut Reactor, completion: Completion) {
        self.wires.on_completion(reactor, completion);
    }
}
