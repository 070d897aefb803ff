//! How a host's process ends and starts again, what its disk does meanwhile, and what goes on at once.

use std::time::Duration;

use super::events::Event;
use super::{Clock, Tampering, World};
use crate::runtime::storage::restart::Restored;
use crate::runtime::storage::{StorageError, Superblock};
use crate::sim::checker::{Budget, Charges, Efforts, Rule};
use crate::sim::disk::{DiskEvent, DiskState, Rot};
use crate::sim::keys::CLUSTER;
use crate::sim::replica::{Durable, ReadBack, SimReplica};
use crate::smr::log_transfer::LogTransferState;
use crate::smr::messages::CheckpointClaim;
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::Record;
use crate::smr::replica::Stack;
use crate::smr::replica::{ExecutionPhase, TransferPhase};
use crate::smr::state_transfer::StateTransferState;
use crate::smr::types::{SeqNo, Time};

/// What goes on at a host, as bits.
const VIEW_CHANGE: u8 = 1;
const LOG_TRANSFER: u8 = 2;
const STATE_TRANSFER: u8 = 4;
const CHECKPOINT: u8 = 8;
const RESTART: u8 = 16;

/// Every two things that can go on at once at one host, with the name under which that is counted.
pub(in crate::sim) const PAIRS: [(u8, &str); 10] = [
    (VIEW_CHANGE | LOG_TRANSFER, "view change during log transfer"),
    (VIEW_CHANGE | STATE_TRANSFER, "view change during state transfer"),
    (VIEW_CHANGE | CHECKPOINT, "view change during checkpoint"),
    (VIEW_CHANGE | RESTART, "restart during view change"),
    (
        LOG_TRANSFER | STATE_TRANSFER,
        "log transfer during state transfer",
    ),
    (LOG_TRANSFER | CHECKPOINT, "checkpoint during log transfer"),
    (LOG_TRANSFER | RESTART, "restart during log transfer"),
    (STATE_TRANSFER | CHECKPOINT, "checkpoint during state transfer"),
    (STATE_TRANSFER | RESTART, "restart during state transfer"),
    (CHECKPOINT | RESTART, "restart during checkpoint"),
];

/// So long after its start a process counts as restarting, unless it executes something earlier.
const FRESH: Duration = Duration::from_millis(200);

impl<S: Stack> World<S> {
    /// Has the ends of what the disk has begun happen.
    pub(super) fn plan_disk(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let life = host.life;
        let planned: Vec<(Time, DiskEvent)> = host.sim.disk.drain_planned().collect();
        for (at, event) in planned {
            let host = index;
            self.plan(at, Event::Disk { host, life, event });
        }
    }

    pub(super) fn on_disk(&mut self, index: usize, life: u64, event: DiskEvent) {
        let host = &mut self.hosts[index];
        if !host.is_up || host.life != life {
            return;
        }
        let done = host.sim.disk.on_event(self.now, event);
        if done.failed {
            self.hit("failed sync", 1);
            self.tell(|_| format!("host {index}: a sync fails, the replica stops"));
            self.crash(index);
            if let Some(back) = self.hosts[index].back {
                self.plan_restart(index, back);
            }
            return;
        }
        done.records.iter().for_each(|record| host.ledger.on_disk(record));
        if let Some(captured) = &mut self.captured {
            done.records.iter().for_each(|record| captured.record(record));
            let disk_state = &host.sim.disk.disk_state;
            let snapshot = done.snapshot.and_then(|seq| disk_state.snapshots.get(&seq));
            snapshot
                .into_iter()
                .for_each(|snapshot| captured.snapshot(disk_state.superblock.seed, snapshot));
        }
        host.durable.log = done.log.max(host.durable.log);
        host.durable.snapshot = done.snapshot.max(host.durable.snapshot);
        if let Some((seq, is_there)) = done.adopted {
            host.durable.adopted = Some(seq);
            if !is_there && host.is_correct {
                let what = format!("host {index} names the snapshot of s{seq}, which was removed");
                self.break_rule(Rule::Recovery, what);
            }
        }
        let host = &mut self.hosts[index];
        for record in done.records.iter().filter(|_| host.is_correct) {
            let within = host.budget.logged(record);
            if within.is_err() {
                self.judge(within);
                break;
            }
        }
        let is_correct = self.hosts[index].is_correct;
        let mut records = done.records.iter().filter(|_| is_correct);
        let fits = records.try_for_each(|record| self.sizes.logs(index, record));
        self.judge(fits);
        self.plan_disk(index);
        self.schedule_turn(index);
    }

