//! Images of checkpoints as files: chunks, each with its length and checksum, and a last one without contents.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::directory::{UNFINISHED, remove_leftover, sync_directory};
use super::{StorageError, files};
use crate::execution::{CheckpointImage, Executor, ImageChunk};
use crate::messages::CheckpointClaim;

/// About how long a chunk is.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// The longest that is read; one entry of a state may be larger than a chunk should be.
const CHUNK_BYTES_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"ATLAS\0I2";

/// Before a chunk: its length and checksum.
const HEAD_BYTES: usize = 12;

/// Writes an image beside its final place, and puts it there when it is whole and on disk. How many bytes it has.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, image: &mut dyn CheckpointImage, seed: u64) -> Result<u64, StorageError> {
    let unfinished = path.with_extension(UNFINISHED);
    let bytes = write_file(&unfinished, image, seed)
        .inspect_err(|_| remove_leftover(&unfinished))
        .map_err(StorageError::io(&unfinished, "cannot be written"))?;
    files::rename(&unfinished, path).map_err(StorageError::io(path, "cannot be made"))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(bytes)
}

fn write_file(path: &Path, image: &mut dyn CheckpointImage, seed: u64) -> std::io::Result<u64> {
    let mut file = files::create(path)?;
    // Heads and chunks, gathered to about a chunk's length.
    let (mut gathered, mut written) = (MAGIC.to_vec(), 0);
    loop {
        let at = gathered.len();
        gathered.extend_from_slice(&[0; HEAD_BYTES]);
        let more = image.next_chunk(CHUNK_BYTES, &mut gathered);
        if !more {
            gathered.truncate(at + HEAD_BYTES);
        }
        let head = chunk_head(written + at as u64, &gathered[at + HEAD_BYTES..], seed);
        gathered[at..at + HEAD_BYTES].copy_from_slice(&head);
        if gathered.len() >= CHUNK_BYTES || !more {
            files::write_all(&mut file, &gathered)?;
            written += gathered.len() as u64;
            gathered.clear();
        }
        if !more {
            break;
        }
    }
    files::sync(&file)?;
    Ok(written)
}

/// Covers where the chunk lies as well: chunks cannot change places.
fn checksum(offset: u64, chunk: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(chunk, seed ^ offset)
}

/// What an image file begins with.
pub(super) fn file_magic() -> &'static [u8] {
    MAGIC
}

/// What comes before a chunk that lies at `offset`.
pub(super) fn chunk_head(offset: u64, chunk: &[u8], seed: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&(chunk.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&checksum(offset, chunk, seed).to_le_bytes());
    head
}

/// Where a chunk lies, and what is in it.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The first piece in it; zero for head and index.
    first: usize,
    /// Where in this piece it starts.
    piece_offset: u64,
    offset: u64,
    length: usize,
}

/// An image file, open for reading in the order of its pieces, whatever the order in which they were written.
#[derive(Debug)]
pub(crate) struct ImageFile {
    path: PathBuf,
    file: File,
    seed: u64,
    /// Head, index, then pieces.
    places: Vec<Place>,
}

impl ImageFile {
    /// Opens a whole image and finds its chunks.
    ///
    /// # Errors
    /// When it cannot be read, or is not whole.
    pub fn open(path: &Path, seed: u64) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(StorageError::io(path, "cannot be opened"))?;
        let mut image = Self {
            path: path.to_owned(),
            file,
            seed,
            places: Vec::new(),
        };
        let mut magic = [0; 8];
        if image.file.read_exact_at(&mut magic, 0).is_err() || magic != *MAGIC {
            return Err(StorageError::damaged(path, 0, "it is no image"));
        }
        let mut offset = MAGIC.len() as u64;
        while let Some(place) = image.place(offset)? {
            offset = place.offset + (HEAD_BYTES + place.length) as u64;
            image.places.push(place);
        }
        let sorted = image.places.get_mut(2..);
        sorted
            .ok_or_else(|| StorageError::damaged(path, offset, "it has no head and index"))?
            .sort_by_key(|place| (place.first, place.piece_offset));
        Ok(image)
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
        let mut start = [0; ImageChunk::START_BYTES];
        let start = &mut start[..length.min(ImageChunk::START_BYTES)];
        self.file
            .read_exact_at(start, offset + HEAD_BYTES as u64)
            .map_err(|_| damaged("it ends inside a chunk"))?;
        let (first, piece_offset) = ImageChunk::start(start).unwrap_or((0, 0));
        Ok(Some(Place {
            first,
            piece_offset,
            offset,
            length,
        }))
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The first piece of a chunk.
    pub fn first_piece(&self, number: usize) -> usize {
        self.places[number].first
    }

    /// The chunks from the one on that contains this piece, or this byte of it.
    pub fn chunks_from(&self, piece: usize, offset: u64) -> impl Iterator<Item = usize> + use<> {
        let pieces = &self.places[2..];
        let behind = pieces.partition_point(|place| (place.first, place.piece_offset) <= (piece, offset));
        2 + behind.saturating_sub(1)..self.places.len()
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
        match head == chunk_head(place.offset, &chunk, self.seed) {
            true => Ok(chunk),
            false => Err(StorageError::damaged(
                &self.path,
                place.offset,
                "a chunk's checksum does not fit",
            )),
        }
    }

    /// Reads the chunks of an image that is not whole, as far as they are sound; `each` is told where a chunk ends.
    ///
    /// # Errors
    /// When it is no image.
    pub fn each_sound(path: &Path, seed: u64, mut each: impl FnMut(&[u8], u64)) -> Result<(), StorageError> {
        let mut end = MAGIC.len() as u64;
        let read = read(path, seed, |chunk| {
            end += (HEAD_BYTES + chunk.len()) as u64;
            each(chunk, end);
            Ok(())
        });
        match read {
            Err(error) if end == MAGIC.len() as u64 => Err(error),
            _ => Ok(()),
        }
    }
}

/// Reads every chunk of an image.
///
/// # Errors
/// When the file cannot be read or is damaged, or what `each` says.
pub fn read(
    path: &Path,
    seed: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let opened = File::open(path).map_err(StorageError::io(path, "cannot be opened"))?;
    let mut file = BufReader::with_capacity(CHUNK_BYTES, opened);
    let mut offset = MAGIC.len() as u64;
    let damaged = |offset, what: &str| StorageError::damaged(path, offset, what);
    let mut magic = [0; 8];
    if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err(damaged(0, "it is no image"));
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
        chunk.resize(length, 0);
        file.read_exact(&mut chunk)
            .map_err(|_| damaged(offset, "it ends inside a chunk"))?;
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

/// Has an executor read an image; what it amounts to.
///
/// # Errors
/// When the file is damaged, or is no image of this service.
pub fn load<E: Executor>(path: &Path, seed: u64, executor: &mut E) -> Result<CheckpointClaim, StorageError> {
    let wrong = |source| StorageError::Image {
        path: path.to_owned(),
        source,
    };
    let image = ImageFile::open(path, seed)?;
    for number in 0..image.len() {
        executor.read_image_chunk(&image.chunk(number)?).map_err(wrong)?;
    }
    executor.finish_image().map_err(wrong)
}
