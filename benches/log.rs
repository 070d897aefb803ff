//! What appending to the persistent log costs, and what the disk could do.
//!
//! `cargo bench --bench log -- [--dir DIR] [--seconds S] [--record-bytes N] [--json FILE]` drives the
//! production [`LogWriter`] (encoding, checksums, group by group, one under way) over zero-filled,
//! preallocated segments with `O_DIRECT`, and has each group written and synced in one of these ways:
//!
//! - *separate*: io_uring write, and when it is complete io_uring fdatasync;
//! - *linked*: both submitted at once, linked;
//! - *dsync*: io_uring write with `RWF_DSYNC`, complete when it is on the disk, which (*fixed*) is what the
//!   log role does;
//! - *syscalls*: `pwrite`, then `fdatasync`.
//!
//! The first three also with registered buffers (*fixed*). Ways take turns, round by round, so that what else
//! runs on the machine meets them all. The raw limit of the device is measured in the same run: eight writes
//! of 1 MiB under way, none of them synced.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atlas_smr_replica::load::median;
use atlas_smr_replica::protocol::Record;
use atlas_smr_replica::storage::{BLOCK_BYTES, LogOperation, LogWriter, WriterSettings};
use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use io_uring::{IoUring, opcode, squeue, types};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENTS: u64 = 2;
const GROUPS: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
const ROUNDS: u32 = 5;
/// Kind and length before a record, and the header before a group.
const RECORD_FRAME_BYTES: usize = 5;
const GROUP_HEADER_BYTES: usize = 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Separate,
    Linked,
    Dsync,
    Syscalls,
}

#[derive(Debug, Clone, Copy)]
struct Method {
    name: &'static str,
    way: Way,
    fixed: bool,
}

const fn method(name: &'static str, way: Way, fixed: bool) -> Method {
    Method { name, way, fixed }
}

const METHODS: [Method; 7] = [
    method("separate", Way::Separate, false),
    method("separate, fixed", Way::Separate, true),
    method("linked", Way::Linked, false),
    method("linked, fixed", Way::Linked, true),
    method("dsync", Way::Dsync, false),
    method("dsync, fixed", Way::Dsync, true),
    method("syscalls", Way::Syscalls, false),
];

#[derive(Serialize)]
struct Row {
    method: &'static str,
    registered_buffers: bool,
    group_bytes: usize,
    groups: u64,
    bytes_per_s: f64,
    records_per_s: f64,
    /// Appended bytes as a share of what the device takes without any sync.
    share_of_device: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// Processor time of the process, kernel workers included, per group.
    cpu_us_per_group: f64,
}

#[derive(Serialize)]
struct Report {
    directory: String,
    seconds_per_method: f64,
    record_bytes: usize,
    segment_bytes: u64,
    rounds: u32,
    device_bytes_per_s: f64,
    /// One block, written and synced by system calls.
    sync_p50_us: f64,
    sync_p99_us: f64,
    rows: Vec<Row>,
}

/// Compare the ways of writing the log.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the segments lie.
    #[arg(long = "dir", default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// Measured time per method.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Bytes of a record.
    #[arg(long, default_value_t = 256)]
    record_bytes: usize,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn zero_filled(path: &Path) -> File {
    let mut file = File::create(path).expect("the directory can be written");
    let zeros = vec![0; 1 << 20];
    (0..SEGMENT_BYTES >> 20).for_each(|_| file.write_all(&zeros).expect("there is space"));
    file.sync_all().expect("the disk syncs");
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .expect("the file system has O_DIRECT")
}

/// Writes and syncs one group; gives only when it is on disk.
struct Disk {
    way: Way,
    ring: Option<IoUring>,
    fixed: bool,
}

impl Disk {
    fn new(method: Method, writer: &LogWriter) -> Self {
        let ring = (method.way != Way::Syscalls).then(|| {
            let ring = IoUring::builder()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .build(8)
                .expect("the kernel has io_uring");
            if method.fixed {
                let vectors: Vec<libc::iovec> = writer
                    .buffers()
                    .iter()
                    .map(|buffer| libc::iovec {
                        iov_base: buffer.as_ptr().cast_mut().cast(),
                        iov_len: buffer.len(),
                    })
                    .collect();
                // SAFETY: the writer's buffers stay where they are and outlive every write of this ring.
                unsafe { ring.submitter().register_buffers(&vectors) }.expect("memory may be locked");
            }
            ring
        });
        Self {
            way: method.way,
            ring,
            fixed: method.fixed,
        }
    }

