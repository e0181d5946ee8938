//! Scans, each against the manifest of the one before, and their deltas.

use std::path::PathBuf;

use blkdelta_core::error::ErrorKind;
use blkdelta_core::operations::ChangedRange;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::scan::ScanOptions;
use proptest::prelude::{any, proptest};
use support::content::Random;
use support::engine::{apply_to, copy_file, cut_of, scan_with};
use support::expect::{Cut, Expected, changes, contents};
use support::model::{Change, Volume};
use support::scratch::{Scratch, assert_same_bytes, read, write};
use support::strategies::{cases, change, format, volume_size};

use super::{assert_counts, index};

/// One image and the files of its last scan.
struct ScanStory {
    scratch: Scratch,
    volume: Volume,
    cut: Cut,
    manifest: PathBuf,
    delta: PathBuf,
    /// Copies of the image that deltas are put onto.
    copy: PathBuf,
}

impl ScanStory {
    fn scan(&self, options: &ScanOptions, expected: &Expected) {
        let (report, ranges) = scan_with(options, Some(&self.delta)).expect("a scan");
        assert_eq!(ranges, expected.ranges);
        assert_counts(&report.statistics, expected, true);
    }

    fn run(&mut self, changed: &[Change], random: &mut Random) {
        let old = self.volume.bytes().to_vec();
        changed.iter().for_each(|change| self.volume.apply(change));
        let next =
            if random.below(2) == 0 { self.manifest.clone() } else { self.scratch.path("other manifest") };
        let options = ScanOptions {
            manifest: Some(self.manifest.clone()),
            write_manifest: Some(next.clone()),
            gentleness: Gentleness::full_speed(),
            ..ScanOptions::new(self.volume.path())
        };
        self.scan(&options, &changes(&old, self.volume.bytes(), self.cut));
        copy_file(&next, &self.manifest);
        self.apply_twice(&old);
        self.apply_to_others(&old, random);
        self.apply_after_a_part(&old, random);
    }

    fn apply_twice(&self, old: &[u8]) {
        write(&self.copy, old);
        let report = apply_to(&self.delta, &self.copy).expect("the old image");
        assert_same_bytes(&read(&self.copy), self.volume.bytes(), "after apply");
        assert_eq!(report.already_applied, old == self.volume.bytes());
        let again = apply_to(&self.delta, &self.copy).expect("the new image");
        assert!(again.already_applied && again.bytes_written == 0);
        assert_same_bytes(&read(&self.copy), self.volume.bytes(), "after a second apply");
    }

    /// Images that are neither the old nor the new one, by a little.
    fn apply_to_others(&self, old: &[u8], random: &mut Random) {
        let mut longer = old.to_vec();
        longer.resize(old.len().max(self.volume.bytes().len()) + 1, 0);
        self.assert_refused(&longer);
        if old.is_empty() {
            return;
        }
        if old[..old.len() - 1] != *self.volume.bytes() {
            self.assert_refused(&old[..old.len() - 1]);
        }
        let (mut flipped, at) = (old.to_vec(), index(random.number(), old.len()));
        flipped[at] ^= 0x40;
        if self.is_replaced(old, at) {
            self.assert_refused_or_new(&flipped);
        } else {
            self.assert_refused(&flipped);
        }
    }

    /// Whether the delta writes over this byte, or the volume's new end cuts it off. Then nobody can tell another image
    /// from one that an interrupted apply has left.
    fn is_replaced(&self, old: &[u8], at: usize) -> bool {
        let new = self.volume.bytes();
        let start = at / self.cut.block * self.cut.block;
        let block = &new[start.min(new.len())..(start + self.cut.block).min(new.len())];
        let changed = changes(old, new, self.cut).ranges;
        let touches = |range: &ChangedRange, from: usize, to: usize| {
            range.offset < to as u64 && range.offset + range.length > from as u64
        };
        // A block that became zero is made zero as a whole; the last block's old tail goes when the file is cut.
        let whole = block.iter().all(|byte| *byte == 0) || at >= new.len();
        let (from, to) = if whole { (start, start + block.len()) } else { (at, at + 1) };
        changed.iter().any(|range| touches(range, from, to))
    }

    fn assert_refused_or_new(&self, other: &[u8]) {
        write(&self.copy, other);
        let applied = apply_to(&self.delta, &self.copy).is_ok();
        let expected = if applied { self.volume.bytes() } else { other };
        assert_same_bytes(&read(&self.copy), expected, "an image that differs where the delta writes");
    }

    fn assert_refused(&self, other: &[u8]) {
        write(&self.copy, other);
        let error = apply_to(&self.delta, &self.copy).expect_err("another image");
        assert_eq!(error.kind(), ErrorKind::WrongParent, "{error:?}");
        assert_same_bytes(&read(&self.copy), other, "a refused image");
    }

    /// A crash left some of the changed blocks or grains new and the others old; the file has its later size, or still the
    /// longer one.
    fn apply_after_a_part(&self, old: &[u8], random: &mut Random) {
        let new = self.volume.bytes();
        let mut mixed = old.to_vec();
        mixed.resize(old.len().max(new.len()), 0);
        let unit = if random.below(2) == 0 { self.cut.block } else { self.cut.grain };
        for (start, piece) in (0..).step_by(unit).zip(new.chunks(unit)) {
            if random.below(2) == 0 {
                mixed[start..start + piece.len()].copy_from_slice(piece);
            }
        }
        write(&self.copy, &mixed);
        apply_to(&self.delta, &self.copy).expect("an image with a part of what is new");
        assert_same_bytes(&read(&self.copy), new, "after the rest was applied");
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn scans_tell_exactly_what_changed_and_their_deltas_apply(
        format in format(),
        size in volume_size(),
        seed in any::<u64>(),
        rounds in proptest::collection::vec(proptest::collection::vec(change(), 0..4), 1..6),
    ) {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.path(name);
        let (manifest, delta, copy) = (path("manifest"), path("delta"), path("copy"));
        let volume = Volume::seeded(path("image"), seed, size);
        let options =
            ScanOptions { write_manifest: Some(manifest.clone()), format, gentleness: Gentleness::full_speed(), ..ScanOptions::new(volume.path()) };
        let mut story = ScanStory { scratch, volume, cut: cut_of(&format), manifest, delta, copy };
        story.scan(&options, &contents(story.volume.bytes(), story.cut));
        apply_to(&story.delta, &story.copy).expect("a full delta makes a new image");
        assert_same_bytes(&read(&story.copy), story.volume.bytes(), "a full delta");
        let mut random = Random::new(seed);
        rounds.iter().for_each(|changed| story.run(changed, &mut random));
    }
}
