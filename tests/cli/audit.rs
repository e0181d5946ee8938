//! `blkdelta audit`, and what a host notices when a repository goes back to an older state.

use std::path::Path;

use serde_json::Value;
use support::binary::{Ran, Shell, finish};
use support::content::volume_bytes;
use support::scratch::{assert_same_bytes, copy_folder, files_below, read, write};

use super::{assert_keys, number, rewrite_record, text};

const SIZE: usize = 200_000;

/// Makes a backup of `db` in this state; returns its id.
fn backup(shell: &Shell, state: u64) -> String {
    shell.scratch.file("db", &volume_bytes(state, SIZE));
    text(&shell.backup("db"), "backup_id").to_owned()
}

fn with_backups(count: u64) -> (Shell, Vec<String>) {
    let shell = Shell::with_repository();
    let ids = (1..=count).map(|state| backup(&shell, state)).collect();
    (shell, ids)
}

/// Runs the command as another host would: with local state of its own.
fn on_host(shell: &Shell, host: &str, arguments: &[&str]) -> Ran {
    let mut command = shell.command(arguments);
    command.env("BLKDELTA_STATE", shell.scratch.path(host));
    finish(command)
}

/// Verb and outcome of each entry.
fn story(shell: &Shell) -> Vec<(String, String)> {
    let log = shell.json(&["audit", "--check"]);
    let entries = log["entries"].as_array().expect("a list").iter();
    entries.map(|entry| (text(entry, "verb").to_owned(), text(entry, "outcome").to_owned())).collect()
}

fn problems(document: &Value) -> String {
    document["problems"].to_string()
}

/// Remembers the repository as it is, and puts that state back.
struct Saved<'a>(&'a Shell);

impl<'a> Saved<'a> {
    fn now(shell: &'a Shell) -> Self {
        copy_folder(&shell.scratch.path("repo"), &shell.scratch.path("saved"));
        Self(shell)
    }

    fn put_back(&self) {
        std::fs::remove_dir_all(self.0.scratch.path("repo")).expect("removing");
        copy_folder(&self.0.scratch.path("saved"), &self.0.scratch.path("repo"));
    }
}

#[test]
fn every_verb_that_writes_or_gives_out_is_written_down() {
    let (shell, ids) = with_backups(3);
    let _ = shell.json(&["tag", "latest", "--add", "x"]);
    let _ = shell.json(&["restore", &ids[1], "back"]);
    let _ = shell.json(&["merge", &ids[1]]);
    let _ = shell.json(&["backup", "db", "--volume", "db", "--kind", "full"]);
    let _ = shell.json(&["prune", "--keep-last", "1"]);
    let _ = shell.run(&["init", "copies", "--like", "repo"]).exits(0);
    let _ = shell.json(&["copy", "--to", "copies"]);
    shell.run(&["backup", "db", "--volume", "db", "--parent", "ffff"]).fails(1, &["ffff"]);
    for quiet in ["list", "verify", "audit"] {
        let _ = shell.json(&[quiet]);
    }
    let story = story(&shell);
    let story: Vec<_> = story.iter().map(|(verb, outcome)| format!("{verb} {outcome}")).collect();
    let expected = "backup done, backup done, backup done, tag done, restore begun, restore done, merge begun, \
                    merge done, backup done, prune begun, prune done, copy begun, copy done, backup failed";
    assert_eq!(story.join(", "), expected);
    let log = shell.json(&["audit", "--last", "4"]);
    assert_keys(&log, &["repository_id", "head", "entries", "ok", "problems"]);
    assert_eq!(number(&log["head"], "number"), 14);
    let begun = &log["entries"][0];
    assert_keys(
        begun,
        &["previous", "time", "host", "user", "pid", "tool_version", "volume", "backups", "detail"],
    );
    let there = shell.run(&["-r", "copies", "audit", "--check", "--json"]).exits(0).json();
    assert_eq!(there["entries"].as_array().map(Vec::len), Some(2));
    assert!(text(&log["entries"][3], "detail").contains("ffff"));
    let shown = shell.run(&["audit", "--check"]).exits(0);
    assert!(shown.text().contains("backup FAILED") && shown.text().contains("is whole"), "{}", shown.text());
}

