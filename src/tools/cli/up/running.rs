//! A cluster that runs: a process for each replica, and one thread that hears them all and heeds signals.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::files::ClusterFiles;
use super::ports;
use super::process::{Event, ReplicaProcess};
use crate::runtime::config::{AppKind, ReplicaConfig, Topology};
use crate::runtime::shard::cores::Cores;
use crate::runtime::shard::signals::on_second_interrupt;
use crate::smr::types::NodeId;
use crate::tools::cli::interrupts::INTERRUPTED_TWICE;
use crate::tools::cli::run::READY;
use crate::tools::cli::{CommandError, admin_endpoints, logs, output};
use crate::tools::load::is_interrupted;

/// Set by the second interrupt, once there are processes to end.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// How long a signal may go unnoticed.
const LOOK: Duration = Duration::from_millis(20);

/// Events that may wait; whoever has another one waits too.
const EVENTS_WAITING: usize = 1024;

/// ANSI colours that tell replicas apart: cyan, yellow, green, magenta, blue.
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

/// All replicas of a cluster. Those that run are killed when this is dropped.
pub(super) struct RunningCluster<'a> {
    files: &'a ClusterFiles,
    members: Vec<Member>,
    events: Receiver<(NodeId, Event)>,
    is_announced: bool,
    is_ending: bool,
    /// Whether a replica ended otherwise than it was asked to.
    has_failed: bool,
}

struct Member {
    node: NodeId,
    process: ReplicaProcess,
    admin: SocketAddr,
    /// What stands before its lines on standard output, and on standard error: one of them may be a terminal.
    labels: [String; 2],
    is_running: bool,
    is_ready: bool,
}

impl Member {
    /// One whose process was started just now.
    fn of(process: ReplicaProcess, node: NodeId, admin: SocketAddr) -> Self {
        Self {
            node,
            process,
            admin,
            labels: [
                label(node, output::may_colour(&std::io::stdout())),
                label(node, output::may_colour(&std::io::stderr())),
            ],
            is_running: true,
            is_ready: false,
        }
    }
}

impl<'a> RunningCluster<'a> {
    /// Starts every replica.
    pub fn start(files: &'a ClusterFiles, no_pin: bool) -> Result<Self, CommandError> {
        let binary = std::env::current_exe().map_err(|error| format!("this program's own file: {error}"))?;
        let first_admin_port = ports::free_from(
            files.last_port().saturating_add(1),
            files.cluster.replicas.len() as u16,
        )?;
        let (tell, events) = sync_channel(EVENTS_WAITING);
        let mut this = Self {
            files,
            members: Vec::new(),
            events,
            is_announced: false,
            is_ending: false,
            has_failed: false,
        };
        // Until now whoever makes the files would have tidied up.
        on_second_interrupt(&AGAIN);
        let is_pinned = !no_pin && have_cores_of_their_own(&files.replicas);
        for (config, port) in files.replicas.iter().zip(first_admin_port..) {
            let node = config.node.id;
            let mut command = Command::new(&binary);
            command.args(["run", "--config"]).arg(files.replica_file(node));
            command.args(logs::arguments());
            if !is_pinned {
                command.arg("--no-pin");
            }
            // What its file names is known before it runs, unless that is any port that is free.
            let named = config.admin.address().filter(|address| address.port() > 0);
            let admin = named.unwrap_or_else(|| ([127, 0, 0, 1], port).into());
            if named.is_none() {
                command.args(["--admin", &admin.to_string()]);
            }
            let process = ReplicaProcess::start(&mut command, node, tell.clone());
            let process = process.map_err(|error| format!("{node} cannot be started: {error}"))?;
            this.members.push(Member::of(process, node, admin));
        }
        this.record_endpoints();
        Ok(this)
    }

    /// For `atlas top`, and for whoever scrapes. The cluster serves without.
    fn record_endpoints(&self) {
        let members = self.members.iter();
        let endpoints: Vec<_> = members.map(|member| (member.node, member.admin)).collect();
        if let Err(error) = admin_endpoints::write(self.files.dir(), &endpoints) {
            let file = self.files.dir().join(admin_endpoints::ENDPOINTS_FILE);
            eprintln!("atlas: {} cannot be written: {error}", file.display());
        }
    }

