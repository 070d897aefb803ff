use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::DataDisk;
use super::log_filter::LogFilter;
use crate::runtime::flight::FlightRecorder;
use crate::runtime::metrics::Metrics;
use crate::runtime::shard::data::Lifecycle;
use crate::runtime::shard::pulse::Vitals;
use crate::smr::replica::{Participation, TransferPhase};
use crate::smr::types::{ClusterId, Quorum};

/// A thread that gave no sign of life for so long hangs. Those that are well give one every second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The replica that the endpoint is asked about, as far as it can see it: what its threads publish.
#[derive(Debug)]
pub(crate) struct Subject {
    pub metrics: Arc<Metrics>,
    pub vitals: Vitals,
    pub lifecycle: Lifecycle,
    pub cluster: ClusterId,
    pub quorum: Quorum,
    /// `None` when nothing is kept.
    pub disk: Option<DataDisk>,
    pub log_filter: LogFilter,
    pub flight: FlightRecorder,
}

/// Why a replica does not do its part right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// Its shards have not begun.
    Starting,
    /// It was told to stop, and finishes what it has.
    Draining,
    /// A thread of it hangs.
    Hangs,
    /// It is linked with fewer replicas than a quorum has.
    NoQuorum,
    /// Decisions or a state come from others.
    Transferring,
    /// It votes for nothing, because it may have forgotten what it promised.
    Abstaining,
    /// Nothing is logged, hence nothing voted, because the disk or the log's budget is full.
    NoSpace,
}

impl Unready {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Starting,
        Self::Draining,
        Self::Hangs,
        Self::NoQuorum,
        Self::Transferring,
        Self::Abstaining,
        Self::NoSpace,
    ];

    /// Its name, as labels have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Hangs => "hangs",
            Self::NoQuorum => "no_quorum",
            Self::Transferring => "transferring",
            Self::Abstaining => "abstaining",
            Self::NoSpace => "no_space",
        }
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Subject {
    /// Links with other replicas, for a quorum.
    pub fn links_needed(&self) -> u64 {
        self.quorum.quorum() as u64 - 1
    }

    /// The threads that hang.
    pub fn silent_threads(&self) -> Vec<String> {
        self.vitals.silent_for(PATIENCE)
    }

    /// Why it does not do its part, each with a few words; nothing if it does.
    pub fn unready(&self) -> Vec<(Unready, String)> {
        let mut reasons = Vec::new();
        let mut add = |is_so: bool, reason, words: &dyn Fn() -> String| {
            if is_so {
                reasons.push((reason, words()));
            }
        };
        let standing = self.metrics.standing();
        let silent = self.silent_threads();
        let space = self.metrics.counters.log_waits_for_space.load(Ordering::Relaxed);
        add(!self.vitals.have_begun(), Unready::Starting, &|| {
            "its shards have not begun".to_owned()
        });
        add(self.lifecycle.is_draining(), Unready::Draining, &|| {
            "it was told to stop, and finishes what it has".to_owned()
        });
        add(!silent.is_empty(), Unready::Hangs, &|| {
            format!("no sign of life of {}", silent.join(", "))
        });
        let (links, needed) = (standing.replica_links, self.links_needed());
        add(links < needed, Unready::NoQuorum, &|| {
            format!("linked with {links} other replicas, {needed} needed")
        });
        let transfers = standing.transfer != TransferPhase::NotRunning;
        add(transfers, Unready::Transferring, &|| match standing.progress {
            Some(progress) => progress.to_string(),
            None => standing.transfer.to_string(),
        });
        let abstains = standing.participation != Participation::Full;
        add(abstains, Unready::Abstaining, &|| {
            standing.participation.to_string()
        });
        add(space > 0, Unready::NoSpace, &|| {
            "the disk or the log's budget is full: nothing is logged, hence nothing voted".to_owned()
        });
        reasons
    }
}
