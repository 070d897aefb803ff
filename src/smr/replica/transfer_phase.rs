//! What can be told of the transfers that run.

use crate::smr::log_transfer::LogTransferState;
use crate::smr::state_transfer::StateTransferState;

/// Whether state and decisions are being transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferPhase {
    /// Nothing is.
    NotRunning,
    /// At least one of both is.
    RunningTransferProtocols {
        /// How far the state is.
        state_transfer: StateTransferState,
        /// How far the decisions are.
        log_transfer: LogTransferState,
    },
}

impl TransferPhase {
    /// A number that changes when another step begins.
    #[must_use]
    pub fn stage(&self) -> u8 {
        let Self::RunningTransferProtocols { state_transfer, .. } = self else {
            return 0;
        };
        match state_transfer {
            StateTransferState::Idle => 1,
            StateTransferState::Asking => 2,
            StateTransferState::Opening { .. } => 3,
            StateTransferState::Receiving { .. } => 4,
            StateTransferState::Installing { .. } => 5,
        }
    }

    /// How many tenths of a state's pieces have come.
    #[must_use]
    pub fn tenth(&self) -> usize {
        match self {
            Self::RunningTransferProtocols {
                state_transfer: StateTransferState::Receiving { pieces, of, .. },
                ..
            } => 10 * pieces / (*of).max(1),
            _ => 0,
        }
    }
}

impl std::fmt::Display for TransferPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::RunningTransferProtocols {
            state_transfer,
            log_transfer,
        } = self
        else {
            return f.write_str("no transfer");
        };
        match state_transfer {
            StateTransferState::Idle => {}
            StateTransferState::Asking => f.write_str("looking for a checkpoint of others")?,
            StateTransferState::Opening { seq } => write!(f, "opening the checkpoint at {seq}")?,
            StateTransferState::Receiving {
                seq,
                pieces,
                of,
                bytes,
                donors,
            } => write!(
                f,
                "receiving the state at {seq}: {pieces} of {of} pieces, {} MiB, from {donors} donors",
                bytes >> 20
            )?,
            StateTransferState::Installing { seq } => write!(f, "installing the state at {seq}")?,
        }
        match (state_transfer, log_transfer) {
            (StateTransferState::Idle, LogTransferState::Running { delivered, settled }) => {
                write!(f, "receiving decisions: {delivered} of {settled}")
            }
            (_, LogTransferState::Running { delivered, settled }) => {
                write!(f, "; decisions: {delivered} of {settled}")
            }
            (_, LogTransferState::Idle | LogTransferState::OutOfReach { .. }) => Ok(()),
        }
    }
}
