use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::smr::protocol::InvalidSetting;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}; `atlas init` makes a cluster's files", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is not TOML, or a key or value in it is not known.
    #[error("{}:{line}: {message}{}", path.display(), did_you_mean(nearest.as_deref()))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// The known key nearest to an unknown one.
        nearest: Option<String>,
    },
    /// The file is of another kind.
    #[error("{}: this is {is} file; name {wanted} file instead", path.display())]
    Whose {
        /// The file.
        path: PathBuf,
        /// What it is.
        is: Whose,
        /// What it should be.
        wanted: Whose,
    },
    /// A value is outside what it may be.
    #[error("{}:{line}: {key} = {value}: {rule}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// A key file can be read by others than its owner.
    #[error("{}: mode {mode:o} lets others read the secret keys; run: chmod 600 {}", path.display(), path.display())]
    KeyFileMode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The cluster has no such replica or client.
    #[error("{}: there is no {owner} in {}, which lists {listed} of them, numbered from 0", path.display(), cluster.display())]
    NotListed {
        /// The file of who is not there.
        path: PathBuf,
        /// The cluster's file.
        cluster: PathBuf,
        /// Whose it says it is.
        owner: String,
        /// How many there are.
        listed: usize,
    },
    /// A key file's keys are not the ones the cluster lists for its owner.
    #[error("{}: these are not the keys that {} lists for {owner}", path.display(), cluster.display())]
    KeyMismatch {
        /// The key file.
        path: PathBuf,
        /// The cluster's file.
        cluster: PathBuf,
        /// Whose keys they should be.
        owner: String,
    },
}

/// Whose a configuration file is, as its first keys say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    Cluster,
    /// A replica's own.
    Replica,
    /// A client's own.
    Client,
    /// Secret keys.
    Keys,
    /// An operator's secret key.
    Operator,
}

impl Whose {
    /// What a text is, as far as that shows.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let keys = text.lines().take_while(|line| !line.starts_with('['));
        let keys: Vec<&str> = keys
            .filter_map(|line| Some(line.split_once('=')?.0.trim()))
            .collect();
        let marks = [
            ("node", Self::Replica),
            ("client", Self::Client),
            ("signing_seed", Self::Keys),
            ("operator_seed", Self::Operator),
            ("genesis", Self::Cluster),
        ];
        marks
            .into_iter()
            .find_map(|(mark, whose)| keys.contains(&mark).then_some(whose))
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cluster => "a cluster's",
            Self::Replica => "a replica's",
            Self::Client => "a client's",
            Self::Keys => "a key",
            Self::Operator => "an operator's key",
        })
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

/// The error that names the file of a broken rule, and the line if the file says anything of the key.
pub(super) fn in_file(broken: InvalidSetting, path: &Path) -> ConfigError {
    // A file that has gone meanwhile has no lines.
    let text = fs::read_to_string(path).unwrap_or_default();
    in_text(broken, path, &text)
}

fn in_text(broken: InvalidSetting, path: &Path, text: &str) -> ConfigError {
    ConfigError::Value {
        path: path.to_owned(),
        line: line_of(text, broken.key, &broken.value),
        key: broken.key.to_owned(),
        value: broken.value,
        rule: broken.rule,
    }
}

/// What a configuration file must satisfy beyond its syntax.
pub(super) trait Validate {
    /// Whose file it is.
    const WHOSE: Whose;

    fn validate(&self) -> Result<(), InvalidSetting>;
}

/// Reads and checks one TOML file.
///
/// # Errors
/// Naming file, line and key.
#[expect(
    private_bounds,
    reason = "which rules a file has to satisfy is this module's business"
)]
pub fn load<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

pub(super) fn parse<T: DeserializeOwned + Validate>(path: &Path, text: &str) -> Result<T, ConfigError> {
    let value: T = toml::from_str(text).map_err(|error| {
        if let Some(is) = Whose::of(text).filter(|is| *is != T::WHOSE) {
            return ConfigError::Whose {
                path: path.to_owned(),
                is,
                wanted: T::WHOSE,
            };
        }
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        let nearest = nearest_key(&message);
        ConfigError::Syntax {
            path: path.to_owned(),
            line: line_at(text, error.span()),
            message,
            nearest,
        }
    })?;
    value.validate().map_err(|broken| in_text(broken, path, text))?;
    Ok(value)
}

fn line_at(text: &str, span: Option<Range<usize>>) -> usize {
    let at = span.map_or(0, |span| span.start.min(text.len()));
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// The line that sets `key` (the part after the last dot) to this value; the last one, as of two that are the
/// same the second is one too many. If none shows the value, the first that sets the key; 1 when it was left
/// to its default.
fn line_of(text: &str, key: &str, value: &str) -> usize {
    let key = key.rsplit('.').next().unwrap_or(key);
    let sets = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let shows = |line: &str| line.split_once('=').is_some_and(|(_, set)| set.contains(value));
    let lines: Vec<&str> = text.lines().collect();
    lines
        .iter()
        .rposition(|line| sets(line) && shows(line))
        .or_else(|| lines.iter().position(|line| sets(line)))
        .map_or(1, |index| index + 1)
}

/// For "unknown field `x`, expected one of `a`, `b`": the expected one nearest to x; of a key that is looked
/// for in the section of another log, where it is.
fn nearest_key(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown ") {
        return None;
    }
    let unknown = quoted.next()?;
    let is_of_the_log = || message.contains("`segment_bytes`");
    if matches!(unknown, "format" | "filter" | "level") && is_of_the_log() {
        // `[log]` is the log of decisions on disk.
        return Some(format!("{unknown} under [logging]").replace("level under", "filter under"));
    }
    quoted
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .filter(|(distance, known)| *distance <= known.len().max(unknown.len()) / 2)
        .min()
        .map(|(_, known)| known.to_owned())
}
