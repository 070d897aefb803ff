//! A stock of goods in a state with parts of its own: `cargo run --example divisible`.

use std::collections::BTreeMap;

use atlas_smr_replica::config::LoadedReplica;
use atlas_smr_replica::execution::{
    Application, DivisibleState, OperationContext, Parts, ResultWriter, SnapshotError, StatePart,
};
use atlas_smr_replica::{Client, DivStReplica};
use futures_lite::future::block_on;
use local::{Local, Running};

#[path = "local.rs"]
mod local;

const SHELVES: usize = 64;

/// The goods by number, each on the shelf that its number names. A checkpoint copies and digests the shelves
/// that changed, and a replica that was away is sent those that its own snapshot does not have.
struct Stock(Parts<SnapshotTransferWorker>);

/// How many there are of each.
#[derive(Clone, Default)]
struct SnapshotTransferWorker(BTreeMap<u32, u32>);

impl StatePart for SnapshotTransferWorker {
    /// Equal shelves write equal bytes.
    fn write(&self, out: &mut Vec<u8>) {
        let numbers = self.0.iter().flat_map(|(goods, count)| [goods, count]);
        numbers.for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }

    fn size_bytes(&self) -> u64 {
        8 * self.0.len() as u64
    }
}

impl DivisibleState for Stock {
    type Part = SnapshotTransferWorker;

    fn blank() -> Self {
        Self(Parts::new(SHELVES))
    }

    fn parts(&self) -> &Parts<SnapshotTransferWorker> {
        &self.0
    }

    fn read_part(&mut self, number: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        let (entries, []) = bytes.as_chunks::<8>() else {
            return Err(SnapshotError::State);
        };
        self.0.change(number, |snapshot_transfer| {
            for &[a, b, c, d, e, f, g, h] in entries {
                let (goods, count) = ([a, b, c, d], [e, f, g, h]);
                snapshot_transfer
                    .0
                    .insert(u32::from_le_bytes(goods), u32::from_le_bytes(count));
            }
        });
        Ok(())
    }
}

/// An operation delivers one of the goods that it names, and says how many there are then.
struct Warehouse;

/// The goods that an operation names, and their shelf.
fn parse(operation: &[u8]) -> Option<(u32, usize)> {
    let goods = u32::from_le_bytes(operation.try_into().ok()?);
    Some((goods, goods as usize % SHELVES))
}

impl Application for Warehouse {
    type State = Stock;

    fn initial_state(&self) -> Stock {
        Stock::blank()
    }

    fn update(&self, state: &mut Stock, _: &OperationContext, operation: &[u8], result: &mut ResultWriter) {
        let Some((goods, snapshot_transfer)) = parse(operation) else {
            return result.fail("not the number of goods");
        };
        let count = state.0.change(snapshot_transfer, |snapshot_transfer| {
            let count = snapshot_transfer.0.entry(goods).or_default();
            *count = count.saturating_add(1);
            *count
        });
        result.extend_from_slice(&count.to_le_bytes());
    }

    fn unordered_execution(
        &self,
        state: &Stock,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        let Some((goods, snapshot_transfer)) = parse(operation) else {
            return result.fail("not the number of goods");
        };
        let count = state.0.get(snapshot_transfer).0.get(&goods).copied().unwrap_or(0);
        result.extend_from_slice(&count.to_le_bytes());
    }

    fn name(&self) -> &'static str {
        "warehouse"
    }
}

fn start(config: LoadedReplica) -> Running {
    let replica = block_on(DivStReplica::bootstrap(config.serving_parts(Warehouse))).unwrap();
    Running::new(replica.handle(), replica.run())
}

/// Deliveries while one replica is away, which then has what it missed.
pub fn main() {
    let mut local = Local::new("warehouse", 1);
    let mut running: Vec<Running> = local.replicas.iter().cloned().map(start).collect();
    let client = Client::connect_blocking(local.clients.remove(0)).unwrap();
    let deliver = |goods: u32| client.call_blocking(goods.to_le_bytes().to_vec()).unwrap();
    (0..100).for_each(|goods| drop(deliver(goods)));
    drop(running.pop());
    assert_eq!(deliver(7)[..], 2u32.to_le_bytes());
    running.push(start(local.replicas[3].clone()));
    // At the same place in the order, all have the same state.
    let same = |other: &Running| {
        let digests = [&running[0], other].map(|replica| replica.handle.digest().unwrap());
        digests[0] == digests[1]
    };
    while !running.iter().all(same) {
        std::thread::yield_now();
    }
    println!("all replicas have the same goods on {SHELVES} shelves");
}
