use crate::smr::types::{ClientId, NodeId, Quorum, SeqNo, View};

/// Who leads a view: a rule that an ordering protocol has ([`leader_of`]), and that others ask: whoever checks
/// proposals before ordering sees them, and clients.
///
/// [`leader_of`]: crate::smr::ordering::OrderingProtocol::leader_of
pub type LeaderRule = fn(View, Quorum) -> NodeId;

/// Where ordering stands, for the status that peers get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderingProgress {
    /// The last stable checkpoint.
    pub stable: SeqNo,
    /// The last decision.
    pub decided: SeqNo,
    /// Whether nothing was decided since the last status.
    pub asks: bool,
    /// What is there of the places after `decided`; see [`SlotStatus`](crate::smr::messages::SlotStatus).
    pub slots: Vec<u8>,
    /// Clients whose MACs failed here in a proposal.
    pub disputed: Vec<ClientId>,
}
