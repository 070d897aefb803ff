//! The admin endpoint of a replica's process: what it answers in which state, and to strangers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use atlas_smr_replica::admin;
use atlas_smr_replica::execution::apps::kv;

use super::shared::{Replica, alone, connect, init, set, start, status};
use super::{complaint, eventually, last_words, lone, output, run};

/// A replica that runs with an endpoint; killed when dropped.
pub(super) struct Asked {
    pub replica: Replica,
    pub address: SocketAddr,
}

impl Asked {
    pub fn start(dir: &Path, node: usize, more: &[&str]) -> Self {
        let config = dir.join(format!("r{node}.toml"));
        let more = [&["--admin", "127.0.0.1:0"], more].concat();
        Self::of(Replica::start_with(&config, &more))
    }

    /// One that prints where its endpoint listens.
    pub fn of(mut replica: Replica) -> Self {
        let mut lines = BufReader::new(replica.0.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let address = line.unwrap().strip_prefix("admin endpoint at http://")?.parse();
            Some(address.unwrap())
        });
        // Keeps the pipe open.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            replica,
            address: address.expect("it prints where it listens"),
        }
    }

    pub(super) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// Sends something: the status and the body of the answer.
    fn send(&self, request: &str) -> (u16, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> (u16, String) {
        let length = body.len();
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\n{header}Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "", "")
    }

    pub fn scrape(&self) -> Exposition {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        Exposition::parse(&text)
    }

    /// Waits until it is not ready for this reason; it lives all the same.
    pub fn wait_unready(&self, reason: &str) {
        let line = format!("{reason}: ");
        eventually(reason, || {
            let (status, lines) = self.get("/readyz");
            status == 503 && lines.lines().any(|own| own.starts_with(&line))
        });
        assert_eq!(self.get("/livez").0, 200);
    }
}

/// A metric as a scraper reads it.
pub(super) struct Metric {
    pub kind: String,
    /// The sample's name and labels, and its value.
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// The labels of a row of a histogram, but for its bounds.
type Row<'a> = Vec<(&'a str, &'a str)>;

impl Metric {
    /// What is wrong with the buckets of each row of a histogram.
    fn bucket_faults(&self) -> Vec<String> {
        let mut rows: BTreeMap<Row<'_>, Vec<(f64, f64)>> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for (name, labels, value) in &self.samples {
            let own = labels.iter().filter(|(label, _)| *label != "le");
            let row: Vec<_> = own
                .map(|(label, value)| (label.as_str(), value.as_str()))
                .collect();
            if name.ends_with("_bucket") {
                let bound = labels["le"].replace("+Inf", "inf").parse().unwrap();
                rows.entry(row).or_default().push((bound, *value));
            } else if name.ends_with("_count") {
                counts.insert(row, *value);
            }
        }
        let rows = rows.iter().filter(|(row, buckets)| {
            let rises = buckets
                .windows(2)
                .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
            let last = buckets.last().map(|(bound, count)| (*bound, Some(count)));
            !rises || last != Some((f64::INFINITY, counts.get(*row)))
        });
        rows.map(|(row, buckets)| format!("{row:?}: {buckets:?}"))
            .collect()
    }
}

/// Text in Prometheus' format 0.0.4, read strictly: each metric has HELP, then TYPE, then its samples.
pub(super) struct Exposition(pub BTreeMap<String, Metric>);

