use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Domain, SIGNATURE_BYTES, Signature};
use crate::smr::types::Digest;

/// Everything a verdict depends on; the signature first, which tells most questions apart at once.
type Question = ([u8; SIGNATURE_BYTES], [u8; 32], [u8; 32], u8);

thread_local! {
    static VERDICTS: RefCell<Option<Verdicts>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Verdicts {
    known: BTreeMap<Question, bool>,
    most: usize,
    given: Given,
}

/// How many verdicts a thread has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Given {
    /// In all: those that were remembered as well.
    pub verdicts: u64,
    /// Of these, that a signature does not hold.
    pub invalid: u64,
}

/// From now on the calling thread remembers its verdicts on up to `most` signatures, and does not compute
/// them again.
///
/// Verification is a function of key, domain, digest and signature alone, so nothing but the time changes.
/// Where one thread is every replica of a cluster, each signature is otherwise verified n times and more. A
/// replica of its own gains nothing, and does not switch this on.
pub fn remember_verdicts(most: usize) {
    VERDICTS.with_borrow_mut(|verdicts| {
        *verdicts = Some(Verdicts {
            known: BTreeMap::new(),
            most,
            given: Given::default(),
        });
    });
}

/// How many verdicts the calling thread has given since it began to remember them. A replica of its own would
/// have computed each.
#[must_use]
pub fn verdicts_given() -> Given {
    VERDICTS.with_borrow(|verdicts| {
        verdicts
            .as_ref()
            .map_or(Given::default(), |verdicts| verdicts.given)
    })
}

/// Counts a verdict, if they are remembered.
pub(super) fn count(is_valid: bool) {
    VERDICTS.with_borrow_mut(|verdicts| {
        if let Some(Verdicts { given, .. }) = verdicts {
            given.verdicts += 1;
            given.invalid += u64::from(!is_valid);
        }
    });
}

fn question(key: &[u8; 32], domain: Domain, digest: &Digest, signature: &Signature) -> Question {
    (*signature, *key, *digest.as_bytes(), domain as u8)
}

/// The verdict, if it is remembered.
pub(super) fn recall(key: &[u8; 32], domain: Domain, digest: &Digest, signature: &Signature) -> Option<bool> {
    VERDICTS.with_borrow(|verdicts| {
        let known = &verdicts.as_ref()?.known;
        known.get(&question(key, domain, digest, signature)).copied()
    })
}

/// Remembers a verdict, if that is wanted.
pub(super) fn note(key: &[u8; 32], domain: Domain, digest: &Digest, signature: &Signature, is_valid: bool) {
    VERDICTS.with_borrow_mut(|verdicts| {
        let Some(verdicts) = verdicts else { return };
        if verdicts.known.len() >= verdicts.most {
            verdicts.known.clear();
        }
        verdicts
            .known
            .insert(question(key, domain, digest, signature), is_valid);
    });
}
