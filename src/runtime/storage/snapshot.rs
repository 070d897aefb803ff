//! Snapshots of checkpoints as files: chunks, each with its length and checksum, and a last one without
//! contents.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::directory::{UNFINISHED, numbered, remove_leftover, sync_directory};
use super::{StorageError, files};
use crate::smr::crypto::Digester;
use crate::smr::execution::{CheckpointSnapshot, Executor};
use crate::smr::messages::lengths::IMAGE_CHUNK_BYTES;
use crate::smr::messages::{CheckpointClaim, PieceRange, PieceWriter, SnapshotChunk, index_slices};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::SeqNo;

/// About how long a chunk is.
pub(super) const CHUNK_BYTES: usize = IMAGE_CHUNK_BYTES;
/// The longest that is read: an index lies in one chunk.
const CHUNK_BYTES_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"ATLAS\0I2";

/// Before a chunk: its length and checksum.
pub(super) const HEAD_BYTES: usize = 12;

/// Writes a snapshot beside its final place, and puts it there when it is whole and on disk. How many bytes
/// it has.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, snapshot: &mut dyn CheckpointSnapshot, seed: u64) -> Result<u64, StorageError> {
    let bytes = write_beside(path, snapshot, seed)?;
    place(path)?;
    Ok(bytes)
}

/// Writes a snapshot beside its final place at `path`, on disk and whole. How many bytes it has.
pub(super) fn write_beside(
    path: &Path,
    snapshot: &mut dyn CheckpointSnapshot,
    seed: u64,
) -> Result<u64, StorageError> {
    let unfinished = path.with_extension(UNFINISHED);
    write_file(&unfinished, snapshot, seed)
        .inspect_err(|_| remove_leftover(&unfinished))
        .map_err(StorageError::io(&unfinished, "cannot be written"))
}

/// Puts what was written beside it into its place.
pub(super) fn place(path: &Path) -> Result<(), StorageError> {
    let unfinished = path.with_extension(UNFINISHED);
    files::rename(&unfinished, path).map_err(StorageError::io(path, "cannot be made"))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Where a snapshot that others send is gathered, until it is whole.
pub(super) fn received_path(directory: &Path, seq: SeqNo) -> PathBuf {
    directory.join(format!("{:016}.partial", seq.get()))
}

/// Puts a snapshot that came from others in its place. Done again after a failure, it does what is left to
/// do.
pub(super) fn place_received(directory: &Path, seq: SeqNo) -> Result<(), StorageError> {
    let received = received_path(directory, seq);
    if received.exists() {
        files::rename(&received, &numbered(directory, seq.get()))
            .map_err(StorageError::io(&received, "cannot be put in its place"))?;
    }
    sync_directory(directory)
}

/// Removes what was written beside it.
pub(super) fn discard(path: &Path) {
    remove_leftover(&path.with_extension(UNFINISHED));
}

fn write_file(path: &Path, snapshot: &mut dyn CheckpointSnapshot, seed: u64) -> io::Result<u64> {
    let mut file = files::create(path)?;
    // A chunk and its head at once.
    let mut out = BufWriter::with_capacity(2 * CHUNK_BYTES, Steps(&mut file));
    let written = write_to(&mut out, snapshot, seed, CHUNK_BYTES)?;
    out.flush()?;
    drop(out);
    files::sync(&file)?;
    Ok(written)
}

/// Writes through the operations that tests have fail.
struct Steps<'a>(&'a mut File);

impl Write for Steps<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        files::write_all(self.0, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a snapshot, in chunks of about `chunk_bytes`, as the contents of its file. How many bytes it has.
///
/// # Errors
/// When `out` does not take them.
pub(crate) fn write_to(
    out: &mut impl Write,
    snapshot: &mut dyn CheckpointSnapshot,
    seed: u64,
    chunk_bytes: usize,
) -> io::Result<u64> {
    out.write_all(MAGIC)?;
    let (mut chunk, mut written) = (Vec::with_capacity(2 * chunk_bytes), MAGIC.len() as u64);
    loop {
        chunk.clear();
        let more = snapshot.next_chunk(chunk_bytes, &mut chunk);
        if !more {
            chunk.clear();
        }
        out.write_all(&chunk_head(written, &chunk, seed))?;
        out.write_all(&chunk)?;
        written += (HEAD_BYTES + chunk.len()) as u64;
        if !more {
            return Ok(written);
        }
    }
}

/// Covers where the chunk lies as well: chunks cannot change places.
fn checksum(offset: u64, chunk: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(chunk, seed ^ offset)
}

/// What a snapshot file begins with.
pub(crate) fn file_magic() -> &'static [u8] {
    MAGIC
}

