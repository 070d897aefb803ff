//! Where records are written, and how many stay.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::SystemTime;

use super::file::DumpCause;
use super::recorder::FlightRecorder;
use crate::runtime::metrics::for_same_replica;

/// In the data directory.
const DIRECTORY: &str = "flight";
const EXTENSION: &str = "flight";
/// Of a file that is not complete.
const UNFINISHED: &str = "new";

/// Why no record was written.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// Nothing is recorded.
    #[error("nothing is recorded: events_per_shard = 0 under [flight]")]
    Off,
    /// Another one is being written.
    #[error("another one is being written")]
    Busy,
    /// There is no data directory to write it into.
    #[error("{} is no directory", .0.display())]
    NoDirectory(PathBuf),
    /// It cannot be written.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The directory of records.
#[derive(Debug)]
pub(super) struct Dumps {
    data: PathBuf,
    /// So many of either cause stay.
    max: usize,
    writing: Mutex<()>,
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> DumpError {
    let path = path.to_owned();
    move |source| DumpError::Io { path, doing, source }
}

impl Dumps {
    pub fn new(data: PathBuf, max: usize) -> Self {
        Self {
            data,
            max,
            writing: Mutex::new(()),
        }
    }

    /// Writes a record, and removes the oldest of its cause that are too many. It waits for the disk.
    fn write(&self, cause: DumpCause, bytes: impl FnOnce() -> Vec<u8>) -> Result<PathBuf, DumpError> {
        // One that waits for a disk that hangs must not have others wait for it.
        let _writing = match self.writing.try_lock() {
            Ok(writing) => writing,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return Err(DumpError::Busy),
        };
        // Never made here: a data directory that is not there is lost, and is not to look as if it were.
        if !self.data.is_dir() {
            return Err(DumpError::NoDirectory(self.data.clone()));
        }
        let directory = self.data.join(DIRECTORY);
        fs::create_dir_all(&directory).map_err(failed(&directory, "cannot be made"))?;
        let kept = kept(&directory).map_err(failed(&directory, "cannot be read"))?;
        let last = kept.iter().map(|(number, ..)| *number).max().unwrap_or(0);
        // A clock that went back does not make it the oldest.
        let number = unix_ms().max(last + 1);
        let path = directory.join(format!("{number:015}-{}.{EXTENSION}", cause.word()));
        let unfinished = path.with_extension(UNFINISHED);
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(&bytes())?;
            file.sync_all()
        });
        written
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|source| {
                // Its room is worth more than what is there of it.
                let _ = fs::remove_file(&unfinished);
                failed(&unfinished, "cannot be written")(source)
            })?;
        let mut same: Vec<_> = kept
            .into_iter()
            .filter(|(_, word, _)| word == cause.word())
            .collect();
        same.sort();
        let surplus = (same.len() + 1).saturating_sub(self.max);
        for (_, _, old) in &same[..surplus] {
            // It is tried again with the next one.
            let _ = fs::remove_file(old);
        }
        Ok(path)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// The records of a directory: number, cause, path. What has another name is nobody's here, but what an
/// interrupted dump has left, which is removed.
fn kept(directory: &Path) -> io::Result<Vec<(u64, String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some((number, word)) = name.split_once('-') else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(EXTENSION) => found.push((number, word.to_owned(), path)),
            Some(UNFINISHED) => {
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
    Ok(found)
}

impl FlightRecorder {
    /// Writes the events that are here now into `flight/` in the data directory, and removes the oldest
    /// record of this cause that is too many. It waits for the disk.
    ///
    /// # Errors
    /// When nothing is recorded, another record is being written, or the disk does not take it.
    pub fn dump(&self, cause: DumpCause, why: &str) -> Result<PathBuf, DumpError> {
        let dump = self.capture(cause, why).ok_or(DumpError::Off)?;
        self.dumps().write(cause, || dump.encode())
    }

    /// The same on a thread of its own, which tells what became of it: nobody waits for the disk.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn dump_aside(
        &self,
        cause: DumpCause,
        why: String,
        told: impl FnOnce(Result<PathBuf, DumpError>) + Send + 'static,
    ) -> io::Result<()> {
        let recorder = self.clone();
        let name = format!("flight-{}", self.identity().node);
        let thread = std::thread::Builder::new().name(name);
        let dump = for_same_replica(move || told(recorder.dump(cause, &why)));
        thread.spawn(dump).map(|_| ())
    }
}
