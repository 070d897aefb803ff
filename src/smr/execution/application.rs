use super::guard::guarded;
use super::{Column, CrudState, KeyedState, OperationContext, ResultWriter, SnapshotError};
use crate::smr::crypto::Digester;
use crate::smr::types::{ApplicationId, ApplicationNameError, Digest};

/// How many operations an application is told of ahead. A core has about as many cache misses under way.
pub const PREPARED_OPERATIONS: usize = 16;

/// A deterministic service.
///
/// Operations and results are bytes whose meaning is the application's. Operations come from clients: they
/// are untrusted, and a bad one must [fail](ResultWriter::fail). The same operation on the same state must
/// give the same state and result everywhere: no clocks, no randomness, no iteration in hash order. What an
/// operation may know beside the state is in its [context](OperationContext): the caller, its place, the
/// agreed time, a seed.
///
/// A panic in [`update`](Self::update) is caught, and its client is told of it. On a state that [takes
/// back](MonolithicState::UNDOES) what an operation did, as [`PartitionedStore`](super::PartitionedStore) and
/// [`Columns`](super::Columns) do, the operation then has no effect. On others what it had changed by then
/// stays changed: which is the same at every replica, because the code and the state were, and what else
/// depends on it (sizes, digests, which parts are to be copied) follows from the contents alone.
///
/// A panic in a hint costs the hint; one in the state's own code that is called beside operations stops the
/// replica, and what cannot be caught (memory that is not there, a stack that is too small, a panic while
/// another one unwinds) ends the process: bound what an operation can make you allocate, and how deep it can
/// make you recurse. `execution/guard.rs` has the table.
pub trait Application: Send + 'static {
    /// What the operations act on.
    type State: MonolithicState;

    /// The state before the first operation; equal at every replica.
    fn initial_state(&self) -> Self::State;

    /// Executes one ordered operation and writes its result.
    fn update(
        &self,
        state: &mut Self::State,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    );

    /// Executes one read-only operation and writes its result: beside the order or at its place in it, as the
    /// client or the cluster has it.
    fn unordered_execution(
        &self,
        state: &Self::State,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    );

    /// Told which ordered operations come next, at most [`PREPARED_OPERATIONS`] of them, so that what they
    /// will touch can be brought closer to the processor: all at once, so that their cache misses overlap.
    /// Nothing observable may depend on it. By default nothing.
    fn prepare(&self, _state: &Self::State, _operations: &[&[u8]]) {}

    /// The application's name. A cluster serves one application for ever: name and [version](Self::version)
    /// are part of its genesis (`[application]` in `cluster.toml`), and a replica with another one refuses to
    /// start, or to talk.
    fn name(&self) -> &'static str;

    /// The version of what operations mean and of how the state is written. To be raised whenever the same
    /// operations on the same state would give another state or result. By default 1.
    fn version(&self) -> u32 {
        1
    }
}

/// Name and version of an application.
///
/// # Errors
/// When no application can have this name.
pub fn application_id<A: Application>(application: &A) -> Result<ApplicationId, ApplicationNameError> {
    ApplicationId::new(application.name(), application.version())
}

/// A service whose operations say through [`CrudState`] what they read and write, so that several can run at
/// once.
///
/// [`update`](Application::update) must do what [`speculatively_execute`](Self::speculatively_execute) does
/// on [`Direct`](super::Direct). An execution whose result is not used may have read values that never stood
/// beside one another: every operation must end whatever it reads, and may panic.
pub trait ScalableApp: Application<State: KeyedState> + Sync {
    /// Executes one ordered operation and writes its result. It sees and changes nothing but `state`.
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    );

    /// Names every key that the operation may touch and gives true; or gives false. Operations that declare
    /// their keys need no validation when nothing before them is under way that touches one of these. To
    /// touch a key that was not declared costs the advantage, for all operations from then on.
    fn declare_keys(
        &self,
        _context: &OperationContext,
        _operation: &[u8],
        _touch: &mut dyn FnMut(Column, &[u8]),
    ) -> bool {
        false
    }
}

