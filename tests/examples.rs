//! The examples run, and do what they say.
#![expect(
    clippy::duplicate_mod,
    reason = "examples are programs of their own, which share how a cluster is made"
)]

use std::time::Duration;

use atlas_smr_replica::client::{CallError, TypedCallError};
use atlas_smr_replica::sim::{ByzantineStrategy, Cluster};
use atlas_smr_replica::types::{ClientId, NodeId};
use ledger::{Account, Ledger, Request};

#[path = "examples/clients.rs"]
mod clients;
#[path = "examples/divisible.rs"]
mod divisible;
#[path = "examples/ledger.rs"]
mod ledger;
#[path = "examples/own_test.rs"]
mod own_test;
#[path = "examples/scalable.rs"]
mod scalable;

#[test]
fn a_client_that_waits_and_one_that_does_not_do_the_same() {
    clients::main();
}

#[test]
fn a_state_in_parts_is_the_same_everywhere_after_a_replica_was_away() {
    divisible::main();
}

#[test]
fn the_ledger_refuses_what_there_is_no_money_for() {
    ledger::main();
}

#[test]
fn an_application_is_tested_beside_a_crash_and_a_liar() {
    own_test::main();
}

#[test]
fn operations_executed_ahead_of_their_turn_book_each_seat_once() {
    scalable::main();
}

#[test]
fn an_account_is_its_owners_and_says_in_which_second_it_changed() {
    const WITHIN: Duration = Duration::from_secs(5);
    let mut cluster = Cluster::<Ledger>::builder().clients(3).start(Ledger);
    let [issuer, owner, other] = [0, 1, 2].map(ClientId::new);
    let mut read = |client| {
        let pay = Request::Pay(1, 100);
        cluster.call_typed(issuer, &pay, WITHIN).unwrap();
        let account = cluster.read_typed(client, &Request::Look, WITHIN).unwrap();
        cluster.run_for(Duration::from_secs(60));
        account
    };
    let (first, second) = (read(owner), read(owner));
    assert_eq!((first.0, second.0), (100, 200));
    assert!((60..65).contains(&(second.1 - first.1)), "{first:?} {second:?}");
    assert_eq!(read(other), Account::default());
    cluster.check().unwrap();
}

#[test]
fn two_liars_of_four_are_one_too_many() {
    let liars = Cluster::<Ledger>::builder().liar(NodeId::new(1), &[ByzantineStrategy::Silent]);
    let mut cluster = liars
        .liar(NodeId::new(2), &[ByzantineStrategy::Silent])
        .start(Ledger);
    let paid = cluster.call_typed(ClientId::new(0), &Request::Pay(0, 1), Duration::from_secs(60));
    let error = TypedCallError::Call(CallError::DeadlineExceeded(Vec::new()));
    assert_eq!(paid, Err(error), "they are as silent as they should be");
}
