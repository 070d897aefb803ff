//! Threads for an executor's helpers: they work while there is work, and sleep at their doorbells otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::{Alarm, ShardError};
use crate::runtime::ring::Doorbell;
use crate::smr::execution::speculative::Helper;

/// The threads of an executor's helpers. They end when this is dropped.
#[derive(Debug)]
pub struct HelperThreads {
    doorbells: Vec<Doorbell>,
    threads: Vec<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
}

impl HelperThreads {
    /// Gives each helper a thread, named `name` and its number, pinned to its core if it has one. `owner`
    /// wakes the thread of the executor when there is something to answer; `alarm` is told of one that
    /// panics.
    ///
    /// # Errors
    /// When a thread or a doorbell cannot be made.
    pub fn start(
        name: &str,
        helpers: Vec<(Box<dyn Helper>, Option<usize>)>,
        owner: &Doorbell,
        alarm: &Alarm,
    ) -> Result<Self, ShardError> {
        let mut crew = Self {
            doorbells: Vec::new(),
            threads: Vec::new(),
            ends: Arc::default(),
        };
        for (number, (helper, core)) in helpers.into_iter().enumerate() {
            let name = format!("{name}{number}");
            let failed = |source| ShardError::Thread {
                shard: name.clone(),
                source,
            };
            let doorbell = Doorbell::new().map_err(failed)?;
            let (own, owner, ends) = (doorbell.clone(), owner.clone(), crew.ends.clone());
            let thread = alarm.spawn(name.clone(), move || {
                if let Some(core) = core {
                    // Unpinned it works as well, only less evenly.
                    let _ = core_affinity::set_for_current(core_affinity::CoreId { id: core });
                }
                run(helper, &own, &owner, &ends);
            });
            crew.threads.push(thread.map_err(failed)?);
            crew.doorbells.push(doorbell);
        }
        Ok(crew)
    }

    /// Wakes those that sleep.
    pub fn ring(&self) {
        self.doorbells.iter().for_each(Doorbell::ring_if_parked);
    }
}

impl Drop for HelperThreads {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.doorbells.iter().for_each(Doorbell::ring);
        for thread in self.threads.drain(..) {
            // A helper that panicked was reported by its panic.
            let _ = thread.join();
        }
    }
}

fn run(mut helper: Box<dyn Helper>, own: &Doorbell, owner: &Doorbell, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) {
        let worked = helper.work();
        if helper.take_committed() {
            owner.ring_if_parked();
        }
        if worked {
            continue;
        }
        own.prepare_park();
        if !helper.has_work() && !ends.load(Ordering::Acquire) && own.wait(None).is_err() {
            // Out of memory for a wait: without this helper the others do its work.
            return;
        }
        own.unpark();
        own.clear();
    }
}
