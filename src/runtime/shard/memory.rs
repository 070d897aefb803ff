//! Which pages the kernel backs this process's memory with.

use std::io;
use std::time::{Duration, Instant};

/// How much is touched to measure what it costs.
const TOUCHED_BYTES: usize = 16 * HUGE_PAGE_BYTES;
const HUGE_PAGE_BYTES: usize = 2 << 20;
const PAGE_BYTES: usize = 4096;

/// Lets the kernel back memory of this process that is touched from now on with huge pages, or keeps it from
/// doing so: the allocator asks for them by itself.
///
/// # Errors
/// What the kernel says.
pub fn allow_huge_pages(allowed: bool) -> io::Result<()> {
    let disabled = libc::c_ulong::from(!allowed);
    let zero: libc::c_ulong = 0;
    // SAFETY: it changes a flag of this process and touches no memory.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disabled, zero, zero, zero) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What 2 MiB of memory cost when they are touched for the first time.
#[derive(Debug, Clone, Copy)]
pub struct FirstTouch {
    /// Of small pages.
    pub small: Duration,
    /// As one huge page; as small ones where the kernel has none.
    pub huge: Duration,
}

/// Measures it. Other threads' memory is of small or huge pages meanwhile as it comes.
///
/// # Errors
/// When there is no memory, or the kernel does not do as it is told.
pub fn first_touch() -> io::Result<FirstTouch> {
    let (small, huge) = (touch(libc::MADV_NOHUGEPAGE)?, touch(libc::MADV_HUGEPAGE)?);
    Ok(FirstTouch { small, huge })
}

fn touch(advice: libc::c_int) -> io::Result<Duration> {
    let length = TOUCHED_BYTES + HUGE_PAGE_BYTES;
    // SAFETY: a new mapping wherever there is room for it; nothing else knows of it.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let skipped = mapped.cast::<u8>().align_offset(HUGE_PAGE_BYTES);
    // SAFETY: less than a huge page is skipped, and the mapping is longer by one than what is touched.
    let start = unsafe { mapped.cast::<u8>().add(skipped) };
    // A kernel without huge pages refuses the advice; then all pages are small.
    // SAFETY: the range lies in the mapping.
    unsafe { libc::madvise(start.cast(), TOUCHED_BYTES, advice) };
    let begin = Instant::now();
    for offset in (0..TOUCHED_BYTES).step_by(PAGE_BYTES) {
        // SAFETY: it lies in the mapping; volatile, so that it is not left out.
        unsafe { start.add(offset).write_volatile(1) };
    }
    let taken = begin.elapsed();
    // SAFETY: the mapping made above, which nothing refers to any more.
    unsafe { libc::munmap(mapped, length) };
    Ok(taken / (TOUCHED_BYTES / HUGE_PAGE_BYTES) as u32)
}

/// Raises the soft limit of the memory that this process may lock as far as the hard one allows: rings and
/// registered buffers take some.
pub fn raise_locked() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the struct it is given, and then reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            // Who needs more than there is says so.
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_kept_from_huge_pages_and_allowed_them_again() {
        let is_disabled = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("THP_enabled:"));
            line.map(|line| line.ends_with('0'))
        };
        allow_huge_pages(false).unwrap();
        assert_ne!(is_disabled(), Some(false));
        assert!(first_touch().unwrap().small > Duration::ZERO);
        allow_huge_pages(true).unwrap();
        assert_ne!(is_disabled(), Some(true));
    }
}
