//! The messages between the stages; read this first.
//!
//! ```text
//! plan -> reader -> [Read] -> hasher -> comparer -> [Compared] -> collector -> encoder -> [Frame] -> delta writer
//! ```
//! Stages know these types and nothing of each other; `operations` wires them. A buffer that was hashed is the buffer
//! that is stored: it travels inside the message and goes back to the pool when the last message that holds it is dropped.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::digest::{BlockDigest, GrainDigest};
use crate::format::index::IndexEntry;
use crate::format::repository_config::Codec;
use crate::geometry::BlockIndex;
use crate::grain_set::GrainSet;
use crate::sys::buffer_pool::PooledBuffer;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// Read this block.
    Read(BlockIndex),
    /// Do not read these.
    Skip(Skipped),
}

impl Planned {
    /// The first block it speaks of, and how many.
    #[must_use]
    pub fn span(&self) -> (BlockIndex, u64) {
        match self {
            Self::Read(index) => (*index, 1),
            Self::Skip(skipped) => (skipped.first, skipped.count),
        }
    }
}

/// Blocks that are not read, on a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// First block.
    pub first: BlockIndex,
    /// How many.
    pub count: u64,
    /// What they are taken for.
    pub why: Skip,
}

/// What blocks are taken for that are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Holes where the parent has no data either: zero.
    Hole,
    /// What they were in the parent.
    Carried,
}

/// What the reader hands on.
pub enum Read {
    /// A block's bytes; the buffer's length is the block's real length.
    Block {
        /// Which block.
        index: BlockIndex,
        /// Its bytes.
        buffer: PooledBuffer,
    },
    /// Passed on from the plan.
    Skip(Skipped),
}

/// A hashed and compared block.
pub struct Compared {
    /// Which block.
    pub index: BlockIndex,
    /// Its digest.
    pub digest: BlockDigest,
    /// Real length in bytes.
    pub len: u32,
    /// What the comparison said.
    pub verdict: Verdict,
}

impl Compared {
    /// Whether it is what it was in the parent, and stored again all the same because the parent's bytes are damaged.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        match &self.verdict {
            Verdict::Unchanged => false,
            Verdict::Changed(block) => {
                block.whole && block.old.same(&self.digest) && self.digest != BlockDigest::ZERO
            }
        }
    }
}

/// Unchanged blocks have given their buffer back already.
pub enum Verdict {
    /// Same digest and length as in the parent.
    Unchanged,
    /// Something differs.
    Changed(Box<ChangedBlock>),
}

/// What of a block must be stored.
pub struct ChangedBlock {
    /// The parent's digest of it; unknown when the parent has no such block.
    pub old: BlockDigest,
    /// Every grain is stored or zero: nothing is inherited.
    pub whole: bool,
    /// Grains whose bytes are stored.
    pub stored: GrainSet,
    /// Grains that are zero now and (unless `whole`) were not before.
    pub zero: GrainSet,
    /// The bytes to store.
    pub content: Content,
}

/// Where the bytes of a changed block are.
pub enum Content {
    /// Where they were read to.
    Read {
        /// All of the block; shared with the frames that are cut from it.
        buffer: Arc<PooledBuffer>,
        /// Digests of all its grains.
        grains: Vec<GrainDigest>,
    },
    /// In frames, which this entry names by number.
    Gathered(IndexEntry),
}

/// What the collector receives, in any order.
pub enum Collected {
    /// A block.
    Block(Compared),
    /// Blocks that were not read.
    Skip(Skipped),
}

impl Collected {
    /// The first block it speaks of, and how many.
    #[must_use]
    pub fn span(&self) -> (BlockIndex, u64) {
        match self {
            Self::Block(block) => (block.index, 1),
            Self::Skip(skipped) => (skipped.first, skipped.count),
        }
    }
}

/// Changed grains before compression.
pub struct RawFrame {
    /// Where it belongs among the frames of a delta; see [`DeltaMessage::NoFrames`].
    pub number: u64,
    /// The grains' bytes.
    pub bytes: RawBytes,
}

/// Where a frame's bytes stand.
pub enum RawBytes {
    /// Grains of one or more blocks, copied end to end.
    Gathered(Vec<u8>),
    /// Neighbouring grains of one block, where they were read to.
    Lent {
        /// The block.
        buffer: Arc<PooledBuffer>,
        /// Which bytes of it.
        range: Range<usize>,
    },
}

impl Deref for RawBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Gathered(bytes) => bytes,
            Self::Lent { buffer, range } => &buffer[range.clone()],
        }
    }
}

/// A compressed frame.
pub struct EncodedFrame {
    /// Where it belongs among the frames of a delta; see [`DeltaMessage::NoFrames`].
    pub number: u64,
    /// How the payload is coded.
    pub codec: Codec,
    /// Bytes before compression.
    pub raw_len: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

/// What the delta writer receives: frames in any order, entries in block order. Frames are written in the order of
/// their numbers, which begin with 0 and may have gaps. An entry's pieces name frames by number; the writer puts their offsets in.
pub enum DeltaMessage {
    /// A frame.
    Frame(EncodedFrame),
    /// An index entry.
    Entry(IndexEntry),
    /// No frame has one of these numbers; told in order.
    NoFrames(Range<u64>),
    /// Entries of all blocks before this one that have any have been sent.
    Passed(BlockIndex),
}
