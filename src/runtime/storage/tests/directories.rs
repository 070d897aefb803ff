//! Whose a data directory is, and what is missed in one.

use super::restart::StorageBackend;
use super::*;

#[test]
fn a_directory_is_made_once_opened_alone_and_by_its_owner_only() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    let other = ClusterId::from_bytes([8; 16]);
    assert!(matches!(
        DataDirectory::open(&path, CLUSTER, NODE),
        Err(StorageError::NotFormatted { .. })
    ));
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    assert!(matches!(
        DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO),
        Err(StorageError::AlreadyFormatted { .. })
    ));
    let open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    assert!(matches!(
        DataDirectory::open(&path, CLUSTER, NODE),
        Err(StorageError::Locked { .. })
    ));
    assert_eq!(open.superblock().starts, 1);
    drop(open);
    assert!(matches!(
        DataDirectory::open(&path, other, NODE),
        Err(StorageError::Foreign { what: "cluster", .. })
    ));
    assert!(matches!(
        DataDirectory::open(&path, CLUSTER, NodeId::new(0)),
        Err(StorageError::Foreign { what: "node", .. })
    ));
    assert_eq!(
        DataDirectory::open(&path, CLUSTER, NODE)
            .unwrap()
            .superblock()
            .starts,
        2
    );
}

#[test]
fn a_copy_of_the_superblock_that_none_could_follow_is_not_sound() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    drop(DataDirectory::open(&path, CLUSTER, NODE).unwrap());
    let sound = read_superblock(&path).unwrap();
    let mut file = sound.first_file();
    for (generation, starts) in [(u64::MAX, 1), (u64::MAX - 2, u64::MAX)] {
        let last = Superblock {
            generation,
            starts,
            ..sound
        };
        file[BLOCK_BYTES..].copy_from_slice(&last.to_block());
        std::fs::write(path.join("superblock"), &file).unwrap();
        assert_eq!(read_superblock(&path).unwrap(), sound);
    }
    let last = Superblock {
        generation: u64::MAX,
        ..sound
    };
    std::fs::write(path.join("superblock"), last.first_file()).unwrap();
    assert!(matches!(
        read_superblock(&path),
        Err(StorageError::Damaged { .. })
    ));
}

#[test]
fn one_copy_of_the_superblock_is_enough_and_none_is_not() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    drop(DataDirectory::open(&path, CLUSTER, NODE).unwrap());
    let whole = std::fs::read(path.join("superblock")).unwrap();
    let newest = read_superblock(&path).unwrap();
    let place = newest.offset() as usize;
    let mut torn = whole.clone();
    torn[place + 60] ^= 1;
    std::fs::write(path.join("superblock"), &torn).unwrap();
    assert_eq!(read_superblock(&path).unwrap().generation, newest.generation - 1);
    torn[(place + BLOCK_BYTES) % (2 * BLOCK_BYTES) + 60] ^= 1;
    std::fs::write(path.join("superblock"), &torn).unwrap();
    assert!(matches!(
        read_superblock(&path),
        Err(StorageError::Damaged { .. })
    ));
}

fn made() -> (TempDir, std::path::PathBuf) {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    (temporary, path)
}

fn refusal(path: &Path, cluster: ClusterId, node: NodeId) -> String {
    DataDirectory::open(path, cluster, node).unwrap_err().to_string()
}

#[test]
fn a_wiped_directory_is_refused_and_cannot_be_made_anew_over_its_remains() {
    let (_temporary, path) = made();
    let mut open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    open.prepare_segment(1, SEGMENT_BYTES, None).unwrap();
    drop(open);

    std::fs::remove_file(path.join("superblock")).unwrap();
    let error = refusal(&path, CLUSTER, NODE);
    assert!(
        error.contains(path.to_str().unwrap()) && error.contains("there is no superblock"),
        "{error}"
    );
    assert!(error.contains("atlas run --repair"), "{error}");
    let again = DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap_err();
    assert!(matches!(again, StorageError::Remains { .. }), "{again}");
    assert!(
        again
            .to_string()
            .contains("must not vote again under its old key"),
        "{again}"
    );

    std::fs::remove_dir_all(&path).unwrap();
    assert!(refusal(&path, CLUSTER, NODE).contains("`atlas format`"));
}

#[test]
fn a_lost_log_is_missed() {
    let (_temporary, path) = made();
    let mut open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    assert_eq!(open.segments().unwrap().len(), 0, "nothing was made yet");
    for index in 1..=3 {
        open.prepare_segment(index, SEGMENT_BYTES, None).unwrap();
    }
    assert_eq!(open.superblock().log_end, 3);
    for last in [3, 1] {
        std::fs::remove_file(open.segment_path(last)).unwrap();
        let scanned = scan(open.superblock(), &open.segments().unwrap(), |_| Ok(()));
        let error = scanned.unwrap_err().to_string();
        assert!(
            error.contains("0000000000000003") && error.contains("the segment is missing"),
            "{error}"
        );
    }
}