/// What comes before a chunk that lies at `offset`.
pub(crate) fn chunk_head(offset: u64, chunk: &[u8], seed: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&(chunk.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&checksum(offset, chunk, seed).to_le_bytes());
    head
}

/// Where a chunk lies, and what is in it.
#[derive(Debug, Clone, Copy)]
struct Place {
    is_head: bool,
    /// The first piece in it, and where in this piece it starts; `None` for head and index.
    piece: Option<(usize, u64)>,
    offset: u64,
    length: usize,
}

/// Bytes that can be read from any place on: a file's, or those of a disk that is simulated.
pub trait ReadAt {
    /// Fills `buffer` with what lies at `offset`.
    ///
    /// # Errors
    /// When there is less, or it cannot be read.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for Bytes {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = self.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A snapshot file, open for reading in the order of its pieces, whatever the order in which they were
/// written.
#[derive(Debug)]
pub struct SnapshotFile<F = File> {
    path: PathBuf,
    file: F,
    seed: u64,
    /// Head, index, then pieces.
    places: Vec<Place>,
}

impl SnapshotFile {
    /// Opens a whole snapshot and finds its chunks.
    ///
    /// # Errors
    /// When it cannot be read, or is not whole.
    pub fn open(path: &Path, seed: u64) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(StorageError::io(path, "cannot be opened"))?;
        Self::of(path, file, seed)
    }

    /// Whether its name still names this file: it may have been removed, or another one put in its place.
    pub(super) fn is_in_place(&self) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        match (fs::metadata(&self.path), self.file.metadata()) {
            // The number of a file that is open is no other's.
            (Ok(named), Ok(open)) => identity(named) == identity(open),
            _ => false,
        }
    }
}

impl<F: ReadAt> SnapshotFile<F> {
    /// Finds the chunks of a whole snapshot that was opened.
    ///
    /// # Errors
    /// When it cannot be read, or is not whole.
    pub fn of(path: &Path, file: F, seed: u64) -> Result<Self, StorageError> {
        let mut snapshot = Self {
            path: path.to_owned(),
            file,
            seed,
            places: Vec::new(),
        };
        let mut magic = [0; 8];
        if snapshot.file.read_exact_at(&mut magic, 0).is_err() || magic != *MAGIC {
            return Err(StorageError::damaged(path, 0, "it is no snapshot"));
        }
        let mut offset = MAGIC.len() as u64;
        while let Some(place) = snapshot.place(offset)? {
            offset = place.offset + (HEAD_BYTES + place.length) as u64;
            // A transfer that was interrupted and went on wrote head, or head and index, again.
            let is_again = match snapshot.places.len() {
                0 => false,
                1 => place.is_head,
                _ => place.piece.is_none(),
            };
            if !is_again {
                snapshot.places.push(place);
            }
        }
        let sorted = snapshot.places.get_mut(2..);
        sorted
            .ok_or_else(|| StorageError::damaged(path, offset, "it has no head and index"))?
            .sort_by_key(|place| place.piece);
        Ok(snapshot)
    }

