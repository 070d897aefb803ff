//! States that consist of parts: what changes in one costs nothing in the others.
//!
//! A [`DivisibleState`] keeps what it consists of in [`Parts`], and changes a part through them. So it is
//! known which parts a checkpoint has to copy and digest anew, and a replica that lags behind is sent those
//! that its own snapshot does not have ([`crate::smr::state_transfer::monolithic`]). Everything else of a
//! [`MonolithicState`] comes by itself.

use super::part_buffers::Room;
use super::parts::PartsSnapshot;
use super::{CheckpointHelp, MonolithicState, Parts, SnapshotError};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::types::Digest;

/// A part of a [`DivisibleState`]: copied, digested, kept and transferred as a whole.
///
/// What a write to a part copies at most is one part, and only the first after a checkpoint; what a lagging
/// replica is sent is parts: a few thousand of them for a large state keep both small. A part of more than
/// [`PIECE_BYTES_MAX`](crate::smr::state_transfer::monolithic::PIECE_BYTES_MAX) cannot be transferred.
///
/// Copies are made with [`Clone::clone_from`] into memory of an earlier copy, where there is some.
///
/// When parts are copied, measured, digested and let go differs from replica to replica, so nothing that
/// these do may be seen in the contents, and a panic in one of them, `Drop` apart, stops the replica.
pub trait StatePart: Clone + Default + Send + Sync + 'static {
    /// Appends its contents. Equal parts write equal bytes, however they came about.
    fn write(&self, out: &mut Vec<u8>);

    /// About how many bytes that are, at once: a function of the contents alone.
    fn size_bytes(&self) -> u64;

    /// The digest of what [`write`](Self::write) writes, in
    /// [`Domain::State`](crate::smr::crypto::Domain::State): for parts that can do it in less memory.
    fn digest(&self, digester: &Digester) -> Digest {
        let mut bytes = Vec::with_capacity(self.size_bytes() as usize);
        self.write(&mut bytes);
        digester.digest(Domain::State, &bytes)
    }

    /// How much memory it has, so that as much can be found ahead for its copy. By default that is not done.
    fn room(&self) -> Room {
        Room::NONE
    }

    /// A part without contents, with memory that was written to already.
    fn with_room(_room: Room) -> Self {
        Self::default()
    }
}

/// A state in parts. It is a [`MonolithicState`] by that, whose pieces are the parts.
///
/// ```
/// use atlas_smr_replica::execution::{DivisibleState, SnapshotError, Parts, StatePart};
///
/// /// Counters, each a part.
/// struct Counters(Parts<Count>);
///
/// #[derive(Clone, Default)]
/// struct Count(u64);
///
/// impl StatePart for Count {
///     fn write(&self, out: &mut Vec<u8>) {
///         out.extend_from_slice(&self.0.to_le_bytes());
///     }
///
///     fn size_bytes(&self) -> u64 {
///         8
///     }
/// }
///
/// impl DivisibleState for Counters {
///     type Part = Count;
///
///     fn blank() -> Self {
///         Self(Parts::new(100))
///     }
///
///     fn parts(&self) -> &Parts<Count> {
///         &self.0
///     }
///
///     fn read_part(&mut self, number: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
///         let bytes = bytes.try_into().map_err(|_| SnapshotError::State)?;
///         self.0.change(number, |count| count.0 = u64::from_le_bytes(bytes));
///         Ok(())
///     }
/// }
///
/// let mut counters = Counters::blank();
/// counters.0.change(7, |count| count.0 += 1);
/// assert_eq!(counters.parts().get(7).0, 1);
/// ```
pub trait DivisibleState: Send + 'static {
    /// What it consists of.
    type Part: StatePart;

    /// Whether what an operation did can be taken back if it panics. By default it cannot: to note what is in
    /// a part costs as much as a copy of it, unless the state knows better. [`Parts::undoing`] makes those
    /// copies; the three methods below then call its.
    const UNDOES: bool = false;

    /// An ordered operation begins.
    fn begin_operation(&mut self) {}

    /// The operation ended: what it changed stays.
    fn keep_operation(&mut self) {}

    /// The operation panicked: the contents become what they were when it began.
    fn undo_operation(&mut self) {}

    /// A state without any contents, to read parts into: with as many parts as every other.
    fn blank() -> Self;

    /// The parts.
    fn parts(&self) -> &Parts<Self::Part>;

    /// Takes the contents of a part in, which has none yet. There is such a part; the bytes may be damaged.
    ///
    /// # Errors
    /// When the bytes are no such part.
    fn read_part(&mut self, number: usize, bytes: &[u8]) -> Result<(), SnapshotError>;
}

impl<D: DivisibleState> MonolithicState for D {
    type Snapshot = PartsSnapshot<D::Part>;

    const UNDOES: bool = D::UNDOES;

    fn begin_operation(&mut self) {
        DivisibleState::begin_operation(self);
    }

    fn keep_operation(&mut self) {
        DivisibleState::keep_operation(self);
    }

    fn undo_operation(&mut self) {
        DivisibleState::undo_operation(self);
    }

    fn snapshot(&mut self) -> Self::Snapshot {
        self.parts().snapshot()
    }

    fn digest_step(
        snapshot: &mut Self::Snapshot,
        digester: &Digester,
        budget_bytes: usize,
        digests: &mut Vec<Digest>,
    ) -> bool {
        snapshot.digest_step(digester, budget_bytes, digests)
    }

    fn piece_count(snapshot: &Self::Snapshot) -> usize {
        snapshot.count()
    }

    fn write_piece(snapshot: &mut Self::Snapshot, out: &mut Vec<u8>) {
        snapshot.write_next(out);
    }

    fn blank() -> Self {
        <D as DivisibleState>::blank()
    }

    fn read_piece(&mut self, piece: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        match piece < self.parts().count() {
            true => self.read_part(piece, bytes),
            false => Err(SnapshotError::State),
        }
    }

    fn digest_help(snapshot: &Self::Snapshot, digester: &Digester) -> Option<CheckpointHelp> {
        Some(snapshot.digest_help(digester))
    }

    fn copy_help(&self) -> Option<CheckpointHelp> {
        Some(self.parts().copy_help())
    }

    fn size_bytes(&self) -> u64 {
        self.parts().size_bytes()
    }

    fn digest_left_bytes(snapshot: &Self::Snapshot) -> usize {
        snapshot.digest_left_bytes()
    }
}
