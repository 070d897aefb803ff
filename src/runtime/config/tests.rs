use std::path::Path;

use super::error::parse;
use super::*;
use crate::runtime::shard::cores::Cores;
use crate::smr::types::NodeId;

const PATH: &str = "dir/cluster.toml";

fn cluster_text(extra: &str) -> String {
    let mut text = format!(
        "format = 1\nname = \"test\"\ngenesis = \"00\"\n[application]\nname = \"kv\"\nversion = 1\n[agreement]\n{extra}\n"
    );
    for id in 0..4 {
        let keys = PartyKeys::generate();
        text += &format!(
            "[[replicas]]\nid = {id}\naddress = \"127.0.0.1:{}\"\nsigning_key = \"{}\"\nlink_key = \"{}\"\n",
            7000 + id,
            keys.signing.verifying_key(),
            keys.link.public()
        );
    }
    text
}

fn error(text: &str) -> String {
    parse::<ClusterConfig>(Path::new(PATH), text)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_cluster_file_loads_and_its_identity_covers_what_must_match() {
    let text = cluster_text("client_auth = \"mac\"");
    let cluster: ClusterConfig = parse(Path::new(PATH), &text).unwrap();
    assert_eq!(cluster.quorum().f(), 1);
    let moved = text.replace("127.0.0.1:7002", "10.0.0.9:7002");
    let moved: ClusterConfig = parse(Path::new(PATH), &moved).unwrap();
    assert_eq!(cluster.cluster_id(), moved.cluster_id(), "an address may change");
    let other: ClusterConfig = parse(Path::new(PATH), &text.replace("\"mac\"", "\"signature\"")).unwrap();
    assert_ne!(cluster.cluster_id(), other.cluster_id());
    for other in [
        ("name = \"kv\"", "name = \"kv2\""),
        ("version = 1", "version = 2"),
    ] {
        let other: ClusterConfig = parse(Path::new(PATH), &text.replace(other.0, other.1)).unwrap();
        assert_ne!(
            cluster.cluster_id(),
            other.cluster_id(),
            "the application is part of the genesis"
        );
    }
    assert!(error(&text.replace("name = \"kv\"", "name = \"k v\"")).contains("the application's name"));
}

/// A cluster's text with a threshold, and operators of these keys.
fn operated_text(threshold: u16, keys: &[String]) -> String {
    let text = cluster_text("");
    let mut text = text.replace(
        "[application]",
        &format!("operators_threshold = {threshold}\n[application]"),
    );
    for (id, key) in keys.iter().enumerate() {
        text += &format!("[[operators]]\nid = {id}\nsigning_key = \"{key}\"\n");
    }
    text
}

#[test]
fn operators_are_part_of_the_identity_and_a_file_without_any_is_one() {
    let none: ClusterConfig = parse(Path::new(PATH), &cluster_text("")).unwrap();
    assert!(none.operators.is_empty());
    let keys: Vec<String> = (0..3)
        .map(|_| OperatorKey::generate().signing.verifying_key().to_string())
        .collect();
    let text = operated_text(2, &keys);
    let cluster: ClusterConfig = parse(Path::new(PATH), &text).unwrap();
    assert_eq!((cluster.operators.len(), cluster.operators_threshold), (3, 2));
    let membership = cluster.genesis().membership().unwrap();
    assert_eq!(membership.head().cluster(), cluster.cluster_id());
    assert_eq!(membership.head().operators().threshold(), 2);
    let changed = |from: &str, to: &str| {
        let other: ClusterConfig = parse(Path::new(PATH), &text.replace(from, to)).unwrap();
        other.cluster_id()
    };
    assert_ne!(changed("threshold = 2", "threshold = 3"), cluster.cluster_id());
    let other = OperatorKey::generate().signing.verifying_key().to_string();
    assert_ne!(changed(&keys[1], &other), cluster.cluster_id());
    assert_eq!(
        changed("genesis =", "protocol_version = 3\ngenesis ="),
        cluster.cluster_id(),
        "what a file of earlier releases means is the version they had"
    );
}

#[test]
fn what_is_wrong_with_operators_and_keys_names_key_and_line() {
    let key = || OperatorKey::generate().signing.verifying_key().to_string();
    let (first, second) = (key(), key());
    let threshold = |threshold, keys: &[String]| error(&operated_text(threshold, keys));
    assert_eq!(
        threshold(0, std::slice::from_ref(&first)),
        "dir/cluster.toml:4: operators_threshold = 0: must be between 1 and 1, the number of [[operators]]"
    );
    assert!(threshold(3, &[first.clone(), second.clone()]).contains("must be between 1 and 2"));
    assert!(threshold(1, &[]).ends_with("operators_threshold = 1: there are no [[operators]]"));
    let last_line = |text: &str| text.lines().count();
    let text = operated_text(1, &[first.clone(), first.clone()]);
    assert_eq!(
        error(&text),
        format!(
            "dir/cluster.toml:{}: signing_key = {first}: another operator has the same key",
            last_line(&text)
        )
    );
    let zeros = "00".repeat(32);
    assert!(threshold(1, &[zeros]).contains("must be a key that only its owner can use"));
    let text = operated_text(1, &[first, second]).replace("id = 1\nsigning", "id = 2\nsigning");
    assert!(error(&text).contains("operators are listed in order: 0, 1, 2, …"));
    assert!(error(&operated_text(1, &vec![key(); 17])).contains("operators = 17: must be between 0 and 16"));
    // A replica's key at a client.
    let text = cluster_text("");
    let taken = text
        .lines()
        .find_map(|line| line.strip_prefix("link_key = "))
        .unwrap();
    let client = format!(
        "[[clients]]\nid = 0\nsigning_key = \"{}\"\nlink_key = {taken}\n",
        key()
    );
    let text = text.clone() + &client;
    let key = taken.trim_matches('"');
    let expected = format!(
        ":{}: link_key = {key}: replica 0 has the same key",
        last_line(&text)
    );
    assert!(error(&text).ends_with(&expected), "{}", error(&text));
    let text = cluster_text("").replace("format = 1", "format = 1\nepoch = 2");
    assert!(
        error(&text).contains(":2: epoch = 2: must be 0"),
        "{}",
        error(&text)
    );
    let text = cluster_text("").replace("format = 1", "format = 1\nprotocol_version = 9");
    assert!(error(&text).contains(":2: protocol_version = 9: must be between 3 and"));
    let text = cluster_text("").replace("\"test\"", &format!("\"{}\"", "n".repeat(300)));
    assert!(error(&text).contains(":2: name = (300 bytes): must have at most 256 bytes"));
}

#[test]
fn an_operators_key_file_is_its_owners_alone_and_no_other_partys() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("o0.key"), dir.path().join("r0.key"));
    let key = OperatorKey::generate();
    key.save(&path).unwrap();
    assert!(key.save(&path).is_err(), "an existing key file stays");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = OperatorKey::load(&path).unwrap();
    assert_eq!(loaded.signing.verifying_key(), key.signing.verifying_key());
    PartyKeys::generate().save(&other).unwrap();
    let error = OperatorKey::load(&other).unwrap_err().to_string();
    assert!(
        error.ends_with("this is a key file; name an operator's key file instead"),
        "{error}"
    );
    let error = PartyKeys::load(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("this is an operator's key file; name a key file instead"),
        "{error}"
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        OperatorKey::load(&path),
        Err(ConfigError::KeyFileMode { mode: 0o640, .. })
    ));
}

