//! The contract suite: input → the exact list of effects; and the conditions A1, A2 and B, one by one.

mod choice;

use super::*;
use crate::smr::crypto::{Digester, SigningKey};
use crate::smr::messages::archived::{
    ArchivedSyncMessage, ArchivedSystemMessage, ArchivedViewTransferMessage,
};
use crate::smr::messages::{Checked, CheckpointClaim, SignedCheckpoint, SlotDigest, SystemMessage};
use crate::smr::protocol::When;
use crate::smr::types::{Digest, Epoch, Lsn, Quorum};
use crate::smr::view_transfer::Proven;

const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);
const WINDOW: u64 = 8;

fn signing(node: u16) -> SigningKey {
    SigningKey::from_seed(&[node as u8 + 1; 32])
}

fn ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn replica_of(n: usize, node: u16) -> PbftViewChange {
    let context = PartContext {
        node: NodeId::new(node),
        quorum: Quorum::of(n).unwrap(),
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        base: CheckpointClaim::NONE,
        digester: Digester::new(CLUSTER),
        window: WINDOW,
        undecided_bytes_max: usize::MAX,
        clock_bound: Duration::MAX,
        signing: signing(node),
        verifying: NodeId::all(n)
            .map(|node| signing(node.get()).verifying_key())
            .collect(),
        has_log: false,
    };
    let timings = ViewTimings {
        timeout: Duration::from_millis(100),
        timeout_max: Duration::from_millis(350),
        status_period: Duration::from_millis(100),
        review_period: Duration::from_millis(1000),
        fairness: Duration::from_millis(5000),
    };
    PbftViewChange::new(&context, timings)
}

fn replica(node: u16) -> PbftViewChange {
    replica_of(4, node)
}

fn digest(letter: char) -> Digest {
    Digest::from_bytes([letter as u8; 32])
}

/// Evidence of a replica at the beginning of time that prepared these batches in view zero.
fn evidence(prepared: &[(u64, char)]) -> ViewEvidence {
    let placed =
        |(seq, letter): &(u64, char)| SlotDigest::new(SeqNo::new(*seq), &digest(*letter), View::ZERO);
    ViewEvidence {
        stable: CheckpointClaim {
            seq: SeqNo::ZERO,
            digest: Digest::ZERO,
        },
        proof: Vec::new(),
        prepared: prepared.iter().map(placed).collect(),
        pre_prepared: prepared.iter().map(placed).collect(),
    }
}

/// The view change that `node` signs.
fn view_change(node: u16, view: u64, prepared: &[(u64, char)]) -> ViewChange {
    replica(node)
        .proofs
        .sign_view_change(View::new(view), evidence(prepared))
}

fn checkpoint(node: u16, claim: CheckpointClaim) -> SignedCheckpoint {
    SignedCheckpoint {
        seq: claim.seq.get(),
        digest: *claim.digest.as_bytes(),
        signer: node,
        signature: signing(node).sign(
            crate::smr::crypto::Domain::Checkpoint,
            &claim.signed_digest(&Digester::new(CLUSTER)),
        ),
    }
}

/// A replica under test; what ordering would do is done at once, with nothing prepared.
struct Bench {
    protocol: PbftViewChange,
    out: Outbox,
}

impl Bench {
    fn new(node: u16) -> Self {
        Self {
            protocol: replica(node),
            out: Outbox::new(Lsn::ZERO),
        }
    }

    fn told(&mut self) -> Vec<String> {
        let effects: Vec<Effect> = self.out.drain().collect();
        let start = |effect: &Effect| match effect {
            Effect::EnterView(_) => entered(&self.protocol.take_start().unwrap()),
            effect => line(effect),
        };
        effects.iter().map(start).collect()
    }

    fn pending(&mut self, now: u64, oldest: Option<u64>) -> Vec<String> {
        self.protocol
            .on_pending_changed(ms(now), Waiting::since(oldest.map(ms)), &mut self.out);
        self.told()
    }

    fn timeout(&mut self, now: u64, timer: Timer) -> Vec<String> {
        self.protocol.on_timeout(ms(now), timer, &mut self.out);
        self.told()
    }

    fn left(&mut self, now: u64, view: u64, prepared: &[(u64, char)]) -> Vec<String> {
        self.protocol
            .on_view_left(ms(now), View::new(view), evidence(prepared), &mut self.out);
        self.told()
    }

    fn view_change(&mut self, now: u64, message: &ViewChange) -> Vec<String> {
        self.protocol
            .on_view_change(ms(now), message.signer(), message.clone(), &mut self.out);
        self.told()
    }

    fn complaint(&mut self, from: u16, view: u64) -> Vec<String> {
        self.protocol
            .on_complaint(NodeId::new(from), View::new(view), &mut self.out);
        self.told()
    }

    /// What is said before the status when that is due, if anything.
    fn status_due(&mut self, now: u64) -> String {
        let standing = OrderingProgress {
            stable: SeqNo::ZERO,
            decided: SeqNo::ZERO,
            asks: false,
            slots: Vec::new(),
            disputed: Vec::new(),
        };
        self.protocol.on_status_due(ms(now), standing, &mut self.out);
        let sent = self.out.drain().filter_map(|effect| match effect {
            Effect::Send { message, when, .. } => Some(match when {
                When::DurableIfRoom(_) => format!("{} if there is room", what(&message)),
                When::Now | When::Durable(_) => what(&message),
            }),
            _ => None,
        });
        sent.collect::<Vec<_>>().remove(0)
    }

