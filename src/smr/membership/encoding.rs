//! The one form that what is digested and signed has as bytes: numbers in little endian, lists and texts
//! after their length, nothing left over. What is read is refused unless it would be written like that again.

use crate::smr::crypto::{LinkPublic, SIGNATURE_BYTES, Signature, VerifyingKey};
use crate::smr::types::{ApplicationId, ClusterId, Digest};

use super::MembershipError;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedMembership {
    /// They end in the middle.
    #[error("the bytes end in the middle of {0}")]
    Short(&'static str),
    /// Something follows.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
    /// Another format than this release reads.
    #[error("format {got} of {what}, expected {expected}")]
    Format {
        /// Of what.
        what: &'static str,
        /// The format they have.
        got: u16,
        /// The one there is.
        expected: u16,
    },
    /// More of them, or a longer one, than there may be.
    #[error("{got} {what}, at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there may be.
        max: usize,
    },
    /// A value that means nothing, or one that is written in another way.
    #[error("{0} has no such value")]
    Unknown(&'static str),
    /// A list is not in its order, or has something twice.
    #[error("{0} are not in order")]
    Unsorted(&'static str),
    /// What they say is not possible.
    #[error(transparent)]
    Impossible(#[from] MembershipError),
}

/// Writes the form.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// How many entries follow, or bytes of a text.
    pub(crate) fn count(&mut self, count: usize) {
        // Everything counted is bounded far below; a count that does not fit would be refused by every
        // reader.
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads the form, and allocates nothing that the bytes there are do not fill.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, MalformedMembership>;

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, bytes: usize, what: &'static str) -> Read<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(MalformedMembership::Short(what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Read<[u8; N]> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(MalformedMembership::Short(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Read<u8> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Read<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Read<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Read<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number that counts things in memory.
    pub(crate) fn size(&mut self, what: &'static str) -> Read<usize> {
        usize::try_from(self.u64(what)?).map_err(|_| MalformedMembership::Unknown(what))
    }

    /// How many entries follow, of at least so many bytes each: no more than `max`, and no more than the
    /// bytes that are left can be.
    pub(crate) fn count(&mut self, what: &'static str, max: usize, entry_bytes: usize) -> Read<usize> {
        let got = usize::try_from(self.u32(what)?).unwrap_or(usize::MAX);
        if got > max {
            return Err(MalformedMembership::TooMany { what, got, max });
        }
        if got.saturating_mul(entry_bytes) > self.rest.len() {
            return Err(MalformedMembership::Short(what));
        }
        Ok(got)
    }

    pub(crate) fn text(&mut self, what: &'static str, bytes_max: usize) -> Read<String> {
        let length = self.count(what, bytes_max, 1)?;
        let text = std::str::from_utf8(self.take(length, what)?);
        text.map(str::to_owned)
            .map_err(|_| MalformedMembership::Unknown(what))
    }

    /// Something that is encoded by itself, after its length.
    pub(crate) fn part(&mut self, what: &'static str, bytes_max: usize) -> Read<&'a [u8]> {
        let length = self.count(what, bytes_max, 1)?;
        self.take(length, what)
    }

    pub(crate) fn format(&mut self, what: &'static str, expected: u16) -> Read<()> {
        match self.u16(what)? {
            got if got == expected => Ok(()),
            got => Err(MalformedMembership::Format { what, got, expected }),
        }
    }

    pub(crate) fn digest(&mut self, what: &'static str) -> Read<Digest> {
        self.array(what).map(Digest::from_bytes)
    }

    pub(crate) fn cluster(&mut self) -> Read<ClusterId> {
        self.array("the cluster").map(ClusterId::from_bytes)
    }

    pub(crate) fn verifying_key(&mut self) -> Read<VerifyingKey> {
        self.array("a signing key").map(VerifyingKey::from_bytes)
    }

    pub(crate) fn link_key(&mut self) -> Read<LinkPublic> {
        self.array("a link key").map(LinkPublic::from_bytes)
    }

    pub(crate) fn signature(&mut self) -> Read<Signature> {
        self.array::<SIGNATURE_BYTES>("a signature")
    }

    pub(crate) fn application(&mut self) -> Read<ApplicationId> {
        let bytes = self.array("the application")?;
        let application = ApplicationId::from_bytes(&bytes);
        match application != ApplicationId::NONE && application.to_bytes() == bytes {
            true => Ok(application),
            false => Err(MalformedMembership::Unknown("the application")),
        }
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Read<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(MalformedMembership::Trailing(left)),
        }
    }
}

/// Whether a list is strictly ascending by what `key` takes from its entries.
pub(crate) fn is_ascending<T, K: Ord>(list: &[T], key: impl Fn(&T) -> K) -> bool {
    list.windows(2).all(|two| key(&two[0]) < key(&two[1]))
}
