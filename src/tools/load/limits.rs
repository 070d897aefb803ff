//! What this machine can do at most, for each term of an operation's cost:
//!
//! `C = receive/k + bytes + auth/k + execute + reply/k + (12 votes)/B + log bytes`, with k operations in a
//! frame and B in a decision. Each term is measured alone, with the same primitives that replicas use and
//! nothing else around them; what an operation of a run needs of each, priced at these limits, is the least
//! it can cost on this machine.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Report;
use crate::runtime::ring;
use crate::runtime::server::own_cpu_time;
use crate::smr::crypto::{BatchVerifier, Digester, Domain, LinkSecret, MacKey, Opener, Sealer, SigningKey};
use crate::smr::types::ClusterId;

/// As large as a vote.
const MESSAGE_BYTES: usize = 128;
/// As large as the records that batches are sent in.
const RECORD_BYTES: usize = 64 << 10;
/// Bytes around an operation in a frame.
const OPERATION_HEAD_BYTES: f64 = 4.0;
/// Bytes of an operation that reads a key.
const READ_BYTES: f64 = 11.0;
const SYNC_BYTES: usize = 4096;
const LOG_BYTES: usize = 1 << 20;

/// The machine's own limits, each measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes per second over one loopback connection, sender and receiver on whatever cores there are.
    pub loopback_bytes_s: f64,
    /// CPU time of moving one byte so, both ends together, in nanoseconds.
    pub loopback_byte_ns: f64,
    /// CPU time of sending and receiving one message of 128 bytes, both ends together, in microseconds.
    pub loopback_message_us: f64,
    /// Hashing one byte of a frame (BLAKE3), in nanoseconds.
    pub hash_byte_ns: f64,
    /// Sealing and opening one byte of a link (AES-256-GCM), in nanoseconds.
    pub seal_byte_ns: f64,
    /// Checking one MAC, in microseconds.
    pub mac_us: f64,
    /// Checking one Ed25519 signature among 32, in microseconds.
    pub signature_us: f64,
    /// Passing one item through a ring, in nanoseconds.
    pub ring_hop_ns: f64,
    /// Writing 4 KiB in place and waiting until they are on disk, in microseconds: the median.
    pub sync_us: f64,
    /// Bytes per second written in place, synced MiB by MiB.
    pub log_bytes_s: f64,
}