/// Any byte of any entry: each carries the digest of the one before, and records know the newest of their time.
#[test]
fn a_log_that_was_cut_or_changed_is_found() {
    let (shell, _) = with_backups(4);
    let files = files_below(&shell.scratch.path("repo/audit"));
    assert_eq!(files.len(), 4);
    // A host that has seen nothing.
    let check = |what: &str| {
        let ran = on_host(&shell, "fresh", &["audit", "--check", "--json"]);
        let _ = std::fs::remove_dir_all(shell.scratch.path("fresh"));
        let ran = ran.exits(14);
        assert!(problems(&ran.json()).contains("audit"), "{what}: {}", problems(&ran.json()));
        assert_eq!(shell.run(&["verify"]).code, 14, "{what}");
    };
    for (at, file) in files.iter().enumerate() {
        let sound = read(file);
        let mut bytes = sound.clone();
        bytes[sound.len() / 2] ^= 1;
        write(file, &bytes);
        check(&format!("entry {} changed", at + 1));
        if at + 1 < files.len() {
            std::fs::remove_file(file).expect("removing");
            check(&format!("entry {} gone", at + 1));
            write(file, &read(&files[at + 1]));
            check(&format!("entry {} is a copy of the next one", at + 1));
        }
        write(file, &sound);
    }
    let _ = on_host(&shell, "fresh", &["audit", "--check"]).exits(0);
}

#[test]
fn a_host_that_knew_better_notices_a_rollback() {
    let (shell, ids) = with_backups(2);
    let saved = Saved::now(&shell);
    let lost = backup(&shell, 3);
    saved.put_back();
    // Whoever writes would hide it.
    let _ = shell.run(&["init", "other", "--like", "repo"]).exits(0);
    shell.scratch.file("x", b"x");
    let _ = shell.run(&["-r", "other", "backup", "x", "--volume", "x"]).exits(0);
    let writers: [&[&str]; 6] = [
        &["backup", "db", "--volume", "db"],
        &["backup", "db", "--volume", "new"],
        &["prune", "--keep-last", "1"],
        &["merge", "latest"],
        &["tag", "latest", "--add", "x"],
        &["-r", "other", "copy", "--to", "repo"],
    ];
    let before = files_below(&shell.scratch.path("repo/volumes"));
    for verb in writers {
        shell.run(verb).fails(1, &["went back", "audit --accept"]);
    }
    let mut after = files_below(&shell.scratch.path("repo/volumes"));
    after.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
    assert!(after.iter().all(|path| before.contains(path)), "{after:?}");
    // Whoever reads is warned, and gets what is there.
    for verb in [&["list"][..], &["show", "latest"], &["restore", &ids[1], "back"]] {
        let ran = shell.run(verb).exits(0);
        assert!(ran.err.contains(&lost) || ran.err.contains("entry 3"), "{verb:?}: {}", ran.err);
    }
    assert_same_bytes(&read(&shell.scratch.path("back")), &volume_bytes(2, SIZE), "what is still there");
    let verified = shell.run(&["verify", "--json"]).exits(14).json();
    assert!(problems(&verified).contains(&lost), "{}", problems(&verified));
    // A host that has not seen it cannot know, and takes the number again.
    shell.scratch.file("db", &volume_bytes(4, SIZE));
    let _ = on_host(&shell, "other-host", &["backup", "db", "--volume", "db"]).exits(0);
    shell.run(&["backup", "db", "--volume", "db"]).fails(1, &["went back"]);
    // Who means it says so.
    let _ = shell.run(&["audit", "--accept"]).exits(0);
    assert_eq!(number(&shell.backup("db"), "sequence"), 4);
    let _ = shell.run(&["audit", "--check"]).exits(0);
    let _ = on_host(&shell, "other-host", &["audit", "--check"]).exits(0);
}

