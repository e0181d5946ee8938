//! The encoding stage: changed blocks become raw frames and index entries; raw frames become compressed ones.
//!
//! The [`Gatherer`] runs in block order and lays changed grains end to end, across blocks, so that a few grains of each
//! of many blocks still compress as one frame. The [`Encoder`] runs on any number of threads.

use crossbeam::channel::Receiver;

use crate::delta::compression::Compressor;
use crate::digest::BlockDigest;
use crate::error::Result;
use crate::flow::{ChangedBlock, EncodedFrame, RawFrame};
use crate::format::index::{GrainsEntry, IndexEntry, Piece};
use crate::format::repository_config::Compression;
use crate::geometry::{BlockIndex, Geometry, to_usize};

/// A frame is closed when it holds this many raw bytes.
pub const FRAME_RAW_TARGET: usize = 1 << 20;

/// Lays changed grains into frames.
pub struct Gatherer {
    geometry: Geometry,
    open: RawFrame,
    closed: Vec<RawFrame>,
    /// Room of frames that were encoded, to be used again.
    spare: Receiver<Vec<u8>>,
}

impl Gatherer {
    /// For blocks of this geometry.
    #[must_use]
    pub fn new(geometry: Geometry, spare: Receiver<Vec<u8>>) -> Self {
        Self { geometry, open: RawFrame { number: 0, bytes: Vec::new() }, closed: Vec::new(), spare }
    }

    /// Takes a changed block; its entry names frames by number.
    pub fn add(&mut self, index: BlockIndex, new: BlockDigest, block: &ChangedBlock) -> IndexEntry {
        let len = self.geometry.block_len(index);
        if new == BlockDigest::ZERO && !(block.whole && block.old == BlockDigest::UNKNOWN) {
            return IndexEntry::Zero { index, len, old: block.old };
        }
        if new == BlockDigest::ZERO {
            return IndexEntry::ZeroRange { first: index, count: 1 };
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut digests = Vec::new();
        for grain in block.stored.iter() {
            let (frame, raw_offset) = self.place(&block.buffer[self.geometry.grain_range(grain, len)]);
            match pieces.last_mut() {
                Some(piece) if piece.frame == frame => piece.grains += 1,
                _ => pieces.push(Piece { frame, raw_offset, grains: 1 }),
            }
            digests.push(block.grains[to_usize(u64::from(grain))]);
        }
        let (stored, zero) = (block.stored.clone(), block.zero.clone());
        IndexEntry::Grains(GrainsEntry {
            index,
            len,
            whole: block.whole,
            old: block.old,
            new,
            stored,
            zero,
            pieces,
            digests,
        })
    }

    fn place(&mut self, grain: &[u8]) -> (u64, u32) {
        if self.open.bytes.len() >= FRAME_RAW_TARGET {
            self.close();
        }
        if self.open.bytes.capacity() == 0 {
            self.open.bytes = self.spare.try_recv().unwrap_or_default();
            self.open.bytes.clear();
            self.open.bytes.reserve_exact(FRAME_RAW_TARGET + grain.len());
        }
        // A frame never holds more than FRAME_RAW_TARGET and one grain.
        let raw_offset = u32::try_from(self.open.bytes.len()).unwrap_or(u32::MAX);
        self.open.bytes.extend_from_slice(grain);
        (self.open.number, raw_offset)
    }

    fn close(&mut self) {
        let next = RawFrame { number: self.open.number + 1, bytes: Vec::new() };
        self.closed.push(std::mem::replace(&mut self.open, next));
    }

    /// Frames that are full.
    pub fn take_full(&mut self) -> std::vec::Drain<'_, RawFrame> {
        self.closed.drain(..)
    }

    /// Ends the open frame early, if it holds anything, so that the entries that point to it need not wait.
    pub fn close_open(&mut self) {
        if !self.open.bytes.is_empty() {
            self.close();
        }
    }

    /// The frames that are left.
    #[must_use]
    pub fn finish(mut self) -> Vec<RawFrame> {
        self.close_open();
        self.closed
    }
}

/// Compresses frames on one thread.
pub struct Encoder(Compressor);

impl Encoder {
    /// For this compression.
    pub fn new(compression: Compression) -> Result<Self> {
        Compressor::new(compression).map(Self)
    }

    /// Compresses one frame.
    pub fn encode(&mut self, frame: &RawFrame) -> Result<EncodedFrame> {
        let raw_len = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let (codec, payload) = self.0.compress(&frame.bytes)?;
        Ok(EncodedFrame { number: frame.number, codec, raw_len, payload })
    }
}
