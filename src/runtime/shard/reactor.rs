//! The ring of one data shard: submissions, completions, parking.
//!
//! **Kernel needs.** `SINGLE_ISSUER` and `DEFER_TASKRUN` (6.1), provided-buffer rings and multishot receive
//! (6.0), `EXT_ARG` waits (5.11). [`Reactor::new`] names what is missing; `atlas doctor` explains the remedy.
//!
//! **Flow.** Roles push submissions while they step. One `io_uring_enter` per turn of the shard hands them to
//! the kernel and runs the deferred completions; the shard then gives each completion to the role that owns
//! it.
//!
//! **Late completions.** Every submission carries a [`Token`]: owner, operation, slot and the slot's
//! generation. A completion that arrives after its slot was given to somebody else has an old generation and
//! is dropped by the owner; it never reaches the new tenant.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffers::{BufferPool, GROUP};
use crate::runtime::storage::{AlignedBuffer, MemoryPin};
use crate::smr::types::Time;

/// How many submissions the ring holds between two turns.
const SUBMISSIONS: u32 = 1024;
/// How many completions may wait to be reaped; more are kept by the kernel, not lost (`NODROP`).
const COMPLETIONS: u32 = 8192;

/// What a submission was for, packed into the kernel's 64 bits of user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The role of this shard that submitted.
    pub owner: u8,
    /// The owner's name for the kind of operation.
    pub operation: u8,
    /// The owner's slot.
    pub slot: u16,
    /// How often the slot was reused.
    pub generation: u32,
}

impl Token {
    fn pack(self) -> u64 {
        u64::from(self.owner) << 56
            | u64::from(self.operation) << 48
            | u64::from(self.slot) << 32
            | u64::from(self.generation)
    }

    fn unpack(data: u64) -> Self {
        Self {
            owner: (data >> 56) as u8,
            operation: (data >> 48) as u8,
            slot: (data >> 32) as u16,
            generation: data as u32,
        }
    }
}

/// The end of one operation, or one step of a multishot operation.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// What was submitted.
    pub token: Token,
    /// What the system call would have returned: a count, or a negated errno.
    pub result: i32,
    /// The provided buffer the kernel filled, if any.
    pub buffer: Option<u16>,
    /// Whether the operation goes on and will complete again.
    pub more: bool,
}

/// Why a data shard cannot have its ring.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// io_uring is missing or forbidden.
    #[error("io_uring_setup failed: {source}; {}", remedy(source))]
    Setup {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has io_uring, and not all of it that a shard needs.
    #[error(
        "io_uring has no {what}, which needs kernel {since}; use kernel 6.1 or later (see `atlas doctor`)"
    )]
    Missing {
        /// The feature.
        what: &'static str,
        /// The first kernel that has it.
        since: &'static str,
    },
    /// Provided-buffer rings are missing.
    #[error("registering provided buffers failed: {0}; the kernel must be 6.1 or later (see `atlas doctor`)")]
    Buffers(#[source] io::Error),
    /// Registered files are missing.
    #[error("registering the file table failed: {0} (see `atlas doctor`)")]
    Files(#[source] io::Error),
}

/// What helps against an error of `io_uring_setup`.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "it is forbidden here: set the sysctl kernel.io_uring_disabled to 0; in a container, run with the seccomp profile that \
             `atlas doctor --seccomp` prints"
        }
        Some(libc::ENOSYS) => {
            "the kernel has none, or a seccomp profile hides it: use kernel 6.1 or later; in a container, run with the profile that \
             `atlas doctor --seccomp` prints"
        }
        Some(libc::EINVAL) => {
            "the kernel lacks single-issuer rings with deferred task work: use kernel 6.1 or later"
        }
        Some(libc::ENOMEM) => "raise the locked memory: ulimit -l 65536, or LimitMEMLOCK=64M in the unit",
        Some(libc::EMFILE | libc::ENFILE) => {
            "raise the number of open files: ulimit -n 4096, or LimitNOFILE=4096 in the unit"
        }
        // The control shard's executor asks for itself, and has no number for it.
        _ if error.to_string().contains("MemLockLimit") => {
            "too little memory may be locked: raise it with ulimit -l 65536, or LimitMEMLOCK=64M in the unit"
        }
        _ => "see `atlas doctor`",
    }
}

