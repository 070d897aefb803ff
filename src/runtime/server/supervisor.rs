//! Tells whoever supervises the process how its replica is, as sd_notify(3) has it; and sees threads that
//! hang.
//!
//! The control shard beats once a second or more often. At each beat it wakes every data shard, so that those
//! that are well turn; it reports to the supervisor only while all of them did. So a watchdog (`WatchdogSec=`
//! in the unit) sees a data shard that hangs, and a control shard that hangs as well: nothing is reported
//! then.
//!
//! Nothing here waits: a supervisor that does not read loses what it is told. That is why the datagram is
//! sent by hand; the sd-notify crate sends it with a socket that blocks.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::metrics::Metrics;
use crate::runtime::shard::control::Beat;
use crate::runtime::shard::data::Lifecycle;
use crate::runtime::shard::pulse::Vitals;

/// The time between two beats, unless a watchdog wants them more often.
const BEAT: Duration = Duration::from_secs(1);
/// How many beats there are in a watchdog's time.
const BEATS: u32 = 4;

/// Whoever supervises this process, and whether it has a watchdog. The default is nobody. Clones are equal.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` for this process
    /// (`WATCHDOG_PID`).
    ///
    /// # Errors
    /// When a socket is named that cannot be reached.
    pub fn of_environment() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| is_ours && *time > 0);
        Self::at(name.as_bytes(), watchdog.map(Duration::from_micros))
    }

    /// One that listens at this path, or at this abstract name if it begins with `@`, and ends the process
    /// when it hears nothing of it for as long as `watchdog`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn at(name: &[u8], watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        }?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Self {
            socket: Some(Arc::new(socket)),
            watchdog,
        })
    }

    /// Tells it something, a `NAME=value` on each line; whether it took it. What it does not take at once is
    /// lost.
    pub(crate) fn tell(&self, words: &str) -> bool {
        self.socket
            .as_ref()
            .is_some_and(|socket| socket.send(words.as_bytes()).is_ok())
    }

    /// The time between two beats.
    fn beats_every(&self) -> Duration {
        self.watchdog.map_or(BEAT, |watchdog| BEAT.min(watchdog / BEATS))
    }

    /// How long a thread may give no sign before the watchdog is told nothing any more.
    fn patience(&self) -> Duration {
        self.watchdog
            .map_or(BEATS * BEAT, |watchdog| watchdog / 2)
            .max(2 * self.beats_every())
    }
}

/// What the control shard does at its beats.
pub(super) fn beat(
    supervisor: Supervisor,
    vitals: Vitals,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    quorum: usize,
) -> Beat {
    let every = supervisor.beats_every();
    let mut reporter = Reporter {
        supervisor,
        vitals,
        lifecycle,
        metrics,
        links_needed: quorum as u64 - 1,
        is_ready: false,
        said: String::new(),
        silent: Vec::new(),
    };
    Beat {
        every,
        call: Box::new(move || reporter.beat()),
    }
}

struct Reporter {
    supervisor: Supervisor,
    vitals: Vitals,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    /// Links with other replicas, for a quorum.
    links_needed: u64,
    is_ready: bool,
    /// The last status.
    said: String,
    /// Who was silent at the last beat.
    silent: Vec<String>,
}

impl Reporter {
    fn beat(&mut self) {
        self.vitals.beat();
        let silent = self.vitals.silent_for(self.supervisor.patience());
        if silent != self.silent {
            match silent.is_empty() {
                true => tracing::warn!("all threads turn again"),
                false => tracing::error!(
                    threads = silent.join(", "),
                    "threads hang: they give no sign of life"
                ),
            }
            self.silent = silent;
        }
        if self.supervisor.socket.is_none() {
            return;
        }
        let mut words = String::new();
        let is_ready = self.vitals.have_begun();
        if is_ready && !self.is_ready {
            words.push_str("READY=1\n");
        }
        if self.supervisor.watchdog.is_some() && self.silent.is_empty() {
            words.push_str("WATCHDOG=1\n");
        }
        let status = self.status();
        if status != self.said {
            words.push_str(&format!("STATUS={status}\n"));
        }
        // What it did not take is told again at the next beat.
        if !words.is_empty() && self.supervisor.tell(&words) {
            (self.is_ready, self.said) = (is_ready, status);
        }
    }