    fn write(&mut self, file: &File, bytes: &[u8], buffer: u16, offset: u64) {
        let Some(ring) = &mut self.ring else {
            file.write_all_at(bytes, offset).expect("the write succeeds");
            return;
        };
        let (fd, length) = (types::Fd(file.as_raw_fd()), bytes.len() as u32);
        let flags = if self.way == Way::Dsync {
            libc::RWF_DSYNC
        } else {
            0
        };
        let write = match self.fixed {
            true => opcode::WriteFixed::new(fd, bytes.as_ptr(), length, buffer)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            false => opcode::Write::new(fd, bytes.as_ptr(), length)
                .offset(offset)
                .rw_flags(flags)
                .build(),
        };
        let mut submitted = vec![write];
        if self.way == Way::Linked {
            submitted[0] = submitted[0].clone().flags(squeue::Flags::IO_LINK);
            submitted.push(sync_of(fd));
        }
        let results = complete(ring, &submitted);
        assert_eq!(results[0], length as i32, "the write is whole");
        assert!(results.iter().all(|result| *result >= 0), "{results:?}");
    }

    fn sync(&mut self, file: &File) {
        match (&mut self.ring, self.way) {
            (None, _) => file.sync_data().expect("the disk syncs"),
            (Some(ring), Way::Separate) => {
                let results = complete(ring, &[sync_of(types::Fd(file.as_raw_fd()))]);
                assert_eq!(results, [0], "the disk syncs");
            }
            // Done with the write.
            _ => {}
        }
    }
}

fn sync_of(fd: types::Fd) -> squeue::Entry {
    opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()
}

/// Submits these and waits for all; their results in order.
fn complete(ring: &mut IoUring, entries: &[squeue::Entry]) -> Vec<i32> {
    for (number, entry) in entries.iter().enumerate() {
        let entry = entry.clone().user_data(number as u64);
        // SAFETY: what is written stays where it is until this function has waited for it.
        unsafe { ring.submission().push(&entry) }.expect("the ring has room");
    }
    ring.submit_and_wait(entries.len()).expect("the ring works");
    let mut results = vec![0; entries.len()];
    for completion in ring.completion() {
        results[completion.user_data() as usize] = completion.result();
    }
    results
}

/// A log and a way to write it.
struct Lane {
    writer: LogWriter,
    disk: Disk,
    record: Record,
    records_per_group: usize,
    latency_ns: Histogram<u64>,
    busy: Duration,
    cpu: Duration,
    groups: u64,
    bytes: u64,
}

impl Lane {
    fn new(method: Method, group_bytes: usize, record_bytes: usize) -> Self {
        let settings = WriterSettings {
            tag: 1,
            seed: 2,
            segment_bytes: SEGMENT_BYTES,
            segments_max: usize::MAX,
            record_bytes_max: 64 << 10,
        };
        let writer = LogWriter::new(settings, 1);
        let contents = record_bytes - RECORD_FRAME_BYTES;
        Self {
            disk: Disk::new(method, &writer),
            writer,
            record: Record::ViewTransfer(Bytes::from(vec![7; contents])),
            records_per_group: (group_bytes - GROUP_HEADER_BYTES) / record_bytes,
            latency_ns: Histogram::new(3).expect("three digits"),
            busy: Duration::ZERO,
            cpu: Duration::ZERO,
            groups: 0,
            bytes: 0,
        }
    }

    fn run(&mut self, files: &[File], length: Duration) {
        let (start, cpu) = (Instant::now(), process_cpu());
        while start.elapsed() < length {
            for _ in 0..self.records_per_group {
                self.writer.append(&self.record);
            }
            if let Some(index) = self.writer.wanted_segment() {
                self.writer.add_segment(index);
            }
            let begin = Instant::now();
            while let Some(operation) = self.writer.next_operation() {
                let outcome = match operation {
                    LogOperation::Write { segment, offset } => {
                        let (bytes, buffer) = (self.writer.bytes(), self.writer.buffer());
                        self.disk
                            .write(&files[(segment % SEGMENTS) as usize], bytes, buffer, offset);
                        self.bytes += bytes.len() as u64;
                        bytes.len()
                    }
                    LogOperation::Sync { segment } => {
                        self.disk.sync(&files[(segment % SEGMENTS) as usize]);
                        0
                    }
                };
                self.writer.on_complete(Ok(outcome)).expect("it succeeded");
            }
            self.groups += 1;
            self.latency_ns
                .record(begin.elapsed().as_nanos() as u64)
                .expect("it grows");
        }
        self.busy += start.elapsed();
        self.cpu += process_cpu() - cpu;
    }
}

