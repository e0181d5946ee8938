//! `blkdelta prune`

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use support::binary::Shell;
use support::content::volume_bytes;
use support::scratch::{files_below, no_descriptor_leaks, read, write};

use super::{assert_keys, number, rewrite_record, text};

/// Makes a backup of `db` with a change in it.
fn backup(shell: &Shell, state: u64, options: &[&str]) -> Value {
    shell.scratch.file("db", &volume_bytes(state, 300_000));
    shell.json(&[&["backup", "db", "--volume", "db"], options].concat())
}

/// A repository with so many backups of `db`: a full, then incrementals.
fn with_backups(count: u64) -> Shell {
    let shell = Shell::with_repository();
    for state in 1..=count {
        let _ = backup(&shell, state, &[]);
    }
    shell
}

fn record_path(shell: &Shell, sequence: u64) -> PathBuf {
    shell.scratch.path(&format!("repo/volumes/db/records/{sequence:010}.json"))
}

fn taken(shell: &Shell, sequence: u64, time: &str) {
    rewrite_record(shell, "db", sequence, |record| {
        record.taken_at = time.parse().expect("a time");
        record.finished_at = record.taken_at;
    });
}

/// Sequences of the backups that are listed.
fn listed(shell: &Shell) -> Vec<u64> {
    let list = shell.json(&["list", "--volume", "db"]);
    list.as_array().expect("a list").iter().map(|record| number(record, "sequence")).collect()
}

/// Sequences that a report keeps.
fn kept(report: &Value) -> Vec<u64> {
    let backups = report["backups"].as_array().expect("a list").iter();
    backups.filter(|backup| backup["keep"] == true).map(|backup| number(backup, "sequence")).collect()
}

