use std::time::Duration;

use super::events::Event;
use super::{Tampering, World};
use crate::sim::disk::{DiskState, Unreadable};
use crate::sim::plan::{Ambush, Fault};
use crate::smr::messages::Mode;
use crate::smr::replica::Stack;
use crate::smr::types::Time;

impl<S: Stack> World<S> {
    /// A host that is up loses power, something happens to its disk, and it comes back at a moment, if ever.
    fn take_down(
        &mut self,
        host: usize,
        back: Option<Time>,
        name: &'static str,
        then: impl FnOnce(&mut Self, usize),
    ) {
        if !self.hosts[host].is_up {
            return;
        }
        self.hit(name, 1);
        self.crash(host);
        if self.hosts.iter().all(|host| !host.is_up) {
            self.hit("all hosts down at once", 1);
        }
        then(self, host);
        if let Some(back) = back {
            self.plan_restart(host, back);
        }
    }

    /// A host that has just got over something may lose power at once, before or after what it did is on
    /// disk.
    pub(super) fn relapse(&mut self, host: usize) {
        let Some(place) = self.relapses.iter().position(|(relapsing, _)| *relapsing == host) else {
            return;
        };
        let (_, pause) = self.relapses.swap_remove(place);
        let (_, sync_us) = self.config.sync_us;
        let at = match self.rng.chance(50) {
            true => self.now,
            false => self.now.after(self.rng.micros(0, 4 * sync_us)),
        };
        let back = Some(at.after(pause));
        self.hit("relapse", 1);
        self.faults.push(Fault::Crash { host, back });
        self.plan(at, Event::Fault(self.faults.len() - 1));
    }

    /// A client was told that a call is done. If it wrote something, hosts may lose power just now; clients
    /// read it as soon as they are back.
    pub(super) fn spring(&mut self, call: usize) {
        let (now, calm_from) = (self.now, self.calm_from);
        let is_due = |ambush: &Ambush| ambush.from <= now && now < calm_from;
        let Some(read) = (self.reader)(&self.calls[call].operation) else {
            return;
        };
        self.last_read = Some(read.clone());
        let Some(due) = self.ambushes.iter().position(is_due) else {
            return;
        };
        let ambush = self.ambushes.swap_remove(due);
        self.hit("crash just after an acknowledgement", 1);
        let at = now.after(ambush.later).min(calm_from);
        let mut back = at;
        for (host, pause) in ambush.hosts {
            let until = at.after(pause).min(calm_from);
            back = back.max(until);
            self.faults.push(Fault::Crash {
                host,
                back: Some(until),
            });
            self.plan(at, Event::Fault(self.faults.len() - 1));
        }
        for pause in ambush.reads {
            let client = self.rng.below(self.config.honest_clients as u64) as usize;
            self.call_at(back.after(pause), client, read.clone(), Mode::Unordered);
        }
    }

    /// A host has a state from others: clients read at once, in some runs.
    pub(super) fn read_installed(&mut self) {
        let is_calm = self.now >= self.calm_from || !self.reads_installed;
        let Some(read) = self.last_read.clone().filter(|_| !is_calm) else {
            return;
        };
        for pause in [0, 100, 1000].map(Duration::from_micros) {
            let client = self.rng.below(self.config.honest_clients as u64) as usize;
            self.call_at(self.now.after(pause), client, read.clone(), Mode::Unordered);
        }
    }

    /// Lets a fault strike now.
    pub(in crate::sim) fn strike(&mut self, fault: &Fault) {
        self.tell(|_| format!("{fault:?}"));
        match fault {
            Fault::Crash { host, back } => self.take_down(*host, *back, "crash", |_, _| {}),
            Fault::FailedSync { host, back } => {
                // Counted when it happens.
                self.hosts[*host].sim.disk.fail_sync();
                self.hosts[*host].back = *back;
            }
            Fault::Rot { host, back } => self.take_down(*host, Some(*back), "disk rots", |world, host| {
                world.rot(host, DiskState::rot);
            }),
            Fault::RotLog { host, back } => self.take_down(*host, Some(*back), "log rots", |world, host| {
                world.rot(host, DiskState::rot_log);
            }),
            Fault::Wipe { host, back } => self.take_down(*host, Some(*back), "disk wiped", Self::wipe),
            Fault::CopyDisk { host } => {
                let host = &mut self.hosts[*host];
                let disk_state = host.disk_state.as_ref().unwrap_or(&host.sim.disk.disk_state);
                host.copy = Some(disk_state.clone());
            }
            Fault::RollBack { host, back } => {
                self.take_down(*host, Some(*back), "disk rolled back", Self::roll_back);
            }
            Fault::WrongState { host } => self.hosts[*host].sim.misexecute(),
            Fault::SlowDisk { host, factor, until } => {
                self.hit("slow disk", 1);
                self.hosts[*host].sim.disk.slow_down(*factor, *until);
            }
            Fault::UnreadableLog { host, percent } => {
                self.hit("unreadable log", 1);
                let seed = self.rng.throw();
                let host = &mut self.hosts[*host];
                let disk_state = host.disk_state.as_mut().unwrap_or(&mut host.sim.disk.disk_state);
                disk_state.unreadable = Unreadable::of(*percent, seed);
            }
            Fault::FullDisk { host, until } => {
                self.hit("full disk", 1);
                self.hosts[*host].sim.disk.fill_up(*until);
            }
            Fault::ClockJump { host, by } => {
                self.hit("clock jump", 1);
                self.hosts[*host].clock.offset += by.as_nanos() as u64;
                self.schedule_turn(*host);
            }
            Fault::RestartClient { process } => {
                self.hit("client restarted", 1);
                self.restart_client(*process);
            }
            Fault::Lost {
                kind,
                from,
                to,
                until,
            } => each_link(from, to).for_each(|(a, b)| self.network.lose(*kind, a, b, *until)),
            Fault::SlowLink { host, by } => self.network.slow_down(*host, *by),
            Fault::Partition {
                from,
                to,
                both,
                until,
            } => {
                self.hit(if *both { "partition" } else { "one-way partition" }, 1);
                each_link(from, to).for_each(|(a, b)| self.network.cut(a, b, *until));
                if *both {
                    each_link(to, from).for_each(|(a, b)| self.network.cut(a, b, *until));
                }
            }
        }
    }

    /// The copy that was made of a host's disk takes its place.
    fn roll_back(&mut self, host: usize) {
        let copy = self.hosts[host].copy.take();
        self.tamper(host, |_, disk_state| match copy {
            Some(copy) => {
                *disk_state = copy;
                Tampering::Forgetful
            }
            None => Tampering::None,
        });
    }

    fn wipe(&mut self, host: usize) {
        self.tamper(host, |_, disk_state| {
            disk_state.wipe();
            Tampering::Wiped
        });
    }
}

/// The links from each of these hosts to each of those.
fn each_link(from: &[usize], to: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    from.iter().flat_map(move |a| to.iter().map(move |b| (*a, *b)))
}
