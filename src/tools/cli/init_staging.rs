//! A new cluster's files come whole, or not at all: they are made aside and then moved to their place.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, IsTerminal};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{CommandError, interrupts};
use crate::runtime::config::ReplicaConfig;
use crate::runtime::storage::DataDirectory;
use crate::smr::types::NodeId;
use crate::tools::scratch::Scratch;

/// The file that a cluster is not one without: it is moved last.
pub(super) const CLUSTER_FILE: &str = "cluster.toml";

/// What the names of directories begin with in which files are made.
pub(super) const ASIDE: &str = ".atlas-init-";

/// What is in a data directory that was made and never used.
const DATA: [&str; 3] = ["log", "images", "superblock"];

/// What an interrupt costs.
const NOT_MADE: &str = "nothing was made";

/// How long this may take before it shows how far it is.
const SILENT: Duration = Duration::from_secs(1);

/// Files that are being made.
pub(super) struct Staging {
    scratch: Scratch,
    out: PathBuf,
    /// The files' directory, which was there before; nobody else makes files in it.
    claimed: Option<File>,
    /// What lies outside of the directory aside and goes with it unless all of it is settled.
    outside: Outside,
    progress: Progress,
}

impl Staging {
    /// Begins to make files in `out`, of so many parties.
    pub(super) fn begin(
        out: &Path,
        replicas: u16,
        clients: u32,
        operators: u16,
    ) -> Result<Self, CommandError> {
        let is_new = out.file_name().is_some() && out.symlink_metadata().is_err();
        let within = match out.parent().filter(|_| is_new) {
            Some(above) if above != Path::new("") => above,
            Some(_) => Path::new("."),
            None => out,
        };
        fs::create_dir_all(within).map_err(at(within))?;
        let claimed = match is_new {
            true => None,
            false => Some(claim(out, (replicas, clients, operators))?),
        };
        let mut name = tempfile::Builder::new();
        // As `mkdir` makes directories: the umask takes from it.
        let name = name.prefix(ASIDE).permissions(Permissions::from_mode(0o777));
        Ok(Self {
            scratch: Scratch::new(name, within).map_err(at(within))?,
            out: out.to_owned(),
            claimed,
            outside: Outside(Vec::new()),
            progress: Progress::of(u64::from(replicas) + u64::from(clients)),
        })
    }

    /// Where a file is made.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), CommandError> {
        let path = self.path(name);
        fs::write(&path, text).map_err(at(&path))?;
        Ok(())
    }

    /// The files of one more party are made.
    pub(super) fn next(&mut self) -> Result<(), CommandError> {
        interrupts::expect_none(NOT_MADE)?;
        self.progress.step();
        Ok(())
    }

    /// Reads the files as replica 0 will, and makes every replica's data directory, which its file names.
    pub(super) fn format(&mut self, directories: impl Iterator<Item = PathBuf>) -> Result<(), CommandError> {
        self.progress.say("checking them");
        let out = std::path::absolute(&self.out).map_err(at(&self.out))?;
        let cluster = ReplicaConfig::load(&self.path("r0.toml"))?
            .replica_config
            .node
            .cluster;
        for (node, directory) in (0..).map(NodeId::new).zip(directories) {
            interrupts::expect_none(NOT_MADE)?;
            // What lies in the files' directory comes with it, where that is made now.
            let within = match directory.strip_prefix(&out) {
                Ok(within) => Some(within),
                Err(_) => directory.is_relative().then_some(directory.as_path()),
            };
            let path = match within.filter(|_| self.claimed.is_none()) {
                Some(within) => self.scratch.path().join(within),
                None => self.outside.announce(self.out.join(&directory)),
            };
            DataDirectory::format(&path, cluster.cluster_id(), node, cluster.epoch()).inspect_err(|_| {
                // What is in it is somebody else's.
                self.outside.forget(&path);
            })?;
        }
        Ok(())
    }

    /// Moves everything to its place. From here on nobody is asked any more whether to go on.
    pub(super) fn settle(mut self) -> Result<(), CommandError> {
        self.progress.say("moving them to their place");
        if self.claimed.is_none() {
            fs::rename(self.scratch.path(), &self.out).map_err(at(&self.out))?;
        } else {
            let entries = fs::read_dir(self.scratch.path()).map_err(at(self.scratch.path()))?;
            let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            let names: Vec<_> = names
                .collect::<io::Result<_>>()
                .map_err(at(self.scratch.path()))?;
            let is_last = |name: &&std::ffi::OsString| name.as_os_str() == CLUSTER_FILE;
            let (last, first): (Vec<_>, Vec<_>) = names.iter().partition(is_last);
            for name in first.into_iter().chain(last) {
                let to = self.outside.announce(self.out.join(name));
                fs::rename(self.scratch.path().join(name), &to).map_err(at(&to))?;
            }
        }
        self.outside.0.clear();
        // The data directories' names are on disk; so is where they are now.
        for directory in [Some(self.out.as_path()), self.out.parent()]
            .into_iter()
            .flatten()
        {
            let directory = if directory == Path::new("") {
                Path::new(".")
            } else {
                directory
            };
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(at(directory))?;
        }
        Ok(())
    }
}

