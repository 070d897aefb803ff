//! The handshakes under way, and which of them ends when another connection waits.
//!
//! A member or client sends its hello with its first packet, so:
//! - *Who has said nothing goes first,* after a moment, in which a first packet follows its connection's: a
//!   crowd of silent connections is turned over in no time.
//! - *Then who has claimed to be somebody and proves it slowly,* after a grace that is halved with every
//!   turn-over in which nobody came through, and is restored by whoever does.
//! - *Of these, one of the address that holds most places,* the oldest first: one address never crowds
//!   another out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

/// How often the grace is halved at most.
const HALVINGS_MAX: u32 = 3;

/// The handshakes under way.
#[derive(Default)]
pub(super) struct Handshakes {
    under_way: RefCell<BTreeMap<u64, UnderWay>>,
    waiting: RefCell<Option<Waker>>,
    /// Ended in favour of others since one came through.
    evictions: Cell<u32>,
}

struct UnderWay {
    from: IpAddr,
    since: Instant,
    /// A sound hello has come; who sent it is not proven.
    has_spoken: bool,
    /// Dropped to end the handshake in favour of another one.
    #[expect(dead_code, reason = "its drop is the message")]
    evict: oneshot::Sender<()>,
}

/// What became of an attempt to end one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Evicted {
    /// One was ended.
    One,
    /// There is none.
    None,
    /// The one to end has so much of its grace left.
    NotBefore(Duration),
}

impl Handshakes {
    pub fn begin(&self, id: u64, from: IpAddr, since: Instant) -> oneshot::Receiver<()> {
        let (evict, evicted) = oneshot::channel();
        let new = UnderWay {
            from,
            since,
            has_spoken: false,
            evict,
        };
        self.under_way.borrow_mut().insert(id, new);
        evicted
    }

    /// A handshake's hello has come, and is sound.
    pub fn on_hello(&self, id: u64) {
        if let Some(handshake) = self.under_way.borrow_mut().get_mut(&id) {
            handshake.has_spoken = true;
        }
    }

    pub fn end(&self, id: u64, came_through: bool) {
        self.under_way.borrow_mut().remove(&id);
        if came_through {
            self.evictions.set(0);
        }
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    pub fn under_way(&self) -> usize {
        self.under_way.borrow().len()
    }

    /// Ends the handshake whose turn it is, if it has had its grace.
    pub fn evict(&self, now: Instant, silent_grace: Duration, grace: Duration) -> Evicted {
        let mut under_way = self.under_way.borrow_mut();
        let mut of_address: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for handshake in under_way.values() {
            *of_address.entry(handshake.from).or_default() += 1;
        }
        let turn_overs = self.evictions.get() / u32::try_from(under_way.len().max(1)).unwrap_or(u32::MAX);
        let grace = grace / 2u32.pow(turn_overs.min(HALVINGS_MAX));
        let first = under_way.iter().min_by_key(|(id, handshake)| {
            let crowd = usize::MAX - of_address.get(&handshake.from).copied().unwrap_or(0);
            (handshake.has_spoken, crowd, **id)
        });
        let Some((id, handshake)) = first else {
            return Evicted::None;
        };
        let grace = match handshake.has_spoken {
            true => grace,
            false => silent_grace,
        };
        let left = grace.saturating_sub(now.saturating_duration_since(handshake.since));
        if !left.is_zero() {
            return Evicted::NotBefore(left);
        }
        let id = *id;
        under_way.remove(&id);
        self.evictions.set(self.evictions.get().saturating_add(1));
        Evicted::One
    }

    /// Completes when fewer than `max` are under way. Only the accepting task waits here.
    pub async fn fewer_than(&self, max: usize) {
        poll_fn(|context| {
            if self.under_way() < max {
                Poll::Ready(())
            } else {
                self.waiting.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(1);
    const SILENT: Duration = Duration::from_millis(20);

    /// Handshakes of these addresses (the last byte), begun at once; who is in `spoken` has said its hello.
    fn crowd(of: &[u8], spoken: &[u64], at: Instant) -> (Handshakes, Vec<oneshot::Receiver<()>>) {
        let handshakes = Handshakes::default();
        let ends = (0..).zip(of);
        let ends = ends.map(|(id, last)| handshakes.begin(id, IpAddr::from([10, 0, 0, *last]), at));
        let ends = ends.collect();
        spoken.iter().for_each(|id| handshakes.on_hello(*id));
        (handshakes, ends)
    }

    #[test]
    fn the_silent_go_first_then_the_crowd_of_one_address_then_the_oldest() {
        for (of, spoken, order) in [
            (&[1, 2, 3][..], &[][..], &[0, 1, 2][..]),
            (&[1, 2, 3], &[0, 1], &[2, 0, 1]),
            (&[1, 2, 2, 2], &[], &[1, 2, 0, 3]),
            (&[1, 2, 2, 3], &[0, 1, 2], &[3, 1, 0, 2]),
        ] {
            let start = Instant::now();
            let (handshakes, _ends) = crowd(of, spoken, start);
            for expected in order {
                assert_eq!(handshakes.evict(start + 2 * GRACE, SILENT, GRACE), Evicted::One);
                let left = handshakes.under_way.borrow();
                assert!(!left.contains_key(expected), "{of:?} {spoken:?}: not {expected}");
            }
            assert_eq!(handshakes.evict(start + 2 * GRACE, SILENT, GRACE), Evicted::None);
        }
    }

    #[test]
    fn the_grace_of_who_has_spoken_shrinks_while_nobody_comes_through_and_that_of_the_silent_is_a_moment() {
        let start = Instant::now();
        let (handshakes, _ends) = crowd(&[1], &[], start);
        assert_eq!(handshakes.evict(start, SILENT, GRACE), Evicted::NotBefore(SILENT));
        let mut graces = Vec::new();
        for id in 1..7 {
            drop(handshakes.begin(id, IpAddr::from([10, 0, 0, 2]), start));
            handshakes.on_hello(id);
            handshakes.end(id - 1, false);
            let Evicted::NotBefore(left) = handshakes.evict(start, SILENT, GRACE) else {
                panic!("it has its grace")
            };
            graces.push(left);
            assert_eq!(handshakes.evict(start + left, SILENT, GRACE), Evicted::One);
        }
        assert_eq!(graces, [1, 2, 4, 8, 8, 8].map(|part| GRACE / part));
        drop(handshakes.begin(9, IpAddr::from([10, 0, 0, 2]), start));
        handshakes.end(9, true);
        drop(handshakes.begin(10, IpAddr::from([10, 0, 0, 2]), start));
        handshakes.on_hello(10);
        assert_eq!(
            handshakes.evict(start, SILENT, GRACE),
            Evicted::NotBefore(GRACE),
            "somebody came through"
        );
    }
}
