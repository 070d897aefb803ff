//! The world: hosts, clients and links in virtual time. One queue of events, in the order of time and, within
//! one moment, of making; nothing happens but by an event, and no randomness but the seed's.

mod delivery;
mod epochs;
mod events;
mod faults;
mod host;
mod invariants;
mod lifecycle;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::checker::{Agreement, Blame, CommitStability, Rule, Sizes, Times, Toward, Violation};
use super::clients::{FaultyProcess, Process};
use super::fuzz::{Captured, kind_of};
use super::keys::CLUSTER;
use super::network::Network;
use super::plan::{Ambush, Fault, Plan};
use super::replica::Said;
use super::stack::PartsMaker;
use super::{SimConfig, SimRng};
use crate::client::{CallError, Outcome, Output};
use crate::smr::crypto::remember_verdicts;
use crate::smr::membership::EpochHistory;
use crate::smr::messages::{Checked, Envelope, FrameKey, Kind, Mode, RequestFrame, SystemMessage};
use crate::smr::replica::Stack;
use crate::smr::types::Peer;
use crate::smr::types::{Epoch, FrameSeq, Time};
use events::{Event, Planned};
pub(super) use host::Host;
use host::{Clock, Tampering};
pub(super) use lifecycle::PAIRS;

/// Calls are given up after this: long after every bound that is checked.
const DEADLINE: Duration = Duration::from_secs(10_000);
/// More messages than this are under way only if something answers itself.
const QUEUE_MAX: usize = 1 << 20;
/// More events at one instant than anything sensible makes.
const INSTANT_STEPS_MAX: u64 = 1 << 22;
/// How many verdicts on signatures are remembered: those of one run, about.
const VERDICTS_MAX: usize = 1 << 14;
/// How often a faulty client acts.
const ROGUE_PAUSE_MS: (u64, u64) = (5, 80);

/// An operation of an honest client, and what became of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The process of a client that makes it.
    pub client: usize,
    /// The operation.
    pub operation: Vec<u8>,
    /// Ordered or read-only.
    pub mode: Mode,
    /// When it was submitted; `None` before.
    pub from: Option<Time>,
    /// When it ended, and how.
    pub end: Option<(Time, Result<Vec<u8>, CallError>)>,
}

/// Everything there is.
pub(super) struct World<S: Stack> {
    pub now: Time,
    pub config: SimConfig,
    pub hosts: Vec<Host<S>>,
    pub calls: Vec<Call>,
    pub violation: Option<Violation>,
    /// How often each kind of fault struck.
    pub hits: BTreeMap<&'static str, u64>,
    pub steps: u64,
    /// Of these, at this instant.
    instant_steps: u64,
    /// What is said and written, if somebody wants to have it.
    pub captured: Option<Captured>,
    /// The run in words, if somebody wants to read it.
    pub story: Option<Vec<String>>,
    pub agreement: Agreement,
    /// By epoch: what is decided in one lasts in it.
    lasting: BTreeMap<Epoch, CommitStability>,
    /// The most that a correct host knows of epochs.
    history: Option<EpochHistory>,
    steady_from: Option<Time>,
    times: Times,
    blame: Blame,
    sizes: Sizes,
    pub network: Network,
    rng: SimRng,
    processes: Vec<Process>,
    faulty_clients: Vec<FaultyProcess>,
    faulty_clients_until: Time,
    faults: Vec<Fault>,
    /// Hosts that lose power when they vote again, or have a state from others, and for how long.
    relapses: Vec<(usize, Duration)>,
    ambushes: Vec<Ambush>,
    /// Clients read as soon as a host has a state from others: what was written last.
    reads_installed: bool,
    last_read: Option<Vec<u8>>,
    /// Until then everything heals.
    calm_from: Time,
    /// What reads that which an operation writes, if it writes.
    pub reader: fn(&[u8]) -> Option<Vec<u8>>,
    queue: BinaryHeap<Reverse<Planned>>,
    made: u64,
    open_calls: usize,
    /// Everything that happened; nobody lies to it, so it need not be cryptographic.
    hasher: Xxh3,
    /// What a turn says; only the allocation stays.
    said: Vec<Said>,
    maker: Box<dyn PartsMaker<S>>,
    /// Hosts whose executor is the speculative one.
    speculates: Vec<bool>,
}

