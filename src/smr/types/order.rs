use std::fmt;

use super::NodeId;

/// Declares an ordered counter with named operations only.
macro_rules! counter {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The value before the first one.
            pub const ZERO: Self = Self(0);

            /// The value with this number, as read from a message or a file.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number as written in messages and files.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The value after this one. Saturates: 2^64 is never reached by counting.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The value `distance` after this one, saturating.
            #[must_use]
            pub const fn plus(self, distance: u64) -> Self {
                Self(self.0.saturating_add(distance))
            }

            /// The value `distance` before this one, not below zero.
            #[must_use]
            pub const fn minus(self, distance: u64) -> Self {
                Self(self.0.saturating_sub(distance))
            }

            /// How far this value lies after `earlier`; zero if it does not.
            #[must_use]
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

counter!(
    /// The place of a decision in the one order all replicas agree on. The first decision is `1`;
    /// [`SeqNo::ZERO`] stands for the state before it.
    SeqNo,
    "s"
);
counter!(
    /// A leader's term. The first view is [`View::ZERO`].
    View,
    "v"
);
counter!(
    /// A membership of the cluster; it changes by reconfiguration only.
    Epoch,
    "e"
);
counter!(
    /// The ordinal of a record in the persistent log, counted since its creation.
    Lsn,
    "l"
);

/// Which of a client's frames: the session it belongs to, and its number there. Larger is later within a
/// session; sessions of one client run beside one another.
///
/// A session is one process that uses the client's identity. Neither half comes from a clock: the cluster
/// tells a client which sessions there were, and frames are counted from one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameSeq {
    session: u64,
    number: u64,
}

impl FrameSeq {
    /// The frame with this number in session 0.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self::of(0, number)
    }

    /// The frame with this number in a session.
    #[must_use]
    pub const fn of(session: u64, number: u64) -> Self {
        Self { session, number }
    }

    /// The session.
    #[must_use]
    pub const fn session(self) -> u64 {
        self.session
    }

    /// The number within the session.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.number
    }
}

impl fmt::Display for FrameSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.number)
    }
}

impl fmt::Debug for FrameSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "q{self}")
    }
}

impl View {
    /// Whose turn it is in this view if `n` replicas take turns: view mod n.
    #[must_use]
    pub fn turn(self, n: usize) -> NodeId {
        debug_assert!(n > 0);
        NodeId::new((self.0 % n as u64) as u16)
    }
}
