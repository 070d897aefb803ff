use super::*;
use crate::runtime::net::framing::FramingError;
use crate::smr::preprocessing::FrameRefusal;
use crate::smr::protocol::Rejection;
use crate::smr::types::{ClientId, NodeId};

const EQUIVOCATION: EvidenceKind = EvidenceKind::Message(Rejection::Equivocation);

fn replica(id: u16) -> Peer {
    Peer::Replica(NodeId::new(id))
}

fn client(id: u32) -> Peer {
    Peer::Client(ClientId::new(id))
}

fn signed(message: &[u8]) -> Exhibit<'_> {
    Exhibit {
        message: Some(message),
        is_signed: true,
        ..Exhibit::default()
    }
}

#[test]
fn kinds_have_names_and_codes_of_their_own() {
    let (mut codes, mut names) = (Vec::new(), Vec::new());
    for kind in EvidenceKind::all() {
        assert_eq!(
            EvidenceKind::of_code(kind.code()).map(EvidenceKind::name),
            Some(kind.name())
        );
        codes.push(kind.code());
        names.push(kind.name());
    }
    let count = codes.len();
    for list in [
        codes.iter().map(u8::to_string).collect::<Vec<_>>(),
        names.iter().map(ToString::to_string).collect(),
    ] {
        let mut list = list;
        list.sort();
        list.dedup();
        assert_eq!(list.len(), count);
    }
    assert!(EvidenceKind::of_code(255).is_none());
    assert!(!EvidenceKind::Message(Rejection::OldView).is_kept());
    assert!(EvidenceKind::Message(Rejection::OverBudget).is_kept());
    let mac = EvidenceKind::Frame(FrameRefusal::Mac);
    assert!(mac.speaks_against(client(1)) && !mac.speaks_against(replica(1)));
}

#[test]
fn what_a_peer_did_is_counted_by_kind_with_its_digest_and_its_place() {
    let evidence = Evidence::default();
    let place = Some((View::new(3), SeqNo::new(70)));
    let digest = Some(Digest::from_bytes([7; 32]));
    let seen = Exhibit {
        digest,
        place,
        ..Exhibit::default()
    };
    evidence.note_at(5, replica(1), EQUIVOCATION, 2, seen);
    evidence.note_at(9, replica(1), EQUIVOCATION, 1, Exhibit::default());
    evidence.note_at(7, client(4), EvidenceKind::NoMessage, 1, signed(b"abc"));
    let rows = evidence.rows();
    assert_eq!(rows.len(), 2);
    let first = &rows[0];
    assert_eq!(
        (first.row.peer.as_str(), first.row.kind.as_str()),
        ("r1", "rejected_equivocation")
    );
    assert_eq!((first.row.count, first.row.last_unix_ms), (3, 9));
    assert_eq!(first.row.digest, Some("07".repeat(32)));
    assert_eq!((first.view, first.seq), (Some(3), Some(70)));
    assert!(first.row.misbehaviour && first.message.is_none());
    assert_eq!(
        rows[1].row.digest,
        Some(blake3::hash(b"abc").to_hex().to_string())
    );
    assert_eq!(evidence.misbehaviour(replica(1)), 3);
    assert_eq!(evidence.misbehaviour(replica(2)), 0);
}

#[test]
fn a_signed_message_is_kept_whole_or_not_at_all_and_the_last_one_counts() {
    let evidence = Evidence::default();
    let view_change = EvidenceKind::Message(Rejection::BadViewChange);
    let checkpoint = EvidenceKind::Message(Rejection::BadCheckpoint);
    let kept = || {
        let rows = evidence.rows().into_iter();
        rows.map(|told| told.message).collect::<Vec<_>>()
    };
    evidence.note_at(1, replica(1), view_change, 1, signed(b"\x01\x02"));
    assert_eq!(kept(), [Some("0102".to_owned())]);
    // Within a second it is not looked at, unless it is of another kind.
    evidence.note_at(2, replica(1), view_change, 1, signed(b"\x03"));
    assert_eq!(kept(), [Some("0102".to_owned())]);
    evidence.note_at(3, replica(1), checkpoint, 1, signed(b"\x04"));
    assert_eq!(kept(), [Some("04".to_owned()), None], "one of each peer");
    evidence.note_at(
        1003,
        replica(1),
        view_change,
        1,
        signed(&vec![0; MESSAGE_BYTES_MAX + 1]),
    );
    assert_eq!(kept(), [Some("04".to_owned()), None], "it is too long");
    evidence.note_at(2003, replica(1), view_change, 1, signed(b"\x05"));
    assert_eq!(kept(), [None, Some("05".to_owned())]);
    let unsigned = Exhibit {
        message: Some(b"abc"),
        ..Exhibit::default()
    };
    evidence.note_at(9000, replica(2), EQUIVOCATION, 1, unsigned);
    assert_eq!(evidence.rows().last().unwrap().message, None);
}

#[test]
fn clients_without_end_take_each_others_room_and_none_of_replicas() {
    let evidence = Evidence::default();
    evidence.note_at(0, replica(1), EQUIVOCATION, 1, Exhibit::default());
    let kind = EvidenceKind::Frame(FrameRefusal::Signature);
    for number in 0..1000 {
        evidence.note_at(u64::from(number), client(number), kind, 1, Exhibit::default());
        // It comes again and again, and stays.
        evidence.note_at(u64::from(number), client(0), kind, 1, Exhibit::default());
    }
    let rows = evidence.rows();
    assert_eq!(rows.len(), 1 + CLIENTS_MAX);
    assert_eq!(rows[0].row.peer, "r1");
    assert_eq!(rows[1].row.peer, client(0).to_string());
    assert_eq!(rows.last().unwrap().row.peer, client(999).to_string());
    assert_eq!(evidence.forgotten(), 1000 - CLIENTS_MAX as u64);
}

#[test]
fn who_finds_it_held_does_not_wait_and_is_counted() {
    let evidence = Evidence::default();
    let held = evidence.replicas.lock().unwrap();
    evidence.note_at(1, replica(1), EQUIVOCATION, 5, Exhibit::default());
    evidence.note_at(1, client(1), EvidenceKind::NoMessage, 1, Exhibit::default());
    drop(held);
    assert_eq!(evidence.missed(), 5);
    assert_eq!(evidence.rows().len(), 1);
}

#[test]
fn a_row_comes_through_the_lines_of_a_status_and_readers_of_counters_pass_over_it() {
    let evidence = Evidence::default();
    let record = EvidenceKind::Record(FramingError::Forged);
    evidence.note_at(17, replica(2), record, 4, signed(b"xyz"));
    evidence.note_at(18, client(3), EvidenceKind::MacsDisputed, 1, Exhibit::default());
    let mut lines = "votes_cast 7\n".to_owned();
    evidence.write_lines(&mut lines);
    let read: Vec<EvidenceRow> = lines.lines().filter_map(EvidenceRow::of_line).collect();
    let rows: Vec<EvidenceRow> = evidence.rows().into_iter().map(|told| told.row).collect();
    assert_eq!(read, rows);
    for line in lines.lines().skip(1) {
        let (_, value) = line.split_once(' ').unwrap();
        assert!(value.parse::<u64>().is_err(), "{line}");
    }
    for other in [
        "evidence.",
        "evidence.r1 2",
        "evidence.r1.a wrong x 1 -",
        "votes_cast 7",
    ] {
        assert_eq!(EvidenceRow::of_line(other), None, "{other}");
    }
}