/// Lost local state makes a fresh host of this one.
#[test]
fn a_host_without_memory_cannot_know() {
    let (shell, _) = with_backups(2);
    let saved = Saved::now(&shell);
    let _ = backup(&shell, 3);
    saved.put_back();
    std::fs::remove_dir_all(shell.scratch.path("state")).expect("the local state");
    assert_eq!(number(&shell.backup("db"), "sequence"), 3);
    let _ = shell.run(&["verify"]).exits(0);
}

/// Only the records went, not the log: the newest is missed by who has seen it, any by who reads the log.
#[test]
fn a_backup_that_was_taken_away_by_hand_is_named() {
    let (shell, _) = with_backups(1);
    let _ = backup(&shell, 2);
    let leaf = text(&shell.json(&["backup", "db", "--volume", "db", "--kind", "differential"]), "backup_id")
        .to_owned();
    let newest =
        text(&shell.json(&["backup", "db", "--volume", "db", "--kind", "full"]), "backup_id").to_owned();
    let record = |sequence: u64| shell.scratch.path(&format!("repo/volumes/db/records/{sequence:010}.json"));
    let remove = |path: &Path| {
        let bytes = read(path);
        std::fs::remove_file(path).expect("removing");
        bytes
    };
    let kept = remove(&record(3));
    let verified = on_host(&shell, "fresh", &["verify", "--json"]).exits(14).json();
    assert!(problems(&verified).contains(&leaf), "{}", problems(&verified));
    write(&record(3), &kept);
    let _ = shell.run(&["verify"]).exits(0);
    let _ = remove(&record(4));
    shell.run(&["backup", "db", "--volume", "db"]).fails(1, &[&newest, "number 4 of 'db'"]);
}

/// Files of a backup from another repository, put among ours by hand.
#[test]
fn backups_that_no_copy_brought_are_named() {
    let (shell, _) = with_backups(1);
    let _ = shell.run(&["init", "other", "--like", "repo"]).exits(0);
    for _ in 0..2 {
        let _ = shell.run(&["-r", "other", "backup", "db", "--volume", "stray", "--kind", "full"]).exits(0);
    }
    copy_folder(&shell.scratch.path("other/volumes/stray"), &shell.scratch.path("repo/volumes/stray"));
    let verified = shell.run(&["verify", "--data", "--json"]).exits(14).json();
    assert!(problems(&verified).contains("no copy brought it here"), "{}", problems(&verified));
    // It says so of what it knows of; what is there can be restored all the same.
    let _ = shell.run(&["restore", "latest", "back", "--volume", "stray"]).exits(0);
    // The same through a copy is no problem.
    let _ = shell.run(&["init", "third", "--like", "repo"]).exits(0);
    let _ = shell.run(&["-r", "other", "copy", "--to", "third"]).exits(0);
    let _ = shell.run(&["-r", "third", "verify", "--data"]).exits(0);
}

/// The configuration of another repository, over files of this one.
#[test]
fn another_configuration_over_these_files_is_named() {
    let (shell, ids) = with_backups(2);
    let _ = shell.run(&["init", "other", "--like", "repo"]).exits(0);
    write(&shell.scratch.path("repo/config.json"), &read(&shell.scratch.path("other/config.json")));
    let verified = shell.run(&["verify", "--data", "--json"]).exits(14).json();
    assert!(problems(&verified).contains("this is entry 1 of repository"), "{}", problems(&verified));
    let _ = shell.run(&["restore", &ids[0], "back"]).exits(0);
    assert_same_bytes(&read(&shell.scratch.path("back")), &volume_bytes(1, SIZE), "restored");
}

