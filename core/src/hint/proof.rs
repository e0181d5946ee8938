//! Which blocks are read although a hint calls them unchanged, so that a hint that lies is found.
//!
//! Three kinds of doubt: blocks beside those that changed (a range that was cut wrong), blocks picked by chance (a range
//! that was left out), and the block's turn in a rolling scan that passes over the whole volume once in a number of runs,
//! which bounds for how long any lie can live. Blocks that the storage layer does not map are left out: they read as zeros
//! by the same table that the hint came from, so reading them proves nothing, unless the parent has data there.
//! The price: a volume of 1 TiB whose hint is proven once in 30 runs reads 34 GiB a run. Where that is too much the number
//! can be raised, and the oldest mark in the record says how old the oldest proof is.

use std::str::FromStr;

use super::ChangeMap;
use super::block_set::BlockSet;
use crate::backup_id::Sequence;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::BlockIndex;
use crate::sys::host;

/// How many of the blocks that a hint calls unchanged are read on each run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum SampleSize {
    /// One in a hundred, but at least 8 and at most 64 blocks.
    #[default]
    Auto,
    /// So many blocks.
    Blocks(u64),
    /// This part of them, from 0 to 1.
    Share(f64),
}

impl SampleSize {
    fn of(self, candidates: u64) -> u64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
        let wanted = match self {
            Self::Auto => (candidates / 100).clamp(8, 64),
            Self::Blocks(blocks) => blocks,
            Self::Share(share) => (candidates as f64 * share).ceil() as u64, // a share between 0 and 1
        };
        wanted.min(candidates)
    }
}

impl FromStr for SampleSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::WrongUse, format!("'{text}' is not a size of a sample"))
                .hint("write a number of blocks such as 64, a share such as 2%, or auto")
        };
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.strip_suffix('%') {
            None => text.parse().map(Self::Blocks).map_err(|_| wrong()),
            Some(number) => match number.parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Share(percent / 100.0)),
                _ => Err(wrong()),
            },
        }
    }
}

/// How hints are proven.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proof {
    /// Picked at the edges and by chance.
    pub sample: SampleSize,
    /// Every block is read at least once in so many runs; 0: there is no rolling scan.
    pub rolling_runs: u32,
}

impl Default for Proof {
    fn default() -> Self {
        Self { sample: SampleSize::Auto, rolling_runs: 30 }
    }
}

/// What a change map lets us skip, as sets of blocks.
#[derive(Debug)]
pub struct MapPlan {
    read: BlockSet,
    samples: BlockSet,
    rolling: BlockSet,
}

/// That a block is read as a proof.
#[derive(Debug, Clone, Copy)]
pub struct Proving {
    /// It is its turn in the rolling scan.
    pub rolling: bool,
}

impl MapPlan {
    /// From what must be read in any case and the map, for the run with this number. `doubted` are blocks that must prove
    /// the map if it calls them unchanged.
    #[must_use]
    pub fn new(must: &BlockSet, doubted: &BlockSet, map: &ChangeMap, proof: Proof, run: Sequence) -> Self {
        let blocks = map.geometry().block_count();
        let mut read = must.clone();
        for_each(map.changed(), blocks, |index| read.insert(index..index + 1));
        let doubtful = |index: BlockIndex, read: &BlockSet| !read.contains(index) && !map.is_unmapped(index);

        let mut rolling = BlockSet::none(blocks);
        for index in slice(blocks, proof.rolling_runs, run).filter(|index| doubtful(*index, &read)) {
            rolling.insert(index..index + 1);
        }
        for_each(doubted, blocks, |index| {
            if !read.contains(index) {
                rolling.insert(index..index + 1);
            }
        });
        let candidates = || (0..blocks).filter(|index| doubtful(*index, &read) && !rolling.contains(*index));
        let samples = pick(&read, candidates, blocks, proof.sample);
        for set in [&rolling, &samples] {
            for_each(set, blocks, |index| read.insert(index..index + 1));
        }
        Self { read, samples, rolling }
    }

    /// The first block at or after `from` that is read.
    #[must_use]
    pub fn next_read(&self, from: BlockIndex) -> BlockIndex {
        self.read.next(from, true)
    }

    /// Whether this block is read as a proof.
    #[must_use]
    pub fn sample(&self, index: BlockIndex) -> Option<Proving> {
        let rolling = self.rolling.contains(index);
        (rolling || self.samples.contains(index)).then_some(Proving { rolling })
    }
}

fn for_each(set: &BlockSet, blocks: u64, mut act: impl FnMut(BlockIndex)) {
    let mut at = set.next(0, true);
    while at < blocks {
        act(at);
        at = set.next(at + 1, true);
    }
}

/// The blocks whose turn it is: neighbours, because those are read fast and share pages of the table.
fn slice(blocks: u64, runs: u32, run: Sequence) -> std::ops::Range<BlockIndex> {
    if runs == 0 {
        return 0..0;
    }
    let bound = |number: u32| {
        let at = u128::from(blocks) * u128::from(number) / u128::from(runs);
        u64::try_from(at).unwrap_or(blocks)
    };
    bound(run % runs)..bound(run % runs + 1)
}

