//! What replicas and clients say, on its way.

use std::time::Duration;

use bytes::Bytes;

use super::World;
use super::events::Event;
use crate::sim::checker::{CommitStability, Refusal, Rule, Toward};
use crate::sim::network::End;
use crate::sim::replica::Said;
use crate::smr::messages::archived::ArchivedClientReply;
use crate::smr::messages::{
    Checked, CheckpointClaim, ClientReply, FrameKey, Proposal, ReplyBody, SystemMessage, TakenCheckpoint,
};
use crate::smr::protocol::Recipients;
use crate::smr::replica::Stack;
use crate::smr::types::Peer;
use crate::smr::types::{ClientId, FrameSeq, NodeId, SeqNo, UnixTime};

impl<S: Stack> World<S> {
    pub(super) fn deliver_said(&mut self, index: usize, said: Said) {
        let is_correct = self.hosts[index].is_correct;
        // What it votes for is none the worse for a wrong state.
        let is_right = is_correct && !self.hosts[index].is_wrong;
        match said {
            Said::ToReplicas { to, message } => self.say(index, to, message),
            Said::ToClient { to, message } => {
                if is_correct {
                    self.judge_answer(index, to, &message);
                }
                self.answer(index, to, message);
            }
            Said::MustSign { client, must_sign } => self.see_signing(index, client, must_sign),
            Said::ReadWaits {
                client,
                is_read,
                operations,
                bytes,
            } if is_correct => {
                let charges = &mut self.hosts[index].charges;
                let within = charges.read_waits(client, is_read, operations, bytes);
                self.judge(within);
            }
            Said::ReadTurn(client) if is_correct => {
                let fair = self.hosts[index].charges.reads(client);
                self.judge(fair);
            }
            Said::Execute(decision) => self.see_decision(index, &decision),
            Said::Executed {
                seq,
                time,
                operations,
            } if is_right => self.see_executed(index, seq, time, operations),
            Said::Reply { key, body } if is_right => {
                let equal = self.agreement.replies(index, key, &body);
                self.judge(equal);
            }
            Said::Checkpoint(taken) if is_correct => self.see_checkpoint(index, &taken, is_right),
            Said::Read(seq) => self.see_read(index, seq, is_right),
            Said::ReadLog(decisions) => self.hit("decision read from the log", decisions as u64),
            Said::Stable(claim) if is_correct => {
                let certified = self.hosts[index].ledger.holds_stable(claim);
                self.judge(certified);
            }
            Said::Misexecuted => self.see_misexecution(index),
            Said::Diverged { ours } if is_correct => self.see_divergence(index, ours, is_right),
            Said::Installed(claim) => self.see_installed(index, claim),
            Said::AbstentionOver => self.see_return(index),
            Said::Verified {
                from,
                message,
                given,
                expected,
            } if is_correct => {
                let host = &mut self.hosts[index];
                let local = host.local(self.now);
                let within = host.efforts.verifies(local, from, &message, given, expected);
                self.judge(within);
            }
            Said::Refused { from, refusal } if is_correct => self.judge_refused(index, from, refusal),
            Said::FellBehind(seq) => {
                self.tell(|_| format!("host {index} fell behind s{seq}"));
            }
            _ => {}
        }
    }

    /// A host has a client sign, or not any more.
    fn see_signing(&mut self, index: usize, client: ClientId, must_sign: bool) {
        let what = match must_sign {
            true => "client has to sign",
            false => "client has not to sign any more",
        };
        self.hit(what, 1);
        self.tell(|_| format!("host {index} has c{} sign: {must_sign}", client.get()));
        if self.hosts[index].is_correct {
            let fair = self.blame.signs(index, client, must_sign);
            self.judge(fair);
        }
    }

    /// A host executes a decision.
    fn see_decision(&mut self, index: usize, decision: &Proposal) {
        self.note(4, index, decision.batch.digest.as_bytes());
        let seq = decision.seq;
        self.tell(|_| format!("host {index} executes s{seq} {:?}", decision.batch.digest));
        if self.hosts[index].is_correct {
            self.times.decides(seq, decision.batch.digest);
            let ledger = &self.hosts[index].ledger;
            let certified = ledger.executes(seq.get(), decision.batch.digest);
            self.judge(certified);
            let agreed = self.agreement.executes(index, decision);
            self.judge(agreed);
        }
    }

    /// A host in order has executed a decision.
    fn see_executed(&mut self, index: usize, seq: SeqNo, time: UnixTime, operations: usize) {
        self.judge_time(index, seq, time);
        self.hosts[index].answered.executed(seq.get(), operations);
        let once = self.agreement.executed(index, seq.get(), operations);
        self.judge(once);
    }

