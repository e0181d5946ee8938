//! Damage anywhere in a stored file: verify says so, a restore gives the right bytes or none, and nothing panics.

use std::path::PathBuf;

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::repository::Repository;
use support::binary::Shell;
use support::content::random_bytes;
use support::engine::{Engine, small};
use support::model::{Change, Volume};
use support::scratch::{assert_same_bytes, files_below, read, write};

use super::number;

/// A full, an incremental that has data and zeros, and a differential; with their states.
struct Small {
    engine: Engine,
    saved: Vec<(BackupRecord, Vec<u8>)>,
    files: Vec<PathBuf>,
}

impl Small {
    fn new() -> Self {
        let engine = Engine::new(small());
        let mut volume = Volume::seeded(engine.scratch.path("image"), 11, 200_000);
        let mut saved = Vec::new();
        for (number, kind) in
            [WantedKind::Full, WantedKind::Auto, WantedKind::Differential].into_iter().enumerate()
        {
            volume.apply(&Change::Write { at: 70_000 * number as u64, len: 5000, seed: 1 });
            volume.apply(&Change::WriteZeros { at: 131_072, len: 4096 * number as u64 });
            let record = engine.backup(volume.path(), kind).unwrap().record;
            saved.push((record, volume.bytes().to_vec()));
        }
        let mut files = files_below(&engine.scratch.path("repo"));
        files.retain(|path| is_of_a_backup(path));
        assert_eq!(
            files.len(),
            10,
            "a configuration; and of each backup record, delta and manifest: {files:?}"
        );
        Self { engine, saved, files }
    }

    /// With one damaged file: all that can be asked of the library.
    fn assert_told(&self, what: &str) {
        // A damaged configuration may open no repository at all; that is told too.
        let Ok(repository) = Repository::open_local(&self.engine.scratch.path("repo")) else { return };
        let engine = Engine { scratch: support::scratch::Scratch::new(), repository };
        let report = engine.verify(true);
        assert!(!report.ok, "verify --data did not see it: {what}");
        for (record, bytes) in &self.saved {
            if let Ok(found) = engine.stream(record, None) {
                assert_same_bytes(&found, bytes, &format!("{what}: backup {}", record.sequence));
            }
        }
    }
}

/// Damage in the audit log hurts no backup; tests/cli/audit.rs looks at it.
fn is_of_a_backup(path: &std::path::Path) -> bool {
    !path.ends_with("lock") && path.parent().is_none_or(|folder| !folder.ends_with("audit"))
}

/// Places in a file of this length: the start and the end densely, the rest in steps.
fn places(len: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).step_by((len / 24).max(1)).collect();
    places.extend([1, 7, 8, 9, 12, 16, 40].iter().filter(|at| **at < len));
    places.extend([1, 2, 9, 33, 60, 129, 255].iter().filter(|back| **back <= len).map(|back| len - back));
    places
}

#[test]
fn every_flipped_byte_is_found_and_never_restored() {
    let small = Small::new();
    for path in &small.files {
        let sound = read(path);
        for at in places(sound.len()) {
            let mut damaged = sound.clone();
            damaged[at] ^= 1 << (at % 8);
            write(path, &damaged);
            small.assert_told(&format!("flipped byte {at} of {}", path.display()));
        }
        write(path, &sound);
    }
    assert!(small.engine.verify(true).ok, "all damage is taken back");
}

#[test]
fn every_cut_lengthening_and_loss_is_found_and_never_restored() {
    let small = Small::new();
    for path in &small.files {
        let sound = read(path);
        for len in [0, 1, 16, sound.len() / 3, sound.len() / 2, sound.len() - 256, sound.len() - 1] {
            write(path, &sound[..len.min(sound.len())]);
            small.assert_told(&format!("cut {} at {len}", path.display()));
        }
        write(path, &[&sound[..], b"x"].concat());
        small.assert_told(&format!("lengthened {}", path.display()));
        // A backup whose record is gone is none; its files are leftovers, and what builds on it is damaged.
        let is_newest_record = path.ends_with("records/0000000003.json");
        std::fs::remove_file(path).unwrap();
        if !is_newest_record && !path.ends_with("records/0000000002.json") {
            small.assert_told(&format!("lost {}", path.display()));
        }
        write(path, &sound);
    }
}

/// Files of one kind that were swapped are each sound in themselves.
#[test]
fn files_that_changed_places_are_found() {
    let small = Small::new();
    for folder in ["records", "deltas", "manifests"] {
        let files = files_below(&small.engine.scratch.path(&format!("repo/volumes/db/{folder}")));
        let (first, second) = (read(&files[1]), read(&files[2]));
        write(&files[1], &second);
        write(&files[2], &first);
        small.assert_told(&format!("swapped {folder}"));
        write(&files[1], &first);
        write(&files[2], &second);
    }
}