/// A share of the work of a checkpoint, for another thread: of its digest, or of finding the memory that it
/// will take. What it has done is not done again; whether it is done at all changes no digest.
pub struct CheckpointHelp(Box<dyn FnOnce() + Send>);

impl CheckpointHelp {
    /// Help that consists of this.
    #[must_use]
    pub fn new(help: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(help))
    }

    /// Does all of it.
    pub fn run(self) {
        // Whose work it is does it, and panics where that is noticed.
        let _ = guarded(self.0);
    }
}

impl std::fmt::Debug for CheckpointHelp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckpointHelp")
    }
}

/// A state that is snapshot and digested as a whole.
pub trait MonolithicState: Send + 'static {
    /// A frozen copy. Taking one must be cheap whatever the size of the state (copy-on-write).
    type Snapshot: Send + 'static;

    /// Whether what an operation did can be [taken back](Self::undo_operation): an ordered operation that
    /// panics then has no effect. By default it cannot, and what a panicking operation had done by then
    /// stays.
    const UNDOES: bool = false;

    /// An ordered operation begins. What it changes is to be noted, if it can be taken back.
    fn begin_operation(&mut self) {}

    /// The operation ended: what it changed stays.
    fn keep_operation(&mut self) {}

    /// The operation panicked: the contents become what they were when it began.
    fn undo_operation(&mut self) {}

    /// Freezes the state as it is now.
    fn snapshot(&mut self) -> Self::Snapshot;

    /// Does about `budget_bytes` of the work of digesting a snapshot: appends the digests of its next pieces,
    /// in order; true once it has given all. A piece is what is written, checked and transferred as a whole;
    /// its digest is that of its bytes in [`Domain::State`](crate::smr::crypto::Domain::State). The digest of
    /// the state follows from those of its pieces, for every kind of state alike
    /// ([`state_digest`](super::state_digest)), so that whoever knows nothing of the application can check
    /// it.
    fn digest_step(
        snapshot: &mut Self::Snapshot,
        digester: &Digester,
        budget_bytes: usize,
        digests: &mut Vec<Digest>,
    ) -> bool;

    /// How many pieces a snapshot has. Equal states have equally many.
    fn piece_count(snapshot: &Self::Snapshot) -> usize;

    /// Appends the next piece, of at most
    /// [`PIECE_BYTES_MAX`](crate::smr::state_transfer::monolithic::PIECE_BYTES_MAX). Equal states write equal
    /// bytes. Called once for each piece, on a snapshot that was not digested.
    fn write_piece(snapshot: &mut Self::Snapshot, out: &mut Vec<u8>);

    /// A state without any contents, to read pieces into.
    fn blank() -> Self;

    /// Takes the contents of a piece in. Pieces come in order, each once; they may be damaged.
    ///
    /// # Errors
    /// When the bytes are no such piece.
    fn read_piece(&mut self, piece: usize, bytes: &[u8]) -> Result<(), SnapshotError>;

    /// What another thread can do of the work of digesting a snapshot that is just taken. By default nothing.
    fn digest_help(_snapshot: &Self::Snapshot, _digester: &Digester) -> Option<CheckpointHelp> {
        None
    }

    /// What another thread can do so that a snapshot that will be taken costs less, as finding memory for
    /// what will be copied. By default nothing.
    fn copy_help(&self) -> Option<CheckpointHelp> {
        None
    }

    /// About how large the state is, at once: a function of the contents alone, equal at every replica,
    /// however they came about. Of a large state not every checkpoint includes it
    /// ([`StateRule`](super::StateRule)). By default nothing: every one does.
    fn size_bytes(&self) -> u64 {
        0
    }

    /// About how many bytes of that work are left, so that it can be spread. By default unknown.
    fn digest_left_bytes(_snapshot: &Self::Snapshot) -> usize {
        0
    }
}
