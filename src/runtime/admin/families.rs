//! Which counter belongs to which metric.

use prometheus_client::metrics::MetricType;

/// A metric made of counters: one, or several that differ in their labels.
pub(super) struct Family {
    /// Without `atlas_` before it, and `_total` after.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricType,
    pub labels: &'static [&'static str],
    /// Each counter, and what its labels are.
    pub members: &'static [(&'static str, &'static [&'static str])],
}

/// Declares a counter that has its own name as a metric.
macro_rules! plain {
    ($name:literal, $help:literal) => {
        Family {
            name: $name,
            help: $help,
            kind: MetricType::Counter,
            labels: &[],
            members: &[($name, &[])],
        }
    };
}

const fn family(
    kind: MetricType,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    members: &'static [(&'static str, &'static [&'static str])],
) -> Family {
    Family {
        name,
        help,
        kind,
        labels,
        members,
    }
}

/// The labels of [refusals](super::names::REFUSALS).
pub(super) const REFUSAL_LABELS: &[&str] = &["of", "reason"];

pub(super) const REFUSALS_HELP: &str = "What was refused: what it was, and why.";

/// Refusals that a plain counter counts: it, of what, and why.
pub(super) const SIMPLE_REFUSALS: &[(&str, &str, &str)] = &[
    ("messages_refused", "message", "unsound"),
    ("frames_refused_by_pool", "frame", "pool"),
    ("batches_refused", "batch", "unsound"),
    ("batches_refused_over_budget", "batch", "over_budget"),
    ("chunks_refused", "chunk", "unsound"),
    ("reads_refused", "read", "may_go_back"),
    ("reads_over_quota", "read", "over_quota"),
    ("resends_refused", "resend", "over_quota"),
    ("questions_refused", "question", "over_quota"),
];

/// Everything else that is counted.
pub(super) const FAMILIES: &[Family] = &[
    plain!("operations_executed", "Operations executed."),
    plain!("decisions", "Decisions given to execution."),
    plain!(
        "protocol_messages",
        "Messages of other replicas that the protocols took: proposals, votes, and all else."
    ),
    plain!("batches_proposed", "Batches this replica proposed."),
    plain!("votes_cast", "Prepares and commits this replica cast."),
    plain!("frames_queued", "Client frames taken into the pool."),
    plain!("frames_duplicate", "Client frames that were waiting already."),
    plain!("frames_forwarded", "Client frames passed on to the leader."),
    plain!(
        "frames_crowded_out",
        "Client frames that made room for lower ones of their clients."
    ),
    plain!(
        "frames_urged",
        "Client frames that waited long and were passed on to the leader once more."
    ),
    plain!("frames_disputed", "Frames proposed whose MACs failed here."),
    plain!(
        "signatures_required",
        "Clients that had to sign from then on, for a while."
    ),
    plain!(
        "proofs_asked",
        "Clients asked for a signature that can be held against the leader."
    ),
    plain!("view_changes", "Views this replica left, asking for another."),
    plain!("views_entered", "Views that began here."),
    plain!("checkpoints_stable", "Checkpoints that became stable."),
    plain!("divergences", "Own checkpoints that a quorum's contradicted."),
    plain!(
        "messages_backpressured",
        "Replicas' messages not listened to because too much waited for the disk."
    ),
    plain!("log_transfers", "Transfers of decisions begun."),
    plain!(
        "decisions_transferred",
        "Decisions that came by transfers of decisions."
    ),
    plain!(
        "decisions_repaired",
        "Decisions that the own log did not give back, and peers did."
    ),
    plain!("states_transferred", "States installed that came from others."),
    plain!(
        "pieces_reused",
        "Pieces of states that were taken out of own snapshots."
    ),
    plain!("log_syncs", "Groups of records that reached the disk."),
    plain!("application_panics", "Operations of applications that panicked."),
    plain!(
        "executions_repeated",
        "Executions that were of no use and repeated, of the speculative executor."
    ),
    plain!("shard_turns", "Turns of data shards."),
    plain!("shard_parks", "Times a data shard went to sleep."),
    plain!(
        "peers_running_twice",
        "Times another replica was found to run twice, with one identity."
    ),
    plain!(
        "identity_used_twice",
        "Times another replica said that a second process runs with this one's identity."
    ),
    plain!("admin_requests", "Requests that the admin endpoint answered."),
    plain!(
        "admin_requests_refused",
        "Requests that it refused, or that did not come in time."
    ),
    plain!(
        "admin_failures",
        "What went wrong with the admin endpoint itself."
    ),
    family(
        MetricType::Counter,
        "messages_received",
        "Messages received, by whom from.",
        &["peer"],
        &[
            ("messages_from_replicas", &["replica"]),
            ("messages_from_clients", &["client"]),
        ],
    ),
    family(
        MetricType::Counter,
        "messages_dropped",
        "Messages that were not sent: what they were, and why.",
        &["of", "reason"],
        &[
            ("messages_unsent", &["message", "no_link"]),
            ("replies_unsent", &["reply", "no_link"]),
            ("replies_dropped", &["reply", "slow_peer"]),
            ("forwards_dropped", &["forward", "slow_peer"]),
            ("transfers_dropped", &["transfer", "slow_peer"]),
        ],
    ),
    family(
        MetricType::Counter,
        "links_opened",
        "Links that came up, by whom with.",
        &["peer"],
        &[
            ("replica_links_up", &["replica"]),
            ("client_links_up", &["client"]),
        ],
    ),
    family(
        MetricType::Counter,
        "links_closed",
        "Links that ended, by whom with.",
        &["peer"],
        &[
            ("replica_links_down", &["replica"]),
            ("client_links_down", &["client"]),
        ],
    ),
    family(
        MetricType::Counter,
        "links_cut",
        "Links that this replica ended, by the reason.",
        &["reason"],
        &[
            ("links_closed_slow", &["slow"]),
            ("links_closed_silent", &["silent"]),
        ],
    ),
    family(
        MetricType::Gauge,
        "disk_bytes",
        "Bytes on disk, by what they are of.",
        &["owner"],
        &[("log_bytes", &["log"]), ("snapshot_bytes", &["snapshot"])],
    ),
    family(
        MetricType::Gauge,
        "log_waits_for_space",
        "1 while nothing is logged, hence nothing voted: the disk or the log's budget is full; else 0.",
        &[],
        &[("log_waits_for_space", &[])],
    ),
];
