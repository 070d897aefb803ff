#[path = "sim_mutants.rs"]
mod planted;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::CommandError;
use crate::sim::{
    ByzantineStrategy, FaultyClient, Profile, Rule, RunReport, SimRng, TWINS_PATTERNS, Violation, pair_names,
    run, run_twins_pattern,
};

/// Seeds are simulated by so many threads.
const WORKERS: usize = 2;
/// How many failing runs of a profile are listed, with how to play them again.
const LISTED: usize = 5;
/// A random start is below this: short enough to be typed.
const STARTS: u64 = 1_000_000_000_000;

/// Run seeded clusters in virtual time, under faults and lies.
#[derive(Debug, Args)]
pub(super) struct Sim {
    /// The seeds, from the first to before the last: 0..2000. Planted faults are looked for in 0..1000,
    /// others in 0..200 by default.
    #[arg(long, value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// One seed instead.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds for so many minutes, from a random one on, which is printed first.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000), conflicts_with_all = ["seeds", "seed", "exhaustive", "mutants"])]
    minutes: Option<u64>,
    /// Seeds from a random one on, so many of them; it is printed first.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["seeds", "seed", "minutes", "exhaustive"])]
    random: Option<u64>,
    /// Which faults.
    #[arg(long, value_enum, default_value = "all", value_delimiter = ',')]
    profile: Vec<ProfileArgument>,
    /// Instead of seeds, every split of the hosts into two sets in each of three views, for four replicas of
    /// which one runs twice. With `--seed`, the one pattern of that number.
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
    /// Plant the fault of this name in the run of the seed.
    #[arg(long, requires = "seed", value_name = "FAULT")]
    planted: Option<String>,
    /// Print JSON at the end, and nothing else.
    #[arg(long, conflicts_with_all = ["trace", "mutants"])]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileArgument {
    Net,
    Byzantine,
    Crash,
    Twins,
    Disk,
    Clients,
    Scenes,
    Epochs,
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
            Self::Scenes => vec![Profile::Scenes],
            Self::Epochs => vec![Profile::Epochs],
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

/// What the runs of one profile came to.
#[derive(Default)]
struct Tally {
    runs: u64,
    /// Seeds of those that broke a rule, with what they broke.
    failed: BTreeMap<u64, Violation>,
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
    violations: u64,
    profiles: BTreeMap<Profile, Tally>,
    /// Violations are not printed as they are found.
    is_quiet: bool,
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
        let tally = self.profiles.entry(report.profile).or_default();
        tally.runs += 1;
        if let Some(violation) = report.violation {
            self.violations += 1;
            tally.failed.insert(report.seed, violation);
        }
    }

    fn to_json(&self, took: Duration) -> serde_json::Value {
        let profiles = self.profiles.iter().map(|(profile, tally)| {
            let failed = tally.failed.iter();
            let failed = failed.map(|(seed, violation)| (seed.to_string(), violation.to_string().into()));
            let failed: serde_json::Map<_, _> = failed.collect();
            let runs = serde_json::json!({ "runs": tally.runs, "failed": failed });
            (profile.name().to_owned(), runs)
        });
        serde_json::json!({
            "runs": self.runs,
            "violations": self.violations,
            "simulated_seconds": self.simulated.as_secs_f64(),
            "events": self.steps,
            "decisions": self.decisions,
            "operations": self.completed,
            "seconds": took.as_secs_f64(),
            "hits": self.hits,
            "profiles": profiles.collect::<serde_json::Map<_, _>>(),
        })
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
        self.print_profiles(exhaustive);
        match self.violations {
            0 => println!("\nno rule was broken"),
            broken => println!("\n{broken} of {} runs broke a rule", self.runs),
        }
    }

    /// How many runs of each profile failed, and how to play the first of them again.
    fn print_profiles(&self, exhaustive: bool) {
        println!("\n{:<12} {:>9} {:>8}  one in", "profile", "runs", "failed");
        for (profile, Tally { runs, failed }) in &self.profiles {
            let one_in = match runs.checked_div(failed.len() as u64) {
                None => "-".to_owned(),
                Some(runs) => runs.to_string(),
            };
            println!("{:<12} {runs:>9} {:>8}  {one_in}", profile.name(), failed.len());
        }
        let exhaustive = if exhaustive { " --exhaustive" } else { "" };
        for (profile, Tally { failed, .. }) in &self.profiles {
            let mut rules: BTreeMap<Rule, usize> = BTreeMap::new();
            for violation in failed.values() {
                *rules.entry(violation.rule).or_default() += 1;
            }
            if !rules.is_empty() {
                println!("\n{}: broken {rules:?}", profile.name());
            }
            for (seed, violation) in failed.iter().take(LISTED) {
                println!(
                    "  {violation}\n    atlas sim --profile {}{exhaustive} --seed {seed} --trace",
                    profile.name()
                );
            }
        }
    }
}

