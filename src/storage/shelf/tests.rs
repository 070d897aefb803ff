//! The images that others send, on real files whose writes and syncs fail at every step.

use std::path::Path;
use std::sync::mpsc::Receiver;

use tempfile::TempDir;

use super::super::files::planned::{self, Plan};
use super::super::keeper::Task as KeeperTask;
use super::*;
use crate::messages::CheckpointClaim;
use crate::types::Digest;

const SEED: u64 = 7;
const SEQ: SeqNo = SeqNo::new(40);
const CLAIM: CheckpointClaim = CheckpointClaim {
    seq: SEQ,
    digest: Digest::ZERO,
};
/// How often what there was no space for fails again.
const FULL_STEPS: usize = 3;

/// A start of the shelf, and what its keeper was asked.
struct Life {
    work: Work,
    keeper: Receiver<KeeperTask>,
}

fn start(images: &Path) -> Life {
    let (handle, keeper) = KeeperHandle::detached();
    let work = Work {
        images: images.to_owned(),
        seed: SEED,
        keeper: handle,
        receiving: None,
        open: VecDeque::new(),
    };
    Life { work, keeper }
}

/// Head, index, and pieces: the shelf looks into none of them.
fn chunks() -> Vec<Bytes> {
    let piece = |number: u8| {
        let mut chunk = vec![2];
        chunk.extend_from_slice(&u32::from(number).to_le_bytes());
        chunk.extend(std::iter::repeat_n(number, 100 + usize::from(number)));
        Bytes::from(chunk)
    };
    let first = [Bytes::from_static(b"\0head"), Bytes::from_static(b"\x01index")];
    first.into_iter().chain((0..6).map(piece)).collect()
}

impl Life {
    fn run(&mut self, task: &ImageTask, told: &mut Vec<ImageEvent>) -> Result<(), StorageError> {
        self.work
            .run_with_space(task, &AtomicBool::new(false), &mut |shelved| match shelved {
                Shelved::Event(event) => told.push(event),
                Shelved::Read(read) => panic!("{read:?}"),
                Shelved::Failed(error) => panic!("{error}"),
            })
    }

    /// Opens the image, adds what is not found of it, completes it, and reads it back.
    fn receive(&mut self) -> Result<Vec<Bytes>, StorageError> {
        let mut told = Vec::new();
        self.run(&ImageTask::Open(CLAIM), &mut told)?;
        assert!(matches!(told.pop(), Some(ImageEvent::Opened(SEQ))));
        // A task that was done again tells again: what counts is what there is at the end.
        let found: Vec<Bytes> = told
            .drain(..)
            .map(|event| match event {
                ImageEvent::Found(chunk) => chunk,
                other => panic!("{other:?}"),
            })
            .collect();
        let missing: Vec<Bytes> = chunks()
            .into_iter()
            .filter(|chunk| !found.contains(chunk))
            .collect();
        assert!(found.iter().all(|chunk| chunks().contains(chunk)));
        for chunk in missing {
            self.run(&ImageTask::Keep(chunk), &mut told)?;
        }
        self.run(&ImageTask::Complete(SEQ), &mut told)?;
        assert!(
            matches!(told.pop(), Some(ImageEvent::Completed(SEQ))),
            "it is told"
        );
        let adopted: Vec<KeeperTask> = self.keeper.try_iter().collect();
        assert!(matches!(adopted[..], [KeeperTask::Adopt(SEQ)]), "{adopted:?}");
        let (sender, stream) = mpsc::sync_channel(64);
        self.work.stream(SEQ, &sender);
        drop(sender);
        stream.into_iter().collect()
    }
}

/// The operations of a run in which nothing fails.
fn steps() -> usize {
    let directory = TempDir::new().unwrap();
    planned::plan(None);
    assert_eq!(start(directory.path()).receive().unwrap(), chunks());
    planned::steps()
}

#[test]
fn a_disk_that_is_full_at_any_step_makes_a_state_wait_and_come_whole() {
    let steps = steps();
    assert!(steps > 15, "{steps}");
    for (first, torn) in (0..steps).flat_map(|first| [(first, false), (first, true)]) {
        let directory = TempDir::new().unwrap();
        planned::plan(Some(Plan {
            first,
            count: FULL_STEPS,
            errno: libc::ENOSPC,
            torn,
        }));
        let received = start(directory.path()).receive();
        planned::plan(None);
        assert_eq!(received.unwrap(), chunks(), "full from step {first} on");
    }
}

#[test]
fn a_disk_that_fails_at_any_step_stops_the_replica_and_what_was_kept_is_found_after_its_restart() {
    for (first, torn) in (0..steps()).flat_map(|first| [(first, false), (first, true)]) {
        let directory = TempDir::new().unwrap();
        planned::plan(Some(Plan {
            first,
            count: 1,
            errno: libc::EIO,
            torn,
        }));
        let received = start(directory.path()).receive();
        planned::plan(None);
        assert!(received.is_err(), "step {first} was not reached");
        let received = start(directory.path()).receive();
        assert_eq!(received.unwrap(), chunks(), "failed at step {first}");
    }
}