/// The number of a client's frame, if it is one.
fn sequence_of(message: &Bytes) -> Option<FrameSeq> {
    let frame = Checked::<RequestFrame>::body_of(message).ok()?;
    frame.open_body().ok().map(|body| body.sequence())
}

impl<S: Stack> World<S> {
    /// The world of a plan, with no calls yet.
    pub fn new(plan: &Plan, maker: impl PartsMaker<S> + 'static) -> Self {
        // All replicas live on this thread.
        remember_verdicts(VERDICTS_MAX);
        let mut rng = SimRng::new(plan.seed);
        let config = plan.config.clone();
        let hosts: Vec<Host<S>> = (0..plan.hosts())
            .map(|host| Host::start(host, plan, (&maker, plan.speculates(host)), &mut rng))
            .collect();
        let first_faulty = config.honest_clients as u32;
        let faulty_clients = (first_faulty..).zip(&plan.faulty_clients);
        let faulty_clients: Vec<FaultyProcess> = faulty_clients
            .map(|(client, kind)| FaultyProcess::new(client, *kind, &config, rng.split()))
            .collect();
        let processes = (0..first_faulty)
            .chain(plan.more_processes.iter().copied())
            .enumerate()
            .map(|(process, client)| Process::start(Time::START, client, &config, process as u64))
            .collect();
        let mut world = Self {
            now: Time::START,
            agreement: Agreement::new(
                hosts.len(),
                config.honest_clients,
                (config.checkpoint_bytes == u64::MAX && !config.has_epochs)
                    .then_some(config.checkpoint_decisions),
            ),
            times: Times::new(config.clock_bound),
            blame: Blame::new(&config, plan.held_for()),
            lasting: BTreeMap::new(),
            history: None,
            steady_from: plan.steady_from,
            sizes: Sizes::new(&config),
            network: Network::new(plan.network.clone(), plan.calm_from, rng.split()),
            hosts,
            calls: Vec::new(),
            violation: None,
            hits: BTreeMap::new(),
            steps: 0,
            instant_steps: 0,
            captured: None,
            story: None,
            processes,
            faulty_clients_until: plan.busy_until,
            faults: plan.faults.iter().map(|(_, fault)| fault.clone()).collect(),
            relapses: plan.relapses.clone(),
            ambushes: plan.ambushes.clone(),
            reads_installed: plan.reads_installed,
            last_read: None,
            calm_from: plan.calm_from,
            reader: |_| None,
            queue: BinaryHeap::new(),
            made: 0,
            open_calls: 0,
            hasher: Xxh3::new(),
            speculates: (0..plan.hosts()).map(|host| plan.speculates(host)).collect(),
            maker: Box::new(maker),
            said: Vec::new(),
            config,
            faulty_clients,
            rng,
        };
        world.schedule(plan);
        world
    }

    /// Puts into the queue what a plan has happen, and has clients begin.
    fn schedule(&mut self, plan: &Plan) {
        for (index, (at, _)) in plan.faults.iter().enumerate() {
            self.plan(*at, Event::Fault(index));
        }
        for (client, host) in &plan.dead_links {
            let from = plan.steady_from.unwrap_or(Time::START);
            self.network.kill(*client as u32, *host, from);
        }
        plan.changes.iter().for_each(|at| self.plan_change(*at));
        (0..self.processes.len()).for_each(|process| self.serve_client(process));
        for (index, kind) in plan.faulty_clients.iter().enumerate() {
            self.plan(Time::START, Event::FaultyClient(index));
            *self.hits.entry(kind.name()).or_default() += 0;
        }
    }

