use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::init_staging::Staging;
use super::{CommandError, interrupts, parse_auth};
use crate::runtime::config::{
    Agreement, AppKind, DecisionLogConfig, FlightConfig, OperatorKey, PartyKeys, PersistentLogConfig,
    StateTransferConfig,
};
use crate::smr::membership::{CLIENTS_MAX, OPERATORS_MAX};
use crate::smr::preprocessing::ClientAuth;
use crate::smr::types::{ApplicationId, PROTOCOL_VERSION};

/// Make the files of a new cluster.
///
/// One for everybody, one for each replica and client, and the keys of all and of operators.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Replicas; n = 3f+1 of them tolerate f faulty ones.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// Clients: at most 1,048,576. Each is a file, a key, and 190 bytes of cluster.toml.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=CLIENTS_MAX as i64))]
    clients: u32,
    /// Operators, who may change the cluster: a key each. Without any nothing about it can ever be changed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=OPERATORS_MAX as i64))]
    operators: u16,
    /// How many operators have to sign a change; by default more than half of them.
    #[arg(long, value_name = "M")]
    operators_threshold: Option<u16>,
    /// Where the files go; made if it is not there.
    #[arg(long)]
    out: PathBuf,
    /// Where the replicas' data directories go, for instance /var/lib/atlas; by default beside the files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The host all replicas listen at; edit cluster.toml where they differ.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port of replica 0; the others follow.
    #[arg(long, default_value_t = 7000, value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,
    /// How clients prove their frames: mac or signature.
    #[arg(long, default_value = "signature", value_parser = parse_auth)]
    auth: ClientAuth,
    /// The application: kv, counter, bank or null, which `atlas run` has, or the name of your own.
    #[arg(long, default_value = "kv")]
    app: String,
    /// The application's version.
    #[arg(long, default_value_t = 1)]
    app_version: u32,
    /// The cluster's name.
    #[arg(long, default_value = "atlas")]
    name: String,
}

