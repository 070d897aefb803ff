//! The lanes between a replica's roles: where each role lives, and what flows from which to which.

use std::sync::Arc;

use crate::runtime::config::{
    REPLICA_MESSAGE_CHANNEL, RESPONSE_CHANNEL_SIZE, RoleKind, Topology, WORK_CHANNEL_SIZE,
};
use crate::runtime::metrics::{Lane, Measures};
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::control::EstablishedLink;
use crate::runtime::shard::lanes::{
    Checked, FromReplica, LinkReceiver, LinkSender, Logged, Outgoing, Raw, Work, lane,
};
use crate::runtime::shard::roles::{ConsensusLanes, ExecutionLanes, LogLanes, NetworkLanes, PreprocessLanes};
use crate::runtime::storage::storage_worker::StorageEvent;

/// Records that may wait for the log role, and its answers.
const LOG_CHANNEL: usize = 1024;
/// What the storage worker did, and nobody looked at yet.
const KEPT_CHANNEL: usize = 16;
/// Links that were made, and that their network role has not taken yet.
const LINK_CHANNEL: usize = 64;
/// Questions of the replica's handle that wait for execution.
const QUESTION_CHANNEL: usize = 16;

/// What each role receives from, and sends to, before it is dealt out.
pub(super) struct RoleLanes {
    pub network: Vec<NetworkLanes>,
    pub preprocess: Vec<PreprocessLanes>,
    pub consensus: ConsensusLanes,
    pub execution: ExecutionLanes,
    pub log: LogLanes,
}

/// Every lane: those of the roles, and the ends that others have.
pub(super) struct Lanes {
    pub roles: RoleLanes,
    pub links: Vec<LinkSender<EstablishedLink>>,
    pub storage_workers: StorageLanes,
    pub questions: LinkSender<Work>,
}

/// Where what is done beside the shards, at the disk, is told.
pub(super) struct StorageLanes {
    /// From the storage worker, to the log.
    pub kept: LinkSender<StorageEvent>,
    /// From the storage worker, to consensus.
    pub snapshots: LinkSender<Logged>,
    /// From the snapshot transfer, to consensus.
    pub transfers: LinkSender<Logged>,
}

/// Where each role instance lives: the shard's index, by kind and instance.
pub(super) struct RolePlacement {
    pub network: Vec<usize>,
    pub preprocess: Vec<usize>,
    pub consensus: usize,
    pub execution: usize,
    pub log: usize,
}

impl RolePlacement {
    pub fn of(topology: &Topology) -> Self {
        let shards_with = |role: RoleKind| -> Vec<usize> {
            let with = topology
                .shards
                .iter()
                .enumerate()
                .filter(|(_, shard)| shard.roles.contains(&role));
            with.map(|(index, _)| index).collect()
        };
        Self {
            network: shards_with(RoleKind::Network),
            preprocess: shards_with(RoleKind::Preprocess),
            consensus: shards_with(RoleKind::Consensus)[0],
            execution: shards_with(RoleKind::Execution)[0],
            log: shards_with(RoleKind::Log)[0],
        }
    }
}

/// Between which shards lanes run, and how a shard that sleeps is woken.
#[derive(Clone, Copy)]
struct Mesh<'a> {
    homes: &'a RolePlacement,
    doorbells: &'a [Doorbell],
    measures: &'a Measures,
}

impl Mesh<'_> {
    /// A lane between roles: nobody is woken on the shard that both live on.
    fn connect<T: Send>(
        self,
        kind: Lane,
        depth: usize,
        (from, to): (usize, usize),
    ) -> (LinkSender<T>, LinkReceiver<T>) {
        let doorbell = (from != to).then(|| self.doorbells[to].clone());
        lane(depth, doorbell, self.measures.blocked(kind).clone())
    }

    /// A lane from a thread that is no data shard. Nobody counts how often it is full.
    fn enter<T: Send>(self, depth: usize, to: usize) -> (LinkSender<T>, LinkReceiver<T>) {
        lane(depth, Some(self.doorbells[to].clone()), Arc::default())
    }

    /// From a role at `from` to every network role, whose ends are added to what each receives from.
    fn to_networks(
        self,
        outgoing: &mut [Vec<(Lane, LinkReceiver<Outgoing>)>],
        kind: Lane,
        depth: usize,
        from: usize,
    ) -> Vec<LinkSender<Outgoing>> {
        let pairs = self.homes.network.iter().zip(outgoing);
        let ends = pairs.map(|(to, inlets)| {
            let (outlet, inlet) = self.connect(kind, depth, (from, *to));
            inlets.push((kind, inlet));
            outlet
        });
        ends.collect()
    }
}

/// What a preprocess role checks, from every network role that gives it frames.
#[derive(Default)]
struct Unchecked {
    replica_frames: Vec<LinkReceiver<Raw>>,
    client_frames: Vec<LinkReceiver<Raw>>,
}

/// The network roles' lanes, and the other ends of those that leave them.
struct Networks {
    lanes: Vec<NetworkLanes>,
    links: Vec<LinkSender<EstablishedLink>>,
    /// By preprocess role.
    unchecked: Vec<Unchecked>,
    replica_messages: Vec<LinkReceiver<FromReplica>>,
}