    /// Has a client submit an operation at a moment; the call's number.
    pub fn call_at(&mut self, at: Time, client: usize, operation: Vec<u8>, mode: Mode) -> usize {
        self.calls.push(Call {
            client,
            operation,
            mode,
            from: None,
            end: None,
        });
        self.open_calls += 1;
        self.plan(at, Event::Call(self.calls.len() - 1));
        self.calls.len() - 1
    }

    /// How many calls have not ended.
    pub fn open_calls(&self) -> usize {
        self.open_calls
    }

    /// The digest of everything that has happened.
    pub fn digest(&self) -> [u8; 16] {
        self.hasher.digest128().to_be_bytes()
    }

    /// Lets the next event happen; false when there is none before `until`, or a rule is broken.
    pub fn step(&mut self, until: Time) -> bool {
        if self.violation.is_some() || self.queue.peek().is_none_or(|Reverse(next)| next.at > until) {
            return false;
        }
        let Some(Reverse(next)) = self.queue.pop() else {
            return false;
        };
        self.instant_steps = match self.now == next.at {
            true => self.instant_steps + 1,
            false => 0,
        };
        self.now = next.at;
        self.steps += 1;
        self.happen(next.event);
        if self.instant_steps > INSTANT_STEPS_MAX {
            self.break_rule(
                Rule::Progress,
                "somebody is never done, and time stands still".to_owned(),
            );
        }
        if self.queue.len() > QUEUE_MAX {
            let what = format!(
                "more than {QUEUE_MAX} messages are under way, {}",
                self.most_under_way()
            );
            self.break_rule(Rule::Memory, what);
        }
        true
    }

    /// What most messages between replicas that are under way are, and who sent most of those, in words.
    fn most_under_way(&self) -> String {
        let mut kinds: BTreeMap<(&'static str, Peer), usize> = BTreeMap::new();
        for Reverse(planned) in &self.queue {
            if let Event::ToHost { from, message, .. } = &planned.event
                && let Ok(checked) = Checked::<SystemMessage>::body_of(message)
            {
                *kinds.entry((kind_of(&checked), *from)).or_default() += 1;
            }
        }
        let most = kinds.iter().max_by_key(|(_, count)| **count);
        most.map_or_else(String::new, |((kind, from), count)| {
            format!("{count} of kind {kind} from {from}")
        })
    }

    fn plan(&mut self, at: Time, event: Event) {
        self.made += 1;
        let (at, order) = (at.max(self.now), self.made);
        self.queue.push(Reverse(Planned { at, order, event }));
    }

    fn hit(&mut self, name: &'static str, count: u64) {
        *self.hits.entry(name).or_default() += count;
    }

    fn tell(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.story.is_some() {
            let line = format!("{:>12.6} {}", self.now.as_nanos() as f64 / 1e9, what(self));
            if let Some(story) = &mut self.story {
                story.push(line);
            }
        }
    }

    fn note(&mut self, kind: u8, whom: usize, bytes: &[u8]) {
        let head = [
            u64::from(kind),
            whom as u64,
            self.now.as_nanos(),
            bytes.len() as u64,
        ];
        for word in head {
            self.hasher.update(&word.to_le_bytes());
        }
        self.hasher.update(bytes);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToHost {
                host,
                life,
                from,
                message,
            } => {
                if self.hosts[host].life == life {
                    self.deliver(host, from, message);
                }
            }
            Event::ToClient {
                process,
                from,
                message,
            } => {
                self.note(2, process, &message);
                if let Some(captured) = &mut self.captured {
                    captured.reply(&message);
                }
                self.processes[process].session.on_message(from, &message);
                self.serve_client(process);
            }
            Event::Turn(host) => self.turn(host),
            Event::Disk { host, life, event } => self.on_disk(host, life, event),
            Event::Restart { host, life } => self.restart(host, life),
            Event::ClientWake(process) => {
                if self.processes[process].wake == Some(self.now) {
                    self.processes[process].wake = None;
                    self.serve_client(process);
                }
            }
            Event::Call(call) => self.submit(call),
            Event::Change => self.ask_change(),
            Event::FaultyClient(client) => self.faulty_client(client),
            Event::Fault(index) => {
                let fault = self.faults[index].clone();
                self.note(3, index, &[]);
                self.strike(&fault);
            }
        }
    }

