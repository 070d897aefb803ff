use std::collections::{BTreeMap, VecDeque};

use super::{Broken, Rule};
use crate::sim::SimConfig;
use crate::smr::messages::FrameKey;
use crate::smr::types::{ClientId, Time};

/// What one correct replica does for clients, since its process began, and who has it done.
///
/// - A frame is answered once when it is executed, and once more for each time its client sent it here by its
///   own link. It is refused as often, and once in a half of the shortest patience with a leader beside that:
///   when a signature is asked for.
/// - Reads beside the order are answered where they are enabled, and then in turn: while a client has one
///   waiting, another one is given no more work than that client has waiting itself, and two of the longest
///   frames.
/// - No more reads wait than there is room for.
pub(in crate::sim) struct Charges {
    reads_enabled: bool,
    frame_operations_max: u64,
    reads_bytes_max: usize,
    ask_pause_ns: u64,
    began: Option<Time>,
    asked: BTreeMap<FrameKey, u64>,
    answered: BTreeMap<FrameKey, u64>,
    refused: BTreeMap<FrameKey, u64>,
    /// By client: operations of its reads that were executed.
    read: Vec<u64>,
    /// By client: its reads that wait, each with its operations, those of its own up to its end, and what had
    /// been executed for each client when it came.
    waiting: Vec<VecDeque<(u64, u64, Vec<u64>)>>,
}

impl Charges {
    pub(in crate::sim) fn new(config: &SimConfig) -> Self {
        let clients = config.clients();
        let pool = config.pool;
        Self {
            reads_enabled: config.unordered,
            frame_operations_max: config.limits.frame_operations_max as u64,
            reads_bytes_max: pool.bytes_max / 4 + clients * config.limits.frame_bytes_max,
            ask_pause_ns: (config.timings.timeout / 2).as_nanos() as u64,
            began: None,
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            refused: BTreeMap::new(),
            read: vec![0; clients],
            waiting: vec![VecDeque::new(); clients],
        }
    }

    /// A client's frame arrived here by its own link.
    pub(in crate::sim) fn asks(&mut self, now: Time, key: FrameKey) {
        self.began.get_or_insert(now);
        *self.asked.entry(key).or_default() += 1;
    }

    /// A result is sent to a client.
    pub(in crate::sim) fn answers(&mut self, key: FrameKey) -> Result<(), Broken> {
        let (asked, answered) = (self.asked.get(&key), self.answered.entry(key).or_default());
        *answered += 1;
        let may = 1 + asked.copied().unwrap_or(0);
        match *answered > may {
            true => Err((
                Rule::Charges,
                format!("{key:?} is answered {answered} times, its client paid for {may}"),
            )),
            false => Ok(()),
        }
    }

    /// A refusal is sent to a client.
    pub(in crate::sim) fn refuses(&mut self, now: Time, key: FrameKey) -> Result<(), Broken> {
        let began = *self.began.get_or_insert(now);
        let (asked, refused) = (self.asked.get(&key), self.refused.entry(key).or_default());
        *refused += 1;
        let waited = now.since(began).as_nanos() as u64 / self.ask_pause_ns;
        // A view change may find it disputed, and a share of what waits may come right after a review.
        let may = 4 + 2 * waited + asked.copied().unwrap_or(0);
        match *refused > may {
            true => Err((
                Rule::Charges,
                format!("{key:?} is refused {refused} times, its client paid for {may}"),
            )),
            false => Ok(()),
        }
    }

    /// A read waits to be executed, or the question which sessions are known; all that wait have so many
    /// bytes.
    pub(in crate::sim) fn read_waits(
        &mut self,
        client: ClientId,
        is_read: bool,
        operations: u64,
        bytes: usize,
    ) -> Result<(), Broken> {
        let done = self.read.clone();
        let queue = &mut self.waiting[client.get() as usize];
        let own: u64 = queue.iter().map(|(operations, ..)| operations).sum();
        queue.push_back((operations, own + operations, done));
        match (self.reads_enabled || !is_read, bytes > self.reads_bytes_max) {
            (false, _) => Err((
                Rule::Charges,
                "a read beside the order is taken, where none are answered".to_owned(),
            )),
            (_, true) => Err((
                Rule::Memory,
                format!(
                    "reads of {bytes} bytes wait, at most {} may",
                    self.reads_bytes_max
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The client's first read that waits is executed.
    pub(in crate::sim) fn reads(&mut self, client: ClientId) -> Result<(), Broken> {
        let done = self.waiting[client.get() as usize].pop_front();
        self.read[client.get() as usize] += done.map_or(0, |(operations, ..)| operations);
        for (waits, queue) in self.waiting.iter().enumerate() {
            let Some((_, own, before)) = queue.front().filter(|_| waits != client.get() as usize) else {
                continue;
            };
            let given = self.read[client.get() as usize] - before[client.get() as usize];
            let may = own + 2 * self.frame_operations_max;
            if given > may {
                let what = format!("{given} reads of {client:?} go before c{waits}'s, at most {may} may");
                return Err((Rule::Charges, what));
            }
        }
        Ok(())
    }

    /// The state is another: reads that waited are forgotten, and what was executed may be executed again.
    pub(in crate::sim) fn begins_again(&mut self) {
        self.waiting.iter_mut().for_each(VecDeque::clear);
        self.answered.clear();
    }
}
