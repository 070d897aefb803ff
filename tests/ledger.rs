//! What the example of an application with rights and times shows.

use std::time::Duration;

use atlas_smr_replica::sim::Cluster;
use atlas_smr_replica::types::ClientId;
use ledger::Ledger;

#[path = "examples/ledger.rs"]
mod ledger;

const WITHIN: Duration = Duration::from_secs(5);

#[test]
fn the_example_runs() {
    ledger::main();
}

#[test]
fn an_account_is_its_owners_and_says_in_which_second_it_changed() {
    let mut cluster = Cluster::<Ledger>::builder().clients(3).start(Ledger);
    let [issuer, owner, other] = [0, 1, 2].map(ClientId::new);
    let mut read = |client| {
        cluster.call_as(issuer, &[1, 100], WITHIN).unwrap();
        let entry = cluster.read_as(client, &[], WITHIN).unwrap();
        cluster.run_for(Duration::from_secs(60));
        let (fields, _) = entry.as_chunks();
        (u64::from_le_bytes(fields[0]), u64::from_le_bytes(fields[1]))
    };
    let (first, second) = (read(owner), read(owner));
    assert_eq!((first.0, second.0), (100, 200));
    assert!((60..65).contains(&(second.1 - first.1)), "{first:?} {second:?}");
    assert_eq!(read(other), (0, 0));
    cluster.check().unwrap();
}
