//! What is told of it: to operators by the link of a client, and at the admin endpoint.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::{Evidence, EvidenceKind};
use crate::smr::types::Peer;

/// Rows that are told where a status is: replicas' first.
const ROWS_TOLD: usize = 64;
/// What a line of it begins with.
const PREFIX: &str = "evidence.";

/// One kind of refusal of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRow {
    /// The peer.
    pub peer: String,
    /// Why something of it was refused: an [`EvidenceKind`]'s name.
    pub kind: String,
    /// Whether no correct peer causes it.
    pub misbehaviour: bool,
    /// How often.
    pub count: u64,
    /// When last, in milliseconds since 1970.
    pub last_unix_ms: u64,
    /// The digest of one such frame, batch or message.
    pub digest: Option<String>,
}

/// A row with what else is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerEvidence {
    /// What is told everywhere.
    #[serde(flatten)]
    pub row: EvidenceRow,
    /// The view that the last one spoke of, where it is known.
    pub view: Option<u64>,
    /// The decision that it spoke of.
    pub seq: Option<u64>,
    /// The last signed message of this peer that was refused for this reason, in hexadecimal: envelope and
    /// all. It can be shown to others.
    pub message: Option<String>,
}

/// All that a replica holds against others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvidenceReport {
    /// By peer and kind.
    pub peers: Vec<PeerEvidence>,
    /// Connections that were refused before anybody was proven to be at their other end, by reason.
    pub strangers: BTreeMap<&'static str, u64>,
    /// Refusals that are in no row, because the rows were being read or written.
    pub missed: u64,
    /// How many times a client's rows made room for another's.
    pub clients_forgotten: u64,
}

impl EvidenceRow {
    /// The line that a status carries of it: a name, and after a space what is no number, which readers of
    /// counters pass over.
    fn line(&self) -> String {
        let against = if self.misbehaviour { "wrong" } else { "odd" };
        let digest = self.digest.as_deref().unwrap_or("-");
        let (peer, kind) = (&self.peer, &self.kind);
        format!(
            "{PREFIX}{peer}.{kind} {against} {} {} {digest}",
            self.count, self.last_unix_ms
        )
    }

    /// What such a line says; `None` for any other.
    #[must_use]
    pub fn of_line(line: &str) -> Option<Self> {
        let (name, values) = line.strip_prefix(PREFIX)?.split_once(' ')?;
        let (peer, kind) = name.split_once('.')?;
        let mut values = values.split(' ');
        let against = values.next()?;
        Some(Self {
            peer: peer.to_owned(),
            kind: kind.to_owned(),
            misbehaviour: against == "wrong",
            count: values.next()?.parse().ok()?,
            last_unix_ms: values.next()?.parse().ok()?,
            digest: values.next().filter(|digest| *digest != "-").map(str::to_owned),
        })
    }
}

impl Evidence {
    /// All rows, replicas' first.
    #[must_use]
    pub fn rows(&self) -> Vec<PeerEvidence> {
        let mut rows = Vec::new();
        for (peer, record) in self.copy() {
            for (code, entry) in &record.entries {
                let Some(kind) = EvidenceKind::of_code(*code) else {
                    continue;
                };
                let kept = record.kept.as_ref().filter(|kept| kept.code == *code);
                rows.push(PeerEvidence {
                    row: EvidenceRow {
                        peer: peer.to_string(),
                        kind: kind.name().to_owned(),
                        misbehaviour: kind.speaks_against(peer),
                        count: entry.count,
                        last_unix_ms: entry.last_ms,
                        digest: entry.digest.map(|digest| hex::encode(digest.as_bytes())),
                    },
                    view: entry.place.map(|(view, _)| view.get()),
                    seq: entry.place.map(|(_, seq)| seq.get()),
                    message: kept.map(|kept| hex::encode(&kept.bytes)),
                });
            }
        }
        rows
    }

    /// How often something of this peer was refused that speaks against it.
    #[must_use]
    pub fn misbehaviour(&self, peer: Peer) -> u64 {
        let speaks_against = |code| EvidenceKind::of_code(code).is_some_and(|kind| kind.speaks_against(peer));
        let counts = self.counts(peer).into_iter();
        let against = counts.filter(|(code, _)| speaks_against(*code));
        against.map(|(_, count)| count).sum()
    }

    /// Adds its lines to those of a status, as many as there is room for.
    pub(crate) fn write_lines(&self, lines: &mut String) {
        for told in self.rows().iter().take(ROWS_TOLD) {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "{}", told.row.line());
        }
    }
}
