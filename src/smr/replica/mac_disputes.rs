//! Whose MACs convince some replicas and not others, and who has to sign because of it.
//!
//! A client that convinces the leader and not enough backups stops the view (the "big MAC attack" of Clement
//! et al., Aardvark, NSDI 2009, section 3.1). A backup to which such a frame is proposed cannot tell who is
//! at fault: its client made the MAC so, or the leader spoiled it. The next leader cannot tell at all, if its
//! own MAC holds. So replicas tell each other, and what they tell has to be worth something:
//!
//! - **Named is who cost a view.** A replica names a client in its status when it left a view in which a
//!   frame of that client was proposed to it whose MAC failed here, for a place that was not decided until then. A
//!   frame spoiled beside that costs nobody anything; one that came in an answer to a fetch, whose sender
//!   need not have it from its client, counts for nothing.
//! - **Believed are f+1.** A client has to sign where f+1 replicas name it, this one included: one of them is
//!   correct. Up to f liars name whom they like, in vain.
//! - **It ends by itself.** A name lasts [`base`](MacDisputes::new), twice as long each time it is given again
//!   before as much as the longest has passed, up to [`LONGEST`] times. Then MACs are taken again.
//! - **The client is told** ([`RefusalReason::MustSign`](crate::smr::messages::RefusalReason)), and believes
//!   it from f+1 as well.
//!
//! *Why f+1 are enough to stop an attack.* Let a correct leader propose a frame, and let the view stand still
//! because of it. A backup whose MAC fails accepts the batch once f+1 replicas answer for it, the leader
//! being one ([`pbft`](crate::smr::ordering::pbft)); so fewer than f correct backups have a MAC that holds.
//! There are 2f correct backups at least. So f+1 of them find theirs failing, and name the client when the
//! view is lost. They say so at once, and what the client has pending with MACs is dropped where it is heard.
//!
//! *What it costs an honest client.* A faulty leader that spoils its MACs in a proposal, so that the view is
//! lost, has f+1 correct replicas name it: it signs for a while. That leader has lost its view for it, and
//! has its next turn after n−1 others. One that spoils MACs and keeps its view achieves nothing.
//!
//! *What a faulty client costs.* With MACs, a view each time it has served its time: that is the price of
//! MACs, and why signatures are the default.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::smr::messages::{FrameKey, STATUS_DISPUTES};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ClientId, NodeId, SeqNo, Time};

/// How many times longer than at first a client is named at most.
const LONGEST: u32 = 16;

/// A client that cost a view, by our own evidence.
#[derive(Debug, Clone, Copy)]
struct Named {
    until: Time,
    lasts: Duration,
}

/// What other replicas say, and since when.
#[derive(Debug)]
struct Claim {
    at: Time,
    clients: Vec<ClientId>,
}

/// Who begins or ceases to have to sign.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub client: ClientId,
    pub must_sign: bool,
}

/// Evidence and measures; see the module.
///
/// Invariant: at most [`STATUS_DISPUTES`] clients are disputed in a view, or claimed by one replica.
#[derive(Debug)]
pub(super) struct MacDisputes {
    clients: usize,
    weak: usize,
    base: Duration,
    /// In this view: a frame of each client whose MAC failed here, and where it was proposed.
    disputed: BTreeMap<ClientId, (FrameKey, SeqNo)>,
    named: BTreeMap<ClientId, Named>,
    /// By replica: what its last status said.
    claimed: BTreeMap<NodeId, Claim>,
    must_sign: BTreeSet<ClientId>,
}

impl MacDisputes {
    /// For so many clients; `weak` is f+1, `base` how long a client is named at first.
    pub(super) fn new(clients: usize, weak: usize, base: Duration) -> Self {
        Self {
            clients,
            weak,
            base,
            disputed: BTreeMap::new(),
            named: BTreeMap::new(),
            claimed: BTreeMap::new(),
            must_sign: BTreeSet::new(),
        }
    }