/// The same through the command: exit codes, and no panic (101) of any verb.
#[test]
fn the_command_tells_damage_by_its_exit_code() {
    let shell = Shell::with_repository();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(12, 150_000));
    let _ = shell.backup("db");
    volume.write(0, b"changed");
    let _ = shell.backup("db");
    let mut files = files_below(&shell.scratch.path("repo"));
    files.retain(|path| is_of_a_backup(path));
    for path in &files {
        let sound = read(path);
        for at in [3, sound.len() / 2, sound.len() - 3] {
            let mut flipped = sound.clone();
            flipped[at] ^= 2;
            for damaged in [&flipped[..], &sound[..at]] {
                write(path, damaged);
                let what = format!("{} damaged at {at}", path.display());
                assert_codes(&shell, path.ends_with("config.json"), &what);
                assert_restores(&shell, volume.bytes(), &what);
            }
        }
        write(path, &sound);
    }
}

fn assert_codes(shell: &Shell, configuration: bool, what: &str) {
    let verified = shell.run(&["verify", "--data", "--json"]);
    let expected: &[i32] = if configuration { &[1, 10] } else { &[14] };
    assert!(
        expected.contains(&verified.code),
        "{what}: verify ended with {}: {}",
        verified.code,
        verified.err
    );
    for verb in [&["list"][..], &["show", "latest"], &["diff", "latest~1", "latest"], &["verify"]] {
        let ran = shell.run(verb);
        assert!(
            [0, 1, 3, 10, 14].contains(&ran.code),
            "{what}: {verb:?} ended with {}: {}",
            ran.code,
            ran.err
        );
    }
}

/// The newest state, or an error; never the older state under the name of `latest`.
fn assert_restores(shell: &Shell, newest: &[u8], what: &str) {
    let ran = shell.run(&["restore", "latest", "-"]);
    match ran.code {
        1 | 10 => {}
        0 => assert_same_bytes(&ran.out, newest, what),
        code => panic!("{what}: restore ended with {code}: {}", ran.err),
    }
}

/// Flips a byte in the frames of the backup with this number.
fn damage(shell: &Shell, number: &str) {
    let deltas = files_below(&shell.scratch.path("repo/volumes/db/deltas"));
    let delta = deltas.iter().find(|path| path.to_str().unwrap().contains(&format!("{number}-"))).unwrap();
    let mut bytes = read(delta);
    bytes[1024] ^= 1;
    write(delta, &bytes);
}

/// What verify found damaged, the next backup stores again, as far as the source still has it.
#[test]
fn a_later_backup_heals_what_the_source_still_has() {
    let shell = Shell::with_repository();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(1, 1_000_000));
    let first = shell.backup("db");
    volume.write(100_000, b"changed");
    let _ = shell.backup("db");
    damage(&shell, "0000000001");
    // The first frame is the first MiB: all of it.
    let _ = shell.run(&["verify", "--sample", "100%"]).exits(14);
    volume.write(900_000, b"changed too");
    // Not even a hint that nothing changed keeps it from reading what is damaged.
    shell.scratch.file("map", b"851968 65536 data\n");
    let healing = shell.json(&["backup", "db", "--volume", "db", "--hints", "map"]);
    assert_eq!(number(&healing, "blocks_healed"), 15, "all but the one that changed: {healing}");
    assert_eq!(number(&healing, "blocks_changed"), 1, "{healing}");
    let _ = shell.run(&["verify", "latest", "--data"]).exits(0); // it needs none of what is damaged
    let _ = shell.json(&["restore", "latest", "back", "--read-back"]);
    assert!(read(&shell.scratch.path("back")) == volume.bytes());
    let report = shell.run(&["verify", "--data", "--json"]).exits(14).json();
    let hurt: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|p| p["backup_id"].clone()).collect();
    assert!(hurt.contains(&first["backup_id"]) && !hurt.contains(&healing["backup_id"]), "{report}");

    // Healed once is enough, and a merge keeps it.
    volume.write(5000, b"once more");
    let next = shell.json(&["backup", "db", "--volume", "db"]);
    assert_eq!((number(&next, "blocks_healed"), number(&next, "blocks_changed")), (0, 1), "{next}");
    let _ = shell.run(&["merge", "latest~2..latest"]).exits(0);
    let _ = shell.json(&["restore", "latest", "merged", "--read-back"]);
    assert!(read(&shell.scratch.path("merged")) == volume.bytes());
    let _ = shell.run(&["merge", "latest"]).exits(0);
    let _ = shell.run(&["verify", "--data"]).exits(0);
}
