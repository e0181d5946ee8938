//! What a pass tells of a volume: ranges that changed, alone or with their bytes.
//!
//! Bytes are lent out of the buffers that they were read into. Whoever keeps many of them would take all buffers away from
//! the pass, so only a few blocks are lent at a time, from buffers that the pass was given for it; of further ones the
//! bytes are copied, and their memory is the keeper's.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ChangedRange, RangeKind, RangeMerger};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{ChangedBlock, Content};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::grain_set::GrainSet;
use crate::sys::buffer_pool::PooledBuffer;

/// Blocks that may be lent at once: one in the receiver's hands, those on the way to it, and the next.
pub(super) const LENT_MAX: usize = 4;

/// A changed range with its bytes; never longer than a block.
pub struct Change {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// Data, or zero now.
    pub kind: RangeKind,
    bytes: Bytes,
}

impl Change {
    /// Its bytes; none of a range that is zero now.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Copied(bytes) => bytes,
            Bytes::Lent { block, range } => &block.buffer[range.clone()],
        }
    }
}

enum Bytes {
    Copied(Vec<u8>),
    Lent { block: Arc<Lent>, range: Range<usize> },
}

struct Lent {
    buffer: Arc<PooledBuffer>,
    out: Arc<AtomicUsize>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.out.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Receives ranges one by one, neighbours joined.
pub type OnRange<'a> = &'a mut (dyn FnMut(ChangedRange) -> Result<()> + 'a);
/// Receives the changes of one block at a time.
pub type OnChanges<'a> = &'a mut (dyn FnMut(Vec<Change>) -> Result<()> + 'a);

/// Who is told, and how much.
pub enum Tell<'a> {
    /// The ranges alone.
    Ranges(OnRange<'a>),
    /// With their bytes.
    Changes(OnChanges<'a>),
}

impl Tell<'_> {
    /// The same receiver, for one more pass.
    pub fn again(&mut self) -> Tell<'_> {
        match self {
            Self::Ranges(on_range) => Tell::Ranges(&mut **on_range),
            Self::Changes(on_changes) => Tell::Changes(&mut **on_changes),
        }
    }

    /// Buffers that the receiver may hold while the pass goes on.
    pub(super) fn buffers(&self) -> usize {
        match self {
            Self::Ranges(_) => 0,
            Self::Changes(_) => LENT_MAX,
        }
    }
}

/// The collector's side: takes what changed in volume order.
pub(super) enum Teller<'a> {
    Ranges(RangeMerger<'a>),
    Changes { on_changes: OnChanges<'a>, out: Arc<AtomicUsize> },
}

impl<'a> Teller<'a> {
    pub fn new(tell: Tell<'a>) -> Self {
        match tell {
            Tell::Ranges(on_range) => Self::Ranges(RangeMerger::new(on_range)),
            Tell::Changes(on_changes) => Self::Changes { on_changes, out: Arc::default() },
        }
    }

    /// A range that is zero now.
    pub fn zeros(&mut self, offset: u64, length: u64) -> Result<()> {
        let kind = RangeKind::Zero;
        match self {
            Self::Ranges(merger) => merger.push(ChangedRange { offset, length, kind }),
            Self::Changes { on_changes, .. } => {
                on_changes(vec![Change { offset, length, kind, bytes: Bytes::Copied(Vec::new()) }])
            }
        }
    }

    /// A block of which `block.stored` and `zero` changed.
    pub fn block(
        &mut self,
        geometry: &Geometry,
        index: BlockIndex,
        block: &ChangedBlock,
        zero: &GrainSet,
    ) -> Result<()> {
        match self {
            Self::Ranges(merger) => merger.push_grains(geometry, index, &block.stored, zero),
            Self::Changes { on_changes, out } => {
                let Content::Read { buffer, .. } = &block.content else {
                    return Err(Error::new(
                        ErrorKind::Io,
                        "a block's bytes are told of and stored by one pass",
                    ));
                };
                let lent = if block.stored.is_empty() { None } else { lend(buffer, out) };
                let start = geometry.block_offset(index);
                let mut changes = Vec::new();
                let mut add = |range: ChangedRange| {
                    changes.push(change(range, start, buffer, lent.as_ref()));
                    Ok(())
                };
                let mut merger = RangeMerger::new(&mut add);
                merger.push_grains(geometry, index, &block.stored, zero)?;
                merger.finish()?;
                if changes.is_empty() { Ok(()) } else { on_changes(changes) }
            }
        }
    }

    pub fn finish(self) -> Result<()> {
        match self {
            Self::Ranges(merger) => merger.finish(),
            Self::Changes { .. } => Ok(()),
        }
    }
}

/// The block's buffer, unless too many are out.
fn lend(buffer: &Arc<PooledBuffer>, out: &Arc<AtomicUsize>) -> Option<Arc<Lent>> {
    if out.load(Ordering::Relaxed) >= LENT_MAX {
        return None;
    }
    out.fetch_add(1, Ordering::Relaxed);
    Some(Arc::new(Lent { buffer: Arc::clone(buffer), out: Arc::clone(out) }))
}

fn change(range: ChangedRange, block_start: u64, buffer: &PooledBuffer, lent: Option<&Arc<Lent>>) -> Change {
    let ChangedRange { offset, length, kind } = range;
    let start = to_usize(offset - block_start);
    let inside = start..start + to_usize(length);
    let bytes = match (kind, lent) {
        (RangeKind::Zero, _) => Bytes::Copied(Vec::new()),
        (RangeKind::Data, Some(block)) => Bytes::Lent { block: Arc::clone(block), range: inside },
        (RangeKind::Data, None) => Bytes::Copied(buffer[inside].to_vec()),
    };
    Change { offset, length, kind, bytes }
}
