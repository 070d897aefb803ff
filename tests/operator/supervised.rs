//! A replica under a supervisor: what it is told, and that it hears nothing while a thread hangs.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use atlas_smr_replica::config::{Agreement, MonolithicStateReplicaConfig, StateTransferConfig};
use atlas_smr_replica::execution::{Application, OperationContext, PartitionedStore, ResultWriter};
use atlas_smr_replica::server::Supervisor;
use atlas_smr_replica::{Client, MonReplica};
use futures_lite::future::block_on;

use super::shared::configs::configure_for;
use super::shared::{Replica, alone};
use super::{complaint, has, lone, run, skip, terminate, wait_for_end};

/// Where a supervisor hears.
fn ear(dir: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
    socket.set_read_timeout(Some(super::LIMIT)).unwrap();
    socket
}

/// Waits until what is told contains a line that begins so; all that was told until then.
fn hear(ear: &UnixDatagram, line: &str) -> String {
    let mut told = String::new();
    let mut buffer = [0; 4096];
    while !told.lines().any(|told| told.starts_with(line)) {
        let length = ear
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("no {line}: {error}: {told}"));
        told.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        told.push('\n');
    }
    told
}

#[test]
fn a_supervisor_is_told_when_a_replica_is_ready_where_it_stands_and_that_it_stops() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let ear = ear(dir.path());
    let mut replica = run(dir.path(), 0);
    replica
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("WATCHDOG_USEC", "200000000")
        .stdout(Stdio::piped());
    let mut replica = Replica(replica.spawn().unwrap());
    replica.wait_ready();
    let told = hear(&ear, "READY=1");
    assert!(told.contains("STATUS="), "{told}");
    hear(&ear, "WATCHDOG=1");
    terminate(&replica.0);
    assert!(!told.contains("STOPPING"));
    hear(&ear, "STOPPING=1");
    assert!(wait_for_end(&mut replica.0).success());
    // Nobody listens any more: it is said, and the replica serves.
    drop(ear);
    let mut replica = run(dir.path(), 0);
    replica
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut replica = Replica(replica.spawn().unwrap());
    replica.wait_ready();
    terminate(&replica.0);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut replica.0.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("NOTIFY_SOCKET cannot be reached"), "{said}");
}

/// Operations wait at this gate while it is closed.
static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

#[derive(Clone)]
struct Hanging;

impl Application for Hanging {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    fn update(&self, _: &mut PartitionedStore, _: &OperationContext, _: &[u8], result: &mut ResultWriter) {
        let (is_closed, opened) = &GATE;
        let is_closed = is_closed.lock().unwrap();
        drop(opened.wait_while(is_closed, |is_closed| *is_closed).unwrap());
        result.push(1);
    }

    fn unordered_execution(
        &self,
        _: &PartitionedStore,
        _: &OperationContext,
        _: &[u8],
        _: &mut ResultWriter,
    ) {
    }

    fn name(&self) -> &'static str {
        "hanging"
    }
}

#[test]
fn a_watchdog_hears_nothing_while_a_data_shard_hangs() {
    let _turn = alone();
    let data = tempfile::tempdir().unwrap();
    let (configs, clients) = configure_for("hanging", data.path(), Agreement::default(), 1);
    let (mut running, mut ears) = (Vec::new(), Vec::new());
    for (node, mut config) in configs.into_iter().enumerate() {
        let path = data.path().join(format!("notify-{node}"));
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_read_timeout(Some(super::LIMIT)).unwrap();
        let watchdog = Some(Duration::from_secs(4));
        config.supervisor = Supervisor::at(path.to_str().unwrap().as_bytes(), watchdog).unwrap();
        ears.push(ear);
        let replica = block_on(MonReplica::bootstrap(MonolithicStateReplicaConfig {
            service: Hanging,
            replica_config: config,
            st_config: StateTransferConfig::default(),
        }))
        .unwrap();
        let handle = replica.handle();
        running.push((handle, std::thread::spawn(move || block_on(replica.run()))));
    }
    let client = Client::connect_blocking(clients.into_iter().next().unwrap()).unwrap();
    client.call_blocking(&b"passes"[..]).unwrap();
    ears.iter().for_each(|ear| drop(hear(ear, "WATCHDOG=1")));

    *GATE.0.lock().unwrap() = true;
    let asked = std::thread::spawn(move || client.call_blocking(&b"hangs"[..]));
    // Who decides first hangs; the others may lack its last vote.
    let mut hanging = 0;
    ears.iter().for_each(|ear| ear.set_nonblocking(true).unwrap());
    super::eventually("one hangs", || {
        let mut buffer = [0; 4096];
        let said = ears.iter().map(|ear| {
            let length = ear.recv(&mut buffer).unwrap_or(0);
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        });
        let found = said.collect::<Vec<_>>();
        let found = found
            .iter()
            .position(|said| said.contains("STATUS=HANGS: no sign of life of atlas-r"));
        hanging = found.unwrap_or(hanging);
        found.is_some()
    });
    let ear = &ears[hanging];
    // Two seconds and more after the last sign, which is long after the last report.
    let silent = running[hanging].0.silent_threads(Duration::from_secs(1));
    assert!(
        silent.iter().any(|name| name.starts_with("atlas-r")),
        "{silent:?}"
    );
    assert!(ear.recv(&mut [0; 4096]).is_err(), "nothing more is reported");
    ear.set_nonblocking(false).unwrap();

    *GATE.0.lock().unwrap() = false;
    GATE.1.notify_all();
    let told = hear(ear, "WATCHDOG=1");
    assert!(!told.contains("HANGS"), "{told}");
    // The call may have taken longer than its client waits.
    let _ = asked.join().unwrap();
    for (handle, thread) in running {
        handle.shutdown();
        thread.join().unwrap().unwrap();
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_finds_little_exposed() {
    if !has("systemd-analyze") {
        return skip("the systemd unit", "systemd-analyze is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("atlas@.service");
    let text = include_str!("../../deploy/systemd/atlas@.service");
    let binary = env!("CARGO_BIN_EXE_atlas");
    assert!(text.contains("ExecStart=/usr/bin/atlas run"));
    std::fs::write(&unit, text.replace("/usr/bin/atlas", binary)).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&unit).output().unwrap()
    };
    let verified = analyze(&["verify", "--man=no"]);
    // Of systemd 254; before, every wait is the shortest.
    let known = ["RestartSteps", "RestartMaxDelaySec"];
    let complaints = complaint(&verified);
    // What it says of other units of this host is not ours.
    let ours = complaints.lines().filter(|line| line.contains("atlas"));
    let ours: Vec<&str> = ours
        .filter(|line| !known.iter().any(|key| line.contains(key)))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(verified.status.success(), "{complaints}");
    // Of ten; it serves the network, and has its own user and system calls.
    let rated = analyze(&["security", "--offline=yes", "--threshold=20", "--no-pager"]);
    let said = format!("{}{}", String::from_utf8_lossy(&rated.stdout), complaint(&rated));
    assert!(rated.status.success(), "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}
