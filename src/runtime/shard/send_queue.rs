use std::collections::VecDeque;

use bytes::Bytes;

use crate::runtime::net::framing::RecordWriter;
use crate::smr::crypto::SealError;
use crate::smr::messages::Envelope;

/// Messages that wait to be sent on one link, in two lines: what a peer needs to catch up
/// ([bulk](Envelope::is_bulk)) never stands before what replicas need to agree, or clients wait for.
///
/// Each send takes what is urgent first, as far as it goes, and one record of the other at least: a transfer is
/// slowed down, and not starved.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    urgent: VecDeque<Bytes>,
    bulk: VecDeque<Bytes>,
    bytes: usize,
}

impl SendQueue {
    /// Bytes of messages that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.bulk.is_empty()
    }

    /// A message is to be sent.
    pub fn push(&mut self, message: Bytes) {
        self.bytes += message.len();
        match Envelope::is_bulk(&message) {
            true => self.bulk.push_back(message),
            false => self.urgent.push_back(message),
        }
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
        self.bytes -= writer.seal(&mut self.urgent, out, out_bytes_max)?;
        self.bytes -= writer.seal(&mut self.bulk, out, out_bytes_max.max(out.len() + 1))?;
        Ok(())
    }

    /// Forgets everything; how many bytes that were.
    pub fn clear(&mut self) -> usize {
        self.urgent.clear();
        self.bulk.clear();
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::crypto::Sealer;
    use crate::smr::messages::{ChunkOf, StateTransferMessage, SystemMessage};
    use crate::smr::types::{ClusterId, Epoch};

    #[test]
    fn what_replicas_agree_by_leaves_before_what_a_peer_catches_up_with_and_does_not_starve_it() {
        let cluster = ClusterId::from_bytes([1; 16]);
        let chunk = StateTransferMessage::Chunk(ChunkOf {
            seq: 1,
            last: false,
            bytes: vec![7; 100 << 10],
        });
        let chunk = chunk.encode(cluster, Epoch::ZERO);
        let votes = SystemMessage::protocol(cluster, Epoch::ZERO, [&[1; 40][..]]);
        let mut queue = SendQueue::default();
        for _ in 0..4 {
            queue.push(chunk.clone());
        }
        for _ in 0..2 {
            queue.push(votes.clone());
        }
        assert_eq!(queue.bytes(), 4 * chunk.len() + 2 * votes.len());
        let mut writer = RecordWriter::new(Sealer::new(&[4; 32]));
        let mut out = Vec::new();
        queue.seal(&mut writer, &mut out, 1).unwrap();
        assert_eq!(
            queue.bytes(),
            3 * chunk.len(),
            "all that is urgent, and one chunk"
        );
        queue.push(votes.clone());
        out.clear();
        queue.seal(&mut writer, &mut out, 1).unwrap();
        assert_eq!(queue.bytes(), 2 * chunk.len());
        assert_eq!(queue.clear(), 2 * chunk.len());
        assert!(queue.is_empty() && queue.bytes() == 0);
    }
}
