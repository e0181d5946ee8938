//! A system call fails: the operation copes or says what is wrong, and nothing that was stored before is hurt.
//!
//! Every call that a small job makes is failed in turn. That is the only way to reach the error paths which a user
//! meets once, on the worst day.
// A broken expectation must end the test, also in a function that several tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;

use std::fs;

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::ErrorKind;
use blkdelta_core::operations::backup::BackupReport;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::restore::{RestoreOptions, restore};
use blkdelta_core::progress::Progress;
use faults::copying::Copying;
use faults::lab::{BLOCK, GRAIN, Lab, image};
use faults::pruning::{KEPT, Pruning};
use faults::scanning::Scanning;
use faults::{Fault, alone, assert_sensible, for_every_call};

/// Fails every call of a backup once, on top of `before` backups, and looks at what is left.
fn fail_every_call_of_a_backup(before: u32, errno: i32) {
    fail_every_call_in(Lab::new, before, errno);
}

fn fail_every_call_in(lab: impl FnOnce() -> Lab, before: u32, errno: i32) {
    let _alone = alone();
    let lab = lab().and_backups(before);
    let saved = lab.save();
    let new: Vec<u32> = (1..=before + 1).collect();
    let (mut undone, mut without_state) = (0, 0);
    for_every_call(|nth| {
        let fault = Fault::once(nth, errno);
        lab.put_back(&saved);
        lab.write_image(before + 1);
        let (result, fired) = fault.during(|| lab.backup());
        let context = format!("{fault:?}");
        let committed = lab.records().len() > before as usize;
        if let Err(error) = &result {
            assert_sensible(error, &fault);
        }
        // A failure behind the naming of the record is told, but the backup counts: it must be whole.
        assert!(committed || result.is_err(), "{context}: success without a record");
        if committed {
            lab.assert_sound(&new, &context);
        } else {
            assert!(lab.still_has(&saved), "{context}: a failed backup changed what was there");
        }
        undone += u64::from(!committed);
        without_state += u64::from(result.is_ok_and(|report| tells_of_lost_state(&report)));
        lab.assert_next_backup_works(&context);
        fired
    });
    assert!(undone > 30, "only {undone} failures ended the backup: the points are not compiled in");
    assert!(without_state > 5, "only {without_state} failures hit the local state alone");
}

/// The backup is committed and the user is told that only its cache is not.
fn tells_of_lost_state(report: &BackupReport) -> bool {
    report.warnings.iter().any(|warning| warning.contains("local state"))
}

#[test]
fn a_full_backup_survives_each_call_meeting_a_full_disk() {
    fail_every_call_of_a_backup(0, libc::ENOSPC);
}

#[test]
fn a_full_backup_survives_each_call_failing() {
    fail_every_call_of_a_backup(0, libc::EIO);
}

#[test]
fn an_incremental_of_a_grown_volume_survives_each_call_meeting_a_full_disk() {
    fail_every_call_of_a_backup(2, libc::ENOSPC);
}

#[test]
fn an_incremental_survives_each_call_failing() {
    fail_every_call_of_a_backup(1, libc::EIO);
}

#[test]
fn an_encrypted_incremental_survives_each_call_failing() {
    fail_every_call_in(Lab::encrypted, 1, libc::EIO);
}

#[test]
fn verify_never_calls_an_encrypted_repository_sound_that_it_could_not_read() {
    let _alone = alone();
    fail_every_call_of_verify(&Lab::encrypted().and_backups(2));
}

#[test]
fn a_restore_that_failed_is_repeated_over_its_remains() {
    let _alone = alone();
    let lab = Lab::with_backups(2);
    let saved = lab.save();
    let repository = lab.repository().unwrap();
    let record = lab.records().pop().unwrap();
    let target = lab.path("target");
    let run = |force| {
        let options = RestoreOptions {
            force,
            read_back: true,
            gentleness: Gentleness::full_speed(),
            ..RestoreOptions::new(&target)
        };
        restore(&repository, &record, &options, &Progress::new(), &CancelToken::new())
    };
    for errno in [libc::EIO, libc::ENOSPC] {
        for_every_call(|nth| {
            let _ = fs::remove_file(&target);
            let fault = Fault::once(nth, errno);
            let (result, fired) = fault.during(|| run(false));
            if let Err(error) = result {
                assert_sensible(&error, &fault);
                run(true).unwrap_or_else(|error| panic!("{fault:?}: repeating fails: {error:?}"));
            }
            assert!(fs::read(&target).unwrap() == *image(2), "{fault:?}: the target is wrong");
            fired
        });
    }
    assert!(lab.still_has(&saved), "restoring changed the repository");
}

#[test]
fn verify_never_calls_sound_what_it_could_not_read() {
    let _alone = alone();
    fail_every_call_of_verify(&Lab::with_backups(2));
}

