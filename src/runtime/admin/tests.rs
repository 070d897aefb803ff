use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::families::{FAMILIES, SIMPLE_REFUSALS};
use super::*;
use crate::runtime::config::{FlightConfig, RoleKind};
use crate::runtime::evidence::{EvidenceKind, Exhibit};
use crate::runtime::flight::{FlightDump, FlightEvent, FlightIdentity, FlightKind, FlightRecorder};
use crate::runtime::metrics::{Backlog, Lane, Measure, Metrics, TurnTimes};
use crate::runtime::shard::data::Lifecycle;
use crate::runtime::shard::pulse::Vitals;
use crate::smr::log_transfer::LogTransferState;
use crate::smr::protocol::Rejection;
use crate::smr::replica::{ExecutionPhase, Participation, TransferPhase};
use crate::smr::state_transfer::StateTransferState;
use crate::smr::types::{ClusterId, Epoch, NodeId, Peer, Quorum, Time, View};

/// A recorder that has seen one event, with nowhere to write it.
fn recorder() -> FlightRecorder {
    let identity = FlightIdentity {
        cluster: ClusterId::from_bytes([1; 16]),
        node: NodeId::new(3),
        epoch: Epoch::ZERO,
    };
    let recorder = FlightRecorder::new(
        identity,
        &FlightConfig::default(),
        1,
        "nowhere".into(),
        Instant::now(),
    );
    let event = FlightEvent::of(FlightKind::ViewEntered).view(View::new(7));
    recorder.pen(0).record(Time::START, event);
    recorder
}

/// An endpoint of a replica that has no shards but this one, and what it looks at.
struct Scene {
    metrics: Arc<Metrics>,
    vitals: Vitals,
    lifecycle: Lifecycle,
    address: SocketAddr,
    _endpoint: AdminEndpoint,
}

impl Scene {
    fn of(config: &AdminConfig) -> Self {
        let shards = [("d0".to_owned(), Doorbell::new().unwrap())];
        let vitals = Vitals::new("control".to_owned(), shards);
        let (metrics, lifecycle) = (
            Arc::new(Metrics::of_cluster(NodeId::new(3), 4)),
            Lifecycle::default(),
        );
        let subject = Subject {
            metrics: metrics.clone(),
            vitals: vitals.clone(),
            lifecycle: lifecycle.clone(),
            cluster: ClusterId::from_bytes([7; 16]),
            quorum: Quorum::of(4).unwrap(),
            disk: None,
            log_filter: LogFilter::new("warn", |filter| match filter {
                "loud" => Err("loud is no level".to_owned()),
                _ => Ok(()),
            }),
            flight: recorder(),
        };
        let bound = BoundEndpoint::of(config).unwrap().unwrap();
        let address = bound.address();
        Self {
            metrics,
            vitals,
            lifecycle,
            address,
            _endpoint: bound.start("admin".to_owned(), subject).unwrap(),
        }
    }

    /// A replica that does its part.
    fn well(config: &AdminConfig) -> Self {
        let scene = Self::of(config);
        scene.vitals.beat();
        scene.vitals.of_shard(0).beat();
        let links = &scene.metrics.counters.replica_links_up;
        links.store(2, Ordering::Relaxed);
        scene
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// Sends something, and reads until the end: the status and the body.
    fn send(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        answer(stream)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        self.send(
            format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
                .as_bytes(),
        )
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "")
    }

    fn refused(&self) -> u64 {
        self.metrics
            .counters
            .admin_requests_refused
            .load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn config() -> AdminConfig {
    AdminConfig {
        listen: Some("127.0.0.1:0".to_owned()),
        ..AdminConfig::default()
    }
}

#[test]
fn every_counter_is_a_metric_or_a_refusal_and_each_once() {
    let mut counted = BTreeSet::new();
    Metrics::new(NodeId::new(0)).visit_counters(|name, _| {
        counted.insert(name);
    });
    let members = FAMILIES.iter().flat_map(|family| family.members);
    let refusals = SIMPLE_REFUSALS.iter().map(|(counter, _, _)| *counter);
    let mut shown = BTreeSet::new();
    for name in members.map(|(counter, _)| *counter).chain(refusals) {
        assert!(shown.insert(name), "{name} is shown twice");
    }
    assert_eq!(shown, counted);
}

#[test]
fn a_counter_is_found_under_its_metrics_name_and_labels() {
    let scene = Scene::well(&config());
    scene
        .metrics
        .counters
        .forwards_dropped
        .store(7, Ordering::Relaxed);
    scene.metrics.counters.log_bytes.store(1234, Ordering::Relaxed);
    scene
        .metrics
        .refuse_record(crate::runtime::net::framing::FramingError::Forged);
    let (status, text) = scene.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "atlas_messages_dropped_total{node=\"r3\",of=\"forward\",reason=\"slow_peer\"} 7",
        "atlas_disk_bytes{node=\"r3\",owner=\"log\"} 1234",
        "atlas_refusals_total{node=\"r3\",of=\"record\",reason=\"forged\"} 1",
        "atlas_refusals_total{node=\"r3\",of=\"message\",reason=\"equivocation\"} 0",
        "atlas_links{node=\"r3\",peer=\"replica\"} 2",
        "atlas_ready{node=\"r3\"} 1",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} in {text}");
    }
}