impl Init {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        interrupts::heed();
        let application = self.make()?;
        self.print_next(application, &self.out);
        Ok(ExitCode::SUCCESS)
    }

    /// A cluster of a built-in application, of so many replicas and clients, all on this machine; the rest is as
    /// the command line has it by default.
    pub(super) fn on_this_host(
        out: &Path,
        (replicas, clients): (u16, u32),
        app: AppKind,
        base_port: u16,
    ) -> Self {
        Self {
            replicas,
            clients,
            operators: 1,
            operators_threshold: None,
            out: out.to_owned(),
            data: None,
            host: "127.0.0.1".to_owned(),
            base_port,
            auth: ClientAuth::Signature,
            app: app.id().name().to_owned(),
            app_version: app.id().version(),
            name: "atlas".to_owned(),
        }
    }

    /// Makes the files, whole or not at all: those of a cluster that serves this application.
    pub(super) fn make(&self) -> Result<ApplicationId, CommandError> {
        let application = ApplicationId::new(&self.app, self.app_version)?;
        if self.host.is_empty()
            || self
                .host
                .contains(|c: char| c.is_whitespace() || c == '"' || c == '\\')
        {
            return Err(format!("--host {:?}: is no host", self.host).into());
        }
        if self.base_port.checked_add(self.replicas - 1).is_none() {
            return Err(format!(
                "--base-port {}: {} ports do not fit above it",
                self.base_port, self.replicas
            )
            .into());
        }
        let threshold = self.threshold()?;
        let mut staging = Staging::begin(&self.out, self.replicas, self.clients, self.operators)?;
        let mut cluster = self.cluster_file(application, threshold);
        for id in 0..self.replicas {
            let keys = PartyKeys::generate();
            keys.save(&staging.path(&format!("r{id}.key")))?;
            staging.write(&format!("r{id}.toml"), &self.replica_file(id))?;
            let address = format!("{}:{}", self.host, self.base_port + id);
            let _ = write!(cluster, "\n[[replicas]]\nid = {id}\naddress = \"{address}\"\n");
            cluster.push_str(&public_keys(&keys));
            staging.next()?;
        }
        for id in 0..self.clients {
            let keys = PartyKeys::generate();
            keys.save(&staging.path(&format!("c{id}.key")))?;
            staging.write(&format!("c{id}.toml"), &client_file(id))?;
            let _ = write!(cluster, "\n[[clients]]\nid = {id}\n");
            cluster.push_str(&public_keys(&keys));
            staging.next()?;
        }
        for id in 0..self.operators {
            let key = OperatorKey::generate();
            key.save(&staging.path(&format!("o{id}.key")))?;
            let signing = key.signing.verifying_key();
            let _ = write!(
                cluster,
                "\n[[operators]]\nid = {id}\nsigning_key = \"{signing}\"\n"
            );
        }
        staging.write("cluster.toml", &cluster)?;
        staging.format((0..self.replicas).map(|id| self.data_directory(id)))?;
        staging.settle()?;
        Ok(application)
    }

    /// How many operators have to sign.
    fn threshold(&self) -> Result<u16, CommandError> {
        match self.operators_threshold {
            None if self.operators == 0 => Ok(0),
            None => Ok(self.operators / 2 + 1),
            Some(threshold) if (1..=self.operators).contains(&threshold) => Ok(threshold),
            Some(threshold) => Err(format!(
                "--operators-threshold {threshold}: of {} operators so many cannot sign",
                self.operators
            )
            .into()),
        }
    }

    /// A replica's data directory, as its file names it.
    fn data_directory(&self, id: u16) -> PathBuf {
        match &self.data {
            // Relative to where this command runs, not to the file.
            Some(data) => std::path::absolute(data)
                .unwrap_or_else(|_| data.clone())
                .join(format!("r{id}")),
            None => format!("r{id}-data").into(),
        }
    }

    /// The file that all share, up to its replicas, clients and operators.
    fn cluster_file(&self, application: ApplicationId, threshold: u16) -> String {
        let a = Agreement {
            client_auth: self.auth,
            ..Agreement::default()
        };
        format!(
            "# A cluster: who is in it, and what they agree on. The same file for everybody. Its digest is the\n\
             # cluster's identity: what is changed here, other than addresses, makes another cluster.\n\
             format = 1\n\
             name = {name:?}\n\
             # Random, so that no two clusters are ever one.\n\
             genesis = \"{genesis}\"\n\
             # The version of messages that the cluster begins with.\n\
             protocol_version = {PROTOCOL_VERSION}\n\
             # How many of the operators at the end of this file have to sign a change of the cluster.\n\
             operators_threshold = {threshold}\n\n\
             # What the cluster serves, for ever. Its data is never opened by another application or version.\n\
             [application]\n\
             name = \"{app}\"\n\
             version = {app_version}\n\n\
             [agreement]\n\
             # How clients prove their frames: \"signature\" (Ed25519) or \"mac\" (one per replica; cheaper).\n\
             client_auth = \"{auth}\"\n\
             # A checkpoint is due after so many decisions, or bytes of batches, whichever comes first.\n\
             checkpoint_decisions = {decisions}\n\
             checkpoint_bytes = {bytes}\n\
             # A state is part of a checkpoint once the log has grown by so many times its size, or by so many bytes; the checkpoints\n\
             # between cover the decisions alone. A restart executes at most that much again.\n\
             state_log_factor = {state_factor}\n\
             state_log_bytes_max = {state_bytes}\n\
             # Sequence numbers accepted after the stable checkpoint; at least twice checkpoint_decisions.\n\
             window = {window}\n\
             # The largest frame of a client, and the largest batch.\n\
             frame_bytes_max = {frame_bytes}\n\
             frame_operations_max = {frame_operations}\n\
             batch_bytes_max = {batch_bytes}\n\
             batch_frames_max = {batch_frames}\n\
             # A proposal whose time is further from a replica's own clock is not voted for: keep clocks in step (NTP).\n\
             clock_bound_ms = {clock_bound}\n",
            name = self.name,
            app = application.name(),
            app_version = application.version(),
            genesis = hex::encode(rand::random::<[u8; 16]>()),
            auth = a.client_auth,
            decisions = a.checkpoint_decisions,
            bytes = a.checkpoint_bytes,
            state_factor = a.state_log_factor,
            state_bytes = a.state_log_bytes_max,
            window = a.window,
            frame_bytes = a.frame_bytes_max,
            frame_operations = a.frame_operations_max,
            batch_bytes = a.batch_bytes_max,
            batch_frames = a.batch_frames_max,
            clock_bound = a.clock_bound_ms,
        )
    }

    fn replica_file(&self, id: u16) -> String {
        let log = PersistentLogConfig::default();
        let data = self.data_directory(id).display().to_string();
        let (decisions, transfer) = (DecisionLogConfig::default(), StateTransferConfig::default());
        format!(
            "# Replica {id}'s own file. Paths are relative to it.\n\
             node = {id}\n\
             cluster = \"cluster.toml\"\n\
             keys = \"r{id}.key\"\n\
             db_path = {data:?}\n\
             # Where to listen; left out, the address in cluster.toml.\n\
             # listen = \"0.0.0.0:{port}\"\n\
             # How decisions are executed: single, or speculative on so many threads. Replicas may differ.\n\
             executor = \"single\"\n\
             workers = 2\n\
             # What is on disk before a vote or a reply leaves: sync (everything), async or none (for comparison).\n\
             durability = \"sync\"\n\n\
             [log]\n\
             # The size of one segment, and how much disk the log may use.\n\
             segment_bytes = {segment}\n\
             log_bytes_max = {log_max}\n\n\
             [decision_log]\n\
             # Decisions kept in memory for replicas that lag behind, and their bytes; beyond, they are read from the log.\n\
             kept_decisions = {kept_decisions}\n\
             kept_bytes = {kept_bytes}\n\n\
             [state_transfer]\n\
             # How many bytes a second one lagging replica is sent at most: while this replica idles, and while it serves; and how\n\
             # many at once after a pause.\n\
             donor_bytes_per_second = {donor_bytes}\n\
             donor_bytes_per_second_serving = {serving_bytes}\n\
             donor_burst_bytes = {burst_bytes}\n\n\
             [ordering]\n\
             # Proposals under way at once while this replica leads.\n\
             pipeline = {pipeline}\n\n\
             [topology]\n\
             # Pin shards to cores. `[[topology.shards]]` entries with roles and a core replace the automatic layout.\n\
             pin = true\n\
             # How long an idle shard looks for work before it sleeps, in microseconds.\n\
             spin_us = 0\n\
             # Whether this process's memory may be of huge pages: see `atlas doctor`.\n\
             huge_pages = false\n\n\
             [limits]\n\
             connections_max = 1024\n\
             handshake_timeout_ms = 5000\n\n\
             {operators}",
            operators = sections_for_operators(id),
            port = usize::from(self.base_port) + usize::from(id),
            pipeline = crate::runtime::config::OrderingConfig::default().pipeline,
            segment = log.segment_bytes,
            log_max = log.log_bytes_max,
            kept_decisions = decisions.kept_decisions,
            kept_bytes = decisions.kept_bytes,
            donor_bytes = transfer.donor_bytes_per_second,
            serving_bytes = transfer.donor_bytes_per_second_serving,
            burst_bytes = transfer.donor_burst_bytes,
        )
    }

    fn print_next(&self, application: ApplicationId, out: &Path) {
        let (out, built_in) = (out.display(), AppKind::of(application));
        println!(
            "made {out}: {} replicas, {} clients. Next, each in a terminal of its own:",
            self.replicas, self.clients
        );
        for id in 0..self.replicas {
            match built_in {
                Ok(_) => println!("  atlas run --config {out}/r{id}.toml"),
                Err(_) => println!("  your program, with ReplicaConfig::load(\"{out}/r{id}.toml\")"),
            }
        }
        if self.replicas < 4 {
            let few = match self.replicas {
                1 => "1 replica tolerates".to_owned(),
                few => format!("{few} replicas tolerate"),
            };
            println!("! {few} no fault: for development only; four tolerate one");
        }
        match self.operators {
            0 => println!("! there are no operators: nothing about this cluster can ever be changed"),
            1 => println!("{out}/o0.key signs changes of the cluster: keep it where no replica runs"),
            all => {
                println!(
                    "{out}/o0.key to o{}.key sign changes of the cluster: keep each where no replica runs",
                    all - 1
                );
            }
        }
        if self.clients > 0 && built_in == Ok(AppKind::Kv) {
            println!("then:\n  atlas client --config {out}/c0.toml put greeting hello");
            println!("  atlas client --config {out}/c0.toml get greeting");
        }
    }
}

