//! What checkpoints cost execution: the longest pause, and the throughput beside a run without any.
//!
//! `cargo bench --bench checkpoint -- [--mib M] [--value-bytes N] [--batch-operations N] [--decisions D]
//! [--bytes B] [--factor F] [--log-mib L] [--cycles C] [--rate R] [--hot PERCENT] [--dir DIR] [--json FILE]`
//! fills a key-value store with M MiB (1024) and runs decisions of random puts through the single-threaded
//! executor as the execution role does: a few decisions, some background work, snapshots and help handed to a
//! thread of its own, which writes the snapshots to disk. A checkpoint is due after D decisions (1000) or B
//! bytes (32 MiB), and includes the state when the log has grown by F times its size or L MiB since the last
//! that did, as by default; C whole ways from one such checkpoint to the next are measured (1), so that their
//! share is as it is in the long run. `--factor 0` includes it always: 5 checkpoints are measured then. With
//! `--rate` decisions come at R operations per second, as consensus would send them, in place of all at once.
//! `--hot` sends nine tenths of the puts to that percentage of the parts' keys.
//!
//! A pause is a stretch of the executor's time during which no operation is executed: the application itself
//! takes the time of each. It is given by the clock, and in processor time of the executor's thread (taken
//! every few operations): a machine that is busy with other things stretches the first, not the second.
//! Decisions are made between the measured stretches.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atlas_smr_replica::crypto::Digester;
use atlas_smr_replica::execution::apps::kv::{self, Kv};
use atlas_smr_replica::execution::{
    Application, CheckpointHelp, CheckpointRule, CheckpointSnapshot, ExecutionEvent, Executor,
    OperationContext, PARTS, PartitionedStore, ResultWriter, SingleThreaded, StateRule,
};
use atlas_smr_replica::messages::{Authenticator, Batch, Frame, FrameBuilder, Mode, Proposal, RequestFrame};
use atlas_smr_replica::storage::snapshot;
use atlas_smr_replica::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, SeqNo, UnixTime, View};
use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use serde::Serialize;

#[path = "checkpoint/arguments.rs"]
mod arguments;

use arguments::Arguments;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As in the execution role.
const STEP_DECISIONS: usize = 16;
const STEP_BACKGROUND_BYTES: usize = 128 * 1024;
const FRAME_OPERATIONS: usize = 64;
/// Bytes of a pair beside its value: the key, and what the store keeps with it.
const PAIR_BYTES: u64 = 8 + 20;

#[derive(Debug, Clone, Serialize)]
struct Parameters {
    state_mib: u64,
    keys: u64,
    value_bytes: usize,
    batch_operations: usize,
    checkpoint_decisions: u64,
    checkpoint_bytes: u64,
    /// 0: every checkpoint includes the state.
    state_log_factor: u64,
    state_log_bytes_max: u64,
    cycles: u64,
    /// Operations per second; 0: as fast as they are executed.
    rate: f64,
    hot_percent: u64,
}

/// Checkpoints that are measured when every one includes the state.
const CHECKPOINTS: u64 = 5;

impl Parameters {
    fn state_rule(&self) -> StateRule {
        match self.state_log_factor {
            0 => StateRule::ALWAYS,
            factor => StateRule::of(self.checkpoint_bytes, factor, self.state_log_bytes_max),
        }
    }

