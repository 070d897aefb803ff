//! A planned run of the key-value store from its beginning to the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::SimRng;
use super::app::{READ, SmallKv};
use super::byzantine::ByzantineStrategy;
use super::checker::linearizability::{self, Action, Operation, Verdict};
use super::checker::{Rule, Seen, Violation, judge_reads};
use super::fuzz::Captured;
use super::plan::{Fault, PROGRESS_BOUND, Plan, Profile, TWO_SETS, TwoSets};
use super::stack::{Mixed, SimStack};
use super::world::{Call, PAIRS, World};
use crate::client::CallError;
use crate::smr::execution::apps::kv;
use crate::smr::messages::Mode;
use crate::smr::preprocessing::ClientAuth;
use crate::smr::types::Time;

/// Steps of the search for an order that explains one key's history.
const LINEARIZABILITY_BUDGET: usize = 1_000_000;
/// After the last call has ended, what is still under way arrives within this.
const SETTLE: Duration = Duration::from_secs(5);

/// How long an honest client may have to sign after a faulty leader made its MACs fail.
const FORGIVEN: Duration = Duration::from_secs(130);

/// What an operation that writes begins with.
const PUT: u8 = 1;

/// What the first client asks for once everything is in order, and how often.
const STEADY_CALLS: u32 = 10;
const STEADY_PAUSE: Duration = Duration::from_millis(300);

/// What became of a run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// Its seed.
    pub seed: u64,
    /// Its kind.
    pub profile: Profile,
    /// The digest of everything that happened: equal for equal seeds.
    pub digest: [u8; 16],
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// Events that happened.
    pub steps: u64,
    /// Decisions of the correct replica that has most.
    pub decisions: u64,
    /// The latest view that a correct replica has reached.
    pub view: u64,
    /// Operations that completed, of all.
    pub completed: (usize, usize),
    /// How often each kind of fault struck.
    pub hits: BTreeMap<&'static str, u64>,
    /// The run in words, if it was asked for.
    pub story: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(profile: Profile, seed: u64, with_story: bool) -> RunReport {
    run_plan(Plan::of(profile, seed), with_story)
}

/// How many patterns [`run_twins_pattern`] knows: whoever of the four runs twice, three splits in a row.
pub const TWINS_PATTERNS: u64 = 4 * TWO_SETS.pow(3);

/// Runs one of the patterns of [`Plan::of_twins_pattern`], by its number.
#[must_use]
pub fn run_twins_pattern(number: u64, with_story: bool) -> RunReport {
    let sides = |round: u64| (number / TWO_SETS.pow(round as u32) % TWO_SETS) as TwoSets;
    let twin = (number / TWO_SETS.pow(3) % 4) as usize;
    let mut plan = Plan::of_twins_pattern(twin, [sides(2), sides(1), sides(0)]);
    plan.seed = number;
    run_plan(plan, with_story)
}

/// The names under which it is counted that of {view change, log transfer, state transfer, checkpoint,
/// restart} two went on at once at one replica.
pub fn pair_names() -> impl Iterator<Item = &'static str> {
    PAIRS.iter().map(|(_, name)| *name)
}

/// Runs a plan and adds to what was said and written in others.
pub(super) fn run_captured(plan: Plan, captured: Captured) -> Captured {
    let mut world = World::new(&plan, Mixed(SmallKv));
    world.captured = Some(captured);
    plan_calls(&plan, &mut world);
    drive(&plan, &mut world);
    world.captured.unwrap_or_default()
}

/// Runs a plan of one's own.
#[must_use]
pub fn run_plan(plan: Plan, with_story: bool) -> RunReport {
    let (profile, seed) = (plan.profile, plan.seed);
    let mut world = World::new(&plan, Mixed(SmallKv));
    world.story = with_story.then(|| vec![format!("{plan:#?}")]);
    world.reader = read_of;
    plan_calls(&plan, &mut world);
    let ended = catch_unwind(AssertUnwindSafe(|| drive(&plan, &mut world)));
    if let Err(panic) = ended {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.break_rule(
            Rule::NoPanic,
            what.unwrap_or_else(|| "a panic without words".to_owned()),
        );
    }
    world.count_hits();
    RunReport {
        seed,
        profile,
        digest: world.digest(),
        simulated: world.now.since(Time::START),
        steps: world.steps,
        decisions: world.agreement.decided(),
        view: world.views_lost().unwrap_or(0),
        completed: (world.calls.len() - world.open_calls(), world.calls.len()),
        violation: world.violation,
        hits: world.hits,
        story: world.story.unwrap_or_default(),
    }
}

