use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::peers::{Answer, Peers};
use super::{ReconfigurationMessage, ReconfigurationProtocol, SignedHandover};
use crate::smr::crypto::{Domain, SigningKey};
use crate::smr::membership::{
    ChainError, ChangeRequest, EndedEpoch, EpochHistory, Extension, ForkProof, HandoverCertificate,
    HandoverSignature, HandoverStatement, MembershipChain, MembershipHead,
};
use crate::smr::messages::CheckpointClaim;
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{
    Effect, Outbox, Persisted, Recipients, Record, Rejected, Rejection, RestoreError,
};
use crate::smr::types::{ClusterId, Epoch, NodeId, SeqNo, Time, View};

/// A peer that asks is answered once in so long.
pub const ANSWER_PAUSE: Duration = Duration::from_millis(100);

/// The end of the newest epoch as it was executed here.
#[derive(Debug)]
struct Closed {
    statement: HandoverStatement,
    next: MembershipHead,
}

/// What this replica signed of the newest epoch.
#[derive(Debug)]
struct Own {
    signed: SignedHandover,
    promise: Persisted,
}

/// Ends epochs by [handover certificates](HandoverCertificate); see the [module](super).
#[derive(Debug)]
pub struct EpochHandover {
    node: NodeId,
    signing: SigningKey,
    history: EpochHistory,
    /// How many epochs had ended that it began with.
    first: Epoch,

    // Of the newest epoch.
    /// Its last decision, and what that asks for.
    closing: Option<(SeqNo, ChangeRequest)>,
    /// The same, as others say it.
    learned: Option<(SeqNo, ChangeRequest)>,
    closed: Option<Closed>,
    own: Option<Own>,
    /// By slot: the first that each member signed.
    signed: Vec<Option<SignedHandover>>,
    /// It was said that what a quorum signed is not what was executed here.
    has_diverged: bool,

    /// Those that [`take_ended`](ReconfigurationProtocol::take_ended) has not told yet.
    ended: VecDeque<EndedEpoch>,
    fork: Option<ForkProof>,

    peers: Peers,
    /// What was written to the log last: what is told of the chain may have our own signature in it.
    logged: Persisted,
    /// Whose turn it is to be asked, of those that ended without us.
    turn: usize,
}

impl EpochHandover {
    /// The protocol of a replica that knows this much, and signs with this key.
    #[must_use]
    pub fn new(node: NodeId, signing: SigningKey, history: EpochHistory) -> Self {
        let newest = history.chain().newest();
        Self {
            node,
            signing,
            first: newest.epoch(),
            closing: None,
            learned: None,
            closed: None,
            own: None,
            signed: vec![None; newest.members().len()],
            history,
            has_diverged: false,
            ended: VecDeque::new(),
            fork: None,
            peers: Peers::default(),
            logged: Persisted::RESTORED,
            turn: 0,
        }
    }

    fn chain(&self) -> &MembershipChain {
        self.history.chain()
    }

    fn cluster(&self) -> ClusterId {
        self.chain().cluster()
    }

    /// The newest epoch that is known.
    fn epoch(&self) -> Epoch {
        self.chain().newest().epoch()
    }

    fn encode(&self, message: &ReconfigurationMessage) -> Bytes {
        message.to_message(self.cluster(), self.epoch())
    }

    fn persist(&mut self, message: &ReconfigurationMessage, out: &mut Outbox) -> Persisted {
        self.logged = out.persist(Record::Reconfiguration(message.encode().into()));
        self.logged
    }

    /// Signs the end of the epoch, and binds this replica to it.
    fn sign(&mut self, statement: HandoverStatement, out: &mut Outbox) {
        let signature = statement.sign(self.node, &self.signing);
        let signed = SignedHandover { statement, signature };
        let message = ReconfigurationMessage::Handover(signed);
        let promise = self.persist(&message, out);
        out.send_promise(Recipients::Others, self.encode(&message), promise);
        self.keep_own(Own { signed, promise });
    }

    fn keep_own(&mut self, own: Own) {
        if let Some(slot) = self.chain().newest().slot_of(self.node) {
            self.signed[slot.index()] = Some(own.signed);
            self.own = Some(own);
        }
    }