    fn new_view(&mut self, now: u64, from: u16, message: &NewView) -> Vec<String> {
        self.protocol
            .on_new_view(ms(now), NodeId::new(from), message.clone(), &mut self.out);
        self.told()
    }

    /// A view change that `from` passes on.
    fn passed_on(&mut self, now: u64, from: u16, message: &ViewChange) -> Vec<String> {
        self.protocol
            .on_view_change(ms(now), NodeId::new(from), message.clone(), &mut self.out);
        self.told()
    }

    /// The view changes that this one asks for.
    fn fetched(&mut self, now: u64, from: u16, wanted: &[NamedViewChange]) -> Vec<String> {
        self.protocol
            .on_fetch(ms(now), NodeId::new(from), wanted, &mut self.out);
        self.told()
    }

    fn status(&mut self, now: u64, from: u16, status: &Status) -> Vec<String> {
        self.protocol
            .on_status(ms(now), NodeId::new(from), status, &mut self.out);
        self.told()
    }
}

fn line(effect: &Effect) -> String {
    match effect {
        Effect::Persist { lsn, record } => match record {
            Record::View(view) => format!("log {lsn}: view {view}"),
            Record::ViewTransfer(message) => format!("log {lsn}: {}", what(message)),
            _ => "log something else".into(),
        },
        Effect::Send { to, message, when } => {
            let to = match to {
                Recipients::Others => "all".into(),
                Recipients::One(node) => node.to_string(),
            };
            let when = match when {
                When::Now => "now".into(),
                When::Durable(lsn) | When::DurableIfRoom(lsn) => format!("after {lsn}"),
            };
            format!("send {} {to} {when}", what(message))
        }
        Effect::SetTimer { timer, at } => format!("{timer:?} at {at:?}"),
        Effect::CancelTimer(timer) => format!("no {timer:?}"),
        Effect::Rejected(r) => format!("refused {} {:?} {:?}", r.from, r.view, r.reason),
        Effect::LeaveView(view) => format!("leave for {view:?}"),
        Effect::BroadcastPending => "share".into(),
        Effect::UrgePending(_) => "urge".into(),
        _ => "something else".into(),
    }
}

fn entered(start: &ViewStart) -> String {
    let chosen = start.chosen.iter().map(|d| match d.as_bytes()[0] {
        0 => '0',
        byte => char::from(byte),
    });
    let chosen: String = chosen.collect();
    format!("enter {:?} after {:?}: {chosen}", start.view, start.stable.seq)
}

fn what(message: &Bytes) -> String {
    let checked = Checked::<SystemMessage>::body_of(message).unwrap();
    match &*checked {
        ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::Status(_)) => "status".into(),
        ArchivedSystemMessage::ViewTransferMessage(_) => match &*checked.of_views().unwrap() {
            ArchivedViewTransferMessage::ViewChange(_) => "view change".into(),
            ArchivedViewTransferMessage::NewView(_) => "new view".into(),
            ArchivedViewTransferMessage::FetchViewChanges(wanted) => {
                let wanted = wanted.iter().map(|named| named.to_named().signer().to_string());
                format!("fetch of {}", wanted.collect::<Vec<_>>().join(","))
            }
            ArchivedViewTransferMessage::Complaint(view) if view.to_native() == 0 => "withdrawal".into(),
            ArchivedViewTransferMessage::Complaint(_) => "complaint".into(),
        },
        _ => "something else".into(),
    }
}

const NOTHING: [&str; 0] = [];
const COMPLAINT: &str = "send complaint all now";

#[test]
fn a_leader_is_suspected_when_a_request_waits_and_nothing_is_executed_for_a_timeout() {
    let mut backup = Bench::new(1);
    assert_eq!(backup.pending(10, Some(10)), ["Progress at 60ms"]);
    assert_eq!(backup.pending(50, Some(10)), NOTHING, "the timer runs");
    let shared = backup.timeout(60, Timer::Progress);
    assert_eq!(shared, ["share", "Progress at 110ms"], "it may be here alone");
    assert_eq!(backup.timeout(110, Timer::Progress), [COMPLAINT]);
    assert_eq!(backup.pending(120, Some(10)), NOTHING, "it is said");
}

#[test]
fn what_waits_is_shared_once_for_each_request_that_waits_longest() {
    let mut backup = Bench::new(1);
    backup.pending(10, Some(10));
    assert_eq!(
        backup.timeout(60, Timer::Progress),
        ["share", "Progress at 110ms"]
    );
    backup.protocol.on_executed(ms(100), 1);
    assert_eq!(backup.timeout(110, Timer::Progress), ["Progress at 200ms"]);
    // That one was decided at last; another waits.
    backup.pending(150, Some(120));
    assert_eq!(
        backup.timeout(200, Timer::Progress),
        ["share", "Progress at 220ms"]
    );
}

#[test]
fn a_leader_under_load_is_not_suspected_while_anything_is_executed() {
    let mut backup = Bench::new(1);
    backup.pending(10, Some(10));
    for round in 0..50 {
        let now = 60 + 40 * round;
        backup.protocol.on_executed(ms(now - 10), 1);
        backup.pending(now, Some(10));
        let told = backup.timeout(now, Timer::Progress);
        assert_eq!(told, [format!("Progress at {:?}", ms(now + 40))]);
    }
}

