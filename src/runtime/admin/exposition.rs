//! What the replica's numbers are called, and their text. The numbers stay where the shards write them, and
//! are read when somebody asks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::families::{FAMILIES, Family, REFUSAL_LABELS, REFUSALS_HELP, SIMPLE_REFUSALS};
use super::subject::{Subject, Unready};
use super::{measured, process};
use crate::runtime::config::RoleKind;
use crate::runtime::metrics::{Histogram, HistogramCounts, ReplicaStatus, TransferProgress, TurnTimes};
use crate::smr::replica::ExecutionPhase;

/// Everything there is to say about a replica, each sample with its `node`.
pub(super) fn registry(subject: Arc<Subject>) -> Registry {
    let node = subject.metrics.node.to_string();
    let labels = std::iter::once((Cow::from("node"), Cow::from(node)));
    let mut registry = Registry::with_prefix_and_labels("atlas", labels);
    registry.register_collector(Box::new(Numbers(subject)));
    registry
}

/// The counters as they were at one moment, by name.
type Counted = BTreeMap<&'static str, u64>;

fn value_of(counted: &Counted, name: &str) -> u64 {
    counted.get(name).copied().unwrap_or_default()
}

#[derive(Debug)]
struct Numbers(Arc<Subject>);

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut text = Text(encoder);
        let mut counted = Counted::new();
        self.0.metrics.visit_counters(|name, value| {
            counted.insert(name, value);
        });
        for family in FAMILIES {
            text.family(family, &counted)?;
        }
        self.refusals(&mut text, &counted)?;
        self.standing(&mut text)?;
        self.health(&mut text)?;
        self.turns(&mut text)?;
        if let Some(disk) = &self.0.disk {
            disk.describe(&mut text)?;
        }
        measured::describe(&mut text, &self.0.metrics)?;
        process::describe(&mut text)
    }
}

impl Numbers {
    fn refusals(&self, text: &mut Text<'_>, counted: &Counted) -> fmt::Result {
        let mut family = text.describe("refusals", REFUSALS_HELP, MetricType::Counter)?;
        let mut write = |of: &str, reason: &str, value: u64| {
            let values = [of, reason];
            sample(&mut family, REFUSAL_LABELS, &values, &ConstCounter::new(value))
        };
        for (counter, of, reason) in SIMPLE_REFUSALS {
            write(of, reason, value_of(counted, counter))?;
        }
        let mut result = Ok(());
        self.0.metrics.visit_refusals(|of, name, value| {
            let reason = ["_refused_", "rejected_"].iter().find_map(|mark| {
                let (_, reason) = name.split_once(mark)?;
                Some(reason)
            });
            result = result.and_then(|()| write(of, reason.unwrap_or(name), value));
        });
        result
    }

    /// Where the replica stands.
    fn standing(&self, text: &mut Text<'_>) -> fmt::Result {
        let standing = self.0.metrics.standing();
        text.gauge(
            "epoch",
            "The epoch of its membership.",
            self.0.metrics.epoch().get(),
        )?;
        text.gauge("view", "Its view.", standing.view.get())?;
        for (name, help, seq) in [
            ("ordered_seq", "The last decision it ordered.", standing.ordered),
            (
                "durable_seq",
                "The last decision up to which all that it promised is on disk.",
                standing.durable,
            ),
            (
                "executed_seq",
                "The last decision it executed.",
                standing.executed,
            ),
            ("stable_seq", "Its last stable checkpoint.", standing.stable),
        ] {
            text.gauge(name, help, seq.get())?;
        }
        let orders = standing.execution == ExecutionPhase::OrderProtocol;
        text.gauge(
            "in_view",
            "1 while it is in a view, 0 between two.",
            u64::from(orders),
        )?;
        self.links(text, &standing)?;
        transfer(text, standing.progress)
    }

    fn links(&self, text: &mut Text<'_>, standing: &ReplicaStatus) -> fmt::Result {
        let mut family = text.describe("links", "Links that are up, by whom with.", MetricType::Gauge)?;
        for (peer, links) in [
            ("replica", standing.replica_links),
            ("client", standing.client_links),
        ] {
            sample(&mut family, &["peer"], &[peer], &ConstGauge::new(links))?;
        }
        text.gauge(
            "links_needed",
            "Links with other replicas that make a quorum.",
            self.0.links_needed(),
        )
    }

    /// How long turns of shards take, and each role's part of them.
    fn turns(&self, text: &mut Text<'_>) -> fmt::Result {
        let shards = self.0.metrics.turn_times();
        if shards.is_empty() {
            return Ok(());
        }
        let help = "A turn of a data shard, of one of 64 in which there was something to do.";
        text.durations("shard_turn_seconds", help, shards, |times| Some(times.turn()))?;
        for (role, name, help) in ROLE_TURNS {
            text.durations(name, help, shards, |times| times.of_role(role))?;
        }
        Ok(())
    }

