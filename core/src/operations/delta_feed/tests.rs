//! A delta from blocks that arrive in any order, through frames that are done in any order, with marks at any time: what is
//! decoded of it must be the volume, and what is before a mark must be enough to go on from.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use crossbeam::channel::{bounded, unbounded};

use super::*;
use crate::backup_id::VolumeIdentity;
use crate::comparer::Comparer;
use crate::delta::compression::decompress;
use crate::delta::prefix::DeltaPrefix;
use crate::delta::reader::DeltaReader;
use crate::delta::writer::{ChangeCounts, DeltaWriter, Passed, References};
use crate::digest::{DigestKind, RootDigest};
use crate::encoder::Encoder;
use crate::flow::{Collected, EncodedFrame, Skip, Skipped};
use crate::format::delta::DeltaHeader;
use crate::format::repository_config::{Codec, Compression};
use crate::geometry::to_usize;
use crate::hasher::Hasher;
use crate::operations::change::{Tell, Teller};
use crate::operations::collector::{Collector, TableBuilder};
use crate::operations::order::Reorder;
use crate::operations::taking_over::TakenOver;
use crate::progress::Progress;
use crate::storage::{Durable, ObjectReader, ObjectWriter, Storage, memory::MemoryStorage};
use crate::sys::buffer_pool::BufferPool;
use crate::sys::host::{random_below, random_bytes};

/// Blocks whose grains fill whole frames, and so many small ones that there are several index segments and sections.
const LARGE: (u64, u32) = (34, 2 << 20);
const SMALL: (u64, u32) = (1400, 64 << 10);
const GRAIN: u32 = 4096;

/// A volume: of each block nothing, a few grains, or all of them.
struct Volume {
    geometry: Geometry,
    blocks: Vec<Vec<u8>>,
}

impl Volume {
    fn random((blocks, block_size): (u64, u32)) -> Self {
        let size = blocks * u64::from(block_size) - 20_000;
        let geometry = Geometry::new(size, block_size, GRAIN).unwrap();
        let mut random = blake3::Hasher::new().update(&random_bytes::<8>().unwrap()).finalize_xof();
        let block = |index| {
            let mut bytes = vec![0; to_usize(u64::from(geometry.block_len(index)))];
            let of_16 = [0, 2, 16][to_usize(random_below(3))];
            for grain in bytes.chunks_mut(to_usize(u64::from(GRAIN))) {
                let mut chance = [0];
                random.fill(&mut chance);
                if chance[0] % 16 < of_16 {
                    random.fill(grain);
                    grain.iter_mut().for_each(|byte| *byte %= 7);
                }
            }
            bytes
        };
        Self { geometry, blocks: (0..blocks).map(block).collect() }
    }

    fn in_order(&self) -> Vec<BlockIndex> {
        (0..self.blocks.len() as u64).collect()
    }

    fn anyhow(&self) -> Vec<BlockIndex> {
        let mut arrival = self.in_order();
        (1..arrival.len()).rev().for_each(|at| arrival.swap(at, to_usize(random_below(at as u64 + 1))));
        arrival
    }

    fn item(&self, index: BlockIndex, pool: &BufferPool, hasher: &mut Hasher) -> Collected {
        let bytes = &self.blocks[to_usize(index)];
        if index % 10 == 3 && bytes.iter().all(|byte| *byte == 0) {
            return Collected::Skip(Skipped { first: index, count: 1, why: Skip::Hole });
        }
        let mut buffer = pool.try_take().unwrap();
        buffer.set_len(bytes.len());
        buffer.copy_from_slice(bytes);
        let (len, hashed) = (self.geometry.block_len(index), hasher.hash(buffer));
        let comparer = Comparer::new(None, self.geometry);
        let verdict = comparer.compare(index, hashed.digest, hashed.grains, hashed.buffer).unwrap();
        Collected::Block(Compared { index, digest: hashed.digest, len, verdict })
    }
}

/// Everything is durable as soon as it is written.
#[derive(Default, Clone)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl ObjectWriter for Bytes {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn make_durable(&mut self) -> Result<Option<Durable>> {
        Ok(Some(Durable { name: "a".into(), len: self.0.lock().unwrap().len() as u64 }))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// A finished pass.
struct Made {
    bytes: Vec<u8>,
    marks: Vec<Passed>,
    root: RootDigest,
    /// The most bytes of frames that waited.
    waited: u64,
}