#[test]
fn the_directory_of_another_cluster_node_or_format_version_is_refused_naming_both() {
    let (_temporary, path) = made();
    drop(DataDirectory::open(&path, CLUSTER, NODE).unwrap());
    let other = ClusterId::from_bytes([8; 16]);
    let error = refusal(&path, other, NODE);
    let (found, expected) = (CLUSTER.to_string(), other.to_string());
    let names_both = format!("belongs to cluster {found}, expected {expected}");
    assert!(
        error.contains(&names_both) && error.contains("set `db_path`"),
        "{error}"
    );
    let error = refusal(&path, CLUSTER, NodeId::new(0));
    assert!(error.contains("belongs to node r2, expected r0"), "{error}");

    // Both copies as a later version would write them.
    let name = path.join("superblock");
    let mut blocks = std::fs::read(&name).unwrap();
    for block in blocks.chunks_mut(BLOCK_BYTES) {
        block[8..16].copy_from_slice(b"ATLAS\0SB");
        block[16..18].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64_with_seed(&block[8..], 0);
        block[..8].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(&name, &blocks).unwrap();
    let error = refusal(&path, CLUSTER, NODE);
    let names_both = format!(
        "belongs to format version {}, expected {FORMAT_VERSION}",
        FORMAT_VERSION + 1
    );
    assert!(error.contains(&names_both), "{error}");
}

#[test]
fn a_second_process_is_refused_by_name_and_the_first_is_not_disturbed() {
    let (_temporary, path) = made();
    let mut open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    let error = refusal(&path, CLUSTER, NODE);
    assert!(
        error.contains("another process uses this data directory; stop it first"),
        "{error}"
    );
    open.update(|superblock| superblock.log_start = 1).unwrap();
    assert_eq!(
        read_superblock(&path).unwrap().starts,
        1,
        "the second attempt left no trace"
    );
}

#[test]
fn a_superblock_that_could_not_be_written_leaves_the_other_copy_whole() {
    let (_temporary, path) = made();
    let mut open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    let before = *open.superblock();
    for step in 0..2 {
        for _ in 0..3 {
            files::planned::plan(Some(files::planned::Plan {
                first: step,
                count: 1,
                errno: libc::EIO,
                torn: true,
            }));
            open.update(|superblock| superblock.log_start = 9).unwrap_err();
            files::planned::plan(None);
            assert_eq!(*open.superblock(), before, "what failed has not changed");
        }
        let copies = std::fs::read(path.join("superblock")).unwrap();
        let kept = copies[before.offset() as usize..]
            .chunks(BLOCK_BYTES)
            .find_map(Superblock::from_block);
        assert_eq!(
            kept,
            Some(Ok(before)),
            "whatever became of the copy that was written"
        );
    }
    open.update(|superblock| superblock.log_start = 7).unwrap();
    assert_eq!(read_superblock(&path).unwrap().log_start, 7);
}

#[test]
fn segments_have_all_their_room_whatever_was_configured_before() {
    let (_temporary, path) = made();
    let mut open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    open.prepare_segment(1, SEGMENT_BYTES, None).unwrap();
    let length = |file: &std::fs::File| file.metadata().unwrap().len();
    assert_eq!(
        length(&open.open_segment(1, 2 * SEGMENT_BYTES).unwrap()),
        2 * SEGMENT_BYTES
    );
    let recycled = open.prepare_segment(2, 3 * SEGMENT_BYTES, Some(1)).unwrap();
    assert_eq!(length(&recycled), 3 * SEGMENT_BYTES);
    assert_eq!(open.segments().unwrap().len(), 1);
}

#[test]
fn what_was_not_finished_is_removed_at_the_next_start() {
    let (_temporary, path) = made();
    let leftovers = ["log/unfinished", "images/0000000000000007.unfinished"].map(|name| path.join(name));
    let kept = ["log/0000000000000001", "images/0000000000000007.partial"].map(|name| path.join(name));
    for file in leftovers.iter().chain(&kept) {
        std::fs::write(file, b"something").unwrap();
    }
    drop(DataDirectory::open(&path, CLUSTER, NODE).unwrap());
    assert!(
        leftovers.iter().all(|file| !file.exists()),
        "they would take space for ever"
    );
    assert!(kept.iter().all(|file| file.exists()));
}

#[test]
fn what_is_no_regular_file_is_named_and_never_waited_for() {
    let temporary = TempDir::new().unwrap();
    for (number, name) in [
        "log/0000000000000003",
        "images/0000000000000040",
        "lock",
        "superblock",
    ]
    .into_iter()
    .enumerate()
    {
        let path = temporary.path().join(number.to_string());
        DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
        let pipe = path.join(name);
        let _ = std::fs::remove_file(&pipe);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let opened = DataDirectory::open(&path, CLUSTER, NODE);
        let looked = opened.and_then(|open| open.segments().and_then(|_| open.snapshots()));
        let error = looked.unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("it is no regular file"),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_directory_that_is_missing_is_made_again_and_what_was_in_it_is_missed() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    let mut open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    open.prepare_segment(1, 1 << 20, None).unwrap();
    drop(open);
    for lost in ["log", "images"] {
        std::fs::remove_dir_all(path.join(lost)).unwrap();
    }
    let open = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    assert!(open.snapshots().unwrap().is_empty());
    let scanned = scan(open.superblock(), &open.segments().unwrap(), |_| Ok(()));
    assert!(
        matches!(scanned, Err(StorageError::Damaged { .. })),
        "{scanned:?}"
    );
}

#[test]
fn damage_of_a_superblock_says_what_helps_against_that() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    std::fs::write(path.join("superblock"), [7; 2 * BLOCK_BYTES]).unwrap();
    let error = DataDirectory::open(&path, CLUSTER, NODE).unwrap_err().to_string();
    assert!(
        error.contains("`atlas run --repair`") && !error.contains("sets its log aside"),
        "{error}"
    );
}
