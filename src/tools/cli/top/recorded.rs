//! What replicas of a cluster under load answered, recorded from real ones.

/// `/status` of replica 0.
pub(super) const STATUS: &str = include_str!("recorded/status.json");
/// Its `/metrics` at the same time.
pub(super) const METRICS: &str = include_str!("recorded/metrics.txt");
