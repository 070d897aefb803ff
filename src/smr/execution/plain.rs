//! Plain values as states.

use std::any::type_name;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::encoding::{EncodingError, decode_canonical, encode};
use super::guard::{let_go, or_fault};
use super::{CheckpointHelp, MonolithicState, SnapshotError};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::types::Digest;

/// A state that is any value which serde can write: `type State = Plain<Ledger>;` is all that it takes.
///
/// ```
/// use std::collections::BTreeMap;
/// use atlas_smr_replica::execution::Plain;
///
/// let mut balances: Plain<BTreeMap<String, u64>> = BTreeMap::new().into();
/// *balances.entry("ada".into()).or_default() += 5;
/// assert_eq!(balances["ada"], 5);
/// balances.check().unwrap();
/// ```
///
/// **Equal states must write equal bytes**: their digests are what replicas compare. So nothing in it may
/// iterate in hash order: a `BTreeMap`, not a `HashMap`. [`check`](Self::check) is for an application's
/// tests; builds with debug assertions check every checkpoint, and what is read from a snapshot is checked in
/// every build. It finds untagged enums and flattened fields as well, which the format cannot read back.
/// Skipped fields (`#[serde(skip)]`) are not part of the state: nothing observable may depend on them.
///
/// **For small states**, of some megabytes: every checkpoint writes all of it, and after one the first
/// operation that changes anything copies all of it. Larger ones are
/// [`PartitionedStore`](super::PartitionedStore) or a [`DivisibleState`](super::DivisibleState). One of more
/// than [`PIECE_BYTES_MAX`](crate::smr::state_transfer::monolithic::PIECE_BYTES_MAX) cannot be transferred.
///
/// What an operation did before it panicked stays: decide, then change.
pub struct Plain<T> {
    /// Shared with the snapshots; `None` until the contents of a [blank](MonolithicState::blank) one are
    /// read.
    kept: Option<Arc<StorageEvent<T>>>,
}

struct StorageEvent<T> {
    value: T,
    /// Its encoding, once somebody needed it. A checkpoint needs it twice, for its digest and its snapshot.
    bytes: OnceLock<Vec<u8>>,
}

impl<T> StorageEvent<T> {
    fn new(value: T) -> Arc<Self> {
        let bytes = OnceLock::new();
        Arc::new(Self { value, bytes })
    }
}

impl<T: Serialize + DeserializeOwned> StorageEvent<T> {
    /// The encoding.
    ///
    /// # Panics
    /// When there is none: the replica cannot take checkpoints of such a state.
    fn bytes(&self) -> &[u8] {
        self.bytes.get_or_init(|| match written(&self.value) {
            Ok(bytes) => bytes,
            Err(error) => panic!("the state, a {}: {error}", type_name::<T>()),
        })
    }
}

/// The encoding of a state. Where assertions are on, it is also seen whether it is the only one.
fn written<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>, EncodingError> {
    let bytes = encode(value)?;
    if cfg!(debug_assertions) {
        decode_canonical::<T>(&bytes)?;
    }
    Ok(bytes)
}

impl<T> Plain<T> {
    /// The state with this value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            kept: Some(StorageEvent::new(value)),
        }
    }
}

impl<T: Serialize + DeserializeOwned> Plain<T> {
    /// Whether this value is fit to be a state: it can be written, read, and is then written alike. For an
    /// application's tests, on states with something in them: a map with one entry has one order.
    ///
    /// # Errors
    /// What is wrong with it. [`EncodingError::NotCanonical`] is the mark of a `HashMap`.
    pub fn check(&self) -> Result<(), EncodingError> {
        decode_canonical::<T>(&encode::<T>(self)?).map(|_| ())
    }
}

impl<T> From<T> for Plain<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Default> Default for Plain<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plain")
            .field(&self.kept.as_deref().map(|kept| &kept.value))
            .finish()
    }
}

/// # Panics
/// On a [blank](MonolithicState::blank) state whose contents were not read yet.
impl<T> Deref for Plain<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let kept = self.kept.as_deref();
        &kept.expect("a blank state is read before it is used").value
    }
}

/// # Panics
/// On a [blank](MonolithicState::blank) state whose contents were not read yet.
impl<T: Clone> DerefMut for Plain<T> {
    fn deref_mut(&mut self) -> &mut T {
        let kept = self.kept.as_mut();
        let kept = kept.expect("a blank state is read before it is used");
        if Arc::get_mut(kept).is_none() {
            // Whether a snapshot has it too differs from replica to replica: a panic is not the operation's.
            let copy = or_fault("it was copied", || StorageEvent::new(kept.value.clone()));
            let_go(std::mem::replace(kept, copy));
        }
        let kept = Arc::get_mut(kept).expect("nobody else has the copy");
        kept.bytes.take();
        &mut kept.value
    }
}

/// A frozen [`Plain`] state.
pub struct PlainSnapshot<T>(Arc<StorageEvent<T>>);

impl<T> fmt::Debug for PlainSnapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainSnapshot")
    }
}

impl<T> MonolithicState for Plain<T>
where
    T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Snapshot = PlainSnapshot<T>;

    fn snapshot(&mut self) -> PlainSnapshot<T> {
        let kept = self.kept.as_ref();
        PlainSnapshot(kept.expect("a blank state is read before it is used").clone())
    }

    fn digest_step(
        snapshot: &mut PlainSnapshot<T>,
        digester: &Digester,
        _: usize,
        digests: &mut Vec<Digest>,
    ) -> bool {
        digests.push(digester.digest(Domain::State, snapshot.0.bytes()));
        true
    }

    fn piece_count(_: &PlainSnapshot<T>) -> usize {
        1
    }

    fn write_piece(snapshot: &mut PlainSnapshot<T>, out: &mut Vec<u8>) {
        out.extend_from_slice(snapshot.0.bytes());
    }

    fn blank() -> Self {
        Self { kept: None }
    }

    fn read_piece(&mut self, _: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        let value = decode_canonical(bytes).map_err(|_| SnapshotError::State)?;
        self.kept = Some(StorageEvent::new(value));
        Ok(())
    }

    fn digest_help(snapshot: &PlainSnapshot<T>, _: &Digester) -> Option<CheckpointHelp> {
        let kept = snapshot.0.clone();
        Some(CheckpointHelp::new(move || {
            kept.bytes();
        }))
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
