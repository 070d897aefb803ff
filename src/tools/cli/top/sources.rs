//! Which endpoints there are to ask: those named on the command line, or those of a cluster's directory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use zeroize::Zeroizing;

use crate::runtime::admin::read_token;
use crate::runtime::config::{ClusterConfig, ReplicaFile, load};
use crate::smr::types::NodeId;
use crate::tools::cli::init_staging::CLUSTER_FILE;
use crate::tools::cli::{CommandError, admin_endpoints};

/// Endpoints that can be named at most: as many as a cluster has replicas.
pub(super) const SOURCES_MAX: usize = 64;

/// A replica to ask.
#[derive(Debug)]
pub(super) struct Source {
    /// What it is called until it has said its own name.
    pub label: String,
    /// Host and port of its admin endpoint; `None` if nobody knows them.
    pub address: Option<String>,
    /// What its endpoint asks for.
    pub token: Option<Zeroizing<String>>,
}

impl Source {
    /// One that is named on the command line.
    pub fn at(address: &str, token: Option<&Zeroizing<String>>) -> Self {
        Self {
            label: address.to_owned(),
            address: Some(address.to_owned()),
            token: token.cloned(),
        }
    }
}

/// The replicas of the cluster in `dir`, in order. An endpoint is where the replica's own file says, or else
/// where the last `atlas up` put it. `token` is for all of them, in place of what their files name.
///
/// # Errors
/// When the directory has no cluster in it, a file is wrong, or no endpoint is known at all.
pub(super) fn of_directory(
    dir: &Path,
    token: Option<&Zeroizing<String>>,
) -> Result<Vec<Source>, CommandError> {
    let cluster: ClusterConfig = load(&dir.join(CLUSTER_FILE))?;
    let recorded: BTreeMap<String, SocketAddr> = admin_endpoints::read(dir)?.into_iter().collect();
    let nodes = NodeId::all(cluster.replicas.len());
    let sources: Result<Vec<Source>, CommandError> = nodes
        .map(|node| of_replica(dir, node, recorded.get(&node.to_string()), token))
        .collect();
    let sources = sources?;
    if sources.iter().all(|source| source.address.is_none()) {
        return Err(format!(
            "{0}: no replica's admin endpoint is known; start the cluster with `atlas up {0}`, or have \
             `listen` under [admin] in each replica's file",
            dir.display()
        )
        .into());
    }
    Ok(sources)
}

fn of_replica(
    dir: &Path,
    node: NodeId,
    recorded: Option<&SocketAddr>,
    token: Option<&Zeroizing<String>>,
) -> Result<Source, CommandError> {
    let path = dir.join(format!("{node}.toml"));
    let (mut listens, mut own_token) = (recorded.copied(), token.cloned());
    if path.exists() {
        let file: ReplicaFile = load(&path)?;
        // Port 0 is any that is free: only whoever started it knows which one that was.
        let named = file.admin.address().filter(|address| address.port() > 0);
        listens = named.or(listens);
        if let (None, Some(file)) = (token, &file.admin.bearer_token_file) {
            own_token = Some(token_in(&dir.join(file))?);
        }
    }
    Ok(Source {
        label: node.to_string(),
        address: listens.map(|address| reachable(address).to_string()),
        token: own_token,
    })
}

/// Where one asks that listens at every address of this host.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// The token in a file.
///
/// # Errors
/// Naming the file, when it has none or others may read it.
pub(super) fn token_in(path: &Path) -> Result<Zeroizing<String>, String> {
    read_token(path).map_err(|why| format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::runtime::config::AppKind;
    use crate::tools::cli::init::Init;

    #[test]
    fn a_directory_tells_endpoints_by_its_files_and_by_what_up_has_left() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("cluster");
        Init::on_this_host(&dir, (4, 1), AppKind::Kv, 21_000)
            .make()
            .unwrap();
        let none = of_directory(&dir, None).unwrap_err().to_string();
        assert!(none.contains("atlas up"), "{none}");
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        admin_endpoints::write(&dir, &[(NodeId::new(0), at(1)), (NodeId::new(1), at(2))]).unwrap();
        let listen = |node: usize, lines: &str| {
            let path = dir.join(format!("r{node}.toml"));
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, text.replace("[admin]\n", &format!("[admin]\n{lines}\n"))).unwrap();
        };
        listen(1, "listen = \"127.0.0.1:3\"\nbearer_token_file = \"r1.token\"");
        listen(2, "listen = \"0.0.0.0:4\"\nbearer_token_file = \"r1.token\"");
        assert!(of_directory(&dir, None).is_err(), "its token is not there");
        let token = dir.join("r1.token");
        std::fs::write(&token, "  a-token-of-replica-1\n").unwrap();
        std::fs::set_permissions(&token, PermissionsExt::from_mode(0o644)).unwrap();
        let open = of_directory(&dir, None).unwrap_err().to_string();
        assert!(open.contains("lets others read the token"), "{open}");
        std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
        let sources = of_directory(&dir, None).unwrap();
        let shown = |source: &Source| {
            let token = source.token.as_ref().map(|token| token.to_string());
            (source.address.clone().unwrap_or_default(), token)
        };
        let token = Some("a-token-of-replica-1".to_owned());
        let expected = [
            ("127.0.0.1:1".to_owned(), None),
            ("127.0.0.1:3".to_owned(), token.clone()),
            ("127.0.0.1:4".to_owned(), token),
            (String::new(), None),
        ];
        assert_eq!(sources.iter().map(shown).collect::<Vec<_>>(), expected);
        let other = Zeroizing::new("another".to_owned());
        let sources = of_directory(&dir, Some(&other)).unwrap();
        assert!(sources.iter().all(|source| source.token.as_ref() == Some(&other)));
    }
}
