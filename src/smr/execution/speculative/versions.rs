//! Which operation read and wrote which key: the index of the multi-version memory. The values themselves lie
//! with the operations' outcomes.

use super::shim::{Mutex, MutexGuard};

/// What an operation did with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    Read,
    Write,
}

/// One operation and one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    hash: u64,
    txn: u64,
    /// Which execution of the operation.
    incarnation: u32,
    did: Did,
}

/// Keys by hash, striped. A stripe's entries are in the order of their operations. Entries of operations that
/// were committed are of no interest any more and go when their stripe is full.
#[derive(Debug)]
pub(super) struct Versions {
    stripes: Box<[Mutex<Vec<Entry>>]>,
}

/// What an incomplete stripe holds at least before it is purged.
const PURGED_FROM: usize = 8;

impl Versions {
    /// `stripes` must be a power of two.
    pub fn new(stripes: usize) -> Self {
        Self {
            stripes: (0..stripes).map(|_| Mutex::new(Vec::new())).collect(),
        }
    }

    fn stripe(&self, hash: u64) -> MutexGuard<'_, Vec<Entry>> {
        let stripe = &self.stripes[hash as usize & (self.stripes.len() - 1)];
        stripe.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes that execution `incarnation` of `txn` reads a key, and names the nearest operation before it
    /// that wrote the key and is not committed (`head` is the first that is not).
    pub fn on_read(&self, hash: u64, txn: u64, incarnation: u32, head: u64) -> Option<u64> {
        let mut stripe = self.stripe(hash);
        insert(
            &mut stripe,
            Entry {
                hash,
                txn,
                incarnation,
                did: Did::Read,
            },
            head,
        );
        let before = stripe.partition_point(|entry| entry.txn < txn);
        let mut earlier = stripe[..before]
            .iter()
            .rev()
            .take_while(|entry| entry.txn >= head);
        earlier
            .find(|entry| entry.hash == hash && entry.did == Did::Write)
            .map(|entry| entry.txn)
    }

    /// Notes that `txn` wrote a key.
    pub fn on_write(&self, hash: u64, txn: u64, incarnation: u32, head: u64) {
        let entry = Entry {
            hash,
            txn,
            incarnation,
            did: Did::Write,
        };
        insert(&mut self.stripe(hash), entry, head);
    }

    /// An earlier execution of `txn` wrote a key which the present one did not.
    pub fn on_unwritten(&self, hash: u64, txn: u64) {
        self.stripe(hash)
            .retain(|entry| (entry.hash, entry.txn, entry.did) != (hash, txn, Did::Write));
    }

    /// Names the executions after `txn` that read the key when `txn` had another value for it: those up to
    /// the next operation that writes it, which included.
    pub fn readers_after(&self, hash: u64, txn: u64, mut visit: impl FnMut(u64, u32)) {
        let stripe = self.stripe(hash);
        let after = stripe.partition_point(|entry| entry.txn <= txn);
        for entry in stripe[after..].iter().filter(|entry| entry.hash == hash) {
            match entry.did {
                // A stripe has an operation's read before its write.
                Did::Read => visit(entry.txn, entry.incarnation),
                Did::Write => break,
            }
        }
    }
}

fn insert(stripe: &mut Vec<Entry>, entry: Entry, head: u64) {
    if stripe.len() == stripe.capacity() && stripe.len() >= PURGED_FROM {
        stripe.retain(|entry| entry.txn >= head);
    }
    let same = stripe.partition_point(|other| other.txn < entry.txn);
    let behind = same
        + stripe[same..]
            .iter()
            .take_while(|other| other.txn == entry.txn)
            .count();
    let known = stripe[same..behind]
        .iter_mut()
        .find(|other| other.hash == entry.hash && other.did == entry.did);
    match (known, entry.did) {
        (Some(known), _) => known.incarnation = entry.incarnation,
        (None, Did::Read) => stripe.insert(same, entry),
        (None, Did::Write) => stripe.insert(behind, entry),
    }
}
