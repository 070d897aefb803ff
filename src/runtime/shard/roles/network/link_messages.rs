//! What peers say of the link itself, and what operators ask: answered here, and given to no other role.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::NetworkRole;
use crate::runtime::evidence::EvidenceKind;
use crate::runtime::metrics::count;
use crate::runtime::shard::network_node::SmrReplicaNetworkNode;
use crate::runtime::shard::wires::WireId;
use crate::smr::messages::archived::{ArchivedAdminRequest, ArchivedLinkMessage};
use crate::smr::messages::{AdminRequest, Checked, Envelope, Kind, LinkMessage, encode};
use crate::smr::protocol::{Allowance, Rate};
use crate::smr::types::{ClientId, NodeId, Peer};

/// Questions of operators that are answered: each costs as much as a hundred frames.
const QUESTIONS: Rate = Rate {
    burst: 32,
    per_second: 16,
};

impl<N: SmrReplicaNetworkNode> NetworkRole<N> {
    /// An operator asks how this replica is; false when it is no question.
    pub(super) fn on_question(&mut self, id: WireId, client: ClientId, message: &Bytes) -> bool {
        let Ok(request) = Checked::<AdminRequest>::body_of(message) else {
            return false;
        };
        let ArchivedAdminRequest::Status = &*request;
        let left = self.questions.entry(client);
        if !left.or_insert(Allowance::full(QUESTIONS)).take(self.now, 1) {
            count(&self.metrics.counters.questions_refused);
            return true;
        }
        let envelope = Envelope::new(Kind::Admin, self.cluster, self.epoch);
        let _ = self
            .node
            .send_application(id, encode(envelope, &self.metrics.status(), 4096));
        true
    }

    /// What a peer says of the link itself; false when it may not say that.
    pub(super) fn on_link_message(&mut self, id: WireId, peer: Peer, message: &Bytes) -> bool {
        let Ok(message) = Checked::<LinkMessage>::body_of(message) else {
            return false;
        };
        match (&*message, peer) {
            (ArchivedLinkMessage::Goodbye | ArchivedLinkMessage::Ping, _) => {}
            (ArchivedLinkMessage::Session(session), Peer::Client(client)) => {
                self.serve_session(client, id, session.to_native());
            }
            (ArchivedLinkMessage::Instance(start), Peer::Replica(from)) => {
                if self.starts[from.index()].on_link(start.to_native()) {
                    self.on_twin(id, from);
                }
            }
            (ArchivedLinkMessage::Twin, Peer::Replica(from)) => {
                let told = &self.metrics.counters.identity_used_twice;
                if is_worth_a_line(told.fetch_add(1, Ordering::Relaxed)) {
                    tracing::error!(
                        told_by = %from,
                        "ANOTHER PROCESS RUNS WITH THIS REPLICA'S IDENTITY, a copy of its host perhaps: together they count as a faulty \
                         replica. Stop one of them"
                    );
                }
            }
            (ArchivedLinkMessage::Session(_), Peer::Replica(_))
            | (ArchivedLinkMessage::Instance(_) | ArchivedLinkMessage::Twin, Peer::Client(_)) => {
                return false;
            }
        }
        true
    }

    /// Says at both ends that two processes take turns in being this replica.
    fn on_twin(&mut self, id: WireId, node: NodeId) {
        self.refused(Peer::Replica(node), EvidenceKind::RunsTwice, None);
        let found = &self.metrics.counters.peers_running_twice;
        if is_worth_a_line(found.fetch_add(1, Ordering::Relaxed)) {
            tracing::error!(%node, "this replica runs twice, in two processes with one identity: stop one of them");
        }
        let envelope = Envelope::new(Kind::Link, self.cluster, self.epoch);
        let _ = self
            .node
            .send_reconfiguration(id, encode(envelope, &LinkMessage::Twin, 8));
    }
}

/// Whether something that happened so often before is told: the first times, and then ever more seldom.
fn is_worth_a_line(before: u64) -> bool {
    (before + 1).is_power_of_two()
}
