#[path = "sim_mutants.rs"]
mod planted;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::CommandError;
use crate::sim::{
    Lie, Profile, Roguery, Rule, RunReport, TWINS_PATTERNS, pair_names, run, run_twins_pattern,
};

/// Seeds are simulated by so many threads.
const WORKERS: usize = 2;

/// Run seeded clusters in virtual time, under faults and lies.
#[derive(Debug, Args)]
pub(super) struct Sim {
    /// The seeds, from the first to before the last: 0..2000. Planted faults are looked for in 0..1000, others in 0..200 by default.
    #[arg(long, value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// One seed instead.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Which faults.
    #[arg(long, value_enum, default_value = "all")]
    profile: ProfileArgument,
    /// Instead of seeds, every split of the hosts into two sets in each of three views, for four replicas of which one runs
    /// twice. With `--seed`, the one pattern of that number.
    #[arg(long, conflicts_with_all = ["seeds", "mutants"])]
    exhaustive: bool,
    /// Tell the story of the run.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plant every known fault in the protocol, one after the other, and see that it is found.
    #[arg(long, conflicts_with_all = ["seed", "trace"])]
    mutants: bool,
    /// Only the planted faults of these names.
    #[arg(long, requires = "mutants", value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileArgument {
    Net,
    Byzantine,
    Crash,
    Twins,
    Disk,
    Clients,
    All,
}

impl ProfileArgument {
    fn profiles(self) -> Vec<Profile> {
        match self {
            Self::Net => vec![Profile::Net],
            Self::Byzantine => vec![Profile::Byzantine],
            Self::Crash => vec![Profile::Crash],
            Self::Twins => vec![Profile::Twins],
            Self::Disk => vec![Profile::Disk],
            Self::Clients => vec![Profile::Clients],
            Self::All => Profile::ALL.to_vec(),
        }
    }
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
    match ends {
        Some((Ok(from), Ok(to))) if from < to => Ok(from..to),
        _ => Err("must be two numbers, the smaller first: 0..2000".to_owned()),
    }
}

/// What many runs came to.
#[derive(Default)]
struct Summary {
    runs: u64,
    simulated: Duration,
    steps: u64,
    decisions: u64,
    completed: usize,
    hits: BTreeMap<&'static str, u64>,
    first: Option<RunReport>,
    violations: u64,
    /// Violations by rule, with the first few runs that broke it.
    rules: BTreeMap<Rule, Vec<String>>,
}

impl Summary {
    fn add(&mut self, report: RunReport) {
        self.runs += 1;
        self.simulated += report.simulated;
        self.steps += report.steps;
        self.decisions += report.decisions;
        self.completed += report.completed.0;
        for (name, count) in &report.hits {
            *self.hits.entry(name).or_default() += count;
        }
        if report.violation.is_some() {
            self.violations += 1;
            if let Some(violation) = &report.violation {
                let runs = self.rules.entry(violation.rule).or_default();
                runs.push(format!("{} {}", report.profile.name(), report.seed));
            }
            let is_first = |first: &RunReport| (report.seed, report.profile) < (first.seed, first.profile);
            if self.first.as_ref().is_none_or(is_first) {
                self.first = Some(report);
            }
        }
    }

    fn print(&self, took: Duration, exhaustive: bool) {
        println!(
            "{} runs, {:.1} simulated cluster-hours, {} events, {} decisions, {} operations in {:.1} s",
            self.runs,
            self.simulated.as_secs_f64() / 3600.0,
            self.steps,
            self.decisions,
            self.completed,
            took.as_secs_f64()
        );
        println!("\n{:<44} {:>12}", "fault", "hits");
        for (name, count) in &self.hits {
            println!("{name:<44} {count:>12}");
        }
        for (rule, runs) in &self.rules {
            println!(
                "{rule:?} broken in {} runs: {}",
                runs.len(),
                runs[..runs.len().min(8)].join(", ")
            );
        }
        match self
            .first
            .as_ref()
            .and_then(|first| Some((first, first.violation.as_ref()?)))
        {
            None => println!("\nno rule was broken"),
            Some((first, violation)) => println!(
                "\n{} runs broke a rule. The first, seed {}:\n  {violation}\n  replay: atlas sim --profile {}{} --seed {} --trace",
                self.violations,
                first.seed,
                first.profile.name(),
                if exhaustive { " --exhaustive" } else { "" },
                first.seed,
            ),
        }
    }
}