    /// A frame was proposed for this place in this view whose MAC failed here.
    pub(super) fn add(&mut self, key: FrameKey, seq: SeqNo) {
        if self.disputed.len() < STATUS_DISPUTES || self.disputed.contains_key(&key.client) {
            self.disputed.insert(key.client, (key, seq));
        }
    }

    /// The view is lost: names the clients whose disputed frames were not decided, nor the places that they were
    /// proposed for. Whether there are any.
    pub(super) fn on_view_lost(&mut self, now: Time, is_decided: impl Fn(FrameKey, SeqNo) -> bool) -> bool {
        let lost = std::mem::take(&mut self.disputed);
        let mut any = false;
        for client in lost
            .into_values()
            .filter(|(key, seq)| !is_decided(*key, *seq))
            .map(|(key, _)| key.client)
        {
            let before = self
                .named
                .get(&client)
                .filter(|named| !self.is_forgiven(now, named));
            let lasts = before.map_or(self.base, |named| (named.lasts * 2).min(self.base * LONGEST));
            let until = now.after(lasts);
            self.named.insert(client, Named { until, lasts });
            any = true;
        }
        any
    }

    /// Whether so much has passed that a client is named as at first.
    fn is_forgiven(&self, now: Time, named: &Named) -> bool {
        now >= named.until.after(self.base * LONGEST)
    }

    /// What our status says.
    pub(super) fn named(&self, now: Time) -> Vec<ClientId> {
        let names = self.named.iter().filter(|(_, named)| is_on(now, named.until));
        names.map(|(client, _)| *client).take(STATUS_DISPUTES).collect()
    }

    /// What another's status says.
    pub(super) fn claim(&mut self, now: Time, from: NodeId, clients: &[u32]) {
        let known = clients.iter().filter(|client| (**client as usize) < self.clients);
        let clients: Vec<ClientId> = known.map(|client| ClientId::new(*client)).collect();
        match clients.is_empty() {
            true => self.claimed.remove(&from),
            false => self.claimed.insert(from, Claim { at: now, clients }),
        };
    }

    /// Counts who names whom, and tells what is different from before.
    pub(super) fn settle(&mut self, now: Time) -> Vec<Change> {
        if self.named.is_empty() && self.claimed.is_empty() && self.must_sign.is_empty() {
            return Vec::new();
        }
        let longest = self.base * LONGEST;
        self.named
            .retain(|_, named| is_on(now, named.until.after(longest)));
        // Whoever is gone says nothing any more.
        self.claimed
            .retain(|_, claim| is_on(now, claim.at.after(longest)));
        let mut count: BTreeMap<ClientId, usize> = BTreeMap::new();
        let own = self.named(now);
        let claims = self.claimed.values().map(|claim| &claim.clients);
        for clients in claims.chain([&own]) {
            let distinct: BTreeSet<ClientId> = clients.iter().copied().collect();
            distinct
                .into_iter()
                .for_each(|client| *count.entry(client).or_default() += 1);
        }
        let enough = if active(Mutant::OneAccuserBelieved) {
            1
        } else {
            self.weak
        };
        let must_sign: BTreeSet<ClientId> = count
            .into_iter()
            .filter_map(|(client, count)| (count >= enough).then_some(client))
            .collect();
        let before = std::mem::replace(&mut self.must_sign, must_sign);
        let change = |must_sign| {
            move |client: &ClientId| Change {
                client: *client,
                must_sign,
            }
        };
        let begin = self.must_sign.difference(&before).map(change(true));
        begin
            .chain(before.difference(&self.must_sign).map(change(false)))
            .collect()
    }

    /// Everybody who has to sign here.
    pub(super) fn must_sign(&self) -> impl Iterator<Item = ClientId> {
        self.must_sign.iter().copied()
    }
}

