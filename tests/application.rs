//! A cluster serves one application for ever: programs, data and links of another one are refused, and both
//! are named. What a tool can verify of an application's data it verifies without knowing it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atlas_smr_replica::config::{
    Agreement, ClientConfig, MonolithicStateReplicaConfig, ReplicaConfig, StateTransferConfig,
};
use atlas_smr_replica::execution::apps::kv::Kv;
use atlas_smr_replica::execution::{
    Application, Column, Columns, KeyedState, OperationContext, ResultWriter,
};
use atlas_smr_replica::types::ApplicationId;
use atlas_smr_replica::{Client, MonReplica, ReplicaHandle};
use futures_lite::future::block_on;
use tempfile::TempDir;

mod shared;

use shared::configs::configure_for;

const LIMIT: Duration = Duration::from_secs(60);
const CHECKPOINT_DECISIONS: u64 = 10;

/// Sets a key in both columns; an operation that begins with 255 panics when it has.
#[derive(Clone)]
struct Registry {
    version: u32,
}

impl Application for Registry {
    type State = Columns<2>;

    fn initial_state(&self) -> Columns<2> {
        Columns::default()
    }

    fn update(
        &self,
        state: &mut Columns<2>,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        state.put(Column(0), operation, b"one");
        state.put(Column(1), operation, b"two");
        assert_ne!(operation.first(), Some(&255), "planted");
        result.push(1);
    }

    fn unordered_execution(&self, _: &Columns<2>, _: &OperationContext, _: &[u8], _: &mut ResultWriter) {}

    fn name(&self) -> &'static str {
        "registry"
    }

    fn version(&self) -> u32 {
        self.version
    }
}

fn config<A>(service: A, replica_config: ReplicaConfig) -> MonolithicStateReplicaConfig<A> {
    MonolithicStateReplicaConfig {
        service,
        replica_config,
        st_config: StateTransferConfig::default(),
    }
}

