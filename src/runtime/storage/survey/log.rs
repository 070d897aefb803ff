use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Survey;
use crate::runtime::storage::directory::segments;
use crate::runtime::storage::recovery::{RawRecord, Tail, scan};
use crate::runtime::storage::{RecordReader, StorageError, Superblock};
use crate::smr::crypto::Chain;
use crate::smr::messages::CheckpointClaim;
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::Pbft;
use crate::smr::preprocessing::CheckerLimits;
use crate::smr::protocol::{OwnRecord, Record};
use crate::smr::reconfiguration::ReconfigurationMessage;
use crate::smr::types::{Digest, Lsn, NodeId, SeqNo, View};
use crate::smr::view_transfer::ViewTransferProtocol;
use crate::smr::view_transfer::pbft::PbftViewChange;

/// The records of a directory's log, as far as they can be read.
#[derive(Debug)]
pub struct LogSurvey {
    /// In order.
    pub records: Vec<LoggedRecord>,
    /// Where the log ends; `None` when it is damaged before its end.
    pub tail: Option<Tail>,
    /// What is damaged: of the files first, then of what the records say.
    pub damage: Vec<StorageError>,
}

/// What one record says, in short.
#[derive(Debug, Clone)]
pub struct LoggedRecord {
    /// Its position.
    pub lsn: Lsn,
    /// Its segment.
    pub path: PathBuf,
    /// Where in the segment its group begins.
    pub offset: u64,
    /// The number of its group.
    pub group: u64,
    /// A word for its kind.
    pub kind: &'static str,
    /// Its bytes.
    pub bytes: usize,
    /// What it says.
    pub content: Content,
}

/// What a record says.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The place it is about.
    pub place: Option<SeqNo>,
    /// The view.
    pub view: Option<View>,
    /// The batch or checkpoint.
    pub digest: Option<Digest>,
    /// The chain up to and including the place.
    pub chain: Option<Chain>,
    /// Frames and operations of its batch.
    pub batch: Option<(usize, usize)>,
    /// Who signed.
    pub signers: Vec<NodeId>,
    /// A word for its kind, if it is a protocol's own and that one can read it.
    own: &'static str,
}

impl Content {
    fn of<O: OrderingProtocol, V: ViewTransferProtocol>(record: &Record) -> Self {
        let about = |place: SeqNo, digest: Digest| Self {
            place: Some(place),
            digest: Some(digest),
            ..Self::default()
        };
        match record {
            Record::Proposal(proposal) | Record::Batch(proposal) => Self {
                // A batch that was fetched belongs to no view.
                view: matches!(record, Record::Proposal(_)).then_some(proposal.view),
                batch: Some((proposal.batch.frames.len(), proposal.batch.operation_count())),
                ..about(proposal.seq, proposal.batch.digest)
            },
            Record::Ordering { seq, contents } => Self {
                place: *seq,
                ..Self::of_own(O::describe(contents))
            },
            Record::Decision { seq, digest, chain } => Self {
                chain: Some(*chain),
                ..about(*seq, *digest)
            },
            Record::Jump { seq, chain } => Self {
                place: Some(*seq),
                chain: Some(*chain),
                ..Self::default()
            },
            Record::Checkpoint(checkpoint) => Self {
                signers: vec![NodeId::new(checkpoint.signer)],
                ..about(checkpoint.claim().seq, checkpoint.claim().digest)
            },
            Record::Stable { claim, proof } => Self {
                signers: proof.iter().map(|signed| NodeId::new(signed.signer)).collect(),
                ..about(claim.seq, claim.digest)
            },
            Record::View(view) => Self {
                view: Some(*view),
                ..Self::default()
            },
            Record::ViewTransfer(contents) => Self::of_own(V::describe(contents)),
            Record::Reconfiguration(contents) => Self::of_own(ReconfigurationMessage::describe(contents)),
        }
    }

    /// What a record says that is a protocol's own.
    fn of_own(own: Option<OwnRecord>) -> Self {
        let OwnRecord {
            kind,
            view,
            digest,
            signers,
        } = own.unwrap_or_default();
        Self {
            own: kind,
            view,
            digest,
            signers,
            ..Self::default()
        }
    }
}

impl LoggedRecord {
    fn damage(&self, what: String) -> StorageError {
        StorageError::damaged(
            &self.path,
            self.offset,
            format!("record {} ({}): {what}", self.lsn, self.kind),
        )
    }
}

impl LogSurvey {
    /// The decisions, in order.
    pub fn decisions(&self) -> impl Iterator<Item = &LoggedRecord> {
        self.records.iter().filter(|record| record.kind == "decision")
    }

