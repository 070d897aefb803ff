//! What an operation wrote over, so that it can be taken back if the operation panics.

/// Buffers beyond this are given back after the operation that needed them.
const KEPT_BYTES: usize = 64 * 1024;

/// The values that keys had before an operation, in the order in which it changed them. Nothing is noted
/// outside of operations.
#[derive(Debug, Default)]
pub(super) struct UndoLog {
    is_noting: bool,
    /// Key and value of every change, end to end.
    bytes: Vec<u8>,
    changes: Vec<Change>,
}

/// One change of one key.
#[derive(Debug, Clone, Copy)]
struct Change {
    place: usize,
    tag: u32,
    key_bytes: usize,
    /// `None` when the key was not there.
    value_bytes: Option<usize>,
}

/// A key and what it had before.
#[derive(Debug)]
pub(super) struct Undone<'a> {
    pub place: usize,
    pub tag: u32,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl UndoLog {
    /// An operation begins.
    pub fn begin(&mut self) {
        self.clear();
        self.is_noting = true;
    }

    /// What the operation did stays.
    pub fn keep(&mut self) {
        self.is_noting = false;
        self.clear();
    }

    /// A key of a part is about to be changed.
    pub fn note(&mut self, (place, tag): (usize, u32), key: &[u8], value: Option<&[u8]>) {
        if !self.is_noting {
            return;
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.changes.push(Change {
            place,
            tag,
            key_bytes: key.len(),
            value_bytes: value.map(<[u8]>::len),
        });
    }

    /// Hands every change to `take_back`, the last first; nothing is noted meanwhile, and nothing is left
    /// afterwards.
    pub fn undo(&mut self, mut take_back: impl FnMut(Undone<'_>)) {
        self.is_noting = false;
        while let Some(change) = self.changes.pop() {
            let value_at = self.bytes.len() - change.value_bytes.unwrap_or(0);
            let key_at = value_at - change.key_bytes;
            take_back(Undone {
                place: change.place,
                tag: change.tag,
                key: &self.bytes[key_at..value_at],
                value: change.value_bytes.map(|_| &self.bytes[value_at..]),
            });
            self.bytes.truncate(key_at);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.changes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(KEPT_BYTES);
            self.changes.shrink_to(KEPT_BYTES / size_of::<Change>());
        }
    }
}
