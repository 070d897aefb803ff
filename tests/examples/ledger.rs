//! A ledger from which only the owner of an account pays, and which notes when: `cargo run --example ledger`.

use std::{collections::BTreeMap, time::Duration};

use atlas_smr_replica::execution::{OperationContext as Context, Plain, TypedApplication};
use atlas_smr_replica::{sim::Cluster, types::ClientId};
use serde::{Deserialize, Serialize};

/// What clients ask.
#[derive(Serialize, Deserialize)]
pub enum Request {
    /// From the caller's account to that of another client, so much. Client 0 issues the money.
    Pay(u32, u32),
    /// The caller's own account.
    Look,
}

/// A balance, and the second in which it changed last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Account(pub u64, pub u64);

type Accounts = Plain<BTreeMap<u32, Account>>;

/// The service.
#[derive(Clone)]
pub struct Ledger;

impl TypedApplication for Ledger {
    type State = Accounts;
    type Request = Request;
    type Reply = Account;
    type Error = String;

    fn initial_state(&self) -> Accounts {
        Plain::default()
    }

    fn execute(&self, state: &mut Accounts, context: &Context, request: Request) -> Result<Account, String> {
        let (from, now) = (context.client().get(), context.time().as_millis() / 1000);
        if let Request::Pay(to, amount) = request {
            let balance = state.get(&from).map_or(0, |account| account.0);
            if from != 0 {
                let left = balance.checked_sub(amount.into()).ok_or("more than there is")?;
                state.insert(from, Account(left, now));
            }
            let Account(balance, changed) = state.entry(to).or_default();
            (*balance, *changed) = (balance.saturating_add(amount.into()), now);
        }
        self.read(state, context, Request::Look)
    }

    fn read(&self, state: &Accounts, context: &Context, _: Request) -> Result<Account, String> {
        Ok(state.get(&context.client().get()).copied().unwrap_or_default())
    }

    fn name(&self) -> &'static str {
        "ledger"
    }
}

/// Three payments, one of them of more than there is.
pub fn main() {
    let mut cluster = Cluster::<Ledger>::builder().clients(3).start(Ledger);
    for (from, to, amount, is_paid) in [(0, 1, 100, true), (1, 2, 70, true), (1, 2, 31, false)] {
        let pay = Request::Pay(to, amount);
        let paid = cluster.call_typed(ClientId::new(from), &pay, Duration::from_secs(5));
        println!("client {from} pays {amount} to client {to}: {paid:?}");
        assert_eq!(paid.is_ok(), is_paid);
    }
}
