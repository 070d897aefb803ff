use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::{Broken, Rule};
use crate::smr::messages::{Checked, CheckpointClaim, Frame, FrameKey, Proposal, ReplyBody, TakenCheckpoint};
use crate::smr::types::{Digest, FrameSeq, SeqNo};

/// Below a client's newest executed number, so many numbers may still be executed.
const WINDOW: u64 = 64;

/// By client and session: the newest number executed and all of them.
type Numbers = BTreeMap<(u32, u64), (u64, BTreeSet<u64>)>;

/// Client, session and number.
type Name = (u32, u64, u64);

/// An operation that one frame asked for: which result of its reply is its own, and where the frame was
/// executed.
type Asked = (Name, usize, u64);

/// What one correct replica has executed.
#[derive(Default)]
struct Executed {
    last: u64,
    /// The last place where it took a checkpoint, or had the state of one from elsewhere.
    last_taken: u64,
    clients: Numbers,
    /// The frames that its decisions should have executed, by place, and how many operations each has.
    expected: BTreeMap<u64, Vec<(Name, usize)>>,
}

/// What correct replicas do, compared with each other and with what clients asked.
pub(in crate::sim) struct Agreement {
    hosts: Vec<Executed>,
    /// The one batch at each place: the hash over its frames' bodies.
    batches: BTreeMap<u64, [u8; 32]>,
    /// What each honest client ever sent under a number.
    asked: BTreeMap<Name, BTreeSet<[u8; 32]>>,
    honest_clients: u32,
    replies: BTreeMap<Name, Bytes>,
    /// What the order has executed, each frame once.
    order: Executed,
    /// Where each operation was executed.
    ran: BTreeMap<Vec<u8>, Vec<Asked>>,
    /// Of states, by place.
    checkpoints: BTreeMap<u64, Digest>,
    /// By place: whether it is a light one, and its digest.
    taken: BTreeMap<u64, (bool, Digest)>,
    /// What had been executed at each place where checkpoints are taken.
    histories: BTreeMap<u64, Numbers>,
    /// Checkpoints are taken at multiples of it; `None` when bytes bring them about as well.
    checkpoint_decisions: Option<u64>,
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

impl Agreement {
    pub(in crate::sim) fn new(
        hosts: usize,
        honest_clients: usize,
        checkpoint_decisions: Option<u64>,
    ) -> Self {
        Self {
            hosts: (0..hosts).map(|_| Executed::default()).collect(),
            batches: BTreeMap::new(),
            asked: BTreeMap::new(),
            honest_clients: honest_clients as u32,
            replies: BTreeMap::new(),
            order: Executed::default(),
            ran: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            taken: BTreeMap::new(),
            histories: BTreeMap::new(),
            checkpoint_decisions,
        }
    }

    /// An honest client sends a frame.
    pub(in crate::sim) fn asks(&mut self, client: u32, sequence: FrameSeq, body: &[u8]) {
        let name = (client, sequence.session(), sequence.number());
        self.asked.entry(name).or_default().insert(hash(body));
    }

    /// A correct replica executes a decision.
    pub(in crate::sim) fn executes(&mut self, host: usize, decision: &Proposal) -> Result<(), Broken> {
        let seq = decision.seq.get();
        let books = &mut self.hosts[host];
        if seq != books.last + 1 {
            return Err((
                Rule::Order,
                format!("host {host} executes s{seq} after s{}", books.last),
            ));
        }
        books.last = seq;
        let mut hasher = blake3::Hasher::new();
        let mut expected = Vec::new();
        for frame in &decision.batch.frames {
            let body = frame.archived().body.as_slice();
            hasher.update(&hash(body));
            let key = name_of(frame.key());
            if count_once(books, key) {
                expected.push((key, frame.operation_count()));
            }
            let asked = |asked: &BTreeSet<[u8; 32]>| asked.contains(&hash(body));
            if key.0 < self.honest_clients && !self.asked.get(&key).is_some_and(asked) {
                return Err((
                    Rule::Validity,
                    format!("s{seq} has frame {:?} of c{} that it never sent", key, key.0),
                ));
            }
        }
        books.expected.insert(seq, expected);
        if self.order.last + 1 == seq {
            self.order.last = seq;
            let frames = &decision.batch.frames;
            frames.iter().for_each(|frame| self.runs(seq, frame));
        }
        let books = &self.hosts[host];
        if self
            .checkpoint_decisions
            .is_none_or(|period| seq.is_multiple_of(period))
        {
            self.histories.entry(seq).or_insert_with(|| books.clients.clone());
        }
        let batch = *hasher.finalize().as_bytes();
        let first = *self.batches.entry(seq).or_insert(batch);
        match first == batch {
            true => Ok(()),
            false => Err((
                Rule::Agreement,
                format!(
                    "host {host} executes batch {} at s{seq}, another replica {}",
                    hex::encode(&batch[..4]),
                    hex::encode(&first[..4])
                ),
            )),
        }
    }

