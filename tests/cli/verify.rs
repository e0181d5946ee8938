//! `blkdelta verify`

use std::sync::Arc;

use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::repository::Repository;
use blkdelta_core::storage::local::LocalStorage;
use support::binary::Shell;
use support::content::random_bytes;
use support::counting::Counting;
use support::engine::{Engine, small, verify_all};
use support::model::{Change, Volume};
use support::scratch::{files_below, read, write};

use super::{assert_keys, number, text};

fn two_backups() -> (Shell, [String; 2]) {
    let shell = Shell::with_repository();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(7, 200_000));
    let first = text(&shell.backup("db"), "backup_id").to_owned();
    volume.write(0, b"changed");
    let second = text(&shell.backup("db"), "backup_id").to_owned();
    (shell, [first, second])
}

/// Flips a byte in the middle of the frames of a backup's delta.
fn damage_data(shell: &Shell, id: &str) {
    let deltas = files_below(&shell.scratch.path("repo/volumes/db/deltas"));
    let delta = deltas.iter().find(|path| path.to_str().unwrap().contains(id)).unwrap();
    let mut bytes = read(delta);
    bytes[1024] ^= 1;
    write(delta, &bytes);
}

#[test]
fn a_sound_repository_has_no_problems() {
    let (shell, ids) = two_backups();
    for flags in [&["verify"][..], &["verify", "--data"]] {
        let report = shell.json(flags);
        assert_eq!(report["ok"], true);
        assert_eq!(number(&report, "backups_checked"), 2);
        assert_eq!(report["data"], flags.len() > 1);
        assert_eq!(report["problems"], serde_json::json!([]));
        assert!(report["throttled_s"].is_number());
    }
    assert_eq!(number(&shell.json(&["verify", &ids[0]]), "backups_checked"), 1);
    assert_eq!(number(&shell.json(&["verify", "latest", "latest~1"]), "backups_checked"), 2);
    assert_eq!(number(&shell.json(&["verify", "--volume", "none"]), "backups_checked"), 0);
    shell.run(&["verify", "no-such-id"]).fails(1, &["no-such-id"]);
}

#[test]
fn damage_is_named_with_what_it_hurts() {
    let (shell, ids) = two_backups();
    damage_data(&shell, &ids[1]);
    let _ = shell.run(&["verify"]).exits(0); // structure alone is sound; only --data reads the frames
    let ran = shell.run(&["verify", "--data", "--json"]).exits(14);
    let report = ran.json();
    assert_eq!((&report["ok"], number(&report, "backups_checked")), (&false.into(), 2));
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "the first backup does not need what is damaged: {report}");
    assert_keys(&problems[0], &["backup_id", "offset", "length", "what"]);
    assert_eq!(text(&problems[0], "backup_id"), ids[1]);
    assert!(text(&problems[0], "what").contains(".delta"), "the file is named: {report}");
    let shown = shell.run(&["verify", "--data"]).exits(14);
    assert!(shown.text().contains("DAMAGED") && shown.text().contains(&ids[1]));
    let _ = shell.run(&["verify", "--data", &ids[0]]).exits(0);
}

/// What builds on damaged data is damaged too.
#[test]
fn damage_of_a_full_backup_hurts_its_children() {
    let (shell, ids) = two_backups();
    damage_data(&shell, &ids[0]);
    let report = shell.run(&["verify", "--data", "--json"]).exits(14).json();
    let hurt: Vec<&str> =
        report["problems"].as_array().unwrap().iter().map(|problem| text(problem, "backup_id")).collect();
    assert!(ids.iter().all(|id| hurt.contains(&id.as_str())), "{report}");
}

