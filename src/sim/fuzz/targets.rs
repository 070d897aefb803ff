use std::path::Path;

use bytes::Bytes;
use rkyv::rancor::Failure;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::capture::{Captured, kind_of};
use super::lone::Lone;
use super::{CLUSTER, EPOCH, epochs, flight};
use crate::client::{Output, Session};
use crate::runtime::net::framing::RecordReader as LinkReader;
use crate::runtime::net::handshake::{Directory, Identity, Initiator, Progress, Responder, Then};
use crate::runtime::net::hello::{HELLO_BYTES, Hello, Peer};
use crate::runtime::net::pool::BufferPool;
use crate::runtime::storage::snapshot::{SnapshotFile, chunk_head, claim_of, each_sound, load};
use crate::runtime::storage::{BLOCK_BYTES, RecordReader, Superblock, encode_record, encoded_record_bytes};
use crate::sim::SimConfig;
use crate::sim::app::SmallKv;
use crate::sim::clients::Process;
use crate::sim::replica::fresh_replica;
use crate::sim::stack::{Mixed, PartsMaker};
use crate::smr::crypto::{Digester, Domain, LinkPublic, LinkSecret, Opener, Sealer};
use crate::smr::execution::Executor;
use crate::smr::messages::{
    AdminReply, Checked, CheckpointTold, ClientReply, ENVELOPE_BYTES, Envelope, Frame, FrameId, Kind,
    Message, Mode, PieceRange, RefusalReason, ReplyBuilder, RequestFrame, SnapshotChunk, SystemMessage,
    encode,
};
use crate::smr::protocol::Record;
use crate::smr::types::{ApplicationId, ClientId, NodeId, SeqNo, Time, View};

/// What takes one input after another and says in a few words what became of it.
pub(super) type Runner = Box<dyn FnMut(&[u8]) -> String>;

/// A decoder, and what is known of its inputs.
pub struct Target {
    /// Its name, which is that of its corpus.
    pub name: &'static str,
    /// Valid inputs.
    pub valid: fn() -> Vec<Vec<u8>>,
    /// Makes what takes inputs. It panics when something is wrong.
    pub start: fn() -> Runner,
    /// How many bytes may be allocated at once because of an input: for each of its bytes, and beside.
    pub memory: (usize, usize),
}

/// Every target.
pub const TARGETS: [Target; 17] = [
    Target {
        name: "envelope",
        valid: || vec![status().to_vec()],
        start: || Box::new(envelope),
        memory: (0, 256),
    },
    Target {
        name: "frame",
        valid: || {
            let requests = captured(&Captured::get().requests).into_iter();
            requests
                .map(|request| request[ENVELOPE_BYTES..].to_vec())
                .collect()
        },
        start: || Box::new(frame),
        memory: (8, 4096),
    },
    Target {
        name: "hello",
        valid: || vec![hello(NodeId::new(1)).to_bytes().to_vec()],
        start: || Box::new(hello_block),
        memory: (0, 256),
    },
    Target {
        name: "handshake",
        valid: handshakes,
        start: || Box::new(handshake),
        memory: (8, 16 << 10),
    },
    Target {
        name: "framing",
        valid: records_of_links,
        start: || Box::new(framing),
        memory: (8, 4096),
    },
    Target {
        name: "system",
        valid: || {
            let messages = captured(&Captured::get().messages).into_iter();
            messages.map(|message| said(&message)).collect()
        },
        start: system,
        memory: (64, 256 << 10),
    },
    Target {
        name: "request",
        valid: || {
            let requests = captured(&Captured::get().requests).into_iter();
            requests.map(|request| said(&request)).collect()
        },
        start: request,
        memory: (64, 256 << 10),
    },
    Target {
        name: "reply",
        valid: || {
            let replies = captured(&Captured::get().replies).into_iter();
            let all = replies.map(|reply| said(&reply));
            all.chain(replies_of_session()).collect()
        },
        start: reply,
        memory: (16, 64 << 10),
    },
    Target {
        name: "admin",
        valid: || vec![status()[ENVELOPE_BYTES..].to_vec()],
        start: || Box::new(admin),
        memory: (8, 4096),
    },
    Target {
        name: "record",
        valid: || captured(&Captured::get().records),
        start: record,
        memory: (32, 64 << 10),
    },
    Target {
        name: "disk",
        valid: files,
        start: || Box::new(disk),
        memory: (16, 4 << 20),
    },
    Target {
        name: "genesis",
        valid: epochs::geneses,
        start: || Box::new(epochs::genesis),
        memory: (16, 16 << 10),
    },
    Target {
        name: "membership",
        valid: epochs::memberships,
        start: || Box::new(epochs::membership),
        memory: (16, 16 << 10),
    },
    Target {
        name: "change",
        valid: epochs::requests,
        start: epochs::request,
        memory: (64, 64 << 10),
    },
    Target {
        name: "handover",
        valid: epochs::pieces,
        start: epochs::handover,
        memory: (32, 64 << 10),
    },
    Target {
        name: "reconfiguration",
        valid: epochs::messages,
        start: epochs::message,
        memory: (32, 64 << 10),
    },
    Target {
        name: "flight",
        valid: flight::files,
        start: || Box::new(flight::file),
        memory: (16, 16 << 10),
    },
];

