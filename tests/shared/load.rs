//! A closed loop of clients that runs beside a test, and what they were served meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use atlas_smr_replica::client::{Engine, EngineHandle};
use atlas_smr_replica::config::{AppKind, ClientConfig};
use atlas_smr_replica::load::{Control, LoadDriver, Pace, Shape, Workload};

/// How often a watched load is looked at.
const GLANCE: Duration = Duration::from_millis(100);
/// Small enough a state that every checkpoint includes it.
const KEYS: u64 = 200_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// Puts to a key-value store, as many under way all the time. Every one of them has to succeed.
pub struct Load {
    control: Arc<Control>,
    engine: EngineHandle,
}

impl Load {
    pub fn start(clients: &[ClientConfig], outstanding: usize) -> Self {
        let control = Control::new();
        let shape = Shape {
            keys: KEYS,
            ..Shape::default()
        };
        let driver = LoadDriver::new(
            Workload::new(AppKind::Kv, shape, 42),
            Pace::Closed { outstanding },
            clients.len(),
            DEADLINE,
            control.clone(),
        );
        let engine = Engine::start("load", clients, None, Box::new(driver)).unwrap();
        engine.wait_connected(3, DEADLINE).unwrap();
        control.measure(true);
        control.send(true);
        engine.wake();
        Self { control, engine }
    }

    /// Operations answered so far.
    pub fn answered(&self) -> u64 {
        self.control.ended.load(Ordering::Acquire)
    }

    /// Waits until so many more operations were answered.
    pub fn run(&self, operations: u64) {
        let end = self.answered() + operations;
        let (mut last, mut since) = (self.answered(), Instant::now());
        while self.answered() < end {
            std::thread::sleep(Duration::from_millis(5));
            if self.answered() != last {
                (last, since) = (self.answered(), Instant::now());
            }
            assert!(since.elapsed() < DEADLINE, "the service goes on: {last} of {end}");
        }
    }

    /// What was answered while `goes_on`, which is asked every tenth of a second; `cpu` says how much the
    /// replicas have worked so far.
    pub fn watch(&self, cpu: impl Fn() -> Duration, mut goes_on: impl FnMut() -> bool) -> Service {
        let (start, before, worked) = (Instant::now(), self.answered(), cpu());
        while goes_on() {
            std::thread::sleep(GLANCE);
        }
        let answered = (self.answered() - before) as f64;
        Service {
            operations_per_second: answered / start.elapsed().as_secs_f64(),
            cpu_us_per_operation: (cpu() - worked).as_secs_f64() * 1e6 / answered.max(1.0),
        }
    }

    /// Sends no more, and waits for what is under way.
    pub fn end(self) {
        self.control.send(false);
        let start = Instant::now();
        while !self.control.is_quiet() {
            std::thread::sleep(Duration::from_millis(1));
            assert!(start.elapsed() < 2 * DEADLINE, "every operation ends");
        }
        let tally = self.control.tally();
        assert_eq!((tally.failed, tally.unexpected), (0, 0), "{:?}", tally.last_error);
        assert_eq!(self.engine.failure(), None);
    }
}

/// What clients were served for a while, and what it took.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub operations_per_second: f64,
    /// Processor time of the replicas that were asked about, all together.
    pub cpu_us_per_operation: f64,
}

/// Processor time of these processes so far.
pub fn cpu_of(processes: &[u32]) -> Duration {
    let ticks = |process: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // After the name, which may contain anything; user and system time are the 14th and 15th field of
        // all.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut times = fields.split_whitespace().skip(11);
        let mut next = || times.next()?.parse::<u64>().ok();
        Some(next()? + next()?)
    };
    // A hundred a second, whatever the kernel's own (proc(5)).
    Duration::from_millis(10 * processes.iter().filter_map(ticks).sum::<u64>())
}
