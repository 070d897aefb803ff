//! Large buffers, used again: fresh memory costs a page fault every 4 KiB, which is dearer than decrypting
//! into it.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;

/// Smaller buffers are the allocator's: it keeps those at hand anyway.
const POOLED_BYTES_MIN: usize = 32 * 1024;
/// The buffers of larger records are not kept.
const POOLED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Buffers grow in steps of this.
const GROWTH_BYTES: usize = 64 * 1024;

/// Buffers that come back when the last slice of them is dropped, on whatever thread. Clones share them.
#[derive(Debug, Clone)]
pub struct BufferPool {
    free: Arc<ArrayQueue<Vec<u8>>>,
}

impl BufferPool {
    /// A pool that keeps at most `buffers` free buffers, of up to two MiB each.
    #[must_use]
    pub fn new(buffers: usize) -> Self {
        Self {
            free: Arc::new(ArrayQueue::new(buffers.max(1))),
        }
    }

    /// A buffer of this length, its contents whatever they were; filled by `fill`, frozen if that succeeds.
    pub(crate) fn filled<E>(
        &self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if !(POOLED_BYTES_MIN..=POOLED_BYTES_MAX).contains(&length) {
            let mut bytes = vec![0; length];
            fill(&mut bytes)?;
            return Ok(Bytes::from(bytes));
        }
        let mut bytes = self.free.pop().unwrap_or_default();
        // Kept buffers stay as long as they ever were, so that nothing is zeroed twice.
        if bytes.len() < length {
            bytes.resize(length.next_multiple_of(GROWTH_BYTES), 0);
        }
        let mut buffer = Pooled {
            bytes,
            length,
            free: self.free.clone(),
        };
        fill(&mut buffer.bytes[..length])?;
        Ok(Bytes::from_owner(buffer))
    }
}

struct Pooled {
    bytes: Vec<u8>,
    length: usize,
    free: Arc<ArrayQueue<Vec<u8>>>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // A full pool lets it go.
        let _ = self.free.push(std::mem::take(&mut self.bytes));
    }
}
