//! What the execution models do with the same decisions, without network and ordering.
//!
//! `cargo bench --bench execution -- [--json FILE] [--quick]` runs deposits into a bank whose operations cost
//! so many microseconds between what they read and what they write. A share of them, the conflict, goes into
//! one account; the others spread over many. Executors take turns, round by round, so that what else runs on
//! the machine meets them all; figures are medians over the rounds, and the ratio to the single-threaded
//! executor is the median of the rounds' ratios.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atlas_smr_replica::crypto::Digester;
use atlas_smr_replica::execution::apps::bank::{self, Bank};
use atlas_smr_replica::execution::apps::compute::Compute;
use atlas_smr_replica::execution::{CheckpointRule, Executor, SingleThreaded, Speculative, StateRule};
use atlas_smr_replica::load::{calibrate, median};
use atlas_smr_replica::messages::{Authenticator, Batch, Frame, FrameBuilder, Mode, Proposal, RequestFrame};
use atlas_smr_replica::ring::Doorbell;
use atlas_smr_replica::shard::Alarm;
use atlas_smr_replica::shard::crew::HelperThreads;
use atlas_smr_replica::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, SeqNo, UnixTime, View};
use bytes::Bytes;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FRAME_OPERATIONS: usize = 64;
const FRAMES: usize = 8;
const ACCOUNTS: u64 = 100_000;
/// Decisions are cloned into fresh sequence numbers this many at a time.
const OPERATIONS_MIN: usize = 4 * FRAMES * FRAME_OPERATIONS;

#[derive(Clone, Copy, PartialEq)]
struct Model {
    name: &'static str,
    workers: usize,
    declares: bool,
}

const MODELS: [Model; 3] = [
    Model {
        name: "single",
        workers: 1,
        declares: false,
    },
    Model {
        name: "speculative",
        workers: 2,
        declares: false,
    },
    Model {
        name: "speculative, declared keys",
        workers: 2,
        declares: true,
    },
];

#[derive(Serialize)]
struct Row {
    executor: &'static str,
    workers: usize,
    compute_us: f64,
    conflict: u64,
    declared_keys: bool,
    ops_per_s: f64,
    aborts_per_op: f64,
    /// Processor time of all threads, microseconds per operation.
    cpu_us_per_op: f64,
    /// The median over the rounds of this executor's rate divided by the single-threaded one's.
    ratio_to_single: f64,
    rounds: usize,
    operations: usize,
}

fn decision(seq: u64, conflict: u64, random: &mut u64) -> Arc<Proposal> {
    let frames: Vec<Frame> = (0..FRAMES)
        .map(|client| {
            let mut builder = FrameBuilder::default();
            for _ in 0..FRAME_OPERATIONS {
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                let account = match *random % 100 < conflict {
                    true => 0,
                    false => 1 + (*random >> 20) % ACCOUNTS,
                };
                builder.push(&bank::deposit(account, 1)).expect("it fits");
            }
            let body = builder.finish(ClientId::new(client as u32), FrameSeq::new(seq), Mode::Ordered);
            let frame = RequestFrame {
                body,
                authenticator: Authenticator::Macs(Vec::new()),
            };
            Frame::check(frame.to_archive(), 4096, 1 << 20, |_| Digest::ZERO).expect("it is sound")
        })
        .collect();
    let bytes = frames.iter().map(|frame| frame.bytes().len()).sum();
    let batch = Arc::new(Batch {
        digest: Digest::ZERO,
        time: UnixTime::EPOCH,
        frames,
        bytes,
    });
    Arc::new(Proposal {
        view: View::ZERO,
        seq: SeqNo::new(seq),
        batch,
        message: Bytes::new(),
        authentic: true,
    })
}

/// Runs decisions as an execution shard does: takes what fits, works, sleeps when there is nothing to do.
fn drive(
    executor: &mut dyn Executor,
    crew: Option<&HelperThreads>,
    doorbell: &Doorbell,
    decisions: &[Arc<Proposal>],
) {
    let (mut events, mut next) = (Vec::new(), decisions.iter());
    let mut waiting = next.next();
    while waiting.is_some() || !executor.is_settled() {
        while executor.has_room()
            && let Some(decision) = waiting
        {
            executor.execute(decision, &mut events);
            waiting = next.next();
        }
        if let Some(crew) = crew
            && executor.wants_help()
        {
            crew.ring();
        }
        let worked = executor.step(&mut events);
        events.clear();
        if !worked && !executor.is_settled() {
            doorbell.prepare_park();
            if !executor.has_work() {
                doorbell.wait(None).expect("the kernel waits");
            }
            doorbell.unpark();
            doorbell.clear();
        }
    }
}

