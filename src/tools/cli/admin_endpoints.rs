//! Where the admin endpoints of a cluster's replicas are, as `atlas up` leaves it in the cluster's directory.
//!
//! The form is that of Prometheus' `file_sd_configs`, so that the file can be named there as it is.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::smr::types::NodeId;

/// Its name in the cluster's directory.
pub(super) const ENDPOINTS_FILE: &str = "admin-endpoints.json";

/// A file of 64 replicas has a tenth of this.
const BYTES_MAX: u64 = 64 << 10;

/// One entry: a replica.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    targets: Vec<SocketAddr>,
    labels: Labels,
}

/// Not `node`: the samples themselves have that.
#[derive(Debug, Serialize, Deserialize)]
struct Labels {
    replica: String,
}

/// Writes where each replica listens, in place of what the last start wrote. Whoever reads meanwhile sees the
/// one or the other.
pub(super) fn write(dir: &Path, endpoints: &[(NodeId, SocketAddr)]) -> io::Result<()> {
    let entry = |(node, address): &(NodeId, SocketAddr)| Entry {
        targets: vec![*address],
        labels: Labels {
            replica: node.to_string(),
        },
    };
    let entries: Vec<Entry> = endpoints.iter().map(entry).collect();
    let aside = dir.join(format!(".{ENDPOINTS_FILE}.new"));
    fs::write(&aside, serde_json::to_vec_pretty(&entries)?)?;
    fs::rename(aside, dir.join(ENDPOINTS_FILE))
}

/// What the last start of `atlas up` wrote there; nothing if it never ran.
///
/// # Errors
/// Naming the file, when it cannot be read or says something else.
pub(super) fn read(dir: &Path) -> Result<Vec<(String, SocketAddr)>, String> {
    let path: PathBuf = dir.join(ENDPOINTS_FILE);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(|error| failed(&error))?,
    };
    let mut text = Vec::new();
    let read = file.take(BYTES_MAX).read_to_end(&mut text);
    read.map_err(|error| failed(&error))?;
    let entries: Vec<Entry> = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    let listens = |entry: Entry| Some((entry.labels.replica, *entry.targets.first()?));
    Ok(entries.into_iter().filter_map(listens).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read_and_a_directory_without_it_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Ok(Vec::new()));
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        for port in [1, 2] {
            write(dir.path(), &[(NodeId::new(0), at(port)), (NodeId::new(1), at(9))]).unwrap();
        }
        let expected = vec![("r0".to_owned(), at(2)), ("r1".to_owned(), at(9))];
        assert_eq!(read(dir.path()), Ok(expected));
        let text = fs::read_to_string(dir.path().join(ENDPOINTS_FILE)).unwrap();
        let groups: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            groups[0]["targets"][0], "127.0.0.1:2",
            "as file_sd_configs has it"
        );
        fs::write(dir.path().join(ENDPOINTS_FILE), "{}").unwrap();
        assert!(read(dir.path()).unwrap_err().contains(ENDPOINTS_FILE));
    }
}
