//! `blkdelta restore`

use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use support::binary::{Shell, send_signal};
use support::content::random_bytes;
use support::model::Volume;
use support::scratch::{assert_same_bytes, read, write};

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

/// Flips a byte in the frames of the full; returns the second state with the damaged part zero.
fn damage_full(shell: &Shell, state: &[u8]) -> Vec<u8> {
    let deltas = support::scratch::files_below(&shell.scratch.path("repo"));
    let delta = deltas.iter().find(|path| path.to_str().unwrap().contains("deltas/0000000001-")).unwrap();
    let mut bytes = read(delta);
    bytes[1024] ^= 1;
    write(delta, &bytes);
    // All of the full is in one frame; the grain at 150,000 lies in the second delta.
    let mut rest = vec![0; state.len()];
    rest[147_456..151_552].copy_from_slice(&state[147_456..151_552]);
    rest
}

#[test]
fn what_is_damaged_can_be_skipped_and_is_listed() {
    let (shell, states, _) = two_backups();
    let rest = damage_full(&shell, &states[1]);
    shell.run(&["restore", "latest", "strict"]).fails(1, &["frame", ".delta", "--skip-damaged"]);
    let missing = serde_json::json!([[0, 147_456], [151_552, 300_001 - 151_552]]);
    let listed = |report: &Value| -> Value {
        let ranges = report["missing"].as_array().unwrap().iter();
        ranges.map(|range| serde_json::json!([range["offset"], range["length"]])).collect()
    };
    let report = shell.run(&["restore", "latest", "new", "--skip-damaged", "--json"]).exits(3).json();
    assert_eq!(listed(&report), missing, "{report}");
    assert_eq!(number(&report, "bytes_missing"), 300_001 - 4096);
    assert_eq!(report["root_proven"], false);
    assert_same_bytes(&read(&shell.scratch.path("new")), &rest, "what can be proven");
    let shown = shell.run(&["restore", "latest", "shown", "--skip-damaged", "--read-back"]).exits(3);
    assert!(
        shown.text().contains("MISSING 0+147456: ") && shown.text().contains("root not"),
        "{}",
        shown.text()
    );
    let piped = shell.run(&["restore", "latest", "-", "--skip-damaged"]).exits(3);
    assert_same_bytes(&piped.out, &rest, "into standard output");
    assert!(piped.err.contains("missing 0+147456"), "{}", piped.err);

    // A used target: what is missing becomes zero, and in place it stays.
    let used = shell.scratch.file("used", &random_bytes(8, 300_001));
    let _ = shell.run(&["restore", "latest", "used", "--skip-damaged", "--force"]).exits(3);
    assert_same_bytes(&read(&used), &rest, "over a used target");
    let other = random_bytes(9, 300_001);
    let mut expected = other.clone();
    expected[147_456..151_552].copy_from_slice(&states[1][147_456..151_552]);
    let kept = shell.scratch.file("kept", &other);
    let _ = shell.run(&["restore", "latest", "kept", "--skip-damaged", "--in-place"]).exits(3);
    assert_same_bytes(&read(&kept), &expected, "in place");
    // What the target still holds as it must be is not missing.
    let old = shell.scratch.file("old", &states[0]);
    let report = shell.json(&["restore", "latest", "old", "--skip-damaged", "--in-place"]);
    assert_eq!((&report["root_proven"], listed(&report)), (&true.into(), serde_json::json!([])));
    assert_same_bytes(&read(&old), &states[1], "healed by the target");
    let part = shell.run(&["restore", "latest", "-", "--skip-damaged", "--range", "147456+4096"]).exits(0);
    assert_same_bytes(&part.out, &states[1][147_456..151_552], "a range that is whole");
}

/// Interrupted by SIGTERM while it writes slowly; then it goes on.
#[test]
fn an_interrupted_restore_goes_on() {
    let shell = Shell::with_repository();
    let volume = Volume::new(shell.scratch.path("db"), random_bytes(21, 24 << 20));
    let _ = shell.backup("db");
    let begin = |target: &str| {
        let mut command = shell.command(&["restore", "latest", target, "--write-limit", "1MiB/s"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let gate = support::scratch::no_descriptor_leaks();
        let child = command.spawn().unwrap();
        drop(gate);
        let written = || std::fs::metadata(shell.scratch.path(target)).map_or(0, |file| file.blocks() * 512);
        while written() < 2 << 20 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        child
    };
    let mut child = begin("target");
    send_signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let target = shell.scratch.path("target");
    assert!(read(&target) != volume.bytes(), "it was interrupted before its end");
    shell.run(&["restore", "latest", "target"]).fails(1, &["not empty"]);
    shell.run(&["restore", "latest", "other", "--resume"]).fails(1, &["no interrupted restore"]);
    shell.run(&["restore", "latest", "-", "--resume"]).fails(2, &["--resume"]);
    shell.run(&["restore", "latest", "target", "--resume", "--range", "0+1"]).fails(1, &["--range"]);
    // Somebody wrote into what had been restored: nothing of it is believed.
    let mut bytes = read(&target);
    bytes[70_000..70_010].fill(7);
    write(&target, &bytes);
    let report = shell.json(&["restore", "latest", "target", "--resume"]);
    let resumed = number(&report, "resumed_at");
    assert!(resumed > 0 && resumed < 24 << 20, "{report}");
    assert!(number(&report, "bytes_kept") > 0 && report["root_proven"] == true, "{report}");
    assert_same_bytes(&read(&target), volume.bytes(), "resumed");
    shell.run(&["restore", "latest", "target", "--resume"]).fails(1, &["no interrupted restore"]);

    // Killed at once: the note says that the target is ours, though nothing of it counts as durable.
    let mut child = begin("killed");
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    std::fs::remove_file(shell.scratch.path("killed")).unwrap();
    write(&shell.scratch.path("killed"), b"another file");
    shell.run(&["restore", "latest", "killed", "--resume"]).fails(1, &["another target"]);
    std::fs::remove_file(shell.scratch.path("killed")).unwrap();
    let mut child = begin("killed");
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    let report = shell.json(&["restore", "latest", "killed", "--resume", "--read-back"]);
    assert_eq!(report["root_proven"], true);
    assert_same_bytes(&read(&shell.scratch.path("killed")), volume.bytes(), "resumed after a kill");
}