#[test]
fn an_unknown_key_names_file_line_and_the_nearest_key() {
    assert_eq!(
        error(&cluster_text("frame_byte_max = 5"))
            .split(", expected")
            .next()
            .unwrap(),
        "dir/cluster.toml:8: unknown field `frame_byte_max`"
    );
    assert!(error(&cluster_text("frame_byte_max = 5")).ends_with("; did you mean `frame_bytes_max`?"));
    assert!(!error(&cluster_text("zzz = 5")).contains("did you mean"));
}

#[test]
fn a_value_out_of_range_names_key_value_and_range() {
    assert_eq!(
        error(&cluster_text("\nframe_bytes_max = 12")),
        "dir/cluster.toml:9: frame_bytes_max = 12: must be between 4096 and 67108864"
    );
    assert!(error(&cluster_text("window = 1000")).contains("window = 1000: must be between 2000"));
    assert!(
        error(&cluster_text("window = 150001")).contains("window = 150001: must be between 2000 and 150000"),
        "a view change speaks of all of it"
    );
}

/// What is wrong with a replica's file that says this, in a cluster that agreed on that.
fn replica_error(agreed: &str, said: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let keys = PartyKeys::generate();
    keys.save(&dir.path().join("r0.key")).unwrap();
    let text = cluster_text(agreed);
    let (head, rest) = text.split_once("[[replicas]]").unwrap();
    let own = format!(
        "[[replicas]]\nid = 0\naddress = \"127.0.0.1:7000\"\nsigning_key = \"{}\"\nlink_key = \"{}\"\n",
        keys.signing.verifying_key(),
        keys.link.public()
    );
    let others = rest.split_once("[[replicas]]").unwrap().1;
    let cluster = format!("{head}{own}[[replicas]]{others}");
    std::fs::write(dir.path().join("cluster.toml"), cluster).unwrap();
    let path = dir.path().join("replica.toml");
    let file = format!("node = 0\ncluster = \"cluster.toml\"\nkeys = \"r0.key\"\ndb_path = \"data\"\n{said}");
    std::fs::write(&path, file).unwrap();
    ReplicaConfig::load(&path)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}

