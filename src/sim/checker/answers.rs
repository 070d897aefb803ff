use super::{Broken, Rule};
use crate::smr::messages::archived::{
    ArchivedLogTransferMessage, ArchivedStateTransferMessage, ArchivedSyncMessage, ArchivedSystemMessage,
};
use crate::smr::messages::{Checked, SystemMessage};
use crate::smr::replica::TransferLimits;
use crate::smr::types::{NodeId, Time};

/// A status is answered at most once in so many milliseconds; clocks are not quite right.
const STATUS_PAUSE_MS: u64 = 99;
/// Restarts and jumps of the clock begin a pause anew; so often at most.
const AGAIN: u64 = 64;
/// What a peer is sent of a state at once.
const PIECES_BYTES: u64 = 1 << 20;
/// Jumps of a clock fill an allowance as a restart does; so many are planned at most.
const JUMPS: u64 = 3;

/// What one peer was sent because it asked.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    bytes: u64,
    /// Of these, at the moment of the last.
    at_once: u64,
    at: Option<Time>,
    /// The most at one moment.
    most_at_once: u64,
}

/// How often one correct replica answered each peer, and with how many bytes.
///
/// Whatever a peer asks, it is sent no more than its allowance: a rate, what it may have at once, and that
/// again for each restart; one answer may go beyond, whose length shows when it is made.
pub(super) struct Answers {
    limits: TransferLimits,
    /// By peer: answers to its status, and to its questions for pieces of a state.
    given: Vec<[u64; 2]>,
    sent: Vec<Sent>,
    restarts: u64,
}

impl Answers {
    pub(super) fn new(n: usize, limits: TransferLimits) -> Self {
        Self {
            limits,
            given: vec![[0; 2]; n],
            sent: vec![Sent::default(); n],
            restarts: 0,
        }
    }

    /// The replica starts again, and remembers nothing of what it gave.
    pub(super) fn restarted(&mut self) {
        self.restarts += 1;
    }

    /// This replica sends a message to one peer: however much that one asks, it is answered within limits.
    pub(super) fn gives(
        &mut self,
        now: Time,
        to: NodeId,
        message: &Checked<SystemMessage>,
    ) -> Result<(), Broken> {
        self.counts(now, to, message)?;
        match is_answer(message) {
            true => self.weighs(now, to, message.bytes().len() as u64),
            false => Ok(()),
        }
    }

    /// So many bytes more for a peer that asked.
    fn weighs(&mut self, now: Time, to: NodeId, bytes: u64) -> Result<(), Broken> {
        let sent = &mut self.sent[to.index()];
        if sent.at != Some(now) {
            (sent.at, sent.at_once) = (Some(now), 0);
        }
        sent.bytes += bytes;
        sent.at_once += bytes;
        sent.most_at_once = sent.most_at_once.max(sent.at_once);
        let TransferLimits {
            donor_bytes_per_second: rate,
            donor_burst_bytes: burst,
            ..
        } = self.limits;
        let since_ms = now.since(Time::START).as_millis() + 1;
        // Clocks are a thousandth too fast at most.
        let earned = u128::from(rate) * since_ms * 1001 / 1_000_000;
        let at_once = (burst + sent.most_at_once) * (1 + JUMPS + self.restarts);
        match u128::from(sent.bytes) <= earned + u128::from(at_once) {
            true => Ok(()),
            false => Err((
                Rule::Memory,
                format!(
                    "{to:?} is sent {} bytes in {since_ms} ms because it asks",
                    sent.bytes
                ),
            )),
        }
    }

