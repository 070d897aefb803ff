//! Where rules are judged, and what struck is counted.

use super::{Host, World};
use crate::sim::checker::{Rule, Violation};
use crate::sim::keys::{CLUSTER, Keyring};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::archived::ArchivedAuthenticator;
use crate::smr::messages::{Checked, Frame, SystemMessage};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::ClientAuth;
use crate::smr::replica::{Participation, Stack};
use crate::smr::types::{Digest, SeqNo, UnixTime};

impl<S: Stack> World<S> {
    /// A batch was proposed.
    pub(super) fn see_proposal(&mut self, digest: Digest) {
        let (hosts, now) = (&self.hosts, self.now);
        let sound = hosts.iter().filter(|host| host.day.is_sound);
        let earliest = sound.map(|host| host.day.shows(now)).min();
        self.times.sees(digest, earliest.unwrap_or_default());
    }

    /// A correct replica executed a decision at this time.
    pub(super) fn judge_time(&mut self, host: usize, seq: SeqNo, time: UnixTime) {
        let (hosts, now) = (&self.hosts, self.now);
        let sound = hosts.iter().filter(|host| host.day.is_sound);
        let latest = sound.map(|host| host.day.shows(now)).max();
        let agreed = self.times.executes(host, seq, time, latest.unwrap_or_default());
        self.judge(agreed);
    }

    pub(super) fn judge(&mut self, result: Result<(), (Rule, String)>) {
        if let (Err((rule, what)), None) = (result, &self.violation) {
            self.tell(|_| format!("VIOLATION of {rule:?}: {what}"));
            self.violation = Some(Violation {
                rule,
                what,
                at: self.now,
            });
        }
    }

    pub(super) fn check_memory(&mut self, index: usize) {
        let host = &self.hosts[index];
        if !host.is_correct {
            return;
        }
        let (pool, limits, sizes) = (host.sim.replica().pool(), self.config.pool, self.config.limits);
        // Each client may have one frame more than there is room for, and what is proposed comes on top.
        let (clients, proposals) = (self.config.clients(), self.config.pipeline);
        let frames_max = (limits.frames_per_client + 1) * clients + proposals * sizes.batch_frames_max;
        let bytes_max =
            limits.bytes_max + clients * sizes.frame_bytes_max + proposals * sizes.batch_bytes_max;
        let (frames, bytes) = (pool.pending_frames(), pool.pending_bytes());
        let held = host.sim.replica().held_effects();
        // What arrives is looked at only while less waits; looking at it adds a few effects per place.
        let held_max = 2 * self.config.held_effects_max();
        if frames > frames_max || bytes > bytes_max || held > held_max {
            let what = format!("host {index} holds {frames} frames, {bytes} bytes, {held} effects");
            self.judge(Err((Rule::Memory, what)));
        }
        let host = &self.hosts[index];
        let kept = host.sim.replica().kept_decisions();
        let within = host.budget.keeps(kept);
        self.judge(within);
    }

    /// How many frames of reads were asked in order after all.
    pub(in crate::sim) fn reads_ordered(&self) -> u64 {
        let counted = self.processes.iter().map(|process| process.session.counters());
        counted.map(|counters| counters.reads_ordered).sum()
    }

    /// Finds MACs in what is proposed to a correct host that are not its clients' for it.
    pub(super) fn look_for_bad_macs(&mut self, index: usize, message: &Checked<SystemMessage>) {
        if self.config.auth != ClientAuth::Mac || message.is_batch_response() {
            return;
        }
        let Some(Ok((_, frames))) = message.pre_prepare(usize::MAX) else {
            return;
        };
        let (keys, n, node) = (
            Keyring::get(),
            self.config.replicas,
            self.hosts[index].node.index(),
        );
        let digester = Digester::new(CLUSTER);
        for frame in frames {
            let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
            let Ok(frame) = Frame::check(frame, usize::MAX, usize::MAX, digest_of) else {
                continue;
            };
            let client = frame.key().client;
            if let ArchivedAuthenticator::Macs(macs) = &frame.archived().authenticator
                && (client.get() as usize) < self.config.honest_clients
                && macs.get(node)
                    != keys
                        .macs(client, n)
                        .get(node)
                        .map(|key| key.mac(frame.digest()))
                        .as_ref()
            {
                self.blame.fails(self.now, client);
            }
        }
    }