#[test]
fn what_a_replica_chooses_must_fit_what_its_cluster_agreed_on() {
    let (agreed, queue) = ("batch_bytes_max = 4194304", "client_queue_bytes_max = 1048576");
    assert_eq!(replica_error(agreed, ""), "");
    let error = replica_error(agreed, &format!("[network]\n{queue}\n"));
    assert!(
        error.contains("replica.toml:6: client_queue_bytes_max = 1048576: must be at least 318"),
        "{error}"
    );
    assert!(
        error.contains("the longest answer to a frame of this cluster"),
        "{error}"
    );
    let error = replica_error(
        "frame_bytes_max = 4194304",
        "[limits]\npool_bytes_per_client = 1048576\n",
    );
    assert!(
        error.contains("pool_bytes_per_client = 1048576: must be at least 4194304"),
        "{error}"
    );
    let error = replica_error(agreed, "[network]\nprotocol_queue_bytes_max = 8388608\n");
    assert!(
        error.contains("protocol_queue_bytes_max = 8388608: must be at least 17"),
        "{error}"
    );
    let error = replica_error(agreed, "[network]\nstate_transfer_queue_bytes_max = 8388608\n");
    assert!(
        error.contains("state_transfer_queue_bytes_max = 8388608: must be at least 16"),
        "{error}"
    );
    let error = replica_error(agreed, "[reconfiguration]\nepoch_min = 3\n");
    assert!(
        error.contains(":6: epoch_min = 3: the membership that this replica has is of epoch"),
        "{error}"
    );
    let error = replica_error(agreed, "[reconfiguration]\nepoch_mn = 3\n");
    assert!(error.contains("did you mean `epoch_min`?"), "{error}");
    let error = replica_error(agreed, "[network]\nreconfiguration_queue_bytes_max = \"1KiB\"\n");
    assert!(
        error.contains(":6: reconfiguration_queue_bytes_max = 1024: must be between 65536 and"),
        "{error}"
    );
    let error = replica_error(agreed, "[network]\nprotocol_queue_bytes = 8388608\n");
    assert!(
        error.contains("did you mean `protocol_queue_bytes_max`?"),
        "{error}"
    );
    let error = replica_error(agreed, "[log]\nlog_bytes_max = 1073741824\n");
    assert!(
        error.contains("log_bytes_max = 1073741824: must be at least 13"),
        "{error}"
    );
    assert_eq!(
        replica_error(
            agreed,
            "durability = \"none\"\n[log]\nlog_bytes_max = 1073741824\n"
        ),
        ""
    );
}

#[test]
fn syntax_errors_types_and_missing_keys_name_their_line() {
    assert!(error("format = \n").starts_with("dir/cluster.toml:1: "));
    assert!(error(&cluster_text("window = \"big\"")).starts_with("dir/cluster.toml:8: invalid type"));
    assert!(error("format = 1\nname = \"x\"\n").contains("missing field"));
    assert!(error(&cluster_text("").replace("id = 2", "id = 7")).contains("replicas are listed in order"));
    assert!(error(&cluster_text("").replace("7001", "7000")).contains("replica 0 has the same address"));
}

#[test]
fn a_missing_file_names_the_command_that_makes_one() {
    let error = load::<ClusterConfig>(Path::new("no/such.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("no/such.toml: ") && error.contains("atlas init"),
        "{error}"
    );
}

#[test]
fn key_files_are_for_their_owner_alone_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r0.key");
    let keys = PartyKeys::generate();
    keys.save(&path).unwrap();
    assert!(keys.save(&path).is_err(), "an existing key file stays");
    let loaded = PartyKeys::load(&path).unwrap();
    assert_eq!(loaded.signing.verifying_key(), keys.signing.verifying_key());
    assert_eq!(loaded.link.public(), keys.link.public());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        PartyKeys::load(&path),
        Err(ConfigError::KeyFileMode { mode: 0o644, .. })
    ));
}

