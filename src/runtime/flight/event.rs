use super::message_topic::MessageTopic;
use super::ring::Words;
use crate::runtime::evidence::EvidenceKind;
use crate::runtime::net::hello::HandshakeRefusal;
use crate::runtime::shard::wires::CloseReason;
use crate::smr::protocol::Timer;
use crate::smr::types::{ClientId, NodeId, Peer, SeqNo, Time, View};

/// How many numbers of 64 bits an event is, in memory and in a file.
pub(super) const EVENT_WORDS: usize = 7;

/// Which ring of its shard an event is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RingKind {
    /// What happens all the time.
    Traffic,
    /// What the replica itself goes through.
    Own,
    /// What others do, as often as they like.
    Others,
}

/// Declares what can happen: its number in files, its ring, its name.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $ring:ident, $word:literal;)*) => {
        /// What an event is about. Each says what it has beside its time: of its place (view, sequence
        /// number), peer and two numbers, those that are not named are zero.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum FlightKind {
            $($(#[$doc])* $name = $code,)*
        }

        impl FlightKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The kind with this number, if it is one.
            #[must_use]
            pub const fn of_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(super) const fn ring(self) -> RingKind {
                match self {
                    $(Self::$name => RingKind::$ring,)*
                }
            }
        }
    };
}

kinds! {
    /// A replica's message was handled: its sender, its [`MessageTopic`], its bytes.
    Message = 1, Traffic, "message";
    /// Clients' frames were checked in a turn: how many, and how many of them were refused.
    Frames = 2, Traffic, "frames";
    /// This replica proposed: how many batches in a turn.
    Proposed = 3, Traffic, "proposed";
    /// Decisions were made: the last one, how many in a turn.
    Decided = 4, Traffic, "decided";
    /// Decisions, and all that this replica promised up to them, are on disk: the last one, how many.
    Durable = 5, Traffic, "durable";
    /// A decision was executed: its number, its operations.
    Executed = 6, Traffic, "executed";
    /// Records reached the disk: the position of the next one.
    Written = 7, Traffic, "written";
    /// A periodic timer was due: which.
    Periodic = 8, Traffic, "periodic";

    /// The shard began.
    Started = 32, Own, "started";
    /// The replica was told to stop.
    Draining = 33, Own, "draining";
    /// A timer of the protocols was due: which.
    Timer = 34, Own, "timer";
    /// A view was left: the next one; what was being handled then (1 a timer, and which; 2 a message, and
    /// whose; 0 something else).
    ViewLeft = 35, Own, "view-left";
    /// A view began: its number; what was being handled then, as above.
    ViewEntered = 36, Own, "view-entered";
    /// A checkpoint was taken: its place, the first 8 bytes of its digest.
    CheckpointTaken = 37, Own, "checkpoint";
    /// A checkpoint became stable: the same.
    CheckpointStable = 38, Own, "stable";
    /// A transfer began or came to its next step: the checkpoint whose state comes, which step.
    Transfer = 39, Own, "transfer";
    /// No transfer runs any more.
    TransferEnded = 40, Own, "transfer-ended";
    /// A state from others replaced the own one: its place.
    Installed = 41, Own, "installed";
    /// It abstains: how many others have said where they are, how many have to.
    Abstains = 42, Own, "abstains";
    /// It takes part in votes again.
    Votes = 43, Own, "votes";
    /// The others have forgotten what this replica lacks: the checkpoint it has to reach.
    FellBehind = 44, Own, "fell-behind";
    /// The own state is not the one that a quorum signed: the checkpoint.
    Diverged = 45, Own, "diverged";
    /// Nothing is logged, hence nothing voted, for lack of space.
    NoSpace = 46, Own, "no-space";
    /// There is space again.
    Space = 47, Own, "space";
    /// Writing or syncing failed: the replica stops.
    StorageFailed = 48, Own, "storage-failed";
    /// The shard ended with an error or a panic: the replica stops.
    ShardFailed = 49, Own, "shard-failed";
    /// Operations of the application panicked: how many in a turn.
    ApplicationPanicked = 50, Own, "app-panicked";

    /// A link came up: with whom.
    LinkUp = 64, Others, "link-up";
    /// A link ended: with whom, why ([`close_code`]).
    LinkDown = 65, Others, "link-down";
    /// Something of a peer was refused: whose, why ([`EvidenceKind`]), how often.
    Refused = 66, Others, "refused";
    /// A connection was refused before anybody was proven to be at its other end: why.
    HandshakeRefused = 67, Others, "handshake";
    /// Chunks of a state that are not what its certificate covers: how many in a turn.
    ChunksRefused = 68, Others, "chunks-refused";
    /// A client has to sign its frames (1), or not any more (0): which.
    MustSign = 69, Others, "must-sign";
}

