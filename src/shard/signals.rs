//! SIGINT and SIGTERM set a flag; nothing else happens in the handler, but that a second SIGINT ends the process at once.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

static FLAG: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_signal(signal: libc::c_int) {
    let flag = FLAG.load(Ordering::Acquire);
    if !flag.is_null() {
        // SAFETY: the pointer came from a `&'static AtomicBool`; a relaxed-or-stronger swap is async-signal-safe.
        let again = unsafe { (*flag).swap(true, Ordering::AcqRel) };
        if again && signal == libc::SIGINT {
            // SAFETY: it is async-signal-safe, and does not return.
            unsafe { libc::_exit(128 + libc::SIGINT) };
        }
    }
}

/// From now on SIGINT and SIGTERM set `flag` instead of ending the process; SIGINT after either ends it as it did.
pub fn on_termination(flag: &'static AtomicBool) {
    FLAG.store(std::ptr::from_ref(flag).cast_mut(), Ordering::Release);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler is async-signal-safe: it loads a pointer and stores a flag.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
}
