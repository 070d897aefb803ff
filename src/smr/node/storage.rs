use std::collections::VecDeque;

use super::SnapshotTrust;
use crate::smr::types::{SeqNo, View};

/// What a cut of the log leaves: the log starts at `log_start` now, and is in `view` at least; the segments
/// that are `gone` lay before that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The first segment that is needed.
    pub log_start: u64,
    /// The view in which it was cut.
    pub view: View,
    /// Segments with nothing in them that is needed.
    pub gone: Vec<u64>,
}

/// What the [`StorageWork`] is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageTask {
    /// To make the segment `index`, of so many bytes.
    Prepare {
        /// Its number.
        index: u64,
        /// Its size.
        bytes: u64,
    },
    /// To have the log start later.
    Release(Released),
    /// To keep the snapshot of execution's state at `seq` that was written beside its place; it was given
    /// after so many states from others had been installed.
    Written {
        /// The states.
        installed: u64,
        /// The checkpoint.
        seq: SeqNo,
        /// Whether it is kept however long there is no room for it.
        is_needed: bool,
    },
    /// The state that execution has is wrong: no snapshot of it is kept any more.
    Invalidate,
    /// To have a restart begin with a snapshot that came from others, and is whole.
    InstallBase(SeqNo),
    /// Execution has read the snapshot that came.
    Installed,
    /// To remove the snapshots before this one, but for some.
    Forget(SeqNo, Vec<SeqNo>),
}

/// What is done on disk next. It is there for good when it [ended](StorageWork::on_ended), and the next one
/// begins after that: a replica may stop between any two, and inside of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageStep {
    /// Fills a segment with zeros, or uses one again whose groups have another number. Done again, it goes
    /// on.
    Prepare {
        /// Its number.
        index: u64,
        /// Its size.
        bytes: u64,
        /// The number of the one that is used again.
        recycled: Option<u64>,
    },
    /// Has the superblock name the start of the log.
    Cut(Released),
    /// Puts the own snapshot that was written beside its place there.
    Place(SeqNo),
    /// Removes the own snapshot that was written beside its place.
    Discard(SeqNo),
    /// Puts the snapshot that came from others into its place, over an own one. Done again, it goes on.
    PlaceReceived(SeqNo),
    /// Has the superblock name the snapshot that a restart begins with.
    Name(SeqNo),
    /// Removes the snapshots after this one.
    ForgetAfter(SeqNo),
    /// Removes the snapshots before this one, but for some.
    Forget(SeqNo, Vec<SeqNo>),
}

impl StorageStep {
    /// Whether the disk may have no room for it and be sound all the same. What says where the log starts was
    /// there before: there is room for it.
    #[must_use]
    pub const fn may_lack_room(&self) -> bool {
        !matches!(self, Self::Cut(_))
    }
}

/// How a step ended, unless the disk failed: then the replica ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageOutcome {
    /// It is done.
    Done,
    /// There was no room for it. There may be later.
    NoRoom,
}

/// What the storage worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageDone {
    /// A segment can be used.
    Segment(u64),
    /// A segment cannot be made for now; it may be asked for again.
    NoSegment,
    /// The contents of a checkpoint are on disk.
    Snapshot(SeqNo),
    /// There is no room for the contents of a checkpoint: they are not kept.
    NoSnapshot,
    /// A restart begins with this snapshot, which came from others.
    Adopted(SeqNo),
}

/// Says what is done on disk beside the log, in which order: with segments, with snapshots that are whole,
/// and with the superblock, which names where both begin.
///
/// [`begin`](Self::begin) takes a task; while there is a [next step](Self::next_step) it is done, and
/// [ended](Self::on_ended). Then comes the next task.
///
/// **Adopting.** A state that came from others replaces the one that execution has, which may be wrong. From
/// then on no snapshot of the replaced state may be believed, whatever is under way when the replica stops:
/// - *A state is found to be wrong:* no snapshot of it is placed any more.
/// - *The snapshot that came is put in its place here*, after the own snapshots that were written before it: one of
///   the wrong state with the same number is replaced, and does not replace it.
/// - *The superblock names the snapshot that came; then the later ones are removed.* A restart in between begins
///   with it, and removes what is left of the later ones. Only then execution reads it, and only then another
///   one may come: were one placed meanwhile, it would be removed with the later ones, and be named all the
///   same.
/// - *Snapshots that are being written* are of the state that execution had when it gave them: each carries how
///   many states had been installed then. It is placed if that is still so, and none was adopted since. To
///   write one may take longer than to install a state.
/// - *Earlier snapshots* stay: when this replica only fell behind they are sound, and peers may need them. Those
///   of a wrong state are told apart by their heads: after a restart a snapshot is offered as what its own head
///   says, and only that can be proved.
#[derive(Debug)]
pub struct StorageWork {
    trust: SnapshotTrust,
    /// Segments that are not needed any more.
    spare: Vec<u64>,
    /// The segment that is made, and what of: once more of the same, when there was no room.
    preparing: Option<(u64, Option<u64>)>,
    /// The snapshot that a restart begins with, if it is there.
    named: Option<SeqNo>,
    task: Option<StorageTask>,
    steps: VecDeque<StorageStep>,
}

