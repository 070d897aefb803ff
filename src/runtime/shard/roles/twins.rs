//! Which starts of one replica's process have had a link with this one.
//!
//! Each start has a random number. A replica that was started again shows a new number and never an old one;
//! two processes that run with one identity take turns, so a number comes back after another one was there.

use std::collections::VecDeque;

/// How many starts are remembered.
const STARTS: usize = 8;

/// The starts of one replica, the one linked last at the back.
#[derive(Debug, Default)]
pub(super) struct Starts(VecDeque<u64>);

impl Starts {
    /// A link with this start came up; true if an earlier one than the last came back: both run.
    pub fn on_link(&mut self, start: u64) -> bool {
        if self.0.back() == Some(&start) {
            return false;
        }
        let known = self.0.iter().position(|known| *known == start);
        if let Some(at) = known {
            self.0.remove(at);
        } else if self.0.len() == STARTS {
            self.0.pop_front();
        }
        self.0.push_back(start);
        known.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_that_take_turns_are_told_from_one_that_is_started_again() {
        for (links, twins) in [
            (&[1, 1, 1][..], 0),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0),
            (&[1, 2, 2, 1], 1),
            (&[1, 2, 1, 2, 1], 3),
            (&[1, 2, 3, 2, 1], 2),
        ] {
            let mut starts = Starts::default();
            let found = links.iter().filter(|start| starts.on_link(**start)).count();
            assert_eq!(found, twins, "{links:?}");
        }
    }
}
