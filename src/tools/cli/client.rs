use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CommandError;
use crate::client::CallError;
use crate::client::Client;
use crate::runtime::config::{AppKind, ClientConfig};
use crate::smr::execution::apps::{MALFORMED, bank, counter, kv};

/// Call a running cluster's service.
#[derive(Debug, Args)]
pub(super) struct ClientCommand {
    /// The client's file, as `atlas init` makes it.
    #[arg(long)]
    config: PathBuf,
    #[command(subcommand)]
    call: Call,
}

#[derive(Debug, Subcommand)]
enum Call {
    /// kv: set a key.
    Put {
        /// The key.
        key: OsString,
        /// Its value; `-` reads it from standard input.
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        value: Option<OsString>,
        /// Read the value from this file.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// kv: read a key. The value is printed as it is; on a terminal what cannot be shown is escaped, and a
    /// line ends it.
    Get {
        /// The key.
        key: OsString,
        /// Beside the order: f+1 replicas agree, but the answer may lack what is being decided.
        #[arg(long)]
        unordered: bool,
        /// Print JSON: the value in base64, and as text if it is text.
        #[arg(long)]
        json: bool,
    },
    /// kv: remove a key.
    Delete {
        /// The key.
        key: OsString,
    },
    /// counter: add, and print the sum.
    Add {
        /// What to add.
        amount: u64,
    },
    /// bank: add to an account.
    Deposit {
        /// The account.
        account: u64,
        /// How much.
        amount: u64,
    },
    /// bank: move between accounts.
    Transfer {
        /// From this account.
        from: u64,
        /// To this one.
        to: u64,
        /// How much.
        amount: u64,
    },
    /// bank: read an account.
    Balance {
        /// The account.
        account: u64,
    },
}

impl Call {
    /// The application that knows the call.
    fn application(&self) -> AppKind {
        match self {
            Self::Put { .. } | Self::Get { .. } | Self::Delete { .. } => AppKind::Kv,
            Self::Add { .. } => AppKind::Counter,
            Self::Deposit { .. } | Self::Transfer { .. } | Self::Balance { .. } => AppKind::Bank,
        }
    }
}

impl ClientCommand {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let config = ClientConfig::load(&self.config)?;
        let (asked, served) = (self.call.application().id(), config.cluster.application);
        if asked != served {
            return Err(format!("this is a call of {asked}, and the cluster serves {served}").into());
        }
        let (operation, unordered) = match &self.call {
            Call::Put { key, value, file } => {
                let value = super::value::read(value.as_deref(), file.as_deref())?;
                (kv::put(key.as_bytes(), &value)?, false)
            }
            Call::Get { key, unordered, .. } => (kv::get(key.as_bytes())?, *unordered),
            Call::Delete { key } => (kv::delete(key.as_bytes())?, false),
            Call::Add { amount } => (counter::add(*amount), false),
            Call::Deposit { account, amount } => (bank::deposit(*account, *amount), false),
            Call::Transfer { from, to, amount } => (bank::transfer(*from, *to, *amount), false),
            Call::Balance { account } => (bank::balance(*account), false),
        };
        let client = Client::connect_blocking(config)?;
        let result = if unordered {
            client.read_blocking(operation)
        } else {
            client.call_blocking(operation)
        };
        match result {
            Ok(result) => self.print(&result),
            Err(CallError::Application(error)) if error == MALFORMED.as_bytes() => {
                Err("the service does not know this operation: another app runs".into())
            }
            Err(CallError::Application(error)) => {
                eprintln!("{}", String::from_utf8_lossy(&error));
                Ok(ExitCode::FAILURE)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn print(&self, result: &[u8]) -> Result<ExitCode, CommandError> {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        let text = match (&self.call, result) {
            (Call::Put { .. }, [0]) => "ok".to_owned(),
            (Call::Get { key, json, .. }, [1, value @ ..]) => {
                super::value::print(key.as_bytes(), value, *json)?;
                return Ok(ExitCode::SUCCESS);
            }
            (Call::Get { .. } | Call::Delete { .. }, [0]) => {
                eprintln!("no such key");
                return Ok(ExitCode::FAILURE);
            }
            (Call::Delete { .. }, [1]) | (Call::Transfer { .. }, []) => "ok".to_owned(),
            (Call::Add { .. }, sum) => number(sum).map_or_else(|| hex::encode(sum), |sum| sum.to_string()),
            (Call::Deposit { .. } | Call::Balance { .. }, balance) => {
                number(balance).map_or_else(|| hex::encode(balance), |balance| balance.to_string())
            }
            (_, other) => hex::encode(other),
        };
        println!("{text}");
        Ok(ExitCode::SUCCESS)
    }
}
