use crate::smr::types::{ClientId, SeqNo};

/// Where ordering stands, for the status that peers get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderingProgress {
    /// The last stable checkpoint.
    pub stable: SeqNo,
    /// The last decision.
    pub decided: SeqNo,
    /// Whether nothing was decided since the last status.
    pub asks: bool,
    /// What is there of the places after `decided`; see [`PlaceStatus`](crate::smr::messages::PlaceStatus).
    pub places: Vec<u8>,
    /// Clients whose MACs failed here in a proposal.
    pub disputed: Vec<ClientId>,
}