struct Measured {
    ops_per_s: f64,
    aborts_per_op: f64,
    cpu_us_per_op: f64,
}

fn cpu_time() -> Duration {
    atlas_smr_replica::server::thread_cpu_time(|_| true)
}

fn measure(model: Model, rounds_per_op: u64, conflict: u64, operations: usize) -> Measured {
    let digester = Digester::new(ClusterId::from_bytes([1; 16]));
    let rule = CheckpointRule {
        decisions: u64::MAX,
        bytes: u64::MAX,
        state: StateRule::ALWAYS,
    };
    let application = Compute::new(Bank, rounds_per_op);
    let application = match model.declares {
        true => application,
        false => application.undeclared(),
    };
    let doorbell = Doorbell::new().expect("a descriptor");
    let mut random = 0x9e37_79b9_7f4a_7c15;
    let count = operations.div_ceil(FRAMES * FRAME_OPERATIONS) as u64;
    let warm_up = (count / 4).max(2);
    let decisions: Vec<_> = (1..=warm_up + count)
        .map(|seq| decision(seq, conflict, &mut random))
        .collect();
    let (before, after) = decisions.split_at(warm_up as usize);
    let run = |executor: &mut dyn Executor, crew: Option<&HelperThreads>| {
        drive(executor, crew, &doorbell, before);
        let aborts = executor.aborts();
        let (start, cpu) = (Instant::now(), cpu_time());
        drive(executor, crew, &doorbell, after);
        let seconds = start.elapsed().as_secs_f64();
        let done = after.len() * FRAMES * FRAME_OPERATIONS;
        Measured {
            ops_per_s: done as f64 / seconds,
            aborts_per_op: (executor.aborts() - aborts) as f64 / done as f64,
            cpu_us_per_op: (cpu_time() - cpu).as_secs_f64() * 1e6 / done as f64,
        }
    };
    if model.name == "single" {
        let mut executor = SingleThreaded::new(application, FRAMES, digester, Epoch::ZERO, rule);
        return run(&mut executor, None);
    }
    let mut executor = Speculative::new(application, FRAMES, digester, Epoch::ZERO, rule);
    let helpers = executor.helpers(model.workers - 1);
    let helpers = helpers.into_iter().map(|helper| (helper, None)).collect();
    let crew = HelperThreads::start("helper", helpers, &doorbell, &Alarm::default()).expect("threads start");
    run(&mut executor, Some(&crew))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json = arguments.iter().position(|argument| argument == "--json");
    let json = json.and_then(|at| arguments.get(at + 1));
    let (rounds, seconds) = if quick { (3, 0.1) } else { (9, 0.25) };
    let rounds_per_us = calibrate::rounds_per_us();
    println!(
        "{:<28} {:>7} {:>10} {:>9} {:>12} {:>8} {:>10} {:>9}",
        "executor", "workers", "compute/µs", "conflict", "ops/s", "ratio", "aborts/op", "CPU µs/op"
    );
    let mut rows = Vec::new();
    for compute_us in [0.0, 1.0, 5.0, 20.0] {
        for conflict in [0, 10, 50, 100] {
            let operations = ((seconds * 1e6 / (compute_us + 0.2)) as usize).max(OPERATIONS_MIN);
            let rounds_per_op = (compute_us * rounds_per_us) as u64;
            let measured: Vec<[Measured; MODELS.len()]> = (0..rounds)
                .map(|_| MODELS.map(|model| measure(model, rounds_per_op, conflict, operations)))
                .collect();
            for (index, model) in MODELS.iter().enumerate() {
                let of =
                    |what: fn(&Measured) -> f64| median(measured.iter().map(|round| what(&round[index])));
                let ratios = measured
                    .iter()
                    .map(|round| round[index].ops_per_s / round[0].ops_per_s);
                let row = Row {
                    executor: model.name.split(',').next().unwrap_or_default(),
                    workers: model.workers,
                    compute_us,
                    conflict,
                    declared_keys: model.declares,
                    ops_per_s: of(|m| m.ops_per_s),
                    aborts_per_op: of(|m| m.aborts_per_op),
                    cpu_us_per_op: of(|m| m.cpu_us_per_op),
                    ratio_to_single: median(ratios),
                    rounds,
                    operations,
                };
                println!(
                    "{:<28} {:>7} {:>10} {:>8}% {:>12.0} {:>8.2} {:>10.3} {:>9.2}",
                    model.name,
                    row.workers,
                    compute_us,
                    conflict,
                    row.ops_per_s,
                    row.ratio_to_single,
                    row.aborts_per_op,
                    row.cpu_us_per_op
                );
                rows.push(row);
            }
        }
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&rows).expect("rows are plain");
        std::fs::write(path, text).expect("the file can be written");
    }
}