/// The read of what a put writes.
fn read_of(operation: &[u8]) -> Option<Vec<u8>> {
    let ([1, low, high], rest) = operation.split_first_chunk::<3>()? else {
        return None;
    };
    let key = rest.get(..usize::from(u16::from_le_bytes([*low, *high])))?;
    kv::get(key).ok()
}

fn key_name(key: u64) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

/// Writes of values that are never written twice, reads and removals, over few keys.
fn plan_calls(plan: &Plan, world: &mut World<SimStack<SmallKv>>) {
    let mut rng = SimRng::new(plan.seed ^ 0x6361_6c6c);
    for number in 0..plan.operations as u64 {
        let key = key_name(rng.below(plan.keys));
        let (operation, mode) = match rng.below(100) {
            0..40 => (kv::put(&key, &(number + 1).to_le_bytes()), Mode::Ordered),
            40..45 => (kv::delete(&key), Mode::Ordered),
            45..60 => (kv::get(&key), Mode::Ordered),
            60..90 if !plan.config.unordered => (kv::get(&key), Mode::Ordered),
            _ => (kv::get(&key), Mode::Unordered),
        };
        let at = Time::from_nanos(rng.below(plan.busy_until.as_nanos()));
        let mut client = rng.below(plan.config.honest_clients as u64) as usize;
        // The number decides, so that more processes change nothing else.
        for (place, other) in plan.more_processes.iter().enumerate() {
            if *other as usize == client && number % 2 == place as u64 % 2 {
                client = plan.config.honest_clients + place;
                break;
            }
        }
        world.call_at(at, client, operation.expect("the key is short"), mode);
    }
    for call in &plan.calls {
        world.call_at(call.at, call.client, call.operation.clone(), call.mode);
    }
    for number in 0..plan.steady_from.map_or(0, |_| STEADY_CALLS) {
        let at = plan
            .steady_from
            .unwrap_or(Time::START)
            .after(STEADY_PAUSE * number);
        let key = key_name(rng.below(plan.keys));
        world.call_at(at, 0, kv::get(&key).expect("the key is short"), Mode::Ordered);
    }
}

/// Whether frames may stay with replicas for long that nobody waits for. A process that was restarted has forgotten
/// what it asked for. What convinces all is ordered all the same; what has MACs alone may wait for a leader that
/// lies, or is gone, and then nobody is there any more who would sign it. And what was lost on its way to the others
/// is passed on again when the leader is reviewed.
fn forgets(plan: &Plan) -> bool {
    let is_gone = |(_, fault): &(Time, Fault)| {
        matches!(
            fault,
            Fault::Crash { back: None, .. } | Fault::FailedSync { back: None, .. }
        )
    };
    let is_forgotten = |(_, fault): &(Time, Fault)| matches!(fault, Fault::RestartClient { .. });
    let has_bad_leaders = plan.twin.is_some() || plan.faults.iter().any(is_gone);
    let is_unsigned = has_bad_leaders && plan.config.auth == ClientAuth::Mac;
    let is_reviewed = plan.config.timings.review_period < PROGRESS_BOUND;
    plan.faults.iter().any(is_forgotten) && (is_unsigned || !is_reviewed)
}

fn drive(plan: &Plan, world: &mut World<SimStack<SmallKv>>) {
    let bound = plan.calm_from.after(PROGRESS_BOUND + plan.kept_waiting());
    while world.open_calls() > 0 && world.step(bound) {}
    let settled = world.now.max(plan.calm_from).after(SETTLE);
    while world.step(settled) {}
    let blames = |(_, lies): &(usize, Vec<ByzantineStrategy>)| lies.contains(&ByzantineStrategy::SpoilMacs);
    if plan.liars.iter().any(blames) && plan.config.auth == ClientAuth::Mac {
        // Whoever was made to sign does not have to any more.
        let forgiven = settled.after(FORGIVEN);
        while world.step(forgiven) {}
    }
    let is_clean = plan.faulty_clients.is_empty() && plan.liars.is_empty() && !forgets(plan);
    // Who fell behind is brought back, and what a process that has ended left behind is ordered, one frame after
    // the other, though nobody waits for it.
    let bound = settled.after(PROGRESS_BOUND);
    let is_due = |world: &World<_>| world.is_behind().is_some() || (is_clean && world.keeps_frames());
    while world.open_calls() == 0 && is_due(world) && world.step(bound) {}
    if world.violation.is_some() {
        return;
    }
    let stuck = world.open_calls();
    if stuck > 0 {
        let places: Vec<String> = (0..world.hosts.len())
            .map(|host| {
                format!(
                    "s{} ({})",
                    world.agreement.executed_by(host),
                    world.standing(host)
                )
            })
            .collect();
        world.break_rule(
            Rule::Progress,
            format!(
                "{stuck} calls have not ended {PROGRESS_BOUND:?} after the faults have healed; hosts are at {}",
                places.join(", ")
            ),
        );
    }
    if let Some(host) = world.is_behind().filter(|_| stuck == 0) {
        let at = world.agreement.executed_by(host);
        let all: Vec<String> = (0..world.hosts.len()).map(|host| world.standing(host)).collect();
        world.break_rule(
            Rule::Progress,
            format!(
                "host {host} has not caught up {PROGRESS_BOUND:?} after all was done: it is at s{at}; hosts are {}",
                all.join("; ")
            ),
        );
    }
    if let Some(views_max) = plan.views_max
        && let Some(most) = world.views_lost().filter(|most| *most > views_max)
    {
        let what = format!("{most} views were lost for what is no leader's fault, {views_max} may be");
        world.break_rule(Rule::Stability, what);
    }
    world.check_end(stuck == 0 && is_clean);
    judge_runs(world);
    judge_history(plan, world);
}

