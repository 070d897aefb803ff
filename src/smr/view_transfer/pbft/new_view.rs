//! New views, and the view changes that they name by digest.
//!
//! A replica holds the latest view change of each other one, as it came from that one. A new view may name
//! another: one that was lost on its way, one that its signer sent to some only, or one for a view that its
//! signer has left since. Such ones are asked for from who sent the new view, one new view at a time: for
//! each sender the last is kept, and they take turns, so that one that names what nobody has holds up none.

use std::sync::Arc;

use bytes::Bytes;

use super::{ANSWER_PAUSE, Entered, PbftViewChange, Sent, choice};
use crate::smr::messages::archived::ArchivedViewTransferMessage;
use crate::smr::messages::lengths::ANSWER_BYTES_MAX;
use crate::smr::messages::{
    Checked, NamedViewChange, NewView, SystemMessage, ViewChange, ViewStart, ViewTransferMessage,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Outbox, OwnRecord, Persisted, Recipients, Record, Rejection, RestoreError};
use crate::smr::types::{Digest, NodeId, Time, View};

const UNREADABLE: RestoreError = RestoreError::Unreadable {
    protocol: "view transfer",
};

/// The message about views that is logged whole.
fn open(message: &Bytes) -> Option<Checked<ViewTransferMessage>> {
    Checked::<SystemMessage>::body_of(message).ok()?.of_views()
}

/// What such a record says, for people.
pub(super) fn describe(contents: &[u8]) -> Option<OwnRecord> {
    let (kind, view, signers) = match &*open(&Bytes::copy_from_slice(contents))? {
        ArchivedViewTransferMessage::NewView(message) => {
            let message = message.to_new_view();
            let named = message.view_changes.iter().map(NamedViewChange::signer);
            ("new-view", message.view(), named.collect())
        }
        ArchivedViewTransferMessage::ViewChange(message) => {
            let message = message.to_view_change();
            ("view-change", message.view(), vec![message.signer()])
        }
        _ => return None,
    };
    Some(OwnRecord {
        kind,
        view: Some(view),
        digest: None,
        signers,
    })
}

/// A view change, and what it is named by.
#[derive(Debug)]
pub(super) struct Held {
    pub message: ViewChange,
    pub digest: Digest,
}

impl Held {
    pub fn view(&self) -> View {
        self.message.view()
    }

    pub fn name(&self) -> NamedViewChange {
        self.message.named(&self.digest)
    }

    /// Whether a new view for `view` means this one.
    fn is_named(&self, named: &NamedViewChange, view: u64) -> bool {
        let is_blind = active(Mutant::NamedViewChangeUnchecked) && self.message.view == view;
        self.message.signer == named.signer && (self.digest.as_bytes() == &named.digest || is_blind)
    }
}

/// A new view that its leader signed.
#[derive(Debug)]
pub(super) struct Announced {
    message: NewView,
    digest: Digest,
}

/// New views of which view changes are missing.
#[derive(Debug)]
pub(super) struct Awaited {
    /// The last of each sender.
    by_sender: Vec<Option<Arc<Announced>>>,
    /// Whose turn it is: view changes that this one's new view names are taken.
    turn: usize,
    /// By signer: one that it names, beside the latest that the signer sent here.
    spare: Vec<Option<Arc<Held>>>,
    /// When view changes were asked for last.
    asked: Option<Time>,
}

impl Awaited {
    pub fn new(n: usize) -> Self {
        Self {
            by_sender: vec![None; n],
            turn: 0,
            spare: vec![None; n],
            asked: None,
        }
    }

    fn keep(&mut self, from: NodeId, announced: Arc<Announced>) {
        self.by_sender[from.index()] = Some(announced);
        if self.attended().is_none() {
            self.turn = from.index();
        }
    }

    /// The one whose turn it is.
    pub fn attended(&self) -> Option<&Arc<Announced>> {
        self.by_sender[self.turn].as_ref()
    }

    fn is_attended(&self, announced: &Announced) -> bool {
        self.attended()
            .is_some_and(|attended| attended.digest == announced.digest)
    }

    /// The next sender has its turn, if there is one.
    fn turn(&mut self) -> Option<(NodeId, Arc<Announced>)> {
        let n = self.by_sender.len();
        let mut senders = (1..=n).map(|step| (self.turn + step) % n);
        self.turn = senders.find(|sender| self.by_sender[*sender].is_some())?;
        let announced = self.attended()?.clone();
        Some((NodeId::new(self.turn as u16), announced))
    }

    /// Whether the one whose turn it is names this view change.
    fn names(&self, held: &Held) -> bool {
        let is_it = |announced: &Arc<Announced>| {
            let mut named = announced.message.view_changes.iter();
            named.any(|named| held.is_named(named, announced.message.view))
        };
        self.attended().is_some_and(is_it)
    }

