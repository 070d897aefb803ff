//! A ledger from which only the owner of an account pays, and which notes when: `cargo run --example ledger`.

use std::time::Duration;

use atlas_smr_replica::execution::PartitionedStore as Store;
use atlas_smr_replica::execution::{Application, OperationContext as Context, ResultWriter};
use atlas_smr_replica::{sim::Cluster, types::ClientId};

/// An operation pays so much (the second byte) from its caller's account to that of a client (the first);
/// client 0 issues the money. A read gives its caller's account: the balance, the second of the last change.
#[derive(Clone)]
pub struct Ledger;

fn account(state: &Store, owner: u32) -> [u64; 2] {
    let (fields, _) = state.get(&owner.to_le_bytes()).unwrap_or(&[0; 16]).as_chunks();
    [u64::from_le_bytes(fields[0]), u64::from_le_bytes(fields[1])]
}

impl Application for Ledger {
    type State = Store;

    fn initial_state(&self) -> Store {
        Store::default()
    }

    fn update(&self, state: &mut Store, context: &Context, pay: &[u8], result: &mut ResultWriter) {
        let (from, now) = (context.client().get(), context.time().as_millis() / 1000);
        let [to, amount] = pay else {
            return result.fail("not a client and an amount");
        };
        let mut change = |owner: u32, by: fn(u64, u64) -> Option<u64>| {
            let balance = by(account(state, owner)[0], (*amount).into())?;
            state.put(
                &owner.to_le_bytes(),
                [balance, now].map(u64::to_le_bytes).as_flattened(),
            );
            Some(())
        };
        if from != 0 && change(from, u64::checked_sub).is_none() {
            return result.fail("more than there is");
        }
        change((*to).into(), u64::checked_add);
    }

    fn unordered_execution(&self, state: &Store, context: &Context, _: &[u8], result: &mut ResultWriter) {
        let fields = account(state, context.client().get()).map(u64::to_le_bytes);
        result.extend_from_slice(fields.as_flattened());
    }

    fn name(&self) -> &'static str {
        "ledger"
    }
}

/// Three payments, one of them of more than there is.
pub fn main() {
    let mut cluster = Cluster::<Ledger>::builder().clients(3).start(Ledger);
    for (from, to, amount, is_paid) in [(0, 1, 100, true), (1, 2, 70, true), (1, 2, 31, false)] {
        let paid = cluster.call_as(ClientId::new(from), &[to, amount], Duration::from_secs(5));
        println!("client {from} pays {amount} to client {to}: {paid:?}");
        assert_eq!(paid.is_ok(), is_paid);
    }
}