#[test]
fn null_requests_and_repeated_frames_are_no_progress() {
    let mut backup = Bench::new(1);
    backup.pending(10, Some(10));
    backup.protocol.on_executed(ms(100), 0);
    assert_eq!(backup.timeout(110, Timer::Progress), ["share", COMPLAINT]);
}

#[test]
fn nobody_is_suspected_while_nothing_waits() {
    let mut backup = Bench::new(1);
    backup.pending(10, Some(10));
    backup.pending(20, None);
    assert_eq!(backup.timeout(60, Timer::Progress), NOTHING);
    assert_eq!(backup.pending(500, Some(490)), ["Progress at 540ms"]);
}

#[test]
fn a_view_change_is_logged_and_sent() {
    let mut backup = Bench::new(3);
    assert_eq!(
        backup.left(0, 1, &[(1, 'a')]),
        ["log 0: view 1", "send view change all after 0"]
    );
    assert!(!backup.protocol.is_active());
    assert_eq!(backup.protocol.view(), View::new(1));
}

#[test]
fn a_replica_joins_the_highest_view_that_f_plus_one_others_reached() {
    let mut backup = Bench::new(3);
    assert_eq!(
        backup.view_change(0, &view_change(0, 7, &[])),
        NOTHING,
        "one may lie"
    );
    assert_eq!(backup.view_change(0, &view_change(1, 4, &[])), ["leave for v4"]);
    backup.left(0, 4, &[]);
    assert_eq!(backup.view_change(0, &view_change(2, 6, &[])), ["leave for v6"]);
}

#[test]
fn the_view_change_timer_starts_with_a_quorum_and_asks_for_the_next_view() {
    let mut backup = Bench::new(3);
    backup.left(0, 1, &[]);
    assert_eq!(backup.view_change(5, &view_change(0, 1, &[])), NOTHING);
    assert_eq!(
        backup.view_change(10, &view_change(2, 1, &[])),
        ["ViewChange at 110ms"]
    );
    let complaint = "send complaint all after 0";
    assert_eq!(backup.timeout(110, Timer::ViewChange), [complaint]);
    // What is repeated is not kept for a disk that is full: one every status, for as long as it is.
    assert_eq!(backup.status_due(120), "complaint if there is room");
    assert_eq!(backup.complaint(0, 2), NOTHING);
    assert_eq!(backup.complaint(2, 2), ["leave for v2"]);
}

#[test]
fn every_attempt_without_progress_doubles_the_timeout_up_to_the_cap() {
    let mut backup = Bench::new(3);
    for (view, timeout) in [(1, 100), (2, 200), (5, 350), (6, 350)] {
        backup.left(0, view, &[]);
        backup.view_change(0, &view_change(0, view, &[]));
        let told = backup.view_change(0, &view_change(2, view, &[]));
        let expected = format!("ViewChange at {:?}", ms(timeout));
        assert!(told.contains(&expected), "{told:?} lacks {expected}");
    }
}

#[test]
fn a_timeout_that_proved_necessary_is_kept_and_fades_as_waits_get_shorter() {
    let wait = |backup: &mut Bench, from: u64, to: u64| {
        backup.pending(from, Some(from));
        backup.protocol.on_executed(ms(to), 1);
        backup.pending(to, None);
    };
    let timeout = |backup: &Bench| backup.protocol.patience.timeout().as_millis();
    // What is executed at once shows nothing against the timeout; nor does what nobody waits for.
    let mut backup = Bench::new(3);
    wait(&mut backup, 10, 59);
    backup.protocol.on_executed(ms(900), 1);
    backup.left(1000, 1, &[]);
    assert_eq!(timeout(&backup), 100);
    // A view whose waits came near it ended for want of time.
    let mut backup = Bench::new(3);
    wait(&mut backup, 10, 90);
    backup.left(1000, 1, &[]);
    assert_eq!(timeout(&backup), 200);
    // To execute what was decided before is no progress of a view that has not begun.
    backup.protocol.on_executed(ms(1001), 1);
    backup.left(1002, 2, &[]);
    assert_eq!(timeout(&backup), 350);

    // Whoever enters a view unasked learns it as well.
    let mut backup = heard(3, &view_changes(1, &[0, 1, 2]));
    wait(&mut backup, 10, 90);
    backup.new_view(100, 1, &new_view(1, &[0, 1, 2]));
    assert!(backup.protocol.is_active());
    assert_eq!(timeout(&backup), 200);
    backup.timeout(1000, Timer::LeaderReview);
    assert_eq!(timeout(&backup), 200, "nothing waited");
    for second in 1..50 {
        wait(&mut backup, 1000 * second, 1000 * second + 100);
        backup.timeout(1000 * second + 999, Timer::LeaderReview);
        assert_eq!(timeout(&backup), 200, "it is needed");
    }
    let mut faded = Vec::new();
    for second in 50..1000 {
        wait(&mut backup, 1000 * second, 1000 * second + 30);
        backup.timeout(1000 * second + 999, Timer::LeaderReview);
        faded.push(timeout(&backup));
    }
    assert!(faded.is_sorted_by(|before, after| before >= after), "{faded:?}");
    assert!(faded[59] > 150, "a minute is not enough to forget: {faded:?}");
    assert_eq!(timeout(&backup), 100);
}