    /// A host executed something wrongly.
    fn see_misexecution(&mut self, index: usize) {
        self.hit("state gone wrong", 1);
        self.tell(|_| format!("host {index} has a wrong state"));
        self.hosts[index].is_wrong = true;
        self.hosts[index].was_wrong = true;
    }

    /// A host answered a read from the state after `seq`.
    fn see_read(&mut self, index: usize, seq: SeqNo, is_right: bool) {
        self.hit("read answered beside the order", 1);
        if is_right {
            let forward = self.hosts[index].answered.reads(index, seq.get());
            self.judge(forward);
        }
    }

    /// A correct host took a checkpoint, of a right state or not.
    fn see_checkpoint(&mut self, index: usize, taken: &TakenCheckpoint, is_right: bool) {
        if taken.light.is_some() {
            self.hit("light checkpoint", 1);
        }
        self.hosts[index].ledger.took(taken.claim);
        if is_right {
            let equal = self.agreement.checkpoint(index, taken);
            self.judge(equal);
        }
    }

    /// A correct host says that its state is not the quorum's: it has to be so.
    fn see_divergence(&mut self, index: usize, ours: CheckpointClaim, is_right: bool) {
        if is_right {
            let what = format!("host {index} found that its state {ours:?} is not the quorum's");
            return self.judge(Err((Rule::Checkpoints, what)));
        }
        self.hit("wrong state found out", 1);
        self.tell(|_| format!("host {index} finds that its state is wrong"));
        self.hosts[index].donors.starts_again();
    }

    /// A host goes on from the state of others.
    fn see_installed(&mut self, index: usize, claim: CheckpointClaim) {
        self.tell(|_| format!("host {index} installs the state after s{}", claim.seq));
        self.hosts[index].charges.begins_again();
        if self.hosts[index].is_correct {
            let known = self.agreement.installed(index, claim);
            self.judge(known);
            self.hosts[index].is_wrong = false;
            self.hosts[index].donors.starts_again();
            self.relapse(index);
            self.read_installed();
        }
    }

    /// A host that abstained votes again.
    fn see_return(&mut self, index: usize) {
        self.hit("abstention over", 1);
        self.tell(|_| format!("host {index} votes again"));
        if self.hosts[index].is_correct {
            let is_over = self.hosts[index].ledger.votes_again();
            self.judge(is_over);
        }
        self.relapse(index);
    }

    /// What liars, twins and hosts with wrong states send may be refused.
    fn judge_refused(&mut self, index: usize, from: NodeId, refusal: Refusal) {
        let mut senders = self.hosts.iter().filter(|host| host.node == from);
        if senders.all(|host| host.is_correct && !host.was_wrong) {
            let innocent = refusal.judge(index, from);
            self.judge(innocent);
        }
    }

    fn say(&mut self, index: usize, to: Recipients, message: Bytes) {
        if self.hosts[index].is_correct
            && self.is_of_epoch(index, &message)
            && let Ok(checked) = Checked::<SystemMessage>::body_of(&message)
        {
            if let Some(head) = checked.pre_prepare_head() {
                self.see_proposal(head.digest());
            }
            self.note_last_place(index);
            let fair = self.hosts[index].ledger.says(self.now, &checked);
            self.judge(fair);
            let least = self.hosts[index].budget.says(&checked);
            self.judge(least);
            let fits = self.sizes.says(index, to, &message, &checked);
            self.judge(fits);
            if let Recipients::One(to) = to {
                let within = self.hosts[index].ledger.gives(self.now, to, &checked);
                self.judge(within);
                self.judge_donor(index, to, &checked);
            }
            let hosts = &self.hosts;
            let (n, window) = (self.config.replicas, self.config.window);
            let lasting = self.lasting.entry(hosts[index].sim.epoch());
            let lasting = lasting.or_insert_with(|| CommitStability::new(n, window));
            let lasts = lasting.says(index, &checked, |host| hosts[host].is_correct);
            self.judge(lasts);
        }
        let own = self.hosts[index].node;
        let nodes: Vec<NodeId> = match to {
            Recipients::Others => NodeId::all(self.config.replicas)
                .filter(|node| *node != own)
                .collect(),
            Recipients::One(node) => vec![node],
        };
        for node in nodes {
            let sent = self.hosts[index]
                .liar
                .as_mut()
                .map(|liar| liar.send(node, message.clone()));
            match sent {
                None => self.send_to_node(index, node, &message, Duration::ZERO),
                Some(sent) => {
                    for lie in sent {
                        self.let_know(index, lie.to, &lie.message);
                        self.send_to_node(index, lie.to, &lie.message, lie.later);
                    }
                }
            }
        }
    }

