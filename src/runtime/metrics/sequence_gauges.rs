use crate::smr::ordering::OrderingProtocol;
use crate::smr::replica::{Replica, Stack};
use crate::smr::types::{SeqNo, View};

/// How far a replica is, in numbers that change all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceGauges {
    /// Its view.
    pub view: View,
    /// The last decision it ordered.
    pub ordered: SeqNo,
    /// The last decision up to which all that it promised is on disk.
    pub durable: SeqNo,
    /// The last decision it executed.
    pub executed: SeqNo,
    /// Its last stable checkpoint.
    pub stable: SeqNo,
}

impl SequenceGauges {
    /// Of a replica.
    #[must_use]
    pub fn of<S: Stack>(replica: &Replica<S>) -> Self {
        let ordering = replica.ordering();
        Self {
            view: replica.view(),
            ordered: ordering.decided(),
            durable: replica.released(),
            executed: replica.executed(),
            stable: ordering.stable(),
        }
    }
}