#[test]
fn the_leader_begins_its_view_with_a_quorum_of_view_changes() {
    let mut leader = Bench::new(1);
    leader.left(0, 1, &[(1, 'a')]);
    leader.view_change(0, &view_change(2, 1, &[(1, 'a')]));
    assert_eq!(
        leader.view_change(0, &view_change(3, 1, &[(1, 'a'), (3, 'c')])),
        [
            "ViewChange at 100ms",
            // c at s3 is prepared at one replica and accepted at one: neither A2 nor B.
        ]
    );
    assert_eq!(
        leader.view_change(0, &view_change(0, 1, &[(1, 'a')])),
        [
            "log 1: view change",
            "log 2: view change",
            "log 3: view change",
            "log 4: view change",
            "log 5: new view",
            "send new view all after 5",
            "no ViewChange",
            "enter v1 after s0: a00",
        ]
    );
    assert!(leader.protocol.is_active());
}

#[test]
fn view_changes_for_another_view_do_not_begin_this_one() {
    let mut leader = Bench::new(1);
    leader.left(0, 1, &[]);
    leader.view_change(0, &view_change(2, 1, &[]));
    assert_eq!(
        leader.view_change(0, &view_change(3, 5, &[])),
        ["ViewChange at 100ms"]
    );
}

/// The view changes of these replicas, each of which prepared a at s1.
fn view_changes(view: u64, signers: &[u16]) -> Vec<ViewChange> {
    let each = signers.iter().map(|node| view_change(*node, view, &[(1, 'a')]));
    each.collect()
}

fn name(message: &ViewChange) -> NamedViewChange {
    replica(0).proofs.held(message.clone()).name()
}

/// The new view that names these, by the leader of its view.
fn naming(view: u64, view_changes: &[ViewChange]) -> NewView {
    let leader = View::new(view).turn(4);
    let named = view_changes.iter().map(name).collect();
    replica(leader.get()).proofs.sign_new_view(View::new(view), named)
}

fn new_view(view: u64, signers: &[u16]) -> NewView {
    naming(view, &view_changes(view, signers))
}

const ENTERED: [&str; 6] = [
    "log 0: view change",
    "log 1: view change",
    "log 2: view change",
    "log 3: new view",
    "no ViewChange",
    "enter v1 after s0: a",
];

/// A replica that has heard these view changes for view 1.
fn heard(node: u16, all: &[ViewChange]) -> Bench {
    let mut bench = Bench::new(node);
    all.iter().for_each(|message| {
        bench
            .protocol
            .on_view_change(ms(0), message.signer(), message.clone(), &mut bench.out);
    });
    bench.told();
    bench
}

#[test]
fn a_backup_that_has_what_a_new_view_names_enters_it_whoever_passes_it_on() {
    let [first, second, third] = &view_changes(1, &[0, 1, 2])[..] else {
        unreachable!()
    };
    let mut backup = Bench::new(3);
    backup.view_change(0, first);
    assert_eq!(backup.view_change(0, second), ["leave for v1"]);
    backup.view_change(0, third);
    assert_eq!(backup.new_view(0, 0, &new_view(1, &[0, 1, 2])), ENTERED);
    assert_eq!(
        backup.new_view(0, 1, &new_view(1, &[0, 1, 2])),
        ["refused r1 v1 Duplicate"]
    );
    assert_eq!(
        backup.new_view(0, 2, &new_view(0, &[0, 1, 2])),
        ["refused r2 v0 OldView"]
    );
}

#[test]
fn a_backup_asks_who_sent_a_new_view_for_the_view_changes_that_it_lacks() {
    let all = view_changes(1, &[0, 1, 2]);
    let mut backup = heard(3, &all[1..2]);
    let asked = ["send fetch of r0,r2 r2 now"];
    assert_eq!(backup.new_view(0, 2, &naming(1, &all)), asked);
    assert_eq!(backup.passed_on(0, 2, &all[0]), NOTHING, "one is missing still");
    let again = backup.passed_on(0, 2, &all[0]);
    assert_eq!(again, ["refused r2 v1 Duplicate"]);
    assert_eq!(
        backup.new_view(50, 1, &naming(1, &all)),
        NOTHING,
        "somebody was asked a moment ago"
    );
    assert_eq!(
        backup.new_view(100, 1, &naming(1, &all)),
        ["send fetch of r2 r1 now"]
    );
    assert_eq!(backup.passed_on(120, 0, &all[2]), ENTERED, "whoever passes it on");
}

#[test]
fn the_view_change_that_is_named_counts_whichever_came_first() {
    // r0 says one thing to the leader, and another one here.
    let mut all = view_changes(1, &[0, 1, 2]);
    let other = view_change(0, 1, &[]);
    let mut backup = heard(3, &[other.clone(), all[1].clone(), all[2].clone()]);
    assert_eq!(
        backup.new_view(0, 1, &naming(1, &all)),
        ["send fetch of r0 r1 now"]
    );
    assert_eq!(backup.passed_on(0, 1, &other), ["refused r1 v1 Duplicate"]);
    let edited = ViewChange {
        prepared: Vec::new(),
        ..all[0].clone()
    };
    assert_eq!(backup.passed_on(0, 1, &edited), ["refused r1 v1 Duplicate"]);
    let mut unsigned = all[0].clone();
    unsigned.signature = [0; 64];
    assert_eq!(backup.passed_on(0, 1, &unsigned), ["refused r1 v1 BadSignature"]);
    assert_eq!(backup.passed_on(0, 1, &all[0]), ENTERED);
    // Its own of before a restart is nothing else.
    let mut backup = heard(0, &all[1..]);
    backup.left(0, 1, &[]);
    assert_eq!(
        backup.new_view(0, 1, &naming(1, &all)),
        ["send fetch of r0 r1 now"]
    );
    all.rotate_left(1);
    assert_eq!(
        backup.passed_on(0, 1, &all[2]).last().unwrap(),
        "enter v1 after s0: a"
    );
}