fn fail_every_call_of_verify(lab: &Lab) {
    let calls = for_every_call(|nth| {
        let fault = Fault::once(nth, libc::EIO);
        let (result, fired) = fault.during(|| lab.verify());
        match result {
            Ok(report) => assert_eq!(report.ok, !fired, "{fault:?}: {:?}", report.problems),
            Err(error) => assert_sensible(&error, &fault),
        }
        fired
    });
    assert!(calls > 30, "only {calls} calls: the points are not compiled in");
}

#[test]
fn a_copy_that_failed_is_finished_by_repeating_it() {
    let _alone = alone();
    let copying = Copying::new();
    for errno in [libc::EIO, libc::ENOSPC] {
        let calls = for_every_call(|nth| {
            copying.put_back();
            let fault = Fault::once(nth, errno);
            let (result, fired) = fault.during(|| copying.copy());
            let context = format!("{fault:?}");
            let copies = copying.assert_whole(&context);
            match result {
                // Whatever is not there is told.
                Ok(report) => assert_eq!(copies, 3 - report.problems.len(), "{context}: {report:?}"),
                Err(error) => assert_sensible(&error, &fault),
            }
            copying.assert_can_be_ended(&context);
            fired
        });
        assert!(calls > 30, "only {calls} calls: the points are not compiled in");
    }
}

#[test]
fn a_scan_that_failed_leaves_nothing_and_can_be_repeated() {
    let _alone = alone();
    let scanning = Scanning::new(2);
    let parent = fs::read(scanning.parent()).unwrap();
    let expected = scanning.run().unwrap().root;
    for errno in [libc::EIO, libc::ENOSPC] {
        for_every_call(|nth| {
            scanning.forget_results();
            let fault = Fault::once(nth, errno);
            let (result, fired) = fault.during(|| scanning.run());
            let root = result.map(|report| report.root).unwrap_or_else(|error| {
                assert_sensible(&error, &fault);
                assert_eq!(scanning.unfinished(), Vec::<String>::new(), "{fault:?}");
                assert!(
                    fs::read(scanning.parent()).unwrap() == parent,
                    "{fault:?}: the old manifest changed"
                );
                scanning.run().unwrap_or_else(|error| panic!("{fault:?}: repeating fails: {error:?}")).root
            });
            assert_eq!(root, expected, "{fault:?}");
            scanning.assert_applies(&format!("{fault:?}"));
            fired
        });
    }
}

#[test]
fn applying_is_finished_by_repeating_it() {
    let _alone = alone();
    // Generation 3 is longer: the size of the target changes too.
    let scanning = Scanning::new(3);
    scanning.run().unwrap();
    for (errno, only) in [(libc::EIO, None), (libc::ENOSPC, Some("pwrite"))] {
        for_every_call(|nth| {
            scanning.write_target();
            let fault = Fault { only, ..Fault::once(nth, errno) };
            let (result, fired) = fault.during(|| scanning.apply());
            if let Err(error) = result {
                assert_sensible(&error, &fault);
                scanning.apply().unwrap_or_else(|error| panic!("{fault:?}: repeating fails: {error:?}"));
            }
            assert!(fs::read(scanning.target()).unwrap() == *image(3), "{fault:?}: the target is wrong");
            fired
        });
    }
}

#[test]
fn a_target_that_no_interrupted_apply_could_have_left_is_refused_untouched() {
    let _alone = alone();
    let scanning = Scanning::new(2);
    scanning.run().unwrap();
    // Byte 0 is in a block that stays as it is; block 1 has changed grains and others, like its last.
    for place in [0, 2 * BLOCK - 1] {
        let mut bytes = image(1).to_vec();
        bytes[place] ^= 1;
        fs::write(scanning.target(), &bytes).unwrap();
        assert_eq!(scanning.apply().unwrap_err().kind(), ErrorKind::WrongParent, "byte {place}");
        assert!(
            fs::read(scanning.target()).unwrap() == bytes,
            "byte {place}: it was written to all the same"
        );
    }
}

/// A backup under a lasting fault that it has to get round, and its root without the fault.
fn gets_round(fault: Fault) -> BackupReport {
    let lab = Lab::new();
    let expected = lab.backup().unwrap().record.root;
    lab.put_back(&Lab::new().save());
    let (result, fired) = fault.during(|| lab.backup());
    let report = result.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    assert!(fired, "{fault:?} hit nothing: this machine has no io_uring or no O_DIRECT");
    assert_eq!(report.record.root, expected, "{fault:?}");
    lab.assert_sound(&[1], &format!("{fault:?}"));
    report
}