    /// Decisions of the measured stretch.
    fn cycle(&self, batch_bytes: u64, period: u64) -> u64 {
        let state = self.keys * (8 + self.value_bytes as u64 + 16);
        if state <= self.state_rule().small_bytes {
            return CHECKPOINTS * period;
        }
        let due = self.state_log_bytes_max.min(self.state_log_factor * state);
        let each = period * StateRule::log_bytes(batch_bytes as usize);
        self.cycles * due.div_ceil(each) * period
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    operations: u64,
    seconds: f64,
    ops_per_s: f64,
    longest_pause_ms: f64,
    /// The same in processor time of the executor's thread, at most: a look every few operations takes them
    /// together.
    longest_pause_cpu_ms: f64,
    /// The longest execution of one decision.
    longest_decision_ms: f64,
    decision_p50_us: f64,
    decision_p999_us: f64,
    checkpoints: u64,
    /// Of them, those that include the state.
    with_state: u64,
    snapshots: u64,
    /// Processor time of the executor's thread per operation.
    cpu_us_per_op: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    parameters: Parameters,
    without: Measured,
    /// With the first checkpoint that includes the whole state, which finds the memory for it, and with the
    /// later ones, which use that again.
    with: Vec<Measured>,
    /// Of each of them: throughput, beside that of the run without checkpoints.
    throughput_ratio: Vec<f64>,
    /// The same if the executor's thread had a processor for itself.
    cpu_ratio: Vec<f64>,
    raw: Raw,
}

impl Report {
    fn print(&self) {
        for (with, name) in self.with.iter().zip(["the first", "from then on"]) {
            let ratio = with.ops_per_s / self.without.ops_per_s;
            let cpu_ratio = self.without.cpu_us_per_op / with.cpu_us_per_op;
            let more_us = (with.cpu_us_per_op - self.without.cpu_us_per_op) * with.operations as f64;
            println!(
                "{name}: throughput {ratio:.2} of a run without checkpoints ({cpu_ratio:.2} by processor time), longest pause {:.2} ms \
                 ({:.2} ms of processor time), {:.0} ms of processor time for each with state",
                with.longest_pause_ms,
                with.longest_pause_cpu_ms,
                more_us / 1e3 / with.with_state.max(1) as f64
            );
        }
        println!(
            "control: longest pause without checkpoints {:.2} ms ({:.2} ms of processor time)",
            self.without.longest_pause_ms, self.without.longest_pause_cpu_ms
        );
        println!(
            "raw, the bytes of the state in as many pieces, one thread: copied {:.0} ms, to memory that was just taken {:.0} ms, digested {:.0} ms",
            self.raw.copy_ms, self.raw.copy_fresh_ms, self.raw.digest_ms
        );
    }
}

/// What the machine needs for the bytes of the state, in pieces as long as parts: what a checkpoint cannot do
/// without.
#[derive(Debug, Serialize)]
struct Raw {
    /// Copying them to memory that was written before.
    copy_ms: f64,
    /// Copying them to memory that the system has to find first.
    copy_fresh_ms: f64,
    /// Digesting them, on one thread.
    digest_ms: f64,
}

impl Raw {
    fn measure(parameters: &Parameters) -> Self {
        let bytes = (parameters.state_mib as usize) << 20;
        let pieces = bytes / PARTS;
        let from: Vec<Vec<u8>> = (0..PARTS).map(|part| vec![part as u8 | 1; pieces]).collect();
        let time = |mut work: Box<dyn FnMut() + '_>| {
            let start = cpu_time();
            work();
            (cpu_time() - start).as_secs_f64() * 1e3
        };
        let mut to = Vec::with_capacity(PARTS);
        let copy_fresh_ms = time(Box::new(|| to.extend(from.iter().cloned())));
        let copy_ms = time(Box::new(|| {
            for (to, from) in to.iter_mut().zip(&from) {
                to.copy_from_slice(from);
            }
        }));
        let digest_ms = time(Box::new(|| {
            for piece in &to {
                std::hint::black_box(blake3::hash(piece));
            }
        }));
        Self {
            copy_ms,
            copy_fresh_ms,
            digest_ms,
        }
    }
}

/// Takes the time between operations.
#[derive(Debug, Clone)]
struct Timed {
    start: Instant,
    last_ns: Arc<AtomicU64>,
    longest_ns: Arc<AtomicU64>,
    operations: Arc<AtomicU64>,
    last_cpu_ns: Arc<AtomicU64>,
    longest_cpu_ns: Arc<AtomicU64>,
}

/// Operations between two looks at the processor time, which costs a system call.
const CPU_EVERY: u64 = 8;

impl Timed {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The executor goes on after a stretch that does not count.
    fn resume(&self) {
        self.last_ns.store(self.now(), Ordering::Relaxed);
        self.last_cpu_ns
            .store(cpu_time().as_nanos() as u64, Ordering::Relaxed);
    }

    fn forget(&self) {
        self.longest_ns.store(0, Ordering::Relaxed);
        self.longest_cpu_ns.store(0, Ordering::Relaxed);
    }

    /// An operation was executed.
    fn count(&self) {
        if self
            .operations
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(CPU_EVERY)
        {
            self.pass();
        } else {
            self.pass_clock();
        }
    }

    /// Ends a stretch, or an operation.
    fn pass(&self) {
        self.pass_clock();
        let now = cpu_time().as_nanos() as u64;
        let gap = now - self.last_cpu_ns.swap(now, Ordering::Relaxed);
        self.longest_cpu_ns.fetch_max(gap, Ordering::Relaxed);
    }

    fn pass_clock(&self) {
        let now = self.now();
        let gap = now - self.last_ns.swap(now, Ordering::Relaxed);
        self.longest_ns.fetch_max(gap, Ordering::Relaxed);
    }
}

