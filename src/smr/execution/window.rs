use crate::smr::mutants::{Mutant, active};
use crate::smr::types::FrameSeq;

/// How many frames of one session may be under way: frames more than this below the session's newest are
/// never executed any more.
pub const CLIENT_WINDOW: u64 = 64;

/// What a window knows of a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStatus {
    /// Never recorded: may be executed.
    Fresh,
    /// Recorded before.
    Executed,
    /// Too old to tell: counts as executed or abandoned.
    Stale,
    /// Of a session that is over, or can be none: what of it was not executed never is.
    Ended,
}

/// Which frames of one session were executed: the highest number, and one bit for each of the
/// [`CLIENT_WINDOW`] numbers up to it (the anti-replay window of RFC 4303, section 3.4.3). Gaps are allowed:
/// a client that gives a frame up never blocks its later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceWindow {
    highest: u64,
    /// Bit i stands for `highest - i`.
    bitmap: u64,
}

impl SequenceWindow {
    /// Whether a frame may be executed.
    #[must_use]
    pub fn check(&self, sequence: FrameSeq) -> FrameStatus {
        let sequence = sequence.number();
        if sequence > self.highest {
            return FrameStatus::Fresh;
        }
        match self.highest - sequence {
            age if age >= CLIENT_WINDOW => FrameStatus::Stale,
            age if self.bitmap & (1 << age) != 0 => FrameStatus::Executed,
            _ => FrameStatus::Fresh,
        }
    }

    /// Records a frame as executed; what falls out of the window below becomes stale.
    pub fn record(&mut self, sequence: FrameSeq) {
        let sequence = sequence.number();
        if sequence > self.highest {
            let step = sequence - self.highest;
            self.bitmap = if step >= CLIENT_WINDOW {
                0
            } else {
                self.bitmap << step
            };
            self.bitmap |= 1;
            self.highest = sequence;
        } else if self.highest - sequence < CLIENT_WINDOW && !active(Mutant::GapsForgotten) {
            self.bitmap |= 1 << (self.highest - sequence);
        }
    }

    /// The number of the newest frame recorded.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The window whose [bytes](Self::to_bytes) these are.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let (halves, _) = bytes.as_chunks::<8>();
        Self {
            highest: u64::from_le_bytes(halves[0]),
            bitmap: u64::from_le_bytes(halves[1]),
        }
    }

    /// The window as bytes, for digests and snapshots.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.highest.to_le_bytes());
        bytes[8..].copy_from_slice(&self.bitmap.to_le_bytes());
        bytes
    }
}