#[test]
fn each_metric_that_has_a_constant_is_there_and_of_its_type() {
    let scene = Scene::well(&config());
    let roles = [RoleKind::Consensus, RoleKind::Execution];
    scene.metrics.show_turns(vec![Arc::new(TurnTimes::new(&roles))]);
    let (_, text) = scene.get("/metrics");
    let mut types = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(types.insert(name, kind).is_none(), "{name} twice");
    }
    for (name, kind) in [
        (names::ORDERING_PROTOCOL_POLL_TIME, "histogram"),
        (names::TIMEOUT_PROCESS_TIME, "histogram"),
        (names::OP_MESSAGES_PROCESSED, "counter"),
        (names::REPLICA_PROTOCOL_RESP_PROCESS_TIME, "histogram"),
        (names::REPLICA_ORDERED_RQS_PROCESSED, "counter"),
        (names::DECISION_LOG_PROCESSED, "counter"),
        (names::RUN_LATENCY_TIME, "histogram"),
        (names::EXECUTION_TIME_TAKEN, "histogram"),
        (names::REFUSALS, "counter"),
        (names::BATCH_PHASES, "histogram"),
        (names::FRAME_PHASES, "histogram"),
        (names::REQUEST_TIME, "histogram"),
    ] {
        assert_eq!(types.get(name), Some(&kind), "{name}");
    }
}

#[test]
fn what_roles_measure_is_shown_in_base_units() {
    let scene = Scene::well(&config());
    let measures = &scene.metrics.measures;
    let (one, other) = (measures.recorder(), measures.recorder());
    let long = Duration::from_secs(100);
    one.record_time(Measure::BatchDurable, Duration::from_micros(6));
    other.record_time(Measure::BatchDurable, long);
    one.record(Measure::BatchBytes, 200);
    one.record_depth(Lane::Decisions, 3);
    measures.blocked(Lane::Replies).store(9, Ordering::Relaxed);
    let peer = measures.peer(NodeId::new(1)).unwrap();
    peer.traffic.sent(700);
    peer.traffic.received(800);
    peer.publish_lag(5);
    let lies = EvidenceKind::Message(Rejection::Equivocation);
    let liar = Peer::Replica(NodeId::new(1));
    scene.metrics.evidence.note(liar, lies, 2, Exhibit::default());
    other.clients.received(60);
    measures.publish_backlog(Backlog {
        pool_frames: 1,
        pool_bytes: 2,
        held_effects: 3,
    });
    let (_, text) = scene.get("/metrics");
    for line in [
        "batch_phase_seconds_bucket{node=\"r3\",phase=\"durable\",le=\"4e-06\"} 0",
        "batch_phase_seconds_bucket{node=\"r3\",phase=\"durable\",le=\"8e-06\"} 1",
        "batch_phase_seconds_bucket{node=\"r3\",phase=\"durable\",le=\"+Inf\"} 2",
        "batch_phase_seconds_count{node=\"r3\",phase=\"durable\"} 2",
        "batch_phase_seconds_sum{node=\"r3\",phase=\"durable\"} 100.000006",
        "batch_phase_seconds_count{node=\"r3\",phase=\"replied\"} 0",
        "batch_bytes_bucket{node=\"r3\",le=\"64\"} 0",
        "batch_bytes_bucket{node=\"r3\",le=\"256\"} 1",
        "batch_bytes_sum{node=\"r3\"} 200.0",
        "lane_depth_bucket{node=\"r3\",lane=\"decisions\",le=\"0\"} 0",
        "lane_depth_bucket{node=\"r3\",lane=\"decisions\",le=\"4\"} 1",
        "lane_blocked_total{node=\"r3\",lane=\"replies\"} 9",
        "sent_bytes_total{node=\"r3\",peer=\"r1\"} 700",
        "received_bytes_total{node=\"r3\",peer=\"r1\"} 800",
        "received_bytes_total{node=\"r3\",peer=\"client\"} 60",
        "peer_lag_decisions{node=\"r3\",peer=\"r1\"} 5",
        "peer_offences_total{node=\"r3\",peer=\"r1\"} 2",
        "pool_bytes{node=\"r3\"} 2",
        "held_effects{node=\"r3\"} 3",
    ] {
        let line = format!("atlas_{line}");
        assert!(text.lines().any(|own| own == line), "{line} in {text}");
    }
    assert!(!text.contains("peer=\"r3\""), "it is no peer of its own");
}

