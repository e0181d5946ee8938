//! A set of blocks as bits: 32 KiB for a TiB in blocks of 4 MiB, whatever the number of ranges that went in.

use std::ops::Range;

use crate::geometry::{BlockIndex, to_usize};

const BITS: u64 = u64::BITS as u64;

/// Blocks of a volume, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSet {
    words: Vec<u64>,
    blocks: u64,
}

impl BlockSet {
    /// None of `blocks` blocks.
    #[must_use]
    pub fn none(blocks: u64) -> Self {
        Self { words: vec![0; to_usize(blocks.div_ceil(BITS))], blocks }
    }

    /// Adds blocks; those beyond the end are ignored.
    pub fn insert(&mut self, range: Range<BlockIndex>) {
        let end = range.end.min(self.blocks);
        let mut at = range.start;
        while at < end {
            let stop = (at / BITS + 1).saturating_mul(BITS).min(end);
            self.words[to_usize(at / BITS)] |= mask(at % BITS, stop - at);
            at = stop;
        }
    }

    /// Whether it holds this block.
    #[must_use]
    pub fn contains(&self, index: BlockIndex) -> bool {
        index < self.blocks && self.words[to_usize(index / BITS)] & mask(index % BITS, 1) != 0
    }

    /// How many it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The first block at or after `from` that is in the set (`member`) or is not; the number of blocks when none is.
    #[must_use]
    pub fn next(&self, from: BlockIndex, member: bool) -> BlockIndex {
        let mut at = from;
        while at < self.blocks {
            let word = self.words[to_usize(at / BITS)];
            let wanted = (if member { word } else { !word }) >> (at % BITS);
            if wanted != 0 {
                return (at + u64::from(wanted.trailing_zeros())).min(self.blocks);
            }
            at = (at / BITS + 1) * BITS;
        }
        self.blocks
    }
}

/// `len` ones from bit `first` on.
fn mask(first: u64, len: u64) -> u64 {
    let ones = if len >= BITS { u64::MAX } else { (1 << len) - 1 };
    ones << first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_what_a_list_of_bools_is() {
        let cases: [(u64, &[Range<u64>]); 5] = [
            (0, &[0..1, 0..2]),
            (1, &[0..1, 0..1]),
            (64, &[0..64, 5..6]),
            (65, &[63..65, 3..3]),
            (300, &[1..2, 60..70, 128..192, 190..400, 299..u64::MAX]),
        ];
        for (blocks, ranges) in cases {
            let mut set = BlockSet::none(blocks);
            let mut model = vec![false; to_usize(blocks)];
            for range in ranges {
                set.insert(range.clone());
                (range.start..range.end.min(blocks)).for_each(|at| model[to_usize(at)] = true);
            }
            assert_eq!(set.count(), model.iter().filter(|held| **held).count() as u64);
            for from in 0..=blocks {
                assert_eq!(set.contains(from), model.get(to_usize(from)) == Some(&true));
                for member in [true, false] {
                    let next = (from..blocks).find(|at| model[to_usize(*at)] == member).unwrap_or(blocks);
                    assert_eq!(set.next(from, member), next, "from {from} of {blocks}, {member}");
                }
            }
        }
    }
}