/// What of a replica's file is about those who watch it.
fn sections_for_operators(id: u16) -> String {
    format!(
        "[logging]\n\
         # What is logged, unless ATLAS_LOG or --log says otherwise: levels, of everything or of targets. SIGHUP has this section, and\n\
         # the token below, read again.\n\
         filter = \"warn\"\n\
         # text, or json: an object on each line.\n\
         format = \"text\"\n\n\
         [admin]\n\
         # Where monitoring, probes and operators may ask: /metrics, /livez, /readyz, /status, … Left out, there is no such endpoint.\n\
         # listen = \"127.0.0.1:{admin_port}\"\n\
         # What every request has to name, one line that only the owner can read; needed where others than this host reach it.\n\
         # bearer_token_file = \"r{id}.token\"\n\n\
         [flight]\n\
         # Events of each shard that are remembered, for `atlas inspect flight`; 0 for none.\n\
         events_per_shard = {events}\n",
        admin_port = 9464 + usize::from(id),
        events = FlightConfig::default().events_per_shard,
    )
}

fn public_keys(keys: &PartyKeys) -> String {
    let (signing, link) = (keys.signing.verifying_key(), keys.link.public());
    format!("signing_key = \"{signing}\"\nlink_key = \"{link}\"\n")
}

fn client_file(id: u32) -> String {
    format!(
        "# Client {id}'s own file. Paths are relative to it.\n\
         client = {id}\n\
         cluster = \"cluster.toml\"\n\
         keys = \"c{id}.key\"\n\n\
         [tuning]\n\
         # How long to wait for f+1 equal replies before asking everybody, in milliseconds.\n\
         retransmit_timeout_ms = 500\n\
         # How long a call may take as a whole, in milliseconds.\n\
         deadline_ms = 10000\n"
    )
}