/// Why a replica of this application does not start.
fn refusal<A: Application>(service: A, replica_config: ReplicaConfig) -> String {
    match block_on(MonReplica::bootstrap(config(service, replica_config))) {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

fn start(replica_config: ReplicaConfig) -> (ReplicaHandle, JoinHandle<()>) {
    let replica = MonReplica::bootstrap(config(Registry { version: 1 }, replica_config));
    let replica = block_on(replica).unwrap();
    let handle = replica.handle();
    (
        handle,
        std::thread::spawn(move || block_on(replica.run()).unwrap()),
    )
}

fn stop((handle, thread): (ReplicaHandle, JoinHandle<()>)) {
    handle.shutdown();
    thread.join().unwrap();
}

/// The configuration of the same replica as a cluster's file with another application makes it.
fn renamed(of: &ReplicaConfig, name: &str, version: u32) -> ReplicaConfig {
    let mut config = of.clone();
    let mut cluster = (*config.node.cluster).clone();
    cluster.application = ApplicationId::new(name, version).unwrap();
    config.node.cluster = Arc::new(cluster);
    config
}

#[test]
fn a_program_or_data_of_another_application_is_refused_and_both_are_named() {
    let data = tempfile::tempdir().unwrap();
    let (configs, _) = configure_for("registry", data.path(), Agreement::default(), 1);
    let own = &configs[0];
    let error = refusal(Kv, own.clone());
    assert!(
        error.contains("the program serves kv (version 1), the cluster registry (version 1)"),
        "{error}"
    );
    let error = refusal(Registry { version: 2 }, own.clone());
    assert!(
        error.contains("serves registry (version 2), the cluster registry (version 1)"),
        "{error}"
    );

    // Once it has run, nothing that is said of the cluster makes the data another application's.
    stop(start(own.clone()));
    for (service, name, version) in [("kv", "kv", 1), ("registry", "registry", 2)] {
        let config = renamed(own, name, version);
        let error = match service {
            "kv" => refusal(Kv, config),
            _ => refusal(Registry { version }, config),
        };
        let named = format!("application registry (version 1), expected {name} (version {version})");
        assert!(error.contains(&named), "{error}");
    }
    stop(start(own.clone()));
}

fn atlas(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_atlas"))
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn init(more: &[&str]) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap().to_owned();
    let made = atlas(&[&["init", "--replicas", "1", "--out", &out], more].concat());
    assert!(made.status.success(), "{}", said(&made));
    (dir, out)
}

#[test]
fn commands_refuse_what_is_not_the_clusters_application_before_they_send_anything() {
    let (_registry, out) = init(&["--app", "registry", "--app-version", "3"]);
    let run = atlas(&["run", "--config", &format!("{out}/r0.toml")]);
    assert!(!run.status.success());
    let text = said(&run);
    assert!(
        text.contains("serves registry (version 3)") && text.contains("kv (version 1)"),
        "{text}"
    );
    let client = format!("{out}/c0.toml");
    for arguments in [
        &["bench", "--config", &client][..],
        &["client", "--config", &client, "get", "k"],
    ] {
        let refused = atlas(arguments);
        assert!(!refused.status.success());
        assert!(
            said(&refused).contains("serves registry (version 3)"),
            "{}",
            said(&refused)
        );
    }
    let checked = said(&atlas(&["config", "check", &format!("{out}/cluster.toml")]));
    assert!(checked.contains("serves registry (version 3)"), "{checked}");

    let (_kv, out) = init(&[]);
    let client = format!("{out}/c0.toml");
    for arguments in [
        &["bench", "--app", "bank", "--config", &client][..],
        &["client", "--config", &client, "deposit", "1", "5"],
    ] {
        let refused = said(&atlas(arguments));
        assert!(
            refused.contains("kv (version 1)") && refused.contains("bank (version 1)"),
            "{refused}"
        );
    }
    let wrong = atlas(&["init", "--app", "two words", "--out", &format!("{out}/other")]);
    assert!(
        said(&wrong).contains("the application's name \"two words\""),
        "{}",
        said(&wrong)
    );
}

fn newest_snapshot(data: &Path) -> Option<PathBuf> {
    let images = std::fs::read_dir(data.join("images")).ok()?.flatten();
    images
        .map(|image| image.path())
        .filter(|path| path.extension().is_none())
        .max()
}

#[test]
fn data_of_an_application_that_no_tool_knows_is_verified_to_the_last_piece() {
    let data = tempfile::tempdir().unwrap();
    let agreement = Agreement {
        checkpoint_decisions: CHECKPOINT_DECISIONS,
        window: 4 * CHECKPOINT_DECISIONS,
        ..Agreement::default()
    };
    let (configs, mut clients) = configure_for("registry", data.path(), agreement, 1);
    let directory = configs[0].db_path.clone();
    let running: Vec<_> = configs.into_iter().map(start).collect();
    let client: ClientConfig = clients.remove(0);
    let client = Client::connect_blocking(client).unwrap();
    let deadline = Instant::now() + LIMIT;
    let mut number = 1u32;
    while newest_snapshot(&directory).is_none() {
        assert!(Instant::now() < deadline, "a snapshot is kept");
        client
            .call_blocking(number.to_be_bytes().to_vec().repeat(2))
            .unwrap();
        number += 1;
    }
    drop(client);
    running.into_iter().for_each(stop);

    let directory = directory.to_str().unwrap();
    let seen = atlas(&["inspect", "integrity", directory]);
    let text = said(&seen);
    assert_eq!(seen.status.code(), Some(0), "{text}");
    assert!(
        text.contains("SOUND: r0 of cluster") && text.contains("registry (version 1)"),
        "{text}"
    );
    assert!(text.contains("every piece is what the head covers"), "{text}");
    let seen = atlas(&["inspect", "snapshot", directory]);
    assert!(
        seen.status.success() && said(&seen).contains("✔ verified"),
        "{}",
        said(&seen)
    );

    // One bit of the last piece.
    let image = newest_snapshot(Path::new(directory)).unwrap();
    let mut bytes = std::fs::read(&image).unwrap();
    let at = bytes.windows(3).rposition(|window| window == b"two").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    let seen = atlas(&["inspect", "integrity", directory]);
    assert!(
        seen.status.code() == Some(1) && said(&seen).contains("DAMAGED"),
        "{}",
        said(&seen)
    );
}
