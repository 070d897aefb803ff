use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::BLOCK_BYTES;

/// Memory that `O_DIRECT` can be given: aligned to a block, and a multiple of one.
#[derive(Debug)]
pub struct AlignedBuffer {
    number: u16,
    /// Invariant: `bytes` bytes of `memory`, or dangling if there are none.
    start: NonNull<u8>,
    bytes: usize,
    memory: Option<Arc<Memory>>,
}

/// Keeps a buffer's memory where it is, and gives no access to it: for a kernel that was told of it.
#[derive(Debug)]
pub(crate) struct MemoryPin(#[expect(dead_code, reason = "its drop lets go of the memory")] Arc<Memory>);

#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the one buffer that a memory belongs to owns what is in it alone, like a `Box<[u8]>`.
unsafe impl Send for AlignedBuffer {}
// SAFETY: it gives no access to the memory, and its end may be on any thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl AlignedBuffer {
    /// A buffer of zeros, of at least `bytes`. `number` tells it from others of its owner.
    #[must_use]
    pub fn new(number: u16, bytes: usize) -> Self {
        let memory = Memory::zeroed(bytes.max(1).next_multiple_of(BLOCK_BYTES));
        Self {
            number,
            start: memory.start,
            bytes: memory.layout.size(),
            memory: Some(Arc::new(memory)),
        }
    }

    /// A buffer of nothing, in the place of one that is lent.
    pub(super) const fn nothing(number: u16) -> Self {
        Self {
            number,
            start: NonNull::dangling(),
            bytes: 0,
            memory: None,
        }
    }

    /// Which of its owner's buffers it is.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Keeps the memory from being given back, also after this buffer's end.
    pub(crate) fn pin(&self) -> Option<MemoryPin> {
        self.memory.clone().map(MemoryPin)
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is ours, initialised (zeroed at first), and as long as `bytes` says.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only access: pins have none.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Memory {
    fn zeroed(bytes: usize) -> Self {
        let layout =
            Layout::from_size_align(bytes, BLOCK_BYTES).expect("a buffer is far smaller than memory");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and neither buffer nor pin is left.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
