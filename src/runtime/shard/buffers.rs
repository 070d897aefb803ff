//! The provided-buffer ring of a data shard: memory that the kernel fills as data arrive.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The one buffer group of a shard.
pub(super) const GROUP: u16 = 0;

const PAGE: usize = 4096;

/// Receive buffers, lent to the kernel through a ring that both sides see.
///
/// Invariant: a buffer is either the kernel's (its entry lies between the kernel's head and our tail) or
/// ours (between a completion that names it and [`recycle`](Self::recycle)); never both.
pub(super) struct BufferPool {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    memory: NonNull<u8>,
    memory_layout: Layout,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl BufferPool {
    /// Allocates `count` buffers (a power of two) of `buffer_bytes` and lends all of them to the kernel.
    pub(super) fn register(submitter: &Submitter<'_>, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        assert!(
            count.is_power_of_two(),
            "a provided-buffer ring has a power of two of entries"
        );
        let entries_layout = Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), PAGE)
            .map_err(io::Error::other)?;
        let memory_layout =
            Layout::from_size_align(usize::from(count) * buffer_bytes, PAGE).map_err(io::Error::other)?;
        let mut pool = Self {
            entries: allocate(entries_layout).cast(),
            entries_layout,
            memory: allocate(memory_layout),
            memory_layout,
            count,
            buffer_bytes,
            tail: 0,
        };
        // SAFETY: the entries are page-aligned, zeroed, hold `count` entries, and live until `drop`, which
        // runs after the ring was closed (the reactor declares the ring first).
        unsafe { submitter.register_buf_ring_with_flags(pool.entries.as_ptr() as u64, count, GROUP, 0)? };
        for buffer in 0..count {
            pool.recycle(buffer);
        }
        Ok(pool)
    }

    /// The first `length` bytes of a buffer that a completion named.
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        assert!(
            buffer < self.count && length <= self.buffer_bytes,
            "the kernel named a buffer of ours"
        );
        // SAFETY: in bounds by the assertion; the buffer is ours until it is recycled, which needs `&mut`.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.as_ptr().add(usize::from(buffer) * self.buffer_bytes),
                length,
            )
        }
    }

    /// Lends a buffer to the kernel again.
    pub(super) fn recycle(&mut self, buffer: u16) {
        assert!(buffer < self.count, "the kernel named a buffer of ours");
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is in bounds. The kernel reads entries only below the tail it can see, and this one
        // lies at the tail. The three fields written exclude `resv`, which in entry 0 is the tail itself.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.memory.as_ptr().add(usize::from(buffer) * self.buffer_bytes) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, is aligned for u16, and is shared with the kernel, which
        // only reads it. Release pairs with the kernel's acquire load of the tail.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts; the ring that lent them is closed already.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.memory.as_ptr(), self.memory_layout);
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not of size zero: callers ask for at least one buffer.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
