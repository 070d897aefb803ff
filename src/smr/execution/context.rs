//! What an application may know of an operation beside its bytes and the state: equal at every replica.

use crate::smr::crypto::{Chain, Digester};
use crate::smr::messages::Proposal;
use crate::smr::types::{ClientId, Epoch, SeqNo, UnixTime};

/// What the seed's derivation is bound to.
const SEED: &str = "atlas-smr-replica 2026 seed of an operation";

/// A decision, as far as its operations may know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionContext {
    /// Its sequence number.
    pub seq: SeqNo,
    /// The membership that decided it.
    pub epoch: Epoch,
    /// Covers it and every decision before it.
    pub chain: Chain,
    /// Its agreed time.
    pub time: UnixTime,
}

impl DecisionContext {
    /// Before the first decision of all.
    pub const START: Self = Self {
        seq: SeqNo::ZERO,
        epoch: Epoch::ZERO,
        chain: Chain::START,
        time: UnixTime::EPOCH,
    };

    /// Of the decision that comes next, in this epoch.
    #[must_use]
    pub(super) fn then(self, epoch: Epoch, decision: &Proposal, digester: &Digester) -> Self {
        Self {
            seq: decision.seq,
            epoch,
            chain: self.chain.then(decision.seq, &decision.batch.digest, digester),
            time: self.time.max(decision.batch.time),
        }
    }
}

impl Default for DecisionContext {
    fn default() -> Self {
        Self::START
    }
}

/// What an application may know of the operation that it executes, beside its bytes and the state.
///
/// An ordered operation finds the same in it at every replica, whichever executor runs it and however often.
/// A read beside the order finds the replica's last executed decision in it, which another replica may be
/// ahead of: where that goes into the result, fewer replicas answer alike, as with the state itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationContext {
    decision: DecisionContext,
    client: ClientId,
    place: u32,
    is_read: bool,
}

impl OperationContext {
    /// Of an ordered operation: the one that `place` others of its decision come before. Executors make
    /// them, and tests of applications.
    #[must_use]
    pub const fn new(decision: DecisionContext, client: ClientId, place: u32) -> Self {
        Self {
            decision,
            client,
            place,
            is_read: false,
        }
    }

    /// The same operation as a read.
    #[must_use]
    pub const fn reading(self) -> Self {
        Self {
            is_read: true,
            ..self
        }
    }

    /// Of another operation of the same frame.
    #[must_use]
    pub(super) const fn at(self, place: u32) -> Self {
        Self { place, ..self }
    }

    /// Of the operation behind this one.
    #[must_use]
    pub(super) const fn next(self) -> Self {
        self.at(self.place + 1)
    }

    /// Who asks for it. Its frame was authenticated before it was ordered, so that rights can depend on it.
    #[must_use]
    pub const fn client(&self) -> ClientId {
        self.client
    }

    /// The sequence number of its decision. Of a read beside the order: of the last decision that the state
    /// includes.
    #[must_use]
    pub const fn decision(&self) -> SeqNo {
        self.decision.seq
    }

    /// How many operations come before it in its decision, those included that are not executed because
    /// their frame was before. Of a read beside the order: how many come before it in its frame.
    #[must_use]
    pub const fn place(&self) -> u32 {
        self.place
    }

    /// The agreed time: what the leader's clock showed when it proposed the decision, or the agreed time of
    /// the decision before, if that is later. Equal for all operations of a decision; never goes back;
    /// [`EPOCH`](UnixTime::EPOCH) before the first.
    ///
    /// Where it moved on, it was within `clock_bound_ms` of the clocks of f+1 correct replicas at least.
    /// Inside that bound a faulty leader chooses it as it likes. It is no clock to measure with: it stands
    /// still while nothing is decided, and until clocks that were set back have come so far again. See
    /// [what faults of clocks do](crate::docs::protocol#the-agreed-time).
    #[must_use]
    pub const fn time(&self) -> UnixTime {
        self.decision.time
    }

