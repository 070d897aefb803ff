use std::cell::RefCell;
use std::sync::Arc;

use super::Metrics;
use crate::smr::types::{Epoch, NodeId, View};

thread_local! {
    static CURRENT: RefCell<Option<LogContext>> = const { RefCell::new(None) };
}

/// The replica that a thread works for, and where it stands: what each line of logs says beside its message.
///
/// Threads that a replica starts have it. Nothing is done for lines that are not written: whoever writes one
/// asks for [`current`](Self::current), and reads what the shards publish in any case.
#[derive(Debug, Clone)]
pub struct LogContext(Arc<Metrics>);

impl LogContext {
    /// Of the replica that counts here.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self(metrics)
    }

    /// The calling thread's; `None` if it works for no replica.
    #[must_use]
    pub fn current() -> Option<Self> {
        // A thread that ends may have lost it already.
        CURRENT
            .try_with(|current| current.borrow().clone())
            .ok()
            .flatten()
    }

    /// From now on the calling thread works for this replica.
    pub fn enter(self) {
        CURRENT.with(|current| current.replace(Some(self)));
    }

    /// The replica.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Its view, as it was published last.
    #[must_use]
    pub fn view(&self) -> View {
        self.0.view()
    }

    /// The epoch of its membership.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch()
    }
}

/// Work for another thread, which works for the same replica as the calling one.
pub(crate) fn for_same_replica<T>(work: impl FnOnce() -> T + Send) -> impl FnOnce() -> T + Send {
    let context = LogContext::current();
    move || {
        if let Some(context) = context {
            context.enter();
        }
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_work_for_the_replica_of_the_thread_that_made_them() {
        let metrics = Arc::new(Metrics::new(NodeId::new(5)));
        metrics.publish_epoch(Epoch::new(2));
        let node_of_child = || {
            let work = for_same_replica(|| LogContext::current().map(|context| context.node()));
            std::thread::spawn(work).join().unwrap()
        };
        let parent = std::thread::spawn(move || {
            let before = node_of_child();
            LogContext::new(metrics).enter();
            let context = LogContext::current().unwrap();
            (before, node_of_child(), context.view(), context.epoch())
        });
        let (before, child, view, epoch) = parent.join().unwrap();
        assert_eq!((before, child), (None, Some(NodeId::new(5))));
        assert_eq!((view, epoch), (View::ZERO, Epoch::new(2)));
    }
}