impl StorageWork {
    /// A storage worker that finds these segments, of which nothing is needed any more, and the snapshot that
    /// the superblock names, if it is there.
    #[must_use]
    pub fn new(spare: Vec<u64>, named: Option<SeqNo>) -> Self {
        Self {
            trust: SnapshotTrust::default(),
            spare,
            preparing: None,
            named,
            task: None,
            steps: VecDeque::new(),
        }
    }

    /// Begins a task. The one before is over, or the disk failed.
    pub fn begin(&mut self, task: StorageTask) {
        self.steps.clear();
        match &task {
            StorageTask::Prepare { index, bytes } => {
                let again = self.preparing.filter(|(preparing, _)| preparing == index);
                let (index, recycled) = again.unwrap_or_else(|| (*index, self.spare.pop()));
                self.preparing = Some((index, recycled));
                let bytes = *bytes;
                self.steps.push_back(StorageStep::Prepare {
                    index,
                    bytes,
                    recycled,
                });
            }
            // First nobody looks there any more, then the segments are used again.
            StorageTask::Release(released) => self.steps.push_back(StorageStep::Cut(released.clone())),
            // Of a state that was replaced, or is being.
            StorageTask::Written { installed, seq, .. } if !self.trust.believes(*installed) => {
                self.steps.push_back(StorageStep::Discard(*seq));
            }
            StorageTask::Written { seq, .. } => {
                self.steps.push_back(StorageStep::Place(*seq));
                if self.named.is_none_or(|named| *seq > named) {
                    self.steps.push_back(StorageStep::Name(*seq));
                }
            }
            StorageTask::Invalidate => self.trust.distrust(),
            StorageTask::InstallBase(seq) => {
                self.trust.distrust();
                self.steps.push_back(StorageStep::PlaceReceived(*seq));
                if self.named != Some(*seq) {
                    self.steps.push_back(StorageStep::Name(*seq));
                }
                // Ours are of a state that a quorum contradicted, or that no log of ours leads on from.
                self.steps.push_back(StorageStep::ForgetAfter(*seq));
            }
            StorageTask::Installed => self.trust.installed(),
            StorageTask::Forget(before, but) => {
                self.steps.push_back(StorageStep::Forget(*before, but.clone()));
            }
        }
        self.task = Some(task);
    }

    /// What is done next; `None` when the task is over.
    #[must_use]
    pub fn next_step(&self) -> Option<&StorageStep> {
        self.steps.front()
    }

    /// The next step ended. One that there was no room for comes again, if it cannot be left undone.
    pub fn on_ended(&mut self, outcome: StorageOutcome) -> Option<StorageDone> {
        match outcome {
            StorageOutcome::Done => self.done(),
            StorageOutcome::NoRoom => match &self.task {
                Some(
                    StorageTask::InstallBase(_)
                    | StorageTask::Release(_)
                    | StorageTask::Written { is_needed: true, .. },
                ) => None,
                task => {
                    let event = match task {
                        Some(StorageTask::Prepare { .. }) => Some(StorageDone::NoSegment),
                        Some(StorageTask::Written { .. }) => Some(StorageDone::NoSnapshot),
                        // What is left is forgotten with the next ones.
                        _ => None,
                    };
                    self.steps.clear();
                    event
                }
            },
        }
    }