    /// The order has a frame.
    fn runs(&mut self, seq: u64, frame: &Frame) {
        let name = name_of(frame.key());
        if name.0 < self.honest_clients && count_once(&mut self.order, name) {
            for (place, operation) in frame.body().operations().enumerate() {
                self.ran
                    .entry(operation.to_vec())
                    .or_default()
                    .push((name, place, seq));
            }
        }
    }

    /// Where the order has executed an operation, whoever asked for it and under whatever number.
    fn places_of(&self, operation: &[u8]) -> impl Iterator<Item = u64> {
        let asked = self.ran.get(operation).into_iter().flatten();
        // What a reply says nothing of was not executed.
        let ran = |asked: &&Asked| self.results(&asked.0).is_some_and(|results| asked.1 < results);
        asked.filter(ran).map(|(_, _, seq)| *seq)
    }

    /// How often the order has executed an operation.
    pub(in crate::sim) fn runs_of(&self, operation: &[u8]) -> usize {
        self.places_of(operation).count()
    }

    /// Where an operation, none of which comes twice, was executed.
    pub(in crate::sim) fn place_of(&self, operation: &[u8]) -> Option<u64> {
        self.places_of(operation).next()
    }

    /// How many results the reply to a frame has.
    fn results(&self, name: &Name) -> Option<usize> {
        let body = Checked::<ReplyBody>::new(self.replies.get(name)?.clone()).ok()?;
        Some(body.ends.len())
    }

    /// A correct replica says how many operations a decision had.
    pub(in crate::sim) fn executed(&self, host: usize, seq: u64, operations: usize) -> Result<(), Broken> {
        let frames = self.hosts[host].expected.get(&seq).into_iter().flatten();
        let expected: usize = frames
            .map(|(name, most)| self.results(name).unwrap_or(0).min(*most))
            .sum();
        match expected == operations {
            true => Ok(()),
            false => Err((
                Rule::ExactlyOnce,
                format!("host {host} executed {operations} operations at s{seq}, {expected} are new"),
            )),
        }
    }

    /// A correct replica answers an ordered frame.
    pub(in crate::sim) fn replies(&mut self, host: usize, key: FrameKey, body: &Bytes) -> Result<(), Broken> {
        let name = name_of(key);
        let first = self.replies.entry(name).or_insert_with(|| body.clone());
        match first == body {
            true => Ok(()),
            false => Err((
                Rule::Replies,
                format!("host {host} answers frame {name:?} unlike another replica"),
            )),
        }
    }

    /// A correct replica took a checkpoint: all take the same, light or not, at the same places.
    pub(in crate::sim) fn checkpoint(&mut self, host: usize, taken: &TakenCheckpoint) -> Result<(), Broken> {
        let (seq, this) = (taken.claim.seq.get(), (taken.light.is_some(), taken.claim.digest));
        let last = std::mem::replace(&mut self.hosts[host].last_taken, seq);
        let between = (Bound::Excluded(last), Bound::Excluded(seq));
        if last < seq
            && let Some((missed, _)) = self.taken.range(between).next()
        {
            let what = format!(
                "host {host} takes checkpoints at s{last} and s{seq}, and none at s{missed} where another replica takes one"
            );
            return Err((Rule::Checkpoints, what));
        }
        let first = *self.taken.entry(seq).or_insert(this);
        if first != this {
            let what = format!("host {host} takes {taken:?}, another replica {first:?}");
            return Err((Rule::Checkpoints, what));
        }
        match taken.light {
            Some(_) => Ok(()),
            None => self.state(host, taken.claim),
        }
    }