/// So many runs as shares make a whole prove everything, each frame once; what was proven stays known.
#[test]
fn samples_rotate_through_everything() {
    let (shell, _) = two_backups();
    let first = shell.json(&["verify", "--sample", "1%"]);
    assert_eq!(first["ok"], true);
    assert_keys(&first["sampled"], &["bytes", "frames", "segments"]);
    assert_eq!(number(&first["sampled"], "segments"), 1, "at least one of the two deltas' index segments");
    assert!(first["coverage"]["share"].as_f64().unwrap() < 1.0 && first["coverage"]["oldest"].is_null());
    let second = shell.json(&["verify", "--sample", "1%"]);
    assert_eq!(number(&second["sampled"], "segments"), 1);
    assert_eq!(second["coverage"]["share"], 1.0, "the other one: {second}");
    assert!(second["coverage"]["oldest"].is_string());
    assert_eq!(second["coverage"]["since"], first["coverage"]["since"]);
    let total = number(&second["coverage"], "bytes_total");
    let sum = number(&first["sampled"], "bytes") + number(&second["sampled"], "bytes");
    assert_eq!(sum, total, "nothing was read twice");

    let _ = shell.run(&["backup", "db", "--volume", "db", "--kind", "full"]).exits(0);
    let third = shell.json(&["verify", "--sample", "1B"]);
    assert_eq!(third["coverage"]["share"], 1.0, "what is new comes first: {third}");
    std::fs::remove_dir_all(shell.scratch.path("state")).unwrap();
    let lost = shell.json(&["verify", "--sample", "1%"]);
    assert!(lost["coverage"]["share"].as_f64().unwrap() < 1.0, "lost, it starts over: {lost}");
    assert_ne!(lost["coverage"]["since"], first["coverage"]["since"], "and says so");
    for wrong in ["0%", "101%", "x", "5 %x", "0"] {
        let _ = shell.run(&["verify", "--sample", wrong]).exits(2);
    }
    let _ = shell.run(&["verify", "--sample", "5%", "--data"]).exits(2);
}

/// The ranges of a backup's problems.
fn ranges_of(report: &serde_json::Value, id: &str) -> Vec<(u64, u64)> {
    let problems = report["problems"].as_array().unwrap().iter();
    let ours = problems.filter(|problem| problem["backup_id"] == id);
    ours.map(|problem| (number(problem, "offset"), number(problem, "length"))).collect()
}

/// One damaged frame of the full: both backups need it, but the second has written some of its grains anew.
#[test]
fn a_damaged_frame_names_the_backups_and_ranges_it_hurts() {
    let (shell, ids) = two_backups();
    damage_data(&shell, &ids[0]);
    let by_data = shell.run(&["verify", "--data", "--json"]).exits(14).json();
    let by_sample = shell.run(&["verify", "--sample", "100%", "--json"]).exits(14).json();
    let one_by_data = shell.run(&["verify", &ids[0], "--data", "--json"]).exits(14).json();
    for report in [&by_data, &by_sample, &one_by_data] {
        assert_eq!(ranges_of(report, &ids[0]), [(0, 200_000)], "{report}");
        assert_eq!(ranges_of(report, &ids[1]), [(4096, 195_904)], "the first grain is its own: {report}");
        let what = text(&report["problems"][0], "what");
        assert!(what.contains(".delta") && what.contains("frame"), "file and frame are named: {what}");
    }
    let share = by_sample["coverage"]["share"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0, "what is damaged counts as not proven: {share}");
    let shown = shell.run(&["verify", "--data"]).exits(14);
    assert!(shown.text().contains(&format!("DAMAGED {} 4096+195904:", ids[1])), "{}", shown.text());
}

