//! What this machine allows, found by trying it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::reactor::{Reactor, Token};
use crate::runtime::storage::AlignedBuffer;

/// Makes a data shard's ring and receives a few bytes by it.
///
/// # Errors
/// What the kernel lacks or forbids.
pub fn ring() -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut reactor = Reactor::new(8, 8, 4096).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let mut sender = TcpStream::connect(listener.local_addr().map_err(text)?).map_err(text)?;
    let (receiver, _) = listener.accept().map_err(text)?;
    reactor.set_file(0, receiver.as_raw_fd()).map_err(text)?;
    reactor.receive(
        0,
        Token {
            owner: 0,
            operation: 0,
            slot: 0,
            generation: 0,
        },
    );
    sender.write_all(b"probe").map_err(text)?;
    let completions = reactor.wait(Some(Duration::from_secs(2))).map_err(text)?;
    let outcome = match completions.first() {
        Some(completion) if completion.result == 5 && completion.buffer.is_some() => Ok(()),
        Some(completion) => Err(format!("multishot receive failed: errno {}", -completion.result)),
        None => Err("multishot receive did not complete".to_owned()),
    };
    reactor.cancel_all();
    outcome
}

/// How many groups a look at a disk writes and syncs.
const GROUPS: usize = 32;
/// The file it writes them to.
const PROBE_BYTES: usize = 1 << 20;
const GROUP_BYTES: usize = 4096;

/// What a disk took for the shortest group of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskProbe {
    /// The time of a write and its sync that half of the groups did not take.
    pub median: Duration,
    /// The longest.
    pub longest: Duration,
    /// Whether the kernel let the buffer be registered.
    pub registers: bool,
}

/// Writes and syncs groups in `directory` as the log role does: with `O_DIRECT`, out of a registered buffer,
/// into a file that was filled with zeros. The file is removed.
///
/// # Errors
/// What the file system or the kernel does not allow.
pub fn disk(directory: &Path) -> Result<DiskProbe, String> {
    let name = directory.join(format!(".atlas-doctor-{}", std::process::id()));
    let outcome = write_groups(&name);
    // It is there unless it could not be made.
    let _ = fs::remove_file(&name);
    outcome
}

fn write_groups(name: &Path) -> Result<DiskProbe, String> {
    let at = |doing: &str, error: std::io::Error| format!("{}: {doing}: {error}", name.display());
    File::create_new(name)
        .and_then(|mut file| file.write_all(&[0; PROBE_BYTES]).and_then(|()| file.sync_all()))
        .map_err(|error| at("cannot be written", error))?;
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(name)
        .map_err(|error| at("cannot be opened with O_DIRECT", error))?;
    let mut reactor = Reactor::new(8, 8, 4096).map_err(|error| error.to_string())?;
    let buffer = AlignedBuffer::new(0, GROUP_BYTES);
    let registers = reactor.register_buffers(&[&buffer]).is_ok();
    let token = Token {
        owner: 0,
        operation: 0,
        slot: 0,
        generation: 0,
    };
    let wait = |reactor: &mut Reactor, wanted: i32, doing: &str| {
        let completions = reactor
            .wait(Some(Duration::from_secs(10)))
            .map_err(|error| at(doing, error))?;
        match completions.first().map(|completion| completion.result) {
            Some(result) if result == wanted => Ok(()),
            Some(result) if result < 0 => Err(at(doing, std::io::Error::from_raw_os_error(-result))),
            Some(_) => Err(format!("{}: {doing}: cut short", name.display())),
            None => Err(format!(
                "{}: {doing}: takes longer than ten seconds",
                name.display()
            )),
        }
    };
    let mut times = Vec::new();
    let mut run = |reactor: &mut Reactor| {
        for group in 0..GROUPS {
            let (begin, offset) = (Instant::now(), (group * GROUP_BYTES) as u64);
            // SAFETY: the buffer is not changed, and outlives every write.
            unsafe {
                match registers {
                    true => reactor.write_fixed(file.as_raw_fd(), &buffer, 0, offset, token),
                    false => reactor.write(file.as_raw_fd(), &buffer, offset, token),
                }
            }
            wait(reactor, GROUP_BYTES as i32, "a write with O_DIRECT and RWF_DSYNC")?;
            times.push(begin.elapsed());
        }
        Ok(())
    };
    let ran: Result<(), String> = run(&mut reactor);
    reactor.cancel_all();
    ran?;
    times.sort_unstable();
    Ok(DiskProbe {
        median: times[GROUPS / 2],
        longest: times[GROUPS - 1],
        registers,
    })
}

/// Whether a directory lies in memory (tmpfs, ramfs), where no sync makes anything last.
#[must_use]
pub fn is_in_memory(directory: &Path) -> bool {
    const TMPFS: libc::__fsword_t = 0x0102_1994;
    const RAMFS: libc::__fsword_t = 0x8584_58f6;
    use std::os::unix::ffi::OsStrExt;
    let Ok(name) = std::ffi::CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the name ends with a zero, and the kernel fills the struct it is given, which is read only if
    // it did.
    let kind = unsafe {
        match libc::statfs(name.as_ptr(), found.as_mut_ptr()) {
            0 => found.assume_init().f_type,
            _ => return false,
        }
    };
    kind == TMPFS || kind == RAMFS
}

/// A resource limit of this process (the soft one); `u64::MAX` for unlimited.
#[must_use]
pub fn limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the struct it is given.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if result == 0 { limit.rlim_cur } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_memory_is_told_from_one_that_lasts() {
        // Where there is neither, nothing is claimed.
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        for mount in mounts.lines() {
            let mut fields = mount.split(' ').skip(1);
            let (Some(path), Some(kind)) = (fields.next(), fields.next()) else {
                continue;
            };
            let is_last = mounts
                .lines()
                .filter(|line| line.split(' ').nth(1) == Some(path))
                .count()
                == 1;
            if matches!(kind, "tmpfs" | "proc" | "ext4") && is_last && Path::new(path).exists() {
                assert_eq!(is_in_memory(Path::new(path)), kind == "tmpfs", "{mount}");
            }
        }
        assert!(!is_in_memory(Path::new("/no/such/directory")));
    }
}