    /// Forgets what is not for a view to come.
    pub fn prune(&mut self, is_to_come: impl Fn(View) -> bool) {
        for kept in &mut self.by_sender {
            kept.take_if(|announced| !is_to_come(announced.message.view()));
        }
        for spare in &mut self.spare {
            spare.take_if(|held| !is_to_come(held.view()));
        }
    }

    /// Forgets a new view, whoever sent it. Who did.
    fn forget(&mut self, digest: Digest) -> Option<NodeId> {
        let mut first = None;
        for (sender, kept) in (0..).zip(&mut self.by_sender) {
            if kept.take_if(|announced| announced.digest == digest).is_some() {
                first = first.or(Some(NodeId::new(sender)));
            }
        }
        first
    }
}

impl PbftViewChange {
    /// As the leader of the view: begins it, if its view changes settle every place.
    pub(super) fn try_begin(&mut self, now: Time, out: &mut Outbox) {
        let for_view = self
            .view_changes
            .iter()
            .flatten()
            .filter(|held| held.view() == self.view);
        let view_changes: Vec<Arc<Held>> = for_view.cloned().collect();
        if view_changes.len() < self.proofs.view_changes_needed() {
            return;
        }
        let Some(start) = self.choose(self.view, &view_changes) else {
            return;
        };
        let named = view_changes.iter().map(|held| held.name()).collect();
        let message = self.proofs.sign_new_view(self.view, named);
        let entered = self.log_entry(message, view_changes, out);
        let Sent { message, promise } = &entered.new_view;
        out.send_promise(Recipients::Others, message.clone(), *promise);
        self.begin(now, start, entered, out);
    }

    fn choose(&self, view: View, view_changes: &[Arc<Held>]) -> Option<ViewStart> {
        let messages: Vec<&ViewChange> = view_changes.iter().map(|held| &held.message).collect();
        choice::choose(view, &messages, self.proofs.quorum)
    }

    /// Logs what a view begins with: the view changes first, so that a new view in the log can be read.
    fn log_entry(&self, new_view: NewView, view_changes: Vec<Arc<Held>>, out: &mut Outbox) -> Entered {
        if !active(Mutant::ViewChangesUnlogged) {
            for held in &view_changes {
                out.persist(Record::ViewTransfer(self.whole(held)));
            }
        }
        let message = ViewTransferMessage::NewView(new_view).encode(self.cluster, self.proofs.epoch);
        let promise = out.persist(Record::ViewTransfer(message.clone()));
        Entered {
            new_view: Sent { message, promise },
            view_changes,
        }
    }

    /// The whole message of a view change.
    fn whole(&self, held: &Held) -> Bytes {
        ViewTransferMessage::ViewChange(held.message.clone()).encode(self.cluster, self.proofs.epoch)
    }

    /// What begins the view that we are in, as records.
    pub(super) fn entry_records(&self) -> Vec<Record> {
        let Some(Entered {
            new_view,
            view_changes,
        }) = &self.entered
        else {
            return Vec::new();
        };
        let view_changes = view_changes
            .iter()
            .map(|held| Record::ViewTransfer(self.whole(held)));
        let new_view = Record::ViewTransfer(new_view.message.clone());
        view_changes.chain([new_view]).collect()
    }

    /// A new view, from its leader or passed on.
    pub(super) fn try_new_view(
        &mut self,
        now: Time,
        from: NodeId,
        message: NewView,
        out: &mut Outbox,
    ) -> Result<(), Rejection> {
        let view = message.view();
        if view < self.view {
            return Err(Rejection::OldView);
        }
        if view == self.view && self.active {
            return Err(Rejection::Duplicate);
        }
        if from == self.proofs.node || from.index() >= self.n() {
            return Err(Rejection::BadSignature);
        }
        self.proofs.check_new_view(&message)?;
        let digest = self.proofs.new_view_digest(&message);
        let announced = Arc::new(Announced { message, digest });
        if let Some(found) = self.all_named(&announced.message) {
            return self.enter_by(now, &announced, found, out);
        }
        self.awaited.keep(from, announced.clone());
        // Everybody passes it on to one that lags behind: one of them is asked at a time.
        let is_early = |asked: Time| now.since(asked) < ANSWER_PAUSE;
        if self.awaited.is_attended(&announced) && !self.awaited.asked.is_some_and(is_early) {
            self.fetch_named(now, from, &announced, out);
        }
        Ok(())
    }

    /// The view change that a new view for `view` names, if it is here.
    fn find_named(&self, named: &NamedViewChange, view: u64) -> Option<&Arc<Held>> {
        let index = named.signer().index();
        let latest = self.view_changes.get(index)?.iter();
        let spare = self.awaited.spare[index].iter();
        latest.chain(spare).find(|held| held.is_named(named, view))
    }

    fn all_named(&self, message: &NewView) -> Option<Vec<Arc<Held>>> {
        let named = message.view_changes.iter();
        named
            .map(|named| self.find_named(named, message.view).cloned())
            .collect()
    }