/// What was acknowledged ran once, and nothing ran twice: every write has a value of its own.
fn judge_runs(world: &mut World<SimStack<SmallKv>>) {
    for number in 0..world.calls.len() {
        let call = &world.calls[number];
        if call.mode != Mode::Ordered || call.operation.first() != Some(&PUT) {
            continue;
        }
        let is_acknowledged = matches!(call.end, Some((_, Ok(_))));
        let (runs, least) = (
            world.agreement.runs_of(&call.operation),
            usize::from(is_acknowledged),
        );
        if !(least..=1).contains(&runs) {
            let what = format!(
                "call {number} of process {} ran {runs} times, and ended as {:?}",
                call.client, call.end
            );
            return world.break_rule(Rule::ExactlyOnce, what);
        }
    }
}

/// What clients have seen of each key, by the places at which what they wrote was executed.
fn judge_places(plan: &Plan, world: &mut World<SimStack<SmallKv>>) {
    let mut seen: BTreeMap<Vec<u8>, Vec<Seen>> = BTreeMap::new();
    let mut deleted: BTreeSet<Vec<u8>> = BTreeSet::new();
    for call in world.calls.iter().filter(|call| call.mode != Mode::Change) {
        let Some((key, Some(operation))) = read_call(call, plan.config.unordered) else {
            continue;
        };
        if matches!(operation.action, Action::Delete(_)) {
            // Whether it was answered or not: its process may have ended.
            deleted.insert(key.clone());
        }
        let Some((at, Ok(result))) = &call.end else {
            continue;
        };
        let place = |operation: &[u8]| world.agreement.place_of(operation);
        let result = result.strip_suffix(&[READ]).filter(|_| !call.mode.writes());
        let saw = match (&operation.action, result.and_then(<[u8]>::split_first)) {
            (Action::Put(_), _) => place(&call.operation).map(|place| Seen::Write(*at, place)),
            (Action::Get(Some(None)), _) => Some(Seen::Read(operation.from, 0)),
            (Action::Get(_), Some((_, value))) => {
                let written = kv::put(&key, value).ok();
                let written = written.and_then(|written| place(&written));
                written.map(|place| Seen::Read(operation.from, place))
            }
            _ => None,
        };
        seen.entry(key).or_default().extend(saw);
    }
    for (key, mut history) in seen {
        // Nothing may stand where something was removed; whether it was in time the search below finds out.
        history.retain(|seen| !matches!(seen, Seen::Read(_, 0)) || !deleted.contains(&key));
        if let Err(what) = judge_reads(&history) {
            let what = format!("{}: {what}", String::from_utf8_lossy(&key));
            return world.break_rule(Rule::Reads, what);
        }
    }
}

fn judge_history(plan: &Plan, world: &mut World<SimStack<SmallKv>>) {
    judge_places(plan, world);
    let mut histories: BTreeMap<Vec<u8>, Vec<Operation>> = BTreeMap::new();
    for call in world.calls.iter().filter(|call| call.mode != Mode::Change) {
        let Some((key, operation)) = read_call(call, plan.config.unordered && plan.config.relaxed) else {
            let what = format!("{call:?} has a result that no such operation gives");
            return world.break_rule(Rule::Linearizability, what);
        };
        if let Some(operation) = operation {
            histories.entry(key).or_default().push(operation);
        }
    }
    if let Some((key, verdict)) = linearizability::check_all(&histories, LINEARIZABILITY_BUDGET) {
        let how = match verdict {
            Verdict::Unknown => "cannot be explained within the budget",
            _ => "cannot be explained",
        };
        let (name, history) = (String::from_utf8_lossy(&key), &histories[&key]);
        let what = format!("the {} operations on {name} {how}", history.len());
        if let Some(story) = &mut world.story {
            story.extend(history.iter().map(|operation| format!("  {operation:?}")));
        }
        world.break_rule(Rule::Linearizability, what);
    }
}

