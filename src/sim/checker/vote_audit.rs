use std::collections::{BTreeMap, BTreeSet};

use super::answers::Answers;
use super::views::{Views, digest_of};
use super::{Broken, Rule};
use crate::sim::SimConfig;
use crate::sim::keys::{CLUSTER, Keyring};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::archived::{
    ArchivedLogTransferMessage, ArchivedStateTransferMessage, ArchivedSyncMessage, ArchivedSystemMessage,
    ArchivedViewTransferMessage,
};
use crate::smr::messages::{
    Checked, CheckpointClaim, PbftRecord, Phase, SignedCheckpoint, SystemMessage, ViewChange, Vote,
};
use crate::smr::protocol::Record;
use crate::smr::types::{Digest, Epoch, NodeId, Time};

type Slot = (u64, u64);

/// The books kept about one correct replica: what it heard, what its disk holds, what it said.
pub(in crate::sim) struct VoteAudit {
    node: usize,
    n: usize,
    window: u64,
    /// (view, seq, digest) → who proposed or prepared it, as delivered here.
    prepares: BTreeMap<(Slot, Digest), BTreeSet<usize>>,
    /// The same of commits, by slot and batch first: (seq, digest) → view → who.
    commits: BTreeMap<(u64, Digest), BTreeMap<u64, BTreeSet<usize>>>,
    /// (seq, digest) → whose sound signatures were delivered here.
    checkpoints: BTreeMap<(u64, Digest), BTreeSet<usize>>,
    /// (seq, digest) → who said that it was decided.
    decisions: BTreeMap<(u64, Digest), BTreeSet<usize>>,
    proposals_durable: BTreeSet<(Slot, Digest)>,
    prepares_durable: BTreeSet<(Slot, Digest)>,
    commits_durable: BTreeSet<(Slot, Digest)>,
    decisions_durable: BTreeSet<(u64, Digest)>,
    checkpoints_durable: BTreeSet<(u64, Digest)>,
    view_durable: u64,
    new_views_durable: BTreeSet<u64>,
    said: BTreeMap<(u8, Slot), Digest>,
    /// The last view change that was sent.
    view_change: Option<ViewChange>,
    said_view_changes: BTreeSet<Digest>,
    views: Views,
    answers: Answers,
    /// The last slot and the last view that it spoke of before its disk lost that.
    forgot: Option<(u64, u64)>,
    /// It may have spoken of places up to here before: a window after its last stable checkpoint then.
    reach: u64,
    stable: u64,
    /// The last stable checkpoint that its disk holds.
    stable_durable: u64,
    /// The last place of the epoch, once that is known.
    last: u64,
}

impl VoteAudit {
    pub(in crate::sim) fn new(node: usize, config: &SimConfig) -> Self {
        let (n, window, donor) = (config.replicas, config.window, config.donor);
        Self {
            node,
            n,
            window,
            prepares: BTreeMap::new(),
            commits: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            decisions: BTreeMap::new(),
            proposals_durable: BTreeSet::new(),
            prepares_durable: BTreeSet::new(),
            commits_durable: BTreeSet::new(),
            decisions_durable: BTreeSet::new(),
            checkpoints_durable: BTreeSet::new(),
            view_durable: 0,
            new_views_durable: BTreeSet::new(),
            said: BTreeMap::new(),
            view_change: None,
            said_view_changes: BTreeSet::new(),
            views: Views::new(node, n),
            answers: Answers::new(n, donor),
            forgot: None,
            reach: 0,
            stable: 0,
            stable_durable: 0,
            last: u64::MAX,
        }
    }

    /// From then on leaders stay.
    pub(in crate::sim) fn steady_from(mut self, from: Option<Time>) -> Self {
        self.views.steady_from = from;
        self
    }

    /// In this epoch, which begins after a checkpoint.
    pub(in crate::sim) fn in_epoch(mut self, epoch: Epoch, base: CheckpointClaim) -> Self {
        self.views.epoch = epoch;
        (self.stable, self.stable_durable) = (base.seq.get(), base.seq.get());
        self
    }

    /// It knows the last place of the epoch: what it committed to behind that binds it no more.
    pub(in crate::sim) fn ends(&mut self, last: u64) {
        self.last = last;
    }

