//! Backups that are interrupted anywhere, again and again, and go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::{ErrorKind, Result};
use blkdelta_core::format::key_slot::Cost;
use blkdelta_core::operations::backup::{BackupOptions, BackupReport, WantedKind, backup};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::hinting::HintChoice;
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::Repository;
use blkdelta_core::repository::keys::SlotOptions;
use blkdelta_core::storage::local::LocalStorage;
use proptest::prelude::{Strategy, any, proptest};
use support::engine::{Engine, cut_of, small};
use support::expect::changes;
use support::model::{Change, Volume};
use support::scratch::{Scratch, assert_same_bytes, files_below};
use support::strategies::{cases, change};

/// One backup: what happens before it, and at which parts (of 256) of its way it is interrupted.
#[derive(Debug, Clone)]
struct Round {
    changes: Vec<Change>,
    interruptions: Vec<u8>,
    hints: bool,
}

fn round() -> impl Strategy<Value = Round> {
    let changes = proptest::collection::vec(change(), 0..6);
    let interruptions = proptest::collection::vec(any::<u8>(), 1..4);
    (changes, interruptions, any::<bool>()).prop_map(|(changes, interruptions, hints)| Round {
        changes,
        interruptions,
        hints,
    })
}

/// Runs, and is interrupted when this part of the volume has been passed; slow enough that it can be.
fn run(
    engine: &Engine,
    options: &BackupOptions,
    size: u64,
    part: Option<u8>,
) -> (Result<BackupReport>, Progress) {
    let (progress, cancel, done) = (Progress::new(), CancelToken::new(), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        if let Some(part) = part {
            let (progress, cancel, done) = (&progress, &cancel, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) && progress.bytes_done() < size * u64::from(part) / 256 {
                    std::thread::sleep(Duration::from_micros(200));
                }
                cancel.cancel();
            });
        }
        let result = backup(&engine.repository, options, &progress, &cancel);
        done.store(true, Ordering::Relaxed);
        result
    });
    (result, progress)
}

/// An engine whose repository is encrypted.
fn sealed() -> Engine {
    let scratch = Scratch::new();
    let storage = Arc::new(LocalStorage::new(scratch.path("repo")));
    let slot = SlotOptions { cost: Cost { memory_kib: 8, passes: 1, lanes: 1 }, ..SlotOptions::default() };
    let secret = Secret::passphrase(b"secret").unwrap();
    let repository = Repository::init_encrypted(storage, small(), &secret, &slot).unwrap();
    Engine { scratch, repository }
}

/// Whether there is something to go on from: not before the first block was passed, nor behind the last.
fn has_note(engine: &Engine) -> bool {
    let state = files_below(&engine.scratch.path("state"));
    state.iter().any(|path| path.extension().is_some_and(|kind| kind == "checkpoint"))
}

fn play(engine: &Engine, volume: &mut Volume, before: Option<&[u8]>, round: &Round) {
    round.changes.iter().for_each(|change| volume.apply(change));
    let mut gentleness = Gentleness::full_speed();
    gentleness.limits.bwlimit = (4 << 20).try_into().ok();
    let hints = if round.hints { HintChoice::Auto } else { HintChoice::Off };
    let mut options =
        BackupOptions { hints, gentleness, ..engine.backup_options(volume.path(), WantedKind::Auto) };
    let mut noted = false;
    let sealed = engine.repository.config().encryption.is_some();
    let mut parts = round.interruptions.iter().copied().map(Some).chain([None]);
    let report = loop {
        match run(engine, &options, volume.size(), parts.next().flatten()) {
            (Err(error), progress) if error.kind() == ErrorKind::Cancelled => {
                noted = has_note(engine);
                let passed = progress.bytes_done();
                assert!(noted || sealed || passed == 0 || passed == volume.size(), "{passed} bytes are lost");
                options.resume = true;
            }
            (other, _) => break other.unwrap(),
        }
    };
    // Sealed, only full units are durable: the marks of so small a volume may be lost.
    let gone_on = report.resumed_at.is_some();
    assert!(gone_on == noted || (sealed && !gone_on), "{:?}", report.warnings);
    let resumed = report.resumed_at.unwrap_or(0);
    assert!(
        report.record.statistics.bytes_read <= volume.size() - resumed,
        "what was passed is not read again"
    );
    if let Some(before) = before {
        let expected = changes(before, volume.bytes(), cut_of(&small()));
        assert_eq!(report.record.statistics.blocks_changed, expected.blocks, "blocks_changed");
    }
    let other = Engine::new(small());
    let whole = other.backup(volume.path(), WantedKind::Full).unwrap();
    assert_eq!(report.record.root, whole.record.root, "the root of an uninterrupted run");
    assert_same_bytes(&engine.stream(&report.record, None).unwrap(), volume.bytes(), "resumed");
    let problems = engine.verify(true).problems;
    assert!(problems.is_empty(), "{problems:?}");
    let left: Vec<_> = ["repo", "state"]
        .iter()
        .flat_map(|folder| files_below(&engine.scratch.path(folder)))
        .filter(|path| {
            let name = path.to_str().unwrap();
            name.ends_with(".unfinished") || name.ends_with(".checkpoint")
        })
        .collect();
    assert!(left.is_empty(), "nothing is left of the interruptions: {left:?}");
}

proptest! {
    #![proptest_config(cases(5))]

    /// Whatever a full and two incrementals are interrupted by, they end as if nothing had been, encrypted or not.
    #[test]
    fn interrupted_backups_end_as_if_nothing_had_been(
        seed in any::<u64>(),
        encrypted in any::<bool>(),
        rounds in proptest::collection::vec(round(), 3),
    ) {
        let engine = if encrypted { sealed() } else { Engine::new(small()) };
        let mut volume = Volume::seeded(engine.scratch.path("image"), seed, 1_200_000 + seed % 8192);
        let mut before: Option<Vec<u8>> = None;
        for round in &rounds {
            play(&engine, &mut volume, before.as_deref(), round);
            before = Some(volume.bytes().to_vec());
        }
    }
}