/// Runs what is numbered below `total`, in order, as long as there is time, on all workers, with a progress
/// bar.
fn run_all(
    total: Option<u64>,
    until: Option<Instant>,
    summary: &mut Summary,
    play: impl Fn(u64) -> RunReport + Sync,
) {
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = match total {
        Some(_) => "  {bar:40} {pos}/{len} {msg}",
        None => "  {elapsed} {pos} runs, {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let (next, (reports, received)) = (AtomicU64::new(0), mpsc::channel());
    let is_over = |number| {
        total.is_some_and(|total| number >= total) || until.is_some_and(|until| Instant::now() >= until)
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (next, play, is_over, reports) = (&next, &play, &is_over, reports.clone());
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if is_over(number) {
                        break;
                    }
                    // The receiver outlives the workers.
                    let _ = reports.send(play(number));
                }
            });
        }
        drop(reports);
        for report in received {
            if let (Some(violation), false) = (&report.violation, summary.is_quiet) {
                let (profile, seed) = (report.profile.name(), report.seed);
                bar.suspend(|| println!("{profile} {seed}: {violation}"));
            }
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

/// A seed that nobody chose.
fn random_start() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = now.map_or(0, |since| since.as_nanos() as u64);
    SimRng::new(nanos ^ u64::from(std::process::id()) << 40).below(STARTS)
}

impl Sim {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        if self.mutants {
            let (seeds, _) = self.seeds(0..1000);
            return planted::mutants(&seeds, &self.profiles(), &self.only);
        }
        if let Some(fault) = &self.planted {
            planted::plant_one(fault)?;
        }
        match self.seed {
            Some(seed) if self.json => Ok(self.run_many(seed..seed.saturating_add(1))),
            Some(seed) => Ok(self.run_one(seed)),
            None => Ok(self.run_many(0..200)),
        }
    }

    fn play(&self, profile: Profile, seed: u64) -> RunReport {
        match self.exhaustive {
            true => run_twins_pattern(seed, self.trace),
            false => run(profile, seed, self.trace),
        }
    }

    fn profiles(&self) -> Vec<Profile> {
        if self.exhaustive {
            return vec![Profile::Twins];
        }
        let mut profiles: Vec<Profile> = self.profile.iter().flat_map(|chosen| chosen.profiles()).collect();
        profiles.sort_unstable();
        profiles.dedup();
        profiles
    }

    /// Which seeds, and until when; says so when nobody chose them.
    fn seeds(&self, default: Range<u64>) -> (Range<u64>, Option<Instant>) {
        let start = || {
            let start = random_start();
            if !self.json {
                println!(
                    "seeds from {start} on: atlas sim --seeds {start}..{}",
                    start + 1000
                );
            }
            start
        };
        match (self.minutes, self.random) {
            (Some(minutes), _) => {
                let start = start();
                let until = Instant::now() + Duration::from_secs(60 * minutes);
                (start..u64::MAX, Some(until))
            }
            (None, Some(count)) => {
                let start = start();
                (start..start.saturating_add(count), None)
            }
            (None, None) => (self.seeds.clone().unwrap_or(default), None),
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

    /// Runs these seeds, unless others were chosen.
    fn run_many(&self, default: Range<u64>) -> ExitCode {
        let profiles = self.profiles();
        let (seeds, until) = match self.exhaustive {
            true if self.seed.is_none() => (0..TWINS_PATTERNS, None),
            _ => self.seeds(default),
        };
        let begin = Instant::now();
        let mut summary = Summary {
            hits: pair_names().map(|name| (name, 0)).collect(),
            is_quiet: self.json,
            ..Summary::default()
        };
        if profiles.contains(&Profile::Byzantine) {
            let names = ByzantineStrategy::ALL.iter().map(|lie| lie.name());
            let names = names.chain(FaultyClient::ALL.iter().map(|kind| kind.name()));
            summary.hits.extend(names.map(|name| (name, 0)));
        }
        if profiles.contains(&Profile::Clients) {
            let names = FaultyClient::BLAMELESS.iter().map(|kind| kind.name());
            summary.hits.extend(names.map(|name| (name, 0)));
        }
        let count = profiles.len() as u64;
        let total = match until {
            None => Some((seeds.end - seeds.start) * count),
            Some(_) => None,
        };
        run_all(total, until, &mut summary, |number| {
            let profile = profiles[(number % count) as usize];
            self.play(profile, seeds.start + number / count)
        });
        match self.json {
            true => println!("{:#}", summary.to_json(begin.elapsed())),
            false => summary.print(begin.elapsed(), self.exhaustive),
        }
        match summary.violations {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
