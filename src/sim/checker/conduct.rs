use super::{Broken, Rule};
use crate::smr::messages::BatchError;
use crate::smr::node::Unroutable;
use crate::smr::preprocessing::{FrameRefusal, PeerRefusal};
use crate::smr::protocol::{Rejected, Rejection};
use crate::smr::types::NodeId;

/// Something of another replica that one refused.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) enum Refusal {
    /// A message, at its envelope or its kind.
    Unroutable(Unroutable),
    /// A message that is no sound archive.
    Archive,
    /// A batch, or a frame that was passed on.
    Frames(PeerRefusal),
    /// Something that breaks a protocol's rule.
    Protocol(Rejected),
    /// A piece of a state.
    Piece,
}

impl Refusal {
    /// Whether two correct replicas may come to this, however the network, the clients and other replicas
    /// behave.
    fn is_innocent(self) -> bool {
        match self {
            // A client may make a frame that convinces one replica and not the next; and who has to sign is
            // known to one before the next. Haste is no lie.
            Self::Frames(PeerRefusal::Frame(refusal)) => matches!(
                refusal,
                FrameRefusal::Mac | FrameRefusal::MustSign | FrameRefusal::OverBudget
            ),
            Self::Frames(PeerRefusal::Batch(refusal)) => matches!(refusal, BatchError::OverBudget(_)),
            // Late, early, or once more.
            Self::Protocol(Rejected { reason, .. }) => matches!(
                reason,
                Rejection::OldView
                    | Rejection::FutureView
                    | Rejection::BelowWindow
                    | Rejection::AboveWindow
                    | Rejection::Duplicate
                    | Rejection::OverBudget
            ),
            Self::Unroutable(_)
            | Self::Archive
            | Self::Piece
            | Self::Frames(PeerRefusal::Archive | PeerRefusal::Message) => false,
        }
    }

    fn why(self) -> String {
        match self {
            Self::Unroutable(error) => error.to_string(),
            Self::Archive => "it is no sound archive".to_owned(),
            Self::Frames(refusal) => format!("{refusal:?}"),
            Self::Protocol(Rejected {
                view, seq, reason, ..
            }) => format!("{reason} ({view}, s{seq})"),
            Self::Piece => "a piece of a state is not what a quorum signed".to_owned(),
        }
    }

    /// A correct replica refuses something that came by the link of another one, which never lied.
    pub(in crate::sim) fn judge(self, by: usize, from: NodeId) -> Result<(), Broken> {
        match self.is_innocent() {
            true => Ok(()),
            false => Err((
                Rule::Conduct,
                format!(
                    "host {by} refuses what {from}, a correct replica, sent: {}",
                    self.why()
                ),
            )),
        }
    }
}
