//! The machine or the process dies at any instant: the repository then holds the old state or the new one, and the next
//! run goes on from there.
// A broken expectation must end the test, also in a function that several tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use blkdelta_core::error::{ErrorKind, Result};
use blkdelta_core::operations::backup::{BackupReport, WantedKind};
use blkdelta_core::repository::Repository;
use blkdelta_core::storage::memory::MemoryStorage;
use blkdelta_core::sys::faults as points;
use faults::copying::Copying;
use faults::journal::Journal;
use faults::lab::{Lab, VOLUME, format, image, restored};
use faults::pruning::{KEPT, Pruning, prune_all};
use faults::{Fault, alone, for_every_call};

/// Lets a backup die at every call it makes, on top of `before` backups.
fn die_at_every_call(before: u32, kind: &WantedKind) {
    let _alone = alone();
    let lab = Lab::with_backups(before);
    let saved = lab.save();
    let new: Vec<u32> = (1..=before + 1).collect();
    let (mut old_states, mut new_states, mut remains) = (0, 0, 0);
    for_every_call(|nth| {
        let fault = Fault::dead(nth);
        lab.put_back(&saved);
        lab.write_image(before + 1);
        let (result, fired) = fault.during(|| lab.backup_as(kind.clone()));
        let context = format!("{fault:?}");
        let committed = lab.records().len() > before as usize;
        assert!(committed || result.is_err(), "{context}: success without a record");
        if committed {
            lab.assert_sound(&new, &context);
            new_states += 1;
        } else {
            // The cache may have been caught up; the repository has lost nothing.
            let kept = saved.iter().filter(|(name, _)| name.starts_with("repo"));
            assert!(
                lab.still_has(&kept.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()),
                "{context}"
            );
            old_states += 1;
        }
        remains += usize::from(!lab.leftovers().is_empty());
        lab.assert_next_backup_works(&context);
        fired
    });
    assert!(
        old_states > 30 && new_states > 5,
        "{old_states} deaths before the commit, {new_states} behind it"
    );
    assert!(remains > 20, "only {remains} deaths left something to be cleaned up");
}

#[test]
fn a_full_backup_may_die_at_any_call() {
    die_at_every_call(0, &WantedKind::Auto);
}

#[test]
fn an_incremental_may_die_at_any_call() {
    die_at_every_call(1, &WantedKind::Auto);
}

#[test]
fn an_incremental_of_a_grown_volume_may_die_at_any_call() {
    die_at_every_call(2, &WantedKind::Auto);
}

#[test]
fn a_backup_against_an_older_parent_may_die_at_any_call() {
    die_at_every_call(2, &WantedKind::Differential);
}

/// The first run was interrupted and left a mark; the second goes on from it and dies; the third goes on from either.
#[test]
fn a_resumed_backup_may_die_at_any_call() {
    let _alone = alone();
    let lab = Lab::with_backups(1);
    lab.write_image(2);
    lab.interrupt();
    let saved = lab.save();
    let (mut gone_on, mut anew) = (0, 0);
    for_every_call(|nth| {
        let fault = Fault::dead(nth);
        lab.put_back(&saved);
        let (result, fired) = fault.during(|| lab.resume());
        let context = format!("{fault:?}");
        let committed = lab.records().len() > 1;
        assert!(committed || result.is_err(), "{context}: success without a record");
        if !committed {
            lab.let_two_days_pass();
            let report = lab.resume().unwrap_or_else(|error| panic!("{context}: {error:?}"));
            *if report.resumed_at.is_some() { &mut gone_on } else { &mut anew } += 1;
        }
        lab.assert_sound(&[1, 2], &context);
        if !committed {
            assert_eq!(lab.leftovers(), Vec::<std::path::PathBuf>::new(), "{context}");
        }
        fired
    });
    assert!(gone_on > 30, "{gone_on} deaths left a mark to go on from, {anew} did not");
}

#[test]
fn nothing_gets_its_name_before_its_bytes_are_durable() {
    let _alone = alone();
    for before in [0, 1] {
        let lab = Lab::with_backups(before);
        lab.write_image(before + 1);
        points::count();
        lab.backup().unwrap();
        let calls = points::disarm_ordered();
        let writing = ["write", "fsync", "rename", "fsync_dir"];
        let calls: Vec<&str> = calls.into_iter().filter(|name| writing.contains(name)).collect();
        let records = calls.iter().filter(|name| **name == "rename").count();
        assert!(records >= 3, "delta, manifest and record get names: {calls:?}");
        for (at, _) in calls.iter().enumerate().filter(|(_, name)| **name == "rename") {
            assert_eq!(calls[at - 1], "fsync", "a file is named before it is durable: {calls:?}");
            assert_eq!(calls.get(at + 1), Some(&"fsync_dir"), "a name is not made durable: {calls:?}");
        }
    }
}

