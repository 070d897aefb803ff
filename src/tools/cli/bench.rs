use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use super::CommandError;
use super::demo::progress_bar;
use crate::client::{Engine, EngineHandle};
use crate::runtime::config::{AppKind, ClientConfig};
use crate::runtime::shard::signals::on_termination;
use crate::tools::load::{
    Control, INTERRUPTED, LatencyReport, LoadDriver, Pace, Shape, Tally, Workload, draw_histogram,
    is_interrupted, measured_nothing, rate_missed, sent_nothing,
};

/// Measure a running cluster: in a closed loop, or in an open loop at a given rate.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Clients' files, as `atlas init` makes them; several share the load.
    #[arg(long, required = true, num_args = 1..)]
    config: Vec<PathBuf>,
    /// The application whose operations are sent: by default the cluster's.
    #[arg(long, value_enum)]
    app: Option<AppKind>,
    /// Bytes of one operation.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Keys the operations touch.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// The share of reads, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = super::parse_percent)]
    reads: f64,
    /// Ask reads beside the order.
    #[arg(long)]
    unordered: bool,
    /// The skew of the keys, from 0 (uniform) to below 1 (YCSB has 0.99).
    #[arg(long, default_value_t = 0.0, value_parser = super::parse_skew)]
    zipf: f64,
    /// The share of operations that touch one and the same key, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = super::parse_percent)]
    conflict: f64,
    /// Closed loop: operations under way at any time, over all clients.
    #[arg(long, default_value_t = 4096, conflicts_with = "rate", value_parser = super::parse_count)]
    outstanding: usize,
    /// Open loop: so many operations per second, whatever becomes of them, in place of `--outstanding`.
    #[arg(long, value_parser = super::parse_rate)]
    rate: Option<f64>,
    /// Measured time in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 10.0, value_parser = super::parse_seconds)]
    seconds: f64,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What was measured, and in how many seconds.
struct Measured {
    tally: Tally,
    seconds: f64,
    /// Processor time of the clients.
    cpu: Duration,
    /// Operations that were sent.
    sent: u64,
}

