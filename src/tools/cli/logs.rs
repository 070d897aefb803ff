//! What is logged, and how: as the command line says, else the environment, else the replica's file.

mod line;

use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Args;
use tracing_subscriber::EnvFilter;

use self::line::{LogLine, set_format};
pub(super) use self::line::{is_json, of_message};
use super::output;
use crate::runtime::admin::LogFilter;
use crate::runtime::config::{LogFormat, LoggingConfig, check_log_filter};

/// What is logged unless something says otherwise.
const DEFAULT: &str = "warn";

/// The environment's filter.
const VARIABLE: &str = "ATLAS_LOG";

#[derive(Debug, Clone, Args)]
pub(super) struct LogOptions {
    /// What is logged, instead of what ATLAS_LOG and the replica's file say: a level, and levels of targets, as
    /// info,atlas_smr_replica::runtime::storage=debug.
    #[arg(long = "log", global = true, value_name = "FILTER", value_parser = parse_filter)]
    filter: Option<String>,
    /// How lines of logs look, whatever the replica's file says.
    #[arg(long = "log-format", global = true, value_name = "FORMAT")]
    format: Option<LogFormat>,
}

fn parse_filter(text: &str) -> Result<String, String> {
    check_log_filter(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// The logs of this process.
struct Logs {
    options: LogOptions,
    /// What the environment says, if it says anything.
    environment: Option<String>,
    filter: LogFilter,
}

static LOGS: OnceLock<Logs> = OnceLock::new();

/// Starts logging, in colours where a terminal shows them and `NO_COLOR` does not forbid them.
///
/// # Errors
/// What the process ends with, after it said why: `ATLAS_LOG` is no filter.
pub(super) fn start(options: LogOptions) -> Result<(), ExitCode> {
    set_format(options.format.unwrap_or_default());
    let environment = std::env::var_os(VARIABLE).filter(|asked| !asked.is_empty());
    let environment = environment.map(|asked| asked.to_string_lossy().into_owned());
    if let Some(asked) = &environment
        && let Err(error) = check_log_filter(asked)
    {
        output::error(format_args!("atlas: {VARIABLE}={asked}: {error}\n"));
        return Err(ExitCode::from(2));
    }
    let current = options.filter.clone().or_else(|| environment.clone());
    let current = current.unwrap_or_else(|| DEFAULT.to_owned());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&current))
        .event_format(LogLine {
            in_colour: output::may_colour(&std::io::stderr()),
        })
        .with_writer(|| output::Log)
        .with_filter_reloading();
    let handle = logs.reload_handle();
    logs.init();
    let filter = LogFilter::new(current, move |asked| {
        check_log_filter(asked).map_err(|error| error.to_string())?;
        let filter = EnvFilter::try_new(asked).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    });
    // Logging is started once.
    let _ = LOGS.set(Logs {
        options,
        environment,
        filter,
    });
    Ok(())
}

/// What is logged, once logging was started.
pub(super) fn filter() -> LogFilter {
    LOGS.get().map(|logs| logs.filter.clone()).unwrap_or_default()
}

/// The options that have another process of this program log as this one was told to.
pub(super) fn arguments() -> Vec<String> {
    let Some(Logs { options, .. }) = LOGS.get() else {
        return Vec::new();
    };
    let filter = options.filter.iter().map(|filter| format!("--log={filter}"));
    let format = options
        .format
        .iter()
        .map(|format| format!("--log-format={format}"));
    filter.chain(format).collect()
}

/// Logs as a replica's file says, as far as neither the command line nor the environment says otherwise: what
/// holds from then on, in words.
///
/// # Errors
/// In words; then what was logged before is logged on.
pub(super) fn apply(file: &LoggingConfig) -> Result<String, String> {
    let Some(logs) = LOGS.get() else {
        return Err("nothing is logged".to_owned());
    };
    let asked = [
        (&logs.options.filter, " (--log)"),
        (&logs.environment, " (ATLAS_LOG)"),
        (&file.filter, ""),
    ];
    let first = asked
        .into_iter()
        .find_map(|(filter, by)| Some((filter.as_ref()?, by)));
    let (filter, by) = first.map_or((DEFAULT, ""), |(filter, by)| (filter.as_str(), by));
    logs.filter.change(filter)?;
    let (format, format_by) = match logs.options.format {
        Some(format) => (format, " (--log-format)"),
        None => (file.format, ""),
    };
    set_format(format);
    Ok(format!("log filter {filter}{by}, log format {format}{format_by}"))
}
