use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, Range};

use bytes::Bytes;
use rkyv::api::high::{HighSerializer, to_bytes_in};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Source, Strategy};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::validation::ArchiveContext;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Portable, Serialize};

use super::{ENVELOPE_BYTES, Envelope};
use crate::smr::mutants::{Mutant, active};

/// How deep an archive may nest: an enum that holds a struct that holds a byte string, and one to spare.
pub const DEPTH_MAX: usize = 4;

const DEPTH: NonZeroUsize = NonZeroUsize::new(DEPTH_MAX).expect("the depth limit is not zero");

/// Checks that an archive is sound, and that its root reaches all of it: what nothing points to is in no
/// digest and means nothing, and whoever sends it could send it to everybody differently.
///
/// **How.** rkyv checks a value's parts in the order in which they are written: first what a value points to,
/// part after part, then the value itself, so that the [`ArchiveValidator`] keeps one range in which the next
/// part may lie. Its parts never overlap, and they only go up. With `unaligned` archives nothing lies between
/// them. So each part must begin where the last one ended: when a value is done, what it points to must fill
/// everything before it. The root lies at the end, so nothing is left over.
///
/// This makes the length of an archive a function of the lengths of the strings and lists in it, and the
/// pointers a function of those. What it does not cover are the bytes of an enum after a variant that is
/// shorter than the longest: their number is the type's, they are counted as part of it, and nothing reads
/// them. Our own encoder writes zeros there.
pub struct Canonical<'a> {
    bounds: ArchiveValidator<'a>,
    /// What the bounds have as well, and do not tell: where the next part may lie.
    free: Range<usize>,
}

/// Bytes between two parts of an archive.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("nothing points to some bytes of an archive")]
struct Unreached;

impl<'a> Canonical<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let Range { start, end } = bytes.as_ptr_range();
        Self {
            bounds: ArchiveValidator::with_max_depth(bytes, Some(DEPTH)),
            free: start as usize..end as usize,
        }
    }
}

// SAFETY: what may be dereferenced is the inner validator's judgement alone; this one only refuses more.
unsafe impl<E: Source> ArchiveContext<E> for Canonical<'_> {
    fn check_subtree_ptr(&mut self, ptr: *const u8, layout: &Layout) -> Result<(), E> {
        ArchiveContext::<E>::check_subtree_ptr(&mut self.bounds, ptr, layout)
    }

    unsafe fn push_subtree_range(&mut self, root: *const u8, end: *const u8) -> Result<Range<usize>, E> {
        // SAFETY: the caller's promise is passed on.
        let rest = unsafe { ArchiveContext::<E>::push_subtree_range(&mut self.bounds, root, end)? };
        self.free.end = root as usize;
        Ok(rest)
    }

    unsafe fn pop_subtree_range(&mut self, range: Range<usize>) -> Result<(), E> {
        if !self.free.is_empty() && !active(Mutant::PaddingAccepted) {
            return Err(E::new(Unreached));
        }
        self.free = range.clone();
        // SAFETY: the caller's promise is passed on.
        unsafe { ArchiveContext::<E>::pop_subtree_range(&mut self.bounds, range) }
    }
}

/// What can be sent and checked: implemented for every rkyv type of this module.
pub trait Message:
    Archive<Archived: Portable + for<'a> CheckBytes<Strategy<Canonical<'a>, Failure>>>
    + for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>
{
}

impl<T> Message for T where
    T: Archive<Archived: Portable + for<'a> CheckBytes<Strategy<Canonical<'a>, Failure>>>
        + for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>
{
}