/// The index is damaged instead of the data: what it told of is hurt, and nothing else.
#[test]
fn a_damaged_index_names_what_it_told_of() {
    let (shell, ids) = two_backups();
    let deltas = files_below(&shell.scratch.path("repo/volumes/db/deltas"));
    let delta = deltas.iter().find(|path| path.to_str().unwrap().contains(&ids[1])).unwrap();
    let mut bytes = read(delta);
    let segment = bytes.windows(4).position(|window| window == b"INDX").unwrap();
    bytes[segment + 60] ^= 1;
    write(delta, &bytes);
    for flags in [
        &["verify", "--json"][..],
        &["verify", "--data", "--json"],
        &["verify", "--sample", "100%", "--json"],
    ] {
        let report = shell.run(flags).exits(14).json();
        assert_eq!(ranges_of(&report, &ids[0]), [], "{report}");
        assert_eq!(ranges_of(&report, &ids[1]), [(0, 65_536)], "the one block that it changed: {report}");
    }
}

/// A record of a newer version is no damage, and neither is a backup that builds on it.
#[test]
fn what_a_newer_version_wrote_is_called_newer() {
    let (shell, ids) = two_backups();
    let third = text(&shell.backup("db"), "backup_id").to_owned();
    super::rewrite_record(&shell, "db", 2, |record| record.schema_version = 999);
    let ran = shell.run(&["verify"]).exits(3);
    assert!(ran.text().contains("NEWER") && !ran.text().contains("DAMAGED"), "{}", ran.text());
    assert!(ran.err.contains("HINT: update blkdelta"), "{}", ran.err);
    let report = shell.run(&["verify", "--json"]).exits(3).json();
    let problems = report["problems"].as_array().unwrap();
    assert!(problems.iter().all(|problem| text(problem, "kind") == "newer"), "{report}");
    let whose: Vec<_> = problems.iter().map(|problem| problem["backup_id"].as_str()).collect();
    assert_eq!(whose, [None, Some(third.as_str())], "the first backup needs nothing of it: {report}");

    // With damage beside it, it is damage.
    damage_data(&shell, &ids[0]);
    let ran = shell.run(&["verify", "--data"]).exits(14);
    assert!(ran.text().contains("NEWER") && ran.text().contains("DAMAGED"), "{}", ran.text());
}

/// Nothing is added behind what cannot be read, and nobody is told to remove it.
#[test]
fn a_volume_whose_newest_backup_is_of_a_newer_version_needs_that_version() {
    let (shell, _) = two_backups();
    super::rewrite_record(&shell, "db", 2, |record| record.schema_version = 999);
    let source = shell.scratch.path("db");
    let ran = shell.run(&["backup", source.to_str().unwrap(), "--volume", "db"]);
    assert!(ran.err.contains("HINT: update blkdelta"), "{}", ran.err);
    ran.fails(1, &["newer blkdelta"]);
}

/// However many backups need a frame, and though each delta is also proven as a file.
#[test]
fn all_data_of_a_chain_is_read_once() {
    let engine = Engine::new(small());
    let mut volume = Volume::new(engine.scratch.path("image"), random_bytes(21, 24 << 20));
    for number in 0..20 {
        for place in 0..12 {
            volume.apply(&Change::Write {
                at: place * (2 << 20) + number * 70_000,
                len: 50_000,
                seed: place,
            });
        }
        volume.apply(&if number % 5 == 4 { Change::Shrink(1 << 20) } else { Change::Grow(200_000) });
        engine.backup(volume.path(), WantedKind::Auto).unwrap();
    }
    let storage = Arc::new(Counting::new(Arc::new(LocalStorage::new(engine.scratch.path("repo")))));
    let report = verify_all(&Repository::open(Arc::clone(&storage) as _).unwrap(), true);
    assert!(report.ok && report.backups_checked == 20, "{:?}", report.problems);
    for record in engine.records() {
        let (name, size) = (&record.delta.name, record.delta.size);
        // Twice the index, which is small; and 20 states go in two groups, the second of which needs what is below it.
        let times = if record.sequence > 4 { 1 } else { 2 };
        let read = storage.read_of(name);
        assert!(read <= times * size + size / 20 + (64 << 10), "{name}: {read} bytes of {size} were read");
        assert!(read >= size, "{name}: {read} bytes of {size} were read");
    }
}