    /// Passes on what the replicas say until all of them have ended, and how the command ends then.
    pub fn watch(mut self) -> ExitCode {
        loop {
            if AGAIN.load(Ordering::Acquire) {
                self.members.iter_mut().for_each(|member| member.process.kill());
                return ExitCode::from(INTERRUPTED_TWICE);
            }
            if is_interrupted() && !self.is_ending {
                self.is_ending = true;
                eprintln!("atlas: the replicas drain; another SIGINT (Ctrl-C) ends them at once");
                self.members.iter_mut().for_each(|member| member.process.drain());
            }
            match self.events.recv_timeout(LOOK) {
                Ok((node, event)) => self.on_event(node, event),
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left who could say anything.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if !self.is_ending {
            eprintln!("atlas: no replica runs any more");
        }
        if self.has_failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }

    fn on_event(&mut self, node: NodeId, event: Event) {
        let member = &mut self.members[node.index()];
        match event {
            Event::Result(line) => {
                println!("{}{line}", member.labels[0]);
                if line == READY {
                    member.is_ready = true;
                    self.announce_once();
                }
            }
            Event::Message(line) => output::relay(&member.labels[1], &line),
            Event::StreamEnd => match member.process.on_stream_end() {
                Some(Ok(status)) => self.on_end(node, status),
                Some(Err(error)) => {
                    self.has_failed = true;
                    eprintln!("atlas: nobody knows how {node} ended: {error}");
                }
                None => {}
            },
        }
    }

    fn on_end(&mut self, node: NodeId, status: ExitStatus) {
        self.members[node.index()].is_running = false;
        if self.is_ending {
            if !status.success() {
                self.has_failed = true;
                eprintln!("atlas: {node} did not end in good order ({status})");
            }
            return;
        }
        self.has_failed = true;
        let quorum = self.files.cluster.quorum();
        let running = self.members.iter().filter(|member| member.is_running).count();
        let rest = if running >= quorum.quorum() {
            "the others go on"
        } else {
            "nothing is decided any more"
        };
        eprintln!(
            "atlas: {node} ended by itself ({status}): {running} of {} replicas run, {} are needed, {rest}; \
             to start it again: atlas run --config {}",
            quorum.n(),
            quorum.quorum(),
            self.files.replica_file(node).display()
        );
    }

    /// Says how to use the cluster, once a quorum is ready.
    fn announce_once(&mut self) {
        let quorum = self.files.cluster.quorum();
        let ready = self.members.iter().filter(|member| member.is_ready).count();
        if self.is_announced || self.is_ending || ready < quorum.quorum() {
            return;
        }
        self.is_announced = true;
        let (app, dir) = (self.files.app, self.files.dir().display());
        println!(
            "\nThe cluster answers: it serves {app}, n = {}, f = {}; files and data are in {dir}",
            quorum.n(),
            quorum.f()
        );
        match self.files.client_file() {
            Some(file) => examples(app, &file.display().to_string())
                .iter()
                .for_each(|example| println!("  {example}")),
            None => println!("  ! no client's file is there: nobody can call it from here"),
        }
        println!("  atlas top {dir}");
        println!("Admin endpoints, with /metrics, /readyz, /status:");
        for member in &self.members {
            println!("  {} http://{}", member.node, member.admin);
        }
        println!("Ctrl-C stops it, and `atlas up {dir}` goes on with what it holds.\n");
    }
}

/// What can be typed to see that the cluster answers.
fn examples(app: AppKind, client: &str) -> Vec<String> {
    let calls: &[&str] = match app {
        AppKind::Kv => &["put greeting hello", "get greeting"],
        AppKind::Counter => &["add 1"],
        AppKind::Bank => &["deposit 1 100", "balance 1"],
        AppKind::Null => return vec![format!("atlas bench --config {client} --seconds 5")],
    };
    let call = |call: &&str| format!("atlas client --config {client} {call}");
    calls.iter().map(call).collect()
}

/// What stands before each line of a replica.
fn label(node: NodeId, in_colour: bool) -> String {
    let plain = format!("{:<3}|", node.to_string());
    if in_colour {
        let colour = COLOURS[node.index() % COLOURS.len()];
        format!("\x1b[{colour}m{plain}\x1b[0m ")
    } else {
        plain + " "
    }
}

/// Whether no two shards of the replicas are to be pinned to one core.
fn have_cores_of_their_own(replicas: &[ReplicaConfig]) -> bool {
    let cores = Cores::of_process();
    let mut taken = BTreeSet::new();
    replicas.iter().all(|config| {
        let (threads, node) = (config.preprocessor_threads, config.node.id);
        match Topology::of_replica(&config.topology, &cores, threads, node) {
            Ok(topology) => {
                let mut pinned = topology.shards.iter().filter_map(|shard| shard.core);
                pinned.all(|core| taken.insert(core))
            }
            // The replica itself says why.
            Err(_) => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_labelled_alike_and_in_colour_only_where_that_is_shown() {
        let (first, eleventh) = (NodeId::new(0), NodeId::new(10));
        assert_eq!(label(first, false), "r0 | ");
        assert_eq!(label(eleventh, false), "r10| ");
        assert_eq!(label(first, true), "\x1b[36mr0 |\x1b[0m ");
    }
}