#[test]
fn what_a_signer_asked_for_since_does_not_stand_in_the_way_of_what_is_named() {
    let all = view_changes(1, &[0, 1, 2]);
    let mut backup = heard(3, &all);
    backup.view_change(0, &view_change(0, 2, &[]));
    assert_eq!(
        backup.new_view(0, 1, &naming(1, &all)),
        ["send fetch of r0 r1 now"]
    );
    assert_eq!(backup.view_change(0, &all[0]), ENTERED);
}

#[test]
fn a_new_view_that_names_what_nobody_has_holds_up_no_other() {
    let all = view_changes(1, &[0, 1, 2]);
    let mut backup = heard(3, &all[1..]);
    let false_ones = [
        view_change(0, 1, &[]),
        view_change(1, 1, &[]),
        view_change(2, 1, &[]),
    ];
    let bogus = naming(1, &false_ones);
    assert_eq!(backup.new_view(0, 1, &bogus), ["send fetch of r0,r1,r2 r1 now"]);
    assert_eq!(
        backup.new_view(10, 2, &naming(1, &all)),
        NOTHING,
        "one after the other"
    );
    assert_eq!(
        backup.passed_on(20, 2, &all[0]),
        ["refused r2 v1 Duplicate"],
        "it is not its turn"
    );
    let standing = || OrderingProgress {
        stable: SeqNo::ZERO,
        decided: SeqNo::ZERO,
        asks: false,
        slots: Vec::new(),
        disputed: Vec::new(),
    };
    backup
        .protocol
        .on_status_due(ms(200), standing(), &mut backup.out);
    assert_eq!(backup.told().last().unwrap(), "send fetch of r0 r2 now");
    assert_eq!(backup.passed_on(210, 2, &all[0]), ENTERED);
    assert!(
        backup.protocol.awaited.attended().is_none(),
        "what is over is forgotten"
    );
}

#[test]
fn what_a_view_was_entered_by_is_given_to_those_that_lack_it() {
    let all = view_changes(1, &[0, 1, 2]);
    let wanted: Vec<NamedViewChange> = all.iter().map(name).collect();
    let mut backup = heard(3, &all);
    assert_eq!(backup.fetched(0, 0, &wanted), NOTHING, "it has entered nothing");
    backup.new_view(0, 1, &naming(1, &all));
    let given = ["send view change r0 now"; 2];
    assert_eq!(backup.fetched(100, 0, &wanted[..2]), given);
    assert_eq!(backup.fetched(199, 0, &wanted), NOTHING, "no amplifier");
    let other = name(&view_change(0, 1, &[]));
    assert_eq!(backup.fetched(200, 0, &[other]), NOTHING);
}

#[test]
fn a_restart_reads_what_a_view_was_entered_by_as_far_as_the_log_has_it() {
    let all = view_changes(1, &[0, 1, 2]);
    let mut backup = heard(3, &all);
    backup
        .protocol
        .on_new_view(ms(0), NodeId::new(1), naming(1, &all), &mut backup.out);
    let records: Vec<Record> = backup
        .out
        .drain()
        .filter_map(|effect| match effect {
            Effect::Persist { record, .. } => Some(record),
            _ => None,
        })
        .collect();
    let restored = |records: &[Record]| {
        let mut again = replica(3);
        let mut starts = Vec::new();
        for record in records {
            let start = again.restore(record).unwrap();
            if matches!(record, Record::ViewTransfer(message) if what(message) == "new view") {
                starts.push(start);
            }
        }
        (again, starts)
    };
    let (again, starts) = restored(&records);
    assert_eq!(starts[0].as_ref().unwrap().chosen, [digest('a')]);
    assert!(again.is_active());
    // A log that was cut in between, with all of it again further on.
    let cut = [&records[1..], &again.base_records()].concat();
    let (again, starts) = restored(&cut);
    assert!(starts[0].is_none() && starts[1].is_some());
    assert_eq!(again.base_records().len(), 4);
}

#[test]
fn a_new_view_that_breaks_a_rule_is_refused() {
    let all = view_changes(1, &[0, 1, 2]);
    let mut backup = heard(3, &all);
    let mut refused = |message: &NewView, reason: &str| {
        assert_eq!(
            backup.new_view(0, 1, message),
            [format!("refused r1 v1 {reason}")]
        );
    };
    refused(&new_view(1, &[0, 1]), "BadViewChange");
    refused(&new_view(1, &[0, 1, 1]), "BadViewChange");
    refused(&new_view(1, &[0, 2, 1]), "BadViewChange");
    refused(&naming(1, &[]), "BadViewChange");
    let leader = replica(1);
    let mut unknown = new_view(1, &[0, 1, 2]);
    unknown.view_changes[2].signer = 4;
    refused(
        &leader.proofs.sign_new_view(View::new(1), unknown.view_changes),
        "BadViewChange",
    );
    let mut edited = new_view(1, &[0, 1, 2]);
    edited.view_changes[0].digest = [0; 32];
    refused(&edited, "BadSignature");
    let usurped = replica(2)
        .proofs
        .sign_new_view(View::new(1), new_view(1, &[0, 1, 2]).view_changes);
    refused(&usurped, "BadViewChange");
}