impl Exposition {
    fn parse(text: &str) -> Self {
        let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
        let (mut described, mut current) = (None, None);
        let mut seen = BTreeSet::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(
                    words.ends_with(|c: char| c.is_alphanumeric() || c == '.'),
                    "{line}"
                );
                described = Some(name);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(described.take(), Some(name), "{name} has no HELP");
                let (kind, samples) = (kind.to_owned(), Vec::new());
                let before = metrics.insert(name.to_owned(), Metric { kind, samples });
                assert!(before.is_none(), "{name} comes twice");
                current = Some(name);
            } else {
                let (name, labels, value) = sample(line);
                let metric = current.expect("a sample has a metric");
                let suffix = name.strip_prefix(metric).expect("a sample follows its metric");
                let suffixes: &[&str] = match metrics[metric].kind.as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(seen.insert((name.clone(), labels.clone())), "{line} comes twice");
                let metric = metrics.get_mut(metric).unwrap();
                metric.samples.push((name, labels, value));
            }
        }
        assert!(!metrics.is_empty());
        Self(metrics)
    }

    /// The sum of a metric's samples that have these labels; of one row of a histogram, by its whole name.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let of_count = name.strip_suffix("_count");
        let metric = self.0.get(of_count.unwrap_or(name));
        let metric = metric.unwrap_or_else(|| panic!("there is no {name}"));
        let has = |own: &BTreeMap<String, String>| {
            let mut labels = labels.iter();
            labels.all(|(name, value)| own.get(*name).is_some_and(|own| own == value))
        };
        let is_row = |row: &str| of_count.is_none() || row == name;
        let chosen = metric
            .samples
            .iter()
            .filter(|(row, own, _)| is_row(row) && has(own));
        chosen.map(|(_, _, value)| value).sum()
    }

    /// What a lint of names finds wrong.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, metric) in &self.0 {
            let mut fault = |what: &str| faults.push(format!("{name}: {what}"));
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.starts_with("atlas_") || !name.chars().all(is_plain) || name.contains("__") {
                fault("is no name of ours");
            }
            if (metric.kind == "counter") != name.ends_with("_total") {
                fault("a counter ends with _total, and nothing else does");
            }
            let words: Vec<&str> = name.split('_').collect();
            let units = [
                "ms",
                "us",
                "ns",
                "millis",
                "micros",
                "nanos",
                "milliseconds",
                "minutes",
                "kb",
                "mb",
                "kib",
                "mib",
                "percent",
                "counter",
                "gauge",
                "histogram",
            ];
            if words.iter().any(|word| units.contains(word)) {
                fault("is not in base units, or names its type");
            }
            let unit = words.iter().position(|word| ["seconds", "bytes"].contains(word));
            if unit.is_some_and(|place| !matches!(words[place + 1..], [] | ["total"])) {
                fault("has its unit before its end");
            }
            let is_of_time = words
                .iter()
                .any(|word| ["time", "latency", "duration"].contains(word));
            if is_of_time && unit.is_none() {
                fault("is a time without a unit");
            }
            if ["count", "sum", "bucket"].contains(words.last().unwrap()) {
                fault("ends as a row of a histogram does");
            }
            if metric.samples.is_empty() {
                fault("has no sample");
            }
            if metric.kind == "histogram" {
                metric.bucket_faults().iter().for_each(|what| fault(what));
            }
            for (sample, labels, value) in &metric.samples {
                let is_plain = |label: &String| label.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                let is_bound = sample.ends_with("_bucket") && metric.kind == "histogram";
                if !labels.keys().all(is_plain) || labels.contains_key("le") != is_bound {
                    fault(&format!("{sample} has labels {labels:?}"));
                }
                let node = labels.get("node").map_or("", String::as_str);
                if !node.starts_with('r') || !value.is_finite() || *value < 0.0 {
                    fault(&format!("{sample} {labels:?} {value}"));
                }
            }
        }
        faults
    }
}

#[test]
fn a_lint_finds_what_is_wrong() {
    let faulty = "\
        # HELP atlas_wait_ms Waiting.\n\
        # TYPE atlas_wait_ms gauge\n\
        atlas_wait_ms{node=\"r0\"} 1\n\
        # HELP atlas_sent Messages.\n\
        # TYPE atlas_sent counter\n\
        atlas_sent{node=\"r0\"} 1\n\
        # HELP atlas_seconds_idle Idle.\n\
        # TYPE atlas_seconds_idle gauge\n\
        atlas_seconds_idle{node=\"r0\",le=\"1\"} 1\n\
        # HELP atlas_turn_time Turns.\n\
        # TYPE atlas_turn_time gauge\n\
        atlas_turn_time{node=\"r0\"} 1\n\
        # HELP atlas_turn_seconds Turns.\n\
        # TYPE atlas_turn_seconds histogram\n\
        atlas_turn_seconds_bucket{node=\"r0\",le=\"1\"} 2\n\
        atlas_turn_seconds_bucket{node=\"r0\",le=\"+Inf\"} 1\n\
        atlas_turn_seconds_sum{node=\"r0\"} 1\n\
        atlas_turn_seconds_count{node=\"r0\"} 1\n";
    let found = Exposition::parse(faulty).faults();
    for fault in [
        "atlas_wait_ms: is not in base units",
        "atlas_sent: a counter ends with _total",
        "atlas_seconds_idle: has its unit before its end",
        "atlas_seconds_idle: atlas_seconds_idle has labels",
        "atlas_turn_time: is a time without a unit",
        "atlas_turn_seconds: [(\"node\", \"r0\")]",
    ] {
        assert!(
            found.iter().any(|own| own.starts_with(fault)),
            "{fault} in {found:#?}"
        );
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}

/// One line: name, labels, value.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    let labels = labels
        .split("\",")
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}

