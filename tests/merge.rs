//! Merging changes no state: whatever call fails, whenever the process dies, each backup that is listed is what it was, and
//! the newest is always there. (Random chains and runs are in the properties of chains.)
// A broken expectation must end the test, also in a function that several tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;

use blkdelta_core::backup_id::BackupKind;
use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::Result;
use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::merge::{MergeOptions, MergeReport, merge};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::InitOptions;
use faults::lab::{Lab, image, restored};
use faults::{Fault, alone, assert_sensible, for_every_call};
use support::content::random_bytes;
use support::engine::Engine;
use support::scratch::{assert_same_bytes, write};

const BACKUPS: u32 = 4;

/// From the backup of this sequence, or the full, to the newest.
fn merge_from(lab: &Lab, first: Option<u32>) -> Result<MergeReport> {
    let repository = lab.repository()?;
    let catalog = repository.catalog(None)?;
    let of = |sequence: u32| catalog.records.iter().find(|record| record.sequence == sequence).cloned();
    let options = MergeOptions {
        last: of(BACKUPS).expect("the newest"),
        first: first.and_then(of),
        compression: None,
        gentleness: Gentleness::full_speed(),
        state: lab.path("state"),
    };
    merge(&repository, &options, &Progress::new(), &CancelToken::new())
}

/// Each backup is the generation of its number; returns those numbers.
fn assert_states(lab: &Lab, context: &str) -> Vec<u32> {
    let repository = lab.repository().unwrap();
    let records = lab.records();
    for record in &records {
        let found = restored(&repository, record);
        assert!(found == *image(record.sequence), "{context}: backup {}", record.sequence);
    }
    let report = lab.verify().unwrap();
    assert!(report.ok, "{context}: {:?}", report.problems);
    records.iter().map(|record| record.sequence).collect()
}

fn under_every_fault(first: Option<u32>, fault: impl Fn(u64) -> Fault) -> (u32, u32) {
    let _alone = alone();
    let lab = Lab::with_backups(BACKUPS);
    let saved = lab.save();
    let (mut before, mut behind) = (0, 0);
    for_every_call(|nth| {
        let fault = fault(nth);
        lab.put_back(&saved);
        let (result, fired) = fault.during(|| merge_from(&lab, first));
        let context = format!("{fault:?}");
        if let Err(error) = &result {
            assert_sensible(error, &fault);
        }
        let left = assert_states(&lab, &context);
        assert_eq!(left.last(), Some(&BACKUPS), "{context}");
        let merged = lab.records().pop().is_some_and(|record| record.revision == 1);
        assert!(merged || result.is_err(), "{context}: success without a merged record");
        if merged {
            behind += 1;
        } else {
            assert!(lab.still_has(&saved), "{context}: a failed merge changed what was there");
            before += 1;
        }
        lab.assert_next_backup_works(&context);
        fired
    });
    (before, behind)
}

#[test]
fn a_merge_into_a_full_may_die_at_any_call() {
    let (before, behind) = under_every_fault(None, Fault::dead);
    assert!(before > 20 && behind > 5, "{before} deaths before the commit, {behind} behind it");
}

#[test]
fn a_merge_of_incrementals_may_die_at_any_call() {
    let (before, behind) = under_every_fault(Some(2), Fault::dead);
    assert!(before > 20 && behind > 5, "{before} deaths before the commit, {behind} behind it");
}

#[test]
fn a_merge_survives_each_call_meeting_a_full_disk() {
    let (before, behind) = under_every_fault(None, |nth| Fault::once(nth, libc::ENOSPC));
    assert!(before > 20 && behind > 2, "{before} failures ended it, {behind} did not");
}

/// Large blocks of noise: their frames are alive and near together, so they are copied; a few scattered grains are not.
#[test]
fn frames_that_are_alive_are_copied_and_others_are_gathered() {
    const BLOCK: usize = 4 << 20;
    let _alone = alone();
    let engine = Engine::new(InitOptions::default());
    let source = engine.scratch.path("image");
    let mut bytes = random_bytes(1, 6 * BLOCK + 5000);
    write(&source, &bytes);
    engine.backup(&source, WantedKind::Auto).unwrap();
    for round in 0..3_u8 {
        for block in 0..6 {
            let at = block * BLOCK + usize::from(round) * 3 * 8192;
            bytes[at..at + 8192].fill(round + 1);
        }
        // One run is long enough for frames of its own, and takes those of the full away.
        let long = usize::from(round) * BLOCK;
        bytes[long + BLOCK / 2..long + BLOCK].copy_from_slice(&random_bytes(u64::from(round) + 7, BLOCK / 2));
        write(&source, &bytes);
        engine.backup(&source, WantedKind::Auto).unwrap();
    }
    let records = engine.records();
    for first in [Some(&records[1]), None] {
        let last = engine.records().pop().unwrap();
        let merged = engine.merge(&last, first).unwrap();
        assert_eq!(merged.record.kind == BackupKind::Full, first.is_none());
        assert!(merged.bytes_copied > merged.bytes_encoded, "{merged:?}");
        assert!(merged.bytes_encoded > 0, "{merged:?}");
        assert_same_bytes(&engine.stream(&merged.record, None).unwrap(), &bytes, "a merged backup");
        assert!(engine.verify(true).ok, "{:?}", engine.verify(true).problems);
        // A third of a copied frame may be dead, and there are the indexes.
        let alive = if first.is_none() { bytes.len() } else { 3 * BLOCK / 2 };
        assert!(merged.record.delta.size < (alive + alive / 2 + (1 << 20)) as u64, "{merged:?}");
    }
    assert_eq!(engine.records().len(), 1);
}
