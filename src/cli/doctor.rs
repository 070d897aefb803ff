use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use crate::load::Limits;
use crate::shard::probe;

/// Look whether this machine can run replicas well, and say what to change.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    /// Measure as well what this machine can do at most, term by term of an operation's cost; takes two seconds.
    #[arg(long)]
    limits: bool,
    /// The directory whose disk is measured.
    #[arg(long, default_value = ".", requires = "limits")]
    data: PathBuf,
}

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
    let remedy = "use kernel 6.1 or later; allow io_uring (sysctl kernel.io_uring_disabled=0, and in the \
                  container's seccomp profile the calls io_uring_setup, io_uring_enter, io_uring_register)";
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
    let grade = if limit >= 8 << 20 {
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
        "raise it to 8 MiB or more: ulimit -l 8192, or LimitMEMLOCK=8M in the unit",
    )
}

fn open_files() -> Finding {
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
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let ids: Vec<String> = cores.iter().map(|core| core.id.to_string()).collect();
    let grade = if cores.len() >= 4 {
        Grade::Good
    } else {
        Grade::Warning
    };
    let remedy = "four cores or more give each kind of work its own; fewer are folded into one shard, which is fine \
                  for development";
    Finding::new(
        "cores",
        grade,
        format!("{} usable: {}", cores.len(), ids.join(", ")),
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

impl Doctor {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let findings = [
            kernel(),
            io_uring(),
            memlock(),
            open_files(),
            cores(),
            clock(),
            cpu_accounting(),
        ];
        let limits = match self.limits {
            true => Some(Limits::measure(&self.data)?),
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
