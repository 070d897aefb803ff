//! The lanes between a replica's roles: where each role lives, and what flows from which to which.

use crate::runtime::config::{
    REPLICA_MESSAGE_CHANNEL, RESPONSE_CHANNEL_SIZE, RoleKind, Topology, WORK_CHANNEL_SIZE,
};
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::control::EstablishedLink;
use crate::runtime::shard::lanes::{
    Checked, Done, FromReplica, Inlet, Logged, Outgoing, Outlet, Raw, Work, lane,
};
use crate::runtime::shard::roles::{ConsensusLanes, ExecutionLanes, LogLanes, NetworkLanes, PreprocessLanes};
use crate::runtime::storage::keeper::Kept;

/// Records that may wait for the log role, and its answers.
const LOG_CHANNEL: usize = 1024;
/// What the keeper did, and nobody looked at yet.
const KEPT_CHANNEL: usize = 16;

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
    pub links: Vec<Outlet<EstablishedLink>>,
    /// From the keeper: to the log, and to consensus.
    pub kept: Outlet<Kept>,
    /// From the shelf, to consensus.
    pub transfers: Outlet<Logged>,
    pub images: Outlet<Logged>,
    pub questions: Outlet<Work>,
}

/// Where each role instance lives: the shard's index, by kind and instance.
pub(super) struct Homes {
    pub network: Vec<usize>,
    pub preprocess: Vec<usize>,
    pub consensus: usize,
    pub execution: usize,
    pub log: usize,
}

impl Homes {
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

fn connect<T: Send>(depth: usize, doorbells: &[Doorbell], from: usize, to: usize) -> (Outlet<T>, Inlet<T>) {
    lane(depth, (from != to).then(|| doorbells[to].clone()))
}

/// Makes every lane of the mesh. Each has one sender and one receiver.
pub(super) fn make_lanes(homes: &Homes, doorbells: &[Doorbell]) -> Lanes {
    let mut outgoing: Vec<Vec<Inlet<Outgoing>>> = homes.network.iter().map(|_| Vec::new()).collect();
    let mut to_networks = |from: usize, depth: usize| -> Vec<Outlet<Outgoing>> {
        let pairs = homes.network.iter().zip(&mut outgoing);
        let ends = pairs.map(|(to, inlets)| {
            let (outlet, inlet) = connect(depth, doorbells, from, *to);
            inlets.push(inlet);
            outlet
        });
        ends.collect()
    };
    let consensus_out = to_networks(homes.consensus, REPLICA_MESSAGE_CHANNEL);
    let replies = to_networks(homes.execution, RESPONSE_CHANNEL_SIZE.max(1024));
    let refusals: Vec<_> = homes
        .preprocess
        .iter()
        .map(|home| to_networks(*home, RESPONSE_CHANNEL_SIZE))
        .collect();

    let no_inlets = || -> Vec<Vec<Inlet<Raw>>> { homes.preprocess.iter().map(|_| Vec::new()).collect() };
    let (mut replica_frames, mut client_frames) = (no_inlets(), no_inlets());
    let (mut links, mut network, mut replica_messages) = (Vec::new(), Vec::new(), Vec::new());
    for ((index, home), outgoing) in homes.network.iter().enumerate().zip(outgoing) {
        let checker = index % homes.preprocess.len();
        let checker_home = homes.preprocess[checker];
        let (new_links, links_in) = lane(64, Some(doorbells[*home].clone()));
        let (replica_out, replica_in) = connect(REPLICA_MESSAGE_CHANNEL, doorbells, *home, checker_home);
        let (client_out, client_in) = connect(REPLICA_MESSAGE_CHANNEL, doorbells, *home, checker_home);
        let (messages_out, messages_in) =
            connect::<FromReplica>(REPLICA_MESSAGE_CHANNEL, doorbells, *home, homes.consensus);
        links.push(new_links);
        replica_frames[checker].push(replica_in);
        client_frames[checker].push(client_in);
        replica_messages.push(messages_in);
        network.push(NetworkLanes {
            links: links_in,
            client_frames: client_out,
            replica_frames: replica_out,
            replica_messages: messages_out,
            outgoing,
        });
    }
    let (mut preprocess, mut checked_in, mut unordered_in) = (Vec::new(), Vec::new(), Vec::new());
    for (((home, replica_frames), client_frames), refusals) in homes
        .preprocess
        .iter()
        .zip(replica_frames)
        .zip(client_frames)
        .zip(refusals)
    {
        let (checked, inlet) = connect::<Checked>(REPLICA_MESSAGE_CHANNEL, doorbells, *home, homes.consensus);
        checked_in.push(inlet);
        let (unordered, inlet) = connect::<Work>(WORK_CHANNEL_SIZE, doorbells, *home, homes.execution);
        unordered_in.push(inlet);
        preprocess.push(PreprocessLanes {
            replica_frames,
            client_frames,
            checked,
            unordered,
            refusals,
        });
    }
    let (questions, inlet) = lane(16, Some(doorbells[homes.execution].clone()));
    unordered_in.push(inlet);
    let (work, decisions) = connect(WORK_CHANNEL_SIZE, doorbells, homes.consensus, homes.execution);
    let (done_out, done) =
        connect::<Done>(RESPONSE_CHANNEL_SIZE, doorbells, homes.execution, homes.consensus);
    let (entries_out, entries) = connect(LOG_CHANNEL, doorbells, homes.consensus, homes.log);
    let (logged_out, logged) = connect(LOG_CHANNEL, doorbells, homes.log, homes.consensus);
    let (kept_out, kept) = lane(KEPT_CHANNEL, Some(doorbells[homes.log].clone()));
    let (transfers_out, transfers) = lane(KEPT_CHANNEL, Some(doorbells[homes.consensus].clone()));
    let (images_out, images) = lane(KEPT_CHANNEL, Some(doorbells[homes.consensus].clone()));
    let roles = RoleLanes {
        network,
        preprocess,
        consensus: ConsensusLanes {
            replica_messages,
            checked: checked_in,
            done,
            work,
            log: Some(entries_out),
            logged: vec![logged, images, transfers],
            outgoing: consensus_out,
        },
        execution: ExecutionLanes {
            decisions,
            unordered: unordered_in,
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
        links,
        kept: kept_out,
        images: images_out,
        transfers: transfers_out,
        questions,
    }
}
