use std::time::Instant;

use crate::smr::replica::TransferPhase;
use crate::smr::state_transfer::StateTransferState;
use crate::smr::types::SeqNo;

/// How far a state is that comes from other replicas, and how fast it comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransferProgress {
    /// The checkpoint.
    pub seq: SeqNo,
    /// Pieces that are here.
    pub pieces: usize,
    /// Pieces there are.
    pub of: usize,
    /// Bytes received.
    pub bytes: u64,
    /// Replicas that send them.
    pub donors: usize,
    /// Bytes a second, since it began.
    pub bytes_per_second: f64,
    /// How long the rest takes at that rate, in seconds; `None` while nothing has come.
    pub seconds_left: Option<f64>,
}

impl std::fmt::Display for TransferProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "receiving the state at {}: {} of {} pieces, {} MiB, from {} donors, {:.1} MiB/s",
            self.seq,
            self.pieces,
            self.of,
            self.bytes >> 20,
            self.donors,
            self.bytes_per_second / f64::from(1 << 20),
        )?;
        match self.seconds_left {
            Some(left) => write!(f, ", {left:.0} s left"),
            None => Ok(()),
        }
    }
}

/// What a transfer began with: those pieces were found on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    seq: SeqNo,
    at: Instant,
    pieces: usize,
}

impl Begin {
    /// The beginning of the transfer that runs, which may be the one that ran before.
    pub fn of(transfer: TransferPhase, before: Option<Self>, now: Instant) -> Option<Self> {
        let TransferPhase::RunningTransferProtocols { state_transfer, .. } = transfer else {
            return None;
        };
        match state_transfer {
            StateTransferState::Receiving { seq, pieces, .. } => before
                .filter(|before| before.seq == seq)
                .or(Some(Self { seq, at: now, pieces })),
            _ => None,
        }
    }

    pub fn progress(&self, transfer: TransferPhase, now: Instant) -> Option<TransferProgress> {
        let TransferPhase::RunningTransferProtocols {
            state_transfer:
                StateTransferState::Receiving {
                    seq,
                    pieces,
                    of,
                    bytes,
                    donors,
                },
            ..
        } = transfer
        else {
            return None;
        };
        let seconds = now.saturating_duration_since(self.at).as_secs_f64().max(1e-3);
        let came = pieces.saturating_sub(self.pieces);
        Some(TransferProgress {
            seq,
            pieces,
            of,
            bytes,
            donors,
            bytes_per_second: bytes as f64 / seconds,
            seconds_left: (came > 0).then(|| (of - pieces) as f64 * seconds / came as f64),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::smr::log_transfer::LogTransferState;

    fn receiving(seq: u64, pieces: usize, bytes: u64) -> TransferPhase {
        TransferPhase::RunningTransferProtocols {
            state_transfer: StateTransferState::Receiving {
                seq: SeqNo::new(seq),
                pieces,
                of: 100,
                bytes,
                donors: 3,
            },
            log_transfer: LogTransferState::Idle,
        }
    }

    #[test]
    fn rate_and_time_left_count_from_the_beginning_of_this_transfer() {
        let now = Instant::now();
        let begin = Begin::of(receiving(7, 20, 0), None, now);
        let later = now + Duration::from_secs(2);
        let begin = Begin::of(receiving(7, 60, 4 << 20), begin, later).unwrap();
        let progress = begin.progress(receiving(7, 60, 4 << 20), later).unwrap();
        assert_eq!(progress.bytes_per_second, f64::from(2 << 20));
        assert_eq!(
            progress.seconds_left,
            Some(2.0),
            "20 pieces a second, those found on disk aside"
        );
        assert_eq!(
            progress.to_string(),
            "receiving the state at 7: 60 of 100 pieces, 4 MiB, from 3 donors, 2.0 MiB/s, 2 s left"
        );
        let other = Begin::of(receiving(8, 5, 0), Some(begin), later).unwrap();
        let progress = other.progress(receiving(8, 5, 0), later).unwrap();
        assert_eq!(progress.seconds_left, None, "nothing of it has come yet");
        assert!(Begin::of(TransferPhase::NotRunning, Some(other), later).is_none());
    }
}