impl Networks {
    /// `outgoing` is what each network role sends to peers.
    fn new(mesh: Mesh<'_>, outgoing: Vec<Vec<(Lane, LinkReceiver<Outgoing>)>>) -> Self {
        let homes = mesh.homes;
        let mut this = Self {
            lanes: Vec::new(),
            links: Vec::new(),
            unchecked: homes.preprocess.iter().map(|_| Unchecked::default()).collect(),
            replica_messages: Vec::new(),
        };
        for ((index, home), outgoing) in homes.network.iter().enumerate().zip(outgoing) {
            let checker = index % homes.preprocess.len();
            let checker_home = homes.preprocess[checker];
            let (new_links, links) = mesh.enter(LINK_CHANNEL, *home);
            let to_checker = (*home, checker_home);
            let (replica_frames, replica_in) =
                mesh.connect(Lane::ReplicaFrames, REPLICA_MESSAGE_CHANNEL, to_checker);
            let (client_frames, client_in) =
                mesh.connect(Lane::ClientFrames, REPLICA_MESSAGE_CHANNEL, to_checker);
            let (replica_messages, messages_in) = mesh.connect(
                Lane::ReplicaMessages,
                REPLICA_MESSAGE_CHANNEL,
                (*home, homes.consensus),
            );
            this.links.push(new_links);
            this.unchecked[checker].replica_frames.push(replica_in);
            this.unchecked[checker].client_frames.push(client_in);
            this.replica_messages.push(messages_in);
            this.lanes.push(NetworkLanes {
                links,
                client_frames,
                replica_frames,
                replica_messages,
                outgoing,
            });
        }
        this
    }
}

/// The preprocess roles' lanes, and the other ends of those that leave them.
struct Preprocessors {
    lanes: Vec<PreprocessLanes>,
    checked: Vec<LinkReceiver<Checked>>,
    unordered: Vec<LinkReceiver<Work>>,
}

impl Preprocessors {
    /// `unchecked` is what each preprocess role checks, `refusals` where it tells clients that a frame is not
    /// taken.
    fn new(mesh: Mesh<'_>, unchecked: Vec<Unchecked>, refusals: Vec<Vec<LinkSender<Outgoing>>>) -> Self {
        let homes = mesh.homes;
        let mut this = Self {
            lanes: Vec::new(),
            checked: Vec::new(),
            unordered: Vec::new(),
        };
        for ((home, unchecked), refusals) in homes.preprocess.iter().zip(unchecked).zip(refusals) {
            let to_consensus = (*home, homes.consensus);
            let (checked, inlet) = mesh.connect(Lane::Verified, REPLICA_MESSAGE_CHANNEL, to_consensus);
            this.checked.push(inlet);
            let to_execution = (*home, homes.execution);
            let (unordered, inlet) = mesh.connect(Lane::Reads, WORK_CHANNEL_SIZE, to_execution);
            this.unordered.push(inlet);
            this.lanes.push(PreprocessLanes {
                replica_frames: unchecked.replica_frames,
                client_frames: unchecked.client_frames,
                checked,
                unordered,
                refusals,
            });
        }
        this
    }
}

/// Makes every lane of the mesh. Each has one sender and one receiver.
pub(super) fn make_lanes(homes: &RolePlacement, doorbells: &[Doorbell], measures: &Measures) -> Lanes {
    let mesh = Mesh {
        homes,
        doorbells,
        measures,
    };
    let mut outgoing: Vec<Vec<_>> = homes.network.iter().map(|_| Vec::new()).collect();
    let (consensus, execution, log) = (homes.consensus, homes.execution, homes.log);
    let consensus_out = mesh.to_networks(&mut outgoing, Lane::Outgoing, REPLICA_MESSAGE_CHANNEL, consensus);
    let replies = RESPONSE_CHANNEL_SIZE.max(1024);
    let replies = mesh.to_networks(&mut outgoing, Lane::Replies, replies, execution);
    let preprocessors = homes.preprocess.iter();
    let refusals = preprocessors
        .map(|home| mesh.to_networks(&mut outgoing, Lane::Refusals, RESPONSE_CHANNEL_SIZE, *home))
        .collect();
    let networks = Networks::new(mesh, outgoing);
    let mut preprocessors = Preprocessors::new(mesh, networks.unchecked, refusals);
    let (questions, inlet) = mesh.enter(QUESTION_CHANNEL, execution);
    preprocessors.unordered.push(inlet);
    let (work, decisions) = mesh.connect(Lane::Decisions, WORK_CHANNEL_SIZE, (consensus, execution));
    let (done_out, done) = mesh.connect(Lane::Executed, RESPONSE_CHANNEL_SIZE, (execution, consensus));
    let (entries_out, entries) = mesh.connect(Lane::Records, LOG_CHANNEL, (consensus, log));
    let (logged_out, logged) = mesh.connect(Lane::Durable, LOG_CHANNEL, (log, consensus));
    let (kept_out, kept) = mesh.enter(KEPT_CHANNEL, log);
    let (transfers_out, transfers) = mesh.enter(KEPT_CHANNEL, consensus);
    let (snapshots_out, snapshots) = mesh.enter(KEPT_CHANNEL, consensus);
    let roles = RoleLanes {
        network: networks.lanes,
        preprocess: preprocessors.lanes,
        consensus: ConsensusLanes {
            replica_messages: networks.replica_messages,
            checked: preprocessors.checked,
            done,
            work,
            log: Some(entries_out),
            logged: vec![logged, snapshots, transfers],
            outgoing: consensus_out,
        },
        execution: ExecutionLanes {
            decisions,
            unordered: preprocessors.unordered,
            done: done_out,
            replies,
        },
        log: LogLanes {
            entries,
            kept,
            logged: logged_out,
        },
    };
    Lanes {
        roles,
        links: networks.links,
        storage_workers: StorageLanes {
            kept: kept_out,
            snapshots: snapshots_out,
            transfers: transfers_out,
        },
        questions,
    }
}
