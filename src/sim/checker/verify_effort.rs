use bytes::Bytes;

use super::{Broken, Rule};
use crate::sim::SimConfig;
use crate::smr::crypto::{Given, SIGNATURE_BYTES};
use crate::smr::messages::archived::{ArchivedSyncMessage, ArchivedSystemMessage};
use crate::smr::messages::{Checked, Family, SystemMessage};
use crate::smr::types::{NodeId, Time, View};

const SECOND: u128 = 1_000_000_000;

/// What a peer had verified, in parts of a signature: it is forgotten at a rate.
#[derive(Debug, Clone, Copy)]
struct Level {
    what: &'static str,
    most: u128,
    per_second: u128,
    used: u128,
    /// What is earned in the turn that is looked at.
    earned: u128,
    at: Time,
}

impl Level {
    fn new(what: &'static str, most: u64, per_second: u64) -> Self {
        Self {
            what,
            // A signature more than that: the rest of a division.
            most: (u128::from(most) + 1) * SECOND,
            per_second: u128::from(per_second),
            used: 0,
            earned: 0,
            at: Time::START,
        }
    }

    fn add(&mut self, now: Time, count: u64) -> bool {
        let forgotten = now.since(self.at).as_nanos() * self.per_second;
        self.used = self.used.saturating_sub(forgotten) + u128::from(count) * SECOND;
        self.at = now;
        self.used <= self.most + self.earned
    }
}

/// How many signatures one correct replica verifies because of each other one, since its process began. With
/// the limits of the run's config, c clients and n replicas, at once and in the long run each second, by this
/// replica's clock:
///
/// | of one peer | at once | a second |
/// |---|---|---|
/// | pre-prepares of other views than ours, batches while nothing is transferred | the burst | the rate |
/// | frames passed on | the burst, and c | twice the rate |
/// | anything with frames of which one signature is false | the burst, and one message of nothing but signatures | the rate |
/// | checkpoints, view changes, new views, proofs, offers, and what is said about epochs | 256, and two new views of n view changes with n proofs each | 256, a new view in four seconds, and one for each checkpoint that becomes stable here |
///
/// What is verified is counted where it is verified; none of it is what the replica says of itself.
pub(in crate::sim) struct Efforts {
    n: usize,
    /// By peer.
    levels: Vec<[Level; 4]>,
}

const UNASKED: usize = 0;
const PASSED_ON: usize = 1;
const FALSE: usize = 2;
const SAID: usize = 3;

impl Efforts {
    pub(in crate::sim) fn new(config: &SimConfig) -> Self {
        let (n, gate) = (config.replicas, config.gate);
        let message = (config.limits.batch_bytes_max / SIGNATURE_BYTES) as u64;
        let new_view = (n + n * n) as u64;
        let (unasked, passed_on, lies) = (gate.unasked, gate.forwarded, gate.lies);
        let clients = config.clients() as u64;
        let levels = [
            Level::new("of batches it did not ask for", unasked.burst, unasked.per_second),
            Level::new(
                "of frames passed on",
                passed_on.burst + clients,
                2 * passed_on.per_second,
            ),
            Level::new(
                "in messages with false ones",
                lies.burst + message,
                lies.per_second,
            ),
            Level::new("of words", 256 + 2 * new_view, 256 + new_view / 4),
        ];
        Self {
            n,
            levels: vec![levels; n],
        }
    }

    /// A turn is looked at in which so many checkpoints became stable: each peer signs each once.
    pub(in crate::sim) fn begins_turn(&mut self, stables: usize) {
        for levels in &mut self.levels {
            let said = &mut levels[SAID];
            said.used = said.used.saturating_sub(said.earned);
            said.earned = stables as u128 * SECOND;
        }
    }