#[test]
fn forbidden_io_uring_and_direct_io_change_the_speed_and_nothing_else() {
    let _alone = alone();
    for errno in [libc::EPERM, libc::ENOSYS] {
        let report = gets_round(Fault::always(0, errno, "io_uring_setup"));
        assert!(report.warnings.iter().any(|warning| warning.contains("io_uring")), "{:?}", report.warnings);
    }
    // Older kernels know no empty tables; a limit of locked memory may refuse any buffer, the first or a later one.
    for only in ["io_uring_sparse", "io_uring_buffer"] {
        gets_round(Fault::always(0, libc::EINVAL, only));
    }
    gets_round(Fault { sticky: false, ..Fault::always(1, libc::ENOMEM, "io_uring_buffer") });
    for errno in [libc::EPERM, libc::EINVAL] {
        let report = gets_round(Fault::always(0, errno, "open_direct"));
        assert!(report.warnings.iter().any(|warning| warning.contains("O_DIRECT")), "{:?}", report.warnings);
    }
}

#[test]
fn short_and_interrupted_reads_are_finished() {
    let _alone = alone();
    // Every read of the ring is short, and so is every ordinary one that finishes it.
    gets_round(Fault::always(0, libc::EIO, "short_"));
    for only in ["read_uring", "io_uring_enter"] {
        for nth in [0, 1, 5] {
            gets_round(Fault { sticky: false, ..Fault::always(nth, libc::EINTR, only) });
        }
    }
    // The ring's reads all fail; the ordinary ones that repeat them are interrupted.
    gets_round(Fault::always(0, libc::EAGAIN, "read_uring"));
}

#[test]
fn an_unreadable_sector_is_named_and_nothing_is_committed() {
    let _alone = alone();
    let lab = Lab::with_backups(1);
    let saved = lab.save();
    lab.write_image(2);
    let size = image(2).len() as u64;
    let calls = for_every_call(|nth| {
        let fault = Fault::always(nth, libc::EIO, "read_");
        let (result, fired) = fault.during(|| lab.backup());
        let Err(error) = result else {
            assert!(!fired, "{fault:?}: unreadable bytes were stored as if they had been read");
            return false;
        };
        assert_eq!(error.kind(), ErrorKind::Unreadable, "{error:?}");
        assert_eq!(error.error_path(), Some(lab.path("image").as_path()));
        let (offset, length) = error.place().unwrap();
        assert!(length > 0 && length <= GRAIN as u64, "{error:?} could name a smaller range");
        assert!(offset + length <= size, "{error:?} is outside the volume");
        assert_eq!(lab.leftovers(), Vec::<std::path::PathBuf>::new());
        assert!(lab.still_has(&saved), "{error:?}");
        true
    });
    assert!(calls > 5, "only {calls} reads of the source");
    lab.assert_next_backup_works("after unreadable sectors");
}

#[test]
fn one_failed_read_is_repeated() {
    let _alone = alone();
    gets_round(Fault { sticky: false, ..Fault::always(3, libc::EIO, "read_") });
}

#[test]
fn a_prune_that_failed_leaves_whole_backups_and_is_ended_by_the_next() {
    let _alone = alone();
    let pruning = Pruning::new();
    for errno in [libc::EIO, libc::ENOSPC] {
        let (mut untouched, mut halfway) = (0, 0);
        for_every_call(|nth| {
            let fault = Fault::once(nth, errno);
            pruning.lab.put_back(&pruning.saved);
            let (result, fired) = fault.during(|| pruning.prune());
            let context = format!("{fault:?}");
            let left = pruning.assert_whole(&context);
            assert!(left.ends_with(&KEPT), "{context}: {left:?}");
            match result {
                Ok(_) => assert_eq!(left, KEPT, "{context}"),
                Err(error) => assert_sensible(&error, &fault),
            }
            untouched += usize::from(left.len() == 5);
            halfway += usize::from(left.len() > KEPT.len() && left.len() < 5);
            pruning.assert_can_be_ended(&context);
            fired
        });
        assert!(untouched > 20 && halfway > 5, "{untouched} before the first removal, {halfway} after it");
    }
}

#[test]
fn tags_are_the_old_ones_or_the_new_ones_whatever_fails() {
    let _alone = alone();
    let pruning = Pruning::new();
    for errno in [libc::EIO, libc::ENOSPC] {
        for_every_call(|nth| {
            let fault = Fault::once(nth, errno);
            pruning.lab.put_back(&pruning.saved);
            let (result, fired) = fault.during(|| pruning.tag(5, "third"));
            let tags = pruning.record(5).tags;
            let is_new = tags == ["once", "twice", "third"];
            assert!(is_new || tags == ["once", "twice"], "{fault:?}: {tags:?}");
            match result {
                Ok(_) => assert!(is_new, "{fault:?}"),
                Err(error) => assert_sensible(&error, &fault),
            }
            assert_eq!(pruning.tag(5, "third").unwrap(), ["once", "twice", "third"], "{fault:?}");
            fired
        });
    }
}