    /// Takes another member's signature in.
    fn on_handover(
        &mut self,
        now: Time,
        from: NodeId,
        signed: SignedHandover,
        out: &mut Outbox,
    ) -> Result<(), Rejection> {
        let SignedHandover { statement, signature } = signed;
        if signature.signer != from || from == self.node {
            return Err(Rejection::BadSignature);
        }
        if statement.epoch != self.epoch() {
            self.on_other_epoch(now, from, statement.epoch, out);
            return Ok(());
        }
        let newest = self.chain().newest();
        let (slot, member) = newest
            .slot_of(from)
            .zip(newest.member(from))
            .ok_or(Rejection::BadSignature)?;
        if let Some(first) = &self.signed[slot.index()] {
            return Err(match first.statement == statement {
                true => Rejection::Duplicate,
                false => Rejection::ConflictingVote,
            });
        }
        let key = &member.signing_key;
        let verified = key.verify(Domain::Handover, &statement.digest(), &signature.signature);
        verified.map_err(|_| Rejection::BadSignature)?;
        self.signed[slot.index()] = Some(signed);
        self.conclude(out);
        Ok(())
    }

    /// What members of the newest epoch signed of this end: one signature of each at most.
    fn signatures_of(&self, statement: HandoverStatement) -> impl Iterator<Item = HandoverSignature> {
        let signed = self.signed.iter().flatten();
        let alike = signed.filter(move |one| one.statement == statement);
        alike.map(|one| one.signature)
    }

    /// What so many members of the newest epoch signed alike.
    fn signed_alike(&self, least: usize) -> Option<HandoverStatement> {
        let mut statements = self.signed.iter().flatten().map(|one| one.statement);
        statements.find(|statement| self.signatures_of(*statement).count() >= least)
    }

    /// What a quorum signed alike.
    fn agreed(&self) -> Option<HandoverStatement> {
        self.signed_alike(self.chain().newest().quorum().quorum())
    }

    /// What f+1 members signed alike: one of them is correct, and executed it.
    fn witnessed(&self) -> Option<HandoverStatement> {
        self.signed_alike(self.chain().newest().quorum().weak())
    }

    /// The others that signed what a quorum did, or what f+1 did while the end is not known here.
    fn agreed_signers(&self) -> Vec<NodeId> {
        let unknown = || self.witnessed().filter(|_| self.closing.is_none());
        let Some(agreed) = self.agreed().or_else(unknown) else {
            return Vec::new();
        };
        let signers = self.signatures_of(agreed).map(|one| one.signer);
        signers.filter(|node| *node != self.node).collect()
    }

    /// Ends the epoch, if a quorum signed what was executed here.
    fn conclude(&mut self, out: &mut Outbox) {
        let (Some(statement), Some(closed)) = (self.agreed(), &self.closed) else {
            return;
        };
        if closed.statement != statement {
            return self.diverge(statement.closing, out);
        }
        let signatures: Vec<_> = self.signatures_of(statement).collect();
        let ending = self.chain().newest();
        let next = closed.next.clone();
        let gathered = HandoverCertificate::gather(ending, statement.closing, next, &signatures);
        if let Ok(certificate) = gathered {
            // Each signature in it was verified, and the successor is what execution made of this membership.
            let _ = self.extend(&certificate, out);
        }
    }

    /// A quorum's end is not the one that was executed here: the state that it was executed on is wrong.
    fn diverge(&mut self, stable: CheckpointClaim, out: &mut Outbox) {
        if let (Some(closed), false) = (&self.closed, self.has_diverged) {
            let ours = closed.statement.closing;
            out.push(Effect::Diverged { stable, ours });
            self.has_diverged = true;
        }
    }

    /// Takes a certificate into the chain, and logs it if it is new.
    fn extend(
        &mut self,
        certificate: &HandoverCertificate,
        out: &mut Outbox,
    ) -> Result<Extension, ChainError> {
        let extension = self.history.extend(certificate)?;
        if extension == Extension::New {
            if self
                .closed
                .as_ref()
                .is_some_and(|closed| closed.statement != certificate.statement())
            {
                self.diverge(certificate.closing(), out);
            }
            self.persist(&ReconfigurationMessage::Chain(vec![certificate.clone()]), out);
            self.begin();
        }
        Ok(extension)
    }

    /// The newest epoch is another one. What ended the one before is known if it was executed here.
    fn begin(&mut self) {
        let closing = self.closing.take();
        self.learned = None;
        (self.closed, self.own, self.has_diverged) = (None, None, false);
        self.signed = vec![None; self.chain().newest().members().len()];
        if let Some((_, request)) = closing {
            // A state that went wrong changes nothing about what was asked for.
            self.follow(&request);
        }
    }

