//! Records and messages: a record is sealed as one, and carries as many messages as were waiting.
//!
//! ```text
//! on the wire:      length u32 │ ciphertext … │ tag 16
//! in the plaintext: (length u32 │ message)*
//! ```

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::pool::BufferPool;
use crate::smr::crypto::{Opener, SealError, Sealer, TAG_BYTES};
use crate::smr::messages::lengths::LINK_RECORD_BYTES;

/// How much room for records that span chunks a link keeps. Large batches come one after the other: giving
/// their room back each time would cost fresh pages each time.
const GATHERED_BYTES_KEPT: usize = 2 * 1024 * 1024;

/// Why a link's bytes are refused. All of these end the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A record longer than the limit, refused before anything is allocated for it.
    #[error("a record of {got} bytes, at most {max} are allowed")]
    RecordTooLong {
        /// The length it announces.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// A record too short for its tag.
    #[error("a record of {0} bytes is shorter than its tag")]
    RecordTooShort(usize),
    /// A record that does not open: forged, replayed, reordered or changed.
    #[error("a record is not the link's next one")]
    Forged,
    /// A message that passes the end of its record.
    #[error("a message passes the end of its record")]
    MessageOverrun,
}

impl FramingError {
    /// Every kind, for counters.
    pub const ALL: [Self; 4] = [
        Self::RecordTooLong { got: 0, max: 0 },
        Self::RecordTooShort(0),
        Self::Forged,
        Self::MessageOverrun,
    ];

    /// The place of this kind in [`FramingError::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::RecordTooLong { .. } => 0,
            Self::RecordTooShort(_) => 1,
            Self::Forged => 2,
            Self::MessageOverrun => 3,
        }
    }

    /// The name of this kind's counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordTooLong { .. } => "record_refused_too_long",
            Self::RecordTooShort(_) => "record_refused_too_short",
            Self::Forged => "record_refused_forged",
            Self::MessageOverrun => "record_refused_message_overrun",
        }
    }
}

/// Turns one direction's bytes into messages.
///
/// A record that lies whole in a received chunk is opened straight from it into the buffer whose slices are
/// the messages. Only records that span chunks are gathered first; the gathering grows with the bytes that
/// really came, never with a length that was announced.
#[derive(Debug)]
pub struct RecordReader {
    opener: Opener,
    pool: BufferPool,
    record_bytes_max: usize,
    gathered: Vec<u8>,
    records: VecDeque<Bytes>,
    backlog_bytes: usize,
}

impl RecordReader {
    /// A reader that refuses records over `record_bytes_max`; large records are opened into buffers of
    /// `pool`.
    #[must_use]
    pub fn new(opener: Opener, record_bytes_max: usize, pool: BufferPool) -> Self {
        Self {
            opener,
            pool,
            record_bytes_max,
            gathered: Vec::new(),
            records: VecDeque::new(),
            backlog_bytes: 0,
        }
    }

    /// Takes received bytes and opens the records they complete.
    ///
    /// # Errors
    /// The first rule that is broken; the link is over then.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), FramingError> {
        if self.gathered.is_empty() {
            let used = self.open_records(chunk)?;
            self.gathered.extend_from_slice(&chunk[used..]);
            return Ok(());
        }
        self.gathered.extend_from_slice(chunk);
        let mut gathered = std::mem::take(&mut self.gathered);
        let used = self.open_records(&gathered)?;
        gathered.drain(..used);
        if gathered.is_empty() && gathered.capacity() > GATHERED_BYTES_KEPT {
            gathered = Vec::new();
        }
        self.gathered = gathered;
        Ok(())
    }

    /// The next message, if a whole one is there.
    ///
    /// # Errors
    /// When a record's contents are not messages.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FramingError> {
        while let Some(record) = self.records.front_mut() {
            if record.is_empty() {
                self.records.pop_front();
                continue;
            }
            let Some(length) = record.first_chunk::<4>() else {
                return Err(FramingError::MessageOverrun);
            };
            let length = u32::from_le_bytes(*length) as usize;
            record.advance(4);
            if length > record.len() {
                return Err(FramingError::MessageOverrun);
            }
            self.backlog_bytes -= length + 4;
            return Ok(Some(record.split_to(length)));
        }
        Ok(None)
    }

    /// How many opened bytes wait to be taken.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Opens the whole records at the start of `bytes`; returns how many bytes they took.
    fn open_records(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let mut used = 0;
        while let Some(length) = bytes[used..].first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > self.record_bytes_max {
                return Err(FramingError::RecordTooLong {
                    got: length,
                    max: self.record_bytes_max,
                });
            }
            if length < TAG_BYTES {
                return Err(FramingError::RecordTooShort(length));
            }
            let Some(sealed) = bytes[used + 4..].get(..length) else {
                break;
            };
            let opener = &mut self.opener;
            let record = Opener::plain_bytes(length)
                .and_then(|plain_bytes| {
                    self.pool
                        .filled(plain_bytes, |plain| opener.open_into(sealed, plain))
                })
                .map_err(|_| FramingError::Forged)?;
            used += 4 + length;
            self.backlog_bytes += record.len();
            self.records.push_back(record);
        }
        Ok(used)
    }
}

/// Seals the waiting messages of one direction.
#[derive(Debug)]
pub struct RecordWriter {
    sealer: Sealer,
}

impl RecordWriter {
    /// A writer that seals with `sealer`.
    #[must_use]
    pub fn new(sealer: Sealer) -> Self {
        Self { sealer }
    }

    /// Seals messages from the front of `messages` into `out` until either is done with: no message is left,
    /// or `out` has reached `out_bytes_max`. Returns the message bytes taken.
    ///
    /// # Errors
    /// When the link may seal no more.
    pub fn seal(
        &mut self,
        messages: &mut VecDeque<Bytes>,
        out: &mut Vec<u8>,
        out_bytes_max: usize,
    ) -> Result<usize, SealError> {
        let mut taken = 0;
        while !messages.is_empty() && out.len() < out_bytes_max {
            self.sealer.seal(out, |plain| {
                let mut record_bytes = 0;
                while let Some(message) = messages.front() {
                    if record_bytes > 0 && record_bytes + message.len() > LINK_RECORD_BYTES {
                        break;
                    }
                    plain.extend_from_slice(&(message.len() as u32).to_le_bytes());
                    plain.extend_from_slice(message);
                    record_bytes += 4 + message.len();
                    taken += message.len();
                    messages.pop_front();
                }
            })?;
        }
        Ok(taken)
    }
}