/// Runs whatever `runs` are numbered, on all workers, with a progress bar.
fn run_all(total: u64, summary: &mut Summary, play: impl Fn(u64) -> RunReport + Sync) {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let (next, (reports, received)) = (AtomicU64::new(0), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (next, play, reports) = (&next, &play, reports.clone());
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        break;
                    }
                    // The receiver outlives the workers.
                    let _ = reports.send(play(number));
                }
            });
        }
        drop(reports);
        for report in received {
            summary.add(report);
            bar.set_position(summary.runs);
            bar.set_message(format!(
                "{:.1} simulated hours, {} violations",
                summary.simulated.as_secs_f64() / 3600.0,
                summary.violations
            ));
        }
    });
    bar.finish_and_clear();
}

impl Sim {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        if self.mutants {
            return planted::mutants(
                &self.seeds.clone().unwrap_or(0..1000),
                &self.profile.profiles(),
                &self.only,
            );
        }
        match self.seed {
            Some(seed) => Ok(self.run_one(seed)),
            None => Ok(self.run_many()),
        }
    }

    fn play(&self, profile: Profile, seed: u64) -> RunReport {
        match self.exhaustive {
            true => run_twins_pattern(seed, self.trace),
            false => run(profile, seed, self.trace),
        }
    }

    fn profiles(&self) -> Vec<Profile> {
        match self.exhaustive {
            true => vec![Profile::Twins],
            false => self.profile.profiles(),
        }
    }

    fn run_one(&self, seed: u64) -> ExitCode {
        let mut is_sound = true;
        for profile in self.profiles() {
            let report = self.play(profile, seed);
            report.story.iter().for_each(|line| println!("{line}"));
            let verdict = match &report.violation {
                None => "no rule was broken".to_owned(),
                Some(violation) => violation.to_string(),
            };
            println!(
                "{} seed {seed}: {} of {} operations, {} decisions, {:?}, digest {}: {verdict}",
                profile.name(),
                report.completed.0,
                report.completed.1,
                report.decisions,
                report.simulated,
                hex::encode(&report.digest[..8]),
            );
            is_sound &= report.violation.is_none();
        }
        if is_sound {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn run_many(&self) -> ExitCode {
        let profiles = self.profiles();
        let seeds = match self.exhaustive {
            true => 0..TWINS_PATTERNS,
            false => self.seeds.clone().unwrap_or(0..200),
        };
        let begin = Instant::now();
        let mut summary = Summary {
            hits: pair_names().map(|name| (name, 0)).collect(),
            ..Summary::default()
        };
        if profiles.contains(&Profile::Byzantine) {
            let names = Lie::ALL.iter().map(|lie| lie.name());
            let names = names.chain(Roguery::ALL.iter().map(|roguery| roguery.name()));
            summary.hits.extend(names.map(|name| (name, 0)));
        }
        if profiles.contains(&Profile::Clients) {
            let names = Roguery::BLAMELESS.iter().map(|roguery| roguery.name());
            summary.hits.extend(names.map(|name| (name, 0)));
        }
        let count = profiles.len() as u64;
        run_all((seeds.end - seeds.start) * count, &mut summary, |number| {
            let profile = profiles[(number % count) as usize];
            self.play(profile, seeds.start + number / count)
        });
        summary.print(begin.elapsed(), self.exhaustive);
        match summary.violations {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