/// One event of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightEvent {
    /// Its number among the events of its shard.
    pub number: u64,
    /// When: the beginning of the turn in which it happened.
    pub at: Time,
    /// What: the number of a [`FlightKind`]. A later release may know more of them.
    pub code: u8,
    /// Who else has part in it.
    pub peer: Option<Peer>,
    /// The view the replica was in, or that it is about.
    pub view: View,
    /// The decision, or checkpoint, that it is about; zero for none.
    pub seq: SeqNo,
    /// Two numbers, whose meaning is the kind's.
    pub numbers: [u64; 2],
}

const NOBODY: u64 = 0;
const REPLICA: u64 = 1;
const CLIENT: u64 = 2;

impl FlightEvent {
    /// One of this kind; number and time are given to it when it is recorded.
    #[must_use]
    pub const fn of(kind: FlightKind) -> Self {
        Self {
            number: 0,
            at: Time::START,
            code: kind as u8,
            peer: None,
            view: View::ZERO,
            seq: SeqNo::ZERO,
            numbers: [0; 2],
        }
    }

    /// With somebody who has part in it.
    #[must_use]
    pub const fn with(mut self, peer: Option<Peer>) -> Self {
        self.peer = peer;
        self
    }

    /// In this view.
    #[must_use]
    pub const fn view(mut self, view: View) -> Self {
        self.view = view;
        self
    }

    /// About this decision.
    #[must_use]
    pub const fn seq(mut self, seq: SeqNo) -> Self {
        self.seq = seq;
        self
    }

    /// With these numbers.
    #[must_use]
    pub const fn numbers(mut self, first: u64, second: u64) -> Self {
        self.numbers = [first, second];
        self
    }

    /// What it is about; `None` if this release does not know it.
    #[must_use]
    pub const fn kind(&self) -> Option<FlightKind> {
        FlightKind::of_code(self.code)
    }

    /// Layout: number; time in nanoseconds; kind, whether the peer is a replica or a client, and its number
    /// (bytes 0, 1 and 4 to 7, the others zero); view; sequence number; the two numbers.
    pub(super) fn to_words(self) -> Words {
        let (who, id) = match self.peer {
            None => (NOBODY, 0),
            Some(Peer::Replica(node)) => (REPLICA, u64::from(node.get())),
            Some(Peer::Client(client)) => (CLIENT, u64::from(client.get())),
        };
        [
            self.number,
            self.at.as_nanos(),
            u64::from(self.code) | who << 8 | id << 32,
            self.view.get(),
            self.seq.get(),
            self.numbers[0],
            self.numbers[1],
        ]
    }

    /// `None` if these are no event.
    pub(super) fn of_words(words: Words) -> Option<Self> {
        let [number, at, head, view, seq, first, second] = words;
        let (code, who, id) = (head as u8, head >> 8 & 0x00ff_ffff, (head >> 32) as u32);
        let peer = match who {
            NOBODY if id == 0 => None,
            REPLICA => Some(Peer::Replica(NodeId::new(u16::try_from(id).ok()?))),
            CLIENT => Some(Peer::Client(ClientId::new(id))),
            _ => return None,
        };
        Some(Self {
            number,
            at: Time::from_nanos(at),
            code,
            peer,
            view: View::new(view),
            seq: SeqNo::new(seq),
            numbers: [first, second],
        })
    }