    fn deliver(&mut self, host: usize, from: Peer, message: Bytes) {
        self.note(1, host, &message);
        match (&mut self.captured, from) {
            (Some(captured), Peer::Replica(_)) => captured.message(&message),
            (Some(captured), Peer::Client(_)) => captured.request(&message),
            (None, _) => {}
        }
        if !self.hosts[host].is_up {
            return;
        }
        if let Peer::Replica(from) = from {
            if self.hosts[host].is_correct
                && self.is_of_epoch(host, &message)
                && let Ok(checked) = Checked::<SystemMessage>::body_of(&message)
            {
                self.hosts[host].ledger.heard(from, &checked);
                self.hosts[host].donors.hears(from, &checked);
                self.look_for_bad_macs(host, &checked);
                if let Some(head) = checked.pre_prepare_head() {
                    self.see_proposal(head.digest());
                }
            }
            // Liars do not excite each other without end.
            let is_honest = self
                .hosts
                .iter()
                .all(|host| host.node != from || host.liar.is_none());
            let liar = self.hosts[host].liar.as_mut().filter(|_| is_honest);
            let sent = liar.map(|liar| liar.hear(&message));
            for lie in sent.into_iter().flatten() {
                self.send_to_node(host, lie.to, &lie.message, lie.later);
            }
        }
        if let Peer::Client(client) = from
            && let Some(sequence) = sequence_of(&message)
        {
            let now = self.now;
            self.hosts[host].charges.asks(now, FrameKey { client, sequence });
        }
        self.hosts[host].sim.receive(from, message);
        self.schedule_turn(host);
    }

    /// Whether a message of a replica is about what this host's epoch orders, and not about epochs.
    fn is_of_epoch(&self, host: usize, message: &Bytes) -> bool {
        let envelope = Envelope::open(message, CLUSTER, self.hosts[host].sim.epoch());
        envelope.is_ok_and(|envelope| envelope.kind != Kind::Reconfiguration)
    }

    /// Plans the host's next turn: soon if there is work, else at its next timeout.
    fn schedule_turn(&mut self, index: usize) {
        let host = &self.hosts[index];
        let timeout = host.sim.replica().next_timeout().map(|local| host.world(local));
        let soon = (host.sim.has_work() || host.durable.is_some()).then(|| {
            let (from, to) = self.config.turn_us;
            self.now.after(self.rng.micros(from, to))
        });
        let Some(at) = soon.into_iter().chain(timeout).min() else {
            return;
        };
        let host = &mut self.hosts[index];
        if host.turn_at.is_none_or(|planned| at < planned) {
            let at = at.max(self.now);
            host.turn_at = Some(at);
            self.plan(at, Event::Turn(index));
        }
    }

    fn turn(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.turn_at != Some(self.now) || !host.is_up {
            return;
        }
        host.turn_at = None;
        let (local, durable) = (host.local(self.now), std::mem::take(&mut host.durable));
        let mut said = std::mem::take(&mut self.said);
        host.sim.on_wall_clock(local, host.day.shows(self.now));
        host.sim.turn(local, self.now, durable, &mut said);
        let stables = said.iter().filter(|said| matches!(said, Said::Stable(_)));
        self.hosts[index].efforts.begins_turn(stables.count());
        let mut ended = None;
        for said in said.drain(..) {
            match said {
                Said::EpochEnded(history) => ended = Some(history),
                said => self.deliver_said(index, said),
            }
        }
        self.said = said;
        if let Some(history) = ended {
            return self.end_epoch(index, &history);
        }
        self.plan_disk(index);
        self.check_memory(index);
        if self.hosts[index].is_correct {
            let ends = self.blame.passes(self.now, index);
            self.judge(ends);
        }
        self.watch_activities(index);
        self.schedule_turn(index);
    }

