//! Images of checkpoints as files: chunks, each with its length and checksum, and a last one without contents.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::StorageError;
use super::directory::sync_directory;
use crate::execution::{CheckpointImage, Executor};
use crate::messages::CheckpointClaim;

/// About how long a chunk is.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// The longest that is read; one entry of a state may be larger than a chunk should be.
const CHUNK_BYTES_MAX: usize = 1 << 30;

const MAGIC: &[u8; 8] = b"ATLAS\0I1";

/// Writes an image beside its final place, and puts it there when it is whole and on disk. How many bytes it has.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, image: &mut dyn CheckpointImage, seed: u64) -> Result<u64, StorageError> {
    let unfinished = path.with_extension("unfinished");
    let wrote = write_file(&unfinished, image, seed);
    let bytes = wrote.map_err(StorageError::io(&unfinished, "cannot be written"))?;
    fs::rename(&unfinished, path).map_err(StorageError::io(path, "cannot be made"))?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(bytes)
}

fn write_file(path: &Path, image: &mut dyn CheckpointImage, seed: u64) -> std::io::Result<u64> {
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create(path)?);
    file.write_all(MAGIC)?;
    let (mut chunk, mut written) = (Vec::with_capacity(2 * CHUNK_BYTES), MAGIC.len() as u64);
    loop {
        chunk.clear();
        let more = image.next_chunk(CHUNK_BYTES, &mut chunk);
        if !more {
            chunk.clear();
        }
        let length = u32::try_from(chunk.len()).map_err(std::io::Error::other)?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&checksum(written, &chunk, seed).to_le_bytes())?;
        file.write_all(&chunk)?;
        written += 12 + chunk.len() as u64;
        if !more {
            break;
        }
    }
    file.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()?;
    Ok(written)
}

/// Covers where the chunk lies as well: chunks cannot change places.
fn checksum(offset: u64, chunk: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(chunk, seed ^ offset)
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
        let mut head = [0; 12];
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
        offset += 12 + length as u64;
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
    read(path, seed, |chunk| {
        executor.read_image_chunk(chunk).map_err(wrong)
    })?;
    executor.finish_image().map_err(wrong)
}