    /// Whether it does its part.
    fn health(&self, text: &mut Text<'_>) -> fmt::Result {
        let reasons = self.0.unready();
        text.gauge(
            "ready",
            "1 while it does its part, as /readyz says it.",
            u64::from(reasons.is_empty()),
        )?;
        let help = "1 for each reason why it does not do its part right now, else 0.";
        let mut family = text.describe("unready", help, MetricType::Gauge)?;
        for reason in Unready::ALL {
            let is_so = reasons.iter().any(|(own, _)| *own == reason);
            let value = ConstGauge::new(u64::from(is_so));
            sample(&mut family, &["reason"], &[reason.name()], &value)?;
        }
        let help = "How long ago each thread gave its last sign of life; it should be about a second.";
        let mut family = text.describe("thread_silence_seconds", help, MetricType::Gauge)?;
        for (thread, silence) in self.0.vitals.silences() {
            let value = ConstGauge::new(silence.as_secs_f64());
            sample(&mut family, &["thread"], &[thread], &value)?;
        }
        Ok(())
    }
}

/// What each role's part of a turn is called.
const ROLE_TURNS: [(RoleKind, &str, &str); 5] = [
    (
        RoleKind::Network,
        "network_turn_seconds",
        "What serving links had of a turn of its shard, of one of 64.",
    ),
    (
        RoleKind::Preprocess,
        "preprocess_turn_seconds",
        "What checking client frames had of a turn of its shard, of one of 64.",
    ),
    (
        RoleKind::Consensus,
        "consensus_turn_seconds",
        "What ordering had of a turn of its shard, of one of 64.",
    ),
    (
        RoleKind::Execution,
        "execution_turn_seconds",
        "What execution had of a turn of its shard, of one of 64.",
    ),
    (
        RoleKind::Log,
        "log_turn_seconds",
        "What the log had of a turn of its shard, of one of 64; the disk writes meanwhile.",
    ),
];

/// A state on its way to the replica; all zero while none is.
fn transfer(text: &mut Text<'_>, progress: Option<TransferProgress>) -> fmt::Result {
    let number = |of: fn(&TransferProgress) -> u64| progress.as_ref().map_or(0, of);
    for (name, help, value) in [
        (
            "transfer_pieces",
            "Pieces that are here of a state that comes from others; 0 while none comes.",
            number(|progress| progress.pieces as u64),
        ),
        (
            "transfer_pieces_expected",
            "Pieces that it has.",
            number(|progress| progress.of as u64),
        ),
        (
            "transfer_bytes",
            "Bytes received of it.",
            number(|progress| progress.bytes),
        ),
        (
            "transfer_donors",
            "Replicas that send it.",
            number(|progress| progress.donors as u64),
        ),
    ] {
        text.gauge(name, help, value)?;
    }
    Ok(())
}

/// The text as far as it is written.
pub(super) struct Text<'a>(DescriptorEncoder<'a>);

impl Text<'_> {
    /// Begins a metric.
    pub fn describe(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// A gauge without labels of its own.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) -> fmt::Result {
        let mut gauge = self.describe(name, help, MetricType::Gauge)?;
        sample(&mut gauge, &[], &[], &ConstGauge::new(value))
    }

    /// A histogram with a row for each shard that has one.
    fn durations<'s>(
        &mut self,
        name: &'static str,
        help: &'static str,
        shards: &'s [Arc<TurnTimes>],
        of: impl Fn(&'s TurnTimes) -> Option<&'s Histogram>,
    ) -> fmt::Result {
        let rows = shards.iter().enumerate();
        let rows = rows.filter_map(|(shard, times)| Some((shard.to_string(), of(times)?.read())));
        let rows: Vec<(String, HistogramCounts)> = rows.collect();
        if rows.is_empty() {
            // No shard has the role: the log, where nothing is kept.
            return Ok(());
        }
        self.histogram(name, help, "shard", rows)
    }

    /// A histogram with a row for each value of a label; of the empty one, without it.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &str,
        rows: impl IntoIterator<Item = (String, HistogramCounts)>,
    ) -> fmt::Result {
        let mut histogram = self.describe(name, help, MetricType::Histogram)?;
        for (value, counts) in rows {
            let HistogramCounts { count, sum, buckets } = counts;
            let labels = [(label, value.as_str())];
            let labels = if label.is_empty() { &[] } else { &labels[..] };
            let mut row = histogram.encode_family(&labels)?;
            row.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn family(&mut self, family: &Family, counted: &Counted) -> fmt::Result {
        let mut encoder = self.describe(family.name, family.help, family.kind)?;
        for (counter, values) in family.members {
            let value = value_of(counted, counter);
            match family.kind {
                MetricType::Counter => {
                    sample(&mut encoder, family.labels, values, &ConstCounter::new(value))?;
                }
                _ => sample(&mut encoder, family.labels, values, &ConstGauge::new(value))?,
            }
        }
        Ok(())
    }
}

/// One number of a metric, with these labels.
pub(super) fn sample(
    metric: &mut MetricEncoder<'_>,
    labels: &[&str],
    values: &[&str],
    number: &impl EncodeMetric,
) -> fmt::Result {
    let labels: Vec<(&str, &str)> = labels.iter().copied().zip(values.iter().copied()).collect();
    number.encode(metric.encode_family(&labels)?)
}
