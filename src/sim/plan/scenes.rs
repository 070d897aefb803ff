//! Orders of events that matter and that dice hardly ever come upon: who hears what is written down here, how
//! long each step takes is the seed's.

use std::time::Duration;

use super::{Fault, Plan, Profile, SimConfig};
use crate::sim::SimRng;
use crate::sim::network::MessageKind;
use crate::smr::execution::apps::kv;
use crate::smr::messages::Mode;
use crate::smr::types::Time;

/// An operation at a moment.
#[derive(Debug, Clone)]
pub struct PlannedCall {
    /// When.
    pub at: Time,
    /// The process of a client that makes it.
    pub client: usize,
    /// The operation.
    pub operation: Vec<u8>,
    /// Ordered or read-only.
    pub mode: Mode,
}

/// All scenes: the run of a seed plays the one in its place.
const SCENES: [fn(&mut Plan, &mut SimRng); 3] = [
    Plan::equal_values_of_other_states,
    Plan::announced_before_a_cut,
    Plan::signed_twice,
];

const ALL: [usize; 4] = [0, 1, 2, 3];
/// How long a client's frame may be where long ones fill the log.
const FRAME_BYTES: usize = 4096;

const fn ms(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

impl Plan {
    /// The scene of a seed: four replicas.
    pub(super) fn of_scene(seed: u64) -> Self {
        let mut rng = SimRng::new(seed ^ (Profile::Scenes as u64) << 56);
        let mut config = SimConfig::calm(4, 2);
        config.timings.timeout = rng.millis(300, 400);
        config.timings.status_period = rng.millis(50, 100);
        config.retransmit = rng.millis(80, 120);
        config.segment_bytes = 0;
        config.write_syncs = rng.chance(50);
        config.turn_us = rng.pick(&[(0, 0), (1, 20)]);
        let mut plan = Self::quiet(Profile::Scenes, seed, config);
        plan.speculative = ALL.into_iter().filter(|_| rng.chance(40)).collect();
        let scene = SCENES[(seed % SCENES.len() as u64) as usize];
        scene(&mut plan, &mut rng);
        plan.busy_until = plan.calm_from;
        plan
    }

    fn call(&mut self, at: Time, client: usize, operation: Result<Vec<u8>, kv::KeyTooLong>, mode: Mode) {
        let operation = operation.expect("the key is short");
        self.calls.push(PlannedCall {
            at,
            client,
            operation,
            mode,
        });
    }

    /// A key of its own for each value.
    fn put(&mut self, at: Time, client: usize, value: u64) {
        self.put_long(at, client, (value, 1));
    }

    /// With so long a key.
    fn put_long(&mut self, at: Time, client: usize, (value, length): (u64, usize)) {
        let key = format!("k{value:0length$}");
        self.call(
            at,
            client,
            kv::put(key.as_bytes(), &value.to_le_bytes()),
            Mode::Ordered,
        );
    }

    fn between(&mut self, (from, to): (&[usize], &[usize]), (at, until): (Time, Time)) {
        self.cut(at, until, (from.to_vec(), to.to_vec()), false);
    }

    fn without(&mut self, kind: MessageKind, (from, to): (&[usize], &[usize]), (at, until): (Time, Time)) {
        let (from, to) = (from.to_vec(), to.to_vec());
        self.faults.push((
            at,
            Fault::Lost {
                kind,
                from,
                to,
                until,
            },
        ));
    }

    fn restart(&mut self, host: usize, at: Time, rng: &mut SimRng) {
        let back = Some(at.after(rng.millis(1, 10)));
        self.faults.push((at, Fault::Crash { host, back }));
    }

    /// A value is written and removed again: of three replicas that have none, one copy of the one that runs
    /// twice and one that is behind have it not yet, and one has it no more. The first read may come to any
    /// answer, and the second, by three that have it, to no earlier one.
    fn equal_values_of_other_states(&mut self, rng: &mut SimRng) {
        self.twin = Some(3);
        self.config.unordered = true;
        self.calm_from = ms(80);
        let (put, behind, delete) = (ms(1), ms(15), ms(20));
        // What was said until then comes to r1 before what is said from then on.
        let (one, two) = (ms(40), ms(80));
        self.between((&[0, 2, 3, 4], &[1]), (Time::START, one));
        self.between((&[0, 2, 3], &[1]), (behind, two));
        self.between((&[1], &[0, 2, 3, 4]), (Time::START, two));
        self.between((&[0, 1, 2, 3], &[4]), (Time::START, two));
        self.between((&[4], &[0, 1, 2, 3]), (Time::START, two));
        // r2 alone gets to know that the removal is decided.
        self.without(MessageKind::Commit, (&[2], &[0, 1, 3]), (behind, two));
        self.put(put, 0, 1);
        self.call(delete, 1, kv::delete(b"k1"), Mode::Ordered);
        let read = |plan: &mut Self, at| plan.call(at, 0, kv::get(b"k1"), Mode::Unordered);
        read(self, ms(30).after(rng.micros(0, 500)));
        read(self, one.after(rng.millis(4, 8)));
    }

    /// The leader of view 1 announces a batch that it never gets. r0 and r2 prepare it on its word; r0 is gone
    /// then, and r3 was not told of the view. r1 leaves the view, its log is cut, and it starts again: were it
    /// to forget its word, nobody could ever choose at that place.
    fn announced_before_a_cut(&mut self, rng: &mut SimRng) {
        self.config.checkpoint_decisions = 4;
        self.config.window = 8;
        self.config.limits.frame_bytes_max = 2 * FRAME_BYTES;
        self.config.limits.batch_bytes_max = 2 * FRAME_BYTES;
        let timeout = self.config.timings.timeout;
        let period = self.config.timings.status_period;
        let alone = ms(40);
        let begun = alone.after(timeout + Duration::from_millis(200));
        let left = begun.after(timeout * 3);
        let cut = left.after(period * 4);
        let healed = cut.after(Duration::from_millis(50));
        self.calm_from = healed;
        // The log may be cut where the checkpoint is, if r1 has written nothing about what comes after it, and
        // a segment ends where its view begins: in some runs it does.
        for value in 1..=4 {
            let length = rng.between(1, FRAME_BYTES as u64 - 200) as usize;
            self.put_long(ms(5 * value), 0, (value, length));
        }
        self.put(alone.after(rng.millis(5, 20)), 1, 5);
        // Nothing is decided any more, and r1 never has the batch.
        self.without(MessageKind::Commit, (&ALL, &ALL), (alone, healed));
        self.without(MessageKind::Batch, (&[0, 2, 3], &[1]), (alone, healed));
        // No checkpoint is stable before r1 has left its view.
        self.without(MessageKind::Checkpoint, (&ALL, &ALL), (Time::START, left));
        // r3 does not enter it, and nobody enters a later one.
        self.without(MessageKind::NewView, (&ALL, &[3]), (alone, healed));
        self.without(MessageKind::NewView, (&ALL, &ALL), (begun, healed));
        // What r1 says of its view when it leaves it nobody hears before it says so again.
        self.without(MessageKind::ViewChange, (&[1], &ALL), (begun, healed));
        self.faults.push((begun, Fault::Crash { host: 0, back: None }));
        self.restart(1, cut, rng);
    }

    /// r3 executes a decision wrongly, signs the state that follows, and loses power before it has a snapshot of
    /// it: the log leads it to the right one, which it signs as well. It starts once more, and what a quorum
    /// signed is what it has.
    fn signed_twice(&mut self, rng: &mut SimRng) {
        self.config.checkpoint_decisions = 4;
        self.config.sync_us = (2000, 6000);
        let apart = ms(600);
        self.calm_from = apart;
        self.faults.push((Time::START, Fault::WrongState { host: 3 }));
        self.without(MessageKind::Checkpoint, (&[0, 1, 2], &[3]), (Time::START, apart));
        for value in 1..=4 {
            self.put(ms(50 * value), 0, value);
        }
        self.restart(3, ms(200).after(rng.millis(10, 50)), rng);
        self.restart(3, ms(350), rng);
    }
}
