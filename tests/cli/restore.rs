//! `blkdelta restore`

use serde_json::Value;
use support::binary::Shell;
use support::content::random_bytes;
use support::model::Volume;
use support::scratch::{assert_same_bytes, read};

use super::{assert_keys, number, rewrite_record, text};

/// Two backups; their states, and the report of the first.
fn two_backups() -> (Shell, [Vec<u8>; 2], Value) {
    let shell = Shell::with_repository();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(5, 300_001));
    let (old, first) = (volume.bytes().to_vec(), shell.backup("db"));
    volume.write(150_000, b"changed");
    let _ = shell.backup("db");
    let states = [old, volume.bytes().to_vec()];
    (shell, states, first)
}

#[test]
fn any_backup_into_a_new_file() {
    let (shell, states, first) = two_backups();
    let report = shell.json(&["restore", "latest", "new"]);
    assert_keys(&report, &["backup_id", "volume", "target", "root", "duration_s", "warnings"]);
    assert_eq!(report["root_proven"], true);
    assert_eq!(number(&report, "size_bytes"), 300_001);
    assert_same_bytes(&read(&shell.scratch.path("new")), &states[1], "latest");
    let _ = shell.json(&["restore", &text(&first, "backup_id")[..16], "old"]);
    assert_same_bytes(&read(&shell.scratch.path("old")), &states[0], "by id");
    let report = shell.json(&["restore", "latest~1", "proven", "--read-back"]);
    assert_eq!(report["read_back"], true);
    assert_same_bytes(&read(&shell.scratch.path("proven")), &states[0], "read back");
}

#[test]
fn standard_output_gets_the_volume_and_nothing_else() {
    let (shell, states, _) = two_backups();
    let ran = shell.run(&["restore", "latest", "-"]).exits(0);
    assert_same_bytes(&ran.out, &states[1], "standard output");
    let part = shell.run(&["restore", "latest", "-", "--range", "65000+70000"]).exits(0);
    assert_same_bytes(&part.out, &states[1][65_000..135_000], "a range on standard output");
    shell.run(&["restore", "latest", "-", "--json"]).fails(2, &["standard output"]);
    shell.run(&["restore", "latest", "-", "--in-place"]).fails(2, &["--in-place"]);
}

#[test]
fn a_file_that_holds_something_is_not_touched_unless_told() {
    let (shell, states, _) = two_backups();
    let target = shell.scratch.file("target", &states[0]);
    shell.run(&["restore", "latest", "target"]).fails(1, &["target", "--in-place", "--force"]);
    assert_same_bytes(&read(&target), &states[0], "a refused target");
    let report = shell.json(&["restore", "latest", "target", "--in-place"]);
    assert_eq!((number(&report, "bytes_written"), number(&report, "bytes_kept")), (4096, 300_001 - 4096));
    assert_same_bytes(&read(&target), &states[1], "in place");
    let longer = shell.scratch.file("longer", &random_bytes(6, 400_000));
    let _ = shell.json(&["restore", "latest", "longer", "--force"]);
    assert_same_bytes(&read(&longer), &states[1], "forced");
    let empty = shell.scratch.file("empty", b"");
    let _ = shell.json(&["restore", "latest", "empty"]);
    assert_same_bytes(&read(&empty), &states[1], "an empty file needs no force");
}

#[test]
fn the_volume_itself_is_written_only_by_force() {
    let (shell, states, _) = two_backups();
    let source = shell.scratch.path("db");
    shell.run(&["restore", "latest~1", "db", "--in-place"]).fails(1, &["taken from", "--force"]);
    assert_same_bytes(&read(&source), &states[1], "the source");
    let _ = shell.json(&["restore", "latest~1", "db", "--in-place", "--force"]);
    assert_same_bytes(&read(&source), &states[0], "the source, rolled back");
}

