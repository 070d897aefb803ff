//! How often the whole path allocates per operation: client, four replicas, in the steady state.
//!
//! `cargo bench --bench allocations`. Fails when a replica allocates 0.05 times per operation or more.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atlas_smr_replica::config::{Agreement, AppKind, ClientTuning, Durability};
use atlas_smr_replica::load::{ClusterOptions, LoadOptions, LocalCluster, Pace, Shape, run_load};
use atlas_smr_replica::preprocessing::ClientAuth;

struct Counting(mimalloc::MiMalloc);

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { self.0.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

fn main() {
    let options = ClusterOptions {
        replicas: 4,
        clients: 4,
        app: AppKind::Kv,
        agreement: Agreement {
            client_auth: ClientAuth::Mac,
            ..Agreement::default()
        },
        tuning: ClientTuning::default(),
        pin: true,
        pipeline: atlas_smr_replica::config::OrderingConfig::default().pipeline,
        durability: Durability::None,
        ..ClusterOptions::default()
    };
    let cluster = LocalCluster::start(&options).expect("the cluster starts");
    let load = LoadOptions {
        pace: Pace::Closed { outstanding: 16_384 },
        shape: Shape {
            keys: 10_000,
            ..Shape::default()
        },
        warm_up: Duration::from_secs(2),
        measured: Duration::from_secs(3),
        kill_leader_after: None,
    };
    let mut at_start = (0, 0);
    let mut operations = 0;
    let (report, _) = run_load(&cluster, &options, &load, |tick| {
        operations += tick.operations;
        if tick.elapsed <= load.warm_up {
            at_start = (ALLOCATIONS.load(Ordering::Relaxed), operations);
        }
    })
    .expect("the load runs");
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - at_start.0;
    let operations = operations - at_start.1;
    // The client allocates too: its share is counted against the replicas, not subtracted.
    let per_replica = allocations as f64 / operations as f64 / 4.0;
    println!(
        "{allocations} allocations for {operations} operations of 64 bytes at 4 replicas and their client: \
         {per_replica:.4} per operation and replica ({:.0} operations per decision)",
        report.operations_per_decision
    );
    assert!(per_replica < 0.05, "the steady state allocates per operation");
}
