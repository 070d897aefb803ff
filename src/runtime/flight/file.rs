//! The file of a flight record.
//!
//! Little endian, one after the other:
//!
//! | what | bytes |
//! |---|---|
//! | magic `ATLSFLGT`; version, replica, each u16; why it was made, u8; three zeros | 16 |
//! | cluster | 16 |
//! | epoch; start of the replica in nanoseconds since 1970; nanoseconds from there to the dump | 24 |
//! | how many bytes of words follow, u32; how many shards, u32 | 8 |
//! | words: what failed, or nothing | |
//! | of each shard: bytes of its name, events here, each u32; events ever, u64; its name; its events, 56 bytes each | |
//! | XXH3 of all before | 8 |

use xxhash_rust::xxh3::xxh3_64;

use super::event::{EVENT_WORDS, FlightEvent};
use super::recorder::FlightIdentity;
use crate::smr::types::{ClusterId, Epoch, NodeId, Time, UnixTime};

/// The version of the format that this release writes, and the only one it reads.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"ATLSFLGT";
const EVENT_BYTES: usize = 8 * EVENT_WORDS;
const SUM_BYTES: usize = 8;
/// The words of a dump are cut to this length.
const WHY_BYTES_MAX: usize = 1024;

/// Why a record was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DumpCause {
    /// Somebody asked: by a signal, at the admin endpoint, by the program.
    Asked = 0,
    /// The replica stops because a thread of it failed.
    Failure = 1,
}

impl DumpCause {
    /// In a word, as names of files have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Failure => "failure",
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Asked),
            1 => Some(Self::Failure),
            _ => None,
        }
    }
}

/// What one shard recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardEvents {
    /// The shard.
    pub name: String,
    /// How many events there ever were.
    pub recorded: u64,
    /// Those that are here, in order.
    pub events: Vec<FlightEvent>,
}

/// The events of a replica at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightDump {
    /// Whose they are.
    pub identity: FlightIdentity,
    /// When the replica started, by its host's clock.
    pub started: UnixTime,
    /// When this was made, since then.
    pub taken: Time,
    /// Why.
    pub cause: DumpCause,
    /// What failed, in words.
    pub why: String,
    /// By shard.
    pub shards: Vec<ShardEvents>,
}

