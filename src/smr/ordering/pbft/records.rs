//! What is PBFT's own in the log.

use bytes::Bytes;

use crate::smr::messages::{PbftRecord, SlotDigest, Vote, archive};
use crate::smr::protocol::{OwnRecord, Record};
use crate::smr::types::View;

fn record(own: PbftRecord) -> Record {
    Record::Ordering {
        seq: Some(own.seq()),
        contents: Bytes::from(archive(&own, 64)),
    }
}

/// The record of a vote that is cast.
pub(crate) fn cast(vote: Vote) -> Record {
    record(PbftRecord::Vote(vote))
}

/// The record of a batch that a new view of this replica's own chose.
pub(crate) fn announced(placed: SlotDigest) -> Record {
    record(PbftRecord::Announced(placed))
}

/// What a record says, for people.
pub(super) fn describe(contents: &[u8]) -> Option<OwnRecord> {
    let (kind, view, digest) = match PbftRecord::read(contents).ok()? {
        PbftRecord::Vote(vote) => (vote.phase.name(), vote.view(), vote.digest()),
        PbftRecord::Announced(placed) => ("announced", View::new(placed.view), placed.digest()),
    };
    Some(OwnRecord {
        kind,
        view: Some(view),
        digest: Some(digest),
        signers: Vec::new(),
    })
}
