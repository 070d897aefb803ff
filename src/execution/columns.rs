use super::{Column, ImageError, KeyedState, MonolithicState, PartitionedStore, PartsSnapshot};
use crate::crypto::{Digester, Domain};
use crate::types::Digest;

/// Several columns of byte strings under keys, numbered from 0, each a [`PartitionedStore`].
#[derive(Debug)]
pub struct Columns<const N: usize> {
    columns: [PartitionedStore; N],
}

impl<const N: usize> Default for Columns<N> {
    fn default() -> Self {
        Self {
            columns: std::array::from_fn(|_| PartitionedStore::default()),
        }
    }
}

/// Frozen [`Columns`], as far as they were not digested or written yet.
#[derive(Debug)]
pub struct ColumnsSnapshot<const N: usize> {
    columns: [PartsSnapshot; N],
    hasher: Option<blake3::Hasher>,
    next: usize,
}

/// A column that is not there has no keys.
///
/// # Panics
/// [`put`](KeyedState::put) panics for a column that is not there.
impl<const N: usize> KeyedState for Columns<N> {
    fn get(&self, column: Column, key: &[u8]) -> Option<&[u8]> {
        self.columns.get(usize::from(column.0))?.get(key)
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        let column = self.columns.get_mut(usize::from(column.0));
        column.expect("the column is there").put(key, value);
    }

    fn remove(&mut self, column: Column, key: &[u8]) -> bool {
        let column = self.columns.get_mut(usize::from(column.0));
        column.is_some_and(|column| column.delete(key))
    }
}

impl<const N: usize> MonolithicState for Columns<N> {
    type Snapshot = ColumnsSnapshot<N>;

    fn snapshot(&mut self) -> ColumnsSnapshot<N> {
        ColumnsSnapshot {
            columns: self.columns.each_mut().map(PartitionedStore::snapshot),
            hasher: None,
            next: 0,
        }
    }

    fn digest_step(
        snapshot: &mut ColumnsSnapshot<N>,
        digester: &Digester,
        budget_bytes: usize,
    ) -> Option<Digest> {
        let hasher = snapshot
            .hasher
            .get_or_insert_with(|| digester.hasher(Domain::State));
        if let Some(column) = snapshot.columns.get_mut(snapshot.next) {
            if let Some(digest) = PartitionedStore::digest_step(column, digester, budget_bytes) {
                hasher.update(digest.as_bytes());
                snapshot.next += 1;
            }
            return None;
        }
        Some(Digest::from_bytes(*hasher.finalize().as_bytes()))
    }

    fn write_chunk(snapshot: &mut ColumnsSnapshot<N>, budget_bytes: usize, chunk: &mut Vec<u8>) -> bool {
        while let Some(column) = snapshot.columns.get_mut(snapshot.next) {
            chunk.push(snapshot.next as u8);
            if PartitionedStore::write_chunk(column, budget_bytes, chunk) {
                return true;
            }
            chunk.pop();
            snapshot.next += 1;
        }
        false
    }

    fn blank() -> Self {
        Self::default()
    }

    fn read_chunk(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        let (column, chunk) = chunk.split_first().ok_or(ImageError::State)?;
        let column = self.columns.get_mut(usize::from(*column));
        column.ok_or(ImageError::State)?.read_chunk(chunk)
    }

    fn digest_left_bytes(snapshot: &ColumnsSnapshot<N>) -> usize {
        let left = snapshot.columns.iter().map(PartitionedStore::digest_left_bytes);
        left.sum()
    }
}