impl Application for Timed {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        Kv.initial_state()
    }

    fn update(
        &self,
        state: &mut PartitionedStore,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        Kv.update(state, context, operation, result);
        self.count();
    }

    fn unordered_execution(
        &self,
        state: &PartitionedStore,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        Kv.unordered_execution(state, context, operation, result);
    }

    fn prepare(&self, state: &PartitionedStore, operations: &[&[u8]]) {
        Kv.prepare(state, operations);
    }

    fn name(&self) -> &'static str {
        "kv, timed"
    }
}

/// What is done beside the executor.
enum SnapshotWork {
    Help(CheckpointHelp),
    Write(Box<dyn CheckpointSnapshot>),
}

/// Writes snapshots and helps with digests, as the storage worker does: one at a time, on a thread of its
/// own.
struct Writer {
    tasks: mpsc::Sender<SnapshotWork>,
    thread: JoinHandle<()>,
    is_writing: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Writer {
    fn start(directory: &Path) -> Self {
        let (tasks, todo) = mpsc::channel();
        let (is_writing, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_done, count) = (is_writing.clone(), written.clone());
        let directory = directory.to_owned();
        let thread = std::thread::spawn(move || {
            let mut kept: VecDeque<PathBuf> = VecDeque::new();
            for work in todo {
                let mut snapshot = match work {
                    SnapshotWork::Write(snapshot) => snapshot,
                    SnapshotWork::Help(help) => {
                        help.run();
                        continue;
                    }
                };
                let path = directory.join(format!("{:016}", snapshot.claim().seq.get()));
                snapshot::write(&path, &mut *snapshot, 1).expect("there is space for snapshots");
                drop(snapshot);
                kept.push_back(path);
                if kept.len() > 2 {
                    let old = kept.pop_front().unwrap_or_default();
                    std::fs::remove_file(old).expect("it was written");
                }
                count.fetch_add(1, Ordering::Relaxed);
                is_done.store(false, Ordering::Release);
            }
            for last in kept {
                std::fs::remove_file(last).expect("it was written");
            }
        });
        Self {
            tasks,
            thread,
            is_writing,
            written,
        }
    }
}

struct Load {
    parameters: Parameters,
    random: u64,
    seq: u64,
}

impl Load {
    fn key(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (keys, hot) = (self.parameters.keys, self.parameters.hot_percent);
        let is_hot = hot > 0 && !self.random.is_multiple_of(10);
        let reach = if is_hot { (keys * hot / 100).max(1) } else { keys };
        (self.random >> 8) % reach
    }

