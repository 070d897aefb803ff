mod reload;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use self::reload::Reloading;
use super::health::Desk;
use super::{CommandError, logs, output};
use crate::runtime::config::{
    AppKind, Durability, MonolithicStateReplicaConfig, REPLICA_WAIT_TIME, ReplicaConfig,
};
use crate::runtime::flight::{DumpCause, DumpError};
use crate::runtime::metrics::{LogContext, Metrics, TransferProgress};
use crate::runtime::server::ReplicaHandle;
use crate::runtime::server::monolithic_server::bootstrap_as_configured;
use crate::runtime::server::{Supervisor, replace_lost_directory};
use crate::runtime::shard::Alarm;
use crate::smr::execution::ScalableApp;
use crate::smr::execution::apps::{bank::Bank, counter::Counter, kv::Kv, null::Null};

/// Run one replica until it is told to stop.
///
/// SIGTERM and SIGINT drain: what is under way is finished, then it ends with exit code 0. A second SIGINT
/// ends it at once (130). SIGHUP has it read its files again: what is logged, and the token of the admin
/// endpoint, are as they say from then on, and what takes a restart is named. Where a terminal was closed it
/// drains. SIGUSR1 writes its last events into `flight/` in the data directory, for `atlas inspect flight`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The replica's file, as `atlas init` makes it.
    #[arg(long, env = "ATLAS_CONFIG")]
    config: PathBuf,
    /// Leave the threads to the scheduler, whatever the file says.
    #[arg(long)]
    no_pin: bool,
    /// If the data directory was lost, make a new one and abstain from votes until nothing that was promised
    /// matters any more.
    #[arg(long)]
    repair: bool,
    /// Where the admin endpoint listens (metrics, probes, status), whatever the file says: an address and a
    /// port.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Drain when standard input ends too: with whoever holds the other end of it, however that process ends.
    #[arg(long)]
    until_eof: bool,
}

/// What it says on a line of its own once it is linked with a quorum.
pub(super) const READY: &str = "READY";

/// Set by the signal handler, or at the end of standard input; everything else happens on a thread that looks at it.
static STOP: AtomicBool = AtomicBool::new(false);
/// As that, by SIGHUP.
static HANGUP: AtomicBool = AtomicBool::new(false);
/// As that, by SIGUSR1.
static RECORD: AtomicBool = AtomicBool::new(false);

impl Run {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        output::never_block();
        if self.until_eof {
            let thread = std::thread::Builder::new().name("stdin".to_owned());
            thread.spawn(stop_at_eof)?;
        }
        let mut loaded = ReplicaConfig::load(&self.config)?;
        let reloading = Reloading::of(&self.config)?;
        let config = &mut loaded.replica_config;
        logs::apply(&config.logging)?;
        // What is logged before it runs is about this replica as well.
        let metrics = Metrics::new(config.node.id);
        metrics.publish_epoch(config.node.cluster.epoch());
        LogContext::new(Arc::new(metrics)).enter();
        if self.no_pin {
            config.topology.pin = false;
            config
                .topology
                .shards
                .iter_mut()
                .for_each(|shard| shard.core = None);
        }
        config.supervisor = Supervisor::of_environment().unwrap_or_else(|error| {
            eprintln!("atlas: NOTIFY_SOCKET cannot be reached, nobody is told how the replica is: {error}");
            Supervisor::default()
        });
        if let Some(address) = self.admin {
            config.admin.listen = Some(address.to_string());
        }
        config.log_filter = logs::filter();
        if self.repair && config.durability != Durability::None {
            replace_lost_directory(config)?;
        }
        match AppKind::of(loaded.replica_config.node.cluster.application)? {
            AppKind::Kv => serve(loaded.serving(Kv), reloading),
            AppKind::Bank => serve(loaded.serving(Bank), reloading),
            AppKind::Counter => serve(loaded.serving(Counter), reloading),
            AppKind::Null => serve(loaded.serving(Null), reloading),
        }
    }
}

/// Reads standard input to its end, and has the replica drain then, or as soon as it has started.
fn stop_at_eof() {
    // What cannot be read any more has ended.
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    STOP.store(true, Ordering::Release);
}

