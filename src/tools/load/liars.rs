//! The simulator's liars over real links: what `atlas demo --byzantine` puts into one of its replicas.

use std::time::Duration;

use bytes::Bytes;

use crate::runtime::config::Agreement;
use crate::runtime::shard::faults::Interceptor;
use crate::sim::{ByzantineStrategy, Liar, Sent, SimConfig, SimRng};
use crate::smr::types::{ClusterId, NodeId};

/// Lies to other replicas, in the cluster it is put into.
struct OverLinks(Liar);

/// The lie told by a replica of a real cluster.
pub(super) fn over_links(
    lie: ByzantineStrategy,
    node: NodeId,
    n: usize,
    cluster: ClusterId,
) -> Box<dyn Interceptor> {
    let mut config = SimConfig::calm(n, 1);
    let limits = &mut config.limits;
    let usual = Agreement::default();
    (limits.frame_bytes_max, limits.batch_bytes_max) = (usual.frame_bytes_max, usual.batch_bytes_max);
    limits.batch_frames_max = usual.batch_frames_max;
    let liar = Liar::new(node, &[lie], &config, SimRng::new(42));
    Box::new(OverLinks(liar.in_cluster(cluster)))
}

impl Interceptor for OverLinks {
    fn say(&mut self, to: NodeId, message: &Bytes) -> Vec<(NodeId, Bytes, Duration)> {
        said(self.0.send(to, message.clone()))
    }

    fn hear(&mut self, message: &Bytes) -> Vec<(NodeId, Bytes, Duration)> {
        said(self.0.hear(message))
    }
}

fn said(sent: Vec<Sent>) -> Vec<(NodeId, Bytes, Duration)> {
    sent.into_iter()
        .map(|sent| (sent.to, sent.message, sent.later))
        .collect()
}
