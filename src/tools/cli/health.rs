//! Whether a replica on this host is well: its process answers at a socket in its data directory, whoever may
//! write there may ask.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{CommandError, VERSION};
use crate::runtime::config::ReplicaConfig;
use crate::runtime::server::ReplicaHandle;

/// Ask a replica's process on this host whether it is well.
///
/// Exit code 0: it is; 1: a thread of it hangs, or it does not answer. It says nothing of the other replicas:
/// `atlas status` does. For the health checks of containers and supervisors.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// The replica's file.
    #[arg(long, env = "ATLAS_CONFIG")]
    config: PathBuf,
    /// Also fail while it is not linked with a quorum, or ends.
    #[arg(long)]
    ready: bool,
    /// Print what it answers as JSON.
    #[arg(long)]
    json: bool,
}

/// The socket's name in a replica's data directory.
const SOCKET: &str = "health.socket";
/// A thread that gave no sign of life for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a process may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What a replica's process answers.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    node: String,
    version: String,
    /// Whether it is linked with a quorum, and goes on.
    ready: bool,
    /// Whether it was told to stop, and finishes what it has.
    draining: bool,
    /// Threads that hang.
    silent_threads: Vec<String>,
    phase: String,
    view: u64,
    ordered: u64,
    durable: u64,
    executed: u64,
    stable: u64,
    replica_links: u64,
    /// How many links with replicas make a quorum.
    links_needed: u64,
    client_links: u64,
}

impl Answer {
    fn of(handle: &ReplicaHandle, is_ending: bool) -> Self {
        let standing = handle.standing();
        Self {
            node: handle.node().to_string(),
            version: VERSION.to_owned(),
            ready: standing.replica_links >= handle.links_needed() && !is_ending,
            draining: is_ending,
            silent_threads: handle.silent_threads(PATIENCE),
            phase: standing.phase(),
            view: standing.view.get(),
            ordered: standing.ordered.get(),
            durable: standing.durable.get(),
            executed: standing.executed.get(),
            stable: standing.stable.get(),
            replica_links: standing.replica_links,
            links_needed: handle.links_needed(),
            client_links: standing.client_links,
        }
    }

    fn is_well(&self) -> bool {
        self.silent_threads.is_empty()
    }
}

/// Where a replica's process is asked.
pub(super) struct Desk(UnixListener);

impl Desk {
    /// Opens it in the data directory of a replica that runs, which nobody else uses therefore.
    pub(super) fn open(directory: &Path) -> std::io::Result<Self> {
        let path = directory.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Answers whoever asked, and waits for nobody.
    pub(super) fn serve(&self, handle: &ReplicaHandle, is_ending: bool) {
        while let Ok((mut stream, _)) = self.0.accept() {
            let answer = Answer::of(handle, is_ending);
            // Who is gone already needs no answer; it fits what the socket takes at once.
            let _ = stream
                .set_nonblocking(true)
                .and_then(|()| stream.write_all(&serde_json::to_vec(&answer).unwrap_or_default()));
        }
    }
}

impl Health {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let directory = ReplicaConfig::load(&self.config)?.replica_config.db_path;
        let socket = directory.join(SOCKET);
        let mut text = Vec::new();
        let asked = UnixStream::connect(&socket).and_then(|mut stream| {
            stream.set_read_timeout(Some(ANSWER))?;
            stream.read_to_end(&mut text)
        });
        asked.map_err(|error| {
            let why = match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    "no replica runs with this data directory"
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "its process hangs",
                ErrorKind::PermissionDenied => "only the user that runs the replica may ask",
                _ => "it cannot be asked",
            };
            format!("{}: {why} ({error})", socket.display())
        })?;
        let answer: Answer = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: what it answers cannot be read: {error}", socket.display()))?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&answer)?);
        } else {
            let word = match (answer.is_well(), answer.ready) {
                (false, _) => "HANGS",
                (true, false) if answer.draining => "DRAINS",
                (true, false) => "WAITS",
                (true, true) => "READY",
            };
            println!(
                "{word}: {}, {}, view {}, executed {}, linked with {} replicas ({} needed) and {} clients",
                answer.node,
                answer.phase,
                answer.view,
                answer.executed,
                answer.replica_links,
                answer.links_needed,
                answer.client_links
            );
            for thread in &answer.silent_threads {
                println!(
                    "✗ {thread} has given no sign of life for {} s",
                    PATIENCE.as_secs()
                );
            }
        }
        Ok(match answer.is_well() && (answer.ready || !self.ready) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}