fn serve<A: ScalableApp>(
    config: MonolithicStateReplicaConfig<A>,
    reloading: Reloading,
) -> Result<ExitCode, CommandError> {
    let cluster = config.replica_config.node.cluster.clone();
    let directory = config.replica_config.db_path.clone();
    let keeps = config.replica_config.durability != Durability::None;
    // It may come while the log is read back, which takes as long as the log is.
    crate::runtime::shard::signals::on_user(&RECORD);
    let (handle, run) = futures_lite::future::block_on(bootstrap_as_configured(config))?;
    handle.log_context().enter();
    println!(
        "{} of cluster {} ({}, {}, n = {}, f = {}) at {}\n{}",
        handle.node(),
        cluster.name,
        cluster.application,
        cluster.cluster_id(),
        cluster.quorum().n(),
        cluster.quorum().f(),
        handle.address(),
        handle.core_map()
    );
    if let Some(address) = handle.admin_address() {
        println!("admin endpoint at http://{address}");
    }
    crate::runtime::shard::signals::on_termination(&STOP);
    crate::runtime::shard::signals::on_hangup(&HANGUP);
    let desk = match keeps.then(|| Desk::open(&directory)).transpose() {
        Ok(desk) => desk,
        Err(error) => {
            eprintln!(
                "atlas: `atlas health` cannot ask this replica: {}: {error}",
                directory.display()
            );
            None
        }
    };
    let is_dead = Arc::new(AtomicBool::new(false));
    let watcher = Alarm::new({
        let (handle, is_dead) = (handle.clone(), is_dead.clone());
        move |error| {
            // Nobody would pass a signal on any more.
            output::error(format_args!("atlas: the replica stops: {error}\n"));
            is_dead.store(true, Ordering::Release);
            handle.shutdown();
        }
    });
    if std::io::stderr().is_terminal() {
        // A terminal may be stopped: nothing but this thread waits for it then.
        let handle = handle.clone();
        watcher.spawn("progress".to_owned(), move || show_transfers(&handle))?;
    }
    watcher.spawn("watch".to_owned(), move || {
        watch(&handle, desk.as_ref(), &reloading);
    })?;
    futures_lite::future::block_on(run)?;
    if is_dead.load(Ordering::Acquire) {
        return Ok(ExitCode::FAILURE);
    }
    println!("STOPPED");
    Ok(ExitCode::SUCCESS)
}

/// Shows on a terminal how far state transfers are, as long as the process lives.
fn show_transfers(handle: &ReplicaHandle) {
    let mut bar = None;
    loop {
        show_transfer(&mut bar, handle.standing().progress);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Draws how far a state transfer is, on a terminal.
fn show_transfer(bar: &mut Option<ProgressBar>, progress: Option<TransferProgress>) {
    let Some(progress) = progress else {
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
        return;
    };
    let bar = bar.get_or_insert_with(|| {
        let style = "{prefix} {wide_bar} {percent} % {msg}";
        ProgressBar::new(progress.of as u64)
            .with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_prefix("state from other replicas")
    });
    bar.set_position(progress.pieces as u64);
    let left = progress
        .seconds_left
        .map_or_else(String::new, |left| format!(", {left:.0} s left"));
    bar.set_message(format!(
        "{} MiB from {} donors, {:.1} MiB/s{left}",
        progress.bytes >> 20,
        progress.donors,
        progress.bytes_per_second / f64::from(1 << 20)
    ));
}

/// Says what became of a reload, whatever is logged.
fn tell_reload(reloaded: Result<String, CommandError>) {
    match reloaded {
        Ok(done) => eprintln!("atlas: SIGHUP: the files were read again: {done}"),
        Err(error) => output::error(format_args!("atlas: SIGHUP: nothing is reloaded: {error}\n")),
    }
}

/// Says READY once a quorum is linked, passes signals on, and answers who asks for the replica's health.
fn watch(handle: &ReplicaHandle, desk: Option<&Desk>, reloading: &Reloading) {
    let (started, wait) = (Instant::now(), Duration::from_millis(REPLICA_WAIT_TIME));
    let (mut is_ready, mut complained) = (false, false);
    // One that was closed is none any more.
    let (mut is_ending, on_terminal) = (false, std::io::stdin().is_terminal());
    loop {
        if HANGUP.swap(false, Ordering::AcqRel) {
            match on_terminal {
                true => STOP.store(true, Ordering::Release),
                false => tell_reload(reloading.reload(handle)),
            }
        }
        if RECORD.swap(false, Ordering::AcqRel) {
            record_events(handle);
        }
        if STOP.load(Ordering::Acquire) && !is_ending {
            is_ending = true;
            handle.shutdown();
        }
        if let Some(desk) = desk {
            desk.serve(handle, is_ending);
        }
        if !is_ready && !is_ending && handle.is_linked() {
            is_ready = true;
            println!("{READY}");
        }
        if !is_ready && !complained && started.elapsed() > wait {
            complained = true;
            eprintln!(
                "waiting for other replicas: linked with {}, {} needed",
                handle.standing().replica_links,
                handle.links_needed()
            );
        }
        std::thread::sleep(Duration::from_millis(if is_ready { 50 } else { 5 }));
    }
}

/// Writes the replica's last events to a file, and says which. Nobody here waits for the disk.
fn record_events(handle: &ReplicaHandle) {
    let told = |result: Result<PathBuf, DumpError>| match result {
        Ok(path) => eprintln!(
            "atlas: SIGUSR1: the last events are in {}: atlas inspect flight shows them",
            path.display()
        ),
        Err(error) => eprintln!("atlas: SIGUSR1: the last events are not written: {error}"),
    };
    let why = "asked for by SIGUSR1".to_owned();
    if let Err(error) = handle.flight().dump_aside(DumpCause::Asked, why, told) {
        eprintln!("atlas: SIGUSR1: the last events are not written: {error}");
    }
}