/// The delta's side of a pass, whose encoders and writer are as fast or slow as chance wants.
struct Delivery {
    writer: DeltaWriter,
    encoder: Encoder,
    frames: Receiver<RawFrame>,
    messages: Receiver<DeltaMessage>,
    encoding: Vec<RawFrame>,
    /// On the way to the writer.
    arriving: VecDeque<DeltaMessage>,
    marks: Vec<Passed>,
    waited: u64,
}

impl Delivery {
    /// What was sent meanwhile goes on its way: frames when they are encoded, messages at once.
    fn take(&mut self) {
        self.encoding.extend(self.frames.try_iter());
        self.encode(false);
        self.arriving.extend(self.messages.try_iter());
    }

    fn encode(&mut self, rest: bool) {
        while !self.encoding.is_empty() && (rest || random_below(2) == 0) {
            let frame = self.encoding.swap_remove(to_usize(random_below(self.encoding.len() as u64)));
            self.arriving.push_back(DeltaMessage::Frame(self.encoder.encode(&frame).unwrap()));
        }
    }

    /// Writes some of what has arrived, or all there is.
    fn write(&mut self, rest: bool) {
        self.encode(rest);
        while let Some(message) = self.arriving.pop_front_if(|_| rest || random_below(4) > 0) {
            self.writer.accept(message).unwrap();
            self.waited = self.waited.max(self.writer.waiting_bytes());
            if self.writer.has_passed() {
                self.marks.extend(self.writer.make_durable().unwrap().durable);
            }
        }
    }
}

/// Makes the delta of blocks that arrive in this order, behind what is taken over; marks now and then, or never.
fn make(volume: &Volume, arrival: &[BlockIndex], taken: Option<&TakenOver<'_>>, marking: bool) -> Made {
    let geometry = volume.geometry;
    let header = DeltaHeader {
        geometry,
        digest: DigestKind::Blake3,
        identity: VolumeIdentity::new("file:a").unwrap(),
        sequence: 1,
        parent: None,
    };
    let out = Bytes::default();
    let (frames_to, frames) = unbounded();
    let (messages_to, messages) = unbounded();
    let (_, spare) = bounded(0);
    let mut delivery = Delivery {
        writer: DeltaWriter::begin(Box::new(out.clone()), &header, References::Forward).unwrap(),
        encoder: Encoder::new(Compression::Zstd(1)).unwrap(),
        frames,
        messages,
        encoding: Vec::new(),
        arriving: VecDeque::new(),
        marks: Vec::new(),
        waited: 0,
    };
    let feed = DeltaFeed::new(geometry, frames_to, messages_to, spare);
    let table = TableBuilder::new(None, None, None, 1, true).unwrap();
    let (progress, mut none) = (Progress::new(), |_| Ok(()));
    let teller = Teller::new(Tell::Ranges(&mut none));
    let mut collector = Collector::new(geometry, DigestKind::Blake3, table, teller, Some(feed), &progress);
    collector.begin(taken).unwrap();
    let pool = BufferPool::new(volume.blocks.len(), to_usize(u64::from(geometry.block_size()))).unwrap();
    let mut hasher = Hasher::new(DigestKind::Blake3, geometry);
    let begun = taken.map_or(0, |taken| taken.next);
    let mut order = Reorder::new(geometry, begun);
    for index in arrival.iter().filter(|index| **index >= begun) {
        if marking && random_below(8) == 0 {
            collector.mark(order.next()).unwrap();
            delivery.take();
        }
        let item = volume.item(*index, &pool, &mut hasher);
        order.put(item, |item| collector.gather(item)).unwrap();
        while let Some(item) = order.take() {
            collector.take(item, false).unwrap();
        }
        delivery.take();
        delivery.write(false);
    }
    assert_eq!(progress.bytes_done(), geometry.volume_size(), "everything is counted once");
    let root = collector.finish().unwrap().root;
    delivery.take();
    delivery.write(true);
    let Delivery { writer, marks, waited, .. } = delivery;
    assert_eq!(writer.waiting_bytes(), 0);
    writer.finish(root, ChangeCounts::default()).unwrap();
    let bytes = std::mem::take(&mut *out.0.lock().unwrap());
    Made { bytes, marks, root, waited }
}

fn object(bytes: &[u8]) -> Arc<dyn ObjectReader> {
    let storage = MemoryStorage::new();
    storage.put_new("a", bytes).unwrap();
    storage.open("a").unwrap()
}

