//! The command's contract, on the built binary: names, flags, JSON keys, exit codes, hints. One file per verb.
#![allow(clippy::expect_used, clippy::unwrap_used)] // the helpers of a test may end it too

mod apply;
mod audit;
mod backup;
mod cleanup;
mod copy;
mod damage;
mod diff;
mod init;
mod key;
mod limits;
mod list;
mod merge;
mod prune;
mod restore;
mod scan;
mod show;
mod tag;
mod unlock;
mod verify;

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::format::record;
use serde_json::Value;
use support::binary::Shell;
use support::scratch::{read, write};

/// Every verb with the flags that are a contract.
const VERBS: [(&str, &[&str]); 14] = [
    ("init", &["--digest", "--block-size", "--grain-size", "--compression", "--encrypt"]),
    (
        "backup",
        &[
            "--volume",
            "--kind",
            "auto",
            "full",
            "incremental",
            "differential",
            "--parent",
            "--hints",
            "--allow-live",
            "--new-identity",
            "--queue-depth",
            "--tag",
            "--resume",
        ],
    ),
    ("scan", &["--manifest", "--write-manifest", "--delta", "--new-identity"]),
    ("list", &["--volume"]),
    ("show", &["--volume"]),
    ("diff", &["--volume"]),
    (
        "restore",
        &[
            "--volume",
            "--range",
            "--in-place",
            "--force",
            "--at",
            "--read-back",
            "--skip-damaged",
            "--resume",
        ],
    ),
    ("verify", &["--volume", "--data", "--sample"]),
    ("apply", &["--force"]),
    (
        "prune",
        &[
            "--keep-last",
            "--keep-hourly",
            "--keep-daily",
            "--keep-weekly",
            "--keep-monthly",
            "--keep-yearly",
            "--keep-within",
            "--keep-tag",
            "--min-age",
            "--time-zone",
            "--volume",
            "--dry-run",
        ],
    ),
    ("tag", &["--add", "--remove", "--volume"]),
    ("audit", &["--check", "--last", "--accept"]),
    ("copy", &["--to", "--volume", "--read-back", "--dry-run"]),
    ("key", &["list", "add", "passwd", "remove", "rotate", "export", "import"]),
];

/// A number of a report.
fn number(document: &Value, key: &str) -> u64 {
    document[key].as_u64().unwrap_or_else(|| panic!("'{key}' is no number in {document}"))
}

/// A text of a report.
fn text<'a>(document: &'a Value, key: &str) -> &'a str {
    document[key].as_str().unwrap_or_else(|| panic!("'{key}' is no text in {document}"))
}

/// Changes a stored record, into what another clock or another run would have written.
fn rewrite_record(shell: &Shell, volume: &str, sequence: u64, change: impl FnOnce(&mut BackupRecord)) {
    let path = shell.scratch.path(&format!("repo/volumes/{volume}/records/{sequence:010}.json"));
    let mut document: BackupRecord = record::decode(&read(&path)).expect("a record");
    change(&mut document);
    write(&path, &record::encode(&document).expect("a record"));
}

fn assert_keys(document: &Value, keys: &[&str]) {
    for key in keys {
        assert!(document.get(key).is_some(), "'{key}' is not in {document}");
    }
}

/// The ranges of a scan or diff as (offset, length, kind).
fn ranges(document: &Value) -> Vec<(u64, u64, &str)> {
    let list = document["ranges"].as_array().expect("a list of ranges");
    list.iter().map(|range| (number(range, "offset"), number(range, "length"), text(range, "kind"))).collect()
}

#[test]
fn every_verb_tells_its_flags() {
    let shell = Shell::new();
    let help = shell.run(&["--help"]).exits(0);
    for (verb, flags) in VERBS {
        assert!(help.text().contains(verb), "{verb} is not in the help");
        for ask in ["--help", "-h"] {
            let help = shell.run(&[verb, ask]).exits(0);
            assert!(help.err.is_empty());
            for flag in flags.iter().chain(&["--repo", "--json"]) {
                assert!(help.text().contains(flag), "{verb} {ask} does not name {flag}");
            }
        }
    }
    assert!(shell.run(&["--version"]).exits(0).text().starts_with("blkdelta "));
}

#[test]
fn what_nobody_knows_is_wrong_use() {
    let shell = Shell::with_repository();
    for (verb, _) in VERBS {
        let ran = shell.run(&[verb, "--no-such-flag"]).exits(2);
        assert!(ran.out.is_empty() && ran.err.contains("--no-such-flag"), "{}", ran.err);
    }
    for wrong in [&["frobnicate"][..], &[], &["restore", "latest"], &["apply", "delta"], &["diff", "latest"]]
    {
        assert!(shell.run(wrong).exits(2).out.is_empty());
    }
}

#[test]
fn without_a_repository_nothing_works_and_the_hint_says_what_to_do() {
    let shell = Shell::new();
    let _ = shell.scratch.file("db", b"data");
    for verb in
        [&["list"][..], &["verify"], &["show", "latest"], &["restore", "latest", "x"], &["backup", "db"]]
    {
        shell.run(verb).fails(10, &["repo/config.json", "blkdelta init"]);
    }
    let mut nameless = shell.command(&["list"]);
    nameless.env_remove("BLKDELTA_REPO");
    support::binary::finish(nameless).fails(2, &["--repo", "BLKDELTA_REPO"]);
    assert!(!shell.scratch.path("repo").exists(), "asking makes no repository");
}

#[test]
fn the_flag_wins_over_the_environment() {
    let shell = Shell::with_repository();
    let elsewhere = shell.scratch.path("elsewhere");
    let elsewhere = elsewhere.to_str().expect("a path that is text");
    let _ = shell.run(&["-r", elsewhere, "init"]).exits(0);
    shell.scratch.file("db", b"data");
    let _ = shell.run(&["--repo", elsewhere, "backup", "db"]).exits(0);
    assert_eq!(shell.json(&["list"]).as_array().map(Vec::len), Some(0));
    assert_eq!(shell.json(&["list", "-r", elsewhere]).as_array().map(Vec::len), Some(1));
}

/// Not a terminal: a log file must not fill with progress, and a script that reads one stream must not find the other's.
#[test]
fn away_from_a_terminal_success_is_quiet() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", &support::content::volume_bytes(1, 300_000));
    let verbs: [&[&str]; 8] = [
        &["backup", "db"],
        &["list"],
        &["show", "latest"],
        &["diff", "latest", "latest"],
        &["restore", "latest", "copy"],
        &["verify", "--data"],
        &["scan", "db", "--delta", "delta"],
        &["apply", "delta", "applied"],
    ];
    for verb in verbs {
        let ran = shell.run(verb).exits(0);
        assert!(ran.err.is_empty(), "{verb:?} wrote: {}", ran.err);
    }
}