    fn status(&self) -> String {
        if !self.silent.is_empty() {
            return format!("HANGS: no sign of life of {}", self.silent.join(", "));
        }
        if self.lifecycle.is_draining() {
            return DRAINS.to_owned();
        }
        let standing = self.metrics.standing();
        let links = standing.replica_links;
        if links < self.links_needed {
            return format!(
                "waiting for other replicas: linked with {links}, {} needed",
                self.links_needed
            );
        }
        format!(
            "{}, view {}, linked with {links} replicas and {} clients",
            standing.phase(),
            standing.view,
            standing.client_links
        )
    }
}

/// What is said of a replica that drains.
pub(super) const DRAINS: &str = "draining: finishing what it has";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ring::Doorbell;
    use crate::smr::types::NodeId;

    /// A reporter of one shard, whoever it reports to, and the shard's pulse.
    fn reporter() -> (Reporter, UnixDatagram, Vitals) {
        let name = format!(
            "atlas-supervisor-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let heard = UnixDatagram::bind_addr(&address).unwrap();
        heard.set_nonblocking(true).unwrap();
        let supervisor = Supervisor::at(format!("@{name}").as_bytes(), Some(Duration::from_secs(3600)));
        let shards = [("d0".to_owned(), Doorbell::new().unwrap())];
        let vitals = Vitals::new("control".to_owned(), shards);
        let reporter = Reporter {
            supervisor: supervisor.unwrap(),
            vitals: vitals.clone(),
            lifecycle: Lifecycle::default(),
            metrics: Arc::new(Metrics::new(NodeId::new(0))),
            links_needed: 2,
            is_ready: false,
            said: String::new(),
            silent: Vec::new(),
        };
        (reporter, heard, vitals)
    }

    fn hear(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_replica_is_ready_once_its_shards_turn_and_its_status_is_told_when_it_changes() {
        let (mut reporter, heard, vitals) = reporter();
        reporter.beat();
        let said = hear(&heard);
        assert!(!said.contains("READY=1"), "{said}");
        vitals.of_shard(0).beat();
        reporter.beat();
        assert_eq!(hear(&heard), "READY=1\nWATCHDOG=1\n");
        reporter.beat();
        assert_eq!(hear(&heard), "WATCHDOG=1\n");
        let up = &reporter.metrics.counters.replica_links_up;
        up.store(2, std::sync::atomic::Ordering::Relaxed);
        reporter.beat();
        let said = hear(&heard);
        assert!(
            said.contains("\nSTATUS=") && said.contains("linked with 2 replicas"),
            "{said}"
        );
        reporter.lifecycle.drain();
        reporter.beat();
        assert_eq!(hear(&heard), format!("WATCHDOG=1\nSTATUS={DRAINS}\n"));
    }

    #[test]
    fn a_watchdog_hears_nothing_while_a_shard_gives_no_sign() {
        let (mut reporter, heard, vitals) = reporter();
        vitals.of_shard(0).beat();
        reporter.beat();
        hear(&heard);
        // As if the patience had run out.
        reporter.supervisor.watchdog = Some(Duration::ZERO);
        let before = std::time::Instant::now();
        while before.elapsed() < Duration::from_millis(3) {
            std::hint::spin_loop();
        }
        reporter.beat();
        let said = hear(&heard);
        // With no patience at all the control shard may be among them.
        assert!(said.starts_with("STATUS=HANGS: no sign of life of "), "{said}");
        assert!(said.ends_with("d0\n") && !said.contains("WATCHDOG"), "{said}");
        reporter.supervisor.watchdog = Some(Duration::from_secs(3600));
        vitals.of_shard(0).beat();
        reporter.beat();
        assert!(hear(&heard).starts_with("WATCHDOG=1\nSTATUS=waiting for other replicas"));
    }

    #[test]
    fn a_supervisor_that_does_not_listen_or_hangs_holds_nobody_up() {
        assert!(Supervisor::at(b"/no/such/socket", None).is_err());
        let (mut reporter, hangs, vitals) = reporter();
        // More than any socket's queue takes, and then what matters.
        (0..10_000).for_each(|_| reporter.beat());
        vitals.of_shard(0).beat();
        reporter.beat();
        while !hear(&hangs).is_empty() {}
        reporter.beat();
        assert!(
            hear(&hangs).starts_with("READY=1\n"),
            "it is told once it is heard"
        );
    }
}
