//! `atlas sim --mutants`: every planted fault must be found, and what finds it must be silent without it.

use std::ops::Range;
use std::process::ExitCode;

use super::CommandError;
use crate::sim::Profile;

#[cfg(not(feature = "mutants"))]
const NO_FAULTS: &str =
    "this binary has no planted faults; run: cargo run --release --features mutants -- sim --mutants";

/// Without the feature there is nothing to find.
#[cfg(not(feature = "mutants"))]
pub(super) fn mutants(_: &Range<u64>, _: &[Profile], _: &[String]) -> Result<ExitCode, CommandError> {
    Err(NO_FAULTS.into())
}

/// Without the feature there is nothing to plant.
#[cfg(not(feature = "mutants"))]
pub(super) fn plant_one(_: &str) -> Result<(), CommandError> {
    Err(NO_FAULTS.into())
}

#[cfg(feature = "mutants")]
pub(super) use hunt::{mutants, plant_one};

#[cfg(feature = "mutants")]
mod hunt {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::time::Instant;

    use indicatif::{ProgressBar, ProgressStyle};

    use super::*;
    use crate::sim::{RunReport, run};
    use crate::smr::mutants::{Mutant, plant};
    use crate::tools::cli::sim::WORKERS;

    fn named(name: &str) -> Result<Mutant, CommandError> {
        let named = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
        named
            .copied()
            .ok_or_else(|| format!("{name}: there is no planted fault of this name").into())
    }

    /// Plants a fault for good.
    pub(in crate::tools::cli) fn plant_one(name: &str) -> Result<(), CommandError> {
        plant(Some(named(name)?));
        Ok(())
    }

    /// What became of one mutant: the run that found it, if any, and what the same run says without it.
    struct Hunt {
        killer: Option<RunReport>,
        runs: usize,
        innocent: bool,
    }

    /// Looks for each mutant's first seed: the seeds in order in its home profile, and then in the other
    /// ones.
    pub(in crate::tools::cli) fn mutants(
        seeds: &Range<u64>,
        profiles: &[Profile],
        only: &[String],
    ) -> Result<ExitCode, CommandError> {
        let mut chosen: Vec<Mutant> = only.iter().map(|name| named(name)).collect::<Result<_, _>>()?;
        if chosen.is_empty() {
            chosen = Mutant::ALL.to_vec();
        }
        // A mutant may well die by an assertion: that is a finding, not news.
        std::panic::set_hook(Box::new(|_| {}));
        let begin = Instant::now();
        let bar = ProgressBar::new(chosen.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("  {bar:40} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        println!("{:<30} {:>5}  killed by", "mutant", "runs");
        let next = AtomicU64::new(0);
        let (found, received) = mpsc::channel();
        let mut hunts = BTreeMap::new();
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                let (next, found, chosen) = (&next, found.clone(), &chosen);
                scope.spawn(move || {
                    while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        // The receiver outlives the workers.
                        let _ = found.send((*mutant, hunt(*mutant, seeds, profiles)));
                    }
                });
            }
            drop(found);
            for (mutant, hunt) in received {
                bar.inc(1);
                bar.suspend(|| print_row(mutant, &hunt));
                hunts.insert(mutant, hunt);
            }
        });
        bar.finish_and_clear();
        if let [one] = chosen[..]
            && let Some(killer) = hunts.get(&one).and_then(|hunt| hunt.killer.as_ref())
            && let Some(violation) = &killer.violation
        {
            println!("  {violation}");
        }
        Ok(print(&hunts, begin.elapsed().as_secs_f64()))
    }

    fn hunt(mutant: Mutant, seeds: &Range<u64>, profiles: &[Profile]) -> Hunt {
        // At home first, if that is asked for, and then everywhere else.
        let (home, others): (Vec<Profile>, Vec<Profile>) =
            profiles.iter().partition(|profile| **profile == mutant.home());
        let at_home = seeds
            .clone()
            .flat_map(|seed| home.iter().map(move |home| (*home, seed)));
        let runs = at_home.chain(
            seeds
                .clone()
                .flat_map(|seed| others.iter().map(move |other| (*other, seed))),
        );
        let mut hunt = Hunt {
            killer: None,
            runs: 0,
            innocent: true,
        };
        for (profile, seed) in runs {
            plant(Some(mutant));
            let report = run(profile, seed, false);
            plant(None);
            hunt.runs += 1;
            if report.violation.is_some() {
                hunt.innocent = run(profile, seed, false).violation.is_none();
                hunt.killer = Some(report);
                break;
            }
        }
        hunt
    }

    fn print_row(mutant: Mutant, hunt: &Hunt) {
        let by = hunt
            .killer
            .as_ref()
            .and_then(|report| Some((report, report.violation.as_ref()?)));
        let by = match by {
            Some((report, violation)) => {
                let accused = if hunt.innocent {
                    ""
                } else {
                    "  (so does the unmutated code!)"
                };
                format!(
                    "{:?}, --profile {} --seed {}{accused}",
                    violation.rule,
                    report.profile.name(),
                    report.seed
                )
            }
            None => "nothing: SURVIVED".to_owned(),
        };
        println!("{:<30} {:>5}  {by}", format!("{mutant:?}"), hunt.runs);
    }

    fn print(hunts: &BTreeMap<Mutant, Hunt>, took_s: f64) -> ExitCode {
        let survivors = hunts.values().filter(|hunt| hunt.killer.is_none()).count();
        let accused = hunts.values().filter(|hunt| !hunt.innocent).count();
        println!(
            "{} planted, {survivors} survived, {accused} found where there is none, in {took_s:.1} s",
            hunts.len()
        );
        match survivors + accused {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