/// What is removed again when it was not all made.
struct Outside(Vec<(PathBuf, bool)>);

impl Outside {
    /// Something will be made here.
    fn announce(&mut self, path: PathBuf) -> PathBuf {
        let was_there = path.exists();
        self.0.push((path.clone(), was_there));
        path
    }

    fn forget(&mut self, path: &Path) {
        self.0.retain(|(other, was_there)| other != path || !was_there);
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for (path, was_there) in self.0.drain(..) {
            let made = match was_there {
                true => DATA.iter().map(|name| path.join(name)).collect(),
                false => vec![path],
            };
            for path in made.iter().filter(|path| path.exists()) {
                let removed = match path.is_dir() {
                    true => fs::remove_dir_all(path),
                    false => fs::remove_file(path),
                };
                if let Err(error) = removed {
                    eprintln!("atlas: {} is left, remove it: {error}", path.display());
                }
            }
        }
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

/// Sees that nothing in a directory would be overwritten, and that nobody else makes files in it meanwhile.
fn claim(out: &Path, parties: (u16, u32, u16)) -> Result<File, CommandError> {
    let directory = File::open(out).map_err(at(out))?;
    if let Err(TryLockError::WouldBlock) = directory.try_lock() {
        return Err(format!("{}: another `atlas init` makes files here", out.display()).into());
    }
    let entries = fs::read_dir(out).map_err(at(out))?;
    let mut taken = None;
    for entry in entries {
        let entry = entry.map_err(at(out))?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| is_of(name, parties));
        if is_ours && is_in_use(&entry.path()) {
            taken = Some(entry.path());
        }
    }
    let Some(taken) = taken else { return Ok(directory) };
    let taken = taken.display();
    Err(match out.join(CLUSTER_FILE).exists() {
        true => format!("{taken} exists; choose an empty directory").into(),
        false => format!(
            "{taken} exists, but {CLUSTER_FILE} does not: an `atlas init` was killed before it had finished, and no cluster \
             has these files; remove them, or choose an empty directory"
        )
        .into(),
    })
}

/// Whether a cluster of this size has a file or directory of this name.
fn is_of(name: &str, (replicas, clients, operators): (u16, u32, u16)) -> bool {
    let number = |prefix: char, suffixes: &[&str]| -> Option<u32> {
        let name = name.strip_prefix(prefix)?;
        let number = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix))?;
        number.parse().ok()
    };
    name == CLUSTER_FILE
        || number('r', &[".toml", ".key", "-data"]).is_some_and(|id| id < u32::from(replicas))
        || number('c', &[".toml", ".key"]).is_some_and(|id| id < clients)
        || number('o', &[".key"]).is_some_and(|id| id < u32::from(operators))
}

/// Whether it is more than a directory that waits for its first file, like a volume.
fn is_in_use(path: &Path) -> bool {
    !path.is_dir() || path.join("superblock").exists()
}

/// How far it is, on a terminal, once it takes long.
struct Progress {
    begun: Instant,
    bar: ProgressBar,
    is_shown: bool,
    done: u64,
    parties: u64,
}

impl Progress {
    fn of(parties: u64) -> Self {
        Self {
            begun: Instant::now(),
            bar: ProgressBar::hidden(),
            is_shown: false,
            done: 0,
            parties,
        }
    }

    fn step(&mut self) {
        self.done += 1;
        if !self.is_shown && self.begun.elapsed() > SILENT {
            self.is_shown = true;
            self.bar = match std::io::stderr().is_terminal() {
                true => ProgressBar::new(self.parties),
                false => ProgressBar::hidden(),
            };
            if let Ok(style) = ProgressStyle::with_template("  {bar:40} {msg}") {
                self.bar.set_style(style);
            }
        }
        self.bar.set_position(self.done);
        self.bar
            .set_message(format!("files of {} of {} parties", self.done, self.parties));
    }

    fn say(&self, what: &'static str) {
        self.bar.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