/// A writer on this storage, with local state of its own as on another host.
struct Writer {
    lab: Lab,
    repository: Repository,
}

impl Writer {
    fn new(storage: Journal) -> Self {
        let storage = Arc::new(storage);
        let repository = Repository::open(storage.clone()).or_else(|_| Repository::init(storage, format()));
        Self { lab: Lab::new(), repository: repository.unwrap() }
    }

    /// Backs a generation up; the kind is given, as each writer has an image file of its own.
    fn backup(&self, generation: u32, kind: WantedKind) -> Result<BackupReport> {
        self.lab.write_image(generation);
        self.lab.backup_to(&self.repository, kind)
    }
}

/// Every backup that is listed comes back as the generation that its number of bytes and sequence stand for.
fn assert_sound(storage: &MemoryStorage, generations: &[u32], context: &str) {
    let repository = Repository::open(Arc::new(storage.clone())).unwrap();
    let catalog = repository.catalog(Some(VOLUME)).unwrap();
    assert!(catalog.damaged.is_empty(), "{context}: {:?}", catalog.damaged);
    assert!(catalog.records.len() <= generations.len(), "{context}");
    for (record, generation) in catalog.records.iter().zip(generations) {
        assert!(
            restored(&repository, record) == *image(*generation),
            "{context}: backup {}",
            record.sequence
        );
    }
}

#[test]
fn every_prefix_of_what_was_stored_is_a_sound_repository() {
    let _alone = alone();
    let journal = Journal::new();
    let writer = Writer::new(journal.clone());
    let generations = [1, 2, 3, 4, 5];
    let kinds =
        [WantedKind::Auto, WantedKind::Auto, WantedKind::Auto, WantedKind::Differential, WantedKind::Full];
    for (generation, kind) in generations.into_iter().zip(kinds) {
        writer.backup(generation, kind).unwrap();
    }
    let steps = journal.steps();
    assert_eq!(
        steps.len(),
        1 + 4 * generations.len(),
        "configuration; delta, manifest, record, audit entry each"
    );
    for count in 1..steps.len() {
        let storage = Journal::replay(&steps[..count]);
        let context = format!("after {count} of {} steps", steps.len());
        let committed = count / 4; // the record is the third step of each backup
        assert_sound(&storage, &generations, &context);
        // The local state is of the newest backup: it must be seen that the repository went back.
        let repository = Repository::open(Arc::new(storage.clone())).unwrap();
        writer.lab.write_image(6);
        let error = writer.lab.backup_to(&repository, WantedKind::Auto).expect_err(&context);
        assert_eq!(error.kind(), ErrorKind::RolledBack, "{context}: {error:?}");
        repository.remembering(&writer.lab.path("state")).accept_rollback().unwrap();
        let report = writer.lab.backup_to(&repository, WantedKind::Auto).unwrap();
        assert!(restored(&repository, &report.record) == *image(6), "{context}: the next backup");
        assert_sound(&storage, &[&generations[..committed], &[6]].concat(), &context);
        let files = ["deltas", "manifests"].map(|part| storage_list(&repository, part));
        assert_eq!(files, [committed + 1; 2], "{context}: files that no record names");
    }
}

fn storage_list(repository: &Repository, part: &str) -> usize {
    repository.storage().list(&format!("volumes/host%2Fdb/{part}")).unwrap().len()
}

/// What two writers got.
struct Race {
    first: Result<BackupReport>,
    second: Result<BackupReport>,
    winner: Arc<Writer>,
    journal: Journal,
}

/// Two writers without a lock between them: the second makes a whole backup when the first is about to do `verb` on an
/// object of `part`.
fn race(verb: &'static str, part: &'static str) -> Race {
    let journal = Journal::new();
    let winner = Arc::new(Writer::new(journal.clone()));
    let other = Arc::new(Mutex::new(None));
    let (slot, second) = (Arc::clone(&other), Arc::clone(&winner));
    let hooked = journal.with_hook(move |now, name| {
        let mut slot = slot.lock().unwrap();
        if now == verb && name.contains(part) && slot.is_none() {
            *slot = Some(second.backup(2, WantedKind::Full));
        }
    });
    let first = Writer::new(hooked).backup(1, WantedKind::Full);
    let second = other.lock().unwrap().take().unwrap();
    Race { first, second, winner, journal }
}