    /// Goes on to the next epoch, if it is certified and this is what made it.
    fn follow(&mut self, request: &ChangeRequest) -> bool {
        let ended = self.history.follow(request);
        let is_it = ended.is_ok();
        self.ended.extend(ended);
        is_it
    }

    /// Gives a peer the certificates that it lacks, if it was not answered just now.
    fn answer(&mut self, now: Time, to: NodeId, known: Epoch, out: &mut Outbox) {
        let lacking = self.chain().since(known);
        if lacking.is_some_and(|lacking| !lacking.is_empty())
            && self.may_answer(now, to, Answer::Certificates)
        {
            let piece = ReconfigurationMessage::piece(self.chain().since(known).unwrap_or_default());
            out.send_again(Recipients::One(to), self.encode(&piece), self.logged);
        }
    }

    /// Tells a peer what ended an epoch, if it is known and the peer was not answered just now.
    fn tell_change(&mut self, now: Time, to: NodeId, epoch: Epoch, out: &mut Outbox) {
        if self.change_of(epoch).is_some()
            && !active(Mutant::ChangeUntold)
            && self.may_answer(now, to, Answer::Change)
            && let Some(request) = self.change_of(epoch)
        {
            let message = self.encode(&ReconfigurationMessage::Change(request.clone()));
            out.send(Recipients::One(to), message);
        }
    }

    /// What ended an epoch, or ends this one.
    fn change_of(&self, epoch: Epoch) -> Option<&ChangeRequest> {
        let closing = self.closing.as_ref().map(|(_, request)| request);
        let closing = closing.filter(|request| request.base_epoch == epoch);
        self.history.change(epoch).or(closing)
    }

    /// Whether a peer may be answered now; it was then.
    fn may_answer(&mut self, now: Time, to: NodeId, answer: Answer) -> bool {
        let Self { peers, history, .. } = self;
        let newest = history.chain().newest();
        peers.may_answer(now, (to, answer), |node| newest.slot_of(node).is_some())
    }

    /// Asks a peer for what we lack, if it was not asked just now: for what ended an epoch, if its end is
    /// certified, else for certificates.
    fn ask(&mut self, now: Time, peer: NodeId, out: &mut Outbox) {
        let is_witnessed = self.closing.is_none() && self.learned.is_none() && self.agreed().is_none();
        let is_witnessed = is_witnessed && self.witnessed().is_some();
        let Self { peers, history, .. } = self;
        let newest = history.chain().newest();
        if peers.may_ask(now, peer, |node| newest.slot_of(node).is_some()) {
            let question = match history.lacking() {
                Some(epoch) => ReconfigurationMessage::FetchChange(epoch),
                None if is_witnessed => ReconfigurationMessage::FetchChange(newest.epoch()),
                None => ReconfigurationMessage::FetchChain(newest.epoch()),
            };
            out.send(Recipients::One(peer), self.encode(&question));
        }
    }

    /// Takes certificates in, in order. Who was asked and told something new is asked for more.
    fn on_chain(
        &mut self,
        now: Time,
        from: NodeId,
        certificates: &[HandoverCertificate],
        out: &mut Outbox,
    ) -> Result<(), Rejection> {
        let was_asked = self.peers.take_answer(from);
        if !was_asked && !self.may_verify(now, from, certificates.len()) {
            return Err(Rejection::OverBudget);
        }
        let mut has_news = false;
        for certificate in certificates {
            match self.extend(certificate, out) {
                Ok(extension) => has_news |= extension == Extension::New,
                Err(ChainError::Fork(fork)) => {
                    // It is no lie of who tells it.
                    self.fork.get_or_insert(fork);
                    return Ok(());
                }
                // It was asked by us, or by another one that speaks of us: we may have begun later.
                Err(ChainError::Gap { .. } | ChainError::BeforePin { .. }) => return Ok(()),
                Err(_) => return Err(Rejection::BadSignature),
            }
        }
        if has_news && (was_asked || self.history.lacking().is_some()) {
            self.peers.ask_again(from);
            self.ask(now, from, out);
        }
        Ok(())
    }

