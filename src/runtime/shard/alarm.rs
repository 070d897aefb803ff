//! Threads whose death is heard: one that panics ends its replica with an error, whatever the others wait
//! for.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::ShardError;
use crate::runtime::metrics::for_same_replica;
use crate::smr::execution::StateFault;

/// Told when a thread of a replica dies of a panic. Clones are equal; the default tells nobody.
#[derive(Clone, Default)]
pub struct Alarm(Option<Arc<dyn Fn(ShardError) + Send + Sync>>);

impl Alarm {
    /// Calls `told` on the dying thread, at most once for each thread. It must not block.
    pub fn new(told: impl Fn(ShardError) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }

    /// Starts a thread that is watched, and works for the calling one's replica. Its panic is told here, and
    /// then goes on, for whoever joins the thread.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn spawn(&self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let alarm = self.clone();
        let work = for_same_replica(work);
        Builder::new().name(name.clone()).spawn(move || {
            // What the work had in its hands is dropped, not used again.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                if let Some(told) = &alarm.0 {
                    told(panicked(name, &*panic));
                }
                std::panic::resume_unwind(panic);
            }
        })
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}

/// The error of a thread that panicked with this.
pub(crate) fn panicked(thread: String, panic: &(dyn Any + Send)) -> ShardError {
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .or_else(|| panic.downcast_ref::<StateFault>().map(ToString::to_string))
        .unwrap_or_default();
    ShardError::Panicked {
        shard: thread,
        message,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_thread_that_dies_of_a_panic_is_named_with_what_it_said_and_one_that_ends_is_not() {
        let (tell, told) = channel();
        let alarm = Alarm::new(move |error| {
            let _ = tell.send(error.to_string());
        });
        let ends = alarm.spawn("ends".to_owned(), || {}).unwrap();
        assert!(ends.join().is_ok());
        let dies = alarm.spawn("storage-7".to_owned(), || panic!("of a {}", "bug"));
        assert!(dies.unwrap().join().is_err());
        drop(alarm);
        assert_eq!(
            told.iter().collect::<Vec<_>>(),
            ["thread storage-7 panicked: of a bug"]
        );
    }
}
