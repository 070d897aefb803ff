use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Rule};
use crate::sim::keys::{CLUSTER, Keyring};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::{NewView, ViewChange};
use crate::smr::types::{Digest, Epoch, Time};

/// The books about one correct replica's views: who asked it for which, and what those began with in which it
/// speaks.
pub(super) struct Views {
    node: usize,
    n: usize,
    pub(super) epoch: Epoch,
    /// By replica: the latest view that it asked for, in a message delivered here that it signed.
    asked: Vec<u64>,
    /// By replica: the latest view that it complained for here since this replica started.
    complained: Vec<u64>,
    /// The signed view changes on this replica's disk: view, signer, digest.
    logged: BTreeSet<(u64, u16, [u8; 32])>,
    /// By view that began here: whose signed view changes its new view names, and the disk holds.
    begun: BTreeMap<u64, BTreeSet<usize>>,
    /// The latest view that this replica asked for or began.
    last: u64,
    /// From then on it asks for no view that it did not ask for before.
    pub(super) steady_from: Option<Time>,
}

/// What a view change's signer signed, and what it is named by.
pub(super) fn digest_of(epoch: Epoch, message: &ViewChange) -> Digest {
    let mut hasher = Digester::new(CLUSTER).hasher(Domain::ViewChange);
    hasher.update(&epoch.get().to_le_bytes());
    message.hash_into(&mut hasher);
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

impl Views {
    pub(super) fn new(node: usize, n: usize) -> Self {
        Self {
            node,
            n,
            epoch: Epoch::ZERO,
            asked: vec![0; n],
            complained: vec![0; n],
            logged: BTreeSet::new(),
            begun: BTreeMap::new(),
            last: 0,
            steady_from: None,
        }
    }

    fn is_signed(&self, message: &ViewChange) -> bool {
        let digest = digest_of(self.epoch, message);
        let keys = Keyring::get().verifying(self.n);
        let key = keys.get(usize::from(message.signer));
        key.is_some_and(|key| {
            key.verify(Domain::ViewChange, &digest, &message.signature)
                .is_ok()
        })
    }

    /// A view change was delivered here.
    pub(super) fn heard(&mut self, from: usize, message: &ViewChange) {
        if usize::from(message.signer) == from && message.view > self.asked[from] && self.is_signed(message) {
            self.asked[from] = message.view;
        }
    }

    /// A complaint was delivered here.
    pub(super) fn heard_complaint(&mut self, from: usize, view: u64) {
        self.complained[from] = self.complained[from].max(view);
    }

    /// This replica's disk holds a view change.
    pub(super) fn logs(&mut self, message: &ViewChange) {
        if self.is_signed(message) {
            let digest = *digest_of(self.epoch, message).as_bytes();
            self.logged.insert((message.view, message.signer, digest));
        }
    }

    /// This replica's disk holds a new view. A log that was cut in between has it without its view changes,
    /// and once more with them.
    pub(super) fn begins(&mut self, message: &NewView) {
        self.last = self.last.max(message.view);
        let (view, named) = (message.view, message.view_changes.iter());
        let sound = named.filter(|named| self.logged.contains(&(view, named.signer, named.digest)));
        let signers: BTreeSet<usize> = sound.map(|named| usize::from(named.signer)).collect();
        self.begun.entry(view).or_default().extend(signers);
    }

    /// This replica starts again, in the view that its disk says.
    pub(super) fn restarted(&mut self, view: u64) {
        self.last = self.last.max(view);
        self.complained.fill(0);
    }

    /// This replica asks for a view: one that a quorum wants, itself included, or that more others ask for
    /// than may be faulty.
    pub(super) fn asks(&mut self, now: Time, view: u64) -> Result<(), Broken> {
        let faulty = (self.n - 1) / 3;
        let node = self.node;
        // A leader that left its view does not do its work.
        let leader = (self.last % self.n as u64) as usize;
        let is_led = self.asked[leader] <= self.last;
        if view > self.last && is_led && self.steady_from.is_some_and(|from| now >= from) {
            let what = format!("r{node} asks for v{view}, although everything is in order");
            return Err((Rule::Stability, what));
        }
        let others = || (0..self.n).filter(|other| *other != node);
        // Whoever complains for a later one has asked for this one, or was there.
        let has_asked = |other: &usize| self.asked[*other] >= view || self.complained[*other] > view;
        let asking = others().filter(has_asked).count();
        let wants = |other: &usize| self.asked[*other].max(self.complained[*other]) >= view;
        let wanting = 1 + others().filter(wants).count();
        if view > self.last && asking <= faulty && wanting <= (self.n + faulty) / 2 {
            let last = self.last;
            let what =
                format!("r{node} asks for v{view} after v{last}, as {asking} others do; {wanting} want it");
            return Err((Rule::Certificates, what));
        }
        self.last = self.last.max(view);
        Ok(())
    }

    /// This replica votes or proposes in a view, which a quorum's view changes have begun.
    pub(super) fn speaks(&self, view: u64) -> Result<(), Broken> {
        let faulty = (self.n - 1) / 3;
        let begun = self.begun.get(&view);
        let signers = begun.map_or(0, BTreeSet::len);
        match view == 0 || signers > (self.n + faulty) / 2 {
            true => Ok(()),
            false => Err((
                Rule::Certificates,
                format!(
                    "r{} speaks in v{view}, which view changes signed by {begun:?} began; it began {:?}",
                    self.node,
                    self.begun.keys()
                ),
            )),
        }
    }
}