#[test]
fn a_replica_is_ready_unless_there_is_a_reason_and_each_reason_has_a_line() {
    let scene = Scene::of(&config());
    assert_eq!(scene.get("/livez"), (200, "alive\n".to_owned()));
    let (status, lines) = scene.get("/readyz");
    assert_eq!(status, 503);
    for line in ["starting: ", "no_quorum: linked with 0 other replicas, 2 needed"] {
        assert!(lines.lines().any(|own| own.starts_with(line)), "{lines}");
    }
    let scene = Scene::well(&config());
    let is_ready = || assert_eq!(scene.get("/readyz"), (200, "ready\n".to_owned()));
    let is_unready = |reason: Unready| {
        let (status, lines) = scene.get("/readyz");
        assert_eq!((status, lines.lines().count()), (503, 1), "{lines}");
        assert!(lines.starts_with(&format!("{reason}: ")), "{lines}");
        assert_eq!(scene.get("/livez").0, 200);
        let (_, text) = scene.get("/metrics");
        let line = format!("atlas_unready{{node=\"r3\",reason=\"{reason}\"}} 1");
        assert!(text.lines().any(|own| own == line), "{text}");
    };
    is_ready();
    let phases = |transfer, participation| {
        scene
            .metrics
            .publish_phases(ExecutionPhase::OrderProtocol, transfer, participation);
    };
    let transfer = TransferPhase::RunningTransferProtocols {
        state_transfer: StateTransferState::Asking,
        log_transfer: LogTransferState::Idle,
    };
    phases(transfer, Participation::Full);
    is_unready(Unready::Transferring);
    let abstaining = Participation::Abstaining {
        heard: 1,
        needed: 3,
        until: None,
    };
    phases(TransferPhase::NotRunning, abstaining);
    is_unready(Unready::Abstaining);
    phases(TransferPhase::NotRunning, Participation::Full);
    is_ready();
    let waits = &scene.metrics.counters.log_waits_for_space;
    waits.store(1, Ordering::Relaxed);
    is_unready(Unready::NoSpace);
    waits.store(0, Ordering::Relaxed);
    let down = &scene.metrics.counters.replica_links_down;
    down.store(1, Ordering::Relaxed);
    is_unready(Unready::NoQuorum);
    down.store(0, Ordering::Relaxed);
    scene.lifecycle.drain();
    is_unready(Unready::Draining);
}

#[test]
fn the_filter_of_logs_is_shown_and_changed_and_what_is_none_is_refused() {
    let scene = Scene::well(&config());
    assert_eq!(scene.get("/log-level"), (200, "warn\n".to_owned()));
    assert_eq!(
        scene.ask("PUT", "/log-level", "info\n"),
        (200, "info\n".to_owned())
    );
    for bad in ["loud", " \n"] {
        let (status, why) = scene.ask("PUT", "/log-level", bad);
        assert_eq!(status, 400, "{bad:?}: {why}");
    }
    scene.ask("PUT", "/log-level", "debug");
    assert_eq!(scene.get("/log-level").1, "debug\n");
}

#[test]
fn the_last_events_are_handed_out_as_a_file() {
    let scene = Scene::well(&config());
    let mut stream = scene.connect();
    stream.write_all(b"GET /debug/flight HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let dump = FlightDump::decode(&answer[end + 4..]).unwrap();
    let events = dump.merged();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1.view, View::new(7));
    assert_eq!(scene.ask("PUT", "/debug/flight", "").0, 405);
}

