//! From two arrays of bytes: what blkdelta must say about the difference.

use blkdelta_core::operations::{ChangedRange, RangeKind};

/// Sizes of blocks and grains, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Of a block.
    pub block: usize,
    /// Of a grain.
    pub grain: usize,
}

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Joined where they touch and are of one kind.
    pub ranges: Vec<ChangedRange>,
    /// Blocks with at least one of them.
    pub blocks: u64,
    /// Grains in them.
    pub grains: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Expected {
    fn push(&mut self, offset: usize, grain: &[u8]) {
        let kind = if grain.iter().all(|byte| *byte == 0) { RangeKind::Zero } else { RangeKind::Data };
        let (offset, length) = (offset as u64, grain.len() as u64);
        self.grains += 1;
        self.bytes += length;
        match self.ranges.last_mut() {
            Some(last) if last.kind == kind && last.offset + last.length == offset => last.length += length,
            _ => self.ranges.push(ChangedRange { offset, length, kind }),
        }
    }
}

/// What changed from `old` to `new`. A block whose length is another one is changed as a whole: its old last grain may be
/// cut differently, and nothing is inherited through a smaller volume.
#[must_use]
pub fn changes(old: &[u8], new: &[u8], cut: Cut) -> Expected {
    compare(new, cut, |start, len| {
        let before = old.get(start.min(old.len())..(start + cut.block).min(old.len())).unwrap_or_default();
        (before.len() == len).then_some(before)
    })
}

/// What a full backup counts: everything that is not zero.
#[must_use]
pub fn contents(new: &[u8], cut: Cut) -> Expected {
    let zeros = vec![0; cut.block];
    compare(new, cut, |_, len| Some(&zeros[..len]))
}

fn compare<'a>(new: &[u8], cut: Cut, before: impl Fn(usize, usize) -> Option<&'a [u8]>) -> Expected {
    let mut expected = Expected::default();
    for (block, start) in new.chunks(cut.block).zip((0..).step_by(cut.block)) {
        let old = before(start, block.len());
        let grains = expected.grains;
        for (grain, at) in block.chunks(cut.grain).zip((0..).step_by(cut.grain)) {
            if old.is_none_or(|old| &old[at..at + grain.len()] != grain) {
                expected.push(start + at, grain);
            }
        }
        expected.blocks += u64::from(expected.grains > grains);
    }
    expected
}
