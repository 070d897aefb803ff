//! How many files and sockets this process may have open.

use std::io;

/// What a replica keeps open beside its connections and its log: rings, doorbells, snapshots, its own
/// threads' files, and a reserve, so that a checkpoint and a new segment never wait for a stranger to hang
/// up.
pub const RESERVE: u64 = 96;

/// There are fewer than are needed, and no more to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{needed} open files and sockets may be needed, and this process may have {limit}")]
pub struct TooFew {
    /// How many may be needed.
    pub needed: u64,
    /// How many there may be: the hard limit.
    pub limit: u64,
}

/// Lets this process have `needed` descriptors at least, by raising its soft limit if that is lower.
///
/// # Errors
/// When its hard limit is lower as well.
pub fn provide(needed: u64) -> Result<(), TooFew> {
    let Some(mut limit) = limits() else { return Ok(()) };
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    let too_few = TooFew {
        needed,
        limit: limit.rlim_max,
    };
    if limit.rlim_max < needed {
        return Err(too_few);
    }
    limit.rlim_cur = needed;
    set(&limit).map_err(|_| too_few)
}

/// Raises the soft limit as far as the hard one allows; where it was before matters only to programs that use
/// `select`.
pub fn raise() {
    if let Some(mut limit) = limits()
        && limit.rlim_cur < limit.rlim_max
    {
        limit.rlim_cur = limit.rlim_max;
        // Whoever needs more than there is says so.
        let _ = set(&limit);
    }
}

fn limits() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the struct it is given.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (result == 0).then_some(limit)
}

fn set(limit: &libc::rlimit) -> io::Result<()> {
    // SAFETY: the kernel reads the struct it is given.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hard_limit_covers_is_provided_and_more_is_refused_with_both_numbers() {
        let limit = limits().unwrap();
        provide(limit.rlim_cur.min(64)).unwrap();
        if limit.rlim_max < u64::MAX {
            let needed = limit.rlim_max + 1;
            let error = provide(needed).unwrap_err();
            assert_eq!(
                error,
                TooFew {
                    needed,
                    limit: limit.rlim_max
                }
            );
        }
        provide(limit.rlim_max.min(limit.rlim_cur.saturating_add(1))).unwrap();
        assert!(limits().unwrap().rlim_cur >= limit.rlim_cur);
    }
}