/// A part proves the blocks it reads; the volume's root needs all of them, and the report must not claim it.
#[test]
fn a_range_keeps_the_rest_and_does_not_claim_the_root() {
    let (shell, states, _) = two_backups();
    let mut expected = states[0].clone();
    let target = shell.scratch.file("target", &expected);
    let ran = shell
        .run(&["restore", "latest", "target", "--range", "128KiB+64KiB", "--in-place", "--json"])
        .exits(0);
    let report = ran.json();
    assert_eq!(
        (&report["root_proven"], &report["range"]),
        (&false.into(), &serde_json::json!([131_072, 65_536]))
    );
    assert!(report["warnings"].to_string().contains("root"), "{report}");
    assert!(ran.err.contains("root"), "the warning is on standard error too: {}", ran.err);
    expected[131_072..196_608].copy_from_slice(&states[1][131_072..196_608]);
    assert_same_bytes(&read(&target), &expected, "a range");
    let shown = shell.run(&["restore", "latest", "fresh", "--range", "0+1"]).exits(0);
    assert!(shown.text().contains("root not"), "{}", shown.text());
    shell.scratch.file("short", b"too short");
    shell.run(&["restore", "latest", "short", "--range", "0+1", "--force"]).fails(1, &["short"]);
}

#[test]
fn ranges_that_make_no_sense_are_wrong_use() {
    let (shell, ..) = two_backups();
    for range in ["0", "x+y", "+", "0+0", "300001+1", "0+300002", "18446744073709551615+1", "0+1MB", "0-1"] {
        shell.run(&["restore", "latest", "new", "--range", range]).fails(2, &[]);
    }
    shell.run(&["restore", "latest", "new", "--range", "0+1", "--read-back"]).fails(2, &["--read-back"]);
    assert!(!shell.scratch.path("new").exists(), "a refused restore leaves no file");
}

#[test]
fn at_means_the_state_that_was_taken_then_or_before() {
    let (shell, states, first) = two_backups();
    let second = shell.json(&["show", "latest"]);
    let _ = shell.json(&["restore", "latest", "one", "--at", text(&first, "taken_at")]);
    assert_same_bytes(&read(&shell.scratch.path("one")), &states[0], "at the first");
    let _ = shell.json(&["restore", "latest", "two", "--at", text(&second, "taken_at")]);
    assert_same_bytes(&read(&shell.scratch.path("two")), &states[1], "at the second");
    shell.run(&["restore", "latest", "x", "--at", "2001-01-01T00:00:00Z"]).fails(1, &["latest"]);
    let _ = shell.run(&["restore", "latest", "x", "--at", "yesterday"]).exits(2);
    assert!(!shell.scratch.path("x").exists());
}

/// The first was taken at noon; then the clock went back by two hours, and the second was taken at eleven.
#[test]
fn at_takes_the_newest_by_number_when_the_clock_was_set_back() {
    let (shell, states, _) = two_backups();
    let volume = text(&shell.json(&["show", "latest"]), "volume").to_owned();
    for (sequence, time) in [(1, "2026-05-01T12:00:00Z"), (2, "2026-05-01T11:00:00Z")] {
        rewrite_record(&shell, &volume, sequence, |record| record.taken_at = time.parse().expect("a time"));
    }
    for (name, at) in [("between", "2026-05-01T11:30:00Z"), ("after", "2026-05-01T12:30:00Z")] {
        let _ = shell.json(&["restore", "latest", name, "--at", at]);
        assert_same_bytes(&read(&shell.scratch.path(name)), &states[1], name);
    }
    shell.run(&["restore", "latest", "x", "--at", "2026-05-01T10:30:00Z"]).fails(1, &["latest"]);
    let _ = shell.json(&["restore", "latest", "newest"]);
    assert_same_bytes(&read(&shell.scratch.path("newest")), &states[1], "latest is the newest by number");
}

#[test]
fn targets_that_cannot_be_are_refused_with_their_path() {
    let (shell, ..) = two_backups();
    shell.run(&["restore", "latest", "."]).fails(2, &["directory"]);
    shell.run(&["restore", "latest", "no/such/folder"]).fails(1, &["no/such/folder"]);
    shell.run(&["restore", "no-such-id", "new"]).fails(1, &["no-such-id"]);
    shell.run(&["restore", "latest", "repo/config.json", "--force"]).fails(1, &["repo"]);
    assert!(!shell.scratch.path("new").exists());
    let _ = shell.run(&["list"]).exits(0);
}
