//! What roles measure beside their turns, and how it is called.

use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::exposition::{Text, sample};
use crate::runtime::metrics::{Backlog, Lane, Measure, Measures, Metrics, PeerMeasures};
use crate::smr::types::{NodeId, Peer};

/// A histogram: its name, what it means, its label if it has several rows, and each row.
type Shown = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, Measure)],
);

const HISTOGRAMS: &[Shown] = &[
    (
        "frame_phase_seconds",
        "How long a client's frame, one of 64, took from the step before; first from its client's link.",
        "phase",
        &[
            ("verified", Measure::FrameVerified),
            ("proposed", Measure::FrameProposed),
        ],
    ),
    (
        "batch_phase_seconds",
        "How long a batch took from the step before, of those whose place is a multiple of 16.",
        "phase",
        &[
            ("verified", Measure::BatchVerified),
            ("proposed", Measure::BatchProposed),
            ("prepared", Measure::BatchPrepared),
            ("committed", Measure::BatchCommitted),
            ("durable", Measure::BatchDurable),
            ("executed", Measure::BatchExecuted),
            ("replied", Measure::BatchReplied),
        ],
    ),
    (
        "request_seconds",
        "From the receipt of a client's frame, one of 64, until its reply is given to its link.",
        "",
        &[("", Measure::Request)],
    ),
    (
        "execution_seconds",
        "From when execution took a batch until it was executed, of those whose place is a multiple of 16.",
        "",
        &[("", Measure::Execution)],
    ),
    (
        "timeout_seconds",
        "What handling the timers took that were due together.",
        "",
        &[("", Measure::Timeouts)],
    ),
    (
        "protocol_response_seconds",
        "What concluding a turn of ordering took, of one of 64: proposals, votes, decisions, handed on.",
        "",
        &[("", Measure::Responses)],
    ),
    (
        "log_sync_seconds",
        "From when a group of records was given to the kernel until it was on disk, as the log saw it.",
        "",
        &[("", Measure::LogSync)],
    ),
    (
        "log_sync_bytes",
        "Bytes written and synced at once.",
        "",
        &[("", Measure::LogSyncBytes)],
    ),
    (
        "batch_frames",
        "Client frames in a decided batch, of those whose place is a multiple of 16.",
        "",
        &[("", Measure::BatchFrames)],
    ),
    (
        "batch_operations",
        "Operations in a decided batch, of those whose place is a multiple of 16.",
        "",
        &[("", Measure::BatchOperations)],
    ),
    (
        "batch_bytes",
        "Bytes of frames in a decided batch, of those whose place is a multiple of 16.",
        "",
        &[("", Measure::BatchBytes)],
    ),
];

pub(super) fn describe(text: &mut Text<'_>, metrics: &Metrics) -> fmt::Result {
    let measures = &metrics.measures;
    for (name, help, label, rows) in HISTOGRAMS {
        let rows = rows.iter();
        let rows = rows.map(|(value, measure)| ((*value).to_owned(), measures.read(*measure)));
        text.histogram(name, help, label, rows)?;
    }
    lanes(text, measures)?;
    backlog(text, measures.backlog())?;
    traffic(text, measures, metrics.node)?;
    peers(text, metrics)
}

/// What waits between roles, and how often there was no room for more.
fn lanes(text: &mut Text<'_>, measures: &Measures) -> fmt::Result {
    let depths = Lane::ALL.map(|lane| (lane.name().to_owned(), measures.depth(lane)));
    let help = "What waited in a lane between two roles as its receiver's turn began, of one turn of 64.";
    text.histogram("lane_depth", help, "lane", depths)?;
    let help = "Times a lane was full as its sender looked, which takes nothing in then; reads are refused.";
    let mut family = text.describe("lane_blocked", help, MetricType::Counter)?;
    for lane in Lane::ALL {
        let blocked = measures.blocked(lane).load(Ordering::Relaxed);
        sample(
            &mut family,
            &["lane"],
            &[lane.name()],
            &ConstCounter::new(blocked),
        )?;
    }
    Ok(())
}

fn backlog(text: &mut Text<'_>, backlog: Backlog) -> fmt::Result {
    for (name, help, value) in [
        (
            "pool_frames",
            "Client frames that wait to be ordered, or are on their way.",
            backlog.pool_frames,
        ),
        ("pool_bytes", "Bytes of them.", backlog.pool_bytes),
        (
            "held_effects",
            "Votes, decisions and other promises that wait for the disk.",
            backlog.held_effects,
        ),
    ] {
        text.gauge(name, help, value as u64)?;
    }
    Ok(())
}

/// Bytes that passed links, by peer. All clients are one.
fn traffic(text: &mut Text<'_>, measures: &Measures, own: NodeId) -> fmt::Result {
    let clients = ("client".to_owned(), measures.clients());
    let replicas = others(measures, own).map(|(node, peer)| (node.to_string(), peer.traffic.read()));
    let rows: Vec<(String, (u64, u64))> = replicas.chain([clients]).collect();
    let help = "Bytes of messages given to links, before they are sealed: by peer, all clients being one.";
    let mut family = text.describe("sent_bytes", help, MetricType::Counter)?;
    for (peer, (sent, _)) in &rows {
        sample(&mut family, &["peer"], &[peer], &ConstCounter::new(*sent))?;
    }
    let help = "Bytes of messages received, as they were unsealed: by peer, all clients being one.";
    let mut family = text.describe("received_bytes", help, MetricType::Counter)?;
    for (peer, (_, received)) in &rows {
        sample(&mut family, &["peer"], &[peer], &ConstCounter::new(*received))?;
    }
    Ok(())
}

/// How the other replicas are.
fn peers(text: &mut Text<'_>, metrics: &Metrics) -> fmt::Result {
    let rows: Vec<_> = others(&metrics.measures, metrics.node)
        .map(|(node, peer)| {
            let offences = metrics.evidence.misbehaviour(Peer::Replica(node));
            (node.to_string(), peer.lag(), offences)
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let help = "Decisions that a replica was behind this one when it last said how far it is.";
    let mut family = text.describe("peer_lag_decisions", help, MetricType::Gauge)?;
    for (peer, lag, _) in &rows {
        sample(&mut family, &["peer"], &[peer], &ConstGauge::new(*lag))?;
    }
    let help = "What was refused of a replica and no correct replica sends; /debug/peers has the evidence.";
    let mut family = text.describe("peer_offences", help, MetricType::Counter)?;
    for (peer, _, offences) in &rows {
        sample(&mut family, &["peer"], &[peer], &ConstCounter::new(*offences))?;
    }
    Ok(())
}

/// All replicas but this one.
fn others(measures: &Measures, own: NodeId) -> impl Iterator<Item = (NodeId, &PeerMeasures)> {
    let nodes = measures.nodes().filter(move |node| *node != own);
    nodes.filter_map(|node| Some((node, measures.peer(node)?)))
}