/// Why the limits cannot be measured.
#[derive(Debug, thiserror::Error)]
#[error("the machine's limits cannot be measured: {0}")]
pub struct LimitsError(#[from] std::io::Error);

/// The shortest time of one of `count` things, over several tries: others on the machine only ever make it
/// longer.
fn fastest_ns(count: usize, mut run: impl FnMut()) -> f64 {
    let tries = (0..15).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    let fastest = tries.min().unwrap_or(Duration::ZERO);
    fastest.as_secs_f64() * 1e9 / count as f64
}

fn connected() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Bytes per second, and nanoseconds of CPU time per byte.
fn loopback_bytes() -> std::io::Result<(f64, f64)> {
    let (mut near, mut far) = connected()?;
    let receiver = std::thread::spawn(move || {
        let mut buffer = vec![0; RECORD_BYTES];
        let mut total = 0u64;
        while let Ok(read @ 1..) = far.read(&mut buffer) {
            total += read as u64;
        }
        (total, own_cpu_time())
    });
    let (chunk, cpu, start) = (vec![7; RECORD_BYTES], own_cpu_time(), Instant::now());
    while start.elapsed() < Duration::from_millis(400) {
        near.write_all(&chunk)?;
    }
    drop(near);
    let sender_cpu = own_cpu_time().saturating_sub(cpu);
    let (total, receiver_cpu) = receiver
        .join()
        .map_err(|_| std::io::Error::other("the receiver failed"))?;
    Ok((
        total as f64 / start.elapsed().as_secs_f64(),
        (sender_cpu + receiver_cpu).as_secs_f64() * 1e9 / total as f64,
    ))
}

/// Microseconds of CPU time per message, one way: two ends that take turns on one thread, so that nobody is
/// woken.
fn loopback_message() -> std::io::Result<f64> {
    const TURNS: usize = 500;
    let (mut near, mut far) = connected()?;
    let mut message = [7; MESSAGE_BYTES];
    let mut outcome = Ok(());
    let ns = fastest_ns(2 * TURNS, || {
        let mut turn = || {
            near.write_all(&message)?;
            far.read_exact(&mut message)?;
            far.write_all(&message)?;
            near.read_exact(&mut message)
        };
        for _ in 0..TURNS {
            if outcome.is_ok() {
                outcome = turn();
            }
        }
    });
    outcome.map(|()| ns / 1000.0)
}

fn seal_byte_ns() -> f64 {
    let (mut sealer, mut opener) = (Sealer::new(&[1; 32]), Opener::new(&[1; 32]));
    let (record, mut sealed, mut plain) = (vec![7; RECORD_BYTES], Vec::new(), vec![0; RECORD_BYTES]);
    fastest_ns(8 * RECORD_BYTES, || {
        for _ in 0..8 {
            sealed.clear();
            let works = sealer
                .seal(&mut sealed, |out| out.extend_from_slice(&record))
                .is_ok()
                && opener.open_into(&sealed[4..], &mut plain).is_ok();
            assert!(works, "a fresh link seals and opens");
        }
    })
}

fn mac_us(digester: &Digester, cluster: ClusterId) -> f64 {
    let (ours, theirs) = (LinkSecret::generate(), LinkSecret::generate());
    let digest = digester.digest(Domain::RequestFrame, &[7; MESSAGE_BYTES]);
    let Some(key) = MacKey::between(&ours, &theirs.public(), cluster) else {
        return 0.0;
    };
    let mac = key.mac(&digest);
    let ns = fastest_ns(1000, || {
        for _ in 0..1000 {
            assert!(std::hint::black_box(&key).verify(&digest, &mac));
        }
    });
    ns / 1000.0
}

fn signature_us(digester: &Digester) -> f64 {
    const SIGNATURES: usize = 32;
    let digest = digester.digest(Domain::RequestFrame, &[7; MESSAGE_BYTES]);
    let signed: Vec<_> = (0..SIGNATURES)
        .map(|_| {
            let key = SigningKey::generate();
            (key.verifying_key(), key.sign(Domain::RequestFrame, &digest))
        })
        .collect();
    let mut verifier = BatchVerifier::default();
    let ns = fastest_ns(SIGNATURES, || {
        for (key, signature) in &signed {
            verifier.queue(key, Domain::RequestFrame, &digest, signature);
        }
        verifier.verify(|valid| assert!(valid, "what was signed is valid"));
    });
    ns / 1000.0
}

fn ring_hop_ns() -> f64 {
    const ITEMS: usize = 10_000;
    let (mut producer, mut consumer) = ring::channel::<[u64; 5]>(64);
    fastest_ns(ITEMS, || {
        for number in 0..ITEMS {
            let pushed = producer.push([number as u64; 5]).is_ok();
            assert!(pushed && consumer.pop().is_some(), "an empty ring takes an item");
        }
    })
}

/// Repeats a synced write until the time is over; how long each took, in order.
fn synced_writes(file: &File, bytes: usize, budget: Duration) -> std::io::Result<Vec<Duration>> {
    let (data, begin, mut took) = (vec![7; bytes], Instant::now(), Vec::new());
    while begin.elapsed() < budget || took.is_empty() {
        let start = Instant::now();
        file.write_all_at(&data, 0)?;
        file.sync_data()?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

impl Limits {
    /// Measures all of them, in about two seconds. Writes one MiB into a file of its own in `directory`, and
    /// removes it.
    ///
    /// # Errors
    /// When the loopback or the directory cannot be used.
    pub fn measure(directory: &Path) -> Result<Self, LimitsError> {
        let cluster = ClusterId::from_bytes([1; 16]);
        let digester = Digester::new(cluster);
        let (loopback_bytes_s, loopback_byte_ns) = loopback_bytes()?;
        let record = vec![7; RECORD_BYTES];
        let hash_byte_ns = fastest_ns(RECORD_BYTES, || {
            std::hint::black_box(digester.digest(Domain::RequestFrame, &record));
        });
        let directory = tempfile::TempDir::with_prefix_in("atlas-limits-", directory)?;
        let path = directory.path().join("synced");
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        // The log is written in place as well: its segments are filled before.
        file.write_all_at(&vec![0; LOG_BYTES], 0)?;
        file.sync_all()?;
        let syncs = synced_writes(&file, SYNC_BYTES, Duration::from_millis(300))?;
        let writes = synced_writes(&file, LOG_BYTES, Duration::from_millis(300))?;
        Ok(Self {
            loopback_bytes_s,
            loopback_byte_ns,
            loopback_message_us: loopback_message()?,
            hash_byte_ns,
            seal_byte_ns: seal_byte_ns(),
            mac_us: mac_us(&digester, cluster),
            signature_us: signature_us(&digester),
            ring_hop_ns: ring_hop_ns(),
            sync_us: syncs[syncs.len() / 2].as_secs_f64() * 1e6,
            log_bytes_s: LOG_BYTES as f64 / writes[writes.len() / 2].as_secs_f64(),
        })
    }

    /// The limits by name, for people.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let per_second = |bytes: f64| format!("{:.2} GB/s", bytes / 1e9);
        vec![
            ("loopback, one connection", per_second(self.loopback_bytes_s)),
            (
                "loopback, 128-byte message",
                format!("{:.2} µs CPU", self.loopback_message_us),
            ),
            ("hash (BLAKE3)", per_second(1e9 / self.hash_byte_ns)),
            ("seal and open (AES-GCM)", per_second(1e9 / self.seal_byte_ns)),
            ("MAC check", format!("{:.0} ns", 1000.0 * self.mac_us)),
            ("signature check, of 32", format!("{:.1} µs", self.signature_us)),
            ("ring hop", format!("{:.1} ns", self.ring_hop_ns)),
            ("fdatasync of 4 KiB", format!("{:.0} µs", self.sync_us)),
            ("log writes, synced by MiB", per_second(self.log_bytes_s)),
        ]
    }

    /// What one operation of a run cannot cost less than at one replica, term by term, in microseconds of CPU
    /// time. Execution costs what the service does, of which only the compute knob is known.
    #[must_use]
    pub fn floor(&self, run: &Report) -> Vec<(&'static str, f64)> {
        let n = run.n.max(1) as f64;
        let reads = run.shape.reads;
        let bytes = OPERATION_HEAD_BYTES + run.payload_bytes as f64 * (1.0 - reads) + READ_BYTES * reads;
        // Every replica receives an operation once, and all but one of those copies come from the leader, so
        // the replicas together pay one end of the client's copy and both ends of the others: (2n − 1) ends
        // of 2n.
        let ends = (2.0 * n - 1.0) / (2.0 * n);
        let frames = 1.0 / run.operations_per_frame.max(1.0);
        let auth_us = match run.auth.as_str() {
            "signature" => self.signature_us,
            _ => self.mac_us,
        };
        vec![
            (
                "messages",
                self.loopback_message_us * run.messages_per_op_per_replica,
            ),
            ("bytes moved", self.loopback_byte_ns * bytes * ends / 1000.0),
            ("bytes sealed", self.seal_byte_ns * bytes * ends / 1000.0),
            ("bytes hashed", self.hash_byte_ns * bytes / 1000.0),
            ("authentication", auth_us * frames),
            ("ring hops", 4.0 * self.ring_hop_ns * frames / 1000.0),
            ("compute", run.compute_us),
        ]
    }

    /// The part of a run's CPU time per operation and replica that the limits account for, from 0 to 1.
    #[must_use]
    pub fn share(&self, run: &Report) -> f64 {
        let floor: f64 = self.floor(run).iter().map(|(_, us)| us).sum();
        floor / run.cpu_us_per_op_per_replica.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_measured_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits::measure(directory.path()).unwrap();
        let values = serde_json::to_value(limits).unwrap();
        for (name, value) in values.as_object().unwrap() {
            assert!(value.as_f64().unwrap() > 0.0, "{name}");
        }
        assert_eq!(limits.rows().len() + 1, values.as_object().unwrap().len());
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "nothing is left"
        );
    }
}