#[test]
fn automatic_topologies_are_sound_for_any_number_of_cores() {
    for cores in 1..=64usize {
        let allowed: Vec<usize> = (0..cores).collect();
        let topology = Topology::resolve(&TopologyFile::default(), &allowed, 2).unwrap();
        assert_eq!(topology.count(RoleKind::Consensus), 1);
        assert!(topology.shards.len() <= cores);
    }
    let unpinned = TopologyFile {
        pin: false,
        ..TopologyFile::default()
    };
    let topology = Topology::resolve(&unpinned, &[3, 5], 2).unwrap();
    assert!(topology.shards.iter().all(|shard| shard.core.is_none()));
}

#[test]
fn replicas_on_one_host_begin_at_different_cores_and_a_quota_is_not_pinned() {
    let cores = |quota| Cores {
        ids: (0..4).collect(),
        quota,
    };
    let of = |cores: &Cores, node| {
        let file = TopologyFile::default();
        let topology = Topology::of_replica(&file, cores, 2, NodeId::new(node)).unwrap();
        let cores: Vec<_> = topology.shards.iter().map(|shard| shard.core).collect();
        (cores, topology.control_core)
    };
    assert_eq!(of(&cores(None), 0), (vec![Some(0), Some(1), Some(2)], Some(3)));
    assert_eq!(of(&cores(None), 1), (vec![Some(3), Some(0), Some(1)], Some(2)));
    let two = Cores {
        ids: vec![0, 1],
        quota: None,
    };
    let firsts: Vec<_> = (0..4).map(|node| of(&two, node).0[0]).collect();
    assert_eq!(firsts, [0, 1, 0, 1].map(Some));
    assert_eq!(of(&cores(Some(1)), 3), (vec![None], None));
}

#[test]
fn a_topology_with_a_core_twice_or_out_of_the_mask_or_a_role_missing_is_refused() {
    let shard = |roles: &[RoleKind], core| ShardSpec {
        roles: roles.to_vec(),
        core,
    };
    let all = [
        RoleKind::Network,
        RoleKind::Preprocess,
        RoleKind::Consensus,
        RoleKind::Execution,
    ];
    let resolve = |shards: Vec<ShardSpec>, spin_us| {
        Topology::resolve(
            &TopologyFile {
                pin: true,
                spin_us,
                huge_pages: false,
                shards,
            },
            &[0, 1],
            1,
        )
        .unwrap_err()
    };
    assert_eq!(
        resolve(vec![shard(&all[..3], None)], 0),
        TopologyError::Missing(RoleKind::Execution)
    );
    assert_eq!(
        resolve(vec![shard(&all, None), shard(&all[2..3], None)], 0),
        TopologyError::Twice(RoleKind::Consensus)
    );
    assert_eq!(
        resolve(vec![shard(&all[..2], Some(1)), shard(&all[2..], Some(1))], 0),
        TopologyError::CoreTwice(1)
    );
    assert!(matches!(
        resolve(vec![shard(&all, Some(9))], 0),
        TopologyError::CoreNotAllowed { core: 9, .. }
    ));
    let three = vec![
        shard(&all[..2], None),
        shard(&all[2..3], None),
        shard(&all[3..], None),
    ];
    assert!(matches!(resolve(three, 50), TopologyError::Spinning { .. }));
}

#[test]
fn a_file_of_another_kind_is_named_as_what_it_is() {
    for (text, is) in [
        ("node = 0\n", Some(Whose::Replica)),
        ("# a comment\nclient = 3\n", Some(Whose::Client)),
        ("format = 1\ngenesis = \"00\"\n", Some(Whose::Cluster)),
        ("signing_seed = \"00\"\n", Some(Whose::Keys)),
        ("operator_seed = \"00\"\n", Some(Whose::Operator)),
        ("[limits]\nnode = 1\n", None),
        ("", None),
    ] {
        assert_eq!(Whose::of(text), is, "{text:?}");
    }
}

#[test]
fn sizes_and_durations_may_have_units_and_wrong_ones_are_named_with_their_line() {
    let limits = |text: &str| toml::from_str::<Limits>(text);
    let read =
        limits("pool_bytes_max = \"512MiB\"\nlink_silence_ms = \"8s\"\nreconnect_max_ms = 900").unwrap();
    assert_eq!(
        (read.pool_bytes_max, read.link_silence_ms, read.reconnect_max_ms),
        (512 << 20, 8000, 900)
    );
    assert_eq!(
        read.pool_bytes_per_client,
        Limits::default().pool_bytes_per_client
    );
    for wrong in [
        "pool_bytes_max = \"512 mice\"",
        "pool_bytes_max = -1",
        "link_silence_ms = true",
        "link_silence_ms = \"8\"",
    ] {
        let error = limits(wrong).unwrap_err();
        assert!(error.span().is_some(), "{error}");
    }
}
