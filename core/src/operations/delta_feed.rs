//! From the collector to the delta: changed blocks are gathered into frames, each section of the volume by itself, and
//! entries go on in volume order.
//!
//! Sections number their frames far apart, so that one need not know how many those before it will have. If a section had
//! more frames than numbers the next one's would be taken for its own; frames hold a MiB, and numbers last for petabytes.

use std::collections::BTreeMap;

use crossbeam::channel::{Receiver, Sender};

use super::failure::stopped;
use super::order::Sections;
use crate::encoder::Gatherer;
use crate::error::{Error, Result};
use crate::flow::{Compared, DeltaMessage, RawFrame, Verdict};
use crate::format::index::IndexEntry;
use crate::geometry::{BlockIndex, Geometry};

/// Numbers that each section has for its frames. The first ones of all are for frames that are taken over.
const NUMBERS: u64 = 1 << 32;

fn first_number(section: u64) -> u64 {
    (section + 1).saturating_mul(NUMBERS)
}

/// Where the delta's frames and entries go.
pub struct DeltaFeed {
    geometry: Geometry,
    sections: Sections,
    /// Of sections that have begun.
    gatherers: BTreeMap<u64, Gatherer>,
    frames: Sender<RawFrame>,
    messages: Sender<DeltaMessage>,
    /// Room of frames that were encoded.
    spare: Receiver<Vec<u8>>,
}

impl DeltaFeed {
    pub fn new(
        geometry: Geometry,
        frames: Sender<RawFrame>,
        messages: Sender<DeltaMessage>,
        spare: Receiver<Vec<u8>>,
    ) -> Self {
        let (sections, gatherers) = (Sections::new(geometry), BTreeMap::new());
        Self { geometry, sections, gatherers, frames, messages, spare }
    }

    /// Passes on what somebody else has made.
    pub fn send(&self, message: DeltaMessage) -> Result<()> {
        self.messages.send(message).map_err(|_| stopped())
    }

    /// Begins with this block, behind so many frames of somebody else's.
    pub fn begin(&self, first: BlockIndex, frames: u64) -> Result<()> {
        if frames >= NUMBERS {
            return Err(Error::damaged("the unfinished delta has more frames than any delta can have"));
        }
        self.send(DeltaMessage::NoFrames(frames..first_number(self.sections.of(first))))
    }

    /// Puts into frames what of this block is to be stored. Blocks come in the order of their section.
    pub fn gather(&mut self, block: &mut Compared) -> Result<()> {
        let Verdict::Changed(changed) = &mut block.verdict else { return Ok(()) };
        let section = self.sections.of(block.index);
        let gatherer = self
            .gatherers
            .entry(section)
            .or_insert_with(|| Gatherer::new(self.geometry, first_number(section), self.spare.clone()));
        gatherer.add(block.index, block.digest, changed);
        send_full(gatherer, &self.frames)
    }

    /// The next entry in volume order.
    pub fn entry(&self, entry: IndexEntry) -> Result<()> {
        self.send(DeltaMessage::Entry(entry))
    }

    /// Ends a section's open frame, so that no entry waits for it.
    fn close_open(&mut self, section: u64) -> Result<()> {
        let Some(gatherer) = self.gatherers.get_mut(&section) else { return Ok(()) };
        gatherer.close_open();
        send_full(gatherer, &self.frames)
    }

    /// All of these blocks, which lie in one section, has been gathered, and all before them.
    pub fn passed(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        let section = self.sections.of(first);
        if first + count < self.sections.end(section) {
            return Ok(());
        }
        self.close_open(section)?;
        let end = self.gatherers.remove(&section).map_or(first_number(section), |ended| ended.number());
        self.send(DeltaMessage::NoFrames(end..first_number(section + 1)))
    }

    /// All before block `next` has been told: nothing of it may wait for an open frame.
    pub fn mark(&mut self, next: BlockIndex) -> Result<()> {
        self.close_open(self.sections.of(next))?;
        self.send(DeltaMessage::Passed(next))
    }
}

