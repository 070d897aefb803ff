use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::{archive, check};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ClientId, FrameSeq};

/// How the operations of a frame are to be executed. Covered by the frame's digest: a read is a read wherever
/// it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq))]
#[repr(u8)]
pub enum Mode {
    /// In the one order all replicas agree on.
    Ordered,
    /// Read-only, on the state as each replica has it, beside the order.
    Unordered,
    /// Read-only, on the state at the frame's place in the order.
    OrderedRead,
    /// No operation of the application: the replica tells, beside the order, which of the client's sessions
    /// it knows.
    Session,
    /// No operation of the application: a request to change the membership, which closes the epoch at the frame's
    /// place in the order.
    Change,
}

impl Mode {
    /// Whether frames of this mode are proposed and executed in the order.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Ordered | Self::OrderedRead | Self::Change)
    }

    /// Whether the application may change its state.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Ordered)
    }
}

/// What a client asks: covered by the frame's digest and by the authenticator.
///
/// Operations lie end to end in `operations`; `ends[i]` is where operation `i` ends.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RequestBody {
    /// The client's number.
    pub client: u32,
    /// The client's session.
    pub session: u64,
    /// The frame's number in that session.
    pub sequence: u64,
    /// Random, of the process that asks. Two processes of a client may take one number and ask for the same:
    /// with this their frames are still two, and only one of them is executed and answered.
    pub process: u64,
    /// Whether it reads or writes, and where.
    pub mode: Mode,
    /// Where each operation ends in `operations`, strictly within and never falling.
    pub ends: Vec<u32>,
    /// The operations, end to end.
    pub operations: Vec<u8>,
}

/// The proof that a frame comes from its client.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Authenticator {
    /// One Ed25519 signature over the frame's digest: convinces everybody, for ever.
    Signature([u8; 64]),
    /// One MAC per replica over the frame's digest, in the order of the replicas: each convinces one.
    Macs(Vec<[u8; 16]>),
}

/// What a client sends, retransmits and gets an answer to: a body as bytes, and its authenticator.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RequestFrame {
    /// The archive of a [`RequestBody`].
    pub body: Vec<u8>,
    /// Who vouches for it.
    pub authenticator: Authenticator,
}

/// Why a frame's structure is refused, before anything is computed over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// Not an archive of a frame or of a body.
    #[error("the frame is not a sound archive")]
    Malformed,
    /// No operation, or more than the limit.
    #[error("the frame has {got} operations, between 1 and {max} are allowed")]
    OperationCount {
        /// Operations found.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The frame is longer than the limit.
    #[error("the frame has {got} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes found.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The table of ends does not describe the operations.
    #[error("the table of operation ends is not sound")]
    Ends,
    /// The number of MACs is not the number of replicas.
    #[error("the frame has {got} MACs, expected one for each of {expected} replicas")]
    MacCount {
        /// MACs found.
        got: usize,
        /// Replicas.
        expected: usize,
    },
}

/// Whether a table of ends never falls and ends exactly at `length`.
pub fn ends_are_sound(ends: impl ExactSizeIterator<Item = u32>, length: usize) -> bool {
    let mut last = 0;
    for end in ends {
        if end < last {
            return false;
        }
        last = end;
    }
    last as usize == length
}

impl ArchivedRequestBody {
    /// The client that asks.
    #[must_use]
    pub fn client(&self) -> ClientId {
        ClientId::new(self.client.to_native())
    }

    /// The frame's session and number.
    #[must_use]
    pub fn sequence(&self) -> FrameSeq {
        FrameSeq::of(self.session.to_native(), self.sequence.to_native())
    }

    /// Whether the frame reads or writes, and where.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.mode {
            ArchivedMode::Ordered => Mode::Ordered,
            ArchivedMode::Unordered => Mode::Unordered,
            ArchivedMode::OrderedRead => Mode::OrderedRead,
            ArchivedMode::Session => Mode::Session,
            ArchivedMode::Change => Mode::Change,
        }
    }

    /// The operations, in order. The table of ends must have been checked.
    #[must_use]
    pub fn operations(&self) -> Operations<'_> {
        Operations {
            ends: self.ends.as_slice(),
            bytes: self.operations.as_slice(),
            next: 0,
            start: 0,
        }
    }

    /// Checks the body's own arithmetic: operation count and table of ends.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, operations_max: usize) -> Result<(), FrameError> {
        let count = self.ends.len();
        if count == 0 || count > operations_max {
            return Err(FrameError::OperationCount {
                got: count,
                max: operations_max,
            });
        }
        if !ends_are_sound(self.ends.iter().map(|end| end.to_native()), self.operations.len()) {
            return Err(FrameError::Ends);
        }
        Ok(())
    }
}

impl ArchivedRequestFrame {
    /// Checks the nested body as an archive and borrows it.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] when it is none.
    pub fn open_body(&self) -> Result<&ArchivedRequestBody, FrameError> {
        check::<RequestBody>(self.body.as_slice()).map_err(|_| FrameError::Malformed)
    }
}

/// The operations of one frame, in order, each as the bytes the client wrote.
#[derive(Debug, Clone)]
pub struct Operations<'a> {
    ends: &'a [rkyv::Archived<u32>],
    bytes: &'a [u8],
    next: usize,
    start: usize,
}

impl<'a> Iterator for Operations<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.ends.get(self.next)?.to_native() as usize;
        let operation = self.bytes.get(self.start..end)?;
        self.next += 1;
        self.start = end;
        Some(operation)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.ends.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Operations<'_> {}

/// Gathers operations into one frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    process: u64,
    ends: Vec<u32>,
    operations: Vec<u8>,
}

/// The gathered operations do not fit a frame any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operation does not fit the frame")]
pub struct SplitError;

impl FrameBuilder {
    /// Builds frames of this process, which chose the number at random.
    #[must_use]
    pub const fn of_process(process: u64) -> Self {
        Self {
            process,
            ends: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// Adds one operation.
    ///
    /// # Errors
    /// When the frame's operations would pass 4 GiB; callers cap frames far below.
    pub fn push(&mut self, operation: &[u8]) -> Result<(), SplitError> {
        let end = u32::try_from(self.operations.len() + operation.len()).map_err(|_| SplitError)?;
        self.operations.extend_from_slice(operation);
        self.ends.push(end);
        Ok(())
    }

    /// How many operations are gathered.
    #[must_use]
    pub fn operation_count(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes of operations are gathered.
    #[must_use]
    pub fn operation_bytes(&self) -> usize {
        self.operations.len()
    }

    /// The archive of the body, ready to be hashed and authenticated; the builder is empty afterwards.
    #[must_use]
    pub fn finish(&mut self, client: ClientId, sequence: FrameSeq, mode: Mode) -> Vec<u8> {
        let body = RequestBody {
            client: client.get(),
            session: sequence.session(),
            sequence: sequence.number(),
            process: if active(Mutant::ProcessUncovered) {
                0
            } else {
                self.process
            },
            mode,
            ends: std::mem::take(&mut self.ends),
            operations: std::mem::take(&mut self.operations),
        };
        let capacity = body.operations.len() + 4 * body.ends.len() + 64;
        let bytes = archive(&body, capacity);
        self.ends = body.ends;
        self.operations = body.operations;
        self.ends.clear();
        self.operations.clear();
        bytes
    }
}

impl RequestFrame {
    /// The frame as it travels inside batches: its archive without an envelope.
    #[must_use]
    pub fn to_archive(&self) -> Bytes {
        Bytes::from(archive(self, self.body.len() + 160))
    }
}
