//! `blkdelta list`

use support::binary::Shell;
use support::scratch::{read, write};

use super::{assert_keys, number, text};

#[test]
fn an_array_of_records_oldest_first() {
    let shell = Shell::with_repository();
    assert_eq!(shell.json(&["list"]), serde_json::json!([]));
    shell.scratch.file("a", b"first");
    shell.scratch.file("b", b"second");
    let made = [shell.backup("a"), shell.backup("b"), shell.backup("b")];
    let list = shell.json(&["list"]);
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|record| text(record, "backup_id")).collect();
    assert_eq!(ids, made.iter().map(|report| text(report, "backup_id")).collect::<Vec<_>>());
    assert_keys(
        &list[0],
        &["volume", "kind", "sequence", "parent", "taken_at", "finished_at", "root", "delta"],
    );
    assert_eq!(shell.json(&["list", "--volume", "b"]).as_array().map(Vec::len), Some(2));
    assert_eq!(shell.json(&["snapshots", "--volume", "none"]), serde_json::json!([]));
    let shown = shell.run(&["list"]).exits(0);
    assert_eq!(shown.text().lines().count(), 4, "a heading and a line for each");
    assert!(ids.iter().all(|id| shown.text().contains(&id[..12])));
}

/// 1 is a full, 2 builds on it, 3 on 2; 4 is a differential, so it builds on 1 again; 5 is a full.
#[test]
fn people_see_chains_as_trees() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", b"data");
    let kinds = ["auto", "auto", "auto", "differential", "full"];
    let made = kinds.map(|kind| shell.json(&["backup", "db", "--volume", "db", "--kind", kind]));
    let shown = shell.run(&["list"]).exits(0);
    let lines: Vec<&str> = shown.text().lines().skip(1).collect();
    let expected: Vec<String> = made
        .iter()
        .zip(["", "  ", "    ", "  ", ""])
        .map(|(report, indent)| format!("{indent}{}", &text(report, "backup_id")[..12]))
        .collect();
    let columns: Vec<&str> = lines.iter().map(|line| line[..16].trim_end()).collect();
    assert_eq!(columns, expected);
    let sequences = shell.json(&["list"]);
    let sequences: Vec<u64> =
        sequences.as_array().unwrap().iter().map(|record| number(record, "sequence")).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5], "JSON is a plain list");
}

/// The others are still told, and the exit code says that this is not all.
#[test]
fn a_record_that_cannot_be_read_is_doubt_not_silence() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", b"data");
    let kept = shell.backup("db");
    let _ = shell.backup("db");
    let record = shell.scratch.path("repo/volumes/db/records/0000000002.json");
    let mut bytes = read(&record);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&record, &bytes);
    let ran = shell.run(&["list", "--json"]).exits(3);
    assert!(ran.err.contains("0000000002.json"), "{}", ran.err);
    let list = ran.json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(list[0]["backup_id"], kept["backup_id"]);
    shell.run(&["backup", "db", "--volume", "db"]).fails(1, &["0000000002.json"]);
}