    /// The chunk at `offset`; `None` for the last one, which is empty.
    fn place(&self, offset: u64) -> Result<Option<Place>, StorageError> {
        let damaged = |what: &str| StorageError::damaged(&self.path, offset, what);
        let mut head = [0; HEAD_BYTES];
        self.file
            .read_exact_at(&mut head, offset)
            .map_err(|_| damaged("it ends before its last chunk"))?;
        let length = head[..4].try_into().map_or(0, u32::from_le_bytes) as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(damaged("a chunk is longer than any"));
        }
        if length == 0 {
            return Ok(None);
        }
        let mut start = [0; SnapshotChunk::START_BYTES];
        let start = &mut start[..length.min(SnapshotChunk::START_BYTES)];
        self.file
            .read_exact_at(start, offset + HEAD_BYTES as u64)
            .map_err(|_| damaged("it ends inside a chunk"))?;
        Ok(Some(Place {
            is_head: SnapshotChunk::is_head(start),
            piece: SnapshotChunk::start(start),
            offset,
            length,
        }))
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.places.len()
    }

    /// The chunks that answer a peer's question, about `bytes_max` bytes of them.
    ///
    /// # Errors
    /// When one cannot be read, or is damaged.
    pub fn read_range(&self, range: PieceRange, bytes_max: usize) -> Result<Vec<Bytes>, StorageError> {
        if range.piece == PieceRange::HEAD {
            let mut chunks = Vec::new();
            if range.offset == 0 {
                chunks.push(self.chunk(0)?.into());
            }
            let slices = index_slices(self.chunk(1)?, range.offset, bytes_max);
            chunks.extend(slices.into_iter().map(Bytes::from));
            return Ok(chunks);
        }
        let mut chunks: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        for number in self.chunks_from(range.piece as usize, range.offset) {
            let is_behind = |(first, _)| first >= range.until as usize;
            if bytes >= bytes_max || self.places[number].piece.is_some_and(is_behind) {
                break;
            }
            let chunk = self.chunk(number)?;
            let known = chunks.len();
            trim(chunk, range, &mut chunks);
            bytes += chunks[known..].iter().map(Bytes::len).sum::<usize>();
        }
        Ok(chunks)
    }

    /// The chunks from the one on that contains this piece, or this byte of it.
    pub(super) fn chunks_from(&self, piece: usize, offset: u64) -> Range<usize> {
        let pieces = &self.places[2..];
        let behind = pieces.partition_point(|place| place.piece <= Some((piece, offset)));
        2 + behind.saturating_sub(1)..self.places.len()
    }

    /// Where a chunk lies, for messages.
    pub(super) fn offset(&self, number: usize) -> u64 {
        self.places[number].offset
    }

    /// Reads a chunk.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn chunk(&self, number: usize) -> Result<Vec<u8>, StorageError> {
        let place = self.places[number];
        let mut head = [0; HEAD_BYTES];
        let mut chunk = vec![0; place.length];
        self.file
            .read_exact_at(&mut head, place.offset)
            .and_then(|()| {
                self.file
                    .read_exact_at(&mut chunk, place.offset + HEAD_BYTES as u64)
            })
            .map_err(StorageError::io(&self.path, "cannot be read"))?;
        let is_sound = head == chunk_head(place.offset, &chunk, self.seed);
        match is_sound || active(Mutant::SnapshotUnchecked) {
            true => Ok(chunk),
            false => Err(StorageError::damaged(
                &self.path,
                place.offset,
                "a chunk's checksum does not fit",
            )),
        }
    }
}

/// Adds what a peer asked for of a chunk: short pieces share one, and the peer gets the others from
/// elsewhere.
fn trim(chunk: Vec<u8>, range: PieceRange, chunks: &mut Vec<Bytes>) {
    let wanted = range.piece as usize..range.until as usize;
    match SnapshotChunk::parse(&chunk) {
        Ok(SnapshotChunk::Pieces(pieces)) if !pieces.clone().all(|(piece, _)| wanted.contains(&piece)) => {
            let mut writer = PieceWriter::default();
            let pieces = pieces.filter(|(piece, _)| wanted.contains(piece));
            pieces.for_each(|(piece, bytes)| writer.write(piece, bytes));
            chunks.extend(writer.finish().into_iter().map(Bytes::from));
        }
        _ => chunks.push(chunk.into()),
    }
}

/// Reads the chunks of a snapshot that is not whole, as far as they are sound; `each` is told where a chunk
/// ends.
///
/// # Errors
/// When it is no snapshot.
pub(crate) fn each_sound(
    path: &Path,
    from: impl Read,
    seed: u64,
    mut each: impl FnMut(&[u8], u64),
) -> Result<(), StorageError> {
    let mut end = MAGIC.len() as u64;
    let read = read_from(path, from, seed, |chunk| {
        end += (HEAD_BYTES + chunk.len()) as u64;
        each(chunk, end);
        Ok(())
    });
    match read {
        Err(error) if end == MAGIC.len() as u64 => Err(error),
        _ => Ok(()),
    }
}

/// Reads every chunk of a snapshot.
///
/// # Errors
/// When the file cannot be read or is damaged, or what `each` says.
pub fn read(
    path: &Path,
    seed: u64,
    each: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let opened = File::open(path).map_err(StorageError::io(path, "cannot be opened"))?;
    read_from(path, opened, seed, each)
}

