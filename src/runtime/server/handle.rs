use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use super::supervisor::{DRAINS, Supervisor};
use crate::runtime::admin::{AdminError, TokenReplacer};
use crate::runtime::evidence::Evidence;
use crate::runtime::flight::FlightRecorder;
use crate::runtime::metrics::{LogContext, Metrics, ReplicaStatus};
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::data::Lifecycle;
use crate::runtime::shard::lanes::{LinkSender, Work};
use crate::runtime::shard::pulse::Vitals;
use crate::smr::messages::CheckpointClaim;
use crate::smr::types::{NodeId, Quorum};

/// A running replica from outside: to look at it, and to shut it down. Clones are equal.
#[derive(Debug, Clone)]
pub struct ReplicaHandle {
    pub(super) shared: Arc<HandleShared>,
}

#[derive(Debug)]
pub(super) struct HandleShared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) address: SocketAddr,
    pub(super) admin_address: Option<SocketAddr>,
    pub(super) admin_token: Option<TokenReplacer>,
    pub(super) core_map: String,
    pub(super) topology: String,
    pub(super) lifecycle: Lifecycle,
    pub(super) doorbells: Vec<Doorbell>,
    pub(super) supervisor: Supervisor,
    pub(super) vitals: Vitals,
    pub(super) flight: FlightRecorder,
    pub(super) questions: Mutex<LinkSender<Work>>,
    /// Names of this replica's threads, as the kernel has them.
    pub(super) threads: Vec<String>,
    pub(super) quorum: Quorum,
}

impl ReplicaHandle {
    /// The replica.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.metrics.node
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Where its [admin endpoint](crate::runtime::admin) listens, if it has one.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.shared.admin_address
    }

    /// Has the admin endpoint ask for the token of this file from now on, or for none; nothing happens where
    /// there is no endpoint.
    ///
    /// # Errors
    /// When the file is not one that a token is read from, or when without one others than this host could ask:
    /// then the endpoint asks for what it asked for before.
    pub fn replace_admin_token(&self, file: Option<&Path>) -> Result<(), AdminError> {
        let replacer = self.shared.admin_token.as_ref();
        replacer.map_or(Ok(()), |replacer| replacer.replace(file))
    }

    /// What lines of logs about this replica say beside their message, for threads that it did not start.
    #[must_use]
    pub fn log_context(&self) -> LogContext {
        LogContext::new(self.shared.metrics.clone())
    }

    /// Which roles run where, a line each.
    #[must_use]
    pub fn core_map(&self) -> &str {
        &self.shared.core_map
    }

    /// The shards in a few words.
    #[must_use]
    pub fn topology(&self) -> &str {
        &self.shared.topology
    }

    /// How many links with other replicas make a quorum.
    #[must_use]
    pub fn links_needed(&self) -> u64 {
        self.shared.quorum.quorum() as u64 - 1
    }

    /// Whether the replica is linked with a quorum, itself included.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.standing().replica_links >= self.links_needed()
    }

    /// Waits until the replica [is linked](Self::is_linked) with a quorum; false when it ends first.
    pub async fn await_quorum(&self) -> bool {
        let shared = &self.shared;
        let waiters = &shared.metrics.links_waiters;
        let has_ended = || shared.lifecycle.is_draining();
        waiters.until(|| self.is_linked() || has_ended()).await;
        !has_ended()
    }

    /// Where it stands right now.
    #[must_use]
    pub fn standing(&self) -> ReplicaStatus {
        self.shared.metrics.standing()
    }

    /// The value of one counter by name; zero for a name there is not.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let mut found = 0;
        self.visit_counters(|counter, value| {
            if counter == name {
                found = value;
            }
        });
        found
    }

    /// Every counter by name.
    pub fn visit_counters(&self, visit: impl FnMut(&'static str, u64)) {
        self.shared.metrics.visit(visit);
    }

    /// What was refused of each peer.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.shared.metrics.evidence
    }

    /// The recorder of this replica's last events.
    #[must_use]
    pub fn flight(&self) -> &FlightRecorder {
        &self.shared.flight
    }

    /// Computes the digest of the state as it is, at once: for tools and tests. `None` when the replica ends
    /// first.
    #[must_use]
    pub fn digest(&self) -> Option<CheckpointClaim> {
        let (question, answer) = mpsc::channel();
        {
            let mut questions = self
                .shared
                .questions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            questions.push(Work::Digest(question));
            questions.ring();
        }
        answer.recv_timeout(Duration::from_secs(30)).ok()
    }

    /// CPU time of all of this replica's threads so far, as the kernel's scheduler counts it.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        thread_cpu_time(|name| self.shared.threads.iter().any(|own| own == name))
    }

    /// Names of the threads that serve this replica and gave no sign of life for so long: they hang. Those
    /// that are well give one every second or more often.
    #[must_use]
    pub fn silent_threads(&self, patience: Duration) -> Vec<String> {
        self.shared.vitals.silent_for(patience)
    }

    /// Asks the replica to finish what it has and end: no new client work, what is under way is decided,
    /// executed and answered, links say goodbye. [`run`](super::monolithic_server::MonReplica::run) returns
    /// then.
    pub fn shutdown(&self) {
        if !self.shared.lifecycle.is_draining() {
            // Told once: who does not listen learns it by the process's end.
            let _ = self
                .shared
                .supervisor
                .tell(&format!("STOPPING=1\nSTATUS={DRAINS}"));
        }
        self.shared.lifecycle.drain();
        self.shared.metrics.links_waiters.wake();
        self.shared.doorbells.iter().for_each(Doorbell::ring);
    }
}

impl ReplicaHandle {
    /// Stops the replica where it is, as if its process were killed: nothing is finished, nobody is told. For
    /// demonstrations and tests; what is on disk is what was durable.
    pub fn kill(&self) {
        self.shared.lifecycle.halt();
        self.shared.metrics.links_waiters.wake();
        self.shared.doorbells.iter().for_each(Doorbell::ring);
    }

    /// Whether it was killed.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.shared.lifecycle.is_halted()
    }
}

/// CPU time of this process's threads whose names are chosen, from the scheduler's statistics.
pub fn thread_cpu_time(chosen: impl Fn(&str) -> bool) -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    let mut total = Duration::ZERO;
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if chosen(name.trim_end()) {
            total += cpu_time_of(&task.path());
        }
    }
    total
}

/// CPU time of the calling thread, in the same way.
pub fn own_cpu_time() -> Duration {
    cpu_time_of(Path::new("/proc/thread-self"))
}

/// What the scheduler says that a task had of a processor; nothing where it keeps no statistics.
fn cpu_time_of(task: &Path) -> Duration {
    let statistics = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let nanos = statistics.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