#[test]
fn a_replica_without_a_quorum_lives_and_is_ready_once_it_is_linked_and_shows_what_it_counts() {
    let _turn = alone();
    let dir = init("kv");
    let first = Asked::start(dir.path(), 0, &[]);
    first.wait_unready("no_quorum");
    assert!((first.scrape().value("atlas_unready", &[("reason", "no_quorum")]) - 1.0).abs() < 0.1);
    let mut others: Vec<Replica> = (1..4)
        .map(|node| Replica::start(&dir.path().join(format!("r{node}.toml"))))
        .collect();
    others.iter_mut().for_each(Replica::wait_ready);
    eventually("it is ready", || {
        first.get("/readyz") == (200, "ready\n".to_owned())
    });
    let client = connect(dir.path(), 0);
    // One frame of 64 and one batch of 16 are timed on their way, of which the last steps come after the reply.
    for _ in 0..64 {
        client.call_blocking(kv::put(b"k", b"v").unwrap()).unwrap();
    }
    eventually("it has timed a request", || {
        first.scrape().value("atlas_request_seconds_count", &[]) >= 1.0
    });
    let shown = first.scrape();
    assert_eq!(shown.faults(), [""; 0]);
    assert!(shown.value("atlas_links", &[("peer", "replica")]) >= 2.0);
    assert!(shown.value("atlas_disk_bytes", &[("owner", "log")]) > 0.0);
    assert!(shown.value("atlas_executed_seq", &[("node", "r0")]) >= 1.0);
    // It leads, and verifies no proposal of its own.
    for (name, phases) in [
        (admin::names::FRAME_PHASES, &["verified", "proposed"][..]),
        (
            admin::names::BATCH_PHASES,
            &["prepared", "committed", "durable", "executed", "replied"],
        ),
    ] {
        for phase in phases {
            let measured = shown.value(&format!("{name}_count"), &[("phase", phase)]);
            assert!(measured >= 1.0, "{name} {phase}");
        }
    }
    for name in [
        "atlas_log_sync_seconds",
        "atlas_batch_operations",
        admin::names::EXECUTION_TIME_TAKEN,
        admin::names::TIMEOUT_PROCESS_TIME,
    ] {
        assert!(shown.value(&format!("{name}_count"), &[]) >= 1.0, "{name}");
    }
    assert!(shown.value(admin::names::OP_MESSAGES_PROCESSED, &[]) >= 64.0);
    for peer in ["r1", "client"] {
        assert!(shown.value("atlas_sent_bytes_total", &[("peer", peer)]) > 0.0);
        assert!(shown.value("atlas_received_bytes_total", &[("peer", peer)]) > 0.0);
    }

    // One turn of 64 is measured, and there are some each second.
    eventually("some turns were measured", || {
        let shown = first.scrape();
        assert_eq!(shown.faults(), [""; 0]);
        let measured = |name: &str| shown.value(name, &[("le", "+Inf")]);
        measured(admin::names::RUN_LATENCY_TIME) >= 1.0
            && measured(admin::names::ORDERING_PROTOCOL_POLL_TIME) >= 1.0
            && measured("atlas_lane_depth") >= 1.0
            && measured(admin::names::REPLICA_PROTOCOL_RESP_PROCESS_TIME) >= 1.0
    });

    // The same as a client is told.
    let (code, own) = first.get("/status");
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    let mut told = status(dir.path(), 0).unwrap();
    told.as_object_mut().unwrap().remove("lag");
    let keys = |of: &serde_json::Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((code, keys(&own)), (200, keys(&told)));
    assert_eq!((&own["node"], &own["view"]), (&told["node"], &told["view"]));
    let counted = |row: &serde_json::Value| keys(&row["counters"]);
    assert_eq!(counted(&own), counted(&told));
}

#[test]
fn a_replica_that_abstains_is_not_ready_and_lives() {
    let _turn = alone();
    let dir = init("kv");
    let mut replicas = start(dir.path());
    let client = connect(dir.path(), 0);
    client.call_blocking(kv::put(b"k", b"v").unwrap()).unwrap();
    drop(replicas.pop());
    std::fs::remove_dir_all(dir.path().join("r3-data")).unwrap();
    // Nothing is decided meanwhile that would let it vote again.
    let repaired = Asked::start(dir.path(), 3, &["--repair"]);
    repaired.wait_unready("abstaining");
    assert!(repaired.scrape().value("atlas_ready", &[]) < 0.5);
}

