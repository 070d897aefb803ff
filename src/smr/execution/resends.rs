//! How many cached replies a client is sent again.
//!
//! A frame of some hundred bytes has a reply of megabytes sent once more. Only its client can ask for that,
//! by its own link ([`Replica::on_frame`](crate::smr::replica::Replica::on_frame)); and what it gets is
//! bounded, or one client took most of a replica's bandwidth.

use super::client_table::CLIENT_REPLY_BYTES_MAX;
use super::{ExecutionEvent, Executor};
use crate::smr::messages::FrameId;
use crate::smr::protocol::{Allowance, Rate};
use crate::smr::types::{ClientId, Time};

/// Everything that is remembered of a client, twice at once and once a second: it asks for what it lacks
/// after a timeout, and for no more than there is.
const RATE: Rate = Rate {
    burst: 2 * CLIENT_REPLY_BYTES_MAX as u64,
    per_second: CLIENT_REPLY_BYTES_MAX as u64,
};

/// Bytes of replies that may be sent again, by client.
#[derive(Debug)]
pub struct Resends {
    left: Vec<Allowance>,
}

impl Resends {
    /// For clients `0..clients`.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        Self {
            left: vec![Allowance::full(RATE); clients],
        }
    }

    /// Has a cached reply sent once more, if its client may have so many, or the reason why there is none;
    /// whether it may.
    pub fn reply_again(
        &mut self,
        now: Time,
        frame: &FrameId,
        executor: &mut impl Executor,
        events: &mut Vec<ExecutionEvent>,
    ) -> bool {
        let first = events.len();
        executor.reply_again(frame, events);
        let bytes = events[first..].iter().map(|event| match event {
            ExecutionEvent::Reply { body, .. } => body.len(),
            _ => 0,
        });
        let may = self.may_send(now, frame.key.client, bytes.sum());
        if !may {
            events.truncate(first);
        }
        may
    }

    /// Whether a reply of so many bytes is sent again now; it is counted if so.
    fn may_send(&mut self, now: Time, client: ClientId, bytes: usize) -> bool {
        let Some(left) = self.left.get_mut(client.get() as usize) else {
            return false;
        };
        // A reply may be longer than all that is remembered.
        let may = left.left(now) > 0;
        if may {
            left.charge(bytes as u64);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_asks_without_end_is_sent_so_much_and_no_other_pays() {
        let mut resends = Resends::new(2);
        let reply = 3 << 20;
        let sent = (0..10_000u64).filter(|step| {
            let now = Time::from_nanos(step * 1_000_000);
            resends.may_send(now, ClientId::new(0), reply)
        });
        let bytes = sent.count() * reply;
        let whole = 12 * CLIENT_REPLY_BYTES_MAX;
        assert!((whole - reply..=whole + reply).contains(&bytes), "{bytes}");
        assert!(
            resends.may_send(Time::START, ClientId::new(1), 64 << 20),
            "however long"
        );
        assert!(!resends.may_send(Time::START, ClientId::new(1), 1));
        assert!(!resends.may_send(Time::START, ClientId::new(2), 1), "a stranger");
    }
}
