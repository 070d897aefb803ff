//! What signals do to a command that makes directories for itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{CommandError, output};
use crate::runtime::shard::signals::{on_hangup, on_second_interrupt, on_termination};
use crate::tools::load::{INTERRUPTED, is_interrupted};
use crate::tools::scratch;

/// Set by the second interrupt.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// How long the second one may go unnoticed.
const LOOK: Duration = Duration::from_millis(20);

/// What a process ends with that was interrupted twice.
pub(super) const INTERRUPTED_TWICE: u8 = 130;

/// From now on a first signal asks the command to end, and a second SIGINT ends it wherever it is, with its
/// directories. A terminal that is closed asks as well.
pub(super) fn heed() {
    let watch = || {
        while !AGAIN.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
        }
        for (path, error) in scratch::remove_all() {
            eprintln!(
                "atlas: interrupted; {} is left, remove it: {error}",
                path.display()
            );
        }
        output::flush_messages();
        std::process::exit(INTERRUPTED_TWICE.into());
    };
    let thread = std::thread::Builder::new().name("interrupts".to_owned());
    if thread.spawn(watch).is_ok() {
        on_second_interrupt(&AGAIN);
    }
    on_hangup(&INTERRUPTED);
    on_termination(&INTERRUPTED);
}

/// An error once the command was asked to end.
pub(super) fn expect_none(what_is_lost: &str) -> Result<(), CommandError> {
    match is_interrupted() {
        true => Err(format!("interrupted: {what_is_lost}").into()),
        false => Ok(()),
    }
}
