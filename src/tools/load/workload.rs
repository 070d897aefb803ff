use serde::{Deserialize, Serialize};

use crate::runtime::config::AppKind;
use crate::smr::execution::apps::{bank, counter, kv};
use crate::smr::messages::{Mode, OperationResult};

/// Makes the operations of a load: always the same for the same seed.
#[derive(Debug, Clone)]
pub struct Workload {
    app: AppKind,
    shape: Shape,
    zipf: Option<Zipf>,
    write: Vec<u8>,
    read: Vec<u8>,
    state: u64,
}

/// What the operations of a load are like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Bytes of one operation, where the application's operations have no size of their own.
    pub payload_bytes: usize,
    /// Keys or accounts.
    pub keys: u64,
    /// The share of reads, from 0 to 1.
    pub reads: f64,
    /// Whether reads are asked beside the order.
    pub unordered: bool,
    /// The skew of the keys, from 0 (uniform) to below 1: the theta of YCSB's zipfian.
    pub zipf: f64,
    /// The share of operations that touch the first key, hence each other, from 0 to 1.
    pub conflict: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            payload_bytes: 64,
            keys: 100_000,
            reads: 0.0,
            unordered: false,
            zipf: 0.0,
            conflict: 0.0,
        }
    }
}

/// Zipfian numbers (Gray et al., "Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994,
/// section 3.2).
#[derive(Debug, Clone, Copy)]
struct Zipf {
    items: f64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(items: u64, theta: f64) -> Self {
        let zeta = |count: u64| (1..=count).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let (all, two) = (zeta(items), zeta(2));
        let items = items as f64;
        Self {
            items,
            theta,
            zeta: all,
            alpha: 1.0 / (1.0 - theta),
            eta: (1.0 - (2.0 / items).powf(1.0 - theta)) / (1.0 - two / all),
        }
    }

    /// The number for a uniform one from 0 to 1: 0 is the most frequent.
    fn pick(&self, uniform: f64) -> u64 {
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let spread = (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        ((self.items * spread) as u64).min(self.items as u64 - 1)
    }
}

/// The size of a key, in bytes.
const KEY_BYTES: usize = 8;
/// The most skew: at 1 the generator has no answer.
const ZIPF_MAX: f64 = 0.999;
/// Where the key begins in a put.
const KEY_AT: usize = 3;

impl Workload {
    /// Operations of this shape.
    #[must_use]
    pub fn new(app: AppKind, shape: Shape, seed: u64) -> Self {
        let shape = Shape {
            keys: shape.keys.max(1),
            ..shape
        };
        let write = match app {
            AppKind::Kv => {
                let value = vec![b'v'; shape.payload_bytes.saturating_sub(KEY_AT + KEY_BYTES)];
                kv::put(&[0; KEY_BYTES], &value).unwrap_or_default()
            }
            AppKind::Null => vec![0; shape.payload_bytes],
            AppKind::Bank => bank::deposit_with_memo(0, 1, shape.payload_bytes),
            AppKind::Counter => counter::add(1),
        };
        let read = match app {
            AppKind::Kv => kv::get(&[0; KEY_BYTES]).unwrap_or_default(),
            AppKind::Null => write.clone(),
            AppKind::Bank => bank::balance(0),
            AppKind::Counter => counter::read(),
        };
        let zipf =
            (shape.zipf > 0.0 && shape.keys > 2).then(|| Zipf::new(shape.keys, shape.zipf.min(ZIPF_MAX)));
        Self {
            app,
            shape,
            zipf,
            write,
            read,
            state: seed | 1,
        }
    }

    /// A number from 0 to below 1.
    fn uniform(&mut self) -> f64 {
        // xorshift64 (Marsaglia, 2003): the keys need no better randomness.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as f64 / (1u64 << 53) as f64
    }

    fn key(&mut self) -> u64 {
        if self.shape.conflict > 0.0 && self.uniform() < self.shape.conflict {
            return 0;
        }
        let uniform = self.uniform();
        match &self.zipf {
            Some(zipf) => zipf.pick(uniform),
            None => (uniform * self.shape.keys as f64) as u64,
        }
    }

    /// The next operation, and how it is to be executed.
    pub fn next_operation(&mut self) -> (&[u8], Mode) {
        let key = self.key().to_le_bytes();
        let is_read = self.shape.reads > 0.0 && self.uniform() < self.shape.reads;
        let (operation, mode) = match is_read {
            true if self.shape.unordered => (&mut self.read, Mode::Unordered),
            true => (&mut self.read, Mode::Ordered),
            false => (&mut self.write, Mode::Ordered),
        };
        match self.app {
            AppKind::Kv => operation[KEY_AT..KEY_AT + KEY_BYTES].copy_from_slice(&key),
            AppKind::Bank => operation[1..9].copy_from_slice(&key),
            AppKind::Null | AppKind::Counter => {}
        }
        (operation, mode)
    }

    /// Whether a result is what this workload's operations give.
    #[must_use]
    pub fn is_expected(&self, result: OperationResult<'_>) -> bool {
        let OperationResult::Value(result) = result else {
            return false;
        };
        match self.app {
            // A read finds its key or not.
            AppKind::Kv => result == [0] || (self.shape.reads > 0.0 && result.first() == Some(&1)),
            AppKind::Null => result.is_empty(),
            AppKind::Counter => counter::value(result).is_some(),
            AppKind::Bank => counter::value(result).is_some(),
        }
    }

    /// The size of an operation, in bytes.
    #[must_use]
    pub fn operation_bytes(&self) -> usize {
        self.write.len()
    }
}
