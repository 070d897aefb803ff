mod answer;
mod asker;
mod draw;
mod histogram;
mod model;
mod prometheus;
mod replica;
mod screen;
mod sources;
mod units;

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;

use self::asker::{Asker, PATIENCE};
use self::model::{Flow, Model};
use self::screen::{Input, Screen};
use self::sources::{SOURCES_MAX, Source, of_directory, token_in};
use super::admin_page::parse_address;
use super::{CommandError, PANICKED};
use crate::runtime::shard::signals::{on_hangup, on_second_interrupt, on_termination};
use crate::tools::load::{INTERRUPTED, is_interrupted};

/// How long an answer, a signal or a key may go unnoticed.
const LOOK: Duration = Duration::from_millis(50);

/// Taken by a second SIGINT, which would end the process before it gives the terminal back.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// Show a whole cluster live in the terminal.
///
/// Asks each replica's admin endpoint for /status and /metrics once in an interval. In a directory of `atlas
/// up` or `atlas init` it finds the endpoints itself; elsewhere name them with --admin, of all replicas: who
/// leads and how many have to agree is told by their number.
///
/// Keys: q, Esc or Ctrl-C quit, s sorts by the next column, r reverses, up and down select, Enter shows one
/// replica alone, p pauses, ? helps. Exit code 0; of --once 1 when no replica answers.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// The cluster's directory.
    #[arg(default_value = "atlas-cluster", conflicts_with = "admin")]
    dir: PathBuf,
    /// Admin endpoints to ask, in place of a directory: a host and a port each.
    #[arg(long, value_name = "ADDR", num_args = 1.., value_parser = parse_address)]
    admin: Vec<String>,
    /// The file of the token that the endpoints ask for, in place of those that the replicas' files name.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Between two questions to each replica, in milliseconds.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
    /// Print one picture as plain text, of one interval, and end.
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        if !self.once && !Screen::is_there() {
            return Err("there is no terminal to draw on: --once prints one picture".into());
        }
        let (title, sources) = self.sources()?;
        let named = sources.iter().map(|source| {
            let address = source.address.clone().unwrap_or_default();
            (source.label.clone(), address)
        });
        let model = Model::new(title, named.collect(), Duration::from_millis(self.interval_ms));
        let asker = Asker::start(sources)?;
        if self.once {
            Ok(once(model, &asker))
        } else {
            watch(model, &asker)
        }
    }

    /// Whom to ask, and what they are together.
    fn sources(&self) -> Result<(String, Vec<Source>), CommandError> {
        let token = self.token_file.as_deref().map(token_in).transpose()?;
        if self.admin.is_empty() {
            let sources = of_directory(&self.dir, token.as_ref())?;
            return Ok((self.dir.display().to_string(), sources));
        }
        if self.admin.len() > SOURCES_MAX {
            return Err(format!("--admin: a cluster has at most {SOURCES_MAX} replicas").into());
        }
        let sources = self
            .admin
            .iter()
            .map(|address| Source::at(address, token.as_ref()));
        Ok((String::new(), sources.collect()))
    }
}

/// Looks twice, an interval apart, and prints what was seen.
fn once(mut model: Model, asker: &Asker) -> ExitCode {
    let start = Instant::now();
    hear_all(&mut model, asker, start);
    std::thread::sleep(model.interval.saturating_sub(start.elapsed()));
    hear_all(&mut model, asker, start);
    model.on_round(start.elapsed());
    print!("{}", draw::plain(&model));
    match model.is_heard() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Asks all, and waits until each has answered or is given up.
fn hear_all(model: &mut Model, asker: &Asker, start: Instant) {
    let until = Instant::now() + PATIENCE + PATIENCE;
    asker.ask();
    for _ in 0..model.replicas.len() {
        let left = until.saturating_duration_since(Instant::now());
        // One whose name is still looked up is lost.
        let Some(report) = asker.report(left) else { break };
        model.on_answer(report.at - start, report.replica, report.answer);
    }
}

/// Shows the cluster until somebody has seen enough.
fn watch(mut model: Model, asker: &Asker) -> Result<ExitCode, CommandError> {
    on_second_interrupt(&AGAIN);
    on_termination(&INTERRUPTED);
    on_hangup(&INTERRUPTED);
    let mut screen = Screen::open()?;
    let start = Instant::now();
    let mut next = start;
    let mut is_new = true;
    while !is_interrupted() {
        if !screen.is_open() {
            return Ok(ExitCode::from(PANICKED));
        }
        let now = Instant::now();
        if now >= next {
            if next > start {
                model.on_round(now - start);
            }
            asker.ask();
            next += model.interval;
            if next <= now {
                // It was stopped meanwhile, and does not make up for it.
                next = now + model.interval;
            }
            is_new = true;
        }
        while let Some(report) = asker.report(Duration::ZERO) {
            model.on_answer(report.at - start, report.replica, report.answer);
            is_new = true;
        }
        if is_new {
            screen.show(&model)?;
            is_new = false;
        }
        match screen.input(LOOK)? {
            Input::Key(key) if model.on_key(key) == Flow::Quit => break,
            Input::Nothing => {}
            Input::Key(_) | Input::Resized => is_new = true,
        }
    }
    Ok(ExitCode::SUCCESS)
}