    fn decision(&mut self, mut key: impl FnMut(&mut Self) -> u64) -> Arc<Proposal> {
        self.seq += 1;
        let value = vec![self.seq as u8; self.parameters.value_bytes];
        let clients = self.parameters.batch_operations / FRAME_OPERATIONS;
        let frames: Vec<Frame> = (0..clients)
            .map(|client| {
                let mut builder = FrameBuilder::default();
                for _ in 0..FRAME_OPERATIONS {
                    let put = kv::put(&key(self).to_le_bytes(), &value).expect("the key is short");
                    builder.push(&put).expect("it fits");
                }
                let client = ClientId::new(client as u32);
                let body = builder.finish(client, FrameSeq::new(self.seq), Mode::Ordered);
                let frame = RequestFrame {
                    body,
                    authenticator: Authenticator::Macs(Vec::new()),
                };
                Frame::check(frame.to_archive(), 4096, 16 << 20, |_| Digest::ZERO).expect("it is sound")
            })
            .collect();
        let bytes = frames.iter().map(|frame| frame.bytes().len()).sum();
        Arc::new(Proposal {
            view: View::ZERO,
            seq: SeqNo::new(self.seq),
            batch: Arc::new(Batch {
                digest: Digest::ZERO,
                time: UnixTime::EPOCH,
                frames,
                bytes,
            }),
            message: Bytes::new(),
            authentic: true,
        })
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What is counted of one stretch.
struct Stretch {
    latency: Histogram<u64>,
    busy: Duration,
    cpu: Duration,
    began: Instant,
    checkpoints: u64,
    with_state: u64,
    snapshots_before: u64,
}

impl Stretch {
    fn begin(timed: &Timed, writer: &Writer) -> Self {
        timed.forget();
        Self {
            latency: Histogram::new(3).expect("three digits"),
            busy: Duration::ZERO,
            cpu: Duration::ZERO,
            began: Instant::now(),
            checkpoints: 0,
            with_state: 0,
            snapshots_before: writer.written.load(Ordering::Relaxed),
        }
    }

    /// Hands on what the executor says, as the execution role does after every decision.
    fn emit(&mut self, events: &mut Vec<ExecutionEvent>, writer: &Writer) {
        let hand = |work| writer.tasks.send(work).expect("the writer lives");
        for event in events.drain(..) {
            match event {
                ExecutionEvent::Checkpoint(checkpoint) => {
                    self.checkpoints += 1;
                    self.with_state += u64::from(checkpoint.light.is_none());
                }
                ExecutionEvent::Help(help) => hand(SnapshotWork::Help(help)),
                ExecutionEvent::Snapshot(snapshot) if !writer.is_writing.swap(true, Ordering::AcqRel) => {
                    hand(SnapshotWork::Write(snapshot));
                }
                _ => {}
            }
        }
    }

    fn end(self, operations: u64, is_paced: bool, timed: &Timed, writer: &Writer) -> Measured {
        let us = |quantile: f64| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        let time = if is_paced { self.began.elapsed() } else { self.busy };
        Measured {
            operations,
            seconds: time.as_secs_f64(),
            ops_per_s: operations as f64 / time.as_secs_f64(),
            longest_pause_ms: timed.longest_ns.load(Ordering::Relaxed) as f64 / 1e6,
            longest_pause_cpu_ms: timed.longest_cpu_ns.load(Ordering::Relaxed) as f64 / 1e6,
            longest_decision_ms: us(1.0) / 1e3,
            decision_p50_us: us(0.5),
            decision_p999_us: us(0.999),
            checkpoints: self.checkpoints,
            with_state: self.with_state,
            snapshots: writer.written.load(Ordering::Relaxed) - self.snapshots_before,
            cpu_us_per_op: self.cpu.as_secs_f64() * 1e6 / operations as f64,
        }
    }
}

/// Measures so many stretches, one after the other.
fn measure(parameters: &Parameters, checkpoints: bool, directory: &Path, stretches: u64) -> Vec<Measured> {
    let timed = Timed {
        start: Instant::now(),
        last_ns: Arc::default(),
        longest_ns: Arc::default(),
        operations: Arc::default(),
        last_cpu_ns: Arc::default(),
        longest_cpu_ns: Arc::default(),
    };
    let rule = match checkpoints {
        true => CheckpointRule {
            decisions: parameters.checkpoint_decisions,
            bytes: parameters.checkpoint_bytes,
            state: parameters.state_rule(),
        },
        false => CheckpointRule {
            decisions: u64::MAX,
            bytes: u64::MAX,
            state: StateRule::ALWAYS,
        },
    };
    let clients = parameters.batch_operations / FRAME_OPERATIONS;
    let digester = Digester::new(ClusterId::from_bytes([1; 16]));
    let mut executor = SingleThreaded::new(timed.clone(), clients, digester, Epoch::ZERO, rule);
    let mut load = Load {
        parameters: parameters.clone(),
        random: 0x9e37_79b9_7f4a_7c15,
        seq: 0,
    };
    let writer = Writer::start(directory);
    let mut events = Vec::new();
    let mut filled = 0;
    let mut filling = Stretch::begin(&timed, &writer);
    while filled < parameters.keys {
        let decision = load.decision(|_| {
            filled += 1;
            (filled - 1) % parameters.keys
        });
        executor.execute(&decision, &mut events);
        filling.emit(&mut events, &writer);
    }
    while executor.background_step(usize::MAX, &mut events) {}
    filling.emit(&mut events, &writer);

    let batch_bytes = load.decision(Load::key).batch.bytes as u64;
    load.seq -= 1;
    let by_bytes = parameters.checkpoint_bytes.div_ceil(batch_bytes);
    let period = parameters.checkpoint_decisions.min(by_bytes);
    // One period to get going.
    let cycle = parameters.cycle(batch_bytes, period);
    let mut run = Run {
        executor,
        timed,
        writer,
        load,
        keeps_snapshots: checkpoints,
        pace: (parameters.rate > 0.0)
            .then(|| Duration::from_secs_f64(parameters.batch_operations as f64 / parameters.rate)),
        ready: VecDeque::new(),
        has_background: false,
    };
    run.stretch(period);
    let measured = (0..stretches).map(|_| run.stretch(cycle)).collect();
    drop(run.writer.tasks);
    run.writer.thread.join().expect("snapshots are written");
    measured
}

/// An executor under load.
struct Run {
    executor: SingleThreaded<Timed>,
    timed: Timed,
    writer: Writer,
    load: Load,
    keeps_snapshots: bool,
    pace: Option<Duration>,
    ready: VecDeque<Arc<Proposal>>,
    has_background: bool,
}

impl Run {
    fn stretch(&mut self, decisions: u64) -> Measured {
        let mut events = Vec::new();
        let mut due = Instant::now();
        let mut done = 0;
        let mut stretch = Stretch::begin(&self.timed, &self.writer);
        while done < decisions {
            let count = STEP_DECISIONS.min((decisions - done) as usize);
            while self.ready.len() < count {
                let decision = self.load.decision(Load::key);
                self.ready.push_back(decision);
            }
            self.timed.resume();
            let (start, start_cpu) = (Instant::now(), cpu_time());
            let executed = self.step(count, &mut due, &mut stretch, &mut events);
            if executed > 0 || Instant::now() > due {
                self.timed.pass();
            }
            stretch.busy += start.elapsed();
            stretch.cpu += cpu_time() - start_cpu;
            done += executed as u64;
            if executed == 0 && !self.has_background {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        let operations = decisions * self.load.parameters.batch_operations as u64;
        stretch.end(operations, self.pace.is_some(), &self.timed, &self.writer)
    }

    /// What the execution role does in a step; how many decisions were executed.
    fn step(
        &mut self,
        count: usize,
        due: &mut Instant,
        stretch: &mut Stretch,
        events: &mut Vec<ExecutionEvent>,
    ) -> usize {
        let mut executed = 0;
        while executed < count {
            if self.pace.is_some() && Instant::now() < *due {
                break;
            }
            let Some(decision) = self.ready.pop_front() else {
                break;
            };
            let begin = Instant::now();
            self.executor.execute(&decision, events);
            stretch.emit(events, &self.writer);
            stretch
                .latency
                .record(begin.elapsed().as_nanos() as u64)
                .expect("it grows");
            *due += self.pace.unwrap_or_default();
            executed += 1;
            self.has_background = true;
        }
        // While nothing is due, standing still is no pause.
        if executed == 0 {
            self.timed.resume();
        }
        if self.has_background {
            self.has_background = self.executor.background_step(STEP_BACKGROUND_BYTES, events);
            stretch.emit(events, &self.writer);
        }
        let is_writing = self.writer.is_writing.load(Ordering::Acquire);
        self.executor.keep_snapshots(self.keeps_snapshots && !is_writing);
        executed
    }
}

fn print(name: &str, measured: &Measured) {
    println!(
        "{name:<22} {:>10.0} {:>9.3} {:>9.3} {:>11.3} {:>9.0} {:>9.0} {:>12} {:>10} {:>7} {:>9.3}",
        measured.ops_per_s,
        measured.longest_pause_ms,
        measured.longest_pause_cpu_ms,
        measured.longest_decision_ms,
        measured.decision_p50_us,
        measured.decision_p999_us,
        measured.checkpoints,
        measured.with_state,
        measured.snapshots,
        measured.cpu_us_per_op
    );
}

fn main() {
    let arguments = Arguments::parse();
    let parameters = Parameters {
        state_mib: arguments.mib,
        keys: (arguments.mib << 20) / (arguments.value_bytes as u64 + PAIR_BYTES),
        value_bytes: arguments.value_bytes,
        batch_operations: arguments.batch_operations.next_multiple_of(FRAME_OPERATIONS),
        checkpoint_decisions: arguments.decisions,
        checkpoint_bytes: arguments.bytes,
        state_log_factor: arguments.factor,
        state_log_bytes_max: arguments.log_mib << 20,
        cycles: arguments.cycles,
        rate: arguments.rate,
        hot_percent: arguments.hot,
    };
    let directory = arguments.dir;
    let temporary = tempfile::tempdir_in(&directory).expect("the directory can be written");
    println!("{parameters:?}, snapshots in {}", directory.display());
    println!(
        "{:<22} {:>10} {:>9} {:>9} {:>11} {:>9} {:>9} {:>12} {:>10} {:>7} {:>9}",
        "run",
        "ops/s",
        "pause/ms",
        "…CPU/ms",
        "decision/ms",
        "p50/µs",
        "p99.9/µs",
        "checkpoints",
        "with state",
        "images",
        "CPU µs/op"
    );
    let without = measure(&parameters, false, temporary.path(), 1).remove(0);
    print("without checkpoints", &without);
    let with = measure(&parameters, true, temporary.path(), 2);
    print("with, the first", &with[0]);
    print("with, from then on", &with[1]);
    let report = Report {
        throughput_ratio: with
            .iter()
            .map(|with| with.ops_per_s / without.ops_per_s)
            .collect(),
        cpu_ratio: with
            .iter()
            .map(|with| without.cpu_us_per_op / with.cpu_us_per_op)
            .collect(),
        raw: Raw::measure(&parameters),
        parameters,
        without,
        with,
    };
    report.print();
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).expect("the report is plain");
        std::fs::write(path, text).expect("the file can be written");
    }
}
