//! A snapshot that comes from others, as it gathers: after what an earlier attempt kept, chunk by chunk.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::snapshot::{chunk_head, each_sound, file_magic};
use super::{StorageError, files};
use crate::smr::types::SeqNo;

/// How many bytes gather before the disk is told to write them.
const WRITTEN_AT_ONCE: u64 = 8 << 20;

/// What a snapshot gathers in: a file, or the bytes of a disk that is simulated.
pub(crate) trait Gathered {
    /// Reads what is there, from the start on, once.
    fn reader(&self) -> impl Read;

    /// Writes bytes to a place.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts it to this length.
    fn cut_to(&mut self, length: u64) -> io::Result<()>;

    /// Has it reach the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// Has the disk begin to write a part that is final.
    fn begin_writing(&self, _offset: u64, _bytes: u64) {}
}

impl Gathered for File {
    fn reader(&self) -> impl Read {
        self
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        files::write_all_at(self, bytes, offset)
    }

    fn cut_to(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        files::sync(self)
    }

    fn begin_writing(&self, offset: u64, bytes: u64) {
        files::begin_writing(self, offset, bytes);
    }
}

/// A snapshot that comes from others.
#[derive(Debug, Clone)]
pub(crate) struct Received<F> {
    pub seq: SeqNo,
    pub file: F,
    path: PathBuf,
    seed: u64,
    written: u64,
    /// What the disk was told to write already.
    begun: u64,
    /// All of it is on disk.
    is_synced: bool,
}

impl<F: Gathered> Received<F> {
    /// Goes on after the sound chunks of an earlier attempt, which `found` is told.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(
        (seq, path): (SeqNo, &Path),
        mut file: F,
        seed: u64,
        mut found: impl FnMut(&[u8]),
    ) -> Result<Self, StorageError> {
        let mut written = 0;
        // Only what can be read without an error is taken for kept.
        let sound = each_sound(path, file.reader(), seed, |chunk, end| {
            written = end;
            found(chunk);
        });
        let cannot = || StorageError::io(path, "cannot be written");
        if sound.is_err() || written == 0 {
            let magic = file_magic();
            written = magic.len() as u64;
            file.cut_to(0)
                .and_then(|()| file.write_at(magic, 0))
                .map_err(cannot())?;
        }
        file.cut_to(written).map_err(cannot())?;
        Ok(Self {
            seq,
            file,
            path: path.to_owned(),
            seed,
            written,
            begun: written,
            is_synced: false,
        })
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// When it cannot be written; then it can be added again.
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        let (at, head) = (self.written, chunk_head(self.written, chunk, self.seed));
        self.file
            .write_at(&head, at)
            .and_then(|()| self.file.write_at(chunk, at + head.len() as u64))
            .map_err(StorageError::io(&self.path, "cannot be written"))?;
        self.written += (head.len() + chunk.len()) as u64;
        let waiting = self.written - self.begun;
        if waiting >= WRITTEN_AT_ONCE {
            self.file.begin_writing(self.begun, waiting);
            self.begun = self.written;
        }
        Ok(())
    }

    /// Adds the last chunk, and has all of it be on disk. Done again after a failure, it goes on.
    ///
    /// # Errors
    /// When it cannot be written or synced.
    pub fn close(&mut self) -> Result<(), StorageError> {
        if self.is_synced {
            return Ok(());
        }
        let whole = self.written;
        self.add(&[])?;
        // Done again, the last chunk goes to the same place.
        self.written = whole;
        let start = std::time::Instant::now();
        self.file
            .sync()
            .map_err(StorageError::io(&self.path, "cannot be synced"))?;
        self.is_synced = true;
        tracing::debug!(seq = %self.seq, bytes = whole, sync = ?start.elapsed(), "a state from other replicas is on disk");
        Ok(())
    }
}