/// Asks for every operation that roles submit, and for what waiting needs.
fn probe(ring: &IoUring) -> Result<(), ReactorError> {
    let missing = |what, since| ReactorError::Missing { what, since };
    if !ring.params().is_feature_nodrop() {
        return Err(missing(
            "completions that are kept when their queue is full",
            "5.5",
        ));
    }
    if !ring.params().is_feature_ext_arg() {
        return Err(missing("waiting with a timeout", "5.11"));
    }
    let mut found = io_uring::Probe::new();
    ring.submitter()
        .register_probe(&mut found)
        .map_err(|_| missing("way to ask for operations", "5.6"))?;
    let needed = [
        (opcode::RecvMulti::CODE, "receive", "5.6"),
        (opcode::Send::CODE, "send", "5.6"),
        (opcode::Write::CODE, "write", "5.6"),
        (opcode::WriteFixed::CODE, "write from registered buffers", "5.1"),
        (opcode::PollAdd::CODE, "poll", "5.1"),
        (opcode::AsyncCancel::CODE, "cancellation", "5.5"),
    ];
    match needed.iter().find(|(code, ..)| !found.is_supported(*code)) {
        Some((_, what, since)) => Err(missing(what, since)),
        None => Ok(()),
    }
}

/// A data shard's ring with its provided receive buffers.
///
/// Made and used on one thread only (`SINGLE_ISSUER`).
pub struct Reactor {
    ring: IoUring,
    buffers: BufferPool,
    completions: Vec<Completion>,
    backlog: Vec<squeue::Entry>,
    /// Registered memory. Invariant: kept until the ring was closed, hence after it.
    registered: Vec<MemoryPin>,
}