#[test]
fn of_two_writers_without_locks_exactly_one_commits() {
    let _alone = alone();
    for (verb, part) in [("finish", "/deltas/"), ("finish", "/manifests/"), ("put_new", "/records/")] {
        let context = format!("the second comes before {verb} in {part}");
        let Race { first, second, winner, journal } = race(verb, part);
        let error = first.expect_err(&context);
        assert_eq!(error.kind(), ErrorKind::Locked, "{context}: {error:?}");
        let record = second.unwrap_or_else(|error| panic!("{context}: {error:?}")).record;
        assert_eq!(record.sequence, 1);
        assert_sound(&Journal::replay(&journal.steps()), &[2], &context);
        // What the loser left is gone after the next run.
        winner.backup(4, WantedKind::Incremental).unwrap();
        assert_sound(&Journal::replay(&journal.steps()), &[2, 4], &context);
        let names = journal.names();
        assert_eq!(names.len(), 1 + 3 * 2, "{context}: {names:?}");
    }
}

#[test]
fn a_run_that_starts_while_another_commits_takes_no_file_from_it() {
    let _alone = alone();
    let journal = Journal::new();
    Writer::new(journal.clone());
    let (cleaned_up, wait_for_cleaning) = channel();
    let (committed, wait_for_commit) = channel();
    let wait_for_cleaning = Mutex::new(wait_for_cleaning);
    let first = Writer::new(journal.with_hook(move |verb, name| {
        if verb == "put_new" && name.contains("/records/") {
            // All is stored and checked; only the record is missing.
            wait_for_cleaning.lock().unwrap().recv().unwrap();
        }
    }));
    let first = std::thread::spawn(move || {
        let report = first.backup(1, WantedKind::Full);
        committed.send(()).unwrap();
        report
    });
    while !journal.names().iter().any(|name| name.contains("/manifests/")) {
        std::thread::yield_now();
    }
    let wait_for_commit = Mutex::new(wait_for_commit);
    let second = Writer::new(journal.with_hook(move |verb, name| {
        if verb == "finish" && name.contains("/deltas/") {
            cleaned_up.send(()).unwrap();
            wait_for_commit.lock().unwrap().recv().unwrap();
        }
    }));
    let error = second.backup(2, WantedKind::Full).unwrap_err();
    first.join().unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert_sound(&Journal::replay(&journal.steps()), &[1], "after the race");
    assert_eq!(journal.names().len(), 4, "the loser cleans up behind itself: {:?}", journal.names());
}

#[test]
fn a_prune_may_die_at_any_call() {
    let _alone = alone();
    let pruning = Pruning::new();
    let mut seen = std::collections::BTreeSet::new();
    for_every_call(|nth| {
        let fault = Fault::dead(nth);
        pruning.lab.put_back(&pruning.saved);
        let (result, fired) = fault.during(|| pruning.prune());
        let context = format!("{fault:?}");
        let left = pruning.assert_whole(&context);
        assert!(left.ends_with(&KEPT) && (result.is_err() || left == KEPT), "{context}: {left:?}");
        seen.insert(left);
        pruning.assert_can_be_ended(&context);
        fired
    });
    // Children go before their parents.
    let states = [vec![1, 2, 3, 4, 5], vec![1, 2, 4, 5], vec![1, 4, 5], vec![4, 5]];
    assert_eq!(seen, states.into_iter().collect());
}

#[test]
fn a_copy_may_die_at_any_call() {
    let _alone = alone();
    let copying = Copying::new();
    let mut seen = std::collections::BTreeSet::new();
    for_every_call(|nth| {
        let fault = Fault::dead(nth);
        copying.put_back();
        let (result, fired) = fault.during(|| copying.copy());
        let context = format!("{fault:?}");
        let copies = copying.assert_whole(&context);
        assert!(result.is_err() || copies == 3, "{context}: {copies} copies");
        seen.insert(copies);
        copying.assert_can_be_ended(&context);
        fired
    });
    assert_eq!(seen, [1, 2, 3].into());
}

