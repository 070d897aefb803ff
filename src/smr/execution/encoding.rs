//! How plain states, typed requests and typed replies are written: [postcard's
//! format](https://postcard.jamesmunns.com/wire-format), in which a value has one encoding.
//!
//! A state is read with what it was written from at hand, a certificate of its digest; requests and replies
//! come from strangers. Those are read within limits that are the same at every replica, whatever it was
//! compiled with: [`REQUEST_DEPTH_MAX`] levels, and in proportion to their bytes. Without, a short request of
//! a recursive type takes the stack of every replica, and a list of `()` as long as its length can say keeps
//! them busy for ever.

mod limited;

use serde::Serialize;
use serde::de::DeserializeOwned;

use limited::Left;

/// How deep values of a request or reply may lie in one another.
pub const REQUEST_DEPTH_MAX: usize = 128;

/// So many values may be in a request or reply of no bytes, and so many more for each byte: types may have
/// fields that are written as nothing.
const VALUES_MIN: usize = 1 << 10;
const VALUES_PER_BYTE: usize = 16;

/// Why a value has no encoding, or bytes no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// The type's own `Serialize` refuses, or does not know how long a sequence is before it is written.
    #[error("the value cannot be written: {0}")]
    Unwritable(postcard::Error),
    /// The bytes are no value of the type.
    #[error("{bytes} bytes are no such value: {error}")]
    Unreadable {
        /// How many there are.
        bytes: usize,
        /// What is wrong with them.
        error: postcard::Error,
    },
    /// Values lie more than [`REQUEST_DEPTH_MAX`] deep in one another, or are more than so many bytes may
    /// have.
    #[error("{bytes} bytes have too many values in them, or too deep in one another")]
    BeyondLimits {
        /// How many bytes there are.
        bytes: usize,
    },
    /// The bytes go on after the value.
    #[error("{left} bytes are left after the value")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// Other bytes give the same value.
    #[error("the value is written in other bytes than it was read from: does it iterate in hash order?")]
    NotCanonical,
}

/// The encoding of a value.
///
/// # Errors
/// When its type refuses.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodingError> {
    postcard::to_extend(value, Vec::new()).map_err(EncodingError::Unwritable)
}

/// The value of which this is the encoding, in bytes that are vouched for.
///
/// # Errors
/// When there is none, or it has another encoding as well.
pub(super) fn decode_canonical<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, EncodingError> {
    let unreadable = |error| unreadable(bytes, error);
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(unreadable)?;
    expect_end(rest)?;
    match encode(&value)? == bytes {
        true => Ok(value),
        false => Err(EncodingError::NotCanonical),
    }
}

/// The value that a stranger's bytes give, within limits.
///
/// # Errors
/// When there is none, or it is beyond the limits.
pub(super) fn decode_untrusted<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EncodingError> {
    let left = Left::new(REQUEST_DEPTH_MAX, VALUES_MIN + VALUES_PER_BYTE * bytes.len());
    let mut deserializer = postcard::Deserializer::from_bytes(bytes);
    let read = limited::read(&mut deserializer, &left);
    let value = read.map_err(|error| match left.is_exceeded() {
        true => EncodingError::BeyondLimits { bytes: bytes.len() },
        false => unreadable(bytes, error),
    })?;
    let rest = deserializer
        .finalize()
        .map_err(|error| unreadable(bytes, error))?;
    expect_end(rest)?;
    Ok(value)
}

fn unreadable(bytes: &[u8], error: postcard::Error) -> EncodingError {
    EncodingError::Unreadable {
        bytes: bytes.len(),
        error,
    }
}

fn expect_end(rest: &[u8]) -> Result<(), EncodingError> {
    match rest.len() {
        0 => Ok(()),
        left => Err(EncodingError::Trailing { left }),
    }
}
