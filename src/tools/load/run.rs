use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::driver::{Control, LoadDriver, Pace, Tally};
use super::latencies::{INTERVAL, Latencies};
use super::report::{Incident, LatencyReport, Report};
use super::{ClusterOptions, LocalCluster, Shape, States, Workload, measured_nothing, sent_nothing};
use crate::client::{Engine, EngineError, EngineHandle};
use crate::runtime::config::{ReadLevel, ViewTransferConfig};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::Pbft;

/// A load on a local cluster.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// When operations are sent.
    pub pace: Pace,
    /// What the operations are like.
    pub shape: Shape,
    /// Before measuring.
    pub warm_up: Duration,
    /// Measured.
    pub measured: Duration,
    /// When in the measured time the replica that leads is killed.
    pub kill_leader_after: Option<Duration>,
}

/// Why a run has no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The clients do not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The clients cannot reach the replicas.
    #[error("the clients cannot reach every replica: {0}")]
    NotConnected(String),
    /// The engine ended early.
    #[error("{0}")]
    EngineFailed(String),
    /// Nothing was sent, or nothing completed.
    #[error("{0}")]
    Worthless(String),
}

/// How a run goes, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    /// Since the run began, warm-up included.
    pub elapsed: Duration,
    /// Operations ended since the last tick.
    pub operations: u64,
}

/// Set when whoever waits for a load has waited enough: it ends, and what was measured until then is
/// reported.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the user has had enough.
#[must_use]
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Acquire)
}

const TICK: Duration = Duration::from_millis(100);
/// How long correct replicas may take until all have executed the same, once nothing is sent any more.
const CATCH_UP: Duration = Duration::from_secs(30);

/// Runs a load on a cluster and reports it; `tick` is called every 100 ms.
///
/// # Errors
/// When the clients do not start or connect, or nothing was measured.
pub fn run_load(
    cluster: &LocalCluster,
    cluster_options: &ClusterOptions,
    options: &LoadOptions,
    mut tick: impl FnMut(Tick),
) -> Result<(Report, Latencies), RunError> {
    let clients: Vec<_> = (0..cluster_options.clients)
        .map(|number| cluster.client(number))
        .collect();
    let control = Control::new();
    let workload = Workload::new(cluster_options.app, options.shape, 42);
    let payload_bytes = workload.operation_bytes();
    let deadline = Duration::from_millis(cluster_options.tuning.deadline_ms);
    let driver = LoadDriver::new(workload, options.pace, clients.len(), deadline, control.clone());
    let engine = Engine::start("load", &clients, None, Box::new(driver))?;
    let n = cluster.handles().count();
    engine
        .wait_connected(n, Duration::from_secs(30))
        .map_err(RunError::NotConnected)?;

    let begin = Instant::now();
    let mut watch = Watch::new(begin, options);
    let mut pass = |until: Duration| watch.until(until, cluster, &control, &mut tick);
    control.send(true);
    engine.wake();
    pass(options.warm_up);
    if let Some(why) = sent_nothing(&control) {
        return Err(RunError::Worthless(why));
    }
    let window = measure((cluster, &engine, &control), options, &mut pass);
    control.send(false);
    drain(&control, deadline);
    if let Some(failure) = engine.failure() {
        return Err(RunError::EngineFailed(failure));
    }
    let states = cluster.states(CATCH_UP);
    log_counters(cluster);
    let incident = watch.incident(cluster, &control);
    let tally = control.tally();
    if let Some(error) = &tally.last_error {
        tracing::warn!(error, "operations failed");
    }
    let seconds = window.seconds();
    if let Some(why) = measured_nothing(&tally, seconds) {
        return Err(RunError::Worthless(why));
    }
    let latencies = window.latencies;
    let measured = Measured {
        start: window.start,
        end: window.end,
        seconds,
        tally,
        resident_mib_middle: window.resident_mib_middle,
        payload_bytes,
        states,
        incident,
    };
    Ok((report(cluster, cluster_options, options, measured), latencies))
}

/// The measured time.
struct Window {
    start: Sample,
    end: Sample,
    resident_mib_middle: f64,
    latencies: Latencies,
}

impl Window {
    fn seconds(&self) -> f64 {
        self.end.at.duration_since(self.start.at).as_secs_f64()
    }
}