    /// Adds up what struck whom.
    pub(in crate::sim) fn count_hits(&mut self) {
        self.hit("read asked in order after all", self.reads_ordered());
        let traffic = self.network.traffic;
        for (name, count) in [
            ("message lost", traffic.lost),
            ("message doubled", traffic.doubled),
            ("message late", traffic.late),
            ("message cut off", traffic.cut),
            ("dead link of a client", traffic.dead),
            ("slow link", traffic.slowed),
        ] {
            self.hit(name, count);
        }
        let lies: Vec<(&'static str, u64)> = self
            .hosts
            .iter()
            .filter_map(|host| host.liar.as_ref())
            .flat_map(|liar| liar.hits.iter().map(|(lie, count)| (lie.name(), *count)))
            .collect();
        lies.into_iter().for_each(|(name, count)| self.hit(name, count));
        let counted: Vec<(&'static str, u64)> = self.hosts.iter().flat_map(|host| host.counted()).collect();
        counted
            .into_iter()
            .for_each(|(name, count)| self.hit(name, count));
    }

    /// Whether a correct host that is up and shares what it has keeps frames.
    pub(in crate::sim) fn keeps_frames(&self) -> bool {
        let keeps = |host: &Host<S>| {
            let replica = host.sim.replica();
            let shares = replica.participation() == Participation::Full;
            host.is_correct && host.is_up && shares && replica.pool().pending_frames() > 0
        };
        self.hosts.iter().any(keeps)
    }

    /// What lies at the end of a run: equal states, and nothing left over where all is done.
    pub(in crate::sim) fn check_end(&mut self, must_be_empty: bool) {
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            if !host.is_correct || !host.is_up {
                continue;
            }
            let (claim, is_wrong) = (host.sim.digest_now(), host.is_wrong);
            // Who abstains tells nobody what it alone has pending, of a client's process that has ended, say.
            let shares = host.sim.replica().participation() == Participation::Full;
            let frames = host.sim.replica().pool().pending_frames();
            // A state that is wrong is found out at the next checkpoint, which may not have come.
            if !is_wrong {
                let equal = self.agreement.state(index, claim);
                self.judge(equal);
            }
            let is_behind = self.agreement.executed_by(index) < self.agreement.decided();
            if must_be_empty && !is_behind && shares && frames > 0 {
                let standing = self.standing(index);
                let what = format!("host {index} keeps {frames} frames after all is done: {standing}");
                self.judge(Err((Rule::Memory, what)));
            }
        }
    }

    /// A correct host that is up and has not executed what f+1 others such have: fewer convince nobody, and
    /// what only they have decided is decided by the others when something is ordered after it. Nor can a
    /// host whose state went wrong have another while no other disk holds one, before a restart or after it:
    /// none was due yet, or all were full when it was. It has the next.
    pub(in crate::sim) fn is_behind(&self) -> Option<usize> {
        let able = |host: &usize| self.hosts[*host].is_correct && self.hosts[*host].is_up;
        let last = |host: usize| self.agreement.executed_by(host);
        let mut reached: Vec<u64> = (0..self.hosts.len()).filter(able).map(last).collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let most = *reached.get(self.config.faulty_max())?;
        let has_snapshot = |host: usize| {
            let host = &self.hosts[host];
            !host.is_wrong && !host.sim.disk.disk_state.snapshots.is_empty()
        };
        let is_state_there = (0..self.hosts.len()).filter(able).any(has_snapshot);
        let needs_state = |host: &Host<S>| host.is_wrong || host.sim.replica().awaits_state();
        let can_catch_up = |host: &usize| is_state_there || !needs_state(&self.hosts[*host]);
        (0..self.hosts.len())
            .filter(able)
            .filter(can_catch_up)
            .find(|host| last(*host) < most)
    }

    /// The view that a correct host has reached, of all that have.
    pub(in crate::sim) fn views_lost(&self) -> Option<u64> {
        let correct = self.hosts.iter().filter(|host| host.is_correct);
        correct.map(|host| host.sim.replica().view().get()).max()
    }

    /// Where a host stands, in words.
    pub(in crate::sim) fn standing(&self, index: usize) -> String {
        let host = &self.hosts[index];
        if !host.is_up {
            return "down".to_owned();
        }
        let replica = host.sim.replica();
        let ordering = replica.ordering();
        format!(
            "{} {} {}{}, decided {}, stable {}, snapshots {:?}, {} effects held, {}, {}",
            host.sim.epoch(),
            replica.view(),
            replica.phase(),
            if replica.closing().is_some() {
                ", closing"
            } else {
                ""
            },
            ordering.decided(),
            ordering.stable(),
            host.sim.disk.disk_state.snapshots.keys().collect::<Vec<_>>(),
            replica.held_effects(),
            replica.transfer_phase(),
            replica.participation()
        )
    }

    /// A rule that only a whole run can break.
    pub(in crate::sim) fn break_rule(&mut self, rule: Rule, what: String) {
        self.judge(Err((rule, what)));
    }
}
