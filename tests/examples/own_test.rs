//! How an application is tested: seven simulated replicas, one of which crashes and one of which lies, in
//! virtual time, the same for the same seed: `cargo run --example own_test`.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_smr_replica::client::TypedCallError;
use atlas_smr_replica::execution::{OperationContext, Plain, TypedApplication};
use atlas_smr_replica::sim::{ByzantineStrategy, Cluster};
use atlas_smr_replica::types::{ClientId, NodeId};
use serde::{Deserialize, Serialize};

/// Locks by name, each held by one client at a time.
#[derive(Clone)]
struct Locks;

#[derive(Serialize, Deserialize)]
enum Request {
    Acquire(String),
    Release(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Refusal {
    HeldBy(u32),
    NotYours,
}

impl TypedApplication for Locks {
    /// A `HashMap` would iterate in another order at each replica: [`Plain::check`] finds it, and so does the
    /// first checkpoint in this test.
    type State = Plain<BTreeMap<String, u32>>;
    type Request = Request;
    type Reply = ();
    type Error = Refusal;

    fn initial_state(&self) -> Self::State {
        Plain::default()
    }

    fn execute(
        &self,
        state: &mut Self::State,
        context: &OperationContext,
        request: Request,
    ) -> Result<(), Refusal> {
        let caller = context.client().get();
        match request {
            Request::Acquire(name) => match *state.entry(name).or_insert(caller) {
                owner if owner == caller => Ok(()),
                owner => Err(Refusal::HeldBy(owner)),
            },
            Request::Release(name) if state.get(&name) == Some(&caller) => {
                state.remove(&name);
                Ok(())
            }
            Request::Release(_) => Err(Refusal::NotYours),
        }
    }

    fn read(&self, _: &Self::State, _: &OperationContext, _: Request) -> Result<(), Refusal> {
        Err(Refusal::NotYours)
    }

    fn name(&self) -> &'static str {
        "locks"
    }
}

/// A lock has one owner, whatever two replicas of seven do.
fn exclude_each_other(seed: u64, lie: ByzantineStrategy) {
    const WITHIN: Duration = Duration::from_secs(30);
    let builder = Cluster::<Locks>::builder().replicas(7).clients(2).seed(seed);
    let mut cluster = builder.liar(NodeId::new(6), &[lie]).start(Locks);
    let (one, other) = (ClientId::new(0), ClientId::new(1));
    let acquire = Request::Acquire("printer".into());
    let release = Request::Release("printer".into());
    for round in 0..20 {
        assert_eq!(cluster.call_typed(one, &acquire, WITHIN), Ok(()));
        let refused = Err(TypedCallError::Refused(Refusal::HeldBy(0)));
        assert_eq!(cluster.call_typed(other, &acquire, WITHIN), refused);
        if round == 10 {
            // The leader: the others agree on the next one.
            cluster.crash(NodeId::new(0));
        }
        let refused = Err(TypedCallError::Refused(Refusal::NotYours));
        assert_eq!(cluster.call_typed(other, &release, WITHIN), refused);
        assert_eq!(cluster.call_typed(one, &release, WITHIN), Ok(()));
    }
    // Agreement, validity, and equal states of correct replicas at equal places.
    cluster
        .check()
        .unwrap_or_else(|violation| panic!("seed {seed}, {lie:?}: {violation}"));
}

/// A seed for each kind of lie.
pub fn main() {
    for (seed, lie) in (1..).zip([
        ByzantineStrategy::Equivocate,
        ByzantineStrategy::LyingReplies,
        ByzantineStrategy::Silent,
        ByzantineStrategy::WrongDigests,
    ]) {
        exclude_each_other(seed, lie);
        println!("seed {seed}, a replica that lies ({lie:?}): each lock had one owner");
    }
}