/// Measures what is sent from now on, interval by interval; `pass` waits for a time since the run began.
fn measure(
    (cluster, engine, control): (&LocalCluster, &EngineHandle, &Control),
    options: &LoadOptions,
    pass: &mut impl FnMut(Duration),
) -> Window {
    let start = Sample::take(cluster, engine);
    let mut latencies = Latencies::new(&control.tally());
    control.measure(true);
    let (mut until, mut resident_mib_middle) = (Duration::ZERO, 0.0);
    while until < options.measured && !is_interrupted() {
        if until > Duration::ZERO {
            latencies.cut(start.at.elapsed(), control.tally());
        }
        until = options.measured.min(until + INTERVAL);
        pass(options.warm_up + until);
        if resident_mib_middle == 0.0 && 2 * until >= options.measured {
            resident_mib_middle = resident_mib();
        }
    }
    control.measure(false);
    latencies.cut(start.at.elapsed(), control.tally());
    Window {
        end: Sample::take(cluster, engine),
        start,
        resident_mib_middle,
        latencies,
    }
}

/// Waits until what is under way has ended, or its deadlines are over.
fn drain(control: &Control, deadline: Duration) {
    let drained_by = Instant::now() + deadline + Duration::from_secs(1);
    while !control.is_quiet() && Instant::now() < drained_by {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn log_counters(cluster: &LocalCluster) {
    for replica in cluster.handles() {
        tracing::debug!(node = %replica.node(), standing = ?replica.standing(), "at the end");
        replica.visit_counters(|name, value| {
            if value > 0 {
                tracing::debug!(node = %replica.node(), name, value, "counted");
            }
        });
    }
}

/// What was seen of a run, from the beginning of the measured time to its end.
struct Measured {
    start: Sample,
    end: Sample,
    seconds: f64,
    tally: Tally,
    resident_mib_middle: f64,
    payload_bytes: usize,
    states: States,
    incident: Option<Incident>,
}

fn report(
    cluster: &LocalCluster,
    cluster_options: &ClusterOptions,
    options: &LoadOptions,
    measured: Measured,
) -> Report {
    let Measured {
        start,
        end,
        seconds,
        tally,
        resident_mib_middle,
        payload_bytes,
        states,
        incident,
    } = measured;
    let n = cluster.handles().count();
    let quorum = cluster.config().quorum();
    let per_operation = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (tally.completed.max(1) as f64);
    let replica_cpu: Vec<Duration> = end
        .replicas
        .iter()
        .zip(&start.replicas)
        .map(|(end, start)| end.saturating_sub(*start))
        .collect();
    let decisions = end.decisions - start.decisions;
    let from_clients = end.from_clients - start.from_clients;
    let from_replicas = end.from_replicas - start.from_replicas;
    Report {
        agree: states.are_equal(),
        apart: match states {
            States::Apart(standing) => Some(standing),
            States::Equal | States::Different => None,
        },
        errors: tally.failed + tally.unexpected,
        operations: tally.completed,
        throughput_ops_s: tally.completed as f64 / seconds,
        latency_us: LatencyReport::of(&tally.latency_ns),
        cpu_us_per_op_per_replica: per_operation(replica_cpu.iter().sum::<Duration>() / n as u32),
        cpu_us_per_op_leader: per_operation(replica_cpu.first().copied().unwrap_or_default()),
        cpu_us_per_op_client: per_operation(end.client.saturating_sub(start.client)),
        resident_mib_start: start.resident_mib,
        resident_mib_middle,
        resident_mib_end: end.resident_mib,
        decisions,
        operations_per_decision: tally.completed as f64 / decisions.max(1) as f64,
        n,
        f: quorum.f(),
        app: format!("{:?}", cluster_options.app).to_lowercase(),
        payload_bytes,
        outstanding: match options.pace {
            Pace::Closed { outstanding } => outstanding,
            Pace::Open { .. } => 0,
        },
        rate: match options.pace {
            Pace::Closed { .. } => 0.0,
            Pace::Open { rate } => rate,
        },
        clients: cluster_options.clients,
        operations_per_frame: tally.completed as f64 / from_clients.max(1) as f64,
        messages_per_op_per_replica: (from_clients + from_replicas) as f64
            / n as f64
            / tally.completed.max(1) as f64,
        log_syncs_per_s: (end.log_syncs - start.log_syncs) as f64 / n as f64 / seconds,
        read_level: read_level(cluster_options, &options.shape),
        auth: cluster.config().agreement.client_auth.to_string(),
        durability: cluster_options.durability.to_string(),
        executor: cluster_options.execution.executor.to_string(),
        workers: 1 + cluster_options.execution.helpers(),
        compute_us: cluster_options.compute_us,
        shape: options.shape,
        aborts_per_op: (end.aborts - start.aborts) as f64 / n as f64 / tally.completed.max(1) as f64,
        topology: cluster
            .handles()
            .next()
            .map(|replica| replica.topology().to_owned())
            .unwrap_or_default(),
        cores: core_affinity::get_core_ids().map_or(0, |cores| cores.len()),
        machine: machine(),
        seconds,
        byzantine: cluster_options.lie.map(|lie| lie.name().to_owned()),
        share_of_honest: None,
        incident,
    }
}

/// Watches a run as it passes: a tick every 100 ms, and closer when the leader is to be killed.
struct Watch {
    begin: Instant,
    /// When the leader is killed, since the beginning.
    kill_at: Option<Duration>,
    ended: u64,
    next_tick: Duration,
    per_tick: Vec<u64>,
    /// When an operation ended last, and the longest time without any since the leader was killed.
    last_end: Instant,
    ended_last: u64,
    gap: Duration,
    was_killed: bool,
}

impl Watch {
    fn new(begin: Instant, options: &LoadOptions) -> Self {
        Self {
            begin,
            kill_at: options.kill_leader_after.map(|after| options.warm_up + after),
            ended: 0,
            next_tick: TICK,
            per_tick: Vec::new(),
            last_end: begin,
            ended_last: 0,
            gap: Duration::ZERO,
            was_killed: false,
        }
    }

    fn until(
        &mut self,
        until: Duration,
        cluster: &LocalCluster,
        control: &Control,
        tick: &mut impl FnMut(Tick),
    ) {
        let pause = self.kill_at.map_or(TICK, |_| Duration::from_millis(1));
        while self.begin.elapsed() < until && !is_interrupted() {
            std::thread::sleep(pause.min(until.saturating_sub(self.begin.elapsed())));
            self.look(cluster, control);
            let elapsed = self.begin.elapsed();
            if elapsed >= self.next_tick {
                self.next_tick += TICK;
                let operations = self.ended_last - self.ended;
                self.ended = self.ended_last;
                self.per_tick.push(operations);
                tick(Tick { elapsed, operations });
            }
        }
    }

    fn look(&mut self, cluster: &LocalCluster, control: &Control) {
        let (now, ended) = (Instant::now(), control.ended.load(Ordering::Acquire));
        if self.was_killed {
            self.gap = self.gap.max(now - self.last_end);
        }
        if ended > self.ended_last {
            (self.last_end, self.ended_last) = (now, ended);
        }
        if self.kill_at.is_some_and(|at| self.begin.elapsed() >= at) {
            self.kill_at = None;
            let quorum = cluster.config().quorum();
            let view = cluster.correct().map(|replica| replica.standing().view).max();
            let leader = view.map(|view| Pbft::leader_of(view, quorum));
            cluster
                .handles()
                .filter(|replica| Some(replica.node()) == leader)
                .for_each(crate::runtime::server::ReplicaHandle::kill);
            self.was_killed = true;
            self.last_end = now;
        }
    }

    /// What came of killing the leader.
    fn incident(self, cluster: &LocalCluster, control: &Control) -> Option<Incident> {
        let sent = control.sent.load(Ordering::Acquire);
        let once = cluster
            .correct()
            .all(|replica| replica.standing().operations == sent);
        self.was_killed.then(|| Incident {
            gap_ms: self.gap.as_secs_f64() * 1e3,
            view_timeout_ms: ViewTransferConfig::default().timeout_ms,
            throughput_per_100ms: self.per_tick,
            executed_once: once,
            view: cluster
                .correct()
                .map(|replica| replica.standing().view.get())
                .max()
                .unwrap_or(0),
        })
    }
}

/// The counters at one moment.
struct Sample {
    at: Instant,
    replicas: Vec<Duration>,
    client: Duration,
    decisions: u64,
    aborts: u64,
    from_clients: u64,
    from_replicas: u64,
    log_syncs: u64,
    resident_mib: f64,
}

impl Sample {
    fn take(cluster: &LocalCluster, engine: &EngineHandle) -> Self {
        let counted = |name| cluster.handles().map(|replica| replica.counter(name)).sum();
        Self {
            at: Instant::now(),
            replicas: cluster
                .handles()
                .map(crate::runtime::server::ReplicaHandle::cpu_time)
                .collect(),
            client: engine.cpu_time(),
            decisions: cluster
                .handles()
                .next()
                .map_or(0, |replica| replica.standing().executed.get()),
            aborts: counted("executions_repeated"),
            from_clients: counted("messages_from_clients"),
            from_replicas: counted("messages_from_replicas"),
            log_syncs: counted("log_syncs"),
            resident_mib: resident_mib(),
        }
    }
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0.0);
    pages * 4096.0 / (1 << 20) as f64
}

/// What a read promises in this load.
fn read_level(cluster_options: &ClusterOptions, shape: &Shape) -> String {
    let level = match (shape.unordered, cluster_options.tuning.reads) {
        (false, _) => "ordered",
        (true, ReadLevel::Relaxed) => "unordered, relaxed",
        (true, ReadLevel::Linearizable) => "unordered, linearizable",
    };
    level.to_owned()
}

/// The processor's name.
#[must_use]
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    name.trim_start_matches([' ', '\t', ':']).to_owned()
}