    /// A host loses power.
    pub(in crate::sim) fn crash(&mut self, index: usize) {
        if self.hosts[index].is_up {
            self.stop(index);
            self.tell(|_| format!("host {index} loses power"));
        }
    }

    /// A host's process ends. What was not acknowledged may be lost.
    pub(super) fn stop(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        host.is_up = false;
        host.life += 1;
        host.acknowledged = host.sim.disk.acknowledged();
        host.disk_state = Some(host.sim.disk.lose_power());
        host.turn_at = None;
        host.durable = Durable::default();
        let busy = host.busy & !RESTART;
        self.count_pairs(busy, busy | RESTART);
    }

    /// Has a host that is down start again at a moment.
    pub(super) fn plan_restart(&mut self, host: usize, at: Time) {
        let life = self.hosts[host].life;
        self.plan(at, Event::Restart { host, life });
    }

    /// Starts the process of a host that is down.
    pub(super) fn restart(&mut self, index: usize, life: u64) {
        let host = &mut self.hosts[index];
        let Some(disk_state) = host
            .disk_state
            .as_mut()
            .filter(|_| !host.is_up && host.life == life)
        else {
            return;
        };
        let rng = self.rng.split();
        let is_marked = disk_state.mark.is_some();
        match SimReplica::start(
            host.node,
            &self.config,
            (&*self.maker, self.speculates[index]),
            disk_state,
            rng,
        ) {
            Ok((sim, restored, read_back)) => {
                host.past = host.counted();
                host.sim = sim;
                host.disk_state = None;
                host.is_up = true;
                host.busy = RESTART;
                host.fresh_until = self.now.after(FRESH);
                host.efforts = Efforts::new(&self.config);
                host.budget = Budget::new(&self.config);
                host.charges = Charges::new(&self.config);
                self.blame.restarts(index);
                let ppm = host.clock.ppm;
                host.clock = Clock {
                    origin: self.now,
                    offset: 0,
                    ppm,
                };
                self.hit("restart", 1);
                let abstains = self.hosts[index].sim.disk.disk_state.mark.is_some();
                if abstains && !is_marked {
                    self.hit("damaged log set aside", 1);
                }
                self.tell(|world| {
                    let replica = world.hosts[index].sim.replica();
                    format!(
                        "host {index} starts again: snapshot {:?}, {} records, executed s{}, v{}",
                        restored.snapshot.map(|claim| claim.seq),
                        restored.records,
                        replica.executed(),
                        replica.view(),
                    )
                });
                self.judge_restart(index, &restored, &read_back, abstains);
                self.hosts[index].tampering = Tampering::None;
                // What the restart allows is done in the first turn.
                self.hosts[index].turn_at = Some(self.now);
                self.plan(self.now, Event::Turn(index));
            }
            Err(error) => self.judge_refusal(index, &error),
        }
    }

    fn judge_refusal(&mut self, index: usize, error: &StorageError) {
        self.hit("start refused", 1);
        self.tell(|_| format!("host {index} refuses to start: {error}"));
        let tampering = self.hosts[index].tampering;
        if tampering == Tampering::None {
            let what = format!("host {index} refuses to start, although its disk is sound: {error}");
            return self.break_rule(Rule::Recovery, what);
        }
        if self.rng.chance(80) {
            // An operator says that the directory is lost.
            let seed = self.rng.throw();
            let host = &mut self.hosts[index];
            if let Some(disk_state) = &mut host.disk_state {
                disk_state.wipe();
                disk_state.replace(CLUSTER, host.node, seed);
                self.hit("lost directory replaced", 1);
                self.plan_restart(index, self.now.after(FRESH));
            }
        }
    }