/// Two hosts with memories of their own, and one repository: whatever each does, the other takes it for what it is.
#[test]
fn what_others_do_is_no_rollback() {
    let shell = Shell::with_repository();
    let (mut chance, mut merges, mut prunes) = (7_u64, 0, 0);
    for step in 0..40_u64 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let host = ["first", "second"][usize::from(chance >> 40 & 1 == 1)];
        let verb = chance >> 50 & 7;
        shell.scratch.file("db", &volume_bytes(step, 70_000));
        let full: &[&str] = &["backup", "db", "--volume", "db", "--kind", "full"];
        let ran = match verb {
            0 => on_host(&shell, host, &["tag", "latest", "--add", &format!("t{step}")]),
            1 | 2 => on_host(&shell, host, &["merge", "latest"]),
            3 => on_host(&shell, host, &["prune", "--keep-last", "1"]),
            4 => on_host(&shell, host, full),
            _ => on_host(&shell, host, &full[..4]),
        };
        assert!(!ran.err.contains("went back"), "step {step}, {verb} on {host}: {}", ran.err);
        let done = ran.code == 0;
        assert!(done || verb < 4 && ran.err.contains("HINT"), "step {step}: {} {}", ran.code, ran.err);
        merges += u32::from(done && (verb == 1 || verb == 2));
        prunes += u32::from(done && verb == 3);
        let listed = on_host(&shell, ["second", "first"][usize::from(step % 3 == 0)], &["list"]).exits(0);
        assert!(listed.err.is_empty(), "step {step}: {}", listed.err);
    }
    assert!(merges > 2 && prunes > 2, "{merges} merges, {prunes} prunes");
    for host in ["first", "second", "fresh"] {
        let _ = on_host(&shell, host, &["verify", "--data"]).exits(0);
    }
}

/// A medium that can only be read, such as a disk from the safe.
#[test]
fn a_restore_that_cannot_be_written_down_is_done_and_told() {
    let (shell, _) = with_backups(1);
    let audit = shell.scratch.path("repo/audit");
    std::fs::remove_dir_all(&audit).expect("the log");
    write(&audit, b"not a folder");
    let _ = std::fs::remove_dir_all(shell.scratch.path("state"));
    let ran = shell.run(&["restore", "latest", "back"]).exits(0);
    assert!(ran.err.contains("not in the audit log"), "{}", ran.err);
    assert_same_bytes(&read(&shell.scratch.path("back")), &volume_bytes(1, SIZE), "restored");
    // What cannot be written down is not taken away.
    shell.run(&["prune", "--keep-last", "1"]).fails(1, &["repo/audit"]);
}

/// Records are read once: the second listing believes the first, until an object changes.
#[test]
fn what_is_remembered_never_hides_a_change() {
    let (shell, _) = with_backups(2);
    // Younger files could be changed without a trace in their times.
    std::thread::sleep(std::time::Duration::from_millis(3100));
    let listed = shell.json(&["list"]);
    let catalogs: Vec<_> = files_below(&shell.scratch.path("state"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "catalog"))
        .collect();
    let kept = read(&catalogs[0]);
    assert!(kept.len() > 1000, "the records are not kept");
    let record = shell.scratch.path("repo/volumes/db/records/0000000002.json");
    let sound = read(&record);
    let mut bytes = sound.clone();
    bytes[200] ^= 1;
    write(&record, &bytes);
    let _ = shell.run(&["list"]).exits(3);
    write(&record, &sound);
    assert_eq!(shell.json(&["list"]), listed);
    // A cache that was cut or changed is no cache.
    for bytes in [&kept[..kept.len() / 2], b"", &[&b"x"[..], &kept].concat()] {
        write(&catalogs[0], bytes);
        assert_eq!(shell.json(&["list"]), listed);
    }
    std::fs::remove_file(&record).expect("removing");
    let listed = shell.run(&["list", "--json"]).exits(0);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(1));
}

/// Chains go by number: nothing is lost, but whoever asks for a time must know.
#[test]
fn a_clock_that_went_back_is_told() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", b"data");
    let _ = shell.backup("db");
    rewrite_record(&shell, "db", 1, |record| {
        record.taken_at = "2199-05-01T12:00:00Z".parse().expect("a time");
    });
    let second = shell.backup("db");
    let warning = second["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("clock went back") && warning.contains("2199-05-01"), "{warning}");
    assert_eq!((text(&second, "kind"), number(&second, "sequence")), ("incremental", 2));
    assert_eq!(shell.json(&["show", "latest"])["backup_id"], second["backup_id"]);
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
}
