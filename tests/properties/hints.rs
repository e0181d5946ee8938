//! Backups by change maps: what a true map leaves out is not read and restores all the same; what a false one leaves out is
//! found by the sample or by the rolling scan.

use std::ops::Range;

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::hint::proof::{Proof, SampleSize};
use blkdelta_core::operations::backup::{BackupOptions, BackupReport, WantedKind};
use blkdelta_core::operations::hinting::HintChoice;
use proptest::prelude::{any, proptest};
use support::content::Random;
use support::engine::{Engine, small};
use support::model::{Change, Volume};
use support::scratch::{assert_same_bytes, write};
use support::strategies::{cases, change, volume_size};

const BLOCK: u64 = 64 << 10;

/// Nothing but the map decides.
const BELIEVED: Proof = Proof { sample: SampleSize::Blocks(0), rolling_runs: 0 };

struct HintStory {
    engine: Engine,
    volume: Volume,
    saved: Vec<(BackupRecord, Vec<u8>)>,
    random: Random,
}

/// Chunks of `chunk` bytes in which two states differ, as a storage layer would tell them: rounded, and past the end.
fn changed_chunks(old: &[u8], new: &[u8], chunk: usize) -> Vec<Range<u64>> {
    let count = old.len().max(new.len()).div_ceil(chunk);
    let part = |bytes: &[u8], at: usize| {
        bytes
            .get((at * chunk).min(bytes.len())..((at + 1) * chunk).min(bytes.len()))
            .unwrap_or_default()
            .to_vec()
    };
    let differing = (0..count).filter(|at| part(old, *at) != part(new, *at));
    differing.map(|at| (at * chunk) as u64..((at + 1) * chunk) as u64).collect()
}

