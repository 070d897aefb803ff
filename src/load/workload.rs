use crate::config::AppKind;
use crate::execution::PANIC_RESULT;
use crate::execution::apps::{MALFORMED, bank, counter, kv};

/// Makes the operations of a load: always the same for the same seed.
#[derive(Debug, Clone)]
pub struct Workload {
    app: AppKind,
    keys: u64,
    template: Vec<u8>,
    state: u64,
}

/// The size of a key, in bytes.
const KEY_BYTES: usize = 8;
/// Where the key begins in a put.
const KEY_AT: usize = 3;

impl Workload {
    /// Operations of `payload_bytes` each (where the application's operations have no size of their own), over `keys`
    /// keys or accounts.
    #[must_use]
    pub fn new(app: AppKind, payload_bytes: usize, keys: u64, seed: u64) -> Self {
        let template = match app {
            AppKind::Kv => {
                let value = vec![b'v'; payload_bytes.saturating_sub(KEY_AT + KEY_BYTES)];
                kv::put(&[0; KEY_BYTES], &value).unwrap_or_default()
            }
            AppKind::Null => vec![0; payload_bytes],
            AppKind::Bank => bank::deposit(0, 1),
            AppKind::Counter => counter::add(1),
        };
        Self {
            app,
            keys: keys.max(1),
            template,
            state: seed | 1,
        }
    }

    /// The next operation.
    pub fn next_operation(&mut self) -> &[u8] {
        // xorshift64 (Marsaglia, 2003): the keys need no better randomness.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let key = (self.state % self.keys).to_le_bytes();
        match self.app {
            AppKind::Kv => self.template[KEY_AT..KEY_AT + KEY_BYTES].copy_from_slice(&key),
            AppKind::Bank => self.template[1..9].copy_from_slice(&key),
            AppKind::Null | AppKind::Counter => {}
        }
        &self.template
    }

    /// Whether a result is what this workload's operations give.
    #[must_use]
    pub fn is_expected(&self, result: &[u8]) -> bool {
        match self.app {
            AppKind::Kv => result == [0],
            AppKind::Null => result.is_empty(),
            AppKind::Counter => counter::value(result).is_some(),
            AppKind::Bank => result.first() == Some(&0),
        }
    }

    /// Whether any result is that of a failed operation.
    #[must_use]
    pub fn is_failure(result: &[u8]) -> bool {
        result == [MALFORMED] || result == PANIC_RESULT
    }

    /// The size of an operation, in bytes.
    #[must_use]
    pub fn operation_bytes(&self) -> usize {
        self.template.len()
    }
}
