use std::collections::BTreeMap;
use std::time::Duration;

use super::{Broken, Rule};
use crate::sim::SimConfig;
use crate::smr::types::{ClientId, Time};

/// A name given to a client lasts so many times longer than at first, and is heard of for so long after that.
const LASTS: u32 = 2 * 16;
/// A view that stands still is lost within this.
const VIEW_LOST: Duration = Duration::from_secs(120);

/// Which honest clients correct replicas have sign, and why: a MAC of such a client failed at a correct
/// replica to which it was proposed, as is computed here. It ends within a time after the last such proposal.
pub(in crate::sim) struct Blame {
    honest: usize,
    bound: Duration,
    /// By honest client: when a frame was last proposed to a correct replica whose MAC for that was not the
    /// client's.
    failed: Vec<Option<Time>>,
    /// By host and client: who has to sign.
    signs: BTreeMap<(usize, u32), ()>,
}

impl Blame {
    /// `held` is how long a message may be on its way at most.
    pub(in crate::sim) fn new(config: &SimConfig, held: Duration) -> Self {
        Self {
            honest: config.honest_clients,
            bound: config.must_sign_for * LASTS + VIEW_LOST + held,
            failed: vec![None; config.honest_clients],
            signs: BTreeMap::new(),
        }
    }

    /// A frame was proposed to a correct replica with a MAC that is not its client's.
    pub(in crate::sim) fn fails(&mut self, now: Time, client: ClientId) {
        if let Some(failed) = self.failed.get_mut(client.get() as usize) {
            *failed = Some(now);
        }
    }

    /// A correct host has a client sign, or does not any more.
    pub(in crate::sim) fn signs(&mut self, host: usize, client: ClientId, must: bool) -> Result<(), Broken> {
        let number = client.get();
        let Some(failed) = self.failed.get(number as usize) else {
            return Ok(());
        };
        match must {
            true => self.signs.insert((host, number), ()),
            false => self.signs.remove(&(host, number)),
        };
        match must && failed.is_none() {
            true => Err((
                Rule::Blame,
                format!("host {host} has c{number} sign, none of whose MACs ever failed"),
            )),
            false => Ok(()),
        }
    }

    /// A host starts again, or is gone.
    pub(in crate::sim) fn restarts(&mut self, host: usize) {
        self.signs.retain(|(signing, _), ()| *signing != host);
    }

    /// Time passes.
    pub(in crate::sim) fn passes(&self, now: Time, host: usize) -> Result<(), Broken> {
        for client in 0..self.honest {
            let failed = self.failed[client].unwrap_or(Time::START);
            let signs = self.signs.contains_key(&(host, client as u32));
            if signs && now.since(failed) > self.bound {
                let what =
                    format!("host {host} has c{client} sign, whose MACs have not failed since {failed:?}");
                return Err((Rule::Blame, what));
            }
        }
        Ok(())
    }
}