    /// The signers that the log has for a checkpoint with this claim, if it is proved stable.
    #[must_use]
    pub fn certificate(&self, claim: CheckpointClaim) -> Option<&[NodeId]> {
        let proves = |record: &&LoggedRecord| {
            let content = &record.content;
            record.kind == "stable"
                && content.place == Some(claim.seq)
                && content.digest == Some(claim.digest)
        };
        self.records
            .iter()
            .find(proves)
            .map(|record| &record.content.signers[..])
    }
}

impl Survey {
    /// Reads the whole log: every group's checksum and chain, every record, every batch's digest, and whether
    /// the decisions are one chain whose batches are there.
    #[must_use]
    pub fn log(&self) -> LogSurvey {
        self.log_of::<Pbft, PbftViewChange>()
    }

    /// As [`log`](Self::log), of a replica of these protocols.
    #[must_use]
    pub fn log_of<O: OrderingProtocol, V: ViewTransferProtocol>(&self) -> LogSurvey {
        self.look(|superblock| {
            let seen = self.log_now::<O, V>(superblock);
            let is_damaged = !seen.damage.is_empty();
            (seen, is_damaged)
        })
    }

    fn log_now<O: OrderingProtocol, V: ViewTransferProtocol>(&self, superblock: &Superblock) -> LogSurvey {
        // Bounds are the replica's business; here everything is read that is whole.
        let everything = CheckerLimits {
            frame_bytes_max: usize::MAX,
            frame_operations_max: usize::MAX,
            batch_bytes_max: usize::MAX,
            batch_frames_max: usize::MAX,
            frame_macs: 0,
        };
        let reader = RecordReader::new(self.digester.clone(), everything);
        let mut seen = LogSurvey {
            records: Vec::new(),
            tail: None,
            damage: Vec::new(),
        };
        let scanned = segments(&self.path).and_then(|files| {
            scan(superblock, &files, |raw| {
                seen.take::<O, V>(&reader, raw);
                Ok(())
            })
        });
        match scanned {
            Ok(tail) => seen.tail = Some(tail),
            Err(error) => seen.damage.push(error),
        }
        self.check_decisions(superblock, &mut seen);
        seen
    }

    /// What a restart checks of the decisions, and more: those that the snapshot covers have to be one chain
    /// too.
    fn check_decisions(&self, superblock: &Superblock, seen: &mut LogSurvey) {
        let mut batches = BTreeSet::new();
        let mut last: Option<(SeqNo, Chain)> = None;
        let mut damage = Vec::new();
        for record in &seen.records {
            let content = &record.content;
            let (Some(seq), digest) = (content.place, content.digest.unwrap_or(Digest::ZERO)) else {
                continue;
            };
            match (record.kind, content.chain) {
                ("proposal" | "batch", _) => {
                    batches.insert((seq, digest));
                }
                ("jump", Some(chain)) => last = Some((seq, chain)),
                ("decision", Some(chain)) => {
                    let is_needed = seq > superblock.snapshot;
                    if is_needed && digest != Digest::ZERO && !batches.contains(&(seq, digest)) {
                        damage.push(record.damage(format!(
                            "the log does not hold the batch that it decided at {seq}"
                        )));
                    }
                    match last {
                        // Written again after a restart.
                        Some((before, _)) if seq <= before => continue,
                        Some((before, _)) if seq > before.next() && is_needed => {
                            damage.push(record.damage(format!("{seq} does not follow {before}")));
                        }
                        Some((before, head))
                            if seq == before.next() && head.then(seq, &digest, &self.digester) != chain =>
                        {
                            damage
                                .push(record.damage(format!("{seq} does not belong to the chain before it")));
                        }
                        _ => {}
                    }
                    last = Some((seq, chain));
                }
                _ => {}
            }
        }
        seen.damage.append(&mut damage);
    }
}

impl LogSurvey {
    fn take<O: OrderingProtocol, V: ViewTransferProtocol>(
        &mut self,
        reader: &RecordReader,
        raw: RawRecord<'_>,
    ) {
        let mut record = LoggedRecord {
            lsn: raw.lsn,
            path: raw.path.to_owned(),
            offset: raw.offset,
            group: raw.group,
            kind: raw.kind(),
            bytes: raw.bytes.len(),
            content: Content {
                place: raw.place(),
                ..Content::default()
            },
        };
        match reader.read(raw.bytes) {
            Ok(read) => {
                record.content = Content::of::<O, V>(&read);
                match (record.content.own, read) {
                    ("", Record::Ordering { .. } | Record::ViewTransfer(_) | Record::Reconfiguration(_)) => {
                        self.damage
                            .push(record.damage("its protocol cannot read it".to_owned()));
                    }
                    ("", _) => {}
                    (kind, _) => record.kind = kind,
                }
            }
            Err(error) => self.damage.push(record.damage(error.to_string())),
        }
        self.records.push(record);
    }
}
