//! Which roles run on which shards, and which shard on which core: data, printed at start.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::runtime::shard::cores::Cores;
use crate::smr::protocol::{InvalidSetting, in_range};
use crate::smr::types::NodeId;

/// What a shard can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleKind {
    /// Serves sockets. May be on several shards.
    Network,
    /// Checks and hashes client frames. May be on several shards.
    Preprocess,
    /// Orders. On one shard.
    Consensus,
    /// Executes. On one shard.
    Execution,
    /// Writes the persistent log. On one shard; left out, on that of consensus.
    Log,
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Preprocess => "preprocess",
            Self::Consensus => "consensus",
            Self::Execution => "execution",
            Self::Log => "log",
        })
    }
}

/// One data shard: its roles, and the core it is pinned to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardSpec {
    /// The roles, in the order in which they step.
    pub roles: Vec<RoleKind>,
    /// The core; left out, the scheduler decides.
    #[serde(default)]
    pub core: Option<usize>,
}

/// The topology as configured: automatic unless shards are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopologyFile {
    /// Whether the automatic topology pins its shards to cores.
    pub pin: bool,
    /// How long an idle shard looks for work before it sleeps, in microseconds. Zero where threads exceed
    /// cores.
    #[serde(deserialize_with = "crate::smr::protocol::units::microseconds")]
    pub spin_us: u64,
    /// Whether the kernel may back this process's memory with huge pages (2 MiB). They make lookups in very
    /// large states a little cheaper, and the first use of memory much dearer where a hypervisor takes back
    /// what is free: `atlas doctor` measures it. It holds for the whole process.
    pub huge_pages: bool,
    /// The shards; empty for the automatic topology.
    pub shards: Vec<ShardSpec>,
}

impl Default for TopologyFile {
    fn default() -> Self {
        Self {
            pin: true,
            spin_us: 0,
            huge_pages: false,
            shards: Vec::new(),
        }
    }
}

/// Why a topology is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A role is on no shard.
    #[error("no shard has the role {0}")]
    Missing(RoleKind),
    /// A role that exists once is on several shards.
    #[error("the role {0} is on more than one shard")]
    Twice(RoleKind),
    /// Two shards on one core.
    #[error("core {0} has two shards")]
    CoreTwice(usize),
    /// A core this process may not use.
    #[error("core {core} is not among those this process may use: {allowed:?}")]
    CoreNotAllowed {
        /// The core.
        core: usize,
        /// Those allowed.
        allowed: Vec<usize>,
    },
    /// More shards are pinned than a CPU quota lets run.
    #[error(
        "{pinned} shards are pinned to cores, and the CPU quota of this process's control group is worth {quota}: raise the quota, or \
         leave out `core` (or the shards: the automatic layout fits the quota)"
    )]
    BeyondQuota {
        /// Shards with a core.
        pinned: usize,
        /// What the quota is worth, in cores.
        quota: usize,
    },
    /// Spinning shards without cores of their own.
    #[error("spin_us = {spin_us} with {shards} shards on {cores} cores: spinning needs a core for each")]
    Spinning {
        /// The configured time.
        spin_us: u64,
        /// Data shards.
        shards: usize,
        /// Cores allowed.
        cores: usize,
    },
}

/// The shards of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The data shards.
    pub shards: Vec<ShardSpec>,
    /// The core of the control shard.
    pub control_core: Option<usize>,
    /// How long an idle shard looks for work before it sleeps, in microseconds.
    pub spin_us: u64,
    /// The cores of the threads that execute beside the execution shard.
    pub helper_cores: Vec<Option<usize>>,
}

use RoleKind::{Consensus, Execution, Log, Network, Preprocess};

impl Topology {
    /// What the configuration asks for, on a machine where this process may use `allowed` cores.
    ///
    /// # Errors
    /// When a role is missing or doubled, or a core is not there.
    pub fn resolve(
        file: &TopologyFile,
        allowed: &[usize],
        preprocessors: usize,
    ) -> Result<Self, TopologyError> {
        let topology = if file.shards.is_empty() {
            let mut topology = Self::auto(allowed, preprocessors);
            topology.spin_us = file.spin_us;
            if !file.pin {
                topology.shards.iter_mut().for_each(|shard| shard.core = None);
                topology.control_core = None;
            }
            topology
        } else {
            let mut shards = file.shards.clone();
            let has_log = shards.iter().any(|shard| shard.roles.contains(&Log));
            let orders = |shard: &&mut ShardSpec| shard.roles.contains(&Consensus);
            if let (false, Some(shard)) = (has_log, shards.iter_mut().find(orders)) {
                shard.roles.push(Log);
            }
            Self {
                shards,
                control_core: None,
                spin_us: file.spin_us,
                helper_cores: Vec::new(),
            }
        };
        topology.check(allowed)?;
        Ok(topology)
    }

