//! What every stack has to keep, whatever its parts: for who writes a part of one's own.

use std::ops::Range;
use std::time::Duration;

use super::{ByzantineStrategy, Cluster, NetworkProfile, SimCallError, Violation};
use crate::smr::execution::apps::counter::{self, Counter};
use crate::smr::replica::{PartSettings, Stack};
use crate::smr::types::NodeId;

/// One operation takes so long at most, in virtual time, whoever fails: several views.
const WITHIN: Duration = Duration::from_secs(120);
/// Operations of each part of a scene.
const OPERATIONS: u64 = 12;

/// A scene in which a stack did not keep the contract.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// A rule was broken: of agreement, of order without gaps, of what a disk has to hold, and so on.
    #[error("{scene}, seed {seed}: {violation}")]
    Broken {
        /// What was played.
        scene: &'static str,
        /// With which seed.
        seed: u64,
        /// What was broken.
        violation: Violation,
    },
    /// An operation was not answered.
    #[error("{scene}, seed {seed}: operation {operation}: {source}")]
    Unanswered {
        /// What was played.
        scene: &'static str,
        /// With which seed.
        seed: u64,
        /// Which of the operations, from one on.
        operation: u64,
        /// Why.
        source: SimCallError,
    },
    /// An operation was executed twice, or one that was acknowledged was lost.
    #[error("{scene}, seed {seed}: the sum is {found:?} after {operation} operations")]
    Wrong {
        /// What was played.
        scene: &'static str,
        /// With which seed.
        seed: u64,
        /// How many.
        operation: u64,
        /// What the last one saw.
        found: Option<u64>,
    },
    /// Replicas that are up and were given time are not at the same decision with the same state.
    #[error("{scene}, seed {seed}: replicas do not agree: {states}")]
    Apart {
        /// What was played.
        scene: &'static str,
        /// With which seed.
        seed: u64,
        /// Where each is.
        states: String,
    },
}

/// A scene, as it goes on.
struct Scene<S: Stack<Application = Counter>> {
    name: &'static str,
    seed: u64,
    cluster: Cluster<Counter, S>,
    done: u64,
    /// Who is faulty or down for good.
    gone: Vec<NodeId>,
}

impl<S: Stack<Application = Counter>> Scene<S> {
    /// Operations one after the other, each of which sees all before it, once.
    fn operate(&mut self) -> Result<(), ContractError> {
        let (scene, seed) = (self.name, self.seed);
        for _ in 0..OPERATIONS {
            let operation = self.done + 1;
            let sum = self.cluster.call(&counter::add(1), WITHIN);
            let sum = sum.map_err(|source| ContractError::Unanswered {
                scene,
                seed,
                operation,
                source,
            })?;
            self.done = operation;
            let found = counter::value(&sum);
            if found != Some(operation) {
                return Err(ContractError::Wrong {
                    scene,
                    seed,
                    operation,
                    found,
                });
            }
        }
        Ok(())
    }

    /// After a while all that are left are in one state, and no rule was broken.
    fn end(mut self) -> Result<(), ContractError> {
        let (scene, seed) = (self.name, self.seed);
        self.cluster.run_for(WITHIN);
        self.cluster.check().map_err(|violation| ContractError::Broken {
            scene,
            seed,
            violation,
        })?;
        let states = self.cluster.states();
        let left = (0..)
            .zip(&states)
            .filter(|(node, _)| !self.gone.contains(&NodeId::new(*node)));
        let left: Vec<_> = left.map(|(_, state)| *state).collect();
        match left.windows(2).all(|pair| pair[0] == pair[1]) {
            true => Ok(()),
            false => Err(ContractError::Apart {
                scene,
                seed,
                states: format!("{states:?}"),
            }),
        }
    }
}

/// Plays scenes with each of these seeds that a stack of any parts has to survive: messages that are lost, late,
/// doubled and out of order; a leader that loses power, with what it had decided and said; one that comes back
/// after a while and has missed decisions; one that is silent, and one that speaks to some only.
///
/// Every acknowledged operation is executed once, in one order without gaps, at all replicas alike; what was
/// logged binds, views are changed on evidence, and clients are answered in the end.
///
/// # Errors
/// The first scene in which that is not so.
pub fn check_contract<S: Stack<Application = Counter>>(
    parts: &PartSettings<S::Configs>,
    seeds: Range<u64>,
) -> Result<(), ContractError> {
    for seed in seeds {
        let leader = NodeId::new(0);
        let begin = |name, network: NetworkProfile, lies: &[ByzantineStrategy]| {
            let builder = Cluster::<Counter>::builder().seed(seed).network_profile(network);
            let builder = match lies {
                [] => builder,
                lies => builder.liar(leader, lies),
            };
            Scene::<S> {
                name,
                seed,
                cluster: builder.start_stack(Counter, parts.clone()),
                done: 0,
                gone: if lies.is_empty() { Vec::new() } else { vec![leader] },
            }
        };
        let rough = NetworkProfile {
            delay_us: (1, 1 + seed % 7 * 700),
            doubled_percent: 20,
            replica_loss_percent: 5 + seed % 10,
            client_loss_percent: 5,
            in_order: false,
            ..NetworkProfile::calm()
        };

        let mut scene = begin("messages are lost, doubled and late", rough, &[]);
        scene.operate()?;
        scene.end()?;

        let mut scene = begin("the leader loses power", NetworkProfile::calm(), &[]);
        scene.operate()?;
        scene.cluster.crash(leader);
        scene.gone.push(leader);
        scene.operate()?;
        scene.end()?;

        let mut scene = begin(
            "the leader is cut off and comes back",
            NetworkProfile::calm(),
            &[],
        );
        scene.operate()?;
        scene.cluster.cut_off(&[leader]);
        scene.operate()?;
        scene.cluster.heal();
        scene.operate()?;
        scene.end()?;

        for (name, lies) in [
            ("the leader is silent", &[ByzantineStrategy::Silent][..]),
            ("the leader speaks to some only", &[ByzantineStrategy::Selective]),
        ] {
            let mut scene = begin(name, NetworkProfile::calm(), lies);
            scene.operate()?;
            scene.end()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::replica::{DefaultStack, SpeculativeStack};

    #[test]
    fn the_stacks_of_this_crate_keep_the_contract() {
        check_contract::<DefaultStack<Counter>>(&PartSettings::default(), 0..8).unwrap();
        check_contract::<SpeculativeStack<Counter>>(&PartSettings::default(), 8..10).unwrap();
    }
}
