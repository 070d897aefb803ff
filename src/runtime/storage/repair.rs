//! A damaged log is set aside: the replica goes on without it, and abstains from votes as long as a mark lies
//! in its directory.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::directory::{DataDirectory, sync_directory};
use super::group::{BLOCK_BYTES, GroupHeader};
use super::recovery::{Found, RawRecord};
use super::restart::StorageBackend;
use super::{RecordReader, StorageError, Superblock, codec};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::Record;
use crate::smr::replica::{OrderingOf, Stack, ViewTransferOf};
use crate::smr::types::{ClusterId, Epoch, NodeId, View};
use crate::smr::view_transfer::ViewTransferProtocol;

/// The file whose presence says that promises may be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbstentionMark {
    path: PathBuf,
}

impl AbstentionMark {
    /// The mark of a data directory, whether it is there or not.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self {
            path: directory.join("abstain"),
        }
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.path.exists()
    }

    /// What it says: the last view that the replica may have asked for, if that is known. What cannot be read
    /// says nothing.
    #[must_use]
    pub fn view(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.path).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("view = "))?
            .parse()
            .ok()
    }

    /// Makes it, on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set(&self, why: &str, view: Option<u64>) -> Result<(), StorageError> {
        let known = view.map_or_else(String::new, |view| format!("view = {view}\n"));
        let text = format!(
            "# {}\n# Promises of this replica may be forgotten: it abstains from votes until they do not matter any more, and removes this \
             file then. Never remove it by hand.\n{known}",
            why.replace('\n', " ")
        );
        // Whole or not at all.
        let unfinished = self.path.with_extension("new");
        File::create(&unfinished)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(StorageError::io(&unfinished, "cannot be written"))?;
        fs::rename(&unfinished, &self.path).map_err(StorageError::io(&self.path, "cannot be made"))?;
        sync_directory(self.directory())
    }

    /// Removes it: what was forgotten does not matter any more.
    ///
    /// # Errors
    /// When it cannot be removed. Then the replica abstains once more after its next start, which is safe.
    pub fn remove(&self) -> Result<(), StorageError> {
        fs::remove_file(&self.path).map_err(StorageError::io(&self.path, "cannot be removed"))?;
        sync_directory(self.directory())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// Sets a damaged log aside and marks the medium, so that the replica abstains until it may vote again.
///
/// # Errors
/// When the disk cannot do it.
pub(super) fn repair_log<S: Stack, M: StorageBackend>(
    medium: &mut M,
    reader: &RecordReader,
    damage: &StorageError,
) -> Result<(), StorageError> {
    let told = last_view::<S, M>(medium, reader)?;
    let view = match medium.abstention() {
        None => told,
        Some(before) => before.zip(told).map(|(before, told)| before.max(told)),
    };
    medium.set_log_aside(damage, view)
}

/// The last view that the log, as far as it is left, says this replica may have asked for. What it logged of
/// a view after the last gap shows that all it asked for before the gap was no later: views only grow.
fn last_view<S: Stack, M: StorageBackend>(
    medium: &M,
    reader: &RecordReader,
) -> Result<Option<View>, StorageError> {
    let read = |segment: &Found| {
        let mut bytes = Vec::new();
        medium.read_segment(segment, &mut bytes).map(|()| bytes)
    };
    let remains = SalvagedLog::of(&medium.superblock(), &medium.segments()?, read)?;
    let mut last = None;
    remains.each(read, |raw| {
        let view = match reader.read(raw.bytes) {
            Ok(Record::Proposal(proposal)) => Some(proposal.view),
            Ok(Record::View(view)) => Some(view),
            Ok(Record::Ordering { contents, .. }) => {
                OrderingOf::<S>::describe(&contents).and_then(|own| own.view)
            }
            Ok(Record::ViewTransfer(contents)) => {
                ViewTransferOf::<S>::describe(&contents).and_then(|own| own.view)
            }
            _ => None,
        };
        last = last.max(view);
    })?;
    Ok(last)
}

/// Moves the log of a data directory away, as evidence, and makes room for a new one. Where it is now.
///
/// # Errors
/// When it cannot be moved.
pub fn set_log_aside(directory: &Path) -> Result<PathBuf, StorageError> {
    let log = directory.join("log");
    let names = (1..).map(|number| directory.join(format!("log.damaged-{number}")));
    let aside = names
        .take(1 << 16)
        .find(|path| !path.exists())
        .ok_or_else(|| StorageError::damaged(&log, 0, "there is no room for one more damaged log"))?;
    fs::rename(&log, &aside).map_err(StorageError::io(&log, "cannot be set aside"))?;
    fs::create_dir(&log).map_err(StorageError::io(&log, "cannot be made"))?;
    sync_directory(directory)?;
    Ok(aside)
}

/// Makes a new, marked data directory where a lost one was; what is left of that is moved beside it. Where it
/// is now.
///
/// # Errors
/// When it cannot be moved or made.
pub fn replace_directory(
    path: &Path,
    (cluster, node, epoch): (ClusterId, NodeId, Epoch),
) -> Result<Option<PathBuf>, StorageError> {
    let is_empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let aside = match path.exists() && !is_empty {
        true => {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let names = (1..).map(|number| path.with_file_name(format!("{name}.damaged-{number}")));
            let free = names.take(1 << 16).find(|path| !path.exists());
            let aside =
                free.ok_or_else(|| StorageError::damaged(path, 0, "there is no room for one more of it"))?;
            fs::rename(path, &aside).map_err(StorageError::io(path, "cannot be set aside"))?;
            Some(aside)
        }
        false => None,
    };
    fs::create_dir_all(path).map_err(StorageError::io(path, "cannot be made"))?;
    // The mark is there before there is a directory to start with.
    AbstentionMark::of(path).set("the data directory was lost", None)?;
    DataDirectory::format(path, cluster, node, epoch)?;
    Ok(aside)
}

/// What is left of a damaged log: the records after its last gap, in order.
#[derive(Debug)]
pub struct SalvagedLog {
    /// Their groups, by number: the file, and where in it.
    groups: Vec<(u64, Found, usize)>,
    seed: u64,
}

impl SalvagedLog {
    /// Finds the groups that follow one another up to the end of the log.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of(
        superblock: &Superblock,
        files: &[Found],
        read: impl Fn(&Found) -> Result<Vec<u8>, StorageError>,
    ) -> Result<Self, StorageError> {
        let mut sound: Vec<(GroupHeader, u128, Found, usize)> = Vec::new();
        for file in files.iter().filter(|file| file.index >= superblock.log_start) {
            let bytes = read(file)?;
            let mut at = 0;
            while at < bytes.len() {
                let group = GroupHeader::read(&bytes[at..], superblock.seed)
                    .filter(|(header, ..)| header.tag == superblock.tag() && header.segment == file.index);
                let Some((header, checksum, _)) = group else {
                    at += BLOCK_BYTES;
                    continue;
                };
                sound.push((header, checksum, file.clone(), at));
                at += GroupHeader::disk_bytes(header.bytes as usize);
            }
        }
        sound.sort_by_key(|(header, ..)| header.number);
        let follows = |pair: &[(GroupHeader, u128, Found, usize)]| {
            pair[1].0.number == pair[0].0.number + 1 && pair[1].0.previous == pair[0].1
        };
        let gap = sound.windows(2).rposition(|pair| !follows(pair));
        let groups = sound.into_iter().skip(gap.map_or(0, |gap| gap + 1));
        Ok(Self {
            groups: groups
                .map(|(header, _, file, at)| (header.number, file, at))
                .collect(),
            seed: superblock.seed,
        })
    }

    /// Hands out every record.
    ///
    /// # Errors
    /// When a file cannot be read any more.
    pub fn each(
        &self,
        read: impl Fn(&Found) -> Result<Vec<u8>, StorageError>,
        mut each: impl FnMut(RawRecord<'_>),
    ) -> Result<(), StorageError> {
        let mut open: Option<(u64, Vec<u8>)> = None;
        for (_, file, at) in &self.groups {
            if open.as_ref().is_none_or(|(index, _)| *index != file.index) {
                open = Some((file.index, read(file)?));
            }
            let bytes = open.as_ref().map_or(&[][..], |(_, bytes)| bytes);
            let rest = bytes.get(*at..).unwrap_or_default();
            let Some((header, _, mut records)) = GroupHeader::read(rest, self.seed) else {
                continue;
            };
            for number in 0..u64::from(header.records) {
                let Ok(bytes) = codec::split_record(&mut records) else {
                    break;
                };
                each(RawRecord {
                    lsn: header.first_lsn.plus(number),
                    path: &file.path,
                    offset: *at as u64,
                    group: header.number,
                    bytes,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_until_it_is_removed_and_says_what_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let mark = AbstentionMark::of(directory.path());
        assert!(!mark.is_set());
        assert_eq!(mark.view(), None);
        mark.set("offset 4096:\nview = 99", Some(7)).unwrap();
        assert!(mark.is_set());
        assert_eq!(mark.view(), Some(7), "a reason is not taken for a view");
        mark.set("again", None).unwrap();
        assert_eq!(mark.view(), None);
        mark.remove().unwrap();
        assert!(!mark.is_set());
    }

    #[test]
    fn every_damaged_log_is_kept_under_a_name_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        for number in ["1", "2"] {
            fs::create_dir_all(&log).unwrap();
            fs::write(log.join(number), number).unwrap();
            set_log_aside(directory.path()).unwrap();
            assert_eq!(fs::read_dir(&log).unwrap().count(), 0);
        }
        let kept = |number: &str| {
            directory
                .path()
                .join(format!("log.damaged-{number}"))
                .join(number)
        };
        assert_eq!(fs::read(kept("1")).unwrap(), b"1");
        assert_eq!(fs::read(kept("2")).unwrap(), b"2");
    }
}