#[test]
fn what_was_refused_of_a_peer_is_in_the_status_and_whole_on_its_own_page() {
    let scene = Scene::well(&config());
    let exhibit = Exhibit {
        message: Some(b"signed"),
        is_signed: true,
        ..Exhibit::default()
    };
    let kind = EvidenceKind::Message(Rejection::BadViewChange);
    let evidence = &scene.metrics.evidence;
    evidence.note(Peer::Replica(NodeId::new(1)), kind, 3, exhibit);
    let read = |page: &str| -> serde_json::Value {
        let (status, text) = scene.get(page);
        assert_eq!(status, 200);
        serde_json::from_str(&text).unwrap()
    };
    let row = &read("/status")["evidence"][0];
    assert_eq!((&row["peer"], &row["count"]), (&"r1".into(), &3.into()));
    assert_eq!(row["kind"], "rejected_bad_view_change");
    assert_eq!(row["digest"], blake3::hash(b"signed").to_hex().as_str());
    let all = read("/debug/peers");
    assert_eq!(all["peers"][0]["message"], hex::encode(b"signed"));
    assert_eq!(all["peers"][0]["misbehaviour"], true);
    assert_eq!(scene.ask("POST", "/debug/peers", "").0, 405);
}

#[test]
fn what_is_no_page_or_asked_otherwise_is_refused() {
    let scene = Scene::well(&config());
    assert_eq!(scene.get("/").0, 404);
    assert_eq!(scene.get("//metrics").0, 404);
    assert_eq!(scene.get("/metrics?x=y").0, 200);
    assert_eq!(scene.ask("POST", "/metrics", "").0, 405);
    assert_eq!(scene.ask("PUT", "/status", "").0, 405);
    assert_eq!(scene.ask("DELETE", "/log-level", "").0, 405);
    assert_eq!(
        scene.ask("PUT", "/log-level", &"a".repeat(BODY_BYTES_MAX + 1)).0,
        413
    );
    assert_eq!(scene.ask("HEAD", "/status", ""), (200, String::new()));
    assert_eq!(scene.refused(), 6);
}

#[test]
fn an_answer_is_not_lost_by_what_follows_the_request() {
    let scene = Scene::well(&config());
    let mut hostile = b"GET /livez HTTP/1.1\r\n\r\n".to_vec();
    hostile.resize(60_000, b'x');
    assert_eq!(scene.send(&hostile).0, 200);
    let endless = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(40_000));
    assert_eq!(scene.send(endless.as_bytes()).0, 431);
}

#[test]
fn who_is_slow_is_ended_and_who_has_no_place_takes_that_of_the_oldest() {
    let bounds = AdminConfig {
        connections_max: 2,
        request_timeout_ms: 60_000,
        ..config()
    };
    let scene = Scene::well(&bounds);
    let mut slow: Vec<TcpStream> = (0..2).map(|_| scene.connect()).collect();
    slow[0].write_all(b"GET /metr").unwrap();
    // There is always a place for one more; the oldest is told so.
    assert_eq!(scene.get("/livez").0, 200);
    assert_eq!(answer(slow.remove(0)).0, 503);
    let impatient = AdminConfig {
        request_timeout_ms: 100,
        ..config()
    };
    let scene = Scene::well(&impatient);
    let mut slow = scene.connect();
    slow.write_all(b"GET /metr").unwrap();
    assert_eq!(answer(slow).0, 408);
    assert_eq!(scene.refused(), 1);
    // Not even a line.
    assert_eq!(answer(scene.connect()).0, 408);
}

#[test]
fn an_endpoint_that_cannot_be_had_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = AdminConfig {
        listen: Some(address.clone()),
        ..AdminConfig::default()
    };
    let error = BoundEndpoint::of(&config).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("admin.listen = {address}: ")),
        "{error}"
    );
    let config = AdminConfig {
        bearer_token_file: Some("no/such/token".into()),
        ..self::config()
    };
    let error = BoundEndpoint::of(&config).unwrap_err().to_string();
    assert!(
        error.starts_with("admin.bearer_token_file = no/such/token: "),
        "{error}"
    );
    assert!(BoundEndpoint::of(&AdminConfig::default()).unwrap().is_none());
}
