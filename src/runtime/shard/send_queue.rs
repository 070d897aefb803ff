use std::collections::VecDeque;

use bytes::Bytes;

use crate::runtime::net::framing::RecordWriter;
use crate::smr::crypto::SealError;
use crate::smr::messages::Family;

/// How many bytes of messages of each family may wait to be sent on one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBudgets {
    /// Of who is linked. Beyond it the link is closed: its peer takes nothing.
    pub reconfiguration: usize,
    /// Of what replicas agree by. Beyond it the link is closed: none of it is ever dropped.
    pub protocol: usize,
    /// Of what clients asked and are answered. Beyond it, and one message, it is dropped.
    pub application: usize,
    /// Of what a peer catches up with. Beyond it, and one message, it is dropped.
    pub state_transfer: usize,
}

impl QueueBudgets {
    /// The budget of a family.
    #[must_use]
    pub const fn of(&self, family: Family) -> usize {
        match family {
            Family::Reconfiguration => self.reconfiguration,
            Family::Protocol => self.protocol,
            Family::Application => self.application,
            Family::StateTransfer => self.state_transfer,
        }
    }
}

/// Messages that wait to be sent on one link, in a line for each [family](Family).
///
/// Each send takes what lies in the lines of reconfiguration and protocol first, as far as it goes; then of
/// what clients wait for; then of what a peer catches up with: of these two one record at least, so that they
/// are slowed down, and not starved. So a vote waits for the send under way, for what was said before it in
/// its own line, and for nothing else.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    lines: [Line; Family::ALL.len()],
}

/// A message has no room in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    /// Whoever lacks it asks again.
    Dropped,
    /// Nobody asks again: the link is of no use any more.
    Lost,
}

#[derive(Debug, Default)]
struct Line {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl SendQueue {
    /// Bytes of messages that wait.
    pub fn bytes(&self) -> usize {
        self.lines.iter().map(|line| line.bytes).sum()
    }

    /// Bytes of messages of one family that wait.
    pub fn bytes_of(&self, family: Family) -> usize {
        self.lines[family as usize].bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.messages.is_empty())
    }

    /// A message is to be sent, if the budget of its family allows it.
    ///
    /// # Errors
    /// When it does not; what that means for the link.
    pub fn push(&mut self, family: Family, message: Bytes, budgets: &QueueBudgets) -> Result<(), Overflow> {
        let line = &mut self.lines[family as usize];
        let bytes = line.bytes + message.len();
        if bytes > budgets.of(family) {
            match family.is_asked_for_again() {
                false => return Err(Overflow::Lost),
                true if line.bytes > 0 => return Err(Overflow::Dropped),
                // One message of any length always finds room.
                true => {}
            }
        }
        line.bytes = bytes;
        line.messages.push_back(message);
        Ok(())
    }

    /// Seals what goes with the next send into `out`, about `out_bytes_max` bytes.
    ///
    /// # Errors
    /// When the link may seal no more.
    pub fn seal(
        &mut self,
        writer: &mut RecordWriter,
        out: &mut Vec<u8>,
        out_bytes_max: usize,
    ) -> Result<(), SealError> {
        for family in Family::ALL {
            let line = &mut self.lines[family as usize];
            let bytes_max = match family.is_asked_for_again() {
                // One record at least.
                true => out_bytes_max.max(out.len() + 1),
                false => out_bytes_max,
            };
            line.bytes -= writer.seal(&mut line.messages, out, bytes_max)?;
        }
        Ok(())
    }