fn read_from(
    path: &Path,
    from: impl Read,
    seed: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut file = BufReader::with_capacity(CHUNK_BYTES, from);
    let mut offset = MAGIC.len() as u64;
    let damaged = |offset, what: &str| StorageError::damaged(path, offset, what);
    let mut magic = [0; 8];
    if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err(damaged(0, "it is no snapshot"));
    }
    let mut chunk = Vec::new();
    loop {
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head)
            .map_err(|_| damaged(offset, "it ends before its last chunk"))?;
        let (length, sum) = head.split_at(4);
        let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
        let sum = sum.try_into().map_or(0, u64::from_le_bytes);
        if length > CHUNK_BYTES_MAX {
            return Err(damaged(offset, "a chunk is longer than any"));
        }
        // Memory is taken as the bytes come, not as their number is announced.
        chunk.clear();
        let read = file.by_ref().take(length as u64).read_to_end(&mut chunk);
        if read.ok() != Some(length) {
            return Err(damaged(offset, "it ends inside a chunk"));
        }
        if checksum(offset, &chunk, seed) != sum {
            return Err(damaged(offset, "a chunk's checksum does not fit"));
        }
        if length == 0 {
            return Ok(());
        }
        each(&chunk)?;
        offset += (HEAD_BYTES + length) as u64;
    }
}

/// What the head of a snapshot says it is. Nothing else of it is read.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub(crate) fn claim_of(
    path: &Path,
    file: &impl ReadAt,
    seed: u64,
    digester: &Digester,
) -> Result<CheckpointClaim, StorageError> {
    let at = MAGIC.len() as u64;
    let damaged = |what: &str| StorageError::damaged(path, at, what);
    let mut magic = [0; MAGIC.len()];
    let mut chunk_start = [0; HEAD_BYTES];
    file.read_exact_at(&mut magic, 0)
        .and_then(|()| file.read_exact_at(&mut chunk_start, at))
        .map_err(|_| damaged("it ends before its first chunk"))?;
    let length = chunk_start[..4].try_into().map_or(0, u32::from_le_bytes) as usize;
    if magic != *MAGIC || length > SnapshotChunk::HEAD_CHUNK_BYTES {
        return Err(damaged("it does not begin with a head"));
    }
    let mut chunk = vec![0; length];
    file.read_exact_at(&mut chunk, at + HEAD_BYTES as u64)
        .map_err(|_| damaged("it ends inside a chunk"))?;
    match SnapshotChunk::parse(&chunk) {
        Ok(SnapshotChunk::Head(head)) if chunk_start == chunk_head(at, &chunk, seed) => {
            Ok(head.claim(digester))
        }
        _ => Err(damaged("its head is not sound")),
    }
}

/// Has an executor read a snapshot; what it amounts to.
///
/// # Errors
/// When the file is damaged, or is no snapshot of this service.
pub fn load<F: ReadAt, E: Executor>(
    snapshot: &SnapshotFile<F>,
    executor: &mut E,
) -> Result<CheckpointClaim, StorageError> {
    let wrong = |source| StorageError::Snapshot {
        path: snapshot.path.clone(),
        source,
    };
    for number in 0..snapshot.chunks() {
        executor
            .read_snapshot_chunk(&snapshot.chunk(number)?)
            .map_err(wrong)?;
    }
    executor.finish_snapshot().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_whatever_an_interrupted_transfer_wrote_again() {
        let (seed, path) = (7, Path::new("image"));
        let pieces = |first: u32| [&[2][..], &first.to_le_bytes(), b"\x01\0\0\0x"].concat();
        let (head, index) = (vec![0; 20], vec![1; 40]);
        let mut bytes = file_magic().to_vec();
        for chunk in [
            &head,
            &index,
            &pieces(0),
            &pieces(9),
            &head,
            &index,
            &pieces(4),
            &Vec::new(),
        ] {
            let at = bytes.len() as u64;
            bytes.extend_from_slice(&chunk_head(at, chunk, seed));
            bytes.extend_from_slice(chunk);
        }
        let snapshot = SnapshotFile::of(path, Bytes::from(bytes), seed).unwrap();
        let read: Vec<Vec<u8>> = (0..snapshot.chunks())
            .map(|number| snapshot.chunk(number).unwrap())
            .collect();
        assert_eq!(read, [head, index, pieces(0), pieces(4), pieces(9)]);
        let range = PieceRange {
            seq: 0,
            piece: 4,
            offset: 0,
            until: 9,
        };
        assert_eq!(snapshot.read_range(range, 1000).unwrap(), [pieces(4)]);
    }
}
