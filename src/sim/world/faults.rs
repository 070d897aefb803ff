use super::World;
use crate::execution::Application;
use crate::sim::plan::Fault;

impl<A: Application + Clone> World<A> {
    /// A host loses power for good.
    pub(in crate::sim) fn crash(&mut self, host: usize) {
        self.hosts[host].is_up = false;
        self.hosts[host].disk.crash();
        self.tell(|_| format!("host {host} loses power"));
    }

    /// Lets a fault strike now.
    pub(in crate::sim) fn strike(&mut self, fault: &Fault) {
        self.tell(|_| format!("{fault:?}"));
        match fault {
            Fault::Crash { host } => {
                self.hit("crash", 1);
                self.crash(*host);
            }
            Fault::FailedSync { host } => {
                self.hit("failed sync", 1);
                self.crash(*host);
            }
            Fault::SlowDisk { host, factor, until } => {
                self.hit("slow disk", 1);
                self.hosts[*host].disk.slow_down(*factor, *until);
            }
            Fault::FullDisk { host, until } => {
                self.hit("full disk", 1);
                self.hosts[*host].disk.fill_up(*until);
            }
            Fault::ClockJump { host, by } => {
                self.hit("clock jump", 1);
                self.hosts[*host].clock.0 += by.as_nanos() as u64;
                self.schedule_turn(*host);
            }
            Fault::SlowLink { host, by } => self.network.slow_down(*host, *by),
            Fault::Partition {
                from,
                to,
                both,
                until,
            } => {
                self.hit(if *both { "partition" } else { "one-way partition" }, 1);
                for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))) {
                    self.network.cut(a, b, *until);
                    if *both {
                        self.network.cut(b, a, *until);
                    }
                }
            }
        }
    }
}