#[test]
fn a_new_view_whose_view_changes_do_not_begin_it_is_refused_once_they_are_here() {
    let open = [(0, vec![(1, 'a')]), (1, vec![(1, 'b')]), (2, vec![])];
    let open = open.map(|(node, prepared)| view_change(node, 1, &prepared));
    let refused = ["refused r2 v1 BadViewChange"];
    assert_eq!(heard(3, &open).new_view(0, 2, &naming(1, &open)), refused);
    // The last of them comes later: who sent the new view is to blame.
    let mut backup = heard(3, &open[..2]);
    backup.new_view(0, 2, &naming(1, &open));
    assert_eq!(backup.passed_on(0, 1, &open[2])[..1], refused);
    let mut mixed = view_changes(1, &[0, 1]);
    mixed.push(view_change(2, 2, &[]));
    let mut backup = heard(3, &mixed);
    assert_eq!(backup.new_view(0, 2, &naming(1, &mixed)), refused);
}

#[test]
fn view_changes_must_be_signed_by_their_sender_and_sound() {
    let mut backup = Bench::new(3);
    let valid = view_change(0, 1, &[(1, 'a')]);
    let mut send = |from: u16, message: ViewChange| {
        backup
            .protocol
            .on_view_change(ms(0), NodeId::new(from), message, &mut backup.out);
        backup.told()
    };
    assert_eq!(
        send(2, valid.clone()),
        ["refused r2 v1 Duplicate"],
        "nobody asked for it"
    );
    assert_eq!(send(9, valid.clone()), ["refused r9 v1 BadSignature"]);
    let mut edited = valid.clone();
    edited.pre_prepared.clear();
    assert_eq!(send(0, edited), ["refused r0 v1 BadSignature"]);
    let sign = |view: u64, edit: &dyn Fn(&mut ViewEvidence)| {
        let mut evidence = evidence(&[(1, 'a'), (2, 'b')]);
        edit(&mut evidence);
        replica(0).proofs.sign_view_change(View::new(view), evidence)
    };
    let bad = ["refused r0 v1 BadViewChange"];
    assert_eq!(send(0, sign(1, &|e| e.prepared.reverse())), bad);
    assert_eq!(send(0, sign(1, &|e| e.prepared[1].seq = WINDOW + 1)), bad);
    assert_eq!(send(0, sign(1, &|e| e.prepared[1].seq = 0)), bad);
    assert_eq!(send(0, sign(1, &|e| e.prepared[1].view = 1)), bad);
    assert_eq!(send(0, sign(1, &|e| e.pre_prepared[1] = e.pre_prepared[0])), bad);
    assert_eq!(send(0, sign(1, &|e| e.stable.seq = SeqNo::new(1))), bad);
    let crowd = |count: u8| {
        let one = |byte: u8| SlotDigest::new(SeqNo::new(3), &Digest::from_bytes([byte; 32]), View::ZERO);
        move |e: &mut ViewEvidence| e.pre_prepared.extend((1..=count).map(one))
    };
    let most = crate::smr::messages::lengths::PRE_PREPARED_MAX as u8;
    assert_eq!(send(0, sign(1, &crowd(most + 1))), bad);
    assert_eq!(
        replica(3).proofs.check_view_change(&sign(1, &crowd(most))),
        Ok(()),
        "what a correct replica carries"
    );
    assert_eq!(send(0, sign(0, &|_| ())), ["refused r0 v0 OldView"]);
    assert_eq!(send(0, valid.clone()), NOTHING);
    assert_eq!(send(0, valid), ["refused r0 v1 Duplicate"]);
}

#[test]
fn a_stable_checkpoint_in_a_view_change_needs_a_quorum_of_distinct_signers() {
    let claim = CheckpointClaim {
        seq: SeqNo::new(5),
        digest: digest('k'),
    };
    let judge = |proof: Vec<SignedCheckpoint>| {
        let evidence = ViewEvidence {
            stable: claim,
            proof,
            ..evidence(&[])
        };
        let message = replica(0).proofs.sign_view_change(View::new(1), evidence);
        replica(3).proofs.check_view_change(&message)
    };
    let by = |nodes: &[u16]| nodes.iter().map(|node| checkpoint(*node, claim)).collect();
    assert_eq!(judge(by(&[0, 1, 2])), Ok(()));
    assert_eq!(judge(by(&[0, 1])), Err(Rejection::BadViewChange));
    assert_eq!(judge(by(&[0, 1, 1])), Err(Rejection::BadViewChange));
    assert_eq!(judge(by(&[0, 1, 7])), Err(Rejection::BadViewChange));
    let mut other: Vec<SignedCheckpoint> = by(&[0, 1, 2]);
    other[2].digest = [1; 32];
    assert_eq!(judge(other), Err(Rejection::BadViewChange));
}

fn status(view: u64, active: bool, view_changes: &[u64]) -> Status {
    Status {
        view,
        active,
        stable: 0,
        decided: 0,
        view_changes: view_changes.to_vec(),
        asks: false,
        slots: Vec::new(),
        disputed: Vec::new(),
        complaint: 0,
    }
}

#[test]
fn a_peer_that_lacks_our_view_change_is_sent_it_until_it_has_it() {
    let mut backup = Bench::new(3);
    backup.left(0, 2, &[]);
    let again = ["send view change r0 after 0"];
    assert_eq!(backup.status(0, 0, &status(0, true, &[])), again);
    assert_eq!(
        backup.status(99, 0, &status(0, true, &[])),
        NOTHING,
        "no amplifier"
    );
    assert_eq!(backup.status(100, 0, &status(2, false, &[0, 0, 0, 1])), again);
    assert_eq!(backup.status(200, 0, &status(2, false, &[0, 0, 0, 2])), NOTHING);
    assert_eq!(backup.status(300, 0, &status(2, true, &[])), NOTHING);
    assert_eq!(backup.status(400, 0, &status(3, false, &[])), NOTHING);
}