    /// A correct replica digested its state for a checkpoint, or it was looked at.
    pub(in crate::sim) fn state(&mut self, host: usize, claim: CheckpointClaim) -> Result<(), Broken> {
        let first = *self.checkpoints.entry(claim.seq.get()).or_insert(claim.digest);
        match first == claim.digest {
            true => Ok(()),
            false => Err((
                Rule::Checkpoints,
                format!("host {host} has {claim:?}, another replica {first:?}"),
            )),
        }
    }

    /// The checkpoint with a state that correct replicas took at this place.
    pub(in crate::sim) fn right(&self, seq: u64) -> Option<CheckpointClaim> {
        let digest = *self.checkpoints.get(&seq)?;
        let seq = SeqNo::new(seq);
        Some(CheckpointClaim { seq, digest })
    }

    /// A correct replica replaced its state by that of a checkpoint, which must be one that a correct replica
    /// took.
    pub(in crate::sim) fn installed(&mut self, host: usize, claim: CheckpointClaim) -> Result<(), Broken> {
        self.adopt(host, claim).ok_or_else(|| {
            let what = format!("host {host} installs {claim:?}, which no correct replica took");
            (Rule::Checkpoints, what)
        })
    }

    /// A host has the state of a checkpoint from now on; `None` when no correct replica took it.
    fn adopt(&mut self, host: usize, claim: CheckpointClaim) -> Option<()> {
        let seq = claim.seq.get();
        let history = self.histories.get(&seq);
        let history = history.filter(|_| self.checkpoints.get(&seq) == Some(&claim.digest))?;
        self.hosts[host].clients.clone_from(history);
        self.hosts[host].last = seq;
        self.hosts[host].last_taken = seq;
        Some(())
    }

    /// A correct replica starts again, from the snapshot of a checkpoint that a correct replica took, if any.
    pub(in crate::sim) fn restarted(
        &mut self,
        host: usize,
        snapshot: Option<CheckpointClaim>,
    ) -> Result<(), Broken> {
        let Some(claim) = snapshot else {
            self.hosts[host].last = 0;
            self.hosts[host].last_taken = 0;
            self.hosts[host].clients.clear();
            return Ok(());
        };
        self.adopt(host, claim).ok_or_else(|| {
            let what = format!("host {host} starts from {claim:?}, which no correct replica took");
            (Rule::Recovery, what)
        })
    }

    /// A replica starts again from a wrong state: what it executes from here on is right all the same.
    pub(in crate::sim) fn starts_wrong(&mut self, host: usize, seq: u64) {
        if let Some(history) = self.histories.get(&seq) {
            self.hosts[host].clients.clone_from(history);
        }
        self.hosts[host].last = seq;
        self.hosts[host].last_taken = seq;
    }

    /// The last place that any correct replica executed.
    pub(in crate::sim) fn decided(&self) -> u64 {
        self.hosts.iter().map(|host| host.last).max().unwrap_or(0)
    }

    /// The last place that this one executed.
    pub(in crate::sim) fn executed_by(&self, host: usize) -> u64 {
        self.hosts[host].last
    }
}

fn name_of(key: FrameKey) -> Name {
    (key.client.get(), key.sequence.session(), key.sequence.number())
}

/// Whether a frame is executed now for the first time and not too late.
fn count_once(books: &mut Executed, (client, session, number): Name) -> bool {
    let (newest, numbers) = books.clients.entry((client, session)).or_default();
    if *newest >= WINDOW && number <= *newest - WINDOW || !numbers.insert(number) {
        return false;
    }
    *newest = (*newest).max(number);
    true
}