/// Processor time of this process and of the kernel's workers for it.
fn process_cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the struct it is given.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Bytes per second that the device takes with eight writes of 1 MiB under way and no sync.
fn device_limit(file: &File, length: Duration) -> f64 {
    const DEPTH: usize = 8;
    const WRITE_BYTES: usize = 1 << 20;
    let memory = vec![7_u8; WRITE_BYTES + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let bytes = &memory[start..start + WRITE_BYTES];
    let mut ring = IoUring::new(16).expect("the kernel has io_uring");
    let (begin, mut written, mut next) = (Instant::now(), 0, 0);
    while begin.elapsed() < length {
        let entries: Vec<_> = (0..DEPTH)
            .map(|_| {
                let offset = next % SEGMENT_BYTES;
                next += WRITE_BYTES as u64;
                opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), WRITE_BYTES as u32)
                    .offset(offset)
                    .build()
            })
            .collect();
        let results = complete(&mut ring, &entries);
        assert!(
            results.iter().all(|result| *result == WRITE_BYTES as i32),
            "{results:?}"
        );
        written += DEPTH * WRITE_BYTES;
    }
    written as f64 / begin.elapsed().as_secs_f64()
}

impl Lane {
    /// What came of it; `device` is what the device takes, in bytes a second.
    fn row(&self, method: &Method, group_bytes: usize, device: f64) -> Row {
        let seconds = self.busy.as_secs_f64();
        let bytes_per_s = self.bytes as f64 / seconds;
        let us = |quantile: f64| self.latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
        Row {
            method: method.name,
            registered_buffers: method.fixed,
            group_bytes,
            groups: self.groups,
            bytes_per_s,
            records_per_s: (self.groups as usize * self.records_per_group) as f64 / seconds,
            share_of_device: bytes_per_s / device,
            p50_us: us(0.5),
            p99_us: us(0.99),
            max_us: us(1.0),
            cpu_us_per_group: self.cpu.as_secs_f64() * 1e6 / self.groups as f64,
        }
    }
}

impl Row {
    fn print(&self) {
        println!(
            "{:<17} {:>9} {:>9.1} {:>12.0} {:>6.0}% {:>9.0} {:>9.0} {:>10.0} {:>10.1}",
            self.method,
            self.group_bytes,
            self.bytes_per_s / 1048576.0,
            self.records_per_s,
            100.0 * self.share_of_device,
            self.p50_us,
            self.p99_us,
            self.max_us,
            self.cpu_us_per_group
        );
    }
}

fn main() {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir_in(&arguments.directory).expect("the directory can be written");
    let files: Vec<File> = (0..SEGMENTS)
        .map(|index| zero_filled(&temporary.path().join(index.to_string())))
        .collect();
    let round = Duration::from_secs_f64(arguments.seconds / f64::from(ROUNDS));
    let device = median((0..ROUNDS).map(|_| device_limit(&files[0], round / 2)));
    println!(
        "log in {}: records of {} bytes, {} MiB segments, {ROUNDS} rounds of {:.1} s per method and size",
        arguments.directory.display(),
        arguments.record_bytes,
        SEGMENT_BYTES >> 20,
        round.as_secs_f64()
    );
    println!(
        "the device takes {:.0} MiB/s without syncs (8 writes of 1 MiB under way)",
        device / 1048576.0
    );
    println!(
        "{:<17} {:>9} {:>9} {:>12} {:>7} {:>9} {:>9} {:>10} {:>10}",
        "method", "group", "MiB/s", "records/s", "device", "p50 µs", "p99 µs", "max µs", "CPU µs/grp"
    );
    let mut rows = Vec::new();
    for group_bytes in GROUPS {
        let mut lanes = METHODS.map(|method| Lane::new(method, group_bytes, arguments.record_bytes));
        for _ in 0..ROUNDS {
            lanes.iter_mut().for_each(|lane| lane.run(&files, round));
        }
        for (method, lane) in METHODS.iter().zip(&lanes) {
            let row = lane.row(method, group_bytes, device);
            row.print();
            rows.push(row);
        }
    }
    let of_block = |row: &&Row| row.method == "syscalls" && row.group_bytes == GROUPS[0];
    let block = rows.iter().find(of_block).expect("it was measured");
    let report = Report {
        directory: arguments.directory.display().to_string(),
        seconds_per_method: arguments.seconds,
        record_bytes: arguments.record_bytes,
        segment_bytes: SEGMENT_BYTES,
        rounds: ROUNDS,
        device_bytes_per_s: device,
        sync_p50_us: block.p50_us,
        sync_p99_us: block.p99_us,
        rows,
    };
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).expect("rows are plain");
        std::fs::write(path, text).expect("the file can be written");
    }
}
