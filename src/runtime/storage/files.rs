//! The operations of this room that change files, in one place: tests have each of them fail in turn.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Makes an empty file, or empties the one that is there.
pub(super) fn create(path: &Path) -> io::Result<File> {
    step(&[], |_| Ok(()))?;
    File::create(path)
}

/// Appends bytes to a file.
pub(super) fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    step(bytes, |part| file.write_all(part))?;
    file.write_all(bytes)
}

/// Writes bytes to a place in a file.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    step(bytes, |part| file.write_all_at(part, offset))?;
    file.write_all_at(bytes, offset)
}

/// Has a file's contents reach the disk.
pub(super) fn sync(file: &File) -> io::Result<()> {
    step(&[], |_| Ok(()))?;
    flush(file)
}

/// Has the disk begin to write a part of a file that is final, so that its sync waits for less. Nothing is
/// promised by it.
pub(super) fn begin_writing(file: &File, offset: u64, bytes: u64) {
    let (Ok(offset), Ok(bytes)) = (offset.try_into(), bytes.try_into()) else {
        return;
    };
    // SAFETY: the descriptor is open, and the call touches no memory of ours. Where it is not possible, the
    // sync does it all.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Gives a file another name, which another file may have had.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step(&[], |_| Ok(()))?;
    fs::rename(from, to)
}

/// Has the names in a directory reach the disk.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    step(&[], |_| Ok(()))?;
    File::open(path).and_then(|directory| flush(&directory))
}

/// Says no to what is there and is no regular file: to open a pipe waits for its other end, for ever perhaps.
pub(super) fn expect_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(io::Error::other("it is no regular file; move it away")),
        _ => Ok(()),
    }
}

/// What is in a directory.
pub(super) fn read_dir(path: &Path) -> io::Result<fs::ReadDir> {
    step(&[], |_| Ok(()))?;
    fs::read_dir(path)
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    step(&[], |_| Ok(()))?;
    fs::remove_file(path)
}

/// Whether an error says that there is no space, or no descriptor: both may come back.
pub(super) fn is_lack(error: &io::Error) -> bool {
    let is_lack = |errno| is_space_errno(errno) || matches!(errno, libc::EMFILE | libc::ENFILE);
    error.raw_os_error().is_some_and(is_lack)
}

/// Whether an errno says that there is no space.
pub(super) fn is_space_errno(errno: i32) -> bool {
    matches!(errno, libc::ENOSPC | libc::EDQUOT)
}

/// Tests have no power cuts on real files: they would wait thousands of times for nothing.
fn flush(file: &File) -> io::Result<()> {
    match cfg!(test) {
        true => Ok(()),
        false => file.sync_all(),
    }
}

#[cfg(not(test))]
#[inline]
fn step(_: &[u8], _: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use planned::step;

/// Failures that a test plans for the operations of its thread.
#[cfg(test)]
pub(super) mod planned {
    use std::cell::Cell;
    use std::io;

    /// Which operations fail, counted from when the plan is made.
    #[derive(Debug, Clone, Copy)]
    pub struct Plan {
        pub first: usize,
        pub count: usize,
        pub errno: i32,
        /// Half of the bytes are written all the same.
        pub torn: bool,
    }

    thread_local! {
        static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// Makes a plan, or none; the count of operations starts again.
    pub fn plan(plan: Option<Plan>) {
        PLAN.set(plan);
        STEPS.set(0);
    }

    /// How many operations there were since the plan was made.
    pub fn steps() -> usize {
        STEPS.get()
    }

    /// Counts one operation; what it fails with, and whether half of it is done.
    pub fn next() -> Option<(i32, bool)> {
        let step = STEPS.replace(STEPS.get() + 1);
        let plan = PLAN.get()?;
        (plan.first..plan.first + plan.count)
            .contains(&step)
            .then_some((plan.errno, plan.torn))
    }

    pub fn step(bytes: &[u8], write: impl FnOnce(&[u8]) -> io::Result<()>) -> io::Result<()> {
        // Zero is a write cut short: the standard library goes on with those itself.
        let Some((errno, torn)) = next().filter(|(errno, _)| *errno != 0) else {
            return Ok(());
        };
        if torn {
            write(&bytes[..bytes.len() / 2])?;
        }
        Err(io::Error::from_raw_os_error(errno))
    }
}