impl Reactor {
    /// A ring with room for `files` registered sockets and `buffer_count` receive buffers of `buffer_bytes`.
    ///
    /// # Errors
    /// When the kernel lacks or forbids what the shard needs.
    pub fn new(files: u32, buffer_count: u16, buffer_bytes: usize) -> Result<Self, ReactorError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .setup_clamp()
            .build(SUBMISSIONS)
            .map_err(|source| ReactorError::Setup { source })?;
        probe(&ring)?;
        ring.submitter()
            .register_files_sparse(files)
            .map_err(ReactorError::Files)?;
        let buffers = BufferPool::register(&ring.submitter(), buffer_count, buffer_bytes)
            .map_err(ReactorError::Buffers)?;
        Ok(Self {
            ring,
            buffers,
            completions: Vec::with_capacity(256),
            backlog: Vec::new(),
            registered: Vec::new(),
        })
    }

    /// Puts a socket into the table of registered files at `slot`, or empties the slot with `-1`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_file(&self, slot: u16, fd: RawFd) -> io::Result<()> {
        self.ring
            .submitter()
            .register_files_update(u32::from(slot), &[fd])
            .map(|_| ())
    }

    /// Receives from the registered file `slot` into provided buffers until the connection ends.
    pub fn receive(&mut self, slot: u16, token: Token) {
        let entry = opcode::RecvMulti::new(types::Fixed(u32::from(slot)), GROUP).build();
        // SAFETY: the kernel writes into the registered provided buffers, which live as long as the ring.
        unsafe { self.push(entry, token) };
    }

    /// Sends `bytes` on the registered file `slot`, all of them unless the connection breaks.
    ///
    /// # Safety
    /// `bytes` must stay where it is, unchanged, until the completion for `token` was reaped.
    pub unsafe fn send(&mut self, slot: u16, bytes: &[u8], token: Token) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(types::Fixed(u32::from(slot)), bytes.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        // SAFETY: the caller keeps `bytes` alive and unchanged until the completion.
        unsafe { self.push(entry, token) };
    }

    /// Writes `bytes` to a file at `offset`; as many as the completion says, and these are on the disk then
    /// (`RWF_DSYNC`).
    ///
    /// # Safety
    /// `bytes` must stay where it is, unchanged, until the completion for `token` was reaped; `fd` must stay
    /// open.
    pub unsafe fn write(&mut self, fd: RawFd, bytes: &[u8], offset: u64, token: Token) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Write::new(types::Fd(fd), bytes.as_ptr(), length)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        // SAFETY: the caller keeps `bytes` alive and unchanged until the completion.
        unsafe { self.push(entry, token) };
    }

    /// Registers memory for [`write_fixed`](Self::write_fixed), by its place in the list: the kernel need not
    /// look it up for every write. Once per ring, which keeps the memory.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because it may lock no more memory (`RLIMIT_MEMLOCK`).
    pub fn register_buffers(&mut self, buffers: &[&AlignedBuffer]) -> io::Result<()> {
        self.registered
            .extend(buffers.iter().filter_map(|buffer| buffer.pin()));
        let vectors: Vec<libc::iovec> = buffers
            .iter()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_ptr().cast_mut().cast(),
                iov_len: buffer.len(),
            })
            .collect();
        // SAFETY: the memory stays where it is: it was pinned, and outlives the ring.
        unsafe { self.ring.submitter().register_buffers(&vectors) }
    }

    /// As [`write`](Self::write), out of the registered memory `buffer`, in which `bytes` lie.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn write_fixed(&mut self, fd: RawFd, bytes: &[u8], buffer: u16, offset: u64, token: Token) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::WriteFixed::new(types::Fd(fd), bytes.as_ptr(), length, buffer)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        // SAFETY: the caller keeps `bytes` alive and unchanged until the completion.
        unsafe { self.push(entry, token) };
    }

    /// Completes once when `fd` is readable.
    pub fn poll_readable(&mut self, fd: RawFd, token: Token) {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build();
        // SAFETY: a poll touches no memory of ours.
        unsafe { self.push(entry, token) };
    }

    /// Cancels the operation submitted with `token`; both complete.
    pub fn cancel(&mut self, token: Token, cancel_token: Token) {
        let entry = opcode::AsyncCancel::new(token.pack()).build();
        // SAFETY: a cancellation touches no memory of ours.
        unsafe { self.push(entry, cancel_token) };
    }

    /// # Safety
    /// Whatever memory the entry names must live until its completion.
    unsafe fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        // SAFETY: passed on from the caller.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The submission queue is full for this turn: it goes first in the next one.
            self.backlog.push(entry);
        }
    }

    fn submit_backlog(&mut self) {
        let mut queue = self.ring.submission();
        let room = queue.capacity() - queue.len();
        for entry in self.backlog.drain(..room.min(self.backlog.len())) {
            // SAFETY: `push` received these entries under the same promise; the queue has room for them.
            let _ = unsafe { queue.push(&entry) };
        }
    }

    /// Submits what was pushed and reaps what completed, without waiting.
    ///
    /// # Errors
    /// Only for errors of the ring itself: the shard cannot go on.
    pub fn turn(&mut self) -> io::Result<&[Completion]> {
        self.enter(None)
    }

    /// As [`turn`](Self::turn), but waits for a completion for up to `timeout` (for ever with `None`).
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<&[Completion]> {
        self.enter(Some(timeout))
    }

    fn enter(&mut self, wait: Option<Option<Duration>>) -> io::Result<&[Completion]> {
        self.submit_backlog();
        let timespec;
        let mut args = SubmitArgs::new();
        let want = match wait {
            None => 0,
            Some(None) => 1,
            Some(Some(timeout)) => {
                timespec = Timespec::new()
                    .sec(timeout.as_secs())
                    .nsec(timeout.subsec_nanos());
                args = args.timespec(&timespec);
                1
            }
        };
        let entered = match wait {
            // GETEVENTS without waiting: runs the deferred task work.
            None => {
                let to_submit = self.ring.submission().len() as u32;
                // SAFETY: no signal mask is passed; the pushed entries keep their callers' promises.
                unsafe {
                    self.ring
                        .submitter()
                        .enter::<libc::sigset_t>(to_submit, 0, GETEVENTS, None)
                }
            }
            Some(_) => self.ring.submitter().submit_with_args(want, &args),
        };
        match entered {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        self.completions.clear();
        for entry in self.ring.completion() {
            self.completions.push(Completion {
                token: Token::unpack(entry.user_data()),
                result: entry.result(),
                buffer: cqueue::buffer_select(entry.flags()),
                more: cqueue::more(entry.flags()),
            });
        }
        Ok(&self.completions)
    }

    /// Cancels everything under way and waits for it: afterwards the kernel touches no memory of the roles.
    pub fn cancel_all(&mut self) {
        let all = types::CancelBuilder::any();
        // Fails with "nothing to cancel" when nothing was under way.
        let _ = self.ring.submitter().register_sync_cancel(None, all);
    }

    /// Moves the reaped completions out, so that roles may submit while they handle them.
    pub fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.completions)
    }

    /// Gives the emptied vector back for the next turn.
    pub fn return_completions(&mut self, mut completions: Vec<Completion>) {
        completions.clear();
        self.completions = completions;
    }

    /// The bytes the kernel put into a provided buffer.
    #[must_use]
    pub fn received(&self, buffer: u16, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    /// Gives a provided buffer back to the kernel.
    pub fn recycle(&mut self, buffer: u16) {
        self.buffers.recycle(buffer);
    }
}

/// `IORING_ENTER_GETEVENTS`.
const GETEVENTS: u32 = 1;

/// Whether an error of `io_uring_enter` means "nothing yet": a timeout, a signal, or a full completion queue.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
    )
}

/// How long until `deadline`; zero when it has passed.
#[must_use]
pub fn until(now: Time, deadline: Time) -> Duration {
    deadline.since(now)
}
