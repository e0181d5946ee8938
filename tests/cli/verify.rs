//! `blkdelta verify`

use support::binary::Shell;
use support::content::random_bytes;
use support::model::Volume;
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