    /// The topology of replica `node` on this machine. One of the file pins no more shards than a CPU quota
    /// is worth. An automatic one has as many busy threads as a CPU quota is worth, and is not pinned then:
    /// other groups share the cores. Without a quota it begins at another core for each replica, so that
    /// several on one host do not all have the same ones.
    ///
    /// # Errors
    /// When the file's shards fit neither the machine nor one another.
    pub fn of_replica(
        file: &TopologyFile,
        cores: &Cores,
        preprocessors: usize,
        node: NodeId,
    ) -> Result<Self, TopologyError> {
        if !file.shards.is_empty() {
            let pinned = file.shards.iter().filter(|shard| shard.core.is_some()).count();
            return match cores.quota {
                Some(quota) if pinned > quota => Err(TopologyError::BeyondQuota { pinned, quota }),
                _ => Self::resolve(file, &cores.ids, preprocessors),
            };
        }
        let mut file = file.clone();
        file.pin &= cores.quota.is_none();
        let mut usable = cores.usable().to_vec();
        if !usable.is_empty() {
            let threads = Self::auto(&usable, preprocessors).shards.len();
            let first = node.index() * threads % usable.len();
            usable.rotate_left(first);
        }
        Self::resolve(&file, &usable, preprocessors)
    }

    /// The automatic topology. Up to three cores everything folds into one shard, because each further thread
    /// costs wake-ups; four give each kind of work its own; from eight on, network and preprocessing
    /// multiply.
    #[must_use]
    pub fn auto(cores: &[usize], preprocessors: usize) -> Self {
        let roles: Vec<Vec<RoleKind>> = match cores.len() {
            0..=3 => vec![vec![Network, Preprocess, Consensus, Execution, Log]],
            4..=7 => vec![vec![Network, Preprocess], vec![Consensus, Log], vec![Execution]],
            count => {
                let pairs = preprocessors.clamp(1, count - 4);
                let mut roles = vec![vec![Network, Preprocess]; pairs];
                roles.extend([vec![Consensus, Log], vec![Execution]]);
                roles
            }
        };
        let shards: Vec<ShardSpec> = roles
            .into_iter()
            .enumerate()
            .map(|(index, roles)| ShardSpec {
                roles,
                core: cores.get(index).copied(),
            })
            .collect();
        // The control shard sleeps nearly always: it shares the last core.
        Self {
            shards,
            control_core: cores.last().copied(),
            spin_us: 0,
            helper_cores: Vec::new(),
        }
    }

    /// Everything on one shard, pinned to `core`: for several replicas in one process.
    #[must_use]
    pub fn folded(core: Option<usize>) -> Self {
        let roles = vec![Network, Preprocess, Consensus, Execution, Log];
        Self {
            shards: vec![ShardSpec { roles, core }],
            control_core: core,
            spin_us: 0,
            helper_cores: Vec::new(),
        }
    }

    /// The same with `helpers` threads that execute beside the execution shard: on cores that no shard has
    /// while there are some and shards are pinned, else wherever the scheduler puts them.
    #[must_use]
    pub fn with_helpers(mut self, helpers: usize, allowed: &[usize]) -> Self {
        let used: Vec<usize> = self.shards.iter().filter_map(|shard| shard.core).collect();
        let mut free = allowed
            .iter()
            .copied()
            .filter(|core| !used.is_empty() && !used.contains(core));
        self.helper_cores = (0..helpers).map(|_| free.next()).collect();
        self
    }

    fn check(&self, allowed: &[usize]) -> Result<(), TopologyError> {
        for role in [Network, Preprocess, Consensus, Execution, Log] {
            match self.count(role) {
                0 => return Err(TopologyError::Missing(role)),
                1 => {}
                _ if matches!(role, Network | Preprocess) => {}
                _ => return Err(TopologyError::Twice(role)),
            }
        }
        let mut used = BTreeSet::new();
        for core in self.shards.iter().filter_map(|shard| shard.core) {
            if !allowed.contains(&core) {
                return Err(TopologyError::CoreNotAllowed {
                    core,
                    allowed: allowed.to_vec(),
                });
            }
            if !used.insert(core) {
                return Err(TopologyError::CoreTwice(core));
            }
        }
        if self.spin_us > 0 && self.shards.len() > allowed.len() {
            let (shards, cores) = (self.shards.len(), allowed.len());
            return Err(TopologyError::Spinning {
                spin_us: self.spin_us,
                shards,
                cores,
            });
        }
        Ok(())
    }

    /// On how many shards a role is.
    #[must_use]
    pub fn count(&self, role: RoleKind) -> usize {
        self.shards
            .iter()
            .flat_map(|shard| &shard.roles)
            .filter(|r| **r == role)
            .count()
    }

    /// The topology in a few words, for reports: `1 shard: network+preprocess+consensus+execution`.
    #[must_use]
    pub fn summary(&self) -> String {
        let shards: Vec<String> = self.shards.iter().map(|shard| names(&shard.roles)).collect();
        shards.join(" | ")
    }
}

fn names(roles: &[RoleKind]) -> String {
    let names: Vec<String> = roles.iter().map(ToString::to_string).collect();
    names.join("+")
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = |core: Option<usize>| core.map_or("any core".to_owned(), |core| format!("core {core}"));
        for (index, shard) in self.shards.iter().enumerate() {
            writeln!(
                f,
                "  data {index:<4} {:<9} {}",
                core(shard.core),
                names(&shard.roles)
            )?;
        }
        for (index, helper) in self.helper_cores.iter().enumerate() {
            writeln!(f, "  helper {index:<2} {:<9} execution", core(*helper))?;
        }
        write!(
            f,
            "  control   {:<9} listen+handshake+reconnect",
            core(self.control_core)
        )
    }
}

impl TopologyFile {
    pub(super) fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("spin_us", self.spin_us, 0..=1_000_000)
    }
}