#[test]
fn the_filter_of_logs_changes_while_a_replica_runs() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let asked = Asked::start(dir.path(), 0, &[]);
    assert_eq!(asked.get("/log-level"), (200, "warn\n".to_owned()));
    let put = |filter: &str| asked.ask("PUT", "/log-level", "", filter);
    let (status, why) = put("info,atlas_smr_replica=loud");
    assert_eq!(status, 400, "{why}");
    assert_eq!(asked.get("/log-level").1, "warn\n");
    assert_eq!(put("info,atlas_smr_replica=debug").0, 200);
    assert_eq!(asked.get("/log-level").1, "info,atlas_smr_replica=debug\n");
}

#[test]
fn strangers_and_hostile_requests_disturb_neither_the_endpoint_nor_the_replica() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let token = dir.path().join("r0.token");
    std::fs::write(&token, "correct-horse-battery\n").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let listen = "# listen = \"127.0.0.1:9464\"";
    let named = "# bearer_token_file";
    set(dir.path(), "r0.toml", listen, "listen = \"127.0.0.1:0\"");
    set(dir.path(), "r0.toml", named, &named[2..]);
    let asked = Asked::of(Replica::start(&dir.path().join("r0.toml")));
    let with = |token: &str| {
        asked
            .ask("GET", "/livez", &format!("Authorization: Bearer {token}\r\n"), "")
            .0
    };
    assert_eq!(asked.get("/metrics").0, 401);
    for wrong in [
        "",
        "correct-horse-batter",
        "correct-horse-batterz",
        &"x".repeat(5000),
    ] {
        assert_eq!(with(wrong), 401, "{wrong}");
    }
    assert_eq!(with("correct-horse-battery"), 200);

    let slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = asked.connect();
            // The oldest of them are ended for the others.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nA: ");
            stream
        })
        .collect();
    for (request, status) in [
        ("\x16\x03\x01\x02\0\x01\0\x01".to_owned(), 400),
        ("GET /metrics HTTP/3.0\r\n\r\n".to_owned(), 505),
        (
            format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(20_000)),
            431,
        ),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)), 431),
        (
            "POST /log-level HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            411,
        ),
        (
            "PUT /log-level HTTP/1.1\r\nContent-Length: 4\r\n\r\ninfo".to_owned(),
            401,
        ),
    ] {
        assert_eq!(asked.send(&request).0, status, "{request:.60}");
    }
    assert_eq!(with("correct-horse-battery"), 200);
    connect(dir.path(), 0)
        .call_blocking(kv::put(b"k", b"v").unwrap())
        .unwrap();
    drop(slow);
}

#[test]
fn an_endpoint_that_cannot_be_had_keeps_the_replica_from_starting_and_names_file_line_and_key() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let path = dir.path().join("r0.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text
        .lines()
        .position(|line| line.starts_with("# listen = \"127.0.0.1:9464\""))
        .unwrap();
    let checked = |setting: &str| {
        let lines = text.lines().enumerate();
        let lines = lines.map(|(number, own)| if number == line { setting } else { own });
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        complaint(&output(&["config", "check", path.to_str().unwrap()]))
    };
    for (setting, key, rule) in [
        ("listen = \"0.0.0.0:9464\"", "admin.listen", "must name a token"),
        (
            "listen = \"localhost:9464\"",
            "admin.listen",
            "must be an address and a port",
        ),
        (
            "connections_max = 0",
            "admin.connections_max",
            "must be between 1 and 256",
        ),
        (
            "header_bytes_max = \"1MiB\"",
            "admin.header_bytes_max",
            "must be between 512 and 65536",
        ),
        (
            "request_timeout_ms = \"2min\"",
            "admin.request_timeout_ms",
            "must be between 100 and 60000",
        ),
    ] {
        let said = checked(setting);
        let place = format!("r0.toml:{}: {key} = ", line + 1);
        assert!(said.contains(&place) && said.contains(rule), "{setting}: {said}");
    }
    let said = checked("listens = \"127.0.0.1:1\"");
    assert!(
        said.contains(&format!("r0.toml:{}: ", line + 1)) && said.contains("`listen`"),
        "{said}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    assert_eq!(checked(&format!("listen = \"{address}\"")), "");
    let refused = run(dir.path(), 0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let (status, said) = last_words(refused.unwrap());
    assert!(
        !status.success() && said.contains(&format!("admin.listen = {address}: ")),
        "{said}"
    );
}
