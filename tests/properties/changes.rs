//! Changes pulled from a scan: put onto a copy of what was there before, they make it what is there now, whoever keeps how
//! many of them; and nothing is settled that was not taken.

use std::path::{Path, PathBuf};

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::{ErrorKind, Result};
use blkdelta_core::operations::changes::Changes;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::scan::ScanOptions;
use blkdelta_core::operations::{ChangedRange, RangeKind, change::Change};
use blkdelta_core::progress::Progress;
use proptest::prelude::{any, proptest};
use support::engine::{cut_of, small};
use support::expect::{Cut, changes};
use support::model::{self, Volume};
use support::scratch::{Scratch, assert_same_bytes, read};
use support::strategies::{cases, change, format, volume_size};

fn pull(options: &ScanOptions) -> Changes {
    Changes::of_scan(options.clone(), &Progress::new(), &CancelToken::new()).expect("a thread")
}

fn options(volume: &Volume, manifest: Option<PathBuf>, next: &Path) -> ScanOptions {
    ScanOptions {
        manifest,
        write_manifest: Some(next.into()),
        format: small(),
        gentleness: Gentleness::full_speed(),
        ..ScanOptions::new(volume.path())
    }
}

fn take_all(changes: &mut Changes) -> Result<Vec<Change>> {
    std::iter::from_fn(|| changes.next().transpose()).collect()
}

fn put(change: &Change, onto: &mut [u8]) {
    let start = usize::try_from(change.offset).expect("a 64-bit machine");
    let end = start + usize::try_from(change.length).expect("a 64-bit machine");
    match change.kind {
        RangeKind::Zero => onto[start..end].fill(0),
        RangeKind::Data => onto[start..end].copy_from_slice(change.data()),
    }
}

/// As `scan` tells them: neighbours of one kind are one.
fn joined(changes: &[Change]) -> Vec<ChangedRange> {
    let mut ranges: Vec<ChangedRange> = Vec::new();
    for Change { offset, length, kind, .. } in changes {
        match ranges.last_mut() {
            Some(last) if last.offset + last.length == *offset && last.kind == *kind => last.length += length,
            _ => ranges.push(ChangedRange { offset: *offset, length: *length, kind: *kind }),
        }
    }
    ranges
}

fn assert_within_blocks(changes: &[Change], cut: Cut) {
    let block = cut.block as u64;
    for change in changes.iter().filter(|change| change.kind == RangeKind::Data) {
        assert_eq!(
            change.offset / block,
            (change.offset + change.length - 1) / block,
            "a change spans two blocks"
        );
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn changes_make_the_old_volume_the_new_one(
        format in format(),
        size in volume_size(),
        seed in any::<u64>(),
        changed in proptest::collection::vec(change(), 0..5),
        keep in any::<bool>(),
    ) {
        let scratch = Scratch::new();
        let (first, second) = (scratch.path("first"), scratch.path("second"));
        let mut volume = Volume::seeded(scratch.path("image"), seed, size);
        let of_nothing = ScanOptions { format, ..options(&volume, None, &first) };
        let mut copy = vec![0; volume.bytes().len()];
        take_all(&mut pull(&of_nothing)).unwrap().iter().for_each(|change| put(change, &mut copy));
        assert_same_bytes(&copy, volume.bytes(), "all of a volume");

        let old = volume.bytes().to_vec();
        changed.iter().for_each(|change: &model::Change| volume.apply(change));
        copy.resize(volume.bytes().len(), 0);
        let since = options(&volume, Some(first.clone()), &second);
        let mut pulled = pull(&since);
        if keep {
            let all = take_all(&mut pulled).unwrap();
            let cut = cut_of(&format);
            assert_eq!(joined(&all), changes(&old, volume.bytes(), cut).ranges);
            assert_within_blocks(&all, cut);
            drop(pulled);
            all.iter().for_each(|change| put(change, &mut copy));
        } else {
            while let Some(change) = pulled.next().unwrap() {
                put(&change, &mut copy);
            }
            assert!(pulled.report().is_some());
        }
        assert_same_bytes(&copy, volume.bytes(), "what changed, put onto the old volume");
        let again = take_all(&mut pull(&options(&volume, Some(second), &first))).unwrap();
        assert!(again.is_empty(), "{} changes of a volume that did not change", again.len());
    }
}

/// An image of `blocks` blocks that all hold data, and the manifest of an empty one.
fn full_volume(scratch: &Scratch, blocks: usize) -> (Volume, PathBuf) {
    let size = blocks * usize::try_from(small().block_size).expect("a small block");
    let manifest = scratch.path("manifest");
    let mut volume = Volume::new(scratch.path("image"), vec![0; size]);
    assert!(take_all(&mut pull(&options(&volume, None, &manifest))).unwrap().is_empty());
    volume.write(0, &vec![7; size]);
    (volume, manifest)
}

#[test]
fn the_manifest_is_not_replaced_before_more_is_asked_for_after_the_last_change() {
    const BLOCKS: usize = 64; // more than a pass has buffers
    let scratch = Scratch::new();
    let (volume, manifest) = full_volume(&scratch, BLOCKS);
    let before = read(&manifest);
    for taken in [0, 1, BLOCKS - 1, BLOCKS] {
        let mut pulled = pull(&options(&volume, Some(manifest.clone()), &manifest));
        for number in 0..taken {
            assert!(pulled.next().unwrap().is_some(), "change {number}");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(read(&manifest), before, "after {taken} changes");
        drop(pulled);
        assert_eq!(read(&manifest), before, "after {taken} changes and the end of the receiver");
    }
    assert_eq!(
        take_all(&mut pull(&options(&volume, Some(manifest.clone()), &manifest))).unwrap().len(),
        BLOCKS
    );
    assert_ne!(read(&manifest), before, "after the end");
}

#[test]
fn a_scan_that_failed_never_looks_like_one_that_came_to_its_end() {
    let scratch = Scratch::new();
    let (volume, manifest) = full_volume(&scratch, 12);
    let cancel = CancelToken::new();
    let options = options(&volume, Some(manifest), &scratch.path("next"));
    let mut pulled = Changes::of_scan(options.clone(), &Progress::new(), &cancel).unwrap();
    assert!(pulled.next().unwrap().is_some());
    cancel.cancel();
    let error = std::iter::repeat_with(|| pulled.next()).find_map(Result::err).expect("it was cancelled");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(pulled.next().is_err() && pulled.report().is_none());

    let nowhere = ScanOptions { source: scratch.path("nowhere"), ..options };
    let mut pulled = pull(&nowhere);
    assert_eq!(pulled.next().err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    assert!(pulled.next().is_err());
}