    /// What its numbers mean, in words; the peer, view and sequence number are not among them.
    #[must_use]
    pub fn words(&self) -> String {
        use FlightKind as Kind;
        let [first, second] = self.numbers;
        let named = |names: &[&str]| {
            let name = usize::try_from(first).ok().and_then(|at| names.get(at).copied());
            name.map_or_else(|| format!("number {first}"), str::to_owned)
        };
        let Some(kind) = self.kind() else {
            return format!("kind {}: {first} {second}", self.code);
        };
        match kind {
            Kind::Message => {
                let kind = usize::try_from(first)
                    .ok()
                    .and_then(|at| MessageTopic::ALL.get(at));
                let word = kind.map_or("what is no message", |kind| kind.word());
                format!("{word}, {second} bytes")
            }
            Kind::Frames => format!("{first} checked, {second} refused"),
            Kind::Proposed => format!("{first} batches"),
            Kind::Decided | Kind::Durable => format!("{first} decisions"),
            Kind::Executed => format!("{first} operations"),
            Kind::Written => format!("the log up to position {first}"),
            Kind::Timer | Kind::Periodic => named(&TIMERS),
            Kind::ViewLeft | Kind::ViewEntered => cause(first, second),
            Kind::CheckpointTaken | Kind::CheckpointStable => format!("digest {first:016x}"),
            Kind::Transfer => named(&STAGES),
            Kind::Abstains => format!("{first} of {second} others have said where they are"),
            Kind::ApplicationPanicked | Kind::ChunksRefused => format!("{first} times"),
            Kind::LinkDown => named(&LINK_ENDS),
            Kind::Refused => {
                let kind = u8::try_from(first).ok().and_then(EvidenceKind::of_code);
                let word = kind.map_or_else(|| format!("number {first}"), |kind| kind.name().to_owned());
                if second == 1 {
                    word
                } else {
                    format!("{word}, {second} times")
                }
            }
            Kind::HandshakeRefused => {
                let refusal = usize::try_from(first).ok();
                let refusal = refusal.and_then(|at| HandshakeRefusal::ALL.get(at));
                refusal.map_or_else(|| named(&[]), |refusal| refusal.name().to_owned())
            }
            Kind::MustSign => named(&["not any more", "from now on"]),
            Kind::Started
            | Kind::Draining
            | Kind::TransferEnded
            | Kind::Installed
            | Kind::Votes
            | Kind::FellBehind
            | Kind::Diverged
            | Kind::NoSpace
            | Kind::Space
            | Kind::StorageFailed
            | Kind::ShardFailed
            | Kind::LinkUp => String::new(),
        }
    }
}

/// By [`timer_code`].
const TIMERS: [&str; Timer::ALL.len()] = [
    "progress",
    "view change",
    "status",
    "leader review",
    "log transfer",
    "state transfer",
    "donor",
    "repair",
];

/// By [`TransferPhase::stage`](crate::smr::replica::TransferPhase::stage).
const STAGES: [&str; 6] = [
    "nothing",
    "decisions",
    "looking for a checkpoint",
    "opening a checkpoint",
    "receiving a state",
    "installing a state",
];

/// By [`close_code`].
const LINK_ENDS: [&str; 5] = [
    "the other end closed it",
    "it broke the framing",
    "it took messages too slowly",
    "this end closed it",
    "nothing came for too long",
];

/// The number of a timer in an event.
#[must_use]
pub const fn timer_code(timer: Timer) -> u64 {
    timer.index() as u64
}

/// The number of a link's end in an event.
#[must_use]
pub const fn close_code(reason: CloseReason) -> u64 {
    match reason {
        CloseReason::Disconnected => 0,
        CloseReason::Framing(_) => 1,
        CloseReason::QueueFull => 2,
        CloseReason::Closed => 3,
        CloseReason::Silent => 4,
    }
}

/// What was being handled when a view was left or began.
fn cause(first: u64, second: u64) -> String {
    let timer = usize::try_from(second).ok().and_then(|at| TIMERS.get(at));
    match (first, timer) {
        (1, Some(timer)) => format!("on the timer of {timer}"),
        (2, _) => "on a message".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_the_same_after_it_was_words_and_what_is_none_is_refused() {
        let peers = [
            None,
            Some(Peer::Replica(NodeId::new(u16::MAX))),
            Some(Peer::Client(ClientId::new(u32::MAX))),
        ];
        for (kind, peer) in FlightKind::ALL
            .iter()
            .flat_map(|kind| peers.map(|peer| (*kind, peer)))
        {
            let mut event = FlightEvent::of(kind)
                .with(peer)
                .view(View::new(7))
                .seq(SeqNo::new(u64::MAX))
                .numbers(1, u64::MAX);
            (event.number, event.at) = (3, Time::from_nanos(9));
            assert_eq!(FlightEvent::of_words(event.to_words()), Some(event));
            assert_eq!(event.kind(), Some(kind));
            // Whatever the numbers are, there are words for them.
            for first in [0, 5, 300, u64::MAX] {
                event.numbers[0] = first;
                drop(event.words());
            }
        }
        for head in [1 | 3 << 8, 1 | 1 << 16, 1 | 1 << 8 | 1 << 48, 1 | 1 << 32] {
            assert_eq!(FlightEvent::of_words([0, 0, head, 0, 0, 0, 0]), None, "{head:x}");
        }
    }

    #[test]
    fn kinds_have_names_and_numbers_of_their_own() {
        let mut words: Vec<&str> = FlightKind::ALL.iter().map(|kind| kind.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), FlightKind::ALL.len());
        for kind in FlightKind::ALL {
            assert_eq!(FlightKind::of_code(*kind as u8), Some(*kind));
        }
        for timer in Timer::ALL {
            let event = FlightEvent::of(FlightKind::Timer).numbers(timer_code(timer), 0);
            let name = format!("{timer:?}").to_lowercase();
            assert_eq!(event.words().replace(' ', ""), name);
        }
    }
}