    /// So many distinct replicas make any two such sets share a correct one: more than (n+f)/2.
    fn enough(&self) -> usize {
        let faulty = (self.n - 1) / 3;
        (self.n + faulty) / 2 + 1
    }

    fn leader(&self, view: u64) -> usize {
        (view % self.n as u64) as usize
    }

    /// A message was delivered here.
    pub(in crate::sim) fn heard(&mut self, from: NodeId, message: &Checked<SystemMessage>) {
        let from = from.index();
        match &**message {
            ArchivedSystemMessage::ProposalMessage(head) => {
                let slot = (head.view().get(), head.seq().get());
                if self.leader(slot.0) == from {
                    self.prepares
                        .entry((slot, head.digest()))
                        .or_default()
                        .insert(from);
                }
            }
            ArchivedSystemMessage::ProtocolMessage(_) => self.heard_votes(from, &message.votes()),
            ArchivedSystemMessage::ViewTransferMessage(_) => {
                if let Some(message) = message.of_views() {
                    self.heard_of_views(from, &message);
                }
            }
            ArchivedSystemMessage::SyncMessage(message) => self.heard_of_sync(from, message),
            ArchivedSystemMessage::LogTransferMessage(message) => self.heard_of_decisions(from, message),
            ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Offer(offer)) => {
                let proof = offer.to_offer().proof;
                proof
                    .iter()
                    .for_each(|checkpoint| self.count_checkpoint(checkpoint));
            }
            _ => {}
        }
    }

    fn heard_votes(&mut self, from: usize, votes: &[Vote]) {
        for vote in votes {
            let key = ((vote.view, vote.seq), vote.digest());
            match vote.phase {
                Phase::Prepare if self.leader(vote.view) != from => {
                    self.prepares.entry(key).or_default().insert(from);
                }
                Phase::Prepare => {}
                Phase::Commit => {
                    let views = self.commits.entry((vote.seq, key.1)).or_default();
                    views.entry(vote.view).or_default().insert(from);
                }
            }
        }
    }

    fn heard_of_sync(&mut self, from: usize, message: &ArchivedSyncMessage) {
        match message {
            ArchivedSyncMessage::Checkpoint(checkpoint) => {
                let checkpoint = checkpoint.to_checkpoint();
                if usize::from(checkpoint.signer) == from {
                    self.count_checkpoint(&checkpoint);
                }
            }
            ArchivedSyncMessage::Stable(proof) => {
                let proof = proof.iter().map(|signed| signed.to_checkpoint());
                proof.for_each(|checkpoint| self.count_checkpoint(&checkpoint));
            }
            ArchivedSyncMessage::Decisions(decisions) => {
                for decision in decisions.iter().map(|decision| decision.to_ref()) {
                    let key = (decision.seq, decision.digest());
                    self.decisions.entry(key).or_default().insert(from);
                }
            }
            _ => {}
        }
    }

    fn heard_of_decisions(&mut self, from: usize, message: &ArchivedLogTransferMessage) {
        if let ArchivedLogTransferMessage::Decided { first, digests, .. } = message {
            for (seq, digest) in (first.to_native()..).zip(digests.iter()) {
                let key = (seq, Digest::from_bytes(*digest));
                self.decisions.entry(key).or_default().insert(from);
            }
        }
    }

    /// Others' checkpoints travel with view changes, as proofs.
    fn heard_of_views(&mut self, from: usize, message: &ArchivedViewTransferMessage) {
        match message {
            ArchivedViewTransferMessage::ViewChange(message) => {
                let message = message.to_view_change();
                self.views.heard(from, &message);
                let proof = &message.stable_proof;
                proof
                    .iter()
                    .for_each(|checkpoint| self.count_checkpoint(checkpoint));
            }
            ArchivedViewTransferMessage::Complaint(view) => {
                self.views.heard_complaint(from, view.to_native());
            }
            _ => {}
        }
    }

    fn count_checkpoint(&mut self, checkpoint: &SignedCheckpoint) {
        let key = (checkpoint.seq, checkpoint.claim().digest);
        let signer = usize::from(checkpoint.signer);
        let is_known = self
            .checkpoints
            .get(&key)
            .is_some_and(|signers| signers.contains(&signer));
        if !is_known && self.is_signed(checkpoint) {
            self.checkpoints.entry(key).or_default().insert(signer);
        }
    }

    fn is_signed(&self, checkpoint: &SignedCheckpoint) -> bool {
        let mut hasher = Digester::new(CLUSTER).hasher(Domain::Checkpoint);
        hasher.update(b"claim");
        hasher.update(&checkpoint.seq.to_le_bytes());
        hasher.update(&checkpoint.digest);
        let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
        let keys = Keyring::get().verifying(self.n);
        keys.get(usize::from(checkpoint.signer)).is_some_and(|key| {
            key.verify(Domain::Checkpoint, &digest, &checkpoint.signature)
                .is_ok()
        })
    }

    /// A record is on this replica's disk.
    pub(in crate::sim) fn on_disk(&mut self, record: &Record) {
        match record {
            Record::Proposal(proposal) => {
                let slot = (proposal.view.get(), proposal.seq.get());
                self.proposals_durable.insert((slot, proposal.batch.digest));
            }
            Record::Ordering { contents, .. } => {
                if let Ok(PbftRecord::Vote(vote)) = PbftRecord::read(contents) {
                    let key = ((vote.view, vote.seq), vote.digest());
                    match vote.phase {
                        Phase::Prepare => self.prepares_durable.insert(key),
                        Phase::Commit => self.commits_durable.insert(key),
                    };
                }
            }
            Record::Checkpoint(checkpoint) => {
                self.checkpoints_durable
                    .insert((checkpoint.seq, checkpoint.claim().digest));
            }
            Record::View(view) => self.view_durable = self.view_durable.max(view.get()),
            Record::ViewTransfer(message) => {
                let message = Checked::<SystemMessage>::body_of(message);
                match message.ok().and_then(|message| message.of_views()).as_deref() {
                    Some(ArchivedViewTransferMessage::ViewChange(message)) => {
                        self.views.logs(&message.to_view_change());
                    }
                    Some(ArchivedViewTransferMessage::NewView(message)) => {
                        let message = message.to_new_view();
                        self.new_views_durable.insert(message.view);
                        self.views.begins(&message);
                    }
                    _ => {}
                }
            }
            Record::Decision { seq, digest, .. } => {
                self.decisions_durable.insert((seq.get(), *digest));
            }
            Record::Stable { claim, .. } => self.stable_durable = self.stable_durable.max(claim.seq.get()),
            // A batch that was fetched binds nobody.
            _ => {}
        }
    }

    /// What was on this replica's disk is gone, and it knows.
    pub(in crate::sim) fn forgot(&mut self) {
        self.proposals_durable.clear();
        self.prepares_durable.clear();
        self.commits_durable.clear();
        self.decisions_durable.clear();
        self.checkpoints_durable.clear();
        self.new_views_durable.clear();
        self.view_durable = 0;
        let slot = self.said.keys().map(|(_, (_, seq))| *seq).max().unwrap_or(0);
        let view = self.view_change.as_ref().map_or(0, |said| said.view);
        self.forgot = Some((slot, view));
        self.reach = self.stable + self.window;
        self.stable_durable = 0;
    }

    /// This replica says that what it forgot does not matter any more. It must be so after its next start as
    /// well.
    pub(in crate::sim) fn votes_again(&self) -> Result<(), Broken> {
        match self.stable_durable >= self.reach {
            true => Ok(()),
            false => Err((
                Rule::VotingSuspension,
                format!(
                    "r{} votes again when its disk knows of a stable checkpoint at s{}; it may have spoken of what comes before s{}",
                    self.node, self.stable_durable, self.reach
                ),
            )),
        }
    }

    /// What this replica says now is not about what it said before its disk lost that: at most where the
    /// stable checkpoint `from` its words begin, in this view.
    fn is_news(&self, from: u64, view: u64) -> Result<(), Broken> {
        match self.forgot {
            Some((last, asked)) if from < last || view < asked => Err((
                Rule::VotingSuspension,
                format!(
                    "r{} speaks of what comes after s{from} in v{view}; it forgot what it said up to s{last}, v{asked}",
                    self.node
                ),
            )),
            _ => Ok(()),
        }
    }

    /// This replica starts again from the snapshot of a checkpoint, and has read these records: what it heard
    /// is forgotten, but for what it committed to.
    pub(in crate::sim) fn restarted(&mut self, snapshot: u64, records: &[Record]) {
        self.stable_durable = self.stable_durable.max(snapshot);
        records.iter().for_each(|record| self.on_disk(record));
        self.views.restarted(self.view_durable);
        self.answers.restarted();
        let committed = &self.commits_durable;
        self.prepares.retain(|key, _| committed.contains(key));
        self.commits.clear();
        self.decisions.clear();
        // What it accepted was the leader's proposal: that was judged when it prepared it.
        for (slot, digest) in &self.proposals_durable {
            let leader = self.leader(slot.0);
            self.prepares.entry((*slot, *digest)).or_default().insert(leader);
        }
    }

    fn says_of_views(&mut self, now: Time, message: &ArchivedViewTransferMessage) -> Result<(), Broken> {
        match message {
            ArchivedViewTransferMessage::ViewChange(message) => {
                let view_change = message.to_view_change();
                let view = view_change.view;
                let is_own = usize::from(view_change.signer) == self.node;
                if !is_own
                    || !self
                        .said_view_changes
                        .insert(digest_of(self.views.epoch, &view_change))
                {
                    // Passed on to who lacks it: it binds its signer, and has bound it already.
                    return Ok(());
                }
                self.durable(view <= self.view_durable, "view change", (view, 0))?;
                self.is_news(view_change.stable_seq, view)?;
                self.views.asks(now, view)?;
                self.view_change = Some(view_change);
                self.carries()
            }
            ArchivedViewTransferMessage::NewView(message) => {
                let view = message.to_new_view().view;
                self.durable(self.new_views_durable.contains(&view), "new view", (view, 0))
            }
            _ => Ok(()),
        }
    }

    /// Every batch that this replica committed to in an earlier view, after the checkpoint, is in P, or one
    /// prepared later.
    fn carries(&self) -> Result<(), Broken> {
        let Some(view_change) = &self.view_change else {
            return Ok(());
        };
        for ((view, seq), digest) in &self.commits_durable {
            let is_missing = *view < view_change.view
                && *seq > view_change.stable_seq
                && *seq <= self.last
                && !view_change
                    .prepared
                    .iter()
                    .any(|placed| placed.seq == *seq && placed.view >= *view);
            if is_missing {
                return Err((
                    Rule::Evidence,
                    format!(
                        "r{} asks for v{} without {digest:?}, which it committed to at v{view} s{seq}",
                        self.node, view_change.view
                    ),
                ));
            }
        }
        Ok(())
    }

    /// This replica sends a message to one other.
    pub(in crate::sim) fn gives(
        &mut self,
        now: Time,
        to: NodeId,
        message: &Checked<SystemMessage>,
    ) -> Result<(), Broken> {
        self.answers.gives(now, to, message)
    }

    /// This replica sends a message to others.
    pub(in crate::sim) fn says(&mut self, now: Time, message: &Checked<SystemMessage>) -> Result<(), Broken> {
        match &**message {
            ArchivedSystemMessage::ProposalMessage(head) => {
                let (slot, digest) = ((head.view().get(), head.seq().get()), head.digest());
                let kept = self.proposals_durable.contains(&(slot, digest));
                self.durable(kept, "pre-prepare", slot)?;
                self.says_once(0, slot, digest)
            }
            ArchivedSystemMessage::ProtocolMessage(_) => self.says_votes(&message.votes()),
            ArchivedSystemMessage::ViewTransferMessage(_) => match message.of_views() {
                Some(message) => self.says_of_views(now, &message),
                None => Ok(()),
            },
            ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::Checkpoint(checkpoint)) => {
                let claim = checkpoint.to_checkpoint().claim();
                let kept = self
                    .checkpoints_durable
                    .contains(&(claim.seq.get(), claim.digest));
                self.durable(kept, "checkpoint", (0, claim.seq.get()))
            }
            _ => Ok(()),
        }
    }

    fn says_votes(&mut self, votes: &[Vote]) -> Result<(), Broken> {
        for vote in votes {
            let (slot, digest) = ((vote.view, vote.seq), vote.digest());
            match vote.phase {
                Phase::Prepare => {
                    let kept = self.proposals_durable.contains(&(slot, digest))
                        || self.prepares_durable.contains(&(slot, digest));
                    self.durable(kept, "prepare", slot)?;
                    self.says_once(1, slot, digest)?;
                }
                Phase::Commit => {
                    let kept = self.commits_durable.contains(&(slot, digest));
                    self.durable(kept, "commit", slot)?;
                    self.says_once(2, slot, digest)?;
                    self.is_prepared(slot, digest)?;
                    if self.view_change.as_ref().is_some_and(|said| slot.0 < said.view) {
                        self.carries()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn durable(&self, kept: bool, what: &str, (view, seq): Slot) -> Result<(), Broken> {
        match kept {
            true => Ok(()),
            false => Err((
                Rule::Durability,
                format!(
                    "r{} sends a {what} for v{view} s{seq} that its disk does not hold",
                    self.node
                ),
            )),
        }
    }

    fn says_once(&mut self, phase: u8, slot: Slot, digest: Digest) -> Result<(), Broken> {
        let (node, (view, seq)) = (self.node, slot);
        let first = *self.said.entry((phase, slot)).or_insert(digest);
        if first != digest {
            return Err((
                Rule::OneVote,
                format!("r{node} speaks for {first:?} and {digest:?} at v{view} s{seq}, phase {phase}"),
            ));
        }
        self.is_news(seq - 1, view)?;
        self.views.speaks(view)?;
        if seq > self.stable + self.window {
            return Err((
                Rule::Window,
                format!(
                    "r{node} speaks for s{seq}; its window ends at s{}",
                    self.stable + self.window
                ),
            ));
        }
        Ok(())
    }

    /// A quorum, this replica and the leader among it, stands behind the batch.
    fn is_prepared(&self, slot: Slot, digest: Digest) -> Result<(), Broken> {
        let mut signers = self.prepares.get(&(slot, digest)).cloned().unwrap_or_default();
        signers.insert(self.node);
        // A new-view stands for the pre-prepares of what it chose.
        if slot.0 > 0 {
            signers.insert(self.leader(slot.0));
        }
        if signers.len() >= self.enough() && signers.contains(&self.leader(slot.0)) {
            return Ok(());
        }
        Err((
            Rule::Certificates,
            format!(
                "r{} commits v{} s{} prepared by {signers:?} only",
                self.node, slot.0, slot.1
            ),
        ))
    }

    /// This replica executes a batch: a quorum committed it in one view, or f+1 others said that it was
    /// decided. Its own commit counts once it is on its disk.
    pub(in crate::sim) fn executes(&self, seq: u64, digest: Digest) -> Result<(), Broken> {
        let faulty = (self.n - 1) / 3;
        let told = self.decisions.get(&(seq, digest)).map_or(0, BTreeSet::len);
        if told > faulty || self.decisions_durable.contains(&(seq, digest)) {
            return Ok(());
        }
        let (mut most, mut with_own) = (0, false);
        for (view, signers) in self.commits.get(&(seq, digest)).into_iter().flatten() {
            let kept = self.commits_durable.contains(&((*view, seq), digest));
            with_own |= signers.len() + 1 >= self.enough();
            most = most.max(signers.len() + usize::from(kept));
        }
        if self.enough() <= 1 || most >= self.enough() {
            return Ok(());
        }
        self.durable(!with_own, "decision", (0, seq))?;
        Err((
            Rule::Certificates,
            format!(
                "r{} executes s{seq} committed by {most} only, told by {told}",
                self.node
            ),
        ))
    }

    /// This replica took a checkpoint itself.
    pub(in crate::sim) fn took(&mut self, claim: CheckpointClaim) {
        self.checkpoints
            .entry((claim.seq.get(), claim.digest))
            .or_default()
            .insert(self.node);
    }

    /// This replica takes a checkpoint for stable.
    pub(in crate::sim) fn holds_stable(&mut self, claim: CheckpointClaim) -> Result<(), Broken> {
        self.stable = self.stable.max(claim.seq.get());
        let signers = self
            .checkpoints
            .get(&(claim.seq.get(), claim.digest))
            .map_or(0, BTreeSet::len);
        match signers >= self.enough() {
            true => Ok(()),
            false => Err((
                Rule::Certificates,
                format!("r{} holds {claim:?} for stable with {signers} signers", self.node),
            )),
        }
    }
}
