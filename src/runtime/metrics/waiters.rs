//! Those who wait for what the metrics show.

use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Tasks of any runtime that wait for a change.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Vec<Waker>>);

impl Waiters {
    /// Waits until `holds` does: asked at once, and after every [`wake`](Self::wake).
    pub async fn until(&self, holds: impl Fn() -> bool) {
        poll_fn(|context| {
            // Before it is asked: a change in between wakes.
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            drop(waiting);
            if holds() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Something changed.
    pub fn wake(&self) {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn who_waits_is_woken_by_a_change_and_goes_on_when_it_holds() {
        let (waiters, holds) = (Waiters::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                futures_lite::future::block_on(waiters.until(|| holds.load(Ordering::Acquire)));
            });
            // Woken for nothing it waits on.
            waiters.wake();
            holds.store(true, Ordering::Release);
            while !waits.is_finished() {
                waiters.wake();
                std::thread::yield_now();
            }
        });
    }
}