    /// Enters a view all of whose view changes are here: makes the same choice as its leader.
    fn enter_by(
        &mut self,
        now: Time,
        announced: &Announced,
        view_changes: Vec<Arc<Held>>,
        out: &mut Outbox,
    ) -> Result<(), Rejection> {
        let view = announced.message.view();
        if view_changes.iter().any(|held| held.view() != view) {
            return Err(Rejection::BadViewChange);
        }
        let start = self.choose(view, &view_changes).ok_or(Rejection::BadViewChange)?;
        let entered = self.log_entry(announced.message.clone(), view_changes, out);
        self.begin(now, start, entered, out);
        Ok(())
    }

    /// Asks who sent a new view for the view changes of it that are not here.
    fn fetch_named(&mut self, now: Time, to: NodeId, announced: &Announced, out: &mut Outbox) {
        self.awaited.asked = Some(now);
        let message = &announced.message;
        let named = message.view_changes.iter();
        let missing = named.filter(|named| self.find_named(named, message.view).is_none());
        let wanted = ViewTransferMessage::FetchViewChanges(missing.copied().collect());
        out.send(
            Recipients::One(to),
            wanted.encode(self.cluster, self.proofs.epoch),
        );
    }

    /// Asks the next that sent a new view which we could not enter by, if there is one.
    pub(super) fn fetch_awaited(&mut self, now: Time, out: &mut Outbox) {
        if let Some((to, announced)) = self.awaited.turn() {
            self.fetch_named(now, to, &announced, out);
        }
    }

    /// Whether a view change is one that is asked for: named by the new view whose turn it is, and not here.
    pub(super) fn is_awaited(&self, held: &Held) -> bool {
        let name = held.name();
        self.awaited.names(held) && self.find_named(&name, held.message.view).is_none()
    }

    /// Keeps one that is asked for.
    pub(super) fn keep_awaited(&mut self, held: Arc<Held>) {
        let index = held.message.signer().index();
        self.awaited.spare[index] = Some(held);
    }

    /// Enters a view whose last view change has come; true if there is one.
    pub(super) fn enter_awaited(&mut self, now: Time, out: &mut Outbox) -> bool {
        let all: Vec<Arc<Announced>> = self.awaited.by_sender.iter().flatten().cloned().collect();
        for announced in all {
            let Some(found) = self.all_named(&announced.message) else {
                continue;
            };
            let result = self.enter_by(now, &announced, found, out);
            if result.is_ok() {
                return true;
            }
            // Nobody correct has entered by it.
            if let Some(sender) = self.awaited.forget(announced.digest) {
                Self::reject(sender, announced.message.view(), result, out);
            }
        }
        false
    }

    /// Gives a peer those view changes of the new view that we entered by which it asks for.
    pub(super) fn pass_view_changes(&self, to: NodeId, wanted: &[NamedViewChange], out: &mut Outbox) {
        let Some(entered) = &self.entered else { return };
        if active(Mutant::ViewChangesUnpassed) {
            return;
        }
        let mut bytes = 0;
        for named in wanted.iter().take(self.n()) {
            let found = entered.view_changes.iter().find(|held| held.name() == *named);
            if let Some(held) = found {
                let message = self.whole(held);
                bytes += message.len();
                out.send(Recipients::One(to), message);
            }
            if bytes > ANSWER_BYTES_MAX {
                // The rest when it asks again.
                break;
            }
        }
    }

    /// The log holds a message of a view's beginning: a view change, or the new view that names those before
    /// it.
    pub(super) fn read_own(&mut self, message: &Bytes) -> Result<Option<ViewStart>, RestoreError> {
        match &*open(message).ok_or(UNREADABLE)? {
            ArchivedViewTransferMessage::ViewChange(view_change) => {
                let held = self.proofs.held(view_change.to_view_change());
                self.read.push(Arc::new(held));
                Ok(None)
            }
            ArchivedViewTransferMessage::NewView(new_view) => {
                self.read_new_view(new_view.to_new_view(), message)
            }
            _ => Err(UNREADABLE),
        }
    }

    /// The log holds this new view. `None` if the log was cut between it and its view changes: then it is
    /// there once more, further on.
    fn read_new_view(
        &mut self,
        new_view: NewView,
        message: &Bytes,
    ) -> Result<Option<ViewStart>, RestoreError> {
        let read = std::mem::take(&mut self.read);
        let find = |named: &NamedViewChange| read.iter().find(|held| held.name() == *named).cloned();
        let found: Option<Vec<Arc<Held>>> = new_view.view_changes.iter().map(find).collect();
        let Some(view_changes) = found else {
            return Ok(None);
        };
        let start = self.choose(new_view.view(), &view_changes).ok_or(UNREADABLE)?;
        self.view = start.view;
        self.active = true;
        self.entered = Some(Entered {
            new_view: Sent {
                message: message.clone(),
                promise: Persisted::RESTORED,
            },
            view_changes,
        });
        Ok(Some(start))
    }
}
