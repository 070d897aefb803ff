use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::CommandError;
use crate::runtime::server::descriptors;
use crate::runtime::shard::control;
use crate::runtime::shard::cores::Cores;
use crate::runtime::shard::memory::first_touch;
use crate::runtime::shard::probe;
use crate::tools::load::Limits;

/// Look whether this machine can run replicas well, and say what to change.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Also look whether a replica's data can lie in this directory, and how long its disk takes to sync.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print a seccomp profile for container runtimes that allows io_uring, and nothing else.
    #[arg(long)]
    seccomp: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    /// Measure as well what this machine can do at most, term by term of an operation's cost; takes two
    /// seconds.
    #[arg(long)]
    limits: bool,
}

/// Forbids what container runtimes forbid by default, io_uring excepted.
const SECCOMP: &str = include_str!("../../../deploy/seccomp.json");

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Good,
    Warning,
    Bad,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "✔",
            Self::Warning => "!",
            Self::Bad => "✗",
        })
    }
}

#[derive(Debug, serde::Serialize)]
struct Finding {
    grade: Grade,
    subject: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl Finding {
    fn new(subject: &'static str, grade: Grade, found: String, remedy: &'static str) -> Self {
        Self {
            grade,
            subject,
            found,
            remedy: (grade != Grade::Good).then_some(remedy),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn io_uring() -> Finding {
    let is_filtered = read("/proc/self/status")
        .lines()
        .any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
    let remedy = match is_filtered {
        true => {
            "this process is under a seccomp profile: atlas doctor --seccomp > seccomp.json, and run the container with \
             --security-opt seccomp=seccomp.json (Kubernetes: securityContext.seccompProfile, type Localhost). Also use kernel 6.1 or \
             later, and sysctl kernel.io_uring_disabled=0"
        }
        false => {
            "use kernel 6.1 or later and sysctl kernel.io_uring_disabled=0; in containers, run with the seccomp profile that \
             `atlas doctor --seccomp` prints (deploy/seccomp.json)"
        }
    };
    match probe::ring() {
        Ok(()) => Finding::new(
            "io_uring",
            Grade::Good,
            "a data shard's ring works: single issuer, deferred task work, multishot receive, provided buffers".into(),
            remedy,
        ),
        Err(error) => Finding::new("io_uring", Grade::Bad, error, remedy),
    }
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease");
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let grade = if version >= (6, 1) {
        Grade::Good
    } else {
        Grade::Bad
    };
    Finding::new("kernel", grade, release, "use kernel 6.1 or later")
}

fn memlock() -> Finding {
    let limit = probe::limit(libc::RLIMIT_MEMLOCK);
    if let Err(refused @ control::ControlError::LockedMemory { .. }) = control::expect_startable() {
        let remedy = "no replica starts here; with 64 MiB the log's buffers are registered too";
        return Finding::new("locked memory", Grade::Bad, refused.to_string(), remedy);
    }
    let grade = if limit >= 64 << 20 {
        Grade::Good
    } else {
        Grade::Warning
    };
    let found = if limit == u64::MAX {
        "unlimited".into()
    } else {
        format!("{} KiB", limit >> 10)
    };
    Finding::new(
        "locked memory",
        grade,
        found,
        "rings and the log's registered buffers lie in it; raise it to 64 MiB or more: ulimit -l 65536, or LimitMEMLOCK=64M in the unit",
    )
}

fn open_files() -> Finding {
    if let Err(refused) = descriptors::expect_usual() {
        let remedy = "that is what a replica of four takes with the file that `atlas init` makes, and it does not start here; more replicas \
                      or connections take more";
        return Finding::new("open files", Grade::Bad, refused.to_string(), remedy);
    }
    let limit = probe::limit(libc::RLIMIT_NOFILE);
    let grade = if limit >= 4096 {
        Grade::Good
    } else {
        Grade::Warning
    };
    let remedy = "raise it to 4096 or more: ulimit -n 4096, or LimitNOFILE=4096 in the unit";
    Finding::new("open files", grade, limit.to_string(), remedy)
}

fn cores() -> Finding {
    let cores = Cores::of_process();
    let ids: Vec<String> = cores.ids.iter().map(ToString::to_string).collect();
    let quota = cores.quota.map_or_else(String::new, |quota| {
        format!("; a CPU quota of the control group is worth {quota}, so nothing is pinned")
    });
    let grade = if cores.usable().len() >= 4 {
        Grade::Good
    } else {
        Grade::Warning
    };
    let remedy = "four cores or more give each kind of work its own; fewer are folded into one shard, which is fine \
                  for development";
    Finding::new(
        "cores",
        grade,
        format!("{} usable: {}{quota}", ids.len(), ids.join(", ")),
        remedy,
    )
}

fn clock() -> Finding {
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let fast = [
        "tsc",
        "kvm-clock",
        "arch_sys_counter",
        "hyperv_clocksource_tsc_page",
    ];
    let grade = if fast.contains(&source.as_str()) {
        Grade::Good
    } else {
        Grade::Warning
    };
    Finding::new(
        "clock",
        grade,
        source,
        "a slow clock source costs a system call per reading: boot with clocksource=tsc",
    )
}

fn cpu_accounting() -> Finding {
    let grade = if read("/proc/thread-self/schedstat").is_empty() {
        Grade::Warning
    } else {
        Grade::Good
    };
    let found = if grade == Grade::Good {
        "per thread, in nanoseconds"
    } else {
        "missing"
    };
    Finding::new(
        "CPU accounting",
        grade,
        found.into(),
        "figures of CPU per operation need CONFIG_SCHED_INFO",
    )
}

fn memory() -> Finding {
    let remedy = "set `huge_pages = false` in [topology]: the kernel does not tell what they cost here";
    match first_touch() {
        Ok(found) => {
            let us = |time: Duration| time.as_micros();
            let advice = match found.huge < found.small {
                true => "`huge_pages = true` in [topology] may make large states faster",
                false => "keep `huge_pages = false` in [topology]",
            };
            let text = format!(
                "2 MiB are touched for the first time in {} µs of small pages, {} µs as a huge page: {advice}",
                us(found.small),
                us(found.huge)
            );
            Finding::new("memory", Grade::Good, text, remedy)
        }
        Err(error) => Finding::new("memory", Grade::Warning, error.to_string(), remedy),
    }
}

/// A sync that takes longer slows every decision down.
const SLOW_SYNC: Duration = Duration::from_millis(5);
/// A sync of a disk takes longer: what is faster keeps data in memory, or in a cache that outlives a power
/// cut.
const FAST_SYNC: Duration = Duration::from_micros(5);

fn disk(directory: &Path) -> Finding {
    let found = match probe::disk(directory) {
        Ok(found) => found,
        Err(error) => {
            let remedy = "keep `db_path` on a file system of a disk (ext4, xfs) that this user may write to, not on tmpfs or a \
                          network; in a container, on a volume";
            return Finding::new("disk", Grade::Bad, error, remedy);
        }
    };
    let us = |time: Duration| time.as_micros();
    let (median, longest) = (us(found.median), us(found.longest));
    let text = format!(
        "{}: a block is written and synced in {median} µs (longest {longest} µs)",
        directory.display()
    );
    if found.median < FAST_SYNC {
        let remedy =
            "this is memory, not a disk: after a power cut nothing would be there. Keep `db_path` on a disk";
        return Finding::new("disk", Grade::Warning, text, remedy);
    }
    if found.median > SLOW_SYNC {
        let remedy = "every decision waits for syncs: a disk with a protected write cache takes less than a millisecond";
        return Finding::new("disk", Grade::Warning, text, remedy);
    }
    let grade = if found.registers {
        Grade::Good
    } else {
        Grade::Warning
    };
    let remedy =
        "the log's buffer cannot be registered: raise the locked memory (ulimit -l 65536, LimitMEMLOCK=64M)";
    Finding::new("disk", grade, text, remedy)
}

impl Doctor {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        if self.seccomp {
            print!("{SECCOMP}");
            return Ok(ExitCode::SUCCESS);
        }
        let mut findings = vec![
            kernel(),
            io_uring(),
            memlock(),
            open_files(),
            cores(),
            clock(),
            cpu_accounting(),
            memory(),
        ];
        findings.extend(self.data.as_deref().map(disk));
        let limits = match self.limits {
            true => Some(Limits::measure(self.data.as_deref().unwrap_or(Path::new(".")))?),
            false => None,
        };
        if self.json {
            let text = match &limits {
                None => serde_json::to_string_pretty(&findings)?,
                Some(limits) => serde_json::to_string_pretty(&serde_json::json!({
                    "findings": findings,
                    "limits": limits,
                }))?,
            };
            println!("{text}");
        } else {
            for Finding {
                grade,
                subject,
                found,
                remedy,
            } in &findings
            {
                println!("{grade} {subject:<15} {found}");
                if let Some(remedy) = remedy {
                    println!("  {:<15} → {remedy}", "");
                }
            }
            if let Some(limits) = &limits {
                println!("what this machine can do at most");
                for (name, value) in limits.rows() {
                    println!("  {name:<28} {value:>14}");
                }
            }
        }
        let bad = findings.iter().any(|finding| finding.grade == Grade::Bad);
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seccomp_profile_forbids_much_and_no_call_of_io_uring() {
        let profile: serde_json::Value = serde_json::from_str(SECCOMP).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
        let rules = profile["syscalls"].as_array().unwrap();
        let names = rules.iter().flat_map(|rule| rule["names"].as_array().unwrap());
        let names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
        assert!(rules.iter().all(|rule| rule["action"] == "SCMP_ACT_ERRNO"));
        assert!(
            ["mount", "ptrace", "bpf", "kexec_load"]
                .iter()
                .all(|name| names.contains(name))
        );
        assert!(!names.iter().any(|name| name.starts_with("io_uring")));
    }

    #[test]
    fn a_directory_is_found_fit_or_named_with_the_reason() {
        let temporary = tempfile::tempdir().unwrap();
        let found = disk(temporary.path());
        assert!(
            found.found.contains("a block is written and synced in"),
            "{found:?}"
        );
        assert_eq!(
            std::fs::read_dir(temporary.path()).unwrap().count(),
            0,
            "nothing is left there"
        );
        let missing = disk(&temporary.path().join("missing"));
        assert!(
            missing.grade == Grade::Bad && missing.found.contains("missing"),
            "{missing:?}"
        );
    }
}
