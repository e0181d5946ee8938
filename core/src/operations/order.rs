//! In which order a pass reads its volume, and how blocks come back into volume order.
//!
//! Where little of a volume changed the disk is busy and the cores wait; where much did it is the other way round, and most
//! volumes have both. So a volume is cut into sections, and where an incremental delta is written and the device is fast,
//! four neighbouring sections are read at once. What changed in a section is laid into frames of its own and compressed as
//! it comes, in the section's order; only the frames wait until all before them is written. So a delta has the same frames
//! and entries in the same order, however its volume is read.
//!
//! Trade-off: memory for frames that wait, and a section's last frame is short, which costs some compression where blocks
//! are small and changes sparse. A device that has to seek loses; it is found by its rate, and is then read in volume order
//! for longer each time. A block that waits for another one of its section holds a buffer, which is safe because the other
//! one has got its buffer before.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::digest::BLOCKS_PER_PAGE;
use crate::error::Result;
use crate::flow::{Collected, Planned, Skipped};
use crate::geometry::{BlockIndex, Geometry};

/// Sections that are read at once.
const AT_ONCE: usize = 4;
/// Blocks of a section: a fourth of the volume, within these bounds. Four of the longest stay far below what the reader's
/// window admits, so that no block waits for the window while one before it is not yet planned; and a long hole still
/// fills whole pages of the block table.
const BLOCKS_MIN: u64 = 16;
const BLOCKS_MAX: u64 = BLOCKS_PER_PAGE;
/// Bytes of a section, where blocks are large: the entries of blocks that wait for their turn take memory, too.
const BYTES_MAX: u64 = 1 << 30;
/// Bytes of frames that may wait for those before them; what is on its way comes on top.
const WAITING_MAX: u64 = 64 << 20;
/// Bytes a second of a device that does not seek.
const FAST: u64 = 400 << 20;
/// The rate is looked at every so many blocks.
const LOOK: u32 = 16;

/// How a volume is cut into sections.
#[derive(Debug, Clone, Copy)]
pub struct Sections {
    blocks: u64,
    volume: u64,
}

impl Sections {
    /// Of a volume.
    pub fn new(geometry: Geometry) -> Self {
        let volume = geometry.block_count();
        let most = (BYTES_MAX / u64::from(geometry.block_size())).clamp(1, BLOCKS_MAX);
        Self { blocks: volume.div_ceil(AT_ONCE as u64).clamp(BLOCKS_MIN.min(most), most), volume }
    }

    /// The section of a block.
    pub fn of(self, index: BlockIndex) -> u64 {
        index / self.blocks
    }

    /// The first block of a section.
    pub fn start(self, section: u64) -> BlockIndex {
        section.saturating_mul(self.blocks)
    }

    /// The first block behind a section.
    pub fn end(self, section: u64) -> BlockIndex {
        self.start(section + 1).min(self.volume)
    }

    /// What of a skip lies in its first section, and what behind.
    fn split(self, skipped: Skipped) -> (Skipped, Option<Skipped>) {
        let end = self.end(self.of(skipped.first));
        let count = skipped.count.min(end.saturating_sub(skipped.first)).max(1);
        let rest = Skipped { first: skipped.first + count, count: skipped.count - count, ..skipped };
        (Skipped { count, ..skipped }, (rest.count > 0).then_some(rest))
    }
}

/// A plan in the order in which it is to be read; nothing in it reaches over the end of a section.
pub struct ReadOrder<'a, P: Iterator<Item = Result<Planned>>> {
    plan: Peekable<P>,
    /// What is left of a skip that reaches further than its section.
    rest: Option<Skipped>,
    sections: Sections,
    /// What is left of the sections that are being read.
    open: VecDeque<VecDeque<Planned>>,
    turn: usize,
    rate: Rate,
    /// Bytes of frames that wait; without it all is read in volume order.
    waiting: Option<&'a AtomicU64>,
}

