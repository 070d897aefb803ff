//! SIGINT, SIGTERM, SIGHUP and SIGUSR1 set a flag; nothing else happens in the handlers, but that a second SIGINT ends
//! the process at once, or the third where somebody tidies up after the second.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

static FLAG: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());
static AGAIN: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());
static HANGUP: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());
static USER: AtomicPtr<AtomicBool> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_signal(signal: libc::c_int) {
    let flag = FLAG.load(Ordering::Acquire);
    if !flag.is_null() {
        // SAFETY: the pointer came from a `&'static AtomicBool`; a relaxed-or-stronger swap is
        // async-signal-safe.
        let again = unsafe { (*flag).swap(true, Ordering::AcqRel) };
        if again && signal == libc::SIGINT && !is_tidied_up() {
            // SAFETY: it is async-signal-safe, and does not return.
            unsafe { libc::_exit(128 + libc::SIGINT) };
        }
    }
}

/// Tells whoever tidies up before the process ends; false if there is nobody, or who was told already.
fn is_tidied_up() -> bool {
    let again = AGAIN.load(Ordering::Acquire);
    // SAFETY: the pointer came from a `&'static AtomicBool`, and a swap is async-signal-safe.
    !again.is_null() && unsafe { !(*again).swap(true, Ordering::AcqRel) }
}

extern "C" fn on_hangup_signal(_: libc::c_int) {
    set(&HANGUP);
}

extern "C" fn on_user_signal(_: libc::c_int) {
    set(&USER);
}

fn set(flag: &AtomicPtr<AtomicBool>) {
    let flag = flag.load(Ordering::Acquire);
    if !flag.is_null() {
        // SAFETY: the pointer came from a `&'static AtomicBool`; a store is async-signal-safe.
        unsafe { (*flag).store(true, Ordering::Release) };
    }
}

/// From now on SIGINT and SIGTERM set `flag` instead of ending the process; SIGINT after either ends it as it
/// did.
pub fn on_termination(flag: &'static AtomicBool) {
    FLAG.store(std::ptr::from_ref(flag).cast_mut(), Ordering::Release);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler is async-signal-safe: it loads a pointer and stores a flag.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
}

/// From now on a second SIGINT sets `flag`, for a thread that looks at it, tidies up and ends the process; a
/// third one ends it at once.
pub fn on_second_interrupt(flag: &'static AtomicBool) {
    AGAIN.store(std::ptr::from_ref(flag).cast_mut(), Ordering::Release);
}

/// From now on SIGHUP sets `flag` instead of ending the process; one that was ignored when the process began
/// (nohup) stays so.
pub fn on_hangup(flag: &'static AtomicBool) {
    HANGUP.store(std::ptr::from_ref(flag).cast_mut(), Ordering::Release);
    // SAFETY: the handler is async-signal-safe: it loads a pointer and stores a flag.
    unsafe {
        let before = libc::signal(libc::SIGHUP, on_hangup_signal as *const () as libc::sighandler_t);
        if before == libc::SIG_IGN {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
        }
    }
}

/// From now on SIGUSR1 sets `flag` instead of ending the process.
pub fn on_user(flag: &'static AtomicBool) {
    USER.store(std::ptr::from_ref(flag).cast_mut(), Ordering::Release);
    // SAFETY: the handler is async-signal-safe: it loads a pointer and stores a flag.
    unsafe { libc::signal(libc::SIGUSR1, on_user_signal as *const () as libc::sighandler_t) };
}