    /// A message of a peer had so many signatures verified, in a turn that began in a view, and perhaps in a
    /// transfer of decisions.
    pub(in crate::sim) fn verifies(
        &mut self,
        now: Time,
        from: NodeId,
        message: &Bytes,
        given: Given,
        (view, transfers): (View, bool),
    ) -> Result<(), Broken> {
        if Family::of(message) == Family::Reconfiguration {
            return self.counts(now, from, SAID, given);
        }
        let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
            let what = format!("signatures of a message of {from:?} that is none are verified");
            return Err((Rule::VerifyEffort, what));
        };
        let account = match &*checked {
            ArchivedSystemMessage::ForwardedRequestMessage(_) => Some(PASSED_ON),
            ArchivedSystemMessage::ProposalMessage(head) => {
                let leads = head.view().get() % self.n as u64 == from.index() as u64;
                (head.view() != view || !leads).then_some(UNASKED)
            }
            ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::BatchResponse(_)) => {
                (!transfers).then_some(UNASKED)
            }
            _ => Some(SAID),
        };
        let lies = (given.invalid > 0 && account != Some(SAID)).then_some(FALSE);
        let mut accounts = account.into_iter().chain(lies);
        accounts.try_for_each(|account| self.counts(now, from, account, given))
    }

    /// They count on one account of a peer.
    fn counts(&mut self, now: Time, from: NodeId, account: usize, given: Given) -> Result<(), Broken> {
        let level = &mut self.levels[from.index()][account];
        if level.add(now, given.verdicts) {
            return Ok(());
        }
        let used = level.used.div_ceil(SECOND);
        Err((
            Rule::VerifyEffort,
            format!(
                "{used} signatures {} are verified because of {from:?}, at most {} may be",
                level.what,
                level.most / SECOND
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::keys::CLUSTER;
    use crate::smr::messages::{Batch, PrePrepare};
    use crate::smr::types::{Epoch, SeqNo};

    fn at_ms(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    /// A message of replica 1 has this many signatures verified, so many of them false.
    fn verifies(efforts: &mut Efforts, ms: u64, message: &Bytes, verdicts: u64, invalid: u64) -> bool {
        let given = Given { verdicts, invalid };
        let expected = (View::new(1), false);
        efforts
            .verifies(at_ms(ms), NodeId::new(1), message, given, expected)
            .is_ok()
    }

    fn proposal(view: u64) -> Bytes {
        let (view, seq) = (View::new(view), SeqNo::new(1));
        PrePrepare::encode(CLUSTER, Epoch::ZERO, view, seq, &Batch::null())
    }

    #[test]
    fn what_is_verified_of_frames_passed_on_is_bounded_at_once_and_in_the_long_run() {
        let mut config = SimConfig::calm(4, 3);
        config.gate.forwarded.burst = 10;
        config.gate.forwarded.per_second = 5;
        let mut efforts = Efforts::new(&config);
        let passed_on = SystemMessage::forwarded_requests(CLUSTER, Epoch::ZERO, []);
        assert!(verifies(&mut efforts, 0, &passed_on, 13, 0));
        assert!(verifies(&mut efforts, 100, &passed_on, 1, 0));
        assert!(!verifies(&mut efforts, 100, &passed_on, 2, 0));
    }

    #[test]
    fn the_leader_of_the_view_proposes_without_limit_but_does_not_lie_without_one() {
        let mut efforts = Efforts::new(&SimConfig::calm(4, 3));
        for _ in 0..1000 {
            assert!(verifies(&mut efforts, 0, &proposal(1), 64, 0));
        }
        let lies = (0..1000).find(|_| !verifies(&mut efforts, 0, &proposal(1), 64, 1));
        assert_eq!(lies, Some((4096 + 256) / 64));
        let early = (0..1000).find(|_| !verifies(&mut efforts, 0, &proposal(5), 64, 0));
        assert_eq!(early, Some(32_768 / 64), "nobody is in view 5");
    }

    #[test]
    fn words_are_judged_within_two_new_views_at_once() {
        let mut efforts = Efforts::new(&SimConfig::calm(4, 3));
        let votes = SystemMessage::votes(CLUSTER, Epoch::ZERO, Vec::new());
        assert!(verifies(&mut efforts, 0, &votes, 256 + 40, 296));
        assert!(verifies(&mut efforts, 0, &votes, 1, 0));
        assert!(!verifies(&mut efforts, 0, &votes, 1, 0));
        assert!(verifies(&mut efforts, 1000, &votes, 255, 0), "time passes");
        let mut efforts = Efforts::new(&SimConfig::calm(4, 3));
        efforts.begins_turn(3);
        assert!(
            verifies(&mut efforts, 0, &votes, 256 + 40 + 1 + 3, 0),
            "three are stable"
        );
        assert!(!verifies(&mut efforts, 0, &votes, 1, 0));
        efforts.begins_turn(2);
        assert!(verifies(&mut efforts, 0, &votes, 1, 0), "two more");
        assert!(!verifies(&mut efforts, 0, &votes, 1, 0));
    }
}