impl<'a, P: Iterator<Item = Result<Planned>>> ReadOrder<'a, P> {
    /// Of a plan in volume order.
    pub fn new(plan: P, geometry: Geometry, waiting: Option<&'a AtomicU64>, now: Instant) -> Self {
        let rate = Rate::new(geometry.block_size(), now);
        let sections = Sections::new(geometry);
        Self { plan: plan.peekable(), rest: None, sections, open: VecDeque::new(), turn: 0, rate, waiting }
    }

    /// The next of the plan, at this time.
    fn next_at(&mut self, now: Instant) -> Result<Option<Planned>> {
        while self.open.front().is_some_and(VecDeque::is_empty) {
            self.open.pop_front();
        }
        while self.open.len() < AT_ONCE && (self.rest.is_some() || self.plan.peek().is_some()) {
            let section = self.open_section()?;
            self.open.push_back(section);
        }
        self.turn = (self.turn + 1) % AT_ONCE;
        let room = self.waiting.is_some_and(|waiting| waiting.load(Ordering::Relaxed) < WAITING_MAX);
        let early =
            self.open.get_mut(self.turn).filter(|_| room && self.rate.fast).and_then(VecDeque::pop_front);
        let planned = early.or_else(|| self.open.front_mut().and_then(VecDeque::pop_front));
        if let Some(Planned::Read(_)) = planned {
            self.rate.count(now);
        }
        Ok(planned)
    }

    /// All that is planned of the next section.
    fn open_section(&mut self) -> Result<VecDeque<Planned>> {
        let (mut planned, mut section) = (VecDeque::new(), None);
        while let Some(next) = self.next_within(&mut section)? {
            planned.push_back(next);
        }
        Ok(planned)
    }

    /// The next of the plan, unless it belongs to another section.
    fn next_within(&mut self, section: &mut Option<u64>) -> Result<Option<Planned>> {
        let sections = self.sections;
        let mut belongs = |first| *section.get_or_insert(sections.of(first)) == sections.of(first);
        let next = match self.rest.take_if(|rest| belongs(rest.first)) {
            Some(rest) => Planned::Skip(rest),
            None if self.rest.is_some() => return Ok(None),
            None => {
                let here = |next: &Result<Planned>| next.as_ref().map_or(true, |next| belongs(next.span().0));
                let Some(next) = self.plan.next_if(here).transpose()? else { return Ok(None) };
                next
            }
        };
        let Planned::Skip(skipped) = next else { return Ok(Some(next)) };
        let (skipped, rest) = self.sections.split(skipped);
        self.rest = rest;
        Ok(Some(Planned::Skip(skipped)))
    }
}

impl<P: Iterator<Item = Result<Planned>>> Iterator for ReadOrder<'_, P> {
    type Item = Result<Planned>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_at(Instant::now()).transpose()
    }
}

/// How fast blocks were asked for of late, and whether that is fast enough to read several sections at once.
struct Rate {
    block_size: u32,
    blocks: u32,
    since: Instant,
    fast: bool,
    /// So many looks until it may be fast again; what that becomes the next time.
    pause: u32,
    next_pause: u32,
}

impl Rate {
    fn new(block_size: u32, now: Instant) -> Self {
        Self { block_size, blocks: 0, since: now, fast: false, pause: 0, next_pause: 1 }
    }

    /// Counts a block.
    fn count(&mut self, now: Instant) {
        self.blocks += 1;
        if self.blocks == LOOK {
            let took = now.saturating_duration_since(self.since);
            let bytes = u64::from(self.block_size) * u64::from(LOOK);
            let fast = took < Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / FAST);
            self.pause = self.pause.saturating_sub(1);
            if self.fast && !fast {
                // Perhaps it is slow because it is read in several places: disks that are fast together but have to seek.
                (self.pause, self.next_pause) = (self.next_pause, self.next_pause.saturating_mul(2));
            }
            self.fast = fast && self.pause == 0;
            (self.blocks, self.since) = (0, now);
        }
    }
}

/// Puts what arrives in any order into the order of each section, and then into volume order.
pub struct Reorder {
    waiting: BTreeMap<BlockIndex, Collected>,
    sections: Sections,
    /// How far the sections have come of which something has arrived and something is waited for.
    arrived: BTreeMap<u64, BlockIndex>,
    next: BlockIndex,
}