    /// Forgets everything; how many bytes that were.
    pub fn clear(&mut self) -> usize {
        let bytes = self.bytes();
        self.lines = Default::default();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::net::framing::RecordReader;
    use crate::runtime::net::pool::BufferPool;
    use crate::smr::crypto::{Opener, Sealer};

    const AMPLE: QueueBudgets = QueueBudgets {
        reconfiguration: 1 << 30,
        protocol: 1 << 30,
        application: 1 << 30,
        state_transfer: 1 << 30,
    };

    fn message(family: Family, bytes: usize) -> Bytes {
        Bytes::from(vec![family as u8; bytes])
    }

    /// A queue's sends, opened by the other end: the families of what each carries, in order.
    struct Link {
        queue: SendQueue,
        writer: RecordWriter,
        reader: RecordReader,
    }

    impl Link {
        fn new() -> Self {
            Self {
                queue: SendQueue::default(),
                writer: RecordWriter::new(Sealer::new(&[4; 32])),
                reader: RecordReader::new(Opener::new(&[4; 32]), 1 << 20, BufferPool::new(4)),
            }
        }

        fn push(&mut self, count: usize, family: Family, bytes: usize) {
            for _ in 0..count {
                self.queue.push(family, message(family, bytes), &AMPLE).unwrap();
            }
        }

        fn send(&mut self, bytes_max: usize) -> Vec<Family> {
            let mut out = Vec::new();
            self.queue.seal(&mut self.writer, &mut out, bytes_max).unwrap();
            self.reader.push(&out).unwrap();
            let messages = std::iter::from_fn(|| self.reader.next_message().unwrap());
            messages
                .map(|message| Family::ALL[usize::from(message[0])])
                .collect()
        }
    }

    use Family::{Application, Protocol, Reconfiguration, StateTransfer};

    #[test]
    fn votes_leave_before_frames_and_chunks_that_waited_already_and_starve_neither() {
        let mut link = Link::new();
        let (frames, chunks) = (50 << 10, 100 << 10);
        link.push(3, StateTransfer, chunks);
        link.push(3, Application, frames);
        link.push(2, Protocol, 40);
        link.push(1, Reconfiguration, 30);
        assert_eq!(
            link.send(1 << 10),
            [Reconfiguration, Protocol, Protocol, Application, StateTransfer],
            "one record of what can wait"
        );
        assert_eq!(link.queue.bytes_of(Protocol), 0);
        assert_eq!(link.queue.bytes_of(Application), 2 * frames);
        assert_eq!(link.queue.bytes(), 2 * frames + 2 * chunks);
        link.push(1, Protocol, 40);
        assert_eq!(link.send(1 << 10), [Protocol, Application, StateTransfer]);
        assert_eq!(link.send(1 << 20), [Application, StateTransfer]);
        assert!(link.queue.is_empty());
    }

    #[test]
    fn what_replicas_agree_by_fills_a_send_and_leaves_room_for_one_record_of_the_others() {
        let mut link = Link::new();
        link.push(4, Protocol, 70 << 10);
        link.push(2, Application, 70 << 10);
        link.push(2, StateTransfer, 70 << 10);
        let sent = link.send(128 << 10);
        assert_eq!(sent, [Protocol, Protocol, Application, StateTransfer]);
        assert_eq!(link.send(128 << 10), sent);
        assert!(link.queue.is_empty());
    }

    #[test]
    fn a_family_over_its_budget_takes_no_room_of_another() {
        let budgets = QueueBudgets {
            reconfiguration: 100,
            protocol: 200,
            application: 300,
            state_transfer: 400,
        };
        let mut queue = SendQueue::default();
        for (family, overflow) in [
            (StateTransfer, Overflow::Dropped),
            (Application, Overflow::Dropped),
            (Protocol, Overflow::Lost),
            (Reconfiguration, Overflow::Lost),
        ] {
            let (half, full) = (budgets.of(family) / 2, budgets.of(family));
            for _ in 0..2 {
                assert_eq!(queue.push(family, message(family, half), &budgets), Ok(()));
            }
            let more = queue.push(family, message(family, 1), &budgets);
            assert_eq!(more, Err(overflow), "{family:?}");
            assert_eq!(queue.bytes_of(family), full);
        }
        assert_eq!(queue.bytes(), 1000);
    }

    #[test]
    fn what_is_longer_than_its_budget_goes_alone_if_it_may_be_dropped() {
        let budgets = QueueBudgets {
            reconfiguration: 10,
            protocol: 10,
            application: 10,
            state_transfer: 10,
        };
        for family in Family::ALL {
            let mut queue = SendQueue::default();
            let pushed = queue.push(family, message(family, 11), &budgets);
            match family.is_asked_for_again() {
                true => assert_eq!(pushed, Ok(()), "{family:?}"),
                false => assert_eq!(pushed, Err(Overflow::Lost), "{family:?}"),
            }
        }
    }

    #[test]
    fn a_queue_that_is_cleared_counts_nothing() {
        let mut link = Link::new();
        for family in Family::ALL {
            link.push(2, family, 100);
            assert_eq!(link.queue.bytes_of(family), 200);
        }
        assert_eq!(link.queue.clear(), 800);
        assert!(link.queue.is_empty() && link.queue.bytes() == 0);
    }
}