    fn submit(&mut self, number: usize) {
        let now = self.now;
        let call = &mut self.calls[number];
        if call.end.is_some() {
            return;
        }
        call.from.get_or_insert(now);
        let client = call.client;
        let deadline = now.after(DEADLINE);
        let session = &mut self.processes[client].session;
        match session.submit(now, &call.operation, call.mode, number as u64, deadline) {
            Ok(()) => self.serve_client(client),
            // Too much is under way: it tries again a little later.
            Err(_) => self.plan(now.after(Duration::from_millis(5)), Event::Call(number)),
        }
    }

    fn serve_client(&mut self, process: usize) {
        let now = self.now;
        let Process { client, session, .. } = &mut self.processes[process];
        let client = *client;
        session.on_time(now);
        session.flush(now);
        let outputs: Vec<Output> = session.drain_outputs().collect();
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    if let Ok(frame) = Checked::<RequestFrame>::body_of(&message)
                        && let Ok(body) = frame.open_body()
                    {
                        let sequence = body.sequence();
                        self.agreement.asks(client, sequence, frame.body.as_slice());
                    }
                    let who = format_args!("c{client}");
                    let fits = self.sizes.sends(who, Toward::FromClient, message.len());
                    self.judge(fits);
                    self.send_to_host(client, to, &message);
                }
                Output::Ended { tokens, outcome } => self.end(&tokens, &outcome),
            }
        }
        let Process { session, wake, .. } = &mut self.processes[process];
        if let Some(at) = session.next_timeout()
            && wake.is_none_or(|planned| at < planned || planned < now)
        {
            let at = at.max(now);
            *wake = Some(at);
            self.plan(at, Event::ClientWake(process));
        }
    }

    /// A process of a client ends, with all it has under way, and another one begins with its identity.
    fn restart_client(&mut self, process: usize) {
        let lost = self.calls.iter_mut();
        let lost = lost.filter(|call| call.client == process && call.from.is_some() && call.end.is_none());
        let count = lost
            .map(|call| call.end = Some((self.now, Err(CallError::Closed))))
            .count();
        self.open_calls -= count;
        let client = self.processes[process].client;
        let number = self.rng.throw();
        self.processes[process] = Process::start(self.now, client, &self.config, number);
        self.serve_client(process);
    }

    fn end(&mut self, tokens: &[u64], outcome: &Outcome) {
        let mut results: Vec<Result<Vec<u8>, CallError>> = match outcome {
            Outcome::Results(results) => results.values().map(|value| value.map(Into::into)).collect(),
            Outcome::Failed(error) => tokens.iter().map(|_| Err(error.clone())).collect(),
        };
        results.reverse();
        for token in tokens {
            let Some(result) = results.pop() else { break };
            self.tell(|world| {
                let call = &world.calls[*token as usize];
                format!("p{} call {token} ended: {}", call.client, result.is_ok())
            });
            let is_done = result.is_ok();
            self.calls[*token as usize].end = Some((self.now, result));
            self.open_calls -= 1;
            if is_done {
                self.spring(*token as usize);
            }
        }
    }

    fn faulty_client(&mut self, index: usize) {
        if self.now >= self.faulty_clients_until {
            return;
        }
        let client = (self.config.honest_clients + index) as u32;
        let sent = self.faulty_clients[index].act();
        self.hit(self.faulty_clients[index].kind().name(), sent.len() as u64);
        for (to, message) in sent {
            self.send_to_host(client, to, &message);
        }
        // As often in a long run as in a short one.
        let rarely = (self.faulty_clients_until.as_nanos() / 4_000_000_000).max(1);
        let (least, most) = ROGUE_PAUSE_MS;
        let pause = self.rng.millis(least * rarely, most * rarely);
        self.plan(self.now.after(pause), Event::FaultyClient(index));
    }
}
