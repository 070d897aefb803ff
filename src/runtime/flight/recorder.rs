use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::dumps::Dumps;
use super::event::{FlightEvent, RingKind};
use super::file::{DumpCause, FlightDump, ShardEvents};
use super::ring::EventRing;
use crate::runtime::config::FlightConfig;
use crate::smr::types::{ClusterId, Epoch, NodeId, Time, UnixTime};

/// Whose events are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The replica.
    pub node: NodeId,
    /// The membership it runs in.
    pub epoch: Epoch,
}

/// What one shard recorded. One thread writes.
#[derive(Debug)]
struct Track {
    name: String,
    started: Instant,
    recorded: AtomicU64,
    traffic: EventRing,
    own: EventRing,
    others: EventRing,
}

impl Track {
    fn new(name: String, started: Instant, events: usize) -> Self {
        Self {
            name,
            started,
            recorded: AtomicU64::new(0),
            traffic: EventRing::new(events / 2),
            own: EventRing::new(events / 4),
            others: EventRing::new(events / 4),
        }
    }

    fn record(&self, at: Time, mut event: FlightEvent) {
        // One thread writes: a load and a store are enough.
        event.number = self.recorded.load(Ordering::Relaxed);
        self.recorded.store(event.number + 1, Ordering::Relaxed);
        event.at = at;
        let ring = match event.kind().map_or(RingKind::Own, |kind| kind.ring()) {
            RingKind::Traffic => &self.traffic,
            RingKind::Own => &self.own,
            RingKind::Others => &self.others,
        };
        ring.push(event.to_words());
    }

    fn read(&self) -> ShardEvents {
        let rings = [&self.traffic, &self.own, &self.others].map(EventRing::read);
        let recorded = rings.iter().map(|(_, recorded)| recorded).sum();
        let words = rings.into_iter().flat_map(|(words, _)| words);
        let mut events: Vec<FlightEvent> = words.filter_map(FlightEvent::of_words).collect();
        events.sort_by_key(|event| event.number);
        ShardEvents {
            name: self.name.clone(),
            recorded,
            events,
        }
    }
}

/// Records the events of one shard: held by what runs on its thread, and by nothing else. The default records
/// nothing.
#[derive(Debug, Clone, Default)]
pub struct FlightPen(Option<Arc<Track>>);

impl FlightPen {
    /// It happened in the turn that began at `now`.
    pub fn record(&self, now: Time, event: FlightEvent) {
        if let Some(track) = &self.0 {
            track.record(now, event);
        }
    }

    /// It happens now, on a thread that has no turns: the clock is read.
    pub fn record_now(&self, event: FlightEvent) {
        if let Some(track) = &self.0 {
            track.record(elapsed(track.started), event);
        }
    }
}

fn elapsed(started: Instant) -> Time {
    Time::from_nanos(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The recorder of one replica. Clones are equal.
#[derive(Debug, Clone)]
pub struct FlightRecorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: FlightIdentity,
    started: Instant,
    /// The same, by the host's clock.
    started_unix: UnixTime,
    /// Empty if nothing is recorded. The last one is the control shard's.
    tracks: Vec<Arc<Track>>,
    dumps: Dumps,
}

impl FlightRecorder {
    /// For this many data shards and a control shard, which count time from `started`. Its dumps go into the
    /// data directory `directory`.
    #[must_use]
    pub fn new(
        identity: FlightIdentity,
        config: &FlightConfig,
        shards: usize,
        directory: std::path::PathBuf,
        started: Instant,
    ) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.saturating_sub(started.elapsed()).as_nanos());
        let names = (0..shards).map(|index| format!("d{index}"));
        let names = names.chain(["control".to_owned()]);
        let track = |name| Arc::new(Track::new(name, started, config.events_per_shard));
        let tracks = match config.events_per_shard {
            0 => Vec::new(),
            _ => names.map(track).collect(),
        };
        Self(Arc::new(Inner {
            identity,
            started,
            started_unix: UnixTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
            tracks,
            dumps: Dumps::new(directory, config.dumps_max),
        }))
    }

    /// The moment from which times count.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// Whose events they are.
    #[must_use]
    pub fn identity(&self) -> FlightIdentity {
        self.0.identity
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.0.tracks.is_empty()
    }

    /// What records for a data shard: for its thread alone.
    pub(crate) fn pen(&self, shard: usize) -> FlightPen {
        let last = self.0.tracks.len().saturating_sub(1);
        FlightPen(self.0.tracks[..last].get(shard).cloned())
    }

    /// What records for the control shard: for its thread alone.
    pub(crate) fn control_pen(&self) -> FlightPen {
        FlightPen(self.0.tracks.last().cloned())
    }

    /// The events that are here now; `None` if nothing is recorded.
    #[must_use]
    pub fn capture(&self, cause: DumpCause, why: &str) -> Option<FlightDump> {
        let inner = &self.0;
        self.is_on().then(|| FlightDump {
            identity: inner.identity,
            started: inner.started_unix,
            taken: elapsed(inner.started),
            cause,
            why: why.to_owned(),
            shards: inner.tracks.iter().map(|track| track.read()).collect(),
        })
    }

    pub(super) fn dumps(&self) -> &Dumps {
        &self.0.dumps
    }
}