    /// Whether so much that a peer tells unasked may be verified now; it counts then.
    fn may_verify(&mut self, now: Time, from: NodeId, count: usize) -> bool {
        let Self { peers, history, .. } = self;
        let newest = history.chain().newest();
        peers.may_verify(now, (from, count), |node| newest.slot_of(node).is_some())
    }

    /// Takes in what ends this epoch, if f+1 members signed what it leads to: who has the state after the last
    /// decision from others did not decide it.
    fn learn_closing(&mut self, request: &ChangeRequest) {
        let next = self.history.membership().next(request);
        if let (None, Some(witnessed), Ok(next)) = (&self.closing, self.witnessed(), next)
            && next.digest() == witnessed.next
        {
            self.learned = Some((witnessed.closing.seq, request.clone()));
        }
    }

    /// Takes in what ended an epoch. Who told it is asked for the next, if there is one.
    fn on_change(
        &mut self,
        now: Time,
        from: NodeId,
        request: &ChangeRequest,
        out: &mut Outbox,
    ) -> Result<(), Rejection> {
        let was_asked = self.peers.take_answer(from);
        if was_asked && self.history.lacking().is_none() && request.base_epoch == self.epoch() {
            self.learn_closing(request);
            return Ok(());
        }
        if self.history.lacking() != Some(request.base_epoch) {
            // Somebody else was faster.
            return Ok(());
        }
        if !was_asked && !self.may_verify(now, from, 1) {
            return Err(Rejection::OverBudget);
        }
        if !self.follow(request) {
            return Err(Rejection::BadSignature);
        }
        if self.history.lacking().is_some() {
            self.peers.ask_again(from);
            self.ask(now, from, out);
        }
        Ok(())
    }

    fn read(&self, contents: &[u8]) -> Result<ReconfigurationMessage, RestoreError> {
        ReconfigurationMessage::decode(self.cluster(), contents).map_err(|_| UNREADABLE)
    }
}

const UNREADABLE: RestoreError = RestoreError::Unreadable {
    protocol: "reconfiguration",
};

impl ReconfigurationProtocol for EpochHandover {
    fn history(&self) -> &EpochHistory {
        &self.history
    }

    fn on_decided(&mut self, seq: SeqNo, request: &ChangeRequest, out: &mut Outbox) -> Option<Persisted> {
        self.history.membership().next(request).ok()?;
        if self.follow(request) {
            // Its end is certified already.
            return None;
        }
        self.closing = Some((seq, request.clone()));
        Some(self.persist(&ReconfigurationMessage::Closing(seq, request.clone()), out))
    }

    fn take_learned(&mut self, executed: SeqNo) -> Option<ChangeRequest> {
        let learned = self.learned.take_if(|(seq, _)| *seq == executed);
        learned
            .filter(|_| self.closing.is_none())
            .map(|(_, request)| request)
    }

    fn closing(&self) -> Option<SeqNo> {
        self.closing.as_ref().map(|(seq, _)| *seq)
    }

    fn on_closed(&mut self, _: Time, closing: CheckpointClaim, out: &mut Outbox) {
        let Some((seq, request)) = &self.closing else {
            return;
        };
        let Ok(next) = self.history.membership().next(request) else {
            return;
        };
        if *seq != closing.seq {
            return;
        }
        let (epoch, next) = (request.base_epoch, next.head().clone());
        let statement = HandoverStatement {
            cluster: self.cluster(),
            epoch,
            closing,
            next: next.digest(),
        };
        self.closed = Some(Closed { statement, next });
        // What was signed before a restart stays signed, and nothing else is.
        if self.own.is_none() && self.chain().newest().slot_of(self.node).is_some() {
            self.sign(statement, out);
        }
        self.conclude(out);
    }

    fn on_message(&mut self, now: Time, from: NodeId, message: ReconfigurationMessage, out: &mut Outbox) {
        let (seq, taken) = match message {
            ReconfigurationMessage::Handover(signed) => {
                let seq = signed.statement.closing.seq;
                (seq, self.on_handover(now, from, signed, out))
            }
            ReconfigurationMessage::FetchChain(known) => {
                self.answer(now, from, known, out);
                return;
            }
            ReconfigurationMessage::FetchChange(epoch) => {
                self.tell_change(now, from, epoch, out);
                return;
            }
            ReconfigurationMessage::Change(request) => {
                (SeqNo::ZERO, self.on_change(now, from, &request, out))
            }
            // That is a record, and nobody's message.
            ReconfigurationMessage::Closing(seq, _) => (seq, Err(Rejection::BadSignature)),
            ReconfigurationMessage::Chain(certificates) => {
                let seq = certificates.last().map_or(SeqNo::ZERO, |last| last.closing().seq);
                (seq, self.on_chain(now, from, &certificates, out))
            }
        };
        if let Err(reason) = taken {
            let view = View::ZERO;
            out.push(Effect::Rejected(Rejected {
                from,
                view,
                seq,
                reason,
            }));
        }
    }