/// The key of a call and what it did, if that belongs to the history; `None` when the result is none of its
/// kind.
fn read_call(call: &Call, relaxed: bool) -> Option<(Vec<u8>, Option<Operation>)> {
    let (kind, rest) = call.operation.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (key, value) = rest.split_at(usize::from(u16::from_le_bytes(*length)));
    // Relaxed reads may be stale: they are no part of the order.
    let is_linearizable = !relaxed || call.mode == Mode::Ordered;
    let Some(from) = call.from.filter(|_| is_linearizable) else {
        return Some((key.to_vec(), None));
    };
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    let result = match &call.end {
        Some((_, Ok(result))) if call.mode.writes() => Some(result.as_slice()),
        // A read is a read, wherever it was executed.
        Some((_, Ok(result))) => Some(result.strip_suffix(&[READ])?),
        // No operation of these fails.
        Some((_, Err(CallError::Application(_) | CallError::ResultTooLong | CallError::Panicked))) => {
            return None;
        }
        _ => None,
    };
    let action = match (kind, result) {
        (1, None | Some([0])) => Action::Put(number(value)?),
        (2, None) => Action::Get(None),
        (2, Some([0])) => Action::Get(Some(None)),
        (2, Some([1, read @ ..])) => Action::Get(Some(Some(number(read)?))),
        (3, None) => Action::Delete(None),
        (3, Some([was_there @ (0 | 1)])) => Action::Delete(Some(*was_there == 1)),
        _ => return None,
    };
    let to = call.end.as_ref().and_then(|(at, how)| how.is_ok().then_some(*at));
    Some((key.to_vec(), Some(Operation { action, from, to })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimConfig;
    use crate::sim::plan::Ambush;

    /// A cluster whose hosts all lose power just after the first of many writes was acknowledged. Then
    /// nothing is asked for but reads.
    fn idle_after_an_ambush(seed: u64) -> World<SimStack<SmallKv>> {
        let mut config = SimConfig::calm(4, 2);
        (config.unordered, config.pipeline) = (true, 8);
        (config.limits.batch_frames_max, config.limits.frame_operations_max) = (1, 1);
        let pause = Duration::from_millis(1);
        let plan = Plan {
            ambushes: vec![Ambush {
                from: Time::START,
                later: Duration::ZERO,
                hosts: (0..4).map(|host| (host, pause)).collect(),
                reads: vec![Duration::ZERO],
            }],
            calm_from: Time::START.after(Duration::from_secs(1)),
            ..Plan::quiet(Profile::Crash, seed, config)
        };
        let mut world = World::new(&plan, Mixed(SmallKv));
        world.reader = read_of;
        for number in 0..12u64 {
            let put = kv::put(b"k", &number.to_le_bytes()).expect("the key is short");
            let at = Time::START.after(Duration::from_micros(100 * number));
            world.call_at(at, (number % 2) as usize, put, Mode::Ordered);
        }
        world
    }

    #[test]
    fn where_replicas_are_far_apart_leaders_are_given_longer_and_stay() {
        for seed in 0..8 {
            let mut plan = Plan::quiet(Profile::Net, seed, SimConfig::calm(4, 1 + seed as usize % 4));
            plan.move_apart(&mut SimRng::new(seed));
            assert_eq!(run_plan(plan, false).violation, None, "seed {seed}");
        }
    }

    #[test]
    fn a_cluster_that_restarted_and_has_nothing_to_do_answers_reads_beside_the_order_again() {
        let mut refused = 0;
        for seed in 0..20 {
            let mut world = idle_after_an_ambush(seed);
            let second = |second: u64| Time::START.after(Duration::from_secs(second));
            while world.step(second(10)) {}
            let ordered = world.reads_ordered();
            for read in 0..10 {
                let get = kv::get(b"k").expect("the key is short");
                world.call_at(second(10 + read), 0, get, Mode::Unordered);
            }
            while world.step(second(30)) {}
            assert_eq!(world.open_calls(), 0, "seed {seed}");
            assert_eq!(world.reads_ordered(), ordered, "seed {seed}");
            world.check_end(false);
            assert_eq!(world.violation, None, "seed {seed}");
            world.count_hits();
            refused += world.hits["read refused by a replica that catches up"];
        }
        assert!(refused > 20, "{refused}");
    }
}