fn send_full(gatherer: &mut Gatherer, frames: &Sender<RawFrame>) -> Result<()> {
    gatherer.take_full().try_for_each(|frame| frames.send(frame).map_err(|_| stopped()))
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::{bounded, unbounded};

    use super::*;
    use crate::backup_id::VolumeIdentity;
    use crate::comparer::Comparer;
    use crate::delta::writer::{ChangeCounts, DeltaWriter, References};
    use crate::digest::DigestKind;
    use crate::encoder::Encoder;
    use crate::flow::{Collected, Skip, Skipped};
    use crate::format::delta::DeltaHeader;
    use crate::format::repository_config::Compression;
    use crate::geometry::to_usize;
    use crate::hasher::Hasher;
    use crate::operations::change::{Tell, Teller};
    use crate::operations::collector::{Collector, TableBuilder};
    use crate::operations::order::Reorder;
    use crate::progress::Progress;
    use crate::storage::{Storage, memory::MemoryStorage};
    use crate::sys::buffer_pool::BufferPool;
    use crate::sys::host::{random_below, random_bytes};

    const BLOCK: u32 = 256 << 10;
    const GRAIN: u32 = 8192;
    const BLOCKS: u64 = 301;

    fn geometry() -> Geometry {
        Geometry::new(BLOCKS * u64::from(BLOCK) - 20_000, BLOCK, GRAIN).unwrap()
    }

    /// A volume: of each block nothing, a few grains, or all of them; now and then a hole.
    fn volume() -> Vec<Vec<u8>> {
        let mut random = blake3::Hasher::new().update(&random_bytes::<8>().unwrap()).finalize_xof();
        let block = |index| {
            let mut bytes = vec![0; to_usize(u64::from(geometry().block_len(index)))];
            let sparse = [0, 3, 32][to_usize(random_below(3))];
            for grain in bytes.chunks_mut(to_usize(u64::from(GRAIN))) {
                if random_below(32) < sparse {
                    random.fill(grain);
                    grain.iter_mut().for_each(|byte| *byte %= 7);
                }
            }
            bytes
        };
        (0..BLOCKS).map(block).collect()
    }

    fn item(index: BlockIndex, bytes: &[u8], pool: &BufferPool, hasher: &mut Hasher) -> Collected {
        if index % 10 == 3 && bytes.iter().all(|byte| *byte == 0) {
            return Collected::Skip(Skipped { first: index, count: 1, why: Skip::Hole });
        }
        let mut buffer = pool.try_take().unwrap();
        buffer.set_len(bytes.len());
        buffer.copy_from_slice(bytes);
        let (len, hashed) = (geometry().block_len(index), hasher.hash(buffer));
        let comparer = Comparer::new(None, geometry());
        let verdict = comparer.compare(index, hashed.digest, hashed.grains, hashed.buffer).unwrap();
        Collected::Block(Compared { index, digest: hashed.digest, len, verdict })
    }

    /// The delta of a volume whose blocks arrive in this order, and the most bytes of frames that waited.
    fn delta(volume: &[Vec<u8>], arrival: &[BlockIndex]) -> (Vec<u8>, u64) {
        let header = DeltaHeader {
            geometry: geometry(),
            digest: DigestKind::Blake3,
            identity: VolumeIdentity::new("file:a").unwrap(),
            sequence: 1,
            parent: None,
        };
        let storage = MemoryStorage::new();
        let out = storage.create("a").unwrap();
        let mut writer = DeltaWriter::begin(out, &header, References::Forward).unwrap();
        let (frames_to, frames) = unbounded();
        let (messages_to, messages) = unbounded();
        let (_, spare) = bounded(0);
        let feed = DeltaFeed::new(geometry(), frames_to, messages_to, spare);
        let table = TableBuilder::new(None, None, None, 1, true).unwrap();
        let (progress, mut none) = (Progress::new(), |_| Ok(()));
        let teller = Teller::new(Tell::Ranges(&mut none));
        let mut collector =
            Collector::new(geometry(), DigestKind::Blake3, table, teller, Some(feed), &progress);
        collector.begin(None).unwrap();
        let pool = BufferPool::new(to_usize(BLOCKS), to_usize(u64::from(BLOCK))).unwrap();
        let mut hasher = Hasher::new(DigestKind::Blake3, geometry());
        let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
        let (mut order, mut most) = (Reorder::new(geometry(), 0), 0);
        let mut write = |writer: &mut DeltaWriter| {
            for frame in frames.try_iter() {
                writer.accept(DeltaMessage::Frame(encoder.encode(&frame).unwrap())).unwrap();
            }
            messages.try_iter().for_each(|message| writer.accept(message).unwrap());
        };
        for index in arrival {
            let item = item(*index, &volume[to_usize(*index)], &pool, &mut hasher);
            order.put(item, |item| collector.gather(item)).unwrap();
            while let Some(item) = order.take() {
                collector.take(item, false).unwrap();
            }
            write(&mut writer);
            most = most.max(writer.waiting_bytes());
        }
        assert_eq!(progress.bytes_done(), geometry().volume_size(), "everything is counted once");
        let root = collector.finish().unwrap().root;
        write(&mut writer);
        assert_eq!(writer.waiting_bytes(), 0);
        writer.finish(root, ChangeCounts::default()).unwrap();
        let object = storage.open("a").unwrap();
        let mut bytes = vec![0; to_usize(object.size())];
        object.read_exact_at(&mut bytes, 0).unwrap();
        (bytes, most)
    }

    #[test]
    fn a_delta_is_the_same_in_whatever_order_its_volume_is_read() {
        let volume = volume();
        let mut arrival: Vec<_> = (0..BLOCKS).collect();
        let (in_order, waited) = delta(&volume, &arrival);
        assert_eq!(waited, 0, "nothing waits that comes in its turn");
        arrival.reverse();
        let (reversed, waited) = delta(&volume, &arrival);
        assert!(waited > 0 && reversed == in_order);
        for _ in 0..3 {
            (1..arrival.len()).rev().for_each(|at| arrival.swap(at, to_usize(random_below(at as u64 + 1))));
            assert!(delta(&volume, &arrival).0 == in_order, "{arrival:?}");
        }
    }
}