#[test]
fn a_peer_that_lacks_the_new_view_is_sent_it() {
    let mut backup = heard(3, &view_changes(1, &[0, 1, 2]));
    backup.new_view(0, 1, &new_view(1, &[0, 1, 2]));
    let again = ["send new view r0 after 3"];
    assert_eq!(backup.status(0, 0, &status(0, true, &[])), again);
    assert_eq!(backup.status(200, 0, &status(1, false, &[])), again);
    assert_eq!(backup.status(400, 0, &status(1, true, &[])), NOTHING);
}

#[test]
fn view_changes_of_each_replica_take_one_place() {
    let mut backup = Bench::new(3);
    for view in 1..20 {
        backup.view_change(0, &view_change(0, view, &[]));
    }
    assert_eq!(backup.protocol.view_changes.iter().flatten().count(), 1);
}

#[test]
fn a_status_tells_where_we_are_and_comes_again() {
    let mut backup = Bench::new(3);
    let standing = OrderingProgress {
        stable: SeqNo::ZERO,
        decided: SeqNo::ZERO,
        asks: false,
        slots: Vec::new(),
        disputed: Vec::new(),
    };
    backup.protocol.on_status_due(ms(0), standing, &mut backup.out);
    assert_eq!(backup.told(), ["Status at 100ms", "send status all now"]);
}

#[test]
fn a_leader_far_below_the_throughput_seen_before_is_replaced_if_requests_wait() {
    let mut backup = Bench::new(3);
    let mut period = |now: u64, operations: usize, waiting: bool| {
        backup.protocol.on_executed(ms(now - 1), operations);
        backup.pending(now, waiting.then_some(now - 2500));
        backup.timeout(now, Timer::LeaderReview)
    };
    let next = |now: u64| format!("LeaderReview at {:?}", ms(now + 1000));
    for round in 3..6 {
        assert_eq!(period(1000 * round, 1000, true)[0], next(1000 * round));
    }
    for round in 6..9 {
        assert_eq!(period(1000 * round, 10, false).len(), 1, "nothing waits");
    }
    assert_eq!(period(9_000, 10, true), [next(9000), "urge".into()]);
    assert_eq!(period(10_000, 10, true).len(), 2);
    let last = period(11_000, 10, true);
    assert_eq!(last, [next(11_000), "urge".into(), COMPLAINT.into()]);
}

#[test]
fn a_leader_is_not_slow_where_everything_takes_as_long() {
    let review = |learnt: u64| {
        let mut review = LeaderMonitor::new(Duration::from_secs(1), Duration::from_secs(8));
        let mut period = |second: u64, operations: usize| {
            review.on_executed(operations);
            let waited = Duration::from_millis(2500);
            review.end_period(ms(1000 * second), waited, Duration::from_millis(learnt))
        };
        (1..4).any(|second| period(second, 100)) || (4..8).any(|second| period(second, 10))
    };
    assert!(review(0) && review(500));
    assert!(!review(501), "all wait for so long here");
}

#[test]
fn a_leader_that_leaves_one_request_waiting_for_ever_is_replaced() {
    let mut backup = Bench::new(3);
    for round in 3..8 {
        backup.protocol.on_executed(ms(1000 * round), 1000);
        backup.pending(1000 * round, Some(3000));
        let told = backup.timeout(1000 * round, Timer::LeaderReview);
        assert_eq!(
            told.len(),
            if round == 3 { 1 } else { 2 },
            "it is passed on again"
        );
    }
    backup.protocol.on_executed(ms(8000), 1000);
    assert_eq!(
        backup.timeout(8000, Timer::LeaderReview)[1..],
        ["urge", COMPLAINT]
    );
    backup.protocol.on_executed(ms(8001), 1000);
    assert_eq!(
        backup.status_due(8100),
        "complaint",
        "others' progress is no answer to it"
    );
    for round in 9..13 {
        backup.pending(1000 * round, None);
        backup.timeout(1000 * round, Timer::LeaderReview);
    }
    assert_eq!(
        backup.status_due(13_100),
        "withdrawal",
        "it is withdrawn when it holds no more"
    );
}

#[test]
fn a_request_that_proves_itself_to_some_only_is_shared_and_held_against_nobody() {
    let mut backup = Bench::new(3);
    let mut waiting = Waiting {
        oldest: Some(ms(10)),
        proven: None,
    };
    let pending = |backup: &mut Bench, waiting| {
        backup
            .protocol
            .on_pending_changed(ms(10), waiting, &mut backup.out);
        backup.told()
    };
    assert_eq!(pending(&mut backup, waiting), ["Progress at 60ms"]);
    assert_eq!(backup.timeout(60, Timer::Progress), ["share"]);
    for round in 3..20 {
        backup.protocol.on_executed(ms(1000 * round), 1000);
        let told = backup.timeout(1000 * round, Timer::LeaderReview);
        assert_eq!(told[1..], ["urge"]);
    }
    // It is signed when half of the time is over: the leader has the other half.
    let mut backup = Bench::new(3);
    pending(&mut backup, waiting);
    backup.timeout(60, Timer::Progress);
    waiting.proven = Some(Proven {
        since: ms(10),
        at: ms(70),
    });
    assert_eq!(pending(&mut backup, waiting), ["Progress at 120ms"]);
    assert_eq!(backup.timeout(120, Timer::Progress), [COMPLAINT]);
}

