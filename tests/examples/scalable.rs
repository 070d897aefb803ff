//! Seats that are booked by many at once, executed ahead of their turn: `cargo run --example scalable`.

use atlas_smr_replica::config::LoadedReplica;
use atlas_smr_replica::execution::{
    Application, Column, CrudState, Direct, OperationContext, PartitionedStore, ResultWriter, ScalableApp,
};
use atlas_smr_replica::{Client, MonReplica};
use futures_lite::future::block_on;
use local::{Local, Running};

#[path = "local.rs"]
mod local;

/// An operation books the seat that it names for its caller, and a read tells whose a seat is.
struct Seats;

const BOOKED: Column = Column(0);

impl ScalableApp for Seats {
    /// Everything that an operation does goes through `state`: a view of its own. It counts if what it read
    /// still stands there when its turn comes; else the operation is executed once more.
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        context: &OperationContext,
        seat: &[u8],
        result: &mut ResultWriter,
    ) {
        if !state.create(BOOKED, seat, &context.client().get().to_le_bytes()) {
            result.fail("taken");
        }
    }

    /// Operations that say what they touch need no look back: who wants another seat is in nobody's way.
    fn declare_keys(&self, _: &OperationContext, seat: &[u8], touch: &mut dyn FnMut(Column, &[u8])) -> bool {
        touch(BOOKED, seat);
        true
    }
}

impl Application for Seats {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    /// The same on the state itself, for executors that do one operation after the other.
    fn update(
        &self,
        state: &mut PartitionedStore,
        context: &OperationContext,
        seat: &[u8],
        result: &mut ResultWriter,
    ) {
        self.speculatively_execute(&mut Direct(state), context, seat, result);
    }

    fn unordered_execution(
        &self,
        state: &PartitionedStore,
        _: &OperationContext,
        seat: &[u8],
        result: &mut ResultWriter,
    ) {
        result.extend_from_slice(state.get(seat).unwrap_or_default());
    }

    fn name(&self) -> &'static str {
        "seats"
    }
}

fn start(mut config: LoadedReplica) -> Running {
    config.replica_config.execution.workers = 2;
    let replica = block_on(MonReplica::bootstrap_speculative(config.serving(Seats))).unwrap();
    Running::new(replica.handle(), replica.run())
}

/// Two clients want the same hundred seats.
pub fn main() {
    let mut local = Local::new("seats", 2);
    let _running: Vec<Running> = local.replicas.drain(..).map(start).collect();
    let connect = |config| Client::connect_blocking(config).unwrap();
    let clients: Vec<Client> = local.clients.drain(..).map(connect).collect();
    let book = |client: &Client| {
        (0..100u8)
            .filter(|seat| client.call_blocking(vec![*seat]).is_ok())
            .count()
    };
    let booked: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(move || book(client)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("the clients have {booked:?} seats");
    assert_eq!(booked.iter().sum::<usize>(), 100, "each seat is booked once");
    for seat in 0..100u8 {
        let owner = clients[0].read_blocking(vec![seat]).unwrap();
        assert!([&[0, 0, 0, 0], &[1, 0, 0, 0]].contains(&&owner[..].try_into().unwrap()));
    }
}
