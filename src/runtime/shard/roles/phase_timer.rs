//! The way of a batch, and of a client's frame, through ordering: when each came how far.
//!
//! What is looked at is what ordering gives to the log and to execution anyway: the record of a proposal that
//! it accepted, its own records about the place, the last of which is its last vote, the record of a decision,
//! and the decision that execution is given once the disk has what it rests on. So nothing in the protocol
//! knows that it is timed, and any protocol is timed in the same way.
//!
//! What is known of a step may come late, or never: execution may be given a decision before the log is, and
//! others' votes may decide a batch before this replica has cast its own. A step is then taken to be as late
//! as the one after it, so that the phases of each batch always add up to the whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::metrics::{Measure, Recorder, is_sampled_batch, is_sampled_frame, sample_of};
use crate::runtime::shard::lanes::{DecisionTimes, Verified};
use crate::smr::messages::{Frame, FrameKey, Proposal};
use crate::smr::protocol::Record;
use crate::smr::types::{ClientId, SeqNo, Time};

/// How many batches are followed at once; a later one takes the place of one that never came through.
const BATCHES: usize = 64;
/// How many frames are followed at once.
const FRAMES_MAX: usize = 1024;
/// A frame that is not executed after so long need not be followed any more.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);

/// Follows what is sampled.
pub(super) struct PhaseTimer {
    recorder: Arc<Recorder>,
    batches: [BatchTimes; BATCHES],
    /// Those that came by their clients' links, and are not executed.
    frames: BTreeMap<FrameKey, FrameTimes>,
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, Default)]
struct BatchTimes {
    seq: SeqNo,
    verified: Option<Time>,
    proposed: Option<Time>,
    prepared: Option<Time>,
    committed: Option<Time>,
}

/// How far a frame is.
#[derive(Debug, Clone, Copy)]
struct FrameTimes {
    received: Time,
    verified: Time,
    is_proposed: bool,
}

impl PhaseTimer {
    /// Records what it finds there.
    pub fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            recorder,
            batches: [BatchTimes::default(); BATCHES],
            frames: BTreeMap::new(),
        }
    }

    /// Something that is sampled was verified.
    pub fn on_verified(&mut self, verified: Verified) {
        match verified {
            Verified::Frame {
                key,
                received,
                verified,
            } => self.follow_frame(key, received, verified),
            Verified::Proposal { seq, verified } => {
                self.batch(seq).verified = Some(verified);
            }
        }
    }

    fn follow_frame(&mut self, key: FrameKey, received: Time, verified: Time) {
        if self.frames.len() >= FRAMES_MAX {
            self.frames
                .retain(|_, frame| verified.since(frame.received) < FRAME_PATIENCE);
        }
        if self.frames.len() < FRAMES_MAX {
            // A frame that is sent again came when it came first.
            self.frames.entry(key).or_insert(FrameTimes {
                received,
                verified,
                is_proposed: false,
            });
        }
    }

    /// The log is given a record. `now` looks at the clock.
    pub fn on_record(&mut self, record: &Record, now: impl Fn() -> Time) {
        match record {
            Record::Proposal(proposal) => self.on_proposed(proposal, now),
            Record::Ordering { seq: Some(seq), .. } if is_sampled_batch(*seq) => {
                let batch = self.batch(*seq);
                if batch.proposed.is_some() && batch.committed.is_none() {
                    batch.prepared = Some(now());
                }
            }
            Record::Decision { seq, .. } if is_sampled_batch(*seq) => self.on_decided(*seq, now()),
            _ => {}
        }
    }

    fn on_proposed(&mut self, proposal: &Proposal, now: impl Fn() -> Time) {
        if is_sampled_batch(proposal.seq) {
            let at = now();
            let batch = self.batch(proposal.seq);
            // In a later view it begins again.
            *batch = BatchTimes {
                seq: batch.seq,
                verified: batch.verified,
                proposed: Some(at),
                ..BatchTimes::default()
            };
            let verified = batch.verified;
            self.record(Measure::BatchProposed, verified, Some(at));
        }
        for key in self.sampled_frames(&proposal.batch.frames) {
            let Some(frame) = self.frames.get_mut(&key) else {
                continue;
            };
            if !std::mem::replace(&mut frame.is_proposed, true) {
                let verified = frame.verified;
                self.record(Measure::FrameProposed, Some(verified), Some(now()));
            }
        }
    }

    /// A batch is decided, at this moment at the latest.
    fn on_decided(&mut self, seq: SeqNo, now: Time) {
        let batch = self.batch(seq);
        // One whose beginning was not seen is not timed.
        if batch.proposed.is_none() || batch.committed.is_some() {
            return;
        }
        batch.committed = Some(now);
        let (proposed, prepared) = (batch.proposed, batch.prepared.or(Some(now)));
        self.record(Measure::BatchPrepared, proposed, prepared);
        self.record(Measure::BatchCommitted, prepared, Some(now));
    }

    /// Execution is given a decision: what is timed of it from then on.
    pub fn on_released(&mut self, decision: &Proposal, now: impl Fn() -> Time) -> Option<Box<DecisionTimes>> {
        let (seq, frames) = (decision.seq, &decision.batch.frames);
        let is_sampled = is_sampled_batch(seq) && !frames.is_empty();
        let requests: Vec<(ClientId, Time)> = self
            .sampled_frames(frames)
            .into_iter()
            .filter_map(|key| Some((key.client, self.frames.remove(&key)?.received)))
            .collect();
        if !is_sampled && requests.is_empty() {
            return None;
        }
        let released = now();
        if is_sampled {
            self.on_decided(seq, released);
            let batch = self.batch(seq);
            let committed = batch.committed;
            // What may come of it still is not looked at.
            *batch = BatchTimes {
                seq,
                ..BatchTimes::default()
            };
            self.record(Measure::BatchDurable, committed, Some(released));
            let batch = &decision.batch;
            self.recorder.record(Measure::BatchFrames, frames.len());
            self.recorder
                .record(Measure::BatchOperations, batch.operation_count());
            self.recorder.record(Measure::BatchBytes, batch.frame_bytes());
        }
        Some(Box::new(DecisionTimes {
            seq,
            is_sampled,
            released,
            requests,
        }))
    }

    /// Where the times of a batch are kept; those of another one that had the place are forgotten.
    fn batch(&mut self, seq: SeqNo) -> &mut BatchTimes {
        let batch = &mut self.batches[sample_of(seq) as usize % BATCHES];
        if batch.seq != seq {
            *batch = BatchTimes {
                seq,
                ..BatchTimes::default()
            };
        }
        batch
    }

    /// Those of a batch's frames that may be followed. None of other replicas' clients is, and most replicas
    /// have no others.
    fn sampled_frames(&self, frames: &[Frame]) -> Vec<FrameKey> {
        if self.frames.is_empty() {
            return Vec::new();
        }
        let keys = frames.iter().map(Frame::key);
        keys.filter(|key| is_sampled_frame(*key)).collect()
    }

    /// Records what lies between two moments, if both are known.
    fn record(&self, measure: Measure, from: Option<Time>, to: Option<Time>) {
        if let Some((from, to)) = from.zip(to) {
            self.recorder.record_time(measure, to.since(from));
        }
    }
}

#[cfg(test)]
#[path = "phase_timer_tests.rs"]
mod tests;