#[test]
fn a_leader_is_not_blamed_while_there_is_something_to_execute() {
    let mut backup = Bench::new(1);
    backup.pending(10, Some(10));
    for now in (20..2000).step_by(10) {
        backup.protocol.on_executing(ms(now));
    }
    assert_eq!(backup.timeout(1995, Timer::Progress), ["Progress at 2.04s"]);
    assert_eq!(
        backup.timeout(2040, Timer::Progress),
        ["share", "Progress at 2.09s"]
    );
    assert_eq!(backup.timeout(2090, Timer::Progress), [COMPLAINT]);
}

#[test]
fn a_single_replica_has_nobody_to_change_to() {
    let mut only = replica_of(1, 0);
    let mut out = Outbox::new(Lsn::ZERO);
    only.on_pending_changed(ms(0), Waiting::since(Some(ms(0))), &mut out);
    only.on_timeout(ms(1000), Timer::Progress, &mut out);
    only.on_timeout(ms(1000), Timer::LeaderReview, &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_view_is_left_when_a_quorum_complains_and_not_before() {
    let mut backup = Bench::new(3);
    assert_eq!(backup.complaint(0, 1), NOTHING, "one may lie");
    assert_eq!(
        backup.complaint(1, 1),
        [COMPLAINT, "leave for v1"],
        "one of f+1 is correct, and with us they are a quorum"
    );
    let mut of_seven = replica_of(7, 6);
    let mut out = Outbox::new(Lsn::ZERO);
    let mut told = |from: u16, view: u64| {
        of_seven.on_complaint(NodeId::new(from), View::new(view), &mut out);
        out.drain().map(|effect| line(&effect)).collect::<Vec<_>>()
    };
    assert_eq!(told(0, 1), NOTHING);
    assert_eq!(told(0, 9), NOTHING, "one that speaks twice is one");
    assert_eq!(told(1, 9), NOTHING);
    assert_eq!(
        told(2, 1),
        [COMPLAINT],
        "f+1 others: for the next view, whatever they name"
    );
    for _ in 0..1000 {
        assert_eq!(told(2, 0), NOTHING, "it is not withdrawn before a status is due");
        assert_eq!(told(2, 1), NOTHING);
    }
    assert_eq!(
        told(3, 1),
        ["leave for v1"],
        "the view that a quorum wants at least"
    );
}

#[test]
fn a_replica_that_fell_far_behind_goes_to_the_view_that_f_plus_one_others_have_reached_in_one_step() {
    let mut backup = Bench::new(3);
    assert_eq!(backup.complaint(0, 300), NOTHING, "one may lie");
    assert_eq!(
        backup.complaint(0, 0),
        NOTHING,
        "what it reached it does not take back"
    );
    assert_eq!(
        backup.complaint(1, 200),
        ["leave for v199"],
        "whoever complains for a view has the one before on disk, and one of f+1 is correct"
    );
    backup.left(10, 199, &[]);
    assert_eq!(
        backup.complaint(0, 300),
        ["send complaint all after 0", "leave for v200"],
        "a quorum wants the next one, ourselves included"
    );
}

#[test]
fn a_replica_that_was_cut_off_stays_in_its_view_and_takes_its_complaint_back() {
    let mut backup = Bench::new(1);
    backup.pending(10, Some(10));
    backup.timeout(60, Timer::Progress);
    assert_eq!(backup.timeout(110, Timer::Progress), [COMPLAINT]);
    assert_eq!(backup.status_due(200), "complaint", "whoever missed it hears it");
    assert!(backup.protocol.is_active());
    backup.protocol.on_executed(ms(3000), 1);
    assert_eq!(backup.status_due(3010), "withdrawal");
    assert_eq!(backup.status_due(3110), "status");
    assert_eq!(
        backup.pending(3200, Some(3200)),
        ["Progress at 3.25s"],
        "it watches again"
    );
}

#[test]
fn a_status_takes_a_complaint_back_and_makes_none() {
    let mut backup = Bench::new(3);
    let says = |complaint| Status {
        complaint,
        ..status(0, true, &[])
    };
    backup.status(0, 0, &says(1));
    assert_eq!(backup.complaint(1, 1), NOTHING, "a status waits for no disk");
    backup.complaint(0, 1);
    backup
        .protocol
        .complaints
        .on_complaint(NodeId::new(0), View::new(1));
    let mut other = Bench::new(3);
    other.complaint(0, 1);
    other.status(0, 0, &says(0));
    assert_eq!(other.complaint(1, 1), NOTHING);
}

#[test]
fn a_peer_that_waits_alone_in_a_later_view_is_followed_and_no_peer_gains_much_by_it() {
    let mut backup = Bench::new(3);
    backup.view_change(0, &view_change(0, 1, &[]));
    let mut followed = 0;
    for second in 1..=600 {
        let told = backup.timeout(1000 * second, Timer::LeaderReview);
        if told.iter().any(|line| line == COMPLAINT) {
            followed += 1;
            assert!(second >= u64::from(complaints::ALONE_PERIODS));
            // The others do not join; in truth they would, and the view would be another.
            backup.protocol.complaints.on_view_changed();
        }
    }
    assert!((5..=8).contains(&followed), "{followed} times in ten minutes");
}
