//! A replica that fell behind catches up, while one of those it asks lies to it.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{CommandError, interrupts};
use crate::client::Client;
use crate::runtime::config::{Agreement, AppKind, ClientConfig, DecisionLogConfig};
use crate::smr::types::NodeId;
use crate::tools::load::{ClusterOptions, DonorLie, Filling, LocalCluster, States, fill};

/// What the store is filled with while the replica is down, and how much of it between two looks for an
/// interrupt.
const KEYS: u64 = 200_000;
const KEYS_AT_ONCE: u64 = 10_000;
const VALUE_BYTES: usize = 512;
/// How long the catch-up may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What an interrupt costs.
const NOT_SHOWN: &str = "no catch-up was shown to its end";

/// How a catch-up went.
struct Outcome {
    seconds: f64,
    refused: u64,
    agree: bool,
}

/// Has the last replica catch up with a store that was filled meanwhile, at first from correct replicas, then
/// while replica 0 lies.
pub(super) fn run(options: &ClusterOptions, lie: DonorLie) -> Result<ExitCode, CommandError> {
    println!("honest run");
    let honest = catch_up(options, None)?;
    println!("\nnow r0 lies");
    let lied_to = catch_up(options, Some(lie))?;
    println!(
        "\n{:.2} of the honest run's speed: {:.2} s in place of {:.2} s; {} false chunks refused",
        honest.seconds / lied_to.seconds,
        lied_to.seconds,
        honest.seconds,
        lied_to.refused
    );
    let is_told = lie != DonorLie::CorruptChunks || lied_to.refused > 0;
    Ok(match honest.agree && lied_to.agree && is_told {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Stops the last replica, fills a store, starts the replica again and shows how it gets the state.
fn catch_up(options: &ClusterOptions, lie: Option<DonorLie>) -> Result<Outcome, CommandError> {
    let options = ClusterOptions {
        app: AppKind::Kv,
        donor_lies: lie.map(|lie| (NodeId::new(0), lie)).into_iter().collect(),
        dl_config: DecisionLogConfig {
            kept_decisions: 1,
            kept_bytes: 1 << 20,
        },
        agreement: Agreement {
            // What is shown is the transfer of a state: there has to be one, and logs are cut.
            state_log_bytes_max: 1 << 16,
            ..options.agreement.clone()
        },
        ..options.clone()
    };
    let mut cluster = LocalCluster::start(&options)?;
    let late = NodeId::new(options.replicas as u16 - 1);
    cluster.stop(late)?;
    fill_store(&cluster.client(0), late, &options)?;
    match lie {
        Some(lie) => println!("{late} starts again; r0: {}", lie.name()),
        None => println!("{late} starts again"),
    }
    let start = Instant::now();
    cluster.restart(late)?;
    watch(&cluster, late, start)?;
    let seconds = start.elapsed().as_secs_f64();
    let refused = cluster
        .replica(late)
        .map_or(0, |replica| replica.counter("chunks_refused"));
    let states = cluster.states(Duration::from_secs(10));
    println!(
        "{late} caught up in {seconds:.2} s; the replicas\' states are {}",
        match &states {
            States::Equal => "equal".to_owned(),
            States::Different => "DIFFERENT".to_owned(),
            States::Apart(standing) => format!("not compared: {standing}"),
        }
    );
    Ok(Outcome {
        seconds,
        refused,
        agree: states.are_equal(),
    })
}

/// Fills the store while a replica is down, up to a checkpoint of all of it.
fn fill_store(config: &ClientConfig, late: NodeId, options: &ClusterOptions) -> Result<(), CommandError> {
    let client = Client::connect_blocking(config.clone())?;
    println!("{late} is down; {KEYS} values of {VALUE_BYTES} B are written meanwhile");
    let mut filling = Filling {
        first_key: 0,
        keys: KEYS_AT_ONCE,
        value_bytes: VALUE_BYTES,
        outstanding: 1024,
    };
    while filling.first_key < KEYS {
        fill(&client, filling)?;
        filling.first_key += filling.keys;
        interrupts::expect_none(NOT_SHOWN)?;
    }
    // A few more decisions, so that a checkpoint of all of it is taken.
    filling = Filling {
        first_key: 0,
        keys: 2 * options.agreement.checkpoint_decisions,
        outstanding: 1,
        ..filling
    };
    fill(&client, filling)?;
    interrupts::expect_none(NOT_SHOWN)
}

/// Tells how a replica catches up, until it has.
fn watch(cluster: &LocalCluster, late: NodeId, start: Instant) -> Result<(), CommandError> {
    let mut told = None;
    loop {
        let target = cluster.correct().map(|replica| replica.standing().executed).max();
        let replica = cluster.replica(late).ok_or("the replica ended")?;
        let standing = replica.standing();
        let step = (standing.transfer.stage(), standing.transfer.tenth());
        if Some(step) != told {
            println!("{:>8.3} s  {}", start.elapsed().as_secs_f64(), standing.phase());
            std::io::stdout().flush().map_err(|error| error.to_string())?;
            told = Some(step);
        }
        if Some(standing.executed) == target && replica.counter("states_transferred") > 0 {
            return Ok(());
        }
        interrupts::expect_none(NOT_SHOWN)?;
        if start.elapsed() > LIMIT {
            return Err(format!("{late} does not catch up: {standing:?}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
