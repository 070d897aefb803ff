use crate::smr::messages::{Envelope, EnvelopeError, Kind};
use crate::smr::types::{ClientId, ClusterId, Epoch, NodeId, Peer};

/// Who takes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Consensus: a replica's message without frames.
    Consensus(NodeId),
    /// Preprocessing: a replica's message with frames.
    Frames(NodeId),
    /// Preprocessing: a client's frame, after the envelope.
    Request(ClientId),
    /// The host itself: an operator asks how it is.
    Question(ClientId),
    /// The host itself: something about the link.
    Link,
    /// Consensus: a replica's message about epochs, of whatever epoch it is.
    Reconfiguration(NodeId),
    /// Consensus: a replica speaks in another epoch, and nothing that it says is looked at.
    OtherEpoch(NodeId, Epoch),
}

/// Why nobody takes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// It is no message of this cluster.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Its sender may not say such things.
    #[error("a message of a kind that its sender may not send")]
    Kind,
}

/// Who takes the message that came on the link with `from`.
///
/// # Errors
/// When nobody does: its sender broke the protocol.
pub fn route(message: &[u8], from: Peer, (cluster, epoch): (ClusterId, Epoch)) -> Result<Route, Unroutable> {
    let envelope = Envelope::open_in_any_epoch(message, cluster)?;
    let is_ours = envelope.epoch == epoch;
    match (from, envelope.kind) {
        (Peer::Replica(node), Kind::Reconfiguration) => Ok(Route::Reconfiguration(node)),
        // Who speaks on a link, and clients that have not heard of this epoch.
        (_, Kind::Link) => Ok(Route::Link),
        (Peer::Client(client), Kind::Request) => Ok(Route::Request(client)),
        (Peer::Client(client), Kind::Admin) => Ok(Route::Question(client)),
        (Peer::Replica(node), Kind::System | Kind::Transfer) if is_ours => Ok(Route::Consensus(node)),
        (Peer::Replica(node), Kind::SystemWithFrames | Kind::TransferWithFrames) if is_ours => {
            Ok(Route::Frames(node))
        }
        (
            Peer::Replica(node),
            Kind::System | Kind::Transfer | Kind::SystemWithFrames | Kind::TransferWithFrames,
        ) => Ok(Route::OtherEpoch(node, envelope.epoch)),
        _ => Err(Unroutable::Kind),
    }
}
