//! The encoding stage: changed blocks become raw frames and index entries; raw frames become compressed ones.
//!
//! A [`Gatherer`] runs in block order and lays changed grains end to end, across blocks, so that a few grains of each
//! of many blocks still compress as one frame; long runs of neighbours are compressed where they were read to, without a
//! copy, which holds their buffer until then. The [`Encoder`] runs on any number of threads.

use std::sync::Arc;

use crossbeam::channel::Receiver;

use crate::delta::compression::Compressor;
use crate::digest::{BlockDigest, GrainDigest};
use crate::error::Result;
use crate::flow::{ChangedBlock, Content, EncodedFrame, RawBytes, RawFrame};
use crate::format::index::{GrainsEntry, IndexEntry, Piece};
use crate::format::repository_config::Compression;
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::sys::buffer_pool::PooledBuffer;

/// A frame is closed when it holds this many raw bytes.
pub const FRAME_RAW_TARGET: usize = 1 << 20;

/// Lays changed grains into frames.
pub struct Gatherer {
    geometry: Geometry,
    /// The number of the next frame to be closed, and what it holds so far.
    number: u64,
    open: Vec<u8>,
    closed: Vec<RawFrame>,
    /// Room of frames that were encoded, to be used again.
    spare: Receiver<Vec<u8>>,
}

impl Gatherer {
    /// For blocks of this geometry; the first frame gets this number.
    #[must_use]
    pub fn new(geometry: Geometry, number: u64, spare: Receiver<Vec<u8>>) -> Self {
        Self { geometry, number, open: Vec::new(), closed: Vec::new(), spare }
    }

    /// Takes what a changed block has to be stored out of it.
    pub fn add(&mut self, index: BlockIndex, new: BlockDigest, block: &mut ChangedBlock) {
        let Content::Read { buffer, grains } = &block.content else { return };
        let entry = if new != BlockDigest::ZERO {
            IndexEntry::Grains(self.add_grains(index, new, block, buffer, grains))
        } else if block.whole && block.old == BlockDigest::UNKNOWN {
            // The collector joins it with its neighbours.
            IndexEntry::ZeroRange { first: index, count: 1 }
        } else {
            IndexEntry::Zero { index, len: self.geometry.block_len(index), old: block.old }
        };
        block.content = Content::Gathered(entry);
    }

    fn add_grains(
        &mut self,
        index: BlockIndex,
        new: BlockDigest,
        block: &ChangedBlock,
        buffer: &Arc<PooledBuffer>,
        grains: &[GrainDigest],
    ) -> GrainsEntry {
        let len = self.geometry.block_len(index);
        let mut pieces: Vec<Piece> = Vec::new();
        for (first, count) in block.stored.runs() {
            let lent = self.lend(first, count, len, buffer, &mut pieces);
            for grain in first + lent..first + count {
                let (frame, raw_offset) = self.place(&buffer[self.geometry.grain_range(grain, len)]);
                match pieces.last_mut() {
                    Some(piece) if piece.frame == frame => piece.grains += 1,
                    _ => pieces.push(Piece { frame, raw_offset, grains: 1 }),
                }
            }
        }
        let digests = block.stored.iter().map(|grain| grains[to_usize(u64::from(grain))]).collect();
        let (stored, zero) = (block.stored.clone(), block.zero.clone());
        GrainsEntry { index, len, whole: block.whole, old: block.old, new, stored, zero, pieces, digests }
    }

    /// Makes frames of a run's beginning, as far as it fills them, without copying it; returns how many grains those are.
    fn lend(
        &mut self,
        first: u32,
        count: u32,
        len: u32,
        buffer: &Arc<PooledBuffer>,
        pieces: &mut Vec<Piece>,
    ) -> u32 {
        let per_frame = u32::try_from(FRAME_RAW_TARGET).unwrap_or(u32::MAX) / self.geometry.grain_size();
        let per_frame = per_frame.max(1);
        if count < per_frame {
            return 0;
        }
        self.close_open();
        for frame in 0..count / per_frame {
            let grain = first + frame * per_frame;
            let range = self.geometry.grains_range(grain, per_frame, len);
            pieces.push(Piece { frame: self.number, raw_offset: 0, grains: per_frame });
            self.close(RawBytes::Lent { buffer: Arc::clone(buffer), range });
        }
        count - count % per_frame
    }

    fn place(&mut self, grain: &[u8]) -> (u64, u32) {
        if self.open.len() >= FRAME_RAW_TARGET {
            self.close_open();
        }
        if self.open.capacity() == 0 {
            self.open = self.spare.try_recv().unwrap_or_default();
            self.open.clear();
            self.open.reserve_exact(FRAME_RAW_TARGET + grain.len());
        }
        // A frame never holds more than FRAME_RAW_TARGET and one grain.
        let raw_offset = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        self.open.extend_from_slice(grain);
        (self.number, raw_offset)
    }

    fn close(&mut self, bytes: RawBytes) {
        self.closed.push(RawFrame { number: self.number, bytes });
        self.number += 1;
    }

    /// Frames that are full.
    pub fn take_full(&mut self) -> std::vec::Drain<'_, RawFrame> {
        self.closed.drain(..)
    }

    /// Ends the open frame early, if it holds anything, so that the entries that point to it need not wait.
    pub fn close_open(&mut self) {
        if !self.open.is_empty() {
            let bytes = RawBytes::Gathered(std::mem::take(&mut self.open));
            self.close(bytes);
        }
    }

    /// The number that the next frame will have.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
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