impl Bench {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        self.json.as_deref().map(super::may_write).transpose()?;
        let configs = self.load_configs()?;
        let served = AppKind::of(configs[0].cluster.application)?;
        if let Some(other) = self.app.filter(|app| *app != served) {
            return Err(format!("the cluster serves {}, not {}", served.id(), other.id()).into());
        }
        let control = Control::new();
        let workload = Workload::new(served, self.shape(), 42);
        let deadline = Duration::from_millis(configs[0].tuning.deadline_ms);
        let driver = LoadDriver::new(workload, self.pace(), configs.len(), deadline, control.clone());
        let engine = Engine::start("bench", &configs, None, Box::new(driver))?;
        let quorum = configs[0].cluster.quorum();
        engine
            .wait_connected(quorum.quorum(), Duration::from_secs(10))
            .map_err(|reasons| {
                format!(
                    "fewer than {} replicas can be reached: {reasons}",
                    quorum.quorum()
                )
            })?;
        let measured = self.measure(&control, &engine)?;
        self.tell(&configs, served, &measured)
    }

    /// Prints what was measured, and writes it where it is asked for.
    fn tell(
        &self,
        configs: &[ClientConfig],
        served: AppKind,
        measured: &Measured,
    ) -> Result<ExitCode, CommandError> {
        let Measured {
            tally,
            seconds,
            cpu,
            sent,
        } = measured;
        let sent_per_second = *sent as f64 / seconds;
        let missed = self.rate.and_then(|rate| rate_missed(rate, sent_per_second));
        if let Some(missed) = &missed {
            eprintln!("atlas: {missed}");
        }
        if let Some(error) = &tally.last_error {
            let failed = tally.failed + tally.unexpected;
            eprintln!("atlas: {failed} operations failed, the last with: {error}");
        }
        let latency = LatencyReport::of(&tally.latency_ns);
        println!(
            "latency from the intended send time\n{}",
            draw_histogram(&tally.latency_ns)
        );
        let quorum = configs[0].cluster.quorum();
        let report = serde_json::json!({
            "throughput_ops_s": tally.completed as f64 / seconds,
            "latency_us": latency,
            "errors": tally.failed + tally.unexpected,
            "last_error": tally.last_error,
            "operations": tally.completed,
            "cpu_us_per_op_client": cpu.as_secs_f64() * 1e6 / tally.completed.max(1) as f64,
            "n": quorum.n(),
            "f": quorum.f(),
            "payload_bytes": self.payload,
            "outstanding": if self.rate.is_some() { 0 } else { self.outstanding },
            "rate": self.rate.unwrap_or(0.0),
            "rate_kept": missed.is_none(),
            "sent_ops_s": sent_per_second,
            "app": format!("{served:?}").to_lowercase(),
            "shape": self.shape(),
            "machine": crate::tools::load::machine(),
            "cores": core_affinity::get_core_ids().map_or(0, |cores| cores.len()),
            "clients": configs.len(),
            "auth": configs[0].cluster.agreement.client_auth.to_string(),
            "seconds": seconds,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        if let Some(path) = &self.json {
            std::fs::write(path, serde_json::to_string_pretty(&report)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(if tally.failed + tally.unexpected == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn pace(&self) -> Pace {
        match self.rate {
            Some(rate) => Pace::Open { rate },
            None => Pace::Closed {
                outstanding: self.outstanding,
            },
        }
    }

    fn shape(&self) -> Shape {
        Shape {
            payload_bytes: self.payload,
            keys: self.keys,
            reads: self.reads / 100.0,
            unordered: self.unordered,
            zipf: self.zipf,
            conflict: self.conflict / 100.0,
        }
    }

    /// The clients that share the load, which are distinct clients of one cluster.
    fn load_configs(&self) -> Result<Vec<ClientConfig>, CommandError> {
        let configs: Vec<ClientConfig> = self
            .config
            .iter()
            .map(|path| ClientConfig::load(path))
            .collect::<Result<_, _>>()?;
        if configs
            .iter()
            .any(|config| config.cluster.cluster_id() != configs[0].cluster.cluster_id())
        {
            return Err("the clients belong to different clusters".into());
        }
        for (place, config) in configs.iter().enumerate() {
            if let Some(twin) = configs[..place]
                .iter()
                .position(|other| other.client == config.client)
            {
                let [first, second] = [&self.config[twin], &self.config[place]].map(|path| path.display());
                let client = config.client;
                return Err(
                    format!("{first} and {second} are both client {client}: name each client once").into(),
                );
            }
        }
        Ok(configs)
    }

    /// Warms up and measures, while a bar shows how far it is.
    fn measure(&self, control: &Arc<Control>, engine: &EngineHandle) -> Result<Measured, CommandError> {
        let (warm_up, measured) = (Duration::from_secs(1), Duration::from_secs_f64(self.seconds));
        let bar = progress_bar(warm_up + measured);
        let begin = Instant::now();
        control.send(true);
        engine.wake();
        let mut ended = 0;
        on_termination(&INTERRUPTED);
        let mut pass = |until: Duration| {
            while begin.elapsed() < until && !is_interrupted() {
                std::thread::sleep(Duration::from_millis(100).min(until.saturating_sub(begin.elapsed())));
                let now = control.ended.load(Ordering::Acquire);
                bar.set_position(begin.elapsed().as_millis() as u64);
                bar.set_message(format!("{:>9} operations/s", (now - ended) * 10));
                ended = now;
            }
        };
        pass(warm_up);
        if let Some(why) = sent_nothing(control) {
            bar.finish_and_clear();
            return Err(why.into());
        }
        if !std::io::stderr().is_terminal() && !is_interrupted() {
            // Whoever watches a file or a pipe sees no bar.
            eprintln!("atlas: warmed up; measuring for {} s", self.seconds);
        }
        let sent = control.sent.load(Ordering::Acquire);
        let (start, cpu) = (Instant::now(), engine.cpu_time());
        control.measure(true);
        pass(warm_up + measured);
        control.measure(false);
        let (seconds, cpu) = (
            start.elapsed().as_secs_f64(),
            engine.cpu_time().saturating_sub(cpu),
        );
        let sent = control.sent.load(Ordering::Acquire) - sent;
        control.send(false);
        bar.finish_and_clear();
        let tally = control.tally();
        if let Some(why) = measured_nothing(&tally, seconds) {
            return Err(why.into());
        }
        Ok(Measured {
            tally,
            seconds,
            cpu,
            sent,
        })
    }
}
