//! Ports that nobody listens at on this host.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use crate::tools::cli::CommandError;

/// Below those that the kernel gives to outgoing connections by default: what listens here finds its port
/// free again after it was away.
const PORTS: Range<u16> = 10_000..32_000;

/// The first of `count` ports in a row that are free now. Random ones, so that several clusters have ports of
/// their own and can run at once.
pub(super) fn free_anywhere(count: u16) -> Result<u16, CommandError> {
    free_from(rand::random_range(PORTS), count)
}

/// The same, from `port` on where there are some.
pub(super) fn free_from(port: u16, count: u16) -> Result<u16, CommandError> {
    let last = PORTS.end - count;
    let mut firsts = (port..=last).chain(PORTS.start..=last);
    let found = firsts.find(|first| (*first..first + count).all(is_free));
    found.ok_or_else(|| format!("no {count} ports in a row are free from {} on", PORTS.start).into())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_ports_of_which_one_is_taken_is_passed_over() {
        let first = free_anywhere(3).unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
        let other = free_from(first, 3).unwrap();
        assert!(
            !(other..other + 3).contains(&(first + 1)),
            "{other} for {first} to {}",
            first + 2
        );
    }

    #[test]
    fn ports_beyond_those_looked_at_have_the_search_begin_anew() {
        for port in [PORTS.end - 1, u16::MAX] {
            assert!(PORTS.contains(&free_from(port, 2).unwrap()));
        }
    }
}