    /// Statuses and questions for pieces are answered so often at most.
    fn counts(&mut self, now: Time, to: NodeId, message: &ArchivedSystemMessage) -> Result<(), Broken> {
        let since_ms = now.since(Time::START).as_millis() as u64;
        let (kind, what, most) = match message {
            ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::Decisions(_)) => {
                (0, "statuses", since_ms / STATUS_PAUSE_MS)
            }
            ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Chunk(chunk))
                if chunk.last =>
            {
                let TransferLimits {
                    donor_bytes_per_second: rate,
                    donor_burst_bytes: burst,
                    ..
                } = self.limits;
                let cost = burst.min(PIECES_BYTES);
                let earned = u128::from(rate) * u128::from(since_ms) / 1000 + u128::from(burst);
                (1, "questions for pieces", (earned / u128::from(cost)) as u64)
            }
            _ => return Ok(()),
        };
        let given = &mut self.given[to.index()][kind];
        *given += 1;
        match *given <= most + AGAIN {
            true => Ok(()),
            false => Err((
                Rule::Memory,
                format!("{given} {what} of {to:?} are answered in {since_ms} ms"),
            )),
        }
    }
}

/// Whether one peer alone is sent this because it asked, or said what it lacks. View changes and new views
/// are not: they are told again beside that.
fn is_answer(message: &ArchivedSystemMessage) -> bool {
    match message {
        ArchivedSystemMessage::ForwardedRequestMessage(_) => false,
        ArchivedSystemMessage::ProposalMessage(_) | ArchivedSystemMessage::ProtocolMessage(_) => true,
        ArchivedSystemMessage::ViewTransferMessage(_) => false,
        ArchivedSystemMessage::SyncMessage(message) => !matches!(
            message,
            ArchivedSyncMessage::Status(_) | ArchivedSyncMessage::FetchBatches(_)
        ),
        ArchivedSystemMessage::LogTransferMessage(message) => {
            matches!(message, ArchivedLogTransferMessage::Decided { .. })
        }
        ArchivedSystemMessage::StateTransferMessage(message) => matches!(
            message,
            ArchivedStateTransferMessage::Offer(_) | ArchivedStateTransferMessage::Chunk(_)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::keys::CLUSTER;
    use crate::smr::messages::{BatchRef, SyncMessage};
    use crate::smr::types::Epoch;

    const PEER: NodeId = NodeId::new(1);

    fn answers() -> Answers {
        let limits = TransferLimits {
            donor_bytes_per_second: 10_000,
            donor_burst_bytes: 1000,
            ..TransferLimits::default()
        };
        Answers::new(4, limits)
    }

    /// So many decisions, in one message.
    fn decisions(count: u64) -> Checked<SystemMessage> {
        let digest = [0; 32];
        let refs = (0..count).map(|seq| BatchRef { seq, digest }).collect();
        let message = SyncMessage::Decisions(refs).encode(CLUSTER, Epoch::ZERO);
        Checked::body_of(&message).expect("it was made here")
    }

    /// How often in a second, each millisecond, a peer may be sent this before a rule is broken.
    fn before_broken(answers: &mut Answers, message: &Checked<SystemMessage>) -> Option<u64> {
        let length = message.bytes().len() as u64;
        (0..1000).find(|ms| {
            let now = Time::from_nanos(ms * 1_000_000);
            answers.weighs(now, PEER, length).is_err()
        })
    }

    #[test]
    fn a_peer_is_sent_what_it_may_have_at_once_and_a_rate() {
        let message = decisions(4);
        let length = message.bytes().len() as u64;
        assert!(
            length > 100,
            "much more than comes back in a millisecond: {length}"
        );
        let broken = before_broken(&mut answers(), &message).expect("ten times the rate");
        let at_once = 4 * (1000 + length);
        let expected = at_once / (length - 10);
        assert!(broken.abs_diff(expected) <= 2, "{broken}, about {expected}");
        let mut restarted = answers();
        restarted.restarted();
        assert!(before_broken(&mut restarted, &message) > Some(broken));
    }

    #[test]
    fn what_nobody_asked_for_is_not_counted() {
        let passed_on = SystemMessage::forwarded_requests(CLUSTER, Epoch::ZERO, []);
        let passed_on = Checked::<SystemMessage>::body_of(&passed_on).expect("it was made here");
        assert!(!is_answer(&passed_on));
        assert!(is_answer(&decisions(1)));
    }
}