/// As `rbd diff` tells it.
fn rbd_diff(ranges: &[Range<u64>]) -> String {
    let of = |range: &Range<u64>| {
        format!(r#"{{"offset":{},"length":{},"exists":"true"}}"#, range.start, range.end - range.start)
    };
    format!("[{}]", ranges.iter().map(of).collect::<Vec<_>>().join(","))
}

impl HintStory {
    fn new(size: u64, seed: u64) -> Self {
        let engine = Engine::new(small());
        let volume = Volume::seeded(engine.scratch.path("image"), seed, size);
        Self { engine, volume, saved: Vec::new(), random: Random::new(seed) }
    }

    fn back_up(&mut self, kind: WantedKind, hints: HintChoice, proof: Proof) -> BackupReport {
        let options = BackupOptions { hints, proof, ..self.engine.backup_options(self.volume.path(), kind) };
        let report = self.engine.backup_with(&options).expect("a backup");
        self.saved.push((report.record.clone(), self.volume.bytes().to_vec()));
        report
    }

    fn back_up_by(&mut self, ranges: &[Range<u64>], kind: WantedKind, proof: Proof) -> BackupReport {
        let path = self.engine.scratch.path("map");
        write(&path, rbd_diff(ranges).as_bytes());
        self.back_up(kind, HintChoice::File(path), proof)
    }

    fn assert_newest_restores(&self) {
        let (record, bytes) = self.saved.last().expect("a backup");
        let found = self.engine.stream(record, None).expect("a restore");
        assert_same_bytes(&found, bytes, &format!("backup {}", record.sequence));
    }

    fn step(&mut self, changes: &[Change]) {
        changes.iter().for_each(|change| self.volume.apply(change));
        let chunk = [4096, 64 << 10, 200_000][usize::try_from(self.random.below(3)).unwrap()];
        let newest = &self.saved.last().unwrap().1;
        let ranges = changed_chunks(newest, self.volume.bytes(), chunk);
        let kind = match self.random.below(4) {
            0 => WantedKind::Differential,
            1 => {
                let pick = usize::try_from(self.random.below(self.saved.len() as u64)).unwrap();
                WantedKind::Since(self.saved[pick].0.backup_id.to_string())
            }
            _ => WantedKind::Incremental,
        };
        let report = self.back_up_by(&ranges, kind, BELIEVED);
        assert!(report.record.hint.kind != "none" && report.alarm.is_none(), "{:?}", report.record.hint);
        let counts = &report.record.statistics;
        assert_eq!(counts.bytes_read + counts.bytes_carried, self.volume.size());
        self.assert_newest_restores();
    }
}

/// Bytes of the blocks that ranges reach into.
fn touched(ranges: &[Range<u64>], size: u64) -> u64 {
    let hit = |block: &u64| {
        let (start, end) = (block * BLOCK, ((block + 1) * BLOCK).min(size));
        ranges.iter().any(|range| range.start < end && start < range.end)
    };
    (0..size.div_ceil(BLOCK)).filter(hit).map(|block| BLOCK.min(size - block * BLOCK)).sum()
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn a_true_map_restores_against_any_parent(
        size in volume_size(),
        seed in any::<u64>(),
        steps in proptest::collection::vec(proptest::collection::vec(change(), 0..4), 1..6),
    ) {
        let mut story = HintStory::new(size, seed);
        story.back_up(WantedKind::Auto, HintChoice::Auto, BELIEVED);
        steps.iter().for_each(|changes| story.step(changes));
        let report = story.engine.verify(true);
        assert!(report.ok, "{:?}", report.problems);
    }

    #[test]
    fn only_what_the_map_names_is_read(seed in any::<u64>(), at in any::<u64>(), len in 1u64..200_000) {
        let mut story = HintStory::new(40 * BLOCK + 100, seed);
        story.back_up(WantedKind::Auto, HintChoice::Off, BELIEVED);
        let before = story.volume.bytes().to_vec();
        story.volume.apply(&Change::Write { at, len, seed: !seed });
        let ranges = changed_chunks(&before, story.volume.bytes(), 4096);
        let report = story.back_up_by(&ranges, WantedKind::Auto, BELIEVED);
        assert_eq!(report.record.statistics.bytes_read, touched(&ranges, story.volume.size()));
        story.assert_newest_restores();
    }
}

/// A volume of 100 blocks whose last write the map keeps silent about.
fn lied_to(seed: u64, proof: Proof) -> (HintStory, BackupReport) {
    let mut story = HintStory::new(100 * BLOCK, seed);
    story.back_up(WantedKind::Auto, HintChoice::Off, BELIEVED);
    story.volume.apply(&Change::Write { at: 50 * BLOCK, len: 10, seed });
    let report = story.back_up_by(&[], WantedKind::Auto, proof);
    (story, report)
}

#[test]
fn a_lie_is_found_by_the_sample_and_everything_is_read() {
    let (story, report) = lied_to(7, Proof { sample: SampleSize::Share(1.0), rolling_runs: 0 });
    assert!(report.alarm.as_deref().is_some_and(|alarm| alarm.contains(&(50 * BLOCK).to_string())));
    assert_eq!(report.record.hint.kind, "none");
    assert_eq!(report.record.statistics.bytes_read, story.volume.size());
    story.assert_newest_restores();
}

#[test]
fn a_lie_that_no_sample_hits_is_found_by_the_rolling_scan_in_its_runs() {
    let proof = Proof { sample: SampleSize::Blocks(0), rolling_runs: 5 };
    let (mut story, first) = lied_to(8, proof);
    let mut alarms = u64::from(first.alarm.is_some());
    for _ in 0..4 {
        let report = story.back_up_by(&[], WantedKind::Auto, proof);
        assert!(report.alarm.is_some() || report.record.hint.rolling_blocks == 20);
        alarms += u64::from(report.alarm.is_some());
    }
    assert_eq!(alarms, 1, "found once, and right from then on");
    story.assert_newest_restores();
}

#[test]
fn a_map_of_another_state_or_size_is_not_used() {
    let mut story = HintStory::new(10 * BLOCK, 9);
    let first = story.back_up(WantedKind::Auto, HintChoice::Off, BELIEVED).record;
    story.volume.apply(&Change::Write { at: 5, len: 10, seed: 1 });
    let second = story.back_up(WantedKind::Auto, HintChoice::Off, BELIEVED).record;
    story.volume.apply(&Change::Write { at: 3 * BLOCK, len: 10, seed: 2 });
    let path = story.engine.scratch.path("map");
    let size = story.volume.size();
    let map = |parent_root: &str, size: u64| {
        format!(r#"{{"ranges":[],"parent_root":"{parent_root}","size_bytes":{size}}}"#)
    };
    let (older, newest) = (first.root.to_string(), second.root.to_string());
    for text in [map(&older, size), map(&newest, size + 1)] {
        write(&path, text.as_bytes());
        let report = story.back_up(WantedKind::Auto, HintChoice::File(path.clone()), BELIEVED);
        assert_eq!((report.record.hint.kind.as_str(), report.alarm), ("none", None));
        story.assert_newest_restores();
    }
}