/// Frames and entries of the first bytes of a delta, in their order.
fn walk(bytes: &[u8], len: u64) -> (Vec<EncodedFrame>, Vec<IndexEntry>) {
    let (mut frames, mut entries) = (Vec::new(), Vec::new());
    let prefix = DeltaPrefix::open(object(&bytes[..to_usize(len)]), len).unwrap();
    let each = |message| {
        match message {
            DeltaMessage::Frame(frame) => frames.push(frame),
            DeltaMessage::Entry(entry) => entries.push(entry),
            _ => panic!("neither a frame nor an entry"),
        }
        Ok(())
    };
    prefix.walk(each).unwrap();
    (frames, entries)
}

/// Checks that these are the volume's blocks before `next`, and no frame more.
fn assert_is(volume: &Volume, (frames, entries): &(Vec<EncodedFrame>, Vec<IndexEntry>), next: BlockIndex) {
    let raw = |frame: &EncodedFrame| {
        decompress(frame.codec, frame.payload.clone(), to_usize(u64::from(frame.raw_len))).unwrap()
    };
    let raw: Vec<_> = frames.iter().map(raw).collect();
    let (mut at, mut needed) = (0, BTreeSet::new());
    for entry in entries {
        assert_eq!(entry.span().0, at, "every block has an entry, in order");
        at += entry.span().1;
        let mut blocks = (entry.span().0..at).map(|index| volume.blocks[to_usize(index)].clone());
        let IndexEntry::Grains(entry) = entry else {
            assert!(blocks.all(|block| block.iter().all(|byte| *byte == 0)));
            continue;
        };
        let (mut grains, mut block) = (entry.stored.iter(), vec![0; to_usize(u64::from(entry.len))]);
        for piece in &entry.pieces {
            needed.insert(piece.frame);
            let mut from = &raw[to_usize(piece.frame)][to_usize(u64::from(piece.raw_offset))..];
            for grain in grains.by_ref().take(to_usize(u64::from(piece.grains))) {
                let range = volume.geometry.grain_range(grain, entry.len);
                let (bytes, rest) = from.split_at(range.len());
                block[range].copy_from_slice(bytes);
                from = rest;
            }
        }
        assert!(grains.next().is_none() && blocks.next() == Some(block), "block {}", entry.index);
    }
    assert_eq!(at, next);
    assert_eq!(needed.len(), frames.len(), "no frame without entries");
}

fn content(volume: &Volume, made: &Made) -> (Vec<EncodedFrame>, Vec<IndexEntry>) {
    let end = DeltaReader::open(object(&made.bytes)).unwrap().trailer().table_offset;
    let content = walk(&made.bytes, end);
    assert_is(volume, &content, volume.blocks.len() as u64);
    content
}

fn told((frames, entries): (Vec<EncodedFrame>, Vec<IndexEntry>)) -> (Vec<(Codec, Vec<u8>)>, Vec<IndexEntry>) {
    (frames.into_iter().map(|frame| (frame.codec, frame.payload)).collect(), entries)
}

#[test]
fn a_delta_has_the_same_frames_and_entries_in_whatever_order_its_volume_is_read() {
    for shape in [LARGE, SMALL] {
        let volume = Volume::random(shape);
        let in_order = make(&volume, &volume.in_order(), None, false);
        let expected = told(content(&volume, &in_order));
        let mut backwards = volume.in_order();
        backwards.reverse();
        for arrival in [backwards, volume.anyhow()] {
            let made = make(&volume, &arrival, None, false);
            assert!(made.waited > 0 && made.root == in_order.root);
            assert!(told(content(&volume, &made)) == expected, "{arrival:?}");
        }
    }
}

#[test]
fn what_is_before_a_mark_is_whole_and_can_be_gone_on_from() {
    for shape in [LARGE, SMALL] {
        let volume = Volume::random(shape);
        // Each section is read in order, four of them at once, as the reader does; and in order.
        let sections = Sections::new(volume.geometry);
        let mut at_once = volume.in_order();
        at_once.sort_by_key(|index| index - sections.start(sections.of(*index)));
        for arrival in [at_once, volume.in_order()] {
            let made = make(&volume, &arrival, None, true);
            content(&volume, &made);
            for passed in made.marks.iter().step_by(1 + made.marks.len() / 8) {
                assert_is(&volume, &walk(&made.bytes, passed.len), passed.next);
            }
            let passed = made.marks[made.marks.len() / 2];
            let prefix = DeltaPrefix::open(object(&made.bytes[..to_usize(passed.len)]), passed.len).unwrap();
            let taken = TakenOver { prefix: &prefix, next: passed.next, read_all: true };
            let resumed = make(&volume, &volume.anyhow(), Some(&taken), true);
            content(&volume, &resumed);
            assert!(resumed.root == made.root, "resumed at {}", passed.next);
        }
    }
}
