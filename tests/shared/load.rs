//! A closed loop of clients that runs beside a test, and what they were served meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use atlas_smr_replica::client::{Engine, EngineHandle};
use atlas_smr_replica::config::{AppKind, ClientConfig};
use atlas_smr_replica::load::{Control, LoadDriver, Pace, Shape, Workload};

/// Throughput is told as the median of windows so long: one that waits for a slow sync, or for somebody else's compiler, counts as one.
const WINDOW: Duration = Duration::from_millis(100);
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

    /// Operations answered a second, window after window, while `goes_on`; asked once a window. One window at least.
    pub fn watch(&self, mut goes_on: impl FnMut() -> bool) -> Rates {
        let mut rates = Rates(Vec::new());
        while rates.0.is_empty() || goes_on() {
            let (start, before) = (Instant::now(), self.answered());
            std::thread::sleep(WINDOW);
            let answered = self.answered() - before;
            rates.0.push(answered as f64 / start.elapsed().as_secs_f64());
        }
        rates
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

/// Operations a second, by window.
pub struct Rates(Vec<f64>);

impl Rates {
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    pub fn windows(&self) -> usize {
        self.0.len()
    }
}