    /// The membership that decided it.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.decision.epoch
    }

    /// Whether it is executed as a read, by
    /// [`unordered_execution`](super::Application::unordered_execution): beside the order or at its place in
    /// it.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.is_read
    }

    /// A seed for a generator of pseudo-random numbers: another one for each operation, the same at every
    /// replica. Computed when it is asked for.
    ///
    /// Not for secrets, and not for what somebody gains by: it follows from what was decided. Whoever sees
    /// the decisions computes it, the leader can choose among batches until it likes the seed, and clients
    /// influence it by what they send.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(SEED);
        hasher.update(self.decision.chain.head().as_bytes());
        hasher.update(&self.place.to_le_bytes());
        hasher.update(&[u8::from(self.is_read)]);
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::execution::fixtures::{decision, digester, frame};
    use crate::smr::execution::{
        Application, CheckpointRule, Column, CrudState, Direct, ExecutionEvent, Executor, PartitionedStore,
        ResultWriter, ScalableApp, SingleThreaded, Speculative, StateRule,
    };
    use crate::smr::messages::{Checked, Mode, OperationResult, ReplyBody};

    /// Answers every operation with what it is told, and keeps what the last one was told.
    struct Echo;

    fn told(context: &OperationContext) -> Vec<u8> {
        let said = (
            (context.client().get(), context.decision().get(), context.place()),
            (context.epoch().get(), context.is_read(), context.seed()),
        );
        format!("{said:?}").into_bytes()
    }

    impl Application for Echo {
        type State = PartitionedStore;

        fn initial_state(&self) -> PartitionedStore {
            PartitionedStore::default()
        }

        fn update(
            &self,
            state: &mut PartitionedStore,
            context: &OperationContext,
            operation: &[u8],
            result: &mut ResultWriter,
        ) {
            self.speculatively_execute(&mut Direct(state), context, operation, result);
        }

        fn unordered_execution(
            &self,
            _: &PartitionedStore,
            context: &OperationContext,
            _: &[u8],
            result: &mut ResultWriter,
        ) {
            result.extend_from_slice(&told(context));
        }

        fn name(&self) -> &'static str {
            "echo"
        }
    }

    impl ScalableApp for Echo {
        fn speculatively_execute(
            &self,
            state: &mut impl CrudState,
            context: &OperationContext,
            _: &[u8],
            result: &mut ResultWriter,
        ) {
            state.put(Column(0), b"last", &told(context));
            result.extend_from_slice(&told(context));
        }
    }

    fn results(events: &[ExecutionEvent]) -> Vec<Vec<String>> {
        let replies = events.iter().filter_map(|event| match event {
            ExecutionEvent::Reply { body, .. } => Some(body.clone()),
            _ => None,
        });
        let read = |body: bytes::Bytes| {
            let body = Checked::<ReplyBody>::new(body).unwrap();
            let said = body.results().map(|result| match result {
                OperationResult::Value(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                failed => panic!("{failed:?}"),
            });
            said.collect()
        };
        replies.map(read).collect()
    }

    /// A frame of two operations, one that was executed before, a read in the order, and a write; then a read
    /// beside the order.
    fn run(executor: &mut impl Executor) -> Vec<Vec<String>> {
        let operations = |count| vec![vec![1]; count];
        let write = frame(2, 7, Mode::Ordered, &operations(2));
        let frames = vec![
            write.clone(),
            write,
            frame(0, 1, Mode::OrderedRead, &operations(1)),
            frame(1, 1, Mode::Ordered, &operations(1)),
        ];
        let mut events = Vec::new();
        executor.execute(&decision(1, Vec::new()), &mut events);
        executor.execute(&decision(2, frames), &mut events);
        executor.settle(&mut events);
        executor.execute_unordered(&frame(3, 1, Mode::Unordered, &operations(2)), &mut events);
        results(&events)
    }

    #[test]
    fn every_executor_tells_an_operation_its_caller_and_its_place() {
        let rule = CheckpointRule {
            decisions: 100,
            bytes: u64::MAX,
            state: StateRule::ALWAYS,
        };
        let epoch = Epoch::new(5);
        let mut single = SingleThreaded::new(Echo, 4, digester(), epoch, rule);
        let mut speculative = Speculative::new(Echo, 4, digester(), epoch, rule);
        let told = run(&mut single);
        assert_eq!(run(&mut speculative), told);
        assert_eq!(single.digest_now(), speculative.digest_now());
        let flat: Vec<&String> = told.iter().flatten().collect();
        let expected = [
            "((2, 2, 0), (5, false",
            "((2, 2, 1), (5, false",
            "((0, 2, 4), (5, true",
            "((1, 2, 5), (5, false",
            "((3, 2, 0), (5, true",
            "((3, 2, 1), (5, true",
        ];
        assert_eq!(flat.len(), expected.len());
        for (said, expected) in flat.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said} instead of {expected}");
        }
        let mut seeds: Vec<&str> = flat.iter().filter_map(|said| said.split('[').nth(1)).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(
            seeds.len(),
            expected.len(),
            "each operation has a seed of its own"
        );
    }

    #[test]
    fn a_seed_depends_on_every_decision_before() {
        let first = DecisionContext::START.then(Epoch::ZERO, &decision(1, Vec::new()), &digester());
        let second = first.then(Epoch::ZERO, &decision(2, Vec::new()), &digester());
        let seed = |decision| OperationContext::new(decision, ClientId::new(0), 0).seed();
        assert_ne!(seed(first), seed(second));
        assert_eq!(
            seed(second),
            seed(first.then(Epoch::ZERO, &decision(2, Vec::new()), &digester()))
        );
    }
}