    fn judge_restart(&mut self, index: usize, restored: &Restored, read_back: &ReadBack, abstains: bool) {
        let host = &mut self.hosts[index];
        if host.tampering == Tampering::Wiped && !abstains {
            let what = format!("host {index} starts on an empty disk, although it has run before");
            return self.break_rule(Rule::Recovery, what);
        }
        if !host.is_correct {
            return;
        }
        if abstains {
            host.ledger.forgot();
        } else if restored.tail.next_lsn < host.acknowledged {
            let what = format!(
                "host {index} finds its log up to {}, it was durable up to {}",
                restored.tail.next_lsn, host.acknowledged
            );
            return self.break_rule(Rule::Recovery, what);
        }
        let snapshot = restored.snapshot.map_or(0, |claim| claim.seq.get());
        host.ledger.restarted(snapshot, &read_back.records);
        restored
            .claims
            .iter()
            .for_each(|taken| host.ledger.took(taken.claim));
        self.judge_snapshots(index, restored, read_back);
        let is_wrong = self.hosts[index].is_wrong;
        for taken in restored.claims.iter().filter(|_| !is_wrong) {
            let equal = self.agreement.checkpoint(index, taken);
            self.judge(equal);
        }
        for decision in &read_back.replayed {
            let host = &self.hosts[index];
            let certified = host.ledger.executes(decision.seq.get(), decision.batch.digest);
            self.judge(certified);
            let agreed = self.agreement.executes(index, decision);
            self.judge(agreed);
        }
    }

    /// A host starts from the snapshot of a checkpoint that a correct replica took, or from a wrong one that
    /// no quorum contradicted yet.
    fn judge_snapshots(&mut self, index: usize, restored: &Restored, read_back: &ReadBack) {
        let host = &mut self.hosts[index];
        host.donors.starts_again();
        if host.tampering != Tampering::None {
            host.donors.rots();
        }
        if let Some(begun) = restored.snapshot
            && is_contradicted(&read_back.records, begun)
        {
            let what = format!("host {index} starts from {begun:?}, which its own log contradicts");
            return self.break_rule(Rule::Recovery, what);
        }
        let superblock = host.sim.disk.disk_state.superblock;
        let is_whole = superblock.log_start == Superblock::FIRST_SEGMENT
            && read_back.is_whole_up_to(superblock.snapshot);
        if read_back.was_contradicted && host.sim.replica().awaits_state() && is_whole {
            let what = format!("host {index} waits for a state that its whole log leads to");
            return self.break_rule(Rule::Recovery, what);
        }
        let begun = restored.snapshot.map_or(SeqNo::ZERO, |claim| claim.seq);
        let begun = begun.max(host.sim.disk.disk_state.superblock.snapshot);
        let later = host
            .sim
            .disk
            .disk_state
            .snapshots
            .keys()
            .find(|seq| **seq > begun);
        if let Some(later) = later {
            let what = format!("host {index} starts from s{begun} and leaves the snapshot of s{later}");
            return self.break_rule(Rule::Recovery, what);
        }
        let is_right = restored
            .snapshot
            .is_none_or(|claim| self.agreement.right(claim.seq.get()) == Some(claim));
        if host.is_wrong && !is_right {
            // It was not found out.
            self.agreement.starts_wrong(index, begun.get());
            return self.hit("restart from a wrong state", 1);
        }
        host.is_wrong = false;
        let known = self.agreement.restarted(index, restored.snapshot);
        self.judge(known);
    }

    /// Does something to the disk of a host that is down.
    pub(super) fn tamper(
        &mut self,
        index: usize,
        how: impl FnOnce(&mut super::SimRng, &mut DiskState) -> Tampering,
    ) {
        let host = &mut self.hosts[index];
        let Some(disk_state) = &mut host.disk_state else {
            return;
        };
        host.tampering = how(&mut self.rng, disk_state);
        host.is_correct &= !matches!(host.tampering, Tampering::Forgetful);
    }

    /// Flips a bit of a disk that holds what was acknowledged.
    pub(super) fn rot(&mut self, index: usize, how: impl FnOnce(&mut DiskState, &mut super::SimRng) -> Rot) {
        let mut hit = Rot::Nothing;
        self.tamper(index, |rng, disk_state| {
            hit = how(disk_state, rng);
            match hit {
                Rot::Nothing => Tampering::None,
                Rot::LogEnd => Tampering::Forgetful,
                Rot::Log | Rot::Snapshot | Rot::Superblock => Tampering::Rotten,
            }
        });
        self.tell(|_| format!("host {index}: {}", hit.name()));
        self.hit(hit.name(), 1);
    }