    /// What a host says may be about an epoch that has its last decision: whatever lies behind that is void, and no
    /// evidence of anything. That it is the last is judged by what all execute.
    fn note_last_place(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(last) = host.sim.replica().closing() else {
            return;
        };
        host.ledger.ends(last.get());
        if let Some(lasting) = self.lasting.get_mut(&host.sim.epoch()) {
            lasting.ends(last.get());
        }
    }

    fn judge_donor(&mut self, index: usize, to: NodeId, message: &Checked<SystemMessage>) {
        let is_fair = self.hosts.get(to.index()).is_some_and(|peer| peer.is_correct);
        let (host, agreement) = (&mut self.hosts[index], &self.agreement);
        if host.is_wrong || !is_fair {
            return;
        }
        let local = host.local(self.now);
        let given = host.donors.says(local, to, message, |seq| agreement.right(seq));
        self.judge(given);
    }

    /// Faulty replicas know of each other's lies at once.
    fn let_know(&mut self, liar: usize, to: NodeId, message: &Bytes) {
        for index in (0..self.hosts.len()).filter(|index| *index != liar) {
            let liar = self.hosts[index].liar.as_mut();
            let sent = liar.map(|liar| liar.overhear(to, message));
            for lie in sent.into_iter().flatten() {
                self.send_to_node(index, lie.to, &lie.message, lie.later);
            }
        }
    }

    /// Sends to every host that runs the replica: a twin's messages reach both copies.
    pub(super) fn send_to_node(&mut self, from: usize, to: NodeId, message: &Bytes, later: Duration) {
        if !self.sizes.is_taken(message) {
            // A link ends with such a message. Another one is made.
            return;
        }
        let sender = Peer::Replica(self.hosts[from].node);
        for host in 0..self.hosts.len() {
            if self.hosts[host].node != to || host == from {
                continue;
            }
            if self.network.loses(self.now, (from, host), message) {
                continue;
            }
            let start = self.now.after(later);
            for at in self.network.arrivals(start, End::Host(from), End::Host(host)) {
                let message = message.clone();
                self.plan(
                    at,
                    Event::ToHost {
                        host,
                        life: self.hosts[host].life,
                        from: sender,
                        message,
                    },
                );
            }
        }
    }

    /// Whoever is answered has asked for it.
    fn judge_answer(&mut self, index: usize, to: ClientId, message: &Bytes) {
        let Ok(reply) = Checked::<ClientReply>::body_of(message) else {
            return;
        };
        let key = |session, number| FrameKey {
            client: to,
            sequence: FrameSeq::of(session, number),
        };
        let (now, charges) = (self.now, &mut self.hosts[index].charges);
        let paid = match &*reply {
            ArchivedClientReply::Results { body, .. } => {
                let Ok(body) = Checked::<ReplyBody>::new(reply.slice_of(body.as_slice())) else {
                    return;
                };
                charges.answers(key(body.session.to_native(), body.sequence.to_native()))
            }
            ArchivedClientReply::Refused {
                session, sequence, ..
            } => charges.refuses(now, key(session.to_native(), sequence.to_native())),
        };
        self.judge(paid);
    }

    fn answer(&mut self, index: usize, to: ClientId, message: Bytes) {
        if self.hosts[index].is_correct {
            let who = format_args!("host {index}");
            let fits = self.sizes.sends(who, Toward::Client, message.len());
            self.judge(fits);
        }
        let message = match &mut self.hosts[index].liar {
            Some(liar) => liar.reply(message),
            None => Some(message),
        };
        let Some(message) = message else {
            return;
        };
        let from = self.hosts[index].node;
        let processes = 0..self.processes.len();
        let processes: Vec<usize> = processes
            .filter(|process| self.processes[*process].client == to.get())
            .collect();
        for process in processes {
            for at in self
                .network
                .arrivals(self.now, End::Host(index), End::Client(to.get()))
            {
                let message = message.clone();
                self.plan(
                    at,
                    Event::ToClient {
                        process,
                        from,
                        message,
                    },
                );
            }
        }
    }

    pub(super) fn send_to_host(&mut self, client: u32, to: NodeId, message: &Bytes) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].node != to {
                continue;
            }
            let from = Peer::Client(ClientId::new(client));
            for at in self
                .network
                .arrivals(self.now, End::Client(client), End::Host(host))
            {
                let message = message.clone();
                let life = self.hosts[host].life;
                self.plan(
                    at,
                    Event::ToHost {
                        host,
                        life,
                        from,
                        message,
                    },
                );
            }
        }
    }
}
