use std::sync::Arc;

use bytes::Bytes;

use crate::messages::{Proposal, SignedCheckpoint, Vote};
use crate::types::View;

/// What a protocol writes to the persistent log: everything that binds the replica after a restart.
#[derive(Debug, Clone)]
pub enum Record {
    /// A proposal this replica made or accepted, with its batch.
    Proposal(Arc<Proposal>),
    /// A prepare or commit this replica cast.
    Vote(Vote),
    /// A checkpoint this replica signed.
    Checkpoint(SignedCheckpoint),
    /// The view this replica moved to; it votes in no earlier one any more.
    View(View),
    /// The new-view message of a view this replica entered.
    NewView(Bytes),
}
