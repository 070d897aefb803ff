//! A replica of four to which anybody may say anything: the replica of the simulator, on a disk that is
//! always done.

use bytes::Bytes;

use super::CLUSTER;
use crate::sim::app::SmallKv;
use crate::sim::disk::DiskState;
use crate::sim::replica::{Durable, Said, SimReplica};
use crate::sim::stack::{Mixed, SimStack};
use crate::sim::{SimConfig, SimRng};
use crate::smr::types::Peer;
use crate::smr::types::{NodeId, Time};

/// Its number: it leads no view at first.
const NODE: NodeId = NodeId::new(1);
/// Time between two messages.
const STEP_NS: u64 = 3_000_000;

pub(super) struct Lone {
    sim: SimReplica<SimStack<SmallKv>>,
    now: Time,
    said: Vec<Said>,
}

impl Lone {
    pub(super) fn start() -> Self {
        let mut config = SimConfig::calm(4, 3);
        // Everything is looked at.
        for rate in [
            &mut config.gate.unasked,
            &mut config.gate.forwarded,
            &mut config.gate.lies,
        ] {
            (rate.burst, rate.per_second) = (1 << 40, 1 << 30);
        }
        let mut disk_state = DiskState::format("fuzz", CLUSTER, NODE, 7);
        let started = SimReplica::start(
            NODE,
            &config,
            (&Mixed(SmallKv), false),
            &mut disk_state,
            SimRng::new(1),
        );
        let (sim, ..) = started.expect("a directory that was just made is sound");
        Self {
            sim,
            now: Time::START,
            said: Vec::new(),
        }
    }

    /// A message arrives and is looked at; what the replica then said and counted, in a few words.
    pub(super) fn hear(&mut self, from: Peer, message: Bytes) -> String {
        self.now = Time::from_nanos(self.now.as_nanos() + STEP_NS);
        let before = self.sim.replica().counters().rejected;
        self.sim.receive(from, message);
        let mut durable = Durable::default();
        let planned: Vec<_> = self.sim.disk.drain_planned().collect();
        for (_, event) in planned {
            let done = self.sim.disk.on_event(self.now, event);
            durable.log = done.log.max(durable.log);
            durable.snapshot = done.snapshot.max(durable.snapshot);
        }
        let mut said = std::mem::take(&mut self.said);
        self.sim.turn(self.now, self.now, durable, &mut said);
        let mut words: Vec<&str> = said.drain(..).map(|said| word(&said)).collect();
        words.sort_unstable();
        words.dedup();
        self.said = said;
        let after = self.sim.replica().counters().rejected;
        let refused = (0..after.len()).find(|reason| after[*reason] > before[*reason]);
        format!("{words:?} {refused:?}")
    }
}

fn word(said: &Said) -> &'static str {
    match said {
        Said::ToReplicas { .. } => "says",
        Said::ToClient { .. } => "answers",
        Said::Execute(_) => "executes",
        Said::Refused { .. } => "refuses",
        Said::Verified { .. } => "verifies",
        Said::Stable(_) => "stable",
        Said::FellBehind(_) => "fell behind",
        _ => "does",
    }
}