impl Reorder {
    /// Of a volume whose blocks before `next` have been passed by somebody else.
    pub fn new(geometry: Geometry, next: BlockIndex) -> Self {
        Self { waiting: BTreeMap::new(), sections: Sections::new(geometry), arrived: BTreeMap::new(), next }
    }

    /// Takes one; tells of each whose turn in its section has come, in order.
    pub fn put(
        &mut self,
        item: Collected,
        mut on_turn: impl FnMut(&mut Collected) -> Result<()>,
    ) -> Result<()> {
        let first = item.span().0;
        self.waiting.insert(first, item);
        let section = self.sections.of(first);
        let start = self.sections.start(section).max(self.next);
        let arrived = self.arrived.entry(section).or_insert(start);
        let end = self.sections.end(section);
        while let Some(item) = self.waiting.get_mut(arrived).filter(|_| *arrived < end) {
            on_turn(item)?;
            *arrived += item.span().1;
        }
        Ok(())
    }

    /// The next in volume order, if it is there.
    pub fn take(&mut self) -> Option<Collected> {
        let item = self.waiting.remove(&self.next)?;
        let section = self.sections.of(self.next);
        self.next += item.span().1;
        if self.next >= self.sections.end(section) {
            self.arrived.remove(&section);
        }
        Some(item)
    }