fn captured(kinds: &std::collections::BTreeMap<&'static str, Vec<Bytes>>) -> Vec<Vec<u8>> {
    kinds.values().flatten().map(|bytes| bytes.to_vec()).collect()
}

/// The kind of a message's envelope, who says it, and its body.
fn said(message: &[u8]) -> Vec<u8> {
    [&message[2..3], &[0], &message[ENVELOPE_BYTES..]].concat()
}

/// The message that such an input is, in an envelope that fits.
fn message_of(input: &[u8]) -> (usize, Bytes) {
    let (head, body) = input.split_at(input.len().min(2));
    let mut message = encode(Envelope::new(Kind::Admin, CLUSTER, EPOCH), &(), 0)[..ENVELOPE_BYTES].to_vec();
    message[2] = head.first().copied().unwrap_or(0);
    message[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    message.extend_from_slice(body);
    (usize::from(head.get(1).copied().unwrap_or(0)), message.into())
}

/// Reads an archive and makes it again.
fn again<T>(checked: &Checked<T>) -> String
where
    T: Message + PartialEq + std::fmt::Debug,
    T::Archived: rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<Failure>>,
{
    let value: T = rkyv::deserialize::<T, Failure>(&**checked).expect("what was checked can be read");
    let encoded = encode(Envelope::new(Kind::Admin, CLUSTER, EPOCH), &value, 64);
    let read = Checked::<T>::body_of(&encoded).expect("what was encoded can be checked");
    let same: T = rkyv::deserialize::<T, Failure>(&*read).expect("what was checked can be read");
    assert!(same == value, "{value:?} is {same:?} when it is read again");
    "sound".to_owned()
}

fn envelope(input: &[u8]) -> String {
    match Envelope::open(input, CLUSTER, EPOCH) {
        Ok(envelope) => {
            assert_eq!(input.len(), ENVELOPE_BYTES + envelope.body_bytes as usize);
            format!("{:?}", envelope.kind)
        }
        Err(error) => word(&error),
    }
}

/// The variant's name.
pub(super) fn word(error: &impl std::fmt::Debug) -> String {
    let words = format!("{error:?}");
    let end = words.find(|c: char| !c.is_alphanumeric()).unwrap_or(words.len());
    words[..end].to_owned()
}

fn frame(input: &[u8]) -> String {
    let bytes = Bytes::copy_from_slice(input);
    let digester = Digester::new(CLUSTER);
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    let frame = match Frame::check(bytes.clone(), 16, 4096, digest_of) {
        Ok(frame) => frame,
        Err(error) => return word(&error),
    };
    let operations: usize = frame.body().operations().map(<[u8]>::len).sum();
    assert!(operations <= input.len() && (1..=16).contains(&frame.operation_count()));
    if let Ok(checked) = Checked::<RequestFrame>::new(bytes) {
        again(&checked);
    }
    format!("{:?} {:?}", frame.mode(), frame.mode() == Mode::Ordered)
}

fn application() -> ApplicationId {
    ApplicationId::new("fuzz", 1).expect("it is a name")
}

fn hello(dialled: NodeId) -> Hello {
    Hello {
        cluster: CLUSTER,
        epoch: EPOCH,
        claimed: Peer::Client(ClientId::new(2)),
        dialled,
        application: application(),
    }
}

fn hello_block(input: &[u8]) -> String {
    let mut block = [0; HELLO_BYTES];
    let length = input.len().min(HELLO_BYTES);
    block[..length].copy_from_slice(&input[..length]);
    match Hello::parse(&block) {
        Ok(hello) => {
            assert_eq!(hello.to_bytes(), block, "a hello has one form");
            "hello".to_owned()
        }
        Err(error) => word(&error),
    }
}

struct Everybody;

impl Directory for Everybody {
    fn link_key(&self, _: Peer) -> Option<LinkPublic> {
        Some(LinkSecret::from_bytes(&[8; 32]).public())
    }
}

fn identity(own: Peer, secret: u8) -> Identity {
    Identity {
        cluster: CLUSTER,
        epoch: EPOCH,
        own,
        application: application(),
        secret: LinkSecret::from_bytes(&[secret; 32]),
    }
}

fn dial() -> (Initiator, Progress) {
    let own = identity(Peer::Client(ClientId::new(2)), 8);
    let key = LinkSecret::from_bytes(&[9; 32]).public();
    Initiator::start(&own, NodeId::new(1), &key).expect("the key is a key")
}

/// What each end says first; what it says next depends on what the other end drew.
fn handshakes() -> Vec<Vec<u8>> {
    let (_, first) = dial();
    let mut refused = vec![1];
    refused.extend_from_slice(&[7, 0, 0, 0]);
    let mut goes_on = vec![1];
    goes_on.extend_from_slice(&[0; 52]);
    vec![[&[0][..], &first.write, &[5; 64]].concat(), refused, goes_on]
}

/// Feeds an end what it asks for, as long as there is something.
fn handshake(input: &[u8]) -> String {
    let (end, mut rest) = input.split_first().unwrap_or((&0, &[]));
    let (mut initiator, asked) = dial();
    let (mut responder, awaited) = Responder::start(identity(Peer::Replica(NodeId::new(1)), 9));
    let mut then = if end & 1 == 0 { awaited.then } else { asked.then };
    for step in 0.. {
        let Then::Read(wanted) = then else {
            return "established".to_owned();
        };
        let (bytes, left) = rest.split_at(wanted.min(rest.len()));
        rest = left;
        let result = match end & 1 {
            0 => responder.on_bytes(bytes, &Everybody),
            _ => initiator.on_bytes(bytes),
        };
        match result {
            Ok(progress) => then = progress.then,
            Err(refusal) => return format!("{step} {}", word(&refusal)),
        }
    }
    String::new()
}

const KEY: [u8; 32] = [3; 32];

/// Sealed (odd) or not, and then what is in a record, or records as they are.
fn records_of_links() -> Vec<Vec<u8>> {
    let plain = b"\x03\x00\x00\x00abc\x00\x00\x00\x00\x01\x00\x00\x00z";
    let mut sealed = Vec::new();
    let mut sealer = Sealer::new(&KEY);
    for _ in 0..2 {
        let done = sealer.seal(&mut sealed, |record| record.extend_from_slice(plain));
        done.expect("a new key seals two records");
    }
    vec![
        [&[1][..], plain].concat(),
        [&[0][..], &sealed].concat(),
        [&[14][..], &sealed].concat(),
    ]
}

fn framing(input: &[u8]) -> String {
    let (mode, rest) = input.split_first().unwrap_or((&0, &[]));
    let mut reader = LinkReader::new(Opener::new(&KEY), 4096, BufferPool::new(1));
    let mut bytes = rest.to_vec();
    if mode & 1 == 1 {
        bytes = Vec::new();
        let sealed = Sealer::new(&KEY).seal(&mut bytes, |record| record.extend_from_slice(rest));
        if sealed.is_err() {
            return "not sealed".to_owned();
        }
    }
    let (mut messages, mut total) = (0, 0);
    for chunk in bytes.chunks(usize::from(mode >> 1).max(1)) {
        if let Err(error) = reader.push(chunk) {
            return word(&error);
        }
        loop {
            match reader.next_message() {
                Ok(Some(message)) => (messages, total) = (messages + 1, total + message.len()),
                Ok(None) => break,
                Err(error) => return word(&error),
            }
        }
    }
    assert!(total <= bytes.len() && reader.backlog_bytes() <= bytes.len());
    format!("{} messages", i32::min(messages, 3))
}

fn system() -> Runner {
    let mut lone = Lone::start();
    Box::new(move |input| {
        let (from, message) = message_of(input);
        let kind = match Checked::<SystemMessage>::body_of(&message) {
            Ok(checked) => {
                again(&checked);
                kind_of(&checked)
            }
            Err(_) => "no message",
        };
        let from = NodeId::new([0, 2, 3][from % 3]);
        let became = lone.hear(Peer::Replica(from), message);
        format!("{kind} {became}")
    })
}

fn request() -> Runner {
    let mut lone = Lone::start();
    Box::new(move |input| {
        let (from, message) = message_of(input);
        lone.hear(Peer::Client(ClientId::new(from as u32 % 4)), message)
    })
}

/// What answers the frames that [`reply`] sends.
fn replies_of_session() -> Vec<Vec<u8>> {
    let mut builder = ReplyBuilder::default();
    let mut all = Vec::new();
    for frame in asking(&SimConfig::calm(4, 3)).1 {
        builder.buffer().extend_from_slice(b"\x01result");
        builder.end_result(None);
        let body = builder.finish(&frame);
        all.push(ClientReply::results(CLUSTER, EPOCH, View::new(1), &body));
        for reason in [RefusalReason::Overloaded, RefusalReason::MustSign] {
            all.push(ClientReply::refusal(CLUSTER, EPOCH, View::new(1), &frame, reason));
        }
    }
    all.iter().map(|message| said(message)).collect()
}

/// A session that has just sent a frame of either kind, and their names.
fn asking(config: &SimConfig) -> (Session, Vec<FrameId>) {
    let now = Time::START;
    let mut session = Process::start(now, 0, config, 7).session;
    let question = frames_of(&mut session)[0];
    for node in NodeId::all(config.replicas) {
        let mut builder = ReplyBuilder::default();
        builder.buffer().extend_from_slice(&0u64.to_le_bytes());
        builder.end_result(None);
        let body = builder.finish(&question);
        session.on_message(node, &ClientReply::results(CLUSTER, EPOCH, View::new(1), &body));
    }
    for mode in [Mode::Ordered, Mode::Unordered] {
        let submitted = session.submit(now, b"\x02\x01\x00k", mode, 0, Time::from_nanos(u64::MAX));
        submitted.expect("nothing else is under way");
    }
    session.flush(now);
    let mut sent = frames_of(&mut session);
    sent.dedup();
    (session, sent)
}

/// The frames that a session sends, by name.
fn frames_of(session: &mut Session) -> Vec<FrameId> {
    let digester = Digester::new(CLUSTER);
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    let sent = session.drain_outputs().filter_map(|output| match output {
        Output::Send { message, .. } => {
            Frame::check(message.slice(ENVELOPE_BYTES..), 1 << 20, 1 << 20, digest_of).ok()
        }
        Output::Ended { .. } => None,
    });
    sent.map(|frame| frame.id()).collect()
}

fn reply() -> Runner {
    let config = SimConfig::calm(4, 3);
    Box::new(move |input| {
        let (mut session, sent) = asking(&config);
        let sent = sent.len();
        let (from, message) = message_of(input);
        for turn in 0..2 {
            session.on_message(NodeId::new(((from + turn) % 5) as u16), &message);
        }
        let ended = session.drain_outputs().count();
        format!("{sent} {ended} {}", session.counters().answers_ignored)
    })
}

fn status() -> Bytes {
    let reply = AdminReply {
        node: 1,
        view: 2,
        executed: 3,
        ordered: 4,
        durable: 5,
        phase: "ordering".to_owned(),
        transfer_pieces: 6,
        transfer_pieces_of: 7,
        transfer_bytes: 8,
        transfer_donors: 9,
        transfer_bytes_per_second: 10,
        transfer_milliseconds_left: 11,
        stable: 12,
        orders: true,
        transfers: false,
        abstains: false,
        waits_for_space: false,
        checkpoints: vec![CheckpointTold {
            seq: 13,
            digest: [14; 32],
        }],
        operations: 15,
        replica_links: 16,
        client_links: 17,
        counters: "decisions 3\nmisbehaviour 0\n".to_owned(),
    };
    encode(Envelope::new(Kind::Admin, CLUSTER, EPOCH), &reply, 64)
}

fn admin(input: &[u8]) -> String {
    match Checked::<AdminReply>::new(Bytes::copy_from_slice(input)) {
        Ok(checked) => {
            let lines = checked.counters.lines().count();
            assert!(lines <= input.len());
            again(&checked)
        }
        Err(_) => "malformed".to_owned(),
    }
}

fn record() -> Runner {
    let config = SimConfig::calm(4, 3);
    let reader = RecordReader::new(Digester::new(CLUSTER), config.limits);
    let encoded = |record: &Record| {
        let mut bytes = vec![0; encoded_record_bytes(record)];
        let length = encode_record(record, &mut bytes);
        bytes.truncate(length);
        bytes
    };
    Box::new(move |input| {
        let record = match reader.read(input) {
            Ok(record) => record,
            Err(error) => return word(&error),
        };
        let bytes = encoded(&record);
        let same = reader.read(bytes.get(4..).unwrap_or_default());
        let same = same.expect("what was encoded can be read");
        assert_eq!(encoded(&same), bytes, "a record has one form");
        let mut replica = fresh_replica(NodeId::new(1), &config, &Mixed(SmallKv));
        let restored = replica
            .restore_stable(&record)
            .and_then(|()| replica.restore(&record));
        format!("{} {}", word(&record), restored.is_ok())
    })
}

const PATH: &str = "fuzz";

/// A superblock, or a snapshot: the first byte says which.
fn files() -> Vec<Vec<u8>> {
    let superblock = Superblock::first(CLUSTER, NodeId::new(1), EPOCH, 7);
    let block = &superblock.to_block()[8..112];
    let mut all = vec![[&[0][..], block].concat()];
    let snapshots = captured(&Captured::get().snapshots).into_iter();
    all.extend(snapshots.map(|snapshot| [&[1][..], &snapshot].concat()));
    all
}

/// The checksums are put right before it is read: rot is found by them, and what gets past them must not do
/// worse.
fn disk(input: &[u8]) -> String {
    match input.split_first() {
        Some((kind, rest)) if kind & 1 == 0 => superblock(rest),
        Some((_, rest)) => snapshot(rest),
        None => "nothing".to_owned(),
    }
}

fn superblock(input: &[u8]) -> String {
    let mut block = vec![0; BLOCK_BYTES];
    let length = input.len().min(BLOCK_BYTES - 8);
    block[8..8 + length].copy_from_slice(&input[..length]);
    let sum = xxh3_64_with_seed(&block[8..], 0);
    block[..8].copy_from_slice(&sum.to_le_bytes());
    block.resize(2 * BLOCK_BYTES, 0);
    let path = Path::new(PATH);
    match Superblock::open(path, Some(&block), CLUSTER, NodeId::new(1)) {
        Ok(superblock) => {
            let mut next = superblock;
            next.cut(1, View::new(1));
            let file = [next.to_block(), [0; BLOCK_BYTES]].concat();
            let read = Superblock::newest(path, &file).expect("what was encoded can be read");
            assert_eq!(read, next);
            "superblock".to_owned()
        }
        Err(error) => word(&error),
    }
}

fn snapshot(input: &[u8]) -> String {
    let Some((seed, rest)) = input.split_first_chunk::<8>() else {
        return "short".to_owned();
    };
    let seed = u64::from_le_bytes(*seed);
    let bytes = Bytes::from(with_sums(rest, seed));
    let (path, digester) = (Path::new(PATH), Digester::new(CLUSTER));
    let mut sound = 0;
    let partly = each_sound(path, &bytes[..], seed, |chunk, _| {
        sound += 1;
        let _ = SnapshotChunk::start(chunk);
        if let Ok(parsed) = SnapshotChunk::parse(chunk) {
            let _ = parsed.range();
        }
    });
    let claim = claim_of(path, &bytes, seed, &digester);
    let file = match SnapshotFile::of(path, bytes, seed) {
        Ok(file) => file,
        Err(error) => return format!("{} {} {}", word(&error), i32::min(sound, 3), partly.is_ok()),
    };
    for (piece, until) in [(PieceRange::HEAD, 0), (0, 3), (2, u32::MAX), (u32::MAX - 1, 1)] {
        let (seq, offset) = (0, u64::from(piece));
        let range = PieceRange {
            seq,
            piece,
            offset,
            until,
        };
        let _ = file.read_range(range, 4096);
    }
    let mut executor = Mixed(SmallKv).executor(&SimConfig::calm(4, 3), EPOCH, false);
    let loaded = load(&file, &mut executor);
    if let (Ok(loaded), Ok(claim)) = (&loaded, &claim) {
        assert_eq!(loaded, claim, "a snapshot is what its head says");
    }
    if loaded.is_ok() {
        assert!(executor.executed() >= SeqNo::ZERO);
    }
    format!("snapshot {} {}", loaded.is_ok(), claim.is_ok())
}

/// A snapshot whose chunks have the checksums that belong to them, as far as there are chunks.
fn with_sums(snapshot: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = snapshot.to_vec();
    let mut at = 8;
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let from = at + chunk_head(0, &[], 0).len();
        let until = from.saturating_add(u32::from_le_bytes(*length) as usize);
        let Some(chunk) = bytes.get(from..until) else {
            break;
        };
        let head = chunk_head(at as u64, chunk, seed);
        bytes[at..from].copy_from_slice(&head);
        at = until;
        if from == until {
            break;
        }
    }
    bytes
}
