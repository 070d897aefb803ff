use super::window::{FrameStatus, SequenceWindow};
use crate::smr::types::FrameSeq;

/// How many sessions of one client are known at once. One more ends the one that executed nothing for
/// longest.
pub const SESSIONS_MAX: usize = 256;

/// How far above all its client's sessions a new one may be: no single frame uses an identity's numbers up.
pub const SESSION_STEP_MAX: u64 = 1 << 32;

/// A session of a client, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session<T> {
    pub id: u64,
    pub window: SequenceWindow,
    pub kept: T,
}

/// The sessions of one client: which of its frames were executed. A session begins with its first frame that
/// is executed (after Ongaro, "Consensus: Bridging Theory and Practice", section 6.3, with numbers that
/// clients choose above those the cluster knows, so that no operation is spent on registering).
///
/// Follows from the executed frames alone: whoever records the same ones in the same order has the same
/// sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions<T> {
    /// In the order in which they last executed something, the latest last.
    live: Vec<Session<T>>,
    /// A session below this that is not live has ended.
    ended: u64,
    /// No session above this was ever live.
    highest: u64,
}

/// The sessions of one client without anything beside.
pub type SessionWindows = Sessions<()>;

impl<T> Default for Sessions<T> {
    fn default() -> Self {
        Self {
            live: Vec::new(),
            ended: 0,
            highest: 0,
        }
    }
}

impl<T: Default> Sessions<T> {
    /// Whether a frame may be executed.
    #[must_use]
    pub fn check(&self, sequence: FrameSeq) -> FrameStatus {
        let id = sequence.session();
        match self.place(id) {
            Some(place) => self.live[place].window.check(sequence),
            None if id < self.ended || id > self.highest.saturating_add(SESSION_STEP_MAX) => {
                FrameStatus::Ended
            }
            None => FrameStatus::Fresh,
        }
    }

    /// Records a frame as executed, if it may be. The session that it ended, if it did.
    pub fn record(&mut self, sequence: FrameSeq) -> Option<u64> {
        self.record_with(sequence).map(|ended| ended.id)
    }

    pub(crate) fn record_with(&mut self, sequence: FrameSeq) -> Option<Session<T>> {
        if self.check(sequence) != FrameStatus::Fresh {
            return None;
        }
        let id = sequence.session();
        let (mut session, mut ended) = (None, None);
        match self.place(id) {
            Some(place) if place + 1 < self.live.len() => session = Some(self.live.remove(place)),
            Some(_) => {}
            None => {
                if self.live.len() >= SESSIONS_MAX {
                    let oldest = self.live.remove(0);
                    self.ended = self.ended.max(oldest.id.saturating_add(1));
                    ended = Some(oldest);
                }
                self.highest = self.highest.max(id);
                session = Some(Session {
                    id,
                    window: SequenceWindow::default(),
                    kept: T::default(),
                });
            }
        }
        self.live.extend(session);
        if let Some(latest) = self.live.last_mut() {
            latest.window.record(sequence);
        }
        ended
    }

    /// No session above this one was ever live.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The windows alone.
    #[must_use]
    pub fn windows(&self) -> SessionWindows {
        let live = self.live.iter().map(|session| Session {
            id: session.id,
            window: session.window,
            kept: (),
        });
        Sessions {
            live: live.collect(),
            ended: self.ended,
            highest: self.highest,
        }
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Session<T>> {
        self.place(id).map(|place| &self.live[place])
    }

    /// The sessions, the one that executed nothing for longest first.
    pub(crate) fn live(&self) -> &[Session<T>] {
        &self.live
    }

    pub(crate) fn live_mut(&mut self) -> &mut [Session<T>] {
        &mut self.live
    }

    pub(crate) fn ended(&self) -> u64 {
        self.ended
    }

    /// Sessions as they were read; `None` where no executor has such.
    pub(crate) fn from_parts(live: Vec<Session<T>>, ended: u64, highest: u64) -> Option<Self> {
        let mut ids: Vec<u64> = live.iter().map(|session| session.id).collect();
        ids.sort_unstable();
        let is_sound = live.len() <= SESSIONS_MAX
            && ids.is_sorted_by(|a, b| a < b)
            && ids.last().is_none_or(|last| *last <= highest)
            && ended <= highest.saturating_add(1);
        is_sound.then_some(Self { live, ended, highest })
    }

    fn place(&self, id: u64) -> Option<usize> {
        self.live.iter().rposition(|session| session.id == id)
    }
}