    fn on_other_epoch(&mut self, now: Time, from: NodeId, epoch: Epoch, out: &mut Outbox) {
        match epoch.cmp(&self.epoch()) {
            std::cmp::Ordering::Less => self.answer(now, from, epoch, out),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => self.ask(now, from, out),
        }
    }

    fn on_status_due(&mut self, now: Time, out: &mut Outbox) {
        if let Some(own) = &self.own {
            let message = ReconfigurationMessage::Handover(own.signed);
            out.send_again(Recipients::Others, self.encode(&message), own.promise);
        }
        // They have what we lack, or will. Some of them may lie: the next one is asked then.
        let signers: Vec<NodeId> = match self.history.lacking().and_then(|epoch| self.chain().ended(epoch)) {
            Some(certificate) => {
                let signers = certificate.signatures().iter().map(|one| one.signer);
                let members = certificate.next().members().iter().map(|member| member.id);
                signers.chain(members).filter(|node| *node != self.node).collect()
            }
            None => self.agreed_signers(),
        };
        self.turn += 1;
        if let Some(peer) = signers.get(self.turn % signers.len().max(1)) {
            self.ask(now, *peer, out);
        }
    }

    fn take_ended(&mut self) -> Option<EndedEpoch> {
        self.ended.pop_front()
    }

    fn fork(&self) -> Option<&ForkProof> {
        self.fork.as_ref()
    }

    fn restore(&mut self, record: &Record) -> Result<(), RestoreError> {
        let Record::Reconfiguration(contents) = record else {
            return Ok(());
        };
        match self.read(contents)? {
            ReconfigurationMessage::Handover(signed) if signed.statement.epoch == self.epoch() => {
                let promise = Persisted::RESTORED;
                self.keep_own(Own { signed, promise });
            }
            ReconfigurationMessage::Chain(certificates) => {
                for certificate in certificates {
                    match self.history.extend(&certificate) {
                        Ok(Extension::New) => self.begin(),
                        Ok(Extension::Known) | Err(ChainError::BeforePin { .. }) => {}
                        Err(_) => return Err(UNREADABLE),
                    }
                }
            }
            ReconfigurationMessage::Closing(seq, request) if request.base_epoch == self.epoch() => {
                self.closing = Some((seq, request));
            }
            // It may have been certified before it was decided here.
            ReconfigurationMessage::Closing(_, request) => {
                self.follow(&request);
            }
            // Of an epoch that has ended: it is known, and binds nobody any more.
            ReconfigurationMessage::Handover(_)
            | ReconfigurationMessage::FetchChain(_)
            | ReconfigurationMessage::FetchChange(_)
            | ReconfigurationMessage::Change(_) => {}
        }
        Ok(())
    }

    fn begin_log(&mut self, out: &mut Outbox) {
        let before = self.epoch().get().checked_sub(1).map(Epoch::new);
        if let Some(certificate) = before.and_then(|before| self.chain().ended(before)).cloned() {
            self.persist(&ReconfigurationMessage::Chain(vec![certificate]), out);
        }
    }

    fn base_records(&self) -> Vec<Record> {
        // One in each record, however long the chain is: a record has a bound.
        let all = self.chain().since(self.first).unwrap_or_default();
        let certificates = all
            .iter()
            .map(|one| ReconfigurationMessage::Chain(vec![one.clone()]));
        let own = self
            .own
            .as_ref()
            .map(|own| ReconfigurationMessage::Handover(own.signed));
        let closing = self.closing.clone().filter(|_| !active(Mutant::ClosingForgotten));
        let closing = closing.map(|(seq, request)| ReconfigurationMessage::Closing(seq, request));
        let records = certificates.chain(closing).chain(own);
        records
            .map(|message| Record::Reconfiguration(message.encode().into()))
            .collect()
    }
}

#[cfg(test)]
impl EpochHandover {
    /// How many peers are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.peers.len()
    }
}