/// Why a file is no flight record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlightFileError {
    /// It does not begin as one.
    #[error("it is no flight record: it does not begin with ATLSFLGT")]
    NotOne,
    /// Another version's.
    #[error("a flight record of version {0}; this release reads version {FORMAT_VERSION}")]
    Version(u16),
    /// It ends too early.
    #[error("it is cut: {what} would go on to byte {needed}, and it has {got}")]
    Cut {
        /// What is not there.
        what: &'static str,
        /// How many bytes there would have to be.
        needed: u64,
        /// How many there are.
        got: usize,
    },
    /// Its bytes are not those that were written.
    #[error("it is damaged: its checksum is not that of its bytes")]
    Checksum,
    /// A field has a value that it never has.
    #[error("it is damaged: at byte {offset} {what}")]
    Field {
        /// Where.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

impl FlightDump {
    /// The bytes of its file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let events: usize = self.shards.iter().map(|shard| shard.events.len()).sum();
        let mut bytes = Vec::with_capacity(256 + self.why.len() + events * EVENT_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.identity.node.get().to_le_bytes());
        bytes.extend_from_slice(&[self.cause as u8, 0, 0, 0]);
        bytes.extend_from_slice(self.identity.cluster.as_bytes());
        for number in [
            self.identity.epoch.get(),
            self.started.as_nanos(),
            self.taken.as_nanos(),
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let why = &self.why[..self.why.floor_char_boundary(WHY_BYTES_MAX)];
        bytes.extend_from_slice(&(why.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.shards.len() as u32).to_le_bytes());
        bytes.extend_from_slice(why.as_bytes());
        for shard in &self.shards {
            bytes.extend_from_slice(&(shard.name.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(shard.events.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&shard.recorded.to_le_bytes());
            bytes.extend_from_slice(shard.name.as_bytes());
            for word in shard.events.iter().flat_map(|event| event.to_words()) {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        let sum = xxh3_64(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a file. It takes no more memory than a few times the bytes there are, whatever they say.
    ///
    /// # Errors
    /// Why it is none, or what of it is damaged and where.
    pub fn decode(bytes: &[u8]) -> Result<Self, FlightFileError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FlightFileError::NotOne);
        }
        let mut head = Reader::of(bytes, MAGIC.len());
        let version = u16::from_le_bytes(head.take("the version")?);
        if version != FORMAT_VERSION {
            return Err(FlightFileError::Version(version));
        }
        let Some((body, sum)) = bytes.split_last_chunk::<SUM_BYTES>() else {
            return Err(head.cut("the checksum", SUM_BYTES));
        };
        let mut reader = Reader::of(body, head.at);
        let found = xxh3_64(body) == u64::from_le_bytes(*sum);
        // A file that was cut says so, which is more than that it is damaged.
        let dump = Self::read(&mut reader);
        match dump {
            Err(cut @ FlightFileError::Cut { .. }) => Err(cut),
            _ if !found => Err(FlightFileError::Checksum),
            dump => dump,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FlightFileError> {
        let node = NodeId::new(u16::from_le_bytes(reader.take("the replica")?));
        let at = reader.at;
        let [cause, zeros @ ..] = reader.take::<4>("the cause")?;
        let cause = DumpCause::of_code(cause).filter(|_| zeros == [0; 3]);
        let cause = cause.ok_or(FlightFileError::Field {
            offset: at,
            what: "is no cause of a dump",
        })?;
        let cluster = ClusterId::from_bytes(reader.take("the cluster")?);
        let epoch = Epoch::new(reader.number("the epoch")?);
        let started = UnixTime::from_nanos(reader.number("the start")?);
        let taken = Time::from_nanos(reader.number("the time")?);
        let why = reader.length("the words")?;
        let shards = reader.length("the shards")?;
        let why = reader.text("the words", why.min(WHY_BYTES_MAX + 1))?;
        if why.len() > WHY_BYTES_MAX {
            return Err(reader.field("the words are too long"));
        }
        let mut read = Vec::new();
        for _ in 0..shards {
            read.push(ShardEvents::read(reader)?);
        }
        if reader.at != reader.bytes.len() {
            return Err(reader.field("something follows the last shard"));
        }
        Ok(Self {
            identity: FlightIdentity { cluster, node, epoch },
            started,
            taken,
            cause,
            why,
            shards: read,
        })
    }

    /// The events of all shards by time, each with its shard's place.
    #[must_use]
    pub fn merged(&self) -> Vec<(usize, FlightEvent)> {
        let shards = self.shards.iter().enumerate();
        let events = shards.flat_map(|(shard, of)| of.events.iter().map(move |event| (shard, *event)));
        let mut events: Vec<(usize, FlightEvent)> = events.collect();
        events.sort_by_key(|(shard, event)| (event.at, *shard, event.number));
        events
    }
}

impl ShardEvents {
    fn read(reader: &mut Reader<'_>) -> Result<Self, FlightFileError> {
        let name = reader.length("a shard's name")?;
        let events = reader.length("a shard's events")?;
        let recorded = reader.number("a shard's count")?;
        let name = reader.text("a shard's name", name)?;
        // Nothing is allocated for events that are not there.
        let needed = (events as u64).saturating_mul(EVENT_BYTES as u64);
        if needed > (reader.bytes.len() - reader.at) as u64 {
            return Err(reader.cut("a shard's events", usize::try_from(needed).unwrap_or(usize::MAX)));
        }
        let mut read = Vec::with_capacity(events);
        for _ in 0..events {
            let at = reader.at;
            let bytes: [u8; EVENT_BYTES] = reader.take("an event")?;
            let mut words = [0; EVENT_WORDS];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            let event = FlightEvent::of_words(words);
            read.push(event.ok_or(FlightFileError::Field {
                offset: at,
                what: "is no event",
            })?);
        }
        Ok(Self {
            name,
            recorded,
            events: read,
        })
    }
}

/// Takes fields off the bytes of a file, but for its checksum.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    fn cut(&self, what: &'static str, bytes: usize) -> FlightFileError {
        FlightFileError::Cut {
            what,
            needed: (self.at as u64).saturating_add(bytes as u64),
            got: self.bytes.len(),
        }
    }

    fn field(&self, what: &'static str) -> FlightFileError {
        FlightFileError::Field {
            offset: self.at,
            what,
        }
    }

    fn slice(&mut self, what: &'static str, bytes: usize) -> Result<&'a [u8], FlightFileError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..bytes));
        let taken = taken.ok_or_else(|| self.cut(what, bytes))?;
        self.at += bytes;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FlightFileError> {
        let mut taken = [0; N];
        taken.copy_from_slice(self.slice(what, N)?);
        Ok(taken)
    }

    fn number(&mut self, what: &'static str) -> Result<u64, FlightFileError> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    fn length(&mut self, what: &'static str) -> Result<usize, FlightFileError> {
        Ok(u32::from_le_bytes(self.take(what)?) as usize)
    }

    fn text(&mut self, what: &'static str, bytes: usize) -> Result<String, FlightFileError> {
        let at = self.at;
        let text = std::str::from_utf8(self.slice(what, bytes)?).map(str::to_owned);
        text.map_err(|_| FlightFileError::Field {
            offset: at,
            what: "is no text",
        })
    }
}