    /// The block that is waited for.
    pub fn next(&self) -> BlockIndex {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::flow::Skip;
    use crate::sys::host::random_below;

    const BLOCK: u32 = 1 << 20;
    const SLOW: Duration = Duration::from_millis(5);
    const QUICK: Duration = Duration::from_micros(300);

    fn geometry(blocks: u64) -> Geometry {
        Geometry::new(blocks * u64::from(BLOCK), BLOCK, 4096).unwrap()
    }

    /// In which order a plan is read whose blocks take so long each, while so many bytes wait.
    fn order_of(plan: Vec<Planned>, blocks: u64, pause: Duration, waiting: u64) -> Vec<Planned> {
        let (waiting, mut now) = (AtomicU64::new(waiting), Instant::now());
        let mut order = ReadOrder::new(plan.into_iter().map(Ok), geometry(blocks), Some(&waiting), now);
        let mut found = Vec::new();
        while let Some(planned) = order.next_at(now).unwrap() {
            found.push(planned);
            now += pause;
        }
        found
    }

    fn reads(blocks: u64) -> Vec<Planned> {
        (0..blocks).map(Planned::Read).collect()
    }

    fn firsts(order: &[Planned]) -> Vec<BlockIndex> {
        order.iter().map(|planned| planned.span().0).collect()
    }

    #[test]
    fn a_slow_device_is_read_in_volume_order() {
        let order = order_of(reads(2000), 2000, SLOW, 0);
        assert_eq!(firsts(&order), (0..2000).collect::<Vec<_>>());
    }

    #[test]
    fn so_is_a_fast_one_when_too_much_waits() {
        let order = order_of(reads(2000), 2000, QUICK, WAITING_MAX);
        assert_eq!(firsts(&order), (0..2000).collect::<Vec<_>>());
    }

    #[test]
    fn a_fast_device_is_read_from_four_sections_at_once() {
        let order = order_of(reads(2000), 2000, QUICK, 0);
        for some in firsts(&order)[100..900].chunks(4) {
            let mut sections: Vec<_> = some.iter().map(|index| index / BLOCKS_MAX).collect();
            sections.sort_unstable();
            assert_eq!(sections, [0, 1, 2, 3], "{some:?}");
        }
    }

    #[test]
    fn disks_that_are_fast_in_volume_order_only_lose_little() {
        let (blocks, mut now, begun) = (4000, Instant::now(), Instant::now());
        let waiting = AtomicU64::new(0);
        let mut order =
            ReadOrder::new(reads(blocks).into_iter().map(Ok), geometry(blocks), Some(&waiting), now);
        let mut head = 0;
        while let Some(Planned::Read(index)) = order.next_at(now).unwrap() {
            now += if index == head { QUICK } else { 20 * QUICK };
            head = index + 1;
        }
        let sequential = QUICK * u32::try_from(blocks).unwrap();
        assert!(now - begun < sequential * 2, "{:?} instead of {sequential:?}", now - begun);
    }

    /// Blocks to be read, and stretches to be skipped that are up to five sections long.
    fn mixed(blocks: u64) -> Vec<Planned> {
        let (mut plan, mut next) = (Vec::new(), 0);
        while next < blocks {
            let count = (1 + random_below(1 << random_below(11))).min(blocks - next);
            let skipped = Skipped { first: next, count, why: Skip::Hole };
            plan.push(if random_below(4) == 0 { Planned::Skip(skipped) } else { Planned::Read(next) });
            next += plan.last().map_or(0, |planned| planned.span().1);
        }
        plan
    }

    /// Checks that nothing is lost or told twice or leaves its section, and that the reader's window admits all of it.
    fn assert_whole(order: &[Planned], blocks: u64) {
        let sections = Sections::new(geometry(blocks));
        let (mut waiting, mut passed) = (BTreeMap::new(), 0);
        for planned in order {
            let (first, count) = planned.span();
            assert!(first + count <= sections.end(sections.of(first)), "{planned:?} leaves its section");
            assert!(sections.of(first) < sections.of(passed) + 4, "{planned:?} while {passed} is waited for");
            assert_eq!(waiting.insert(first, count), None, "{planned:?} is planned twice");
            while let Some(count) = waiting.remove(&passed) {
                passed += count;
            }
        }
        assert_eq!(passed, blocks);
    }

    #[test]
    fn every_block_is_planned_once_and_no_skip_leaves_its_section() {
        for blocks in [1, 3, 16, 17, 63, 64, 65, 700, 1024, 1025, 5000] {
            for pause in [QUICK, SLOW] {
                assert_whole(&order_of(mixed(blocks), blocks, pause, 0), blocks);
            }
        }
    }

    #[test]
    fn an_error_of_the_plan_is_passed_on() {
        let mut plan: Vec<_> = reads(5).into_iter().map(Ok).collect();
        plan.push(Err(Error::damaged("a hole that cannot be")));
        let mut order = ReadOrder::new(plan.into_iter(), geometry(9), None, Instant::now());
        assert!(order.any(|planned| planned.is_err()));
    }

    #[test]
    fn what_arrives_anyhow_has_its_turn_in_its_section_and_then_in_the_volume() {
        let blocks = 700;
        let sections = Sections::new(geometry(blocks));
        let mut arriving = order_of(mixed(blocks), blocks, QUICK, 0);
        arriving.sort_by_key(|planned| planned.span().0);
        let resumed = arriving.remove(arriving.len() / 5);
        let begun = resumed.span().0;
        arriving.retain(|planned| planned.span().0 > begun);
        arriving.push(resumed);
        let mut order = Reorder::new(geometry(blocks), begun);
        let (mut turns, mut passed) = (BTreeMap::new(), begun);
        while !arriving.is_empty() {
            let position = usize::try_from(random_below(arriving.len() as u64)).unwrap();
            let (first, count) = arriving.swap_remove(position).span();
            let item = Collected::Skip(Skipped { first, count, why: Skip::Hole });
            let on_turn = |item: &mut Collected| {
                let (first, count) = item.span();
                let section = sections.of(first);
                let expected = turns.entry(section).or_insert(sections.start(section).max(begun));
                assert_eq!(*expected, first, "out of turn in its section");
                *expected += count;
                Ok(())
            };
            order.put(item, on_turn).unwrap();
            while let Some(item) = order.take() {
                let (first, count) = item.span();
                assert_eq!(first, passed);
                passed += count;
                assert!(turns[&sections.of(first)] >= passed, "taken before its turn in its section");
            }
        }
        assert_eq!((passed, order.next()), (blocks, blocks));
        assert!(order.arrived.is_empty(), "sections that are passed are forgotten");
    }
}
