//! Neighbouring blocks of zeros become one entry of a delta's index: a hole of a TiB is one line of it, not 262,144.
//!
//! The range that is being joined is not told yet: whoever holds one takes it before it tells of anything behind it, or
//! the entries would not be in the volume's order.

use crate::format::index::IndexEntry;
use crate::geometry::BlockIndex;

/// The range that is being joined: its first block and their number.
#[derive(Default)]
pub(super) struct ZeroRange(Option<(BlockIndex, u64)>);

impl ZeroRange {
    /// Joins blocks; where they do not follow, they begin a new range and the one before is given out.
    pub fn join(&mut self, first: BlockIndex, count: u64) -> Option<IndexEntry> {
        if let Some((start, len)) = &mut self.0
            && *start + *len == first
        {
            *len += count;
            return None;
        }
        let before = self.take();
        self.0 = Some((first, count));
        before
    }

    /// The range as it is; a new one begins.
    pub fn take(&mut self) -> Option<IndexEntry> {
        self.0.take().map(|(first, count)| IndexEntry::ZeroRange { first, count })
    }
}