/// The bytes are not a sound archive of the expected type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a sound archive of a {0}")]
pub struct Malformed(pub &'static str);

/// Received bytes that were checked once to be an archive of `T`, and are read in place from then on.
///
/// Invariant: `bytes` was accepted by the validator for `T::Archived` and never changes.
pub struct Checked<T: Message> {
    bytes: Bytes,
    _type: PhantomData<fn() -> T>,
}

impl<T: Message> Checked<T> {
    /// Checks that `bytes` are one sound archive of `T` and nothing else.
    ///
    /// # Errors
    /// [`Malformed`] when they do not. The check allocates nothing and is linear in the number of fields.
    pub fn new(bytes: Bytes) -> Result<Self, Malformed> {
        check::<T>(&bytes)?;
        Ok(Self {
            bytes,
            _type: PhantomData,
        })
    }

    /// Checks the body of a message whose envelope was opened.
    ///
    /// # Errors
    /// [`Malformed`] when the body is no sound archive of `T`.
    pub fn body_of(message: &Bytes) -> Result<Self, Malformed> {
        if message.len() < ENVELOPE_BYTES {
            return Err(Malformed(name_of::<T>()));
        }
        Self::new(message.slice(ENVELOPE_BYTES..))
    }

    /// The archive's bytes, as received.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// A reference-counted slice for `part`, which must lie inside this archive.
    ///
    /// # Panics
    /// When `part` is not borrowed from this archive.
    #[must_use]
    pub fn slice_of(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }
}

impl<T: Message> Deref for Checked<T> {
    type Target = T::Archived;

    fn deref(&self) -> &T::Archived {
        // SAFETY: `new` checked these very bytes for `T::Archived`; `Bytes` never changes or moves them.
        unsafe { rkyv::access_unchecked::<T::Archived>(&self.bytes) }
    }
}

impl<T: Message> Clone for Checked<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            _type: PhantomData,
        }
    }
}

impl<T: Message> fmt::Debug for Checked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checked<{}>({} bytes)", name_of::<T>(), self.bytes.len())
    }
}

fn name_of<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

/// Checks `bytes` as a [canonical](Canonical) archive of `T` and borrows it.
pub(super) fn check<T: Message>(bytes: &[u8]) -> Result<&T::Archived, Malformed> {
    let mut validator = Canonical::new(bytes);
    rkyv::api::access_with_context::<T::Archived, _, Failure>(bytes, &mut validator)
        .map_err(|_| Malformed(name_of::<T>()))
}

/// The archive of `value` alone, without an envelope.
///
/// # Panics
/// Never for messages: they archive into memory.
#[must_use]
pub fn archive<T: Message>(value: &T, capacity: usize) -> Vec<u8> {
    // Serialising to a vector in memory fails for no value of our flat types.
    to_bytes_in::<_, Failure>(value, Vec::with_capacity(capacity))
        .expect("archiving into memory does not fail")
}

/// A message as it is sent, whose body is no archive: the envelope and these bytes.
#[must_use]
pub fn encode_bytes(envelope: Envelope, body: &[u8]) -> Bytes {
    let body_bytes = u32::try_from(body.len()).expect("a message body is under 4 GiB");
    let envelope = Envelope {
        body_bytes,
        ..envelope
    };
    [&envelope.to_bytes(), body].concat().into()
}

/// One whole message: `envelope`, then the archive of `value`.
///
/// `body_bytes_hint` sizes the one allocation.
///
/// # Panics
/// When the body is 4 GiB or larger; callers cap what they send far below.
#[must_use]
pub fn encode<T: Message>(envelope: Envelope, value: &T, body_bytes_hint: usize) -> Bytes {
    let mut buffer = Vec::with_capacity(ENVELOPE_BYTES + body_bytes_hint + 128);
    buffer.extend_from_slice(&envelope.to_bytes());
    let mut buffer = to_bytes_in::<_, Failure>(value, buffer).expect("archiving into memory does not fail");
    let body_bytes = u32::try_from(buffer.len() - ENVELOPE_BYTES).expect("a message body is under 4 GiB");
    buffer[4..8].copy_from_slice(&body_bytes.to_le_bytes());
    Bytes::from(buffer)
}
