use std::fmt::Arguments;

use super::{Broken, Rule};
use crate::client::reply_record_bytes_max;
use crate::crypto::TAG_BYTES;
use crate::server::link_record_bytes_max;
use crate::sim::Knobs;

/// What a record adds to a message that is alone in it.
const AROUND_BYTES: usize = 4 + TAG_BYTES;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Toward {
    /// From a replica to another.
    Replica,
    /// From a replica to a client.
    Client,
    /// From a client to a replica.
    FromClient,
}

/// What correct parties send fits the links of production: what is longer ends the link, whenever it is sent again.
pub(in crate::sim) struct Lengths {
    replicas: usize,
    from_clients: usize,
    to_clients: usize,
}

impl Lengths {
    pub(in crate::sim) fn new(knobs: &Knobs) -> Self {
        let (replicas, from_clients) = link_record_bytes_max(&knobs.limits);
        Self {
            replicas,
            from_clients,
            to_clients: reply_record_bytes_max(knobs.limits.frame_bytes_max),
        }
    }

    /// Somebody correct sends a message of so many bytes.
    pub(in crate::sim) fn sends(
        &self,
        who: Arguments<'_>,
        toward: Toward,
        bytes: usize,
    ) -> Result<(), Broken> {
        let most = match toward {
            Toward::Replica => self.replicas,
            Toward::Client => self.to_clients,
            Toward::FromClient => self.from_clients,
        };
        match bytes + AROUND_BYTES <= most {
            true => Ok(()),
            false => Err((
                Rule::Lengths,
                format!("{who} sends {bytes} bytes to a {toward:?}, whose link takes records of {most}"),
            )),
        }
    }
}