/// What is durable is a prefix of what was done: the record's removal is synced before its files go.
#[test]
fn a_record_is_gone_for_good_before_its_files_go() {
    let _alone = alone();
    let pruning = Pruning::new();
    pruning.lab.put_back(&pruning.saved);
    points::count();
    pruning.prune().unwrap();
    let calls = points::disarm_ordered();
    let removals: Vec<usize> = (0..calls.len()).filter(|at| calls[*at] == "unlink").collect();
    assert!(removals.len() >= 9, "three files of each of three backups: {calls:?}");
    for at in removals {
        assert_eq!(calls.get(at + 1), Some(&"fsync_dir"), "a removal is not made durable: {calls:?}");
    }
}

#[test]
fn every_prefix_of_a_prune_is_a_sound_repository() {
    let _alone = alone();
    let journal = Journal::new();
    let writer = Writer::new(journal.clone());
    let kinds =
        [WantedKind::Full, WantedKind::Auto, WantedKind::Differential, WantedKind::Full, WantedKind::Auto];
    for (generation, kind) in (1..).zip(kinds) {
        writer.backup(generation, kind).unwrap();
    }
    let before = journal.steps().len();
    assert_eq!(prune_all(&writer.repository).unwrap().removed, 3);
    let steps = journal.steps();
    assert_eq!(
        steps.len(),
        before + 17,
        "tombstone put, record, delta, manifest and tombstone removed, of each; two entries of the audit log"
    );
    for count in before..=steps.len() {
        let context = format!("after {} of 17 steps", count - before);
        let repository = Repository::open(Arc::new(Journal::replay(&steps[..count]))).unwrap();
        for record in repository.catalog(Some(VOLUME)).unwrap().records {
            assert!(restored(&repository, &record) == *image(record.sequence), "{context}");
        }
        assert_eq!(prune_all(&repository).unwrap().kept, 2, "{context}");
        assert_eq!(
            ["records", "deltas", "manifests"].map(|part| storage_list(&repository, part)),
            [2; 3],
            "{context}"
        );
    }
}

/// Without locks, a prune takes the parent of a backup that is being made.
#[test]
fn a_backup_whose_parent_was_removed_meanwhile_is_taken_back() {
    let _alone = alone();
    let journal = Journal::new();
    let pruner = Writer::new(journal.clone());
    for generation in 1..=2 {
        pruner.backup(generation, WantedKind::Full).unwrap();
    }
    let old = pruner.repository.catalog(Some(VOLUME)).unwrap().records[0].backup_id.to_string();
    let other = pruner.repository.clone();
    let hooked = journal.with_hook(move |verb, name| {
        if verb == "put_new" && name.contains("/records/") {
            assert_eq!(prune_all(&other).unwrap().removed, 1);
        }
    });
    pruner.lab.write_image(3);
    let hooked = Repository::open(Arc::new(hooked)).unwrap();
    let error = pruner.lab.backup_to(&hooked, WantedKind::Since(old)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert_sound(&Journal::replay(&journal.steps()), &[2], "after the race");
    assert_eq!(journal.names().len(), 4, "nothing is left over: {:?}", journal.names());
}

/// Without locks, a backup appears on what a prune has just decided to remove: the backup stays whole, whoever is first.
#[test]
fn what_a_backup_builds_on_meanwhile_is_not_pruned() {
    let _alone = alone();
    for (verb, at, is_kept) in [("put_new", "/tombstones/", true), ("remove", "/records/", false)] {
        let journal = Journal::new();
        let writer = Writer::new(journal.clone());
        for generation in 1..=2 {
            writer.backup(generation, WantedKind::Full).unwrap();
        }
        let old = writer.repository.catalog(Some(VOLUME)).unwrap().records[0].backup_id.to_string();
        writer.lab.write_image(3);
        let (lab, repository) = (writer.lab, writer.repository);
        let lab = Mutex::new((lab, false));
        let hooked = journal.with_hook(move |now, name| {
            if now != verb || !name.contains(at) {
                return;
            }
            let Ok(mut lab) = lab.try_lock() else { return };
            if !std::mem::replace(&mut lab.1, true) {
                let made = lab.0.backup_to(&repository, WantedKind::Since(old.clone()));
                assert_eq!(made.is_ok(), is_kept, "{verb} {at}: {:?}", made.err());
            }
        });
        let hooked = Repository::open(Arc::new(hooked)).unwrap();
        prune_all(&hooked).unwrap();
        let left: &[u32] = if is_kept { &[1, 2, 3] } else { &[2] };
        assert_sound(&Journal::replay(&journal.steps()), left, at);
        assert!(!journal.names().iter().any(|name| name.contains("/tombstones/")), "{:?}", journal.names());
    }
}
