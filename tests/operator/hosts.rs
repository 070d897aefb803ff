//! Hosts that forbid or lack what replicas and clients need: what is said, and that nobody waits for what
//! cannot come.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::shared::{Replica, alone};
use super::{atlas, complaint, last_words, lone, run, terminate, wait_for_end};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Goes on with the next step of a filter, or after so many more where its condition does not hold.
fn step(code: u16, else_skip: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: else_skip,
        k,
    }
}

/// Where a filter finds the number of a system call, and the lower half of its third argument.
const NUMBER: u32 = 0;
const THIRD_ARGUMENT: u32 = 32;

/// Has `io_uring_setup` fail in a command, as a container's seccomp profile does.
fn without_io_uring(command: &mut Command) -> &mut Command {
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let steps = [
        step(LOAD, 0, NUMBER),
        step(IF_EQUAL, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, refuse),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    filtered(command, steps)
}

/// Has the disk full for a command, as far as it writes a mebibyte at once: so much the segments of a log are
/// made of. What it writes less is not refused, on whatever disk.
pub(super) fn with_a_full_disk(command: &mut Command) -> &mut Command {
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSPC as u32;
    let steps = [
        step(LOAD, 0, NUMBER),
        step(IF_EQUAL, 3, libc::SYS_write as u32),
        step(LOAD, 0, THIRD_ARGUMENT),
        step(IF_AT_LEAST, 1, 1 << 20),
        step(RETURN, 0, refuse),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    filtered(command, steps)
}

/// Has a filter decide about a command's system calls.
fn filtered<const N: usize>(command: &mut Command, mut steps: [libc::sock_filter; N]) -> &mut Command {
    const FILTER: libc::c_ulong = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    const YES: libc::c_ulong = 1;
    const NO: libc::c_ulong = 0;
    let forbid = move || {
        let program = libc::sock_fprog {
            len: steps.len() as u16,
            filter: steps.as_mut_ptr(),
        };
        // SAFETY: the first call has no pointers; the second reads the program, which lives until it returns.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, YES, NO, NO, NO) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, FILTER, &raw const program) == 0
        };
        done.then_some(()).ok_or_else(io::Error::last_os_error)
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(forbid) }
}

#[test]
fn a_host_without_io_uring_is_told_the_remedy_by_replicas_clients_and_loads_at_once() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let mut replica = run(dir.path(), 0);
    let refused = without_io_uring(&mut replica).output().unwrap();
    let said = complaint(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("io_uring") && said.contains("seccomp"), "{said}");

    // A client whose engine cannot start has links all the same; it does not wait for others.
    let mut replica = Replica::start(&dir.path().join("r0.toml"));
    replica.wait_ready();
    let config = dir.path().join("c0.toml");
    let config = config.to_str().unwrap();
    for arguments in [
        &["client", "--config", config, "put", "k", "v"][..],
        &["bench", "--config", config, "--seconds", "1"],
    ] {
        let refused = without_io_uring(&mut atlas(arguments)).output().unwrap();
        let said = complaint(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("the client's engine failed"), "{said}");
        assert!(said.contains("`atlas doctor --seccomp`"), "{said}");
        assert!(!said.contains("not tried yet"), "{said}");
    }
}

#[test]
fn a_host_that_lets_too_little_memory_be_locked_is_told_how_much_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let binary = env!("CARGO_BIN_EXE_atlas");
    let config = dir.path().join("r0.toml");
    let child = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ulimit -l 64; exec {binary} run --no-pin --config {}",
            config.display()
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let (status, said) = last_words(child.unwrap());
    assert_eq!(status.code(), Some(1), "{said}");
    for part in ["ulimit -l 65536", "LimitMEMLOCK=64M"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_directory_that_lies_in_memory_is_said_to_outlive_nothing() {
    let _turn = alone();
    // A file system in memory, on every Linux host that has POSIX shared memory.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    lone(dir.path());
    let mut child = run(dir.path(), 0);
    let mut replica = Replica(
        child
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    replica.wait_ready();
    terminate(&replica.0);
    assert!(wait_for_end(&mut replica.0).success());
    let mut said = String::new();
    let mut stderr = replica.0.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("the data directory lies in memory (tmpfs)"),
        "{said}"
    );
}
