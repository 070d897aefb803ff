//! What SIGHUP has a replica read again: what can change while it runs is applied, what cannot is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::runtime::config::{ClusterConfig, ConfigError, ReplicaConfig, ReplicaFile, load};
use crate::runtime::server::ReplicaHandle;
use crate::tools::cli::{CommandError, logs};

/// Keys of the replica's file that are applied without a restart.
const RELOADABLE: [&str; 3] = ["admin.bearer_token_file", "logging.filter", "logging.format"];

/// What a replica runs with, to be held against what its files say later.
pub(super) struct Reloading {
    file: PathBuf,
    running: Settings,
}

/// Each setting by its key, with every default: those of the replica's file, and those of the cluster's.
#[derive(Debug, PartialEq)]
struct Settings {
    own: BTreeMap<String, Value>,
    cluster: BTreeMap<String, Value>,
}

impl Settings {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let own: ReplicaFile = load(path)?;
        let cluster = path.parent().unwrap_or(Path::new("")).join(&own.cluster);
        let cluster: ClusterConfig = load(&cluster)?;
        Ok(Self {
            own: settings_of(&own),
            cluster: settings_of(&cluster),
        })
    }

    /// The keys that other files set differently, and that only a restart applies.
    fn differing(&self, other: &Self) -> Vec<String> {
        let own = differing(&self.own, &other.own);
        let own = own.into_iter().filter(|key| !RELOADABLE.contains(&key.as_str()));
        let cluster = differing(&self.cluster, &other.cluster).into_iter();
        own.chain(cluster.map(|key| format!("{key} (of the cluster's file)")))
            .collect()
    }
}

fn settings_of(file: &impl serde::Serialize) -> BTreeMap<String, Value> {
    let mut settings = BTreeMap::new();
    // What was read from a file can be written as JSON.
    if let Ok(value) = serde_json::to_value(file) {
        flatten("", value, &mut settings);
    }
    settings
}

/// Tables become keys with dots; lists are values.
fn flatten(key: &str, value: Value, settings: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let key = match key {
                    "" => name,
                    table => format!("{table}.{name}"),
                };
                flatten(&key, value, settings);
            }
        }
        value => drop(settings.insert(key.to_owned(), value)),
    }
}

fn differing(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> Vec<String> {
    let all = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
    let mut keys: Vec<String> = all.filter(|key| a.get(*key) != b.get(*key)).cloned().collect();
    keys.sort();
    keys
}

impl Reloading {
    /// Of a replica that starts with this file.
    pub fn of(file: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            file: file.to_owned(),
            running: Settings::read(file)?,
        })
    }

    /// Reads the files again and applies what can be applied, or nothing at all: what was done, in words.
    pub fn reload(&self, handle: &ReplicaHandle) -> Result<String, CommandError> {
        let config = ReplicaConfig::load(&self.file)?.replica_config;
        let found = Settings::read(&self.file)?;
        let token = config.admin.bearer_token_file.as_deref();
        handle.replace_admin_token(token)?;
        let mut done = logs::apply(&config.logging)?;
        if handle.admin_address().is_some() {
            done.push_str(match token {
                Some(_) => ", the admin endpoint's token was read again",
                None => ", the admin endpoint asks for no token",
            });
        }
        let waiting = self.running.differing(&found);
        if !waiting.is_empty() {
            done.push_str("; not applied until a restart: ");
            done.push_str(&waiting.join(", "));
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(own: &Value, cluster: &Value) -> Settings {
        Settings {
            own: settings_of(own),
            cluster: settings_of(cluster),
        }
    }

    #[test]
    fn what_only_a_restart_applies_is_named_by_its_key() {
        let cluster = json!({ "name": "a", "replicas": [{ "address": "h:1" }] });
        let running = json!({
            "node": 0, "limits": { "connections_max": 8 }, "logging": { "format": "text" }, "admin": {},
        });
        let running = settings(&running, &cluster);
        assert_eq!(running.differing(&running), [""; 0]);
        let moved = json!({ "name": "a", "replicas": [{ "address": "h:2" }] });
        let changed = json!({
            "node": 0,
            "listen": "0.0.0.0:1",
            "limits": { "connections_max": 9 },
            "logging": { "format": "json", "filter": "info" },
            "admin": { "bearer_token_file": "t", "listen": "127.0.0.1:1" },
        });
        assert_eq!(
            running.differing(&settings(&changed, &moved)),
            [
                "admin.listen",
                "limits.connections_max",
                "listen",
                "replicas (of the cluster's file)"
            ]
        );
    }
}