/// All reasons given for a backup, as one text.
fn reasons(report: &Value, sequence: u64) -> String {
    let backups = report["backups"].as_array().expect("a list");
    let found = backups.iter().find(|backup| number(backup, "sequence") == sequence).expect("the backup");
    let reasons = found["reasons"].as_array().expect("reasons").iter();
    reasons.map(|reason| reason.as_str().expect("a text")).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_dry_run_says_what_a_prune_does_and_touches_nothing() {
    let shell = with_backups(3);
    let _ = backup(&shell, 4, &["--kind", "full"]);
    let _ = backup(&shell, 5, &[]);
    let before = files_below(&shell.scratch.path("repo"));
    let plan = shell.json(&["prune", "--keep-last", "1", "--dry-run"]);
    assert_keys(&plan, &["dry_run", "backups", "kept", "removed", "bytes_removed", "problems"]);
    assert_keys(
        &plan["backups"][0],
        &["backup_id", "volume", "sequence", "kind", "taken_at", "bytes_stored", "keep", "reasons"],
    );
    assert_eq!((kept(&plan), number(&plan, "removed")), (vec![4, 5], 3));
    assert!(reasons(&plan, 4).starts_with("needed by "), "{}", reasons(&plan, 4));
    assert!(reasons(&plan, 5).contains("last 1") && reasons(&plan, 5).contains("newest"));
    assert_eq!(files_below(&shell.scratch.path("repo")), before);

    let done = shell.json(&["prune", "--keep-last", "1"]);
    assert_eq!(done["dry_run"], false);
    assert_eq!((&done["backups"], &done["bytes_removed"]), (&plan["backups"], &plan["bytes_removed"]));
    assert_eq!(listed(&shell), [4, 5]);
    let left = files_below(&shell.scratch.path("repo"));
    let data = left.iter().filter(|path| path.extension().is_some_and(|kind| kind == "delta")).count();
    assert_eq!(data, 2, "{left:?}");
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
    // The next one goes on from there, under a number of its own.
    assert_eq!(number(&backup(&shell, 6, &[]), "sequence"), 6);
    let _ = shell.json(&["restore", "latest", "back"]);
    assert_eq!(read(&shell.scratch.path("back")), volume_bytes(6, 300_000));
}

#[test]
fn people_are_told_why() {
    let shell = with_backups(2);
    let _ = backup(&shell, 3, &["--kind", "full"]);
    let shown = shell.run(&["prune", "--keep-last", "1", "--dry-run"]).exits(0);
    assert_eq!(shown.text().matches("would go: no rule keeps it").count(), 2);
    assert!(shown.text().contains("kept: last 1"));
    assert!(shown.text().contains("1 backups kept, 2 would be removed"), "{}", shown.text());
    let shown = shell.run(&["prune", "--keep-last", "1"]).exits(0);
    assert!(shown.text().contains("removed: no rule keeps it"));
}

#[test]
fn a_policy_that_would_take_everything_is_refused() {
    let shell = with_backups(2);
    let _ = backup(&shell, 3, &["--kind", "full"]);
    shell.run(&["prune"]).fails(2, &["--keep-last"]);
    shell.run(&["prune", "--min-age", "1d"]).fails(2, &["--keep-last"]);
    shell.run(&["prune", "--keep-tag", "mistyped"]).fails(1, &["'db'"]);
    shell.run(&["prune", "--keep-last", "1", "--volume", "elsewhere"]).fails(1, &["'elsewhere'"]);
    for wrong in [["--keep-last", "0"], ["--keep-within", "soon"], ["--time-zone", "Mars/Base"]] {
        assert!(shell.run(&["prune", wrong[0], wrong[1]]).exits(2).out.is_empty());
    }
    assert_eq!(listed(&shell), [1, 2, 3]);
}

#[test]
fn hours_and_days_are_those_of_the_zone() {
    let shell = Shell::with_repository();
    // In New York the first two are of the 1st, the third of the 2nd; in UTC all are of the 2nd.
    for (sequence, time) in
        [(1, "2026-03-02T00:30:00Z"), (2, "2026-03-02T04:30:00Z"), (3, "2026-03-02T05:30:00Z")]
    {
        let _ = backup(&shell, sequence, &["--kind", "full"]);
        taken(&shell, sequence, time);
    }
    let plan = |zone: &str| shell.json(&["prune", "--keep-daily", "9", "--dry-run", "--time-zone", zone]);
    assert_eq!(kept(&plan("EST5EDT,M3.2.0,M11.1.0")), [2, 3]);
    assert!(reasons(&plan("EST5EDT,M3.2.0,M11.1.0"), 2).contains("daily 2026-03-01"));
    assert_eq!(kept(&plan("UTC")), [3]);
}

/// The clock went back by a year between 2 and 3: 3 is still the newest, and 2 is no younger than it.
#[test]
fn a_clock_that_was_set_back_does_not_reorder_backups() {
    let shell = Shell::with_repository();
    for (sequence, time) in
        [(1, "2026-05-01T00:00:00Z"), (2, "2026-05-02T00:00:00Z"), (3, "2025-05-03T00:00:00Z")]
    {
        let _ = backup(&shell, sequence, &["--kind", "full"]);
        taken(&shell, sequence, time);
    }
    let plan = shell.json(&["prune", "--keep-last", "1", "--dry-run"]);
    assert_eq!(kept(&plan), [3]);
    assert_eq!(kept(&shell.json(&["prune", "--keep-daily", "2", "--dry-run"])), [2, 3]);
    // An incremental builds on 3, whatever the time.
    assert_eq!(number(&backup(&shell, 4, &[])["parent"], "sequence"), 3);
    let shown = shell.run(&["list"]).exits(0);
    let last = shown.text().lines().last().expect("a line");
    assert!(last.starts_with("  "), "the child of 3 stands under it: {last}");
}

#[test]
fn damaged_and_incomplete_backups_take_no_place() {
    let shell = Shell::with_repository();
    let made: Vec<Value> = (1..=4).map(|state| backup(&shell, state, &["--kind", "full"])).collect();
    rewrite_record(&shell, "db", 3, |record| record.complete = false);
    let delta = |number: usize| shell.scratch.path(&format!("repo/{}", text(&made[number]["delta"], "name")));
    std::fs::remove_file(delta(3)).expect("removing a delta");
    let plan = shell.json(&["prune", "--keep-last", "1"]);
    // 4 is damaged and the newest, 3 is incomplete: the last good one is 2.
    assert_eq!(kept(&plan), [2, 4]);
    assert!(reasons(&plan, 2).contains("last 1"), "{}", reasons(&plan, 2));
    assert_eq!(reasons(&plan, 3), "incomplete");
    assert_eq!(reasons(&plan, 4), "newest");
    // With nothing good left, nothing goes.
    let _ = backup(&shell, 5, &["--kind", "full"]);
    std::fs::remove_file(delta(1)).expect("removing a delta");
    let newest = shell.json(&["show", "latest"]);
    std::fs::remove_file(shell.scratch.path(&format!("repo/{}", text(&newest["delta"], "name"))))
        .expect("rm");
    shell.run(&["prune", "--keep-last", "1"]).fails(1, &["'db'"]);
    assert_eq!(listed(&shell), [2, 4, 5]);
}

#[test]
fn a_volume_whose_records_cannot_all_be_read_is_left_alone() {
    let shell = Shell::with_repository();
    for state in 1..=3 {
        let _ = backup(&shell, state, &["--kind", "full"]);
    }
    shell.scratch.file("other", b"other");
    for _ in 0..2 {
        let _ = shell.json(&["backup", "other", "--volume", "other", "--kind", "full"]);
    }
    write(&record_path(&shell, 2), b"damaged");
    let ran = shell.run(&["prune", "--keep-last", "1", "--json"]).exits(3);
    assert!(ran.err.contains("0000000002.json"), "{}", ran.err);
    let report = ran.json();
    assert_eq!(report["problems"][0]["volume"], "db");
    assert_eq!(number(&report, "removed"), 1, "one of the other volume: {report}");
    assert!(record_path(&shell, 1).exists() && record_path(&shell, 3).exists());
}

#[test]
fn groups_stay_and_go_whole() {
    let shell = Shell::with_repository();
    let group = "00112233445566778899aabbccddeeff";
    for (number, volume) in ["a", "b", "a", "b", "b"].iter().enumerate() {
        shell.scratch.file(volume, &volume_bytes(number as u64, 200_000));
        let _ = shell.json(&["backup", volume, "--volume", volume, "--kind", "full"]);
    }
    for volume in ["a", "b"] {
        rewrite_record(&shell, volume, 1, |record| record.group = Some(group.parse().expect("an id")));
    }
    // Of `a` both are kept by the rule, so the first of `b` stays too.
    let plan = shell.json(&["prune", "--keep-last", "2", "--dry-run"]);
    let of = |plan: &Value, at: usize| plan["backups"][at]["keep"] == true;
    assert!((0..5).all(|at| of(&plan, at)), "{plan}");
    // Alone, `b` may not lose what belongs to a backup of `a`.
    let plan = shell.json(&["prune", "--keep-last", "1", "--dry-run", "--volume", "b"]);
    assert!(
        plan["backups"][0]["reasons"][0].as_str().expect("a reason").starts_with("of one group"),
        "{plan}"
    );
    let done = shell.json(&["prune", "--keep-last", "1"]);
    assert_eq!((number(&done, "kept"), number(&done, "removed")), (2, 3));
}

#[test]
fn young_backups_stay() {
    let shell = with_backups(1);
    for state in 2..=3 {
        let _ = backup(&shell, state, &["--kind", "full"]);
    }
    let plan = shell.json(&["prune", "--keep-last", "1", "--min-age", "1h", "--dry-run"]);
    assert_eq!(kept(&plan), [1, 2, 3]);
    taken(&shell, 1, "2020-01-01T00:00:00Z");
    let plan = shell.json(&["prune", "--keep-last", "1", "--min-age", "1h", "--dry-run"]);
    assert_eq!(kept(&plan), [2, 3]);
    assert!(reasons(&plan, 2).contains("younger than 1h"), "{}", reasons(&plan, 2));
    assert_eq!(kept(&shell.json(&["prune", "--keep-within", "30d", "--dry-run"])), [2, 3]);
}

/// The lock of a running backup: nothing of its volume goes, others are pruned.
#[test]
fn a_volume_at_work_is_left_alone() {
    let shell = with_backups(1);
    for volume in ["db", "other"] {
        shell.scratch.file(volume, b"other");
        for _ in 0..2 {
            let _ = shell.json(&["backup", volume, "--volume", volume, "--kind", "full"]);
        }
    }
    let lock = std::fs::File::open(shell.scratch.path("repo/volumes/db/lock")).expect("the lock");
    lock.lock().expect("locking");
    shell.run(&["prune", "--keep-last", "1", "--volume", "db"]).fails(11, &["volumes/db/lock"]);
    let report = shell.run(&["prune", "--keep-last", "1", "--json"]).exits(3).json();
    assert_eq!(number(&report, "removed"), 1, "{report}");
    assert_eq!(listed(&shell), [1, 2, 3]);
    drop(lock);
    assert_eq!(number(&shell.json(&["prune", "--keep-last", "1"]), "removed"), 2);
}

/// What a restore has open stays readable: half of the volume is read only after its backup has been removed.
#[test]
fn a_running_restore_is_not_hurt() {
    let shell = Shell::with_repository();
    let volume = volume_bytes(1, 3 << 20);
    shell.scratch.file("db", &volume);
    let first = shell.json(&["backup", "db", "--volume", "db"]);
    let mut command = shell.command(&["restore", text(&first, "backup_id"), "-"]);
    let gate = no_descriptor_leaks();
    let mut restore =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starting blkdelta");
    drop(gate);
    let mut out = restore.stdout.take().expect("a pipe");
    let mut found = vec![0];
    out.read_exact(&mut found).expect("the first byte");

    let _ = backup(&shell, 2, &["--kind", "full"]);
    assert_eq!(number(&shell.json(&["prune", "--keep-last", "1"]), "removed"), 1);
    out.read_to_end(&mut found).expect("the rest");
    assert!(restore.wait().expect("waiting for blkdelta").success());
    assert_eq!(found, volume);
    shell.run(&["restore", text(&first, "backup_id"), "-"]).fails(1, &["blkdelta list"]);
}