    /// Looks at what goes on at a host, and counts what began while something else went on.
    pub(super) fn watch_activities(&mut self, index: usize) {
        let host = &self.hosts[index];
        let replica = host.sim.replica();
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let (mut log, mut state) = (false, false);
        if let TransferPhase::RunningTransferProtocols {
            state_transfer,
            log_transfer,
        } = replica.transfer_phase()
        {
            log = matches!(log_transfer, LogTransferState::Running { .. });
            state = state_transfer != StateTransferState::Idle;
        }
        let taken = replica.last_checkpoint().map(|claim| claim.seq);
        let busy = bit(
            replica.phase() == ExecutionPhase::ViewTransferProtocol,
            VIEW_CHANGE,
        ) | bit(log, LOG_TRANSFER)
            | bit(state, STATE_TRANSFER)
            | bit(
                taken.is_some_and(|taken| taken > replica.ordering().stable()),
                CHECKPOINT,
            )
            | bit(self.now < host.fresh_until, RESTART);
        let before = host.busy;
        if busy != before {
            self.count_pairs(before, busy);
            self.hosts[index].busy = busy;
        }
    }

    fn count_pairs(&mut self, before: u8, busy: u8) {
        for (pair, name) in PAIRS {
            if busy & pair == pair && before & pair != pair {
                self.hit(name, 1);
            }
        }
    }
}

/// Whether a replica's log says that the state of a checkpoint is wrong: a quorum signed another one, or
/// another one than what the replica signed before it, and this one was signed before the replica knew.
fn is_contradicted(records: &[Record], begun: CheckpointClaim) -> bool {
    let mut stables = Vec::new();
    // What was signed of a state that nothing contradicted yet.
    let mut standing: Vec<CheckpointClaim> = Vec::new();
    for record in records {
        match record {
            Record::Checkpoint(signed) => {
                let claim = signed.claim();
                if standing.iter().any(|own| own.seq == claim.seq && *own != claim) {
                    // What was signed before was of a state that a restart lost.
                    standing.clear();
                }
                standing.push(claim);
            }
            Record::Stable { claim, .. } if claim.seq == begun.seq && *claim != begun => return true,
            // It may have been written again since, behind what was signed of the right state.
            Record::Stable { claim, .. } if !stables.contains(claim) => {
                stables.push(*claim);
                if standing.iter().any(|own| own.seq == claim.seq && own != claim) {
                    if begun.seq >= claim.seq && standing.contains(&begun) {
                        return true;
                    }
                    standing.clear();
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::messages::SignedCheckpoint;
    use crate::smr::types::Digest;

    fn claim(seq: u64, letter: char) -> CheckpointClaim {
        CheckpointClaim {
            seq: SeqNo::new(seq),
            digest: Digest::from_bytes([letter as u8; 32]),
        }
    }

    /// `c` signs, `s` is stable.
    fn log(of: &[(char, u64, char)]) -> Vec<Record> {
        let record = |(kind, seq, letter): &(char, u64, char)| match kind {
            's' => Record::Stable {
                claim: claim(*seq, *letter),
                proof: Vec::new(),
            },
            _ => Record::Checkpoint(SignedCheckpoint {
                seq: *seq,
                digest: [*letter as u8; 32],
                signer: 0,
                signature: [0; 64],
            }),
        };
        of.iter().map(record).collect()
    }

    #[test]
    fn a_state_is_wrong_if_it_follows_one_that_was_contradicted_and_right_if_it_replaced_it() {
        let found_out = [('c', 12, 'w'), ('c', 18, 'w'), ('s', 12, 'r')];
        assert!(is_contradicted(&log(&found_out), claim(18, 'w')));
        assert!(is_contradicted(&log(&found_out), claim(12, 'w')));
        assert!(!is_contradicted(&log(&found_out), claim(6, 'r')));
        let replaced = [('s', 12, 'r'), ('c', 18, 'r'), ('s', 18, 'r')];
        let replaced = log(&[&found_out[..], &replaced].concat());
        assert!(
            !is_contradicted(&replaced, claim(18, 'r')),
            "what was wrong at s18 was disowned before"
        );
        assert!(is_contradicted(&replaced, claim(18, 'w')));
        assert!(is_contradicted(&log(&[('s', 18, 'r')]), claim(18, 'w')));
        let lost = log(&[('c', 18, 'w'), ('c', 18, 'r'), ('s', 18, 'r')]);
        assert!(
            !is_contradicted(&lost, claim(18, 'r')),
            "the wrong state was lost in a restart"
        );
    }
}