/// Half of the sample at the edges of what changed, the rest by chance.
fn pick<I: Iterator<Item = BlockIndex>>(
    read: &BlockSet,
    candidates: impl Fn() -> I,
    blocks: u64,
    size: SampleSize,
) -> BlockSet {
    let (mut dice, mut samples) = (Dice::new(), BlockSet::none(blocks));
    let wanted = size.of(candidates().count() as u64);
    let at_edge = |index: &BlockIndex| {
        read.contains(*index + 1) || index.checked_sub(1).is_some_and(|before| read.contains(before))
    };
    for index in draw(|| candidates().filter(at_edge), wanted / 2, &mut dice) {
        samples.insert(index..index + 1);
    }
    let others = || candidates().filter(|index| !samples.contains(*index));
    for index in draw(others, wanted - samples.count(), &mut dice) {
        samples.insert(index..index + 1);
    }
    samples
}

/// `wanted` different ones, each equally likely, by walking over all of them: no list of millions of blocks.
fn draw<I: Iterator<Item = BlockIndex>>(
    from: impl Fn() -> I,
    wanted: u64,
    dice: &mut Dice,
) -> Vec<BlockIndex> {
    let (mut left, mut remaining) = (wanted, from().count() as u64);
    let mut drawn = Vec::new();
    for index in from() {
        if left == 0 {
            break;
        }
        if dice.below(remaining) < left {
            drawn.push(index);
            left -= 1;
        }
        remaining -= 1;
    }
    drawn
}

/// SplitMix64, begun with a number from the kernel: nobody may foresee which blocks are read.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(host::random_below(u64::MAX))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Geometry, to_usize};

    const BLOCK: u64 = 64 << 10;

    fn map(blocks: u64, changed: &[u64]) -> ChangeMap {
        let mut map = ChangeMap::new(Geometry::new(blocks * BLOCK, 64 << 10, 4096).unwrap());
        changed.iter().for_each(|index| map.add_changed(index * BLOCK + 5, 1));
        map
    }

    fn members(set: &BlockSet, blocks: u64) -> Vec<u64> {
        (0..blocks).filter(|index| set.contains(*index)).collect()
    }

    fn plan(map: &ChangeMap, proof: Proof, run: Sequence) -> MapPlan {
        let none = BlockSet::none(map.geometry().block_count());
        MapPlan::new(&none, &none, map, proof, run)
    }

    #[test]
    fn the_rolling_scan_reads_every_block_once_in_its_runs() {
        let map = map(1000, &[3]);
        for runs in [1, 7, 30, 1000, 1500] {
            let mut times = vec![0; 1000];
            for run in 10..10 + runs {
                let proof = Proof { sample: SampleSize::Blocks(0), rolling_runs: runs };
                members(&plan(&map, proof, run).read, 1000)
                    .iter()
                    .for_each(|index| times[to_usize(*index)] += 1);
            }
            assert_eq!(times[3], runs, "what changed is read each time");
            assert!(times.iter().enumerate().all(|(index, times)| index == 3 || *times == 1), "{runs}");
        }
    }

    #[test]
    fn half_of_the_sample_is_at_the_edges() {
        let map = map(1000, &[100, 500]);
        let proof = Proof { sample: SampleSize::Blocks(8), rolling_runs: 0 };
        let plan = plan(&map, proof, 1);
        let samples = members(&plan.samples, 1000);
        assert_eq!(samples.len(), 8);
        assert!([99, 101, 499, 501].iter().all(|edge| samples.contains(edge)), "{samples:?}");
        assert_eq!(plan.next_read(0), samples[0].min(100));
    }

    #[test]
    fn what_is_not_mapped_proves_nothing() {
        let mut map = map(1000, &[]);
        map.tell_mapped();
        map.add_mapped(700 * BLOCK, 2 * BLOCK);
        let proof = Proof { sample: SampleSize::Share(1.0), rolling_runs: 1 };
        assert_eq!(members(&plan(&map, proof, 1).read, 1000), [700, 701]);
        let mut doubted = BlockSet::none(1000);
        doubted.insert(30..31);
        let plan = MapPlan::new(&BlockSet::none(1000), &doubted, &map, proof, 1);
        assert_eq!(members(&plan.read, 1000), [30, 700, 701], "but where the parent has data");
        assert!(plan.sample(30).is_some(), "it has to prove the map");
    }

    #[test]
    fn chance_reaches_every_block() {
        let map = map(20, &[]);
        let mut seen = BlockSet::none(20);
        for _ in 0..300 {
            let plan = plan(&map, Proof { sample: SampleSize::Blocks(1), rolling_runs: 0 }, 1);
            members(&plan.read, 20).iter().for_each(|index| seen.insert(*index..*index + 1));
        }
        assert_eq!(seen.count(), 20);
    }

    #[test]
    fn sizes_of_samples_are_read() {
        assert_eq!("auto".parse::<SampleSize>().unwrap().of(100), 8);
        assert_eq!(SampleSize::Auto.of(5), 5);
        assert_eq!("12".parse::<SampleSize>().unwrap().of(100), 12);
        assert_eq!("2.5%".parse::<SampleSize>().unwrap().of(1000), 25);
        for wrong in ["", "-1", "101%", "%", "x", "NaN%"] {
            assert!(wrong.parse::<SampleSize>().is_err(), "{wrong}");
        }
    }
}
