use serde::{Deserialize, Serialize};

use crate::smr::protocol::{InvalidSetting, PartConfig};

/// What `atlas run` logs, unless its command line or `ATLAS_LOG` says otherwise. A program of one's own logs as
/// it likes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingConfig {
    /// What is logged: levels, of everything or of targets ([`check_log_filter`]). `warn` unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// How a line looks.
    pub format: LogFormat,
}

/// How lines of logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tools", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object on each line, for programs.
    Json,
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl PartConfig for LoggingConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        let Some(filter) = &self.filter else {
            return Ok(());
        };
        check_log_filter(filter).map_err(|error| InvalidSetting {
            key: "logging.filter",
            value: filter.clone(),
            rule: error.to_string(),
        })
    }
}

/// Why a text is no filter of logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogFilterError {
    /// It has no directive.
    #[error("a filter has at least one directive, as info or atlas_smr_replica::runtime::storage=debug")]
    Empty,
    /// It is longer than any filter that means something.
    #[error("a filter has at most {FILTER_BYTES_MAX} bytes")]
    TooLong,
    /// A level is none.
    #[error("`{level}` is no level (off, error, warn, info, debug, trace){}", did_you_mean(.level, LEVELS))]
    Level {
        /// What stands in its place.
        level: String,
    },
    /// A word alone is neither a level nor the name of anything here.
    #[error(
        "`{word}` is neither a level (off, error, warn, info, debug, trace) nor a target of this program, which begin with {CRATE}{}; to log another \
         crate: {word}=debug", did_you_mean(.word, LEVELS)
    )]
    Word {
        /// The word.
        word: String,
    },
    /// A target is none, or is almost one of this program's.
    #[error(
        "`{target}` is no target: those of this program begin with {CRATE}, as {CRATE}::runtime::storage"
    )]
    Target {
        /// What stands in its place.
        target: String,
    },
}

/// The longest filter.
const FILTER_BYTES_MAX: usize = 1024;

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// What the targets of this crate begin with.
const CRATE: &str = "atlas_smr_replica";

/// Whether a text is a filter of logs: directives with commas between them, each a level (`info`), a target of
/// this crate (`atlas_smr_replica::runtime::storage`, all of it is logged then), or a target and its level
/// (`glommio=error`). The most exact directive holds for a line.
///
/// # Errors
/// Naming what is wrong. A word that is logged by nobody is wrong: it would silence everything.
pub fn check_log_filter(filter: &str) -> Result<(), LogFilterError> {
    if filter.len() > FILTER_BYTES_MAX {
        return Err(LogFilterError::TooLong);
    }
    let directives = || filter.split(',').filter(|directive| !directive.is_empty());
    if directives().all(|directive| directive.trim().is_empty()) {
        return Err(LogFilterError::Empty);
    }
    directives().try_for_each(check_directive)
}

fn check_directive(directive: &str) -> Result<(), LogFilterError> {
    let Some((target, level)) = directive.split_once('=') else {
        let is_known = is_level(directive) || directive.starts_with(CRATE) || directive.contains("::");
        if is_known {
            return check_target(directive);
        }
        return Err(LogFilterError::Word {
            word: directive.to_owned(),
        });
    };
    check_target(target)?;
    if is_level(level) {
        Ok(())
    } else {
        Err(LogFilterError::Level {
            level: level.to_owned(),
        })
    }
}

fn is_level(word: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

/// Whether lines can have such a target. They are compared from their beginnings.
fn check_target(target: &str) -> Result<(), LogFilterError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
    let is_nearly_ours =
        target.starts_with("atlas") && !target.starts_with(CRATE) && !CRATE.starts_with(target);
    if target.is_empty() || !target.chars().all(is_plain) || is_nearly_ours {
        return Err(LogFilterError::Target {
            target: target.to_owned(),
        });
    }
    Ok(())
}

/// The known word nearest to another, if one is near.
fn did_you_mean(word: &str, known: &[&str]) -> String {
    let lower = word.to_ascii_lowercase();
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    near.map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_targets_and_what_is_wrong_is_named() {
        for sound in [
            "info",
            "WARN",
            "off",
            "info,atlas_smr_replica::runtime::storage=debug",
            "atlas_smr_replica",
            "glommio=error,debug,",
            "atlas_smr=trace",
        ] {
            assert_eq!(check_log_filter(sound), Ok(()), "{sound}");
        }
        for (bad, said) in [
            ("", "at least one directive"),
            (" ,", "at least one directive"),
            ("debgu", "did you mean debug?"),
            ("info,verbose", "`verbose` is neither a level"),
            ("atlas=loud", "`loud` is no level"),
            ("atlas_smr_replica=wran", "did you mean warn?"),
            ("atlas_smr_replica=", "`` is no level"),
            ("atlas-smr-replica=info", "begin with atlas_smr_replica"),
            ("=info", "`` is no target"),
            ("info, debug", "` debug` is neither a level"),
            (
                "atlas_smr_replica[span]=info",
                "`atlas_smr_replica[span]` is no target",
            ),
        ] {
            let error = check_log_filter(bad).unwrap_err().to_string();
            assert!(error.contains(said), "{bad}: {error}");
        }
        let long = "info,".repeat(300);
        assert_eq!(check_log_filter(&long), Err(LogFilterError::TooLong));
    }
}
