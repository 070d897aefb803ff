//! The images of checkpoints that a simulated replica has, and the one that comes from others.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::execution::{CheckpointImage, ImageChunk};
use crate::messages::PieceRange;
use crate::state_transfer::{ImageEvent, ImageTask};
use crate::types::{NodeId, SeqNo};

/// About how long a chunk is.
const CHUNK_BYTES: usize = 4 << 10;
/// How many images are kept.
const IMAGES_KEPT: usize = 2;

/// Chunks in the order of their pieces; head and index first.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    images: BTreeMap<SeqNo, Vec<Bytes>>,
    receiving: Option<(SeqNo, Vec<Bytes>)>,
}

impl Shelf {
    /// Takes an image of an own checkpoint.
    pub fn take(&mut self, image: &mut dyn CheckpointImage) {
        let (mut chunks, mut chunk) = (Vec::new(), Vec::new());
        while image.next_chunk(CHUNK_BYTES, &mut chunk) {
            chunks.push(std::mem::take(&mut chunk).into());
        }
        self.put(image.claim().seq, chunks);
    }

    fn put(&mut self, seq: SeqNo, chunks: Vec<Bytes>) {
        self.images.insert(seq, chunks);
        while self.images.len() > IMAGES_KEPT {
            self.images.pop_first();
        }
    }

    /// The chunks of an image.
    pub fn image(&self, seq: SeqNo) -> Option<&[Bytes]> {
        self.images.get(&seq).map(Vec::as_slice)
    }

    /// Does a task; what came of it.
    pub fn run(&mut self, task: ImageTask) -> Vec<ImageEvent> {
        match task {
            ImageTask::Open(claim) => {
                let kept = self.receiving.take().filter(|(seq, _)| *seq == claim.seq);
                let chunks = kept.map(|(_, chunks)| chunks).unwrap_or_default();
                let mut events: Vec<ImageEvent> = chunks.iter().cloned().map(ImageEvent::Found).collect();
                self.receiving = Some((claim.seq, chunks));
                events.push(ImageEvent::Opened(claim.seq));
                events
            }
            ImageTask::Keep(chunk) => {
                let bytes = chunk.len();
                if let Some((_, chunks)) = &mut self.receiving {
                    chunks.push(chunk);
                }
                vec![ImageEvent::Kept(bytes)]
            }
            ImageTask::Complete(seq) => match self.receiving.take() {
                Some((received, mut chunks)) if received == seq => {
                    // Head and index have no first piece: they stay in front.
                    chunks.sort_by_key(|chunk| ImageChunk::start(chunk));
                    self.put(seq, chunks);
                    vec![ImageEvent::Completed(seq)]
                }
                _ => Vec::new(),
            },
            ImageTask::Read { to, range, bytes_max } => self.read(to, range, bytes_max),
            ImageTask::Install(_) | ImageTask::Hold(_) => Vec::new(),
        }
    }

    fn read(&self, to: NodeId, range: PieceRange, bytes_max: usize) -> Vec<ImageEvent> {
        let seq = SeqNo::new(range.seq);
        let chunks = self.images.get(&seq).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<Bytes> = Vec::new();
        if range.piece == PieceRange::HEAD {
            found.extend(chunks.iter().take(2).cloned());
        } else {
            let place = Some((range.piece as usize, range.offset));
            let first = chunks
                .partition_point(|chunk| ImageChunk::start(chunk) <= place)
                .max(1)
                - 1;
            let mut bytes = 0;
            for chunk in &chunks[first..] {
                let start = ImageChunk::start(chunk).map_or(0, |(piece, _)| piece);
                if bytes >= bytes_max || start >= range.until as usize {
                    break;
                }
                bytes += chunk.len();
                found.push(chunk.clone());
            }
        }
        if found.is_empty() {
            found.push(Bytes::new());
        }
        let count = found.len();
        let chunks = found.into_iter().enumerate();
        let events = chunks.map(|(number, bytes)| ImageEvent::Chunk {
            to,
            seq,
            last: number + 1 == count,
            bytes,
        });
        events.collect()
    }
}
