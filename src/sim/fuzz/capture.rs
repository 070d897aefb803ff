//! What is said and written in a few simulated runs: a few of each kind.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::runtime::storage::{encode_record, encoded_record_bytes};
use crate::sim::plan::{Plan, Profile};
use crate::sim::run::run_captured;
use crate::smr::messages::archived::{
    ArchivedLogTransferMessage, ArchivedStateTransferMessage, ArchivedSyncMessage, ArchivedSystemMessage,
    ArchivedViewTransferMessage,
};
use crate::smr::messages::{Checked, PbftRecord, SystemMessage};
use crate::smr::protocol::Record;

/// So many of each kind are kept, and none that is longer.
const KEPT: usize = 3;
const BYTES_MAX: usize = 6 << 10;
/// The runs: liars, crashes and disks, so that everything is said at least once.
const RUNS: [(Profile, u64); 8] = [
    (Profile::Byzantine, 1),
    (Profile::Byzantine, 6),
    (Profile::Crash, 2),
    (Profile::Crash, 3),
    (Profile::Crash, 7),
    (Profile::Disk, 4),
    (Profile::Disk, 5),
    (Profile::Disk, 8),
];

/// Encoded values by their kind.
type Kinds = BTreeMap<&'static str, Vec<Bytes>>;

/// What runs have brought.
#[derive(Debug, Default)]
pub(in crate::sim) struct Captured {
    /// Between replicas.
    pub messages: Kinds,
    /// From clients.
    pub requests: Kinds,
    /// To clients.
    pub replies: Kinds,
    /// In the log.
    pub records: Kinds,
    /// Snapshots of checkpoints, with the seed of their checksums before each.
    pub snapshots: Kinds,
}

impl Captured {
    /// What the runs brought; made once.
    pub(super) fn get() -> &'static Self {
        static CAPTURED: OnceLock<Captured> = OnceLock::new();
        CAPTURED.get_or_init(|| {
            let mut all = Self::default();
            for (profile, seed) in RUNS {
                all = run_captured(Plan::of(profile, seed), all);
            }
            all
        })
    }

    pub(in crate::sim) fn message(&mut self, message: &Bytes) {
        if let Ok(checked) = Checked::<SystemMessage>::body_of(message) {
            keep(&mut self.messages, kind_of(&checked), message.clone());
        }
    }

    pub(in crate::sim) fn request(&mut self, message: &Bytes) {
        keep(&mut self.requests, "request", message.clone());
    }

    pub(in crate::sim) fn reply(&mut self, message: &Bytes) {
        keep(&mut self.replies, "reply", message.clone());
    }

    pub(in crate::sim) fn record(&mut self, record: &Record) {
        let mut bytes = vec![0; encoded_record_bytes(record)];
        let length = encode_record(record, &mut bytes);
        // Without its length.
        bytes.truncate(length);
        bytes.drain(..4);
        keep(&mut self.records, record_kind(record), bytes.into());
    }

    pub(in crate::sim) fn snapshot(&mut self, seed: u64, snapshot: &Bytes) {
        let bytes = [&seed.to_le_bytes()[..], snapshot].concat();
        keep(&mut self.snapshots, "image", bytes.into());
    }
}

fn keep(kinds: &mut Kinds, kind: &'static str, bytes: Bytes) {
    if bytes.len() > BYTES_MAX {
        return;
    }
    let kept = kinds.entry(kind).or_default();
    // Long ones have more in them.
    let shortest = (0..kept.len()).min_by_key(|at| kept[*at].len());
    match shortest.filter(|_| kept.len() == KEPT) {
        None => kept.push(bytes),
        Some(at) if kept[at].len() < bytes.len() => kept[at] = bytes,
        Some(_) => {}
    }
}

fn record_kind(record: &Record) -> &'static str {
    match record {
        Record::Proposal(_) => "proposal",
        Record::Batch(_) => "batch",
        Record::Ordering { contents, .. } => match PbftRecord::read(contents) {
            Ok(PbftRecord::Vote(_)) => "vote",
            Ok(PbftRecord::Announced(_)) => "announced",
            Err(_) => "ordering",
        },
        Record::Decision { .. } => "decision",
        Record::Jump { .. } => "jump",
        Record::Checkpoint(_) => "checkpoint",
        Record::Stable { .. } => "stable",
        Record::View(_) => "view",
        Record::Reconfiguration(_) => "reconfiguration",
        Record::ViewTransfer(message) => {
            let message = Checked::<SystemMessage>::body_of(message);
            message.map_or("view transfer", |message| kind_of(&message))
        }
    }
}

pub(in crate::sim) fn kind_of(message: &Checked<SystemMessage>) -> &'static str {
    use ArchivedSystemMessage as System;
    match &**message {
        System::ForwardedRequestMessage(_) => "forwarded requests",
        System::ProposalMessage(_) => "pre-prepare",
        System::ProtocolMessage(_) => "votes",
        System::SyncMessage(message) => match message {
            ArchivedSyncMessage::Checkpoint(_) => "checkpoint",
            ArchivedSyncMessage::Stable(_) => "stable",
            ArchivedSyncMessage::Status(_) => "status",
            ArchivedSyncMessage::FetchBatches(_) => "fetch batches",
            ArchivedSyncMessage::Decisions(_) => "decisions",
            ArchivedSyncMessage::BatchResponse(_) => "batch response",
        },
        System::ViewTransferMessage(_) => match message.of_views().as_deref() {
            Some(ArchivedViewTransferMessage::ViewChange(_)) => "view change",
            Some(ArchivedViewTransferMessage::NewView(_)) => "new view",
            Some(ArchivedViewTransferMessage::Complaint(_)) => "complaint",
            Some(ArchivedViewTransferMessage::FetchViewChanges(_)) => "fetch view changes",
            None => "view transfer",
        },
        System::LogTransferMessage(message) => match message {
            ArchivedLogTransferMessage::Decided { .. } => "decided",
            _ => "log transfer",
        },
        System::StateTransferMessage(message) => match message {
            ArchivedStateTransferMessage::Offer(_) => "offer",
            ArchivedStateTransferMessage::Fetch(_) => "fetch",
            ArchivedStateTransferMessage::Chunk(_) => "chunk",
            _ => "state transfer",
        },
    }
}
