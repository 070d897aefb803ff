mod files;
mod ports;
mod process;
mod running;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::files::ClusterFiles;
use self::running::RunningCluster;
use super::init::Init;
use super::{CommandError, interrupts, output};
use crate::runtime::config::AppKind;
use crate::smr::membership::CLIENTS_MAX;

/// What a new cluster has unless the command line says otherwise, as with `atlas init`.
const REPLICAS: u16 = 4;
const CLIENTS: u32 = 4;

/// Run a whole cluster on this machine, and keep it for the next time.
///
/// Where there is none yet it is made, as `atlas init` does it, at ports that are free. Each replica is a
/// process of its own (`atlas run`) with an admin endpoint, and ends with this one, however that ends.
///
/// SIGTERM and SIGINT drain all replicas; then it ends with exit code 0. A second SIGINT ends everything at
/// once (130). A replica that ends by itself is not started again: the others go on, and the exit code is 1
/// in the end.
#[derive(Debug, Args)]
pub(super) struct Up {
    /// The cluster's directory: one that `up` or `init` has made, an empty one, or one that is made now.
    #[arg(default_value = "atlas-cluster")]
    dir: PathBuf,
    /// Replicas of a new cluster, 4 unless said; n = 3f+1 of them tolerate f faulty ones.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: Option<u16>,
    /// Clients of a new cluster, 4 unless said.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=CLIENTS_MAX as i64))]
    clients: Option<u32>,
    /// The application of a new cluster, kv unless said.
    #[arg(long, value_enum)]
    app: Option<AppKind>,
    /// Leave the threads to the scheduler. They are pinned only where all replicas' have cores of their own.
    #[arg(long)]
    no_pin: bool,
}

impl Up {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        output::never_block();
        interrupts::heed();
        if files::is_vacant(&self.dir)? {
            self.make()?;
        }
        let files = ClusterFiles::open(&self.dir)?;
        self.expect(
            "--replicas",
            self.replicas.map(usize::from),
            files.cluster.replicas.len(),
        )?;
        let clients = self.clients.map(|clients| clients as usize);
        self.expect("--clients", clients, files.cluster.clients.len())?;
        self.expect("--app", self.app, files.app)?;
        Ok(RunningCluster::start(&files, self.no_pin)?.watch())
    }

    fn make(&self) -> Result<(), CommandError> {
        let (replicas, clients) = (self.replicas.unwrap_or(REPLICAS), self.clients.unwrap_or(CLIENTS));
        // As many again for admin endpoints, which are looked for right above.
        let base_port = ports::free_anywhere(2 * replicas)?;
        let app = self.app.unwrap_or(AppKind::Kv);
        Init::on_this_host(&self.dir, (replicas, clients), app, base_port).make()?;
        println!(
            "made {}: {replicas} replicas, {clients} clients",
            self.dir.display()
        );
        Ok(())
    }

    /// What is asked of a cluster that is there has to be so already.
    fn expect<T: PartialEq + Display>(
        &self,
        option: &str,
        asked: Option<T>,
        is: T,
    ) -> Result<(), CommandError> {
        match asked.filter(|asked| *asked != is) {
            None => Ok(()),
            Some(asked) => Err(format!(
                "{option} {asked}: {} has a cluster already, with {is}; leave the option out, or name another directory",
                self.dir.display()
            )
            .into()),
        }
    }
}