fn is_on(now: Time, until: Time) -> bool {
    now < until || active(Mutant::SigningNeverEnds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::types::FrameSeq;

    const BASE: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn key(client: u32) -> FrameKey {
        FrameKey {
            client: ClientId::new(client),
            sequence: FrameSeq::new(1),
        }
    }

    fn change(client: u32, must_sign: bool) -> Change {
        let client = ClientId::new(client);
        Change { client, must_sign }
    }

    /// Four replicas, of which this one finds a frame of client 3 wanting and loses the view.
    fn lost() -> MacDisputes {
        let mut disputes = MacDisputes::new(10, 2, BASE);
        disputes.add(key(3), SeqNo::new(7));
        assert!(disputes.on_view_lost(at(0), |_, _| false));
        disputes
    }

    #[test]
    fn nobody_signs_on_the_word_of_f_replicas() {
        let mut disputes = lost();
        assert_eq!(disputes.settle(at(0)), []);
        disputes.claim(at(1), NodeId::new(1), &(0..64).collect::<Vec<u32>>());
        assert_eq!(
            disputes.settle(at(1)),
            [change(3, true)],
            "that one says so as well"
        );
        let mut other = MacDisputes::new(10, 2, BASE);
        let naming = [0, 0, 1, 1, 7, 900];
        other.claim(at(1), NodeId::new(1), &naming);
        assert_eq!(other.settle(at(1)), [], "it is one, however often it says so");
        other.claim(at(2), NodeId::new(2), &[7]);
        assert_eq!(other.settle(at(2)), [change(7, true)]);
        other.claim(at(3), NodeId::new(2), &[]);
        assert_eq!(other.settle(at(3)), [change(7, false)]);
    }

    #[test]
    fn a_dispute_that_did_not_cost_the_view_is_none() {
        let mut disputes = MacDisputes::new(10, 2, BASE);
        disputes.add(key(3), SeqNo::new(7));
        assert!(!disputes.on_view_lost(at(0), |_, _| true), "it was decided");
        assert!(!disputes.on_view_lost(at(0), |_, _| false), "another view");
        disputes.add(key(3), SeqNo::new(7));
        let decided = SeqNo::new(7);
        assert!(
            !disputes.on_view_lost(at(0), |_, seq| seq <= decided),
            "the view went on"
        );
        assert_eq!(disputes.named(at(0)), []);
    }

    #[test]
    fn having_to_sign_ends_by_itself_and_lasts_longer_the_next_time() {
        let mut disputes = lost();
        let other = NodeId::new(1);
        disputes.claim(at(0), other, &[3]);
        assert_eq!(disputes.settle(at(0)), [change(3, true)]);
        assert_eq!(disputes.settle(at(999)), []);
        assert_eq!(disputes.settle(at(1000)), [change(3, false)]);
        for (start, lasts) in [
            (2000, 2000),
            (5000, 4000),
            (10_000, 8000),
            (20_000, 16_000),
            (40_000, 16_000),
        ] {
            disputes.claim(at(start), other, &[3]);
            disputes.add(key(3), SeqNo::new(7));
            disputes.on_view_lost(at(start), |_, _| false);
            assert_eq!(disputes.settle(at(start)), [change(3, true)]);
            assert_eq!(disputes.settle(at(start + lasts - 1)), []);
            let ended = disputes.settle(at(start + lasts));
            assert_eq!(ended, [change(3, false)], "{lasts}");
        }
        // All is forgiven after as long again.
        disputes.add(key(3), SeqNo::new(7));
        disputes.on_view_lost(at(80_000), |_, _| false);
        assert_eq!(disputes.named(at(80_999)), [ClientId::new(3)]);
        assert_eq!(disputes.named(at(81_000)), []);
    }

    #[test]
    fn what_a_replica_said_that_is_gone_ends_as_well() {
        let mut disputes = MacDisputes::new(10, 2, BASE);
        disputes.claim(at(0), NodeId::new(1), &[3]);
        disputes.claim(at(0), NodeId::new(2), &[3]);
        assert_eq!(disputes.settle(at(0)), [change(3, true)]);
        assert_eq!(disputes.settle(at(15_999)), []);
        assert_eq!(disputes.settle(at(16_000)), [change(3, false)]);
    }
}
