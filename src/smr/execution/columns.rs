use super::{
    CheckpointHelp, Column, KeyedPart, KeyedState, MonolithicState, PARTS, PartitionedStore, PartsSnapshot,
    SnapshotError,
};
use crate::smr::crypto::Digester;
use crate::smr::types::Digest;

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
    columns: [PartsSnapshot<KeyedPart>; N],
    /// The next column to digest, or the next piece to write.
    next: usize,
}

/// A column that is not there has no keys.
///
/// # Panics
/// [`put`](KeyedState::put) panics for a column that is not there.
impl<const N: usize> KeyedState for Columns<N> {
    fn has_column(column: Column) -> bool {
        usize::from(column.0) < N
    }

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

    const UNDOES: bool = true;

    fn begin_operation(&mut self) {
        self.columns.iter_mut().for_each(MonolithicState::begin_operation);
    }

    fn keep_operation(&mut self) {
        self.columns.iter_mut().for_each(MonolithicState::keep_operation);
    }

    fn undo_operation(&mut self) {
        self.columns.iter_mut().for_each(MonolithicState::undo_operation);
    }

    fn snapshot(&mut self) -> ColumnsSnapshot<N> {
        ColumnsSnapshot {
            columns: self.columns.each_mut().map(PartitionedStore::snapshot),
            next: 0,
        }
    }

    fn digest_step(
        snapshot: &mut ColumnsSnapshot<N>,
        digester: &Digester,
        budget_bytes: usize,
        digests: &mut Vec<Digest>,
    ) -> bool {
        let Some(column) = snapshot.columns.get_mut(snapshot.next) else {
            return true;
        };
        if PartitionedStore::digest_step(column, digester, budget_bytes, digests) {
            snapshot.next += 1;
        }
        snapshot.next == N
    }

    fn piece_count(_: &ColumnsSnapshot<N>) -> usize {
        N * PARTS
    }

    fn write_piece(snapshot: &mut ColumnsSnapshot<N>, out: &mut Vec<u8>) {
        if let Some(column) = snapshot.columns.get_mut(snapshot.next / PARTS) {
            PartitionedStore::write_piece(column, out);
            snapshot.next += 1;
        }
    }

    fn digest_help(snapshot: &ColumnsSnapshot<N>, digester: &Digester) -> Option<CheckpointHelp> {
        let columns = snapshot.columns.iter().rev();
        let help: Vec<CheckpointHelp> = columns
            .filter_map(|column| PartitionedStore::digest_help(column, digester))
            .collect();
        Some(CheckpointHelp::new(|| {
            help.into_iter().for_each(CheckpointHelp::run)
        }))
    }

    fn copy_help(&self) -> Option<CheckpointHelp> {
        let columns = self.columns.iter();
        let help: Vec<CheckpointHelp> = columns.filter_map(PartitionedStore::copy_help).collect();
        Some(CheckpointHelp::new(|| {
            help.into_iter().for_each(CheckpointHelp::run)
        }))
    }

    fn blank() -> Self {
        Self::default()
    }

    fn size_bytes(&self) -> u64 {
        self.columns.iter().map(PartitionedStore::size_bytes).sum()
    }

    fn read_piece(&mut self, piece: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        let column = self.columns.get_mut(piece / PARTS).ok_or(SnapshotError::State)?;
        column.read_piece(piece % PARTS, bytes)
    }

    fn digest_left_bytes(snapshot: &ColumnsSnapshot<N>) -> usize {
        let left = snapshot.columns.iter().map(PartitionedStore::digest_left_bytes);
        left.sum()
    }
}
