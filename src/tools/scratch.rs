//! Directories that a command makes for itself. They go with it, also when it is interrupted for good.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::{Builder, TempDir};

/// Those that there are now.
static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How often a directory is tried that others may still write into, and how long is waited in between.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(TempDir);

impl Scratch {
    /// Makes one with a name of its own.
    pub(super) fn new(name: &Builder<'_, '_>, within: &Path) -> io::Result<Self> {
        // Known before anybody can look whether there is one.
        let mut held = held();
        let directory = name.tempdir_in(within)?;
        held.push(directory.path().to_owned());
        Ok(Self(directory))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = self.path().to_owned();
        // What cannot be removed stays listed, for whoever removes all of them.
        if remove(&path).is_ok() {
            held().retain(|other| *other != path);
        }
    }
}

fn held() -> MutexGuard<'static, Vec<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes all of them, of a process that ends right afterwards: nobody can make another. Those that stay, and
/// why.
pub(super) fn remove_all() -> Vec<(PathBuf, io::Error)> {
    let mut held = held();
    let left = held.drain(..).filter_map(|path| {
        let mut outcome = remove(&path);
        for _ in 1..TRIES {
            if outcome.is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
            outcome = remove(&path);
        }
        outcome.err().map(|error| (path, error))
    });
    let left = left.collect();
    std::mem::forget(held);
    left
}