    fn done(&mut self) -> Option<StorageDone> {
        let event = match self.steps.pop_front()? {
            StorageStep::Prepare { index, .. } => {
                self.preparing = None;
                Some(StorageDone::Segment(index))
            }
            StorageStep::Cut(released) => {
                self.spare.extend(released.gone);
                None
            }
            StorageStep::Name(seq) => {
                self.named = Some(seq);
                Some(StorageDone::Snapshot(seq))
            }
            StorageStep::Place(seq) => Some(StorageDone::Snapshot(seq)),
            StorageStep::ForgetAfter(seq) => Some(StorageDone::Adopted(seq)),
            StorageStep::Forget(before, but) => {
                self.named = self.named.filter(|named| *named >= before || but.contains(named));
                None
            }
            StorageStep::Discard(_) | StorageStep::PlaceReceived(_) => None,
        };
        // What a task amounts to is said with its last step.
        event.filter(|_| self.steps.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQ: SeqNo = SeqNo::new(20);

    /// Does a task without a lack of room: its steps, and what was said.
    fn run(storage: &mut StorageWork, task: StorageTask) -> (Vec<StorageStep>, Option<StorageDone>) {
        let (mut steps, mut said) = (Vec::new(), None);
        storage.begin(task);
        while let Some(step) = storage.next_step() {
            assert!(said.is_none(), "it is said last");
            steps.push(step.clone());
            said = storage.on_ended(StorageOutcome::Done);
        }
        (steps, said)
    }

    fn written(installed: u64, seq: u64) -> StorageTask {
        let seq = SeqNo::new(seq);
        StorageTask::Written {
            installed,
            seq,
            is_needed: false,
        }
    }

    #[test]
    fn an_adopted_snapshot_is_named_before_later_ones_go_and_own_ones_wait_until_it_is_installed() {
        let mut storage = StorageWork::new(Vec::new(), Some(SeqNo::new(40)));
        let (steps, said) = run(&mut storage, StorageTask::InstallBase(SEQ));
        let expected = [
            StorageStep::PlaceReceived(SEQ),
            StorageStep::Name(SEQ),
            StorageStep::ForgetAfter(SEQ),
        ];
        assert_eq!(steps, expected);
        assert_eq!(said, Some(StorageDone::Adopted(SEQ)));
        let dropped = (vec![StorageStep::Discard(SeqNo::new(50))], None);
        assert_eq!(run(&mut storage, written(0, 50)), dropped, "it is being replaced");
        assert_eq!(run(&mut storage, StorageTask::Installed), (Vec::new(), None));
        assert_eq!(run(&mut storage, written(0, 50)), dropped, "it was replaced");
        let later = SeqNo::new(30);
        let kept = vec![StorageStep::Place(later), StorageStep::Name(later)];
        assert_eq!(
            run(&mut storage, written(1, 30)),
            (kept, Some(StorageDone::Snapshot(later)))
        );
    }

    #[test]
    fn an_earlier_snapshot_is_kept_and_not_named_unless_the_one_that_is_named_is_gone() {
        let (place, name) = (StorageStep::Place(SEQ), StorageStep::Name(SEQ));
        let mut storage = StorageWork::new(Vec::new(), Some(SeqNo::new(40)));
        let said = Some(StorageDone::Snapshot(SEQ));
        assert_eq!(run(&mut storage, written(0, 20)), (vec![place.clone()], said));
        run(&mut storage, StorageTask::Forget(SeqNo::new(50), vec![]));
        assert_eq!(run(&mut storage, written(0, 20)), (vec![place, name], said));
    }

    #[test]
    fn without_room_an_snapshot_is_dropped_a_segment_asked_for_again_and_what_was_adopted_waits() {
        let mut storage = StorageWork::new(vec![3], None);
        let prepare = || StorageTask::Prepare { index: 9, bytes: 1 };
        storage.begin(prepare());
        let first = storage.next_step().cloned();
        assert_eq!(
            storage.on_ended(StorageOutcome::NoRoom),
            Some(StorageDone::NoSegment)
        );
        assert_eq!(storage.next_step(), None);
        let released = Released {
            log_start: 5,
            view: View::ZERO,
            gone: vec![4],
        };
        let cut = vec![StorageStep::Cut(released.clone())];
        assert_eq!(run(&mut storage, StorageTask::Release(released)), (cut, None));
        // The first attempt may have taken the old segment already.
        let (again, said) = run(&mut storage, prepare());
        assert_eq!(first.as_slice(), again);
        assert_eq!(said, Some(StorageDone::Segment(9)));
        storage.begin(written(0, 20));
        assert_eq!(
            storage.on_ended(StorageOutcome::NoRoom),
            Some(StorageDone::NoSnapshot)
        );
        assert_eq!(storage.next_step(), None);
        storage.begin(StorageTask::InstallBase(SEQ));
        assert_eq!(storage.on_ended(StorageOutcome::NoRoom), None);
        assert_eq!(storage.next_step(), Some(&StorageStep::PlaceReceived(SEQ)));
    }
}
