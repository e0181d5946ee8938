//! `blkdelta copy` and `init --like`.

use serde_json::Value;
use support::binary::{Ran, Shell, finish};
use support::content::volume_bytes;
use support::scratch::{assert_same_bytes, files_below, read, write};

use super::{assert_keys, number, text};

const SIZE: usize = 300_000;

/// Makes a backup of `db` in this state; returns its id.
fn backup(shell: &Shell, state: u64, options: &[&str]) -> String {
    shell.scratch.file("db", &volume_bytes(state, SIZE));
    text(&shell.json(&[&["backup", "db", "--volume", "db"], options].concat()), "backup_id").to_owned()
}

/// A repository with a full and so many incrementals behind it, and an empty one that copies fit in; the ids.
fn with_chain(count: u64) -> (Shell, Vec<String>) {
    let shell = Shell::with_repository();
    let ids = (1..=count).map(|state| backup(&shell, state, &[])).collect();
    let _ = shell.run(&["init", "copies", "--like", "repo"]).exits(0);
    (shell, ids)
}

fn copy(shell: &Shell, arguments: &[&str]) -> Value {
    shell.json(&[&["copy", "--to", "copies"], arguments].concat())
}

/// Ids that a report says to have copied.
fn copied(report: &Value) -> Vec<&str> {
    report["backups"].as_array().expect("a list").iter().map(|backup| text(backup, "backup_id")).collect()
}

fn assert_copy_is(shell: &Shell, id: &str, state: u64) {
    let target = shell.scratch.path("restored");
    let _ = std::fs::remove_file(&target);
    let _ = shell.run(&["-r", "copies", "restore", id, "restored"]).exits(0);
    assert_same_bytes(&read(&target), &volume_bytes(state, SIZE), id);
}

fn assert_copies_are_sound(shell: &Shell) {
    assert_eq!(shell.json(&["-r", "copies", "verify", "--data"])["ok"], true);
}

#[test]
fn each_day_only_what_is_new_is_copied_and_it_is_the_same_backup() {
    let (shell, mut ids) = with_chain(3);
    let report = copy(&shell, &[]);
    assert_keys(
        &report,
        &[
            "dry_run",
            "from_repository",
            "to_repository",
            "backups",
            "there_already",
            "bytes_copied",
            "problems",
        ],
    );
    assert_eq!(copied(&report), ids, "parents before children");
    ids.push(backup(&shell, 4, &[]));
    let report = copy(&shell, &["--read-back"]);
    assert_eq!((copied(&report), number(&report, "there_already")), (vec![ids[3].as_str()], 3));
    assert_eq!(number(&report, "bytes_copied"), number(&report["backups"][0], "bytes"));
    assert_eq!(number(&copy(&shell, &[]), "bytes_copied"), 0);
    assert_eq!(shell.json(&["-r", "copies", "list"]), shell.json(&["list"]));
    assert_copies_are_sound(&shell);
    for (id, state) in ids.iter().zip(1..) {
        assert_copy_is(&shell, id, state);
    }
}

#[test]
fn a_backup_brings_what_it_builds_on_and_older_ones_may_follow() {
    let (shell, ids) = with_chain(2);
    let second = [backup(&shell, 3, &["--kind", "full"]), backup(&shell, 4, &[])];
    let plan = copy(&shell, &["latest", "--dry-run"]);
    assert_eq!(copied(&plan), second);
    assert_eq!((&plan["backups"][0]["needed"], &plan["backups"][1]["needed"]), (&true.into(), &false.into()));
    assert_eq!(shell.json(&["-r", "copies", "list"]), Value::Array(Vec::new()), "only a plan");
    assert_eq!(copied(&copy(&shell, &["latest"])), second);
    // The older chain goes beside it, and the next run there takes nothing away.
    assert_eq!(copied(&copy(&shell, &[&ids[1]])), ids);
    let _ = shell.run(&["-r", "copies", "cleanup"]).exits(0);
    assert_copies_are_sound(&shell);
    assert_copy_is(&shell, &ids[1], 2);
    assert_copy_is(&shell, "latest", 4);
}

/// A copy that was killed leaves files without a record: whole ones are taken as they are, others go.
#[test]
fn an_interrupted_copy_goes_on_with_what_is_missing() {
    let (shell, ids) = with_chain(3);
    let _ = copy(&shell, &[]);
    let folder = shell.scratch.path("copies/volumes/db");
    for sequence in [2, 3] {
        std::fs::remove_file(folder.join(format!("records/{sequence:010}.json"))).expect("the record");
    }
    // The killed one had shown nobody these records.
    std::fs::remove_dir_all(shell.scratch.path("state")).expect("the local state");
    let cut = files_below(&folder.join("deltas")).pop().expect("a delta");
    let whole = read(&cut);
    write(&cut, &whole[..whole.len() / 2]);
    write(&folder.join("deltas/0000000003-x.delta.00000001.unfinished"), b"half");
    let report = copy(&shell, &[]);
    assert_eq!(copied(&report), ids[1..]);
    assert_eq!(number(&report, "bytes_copied"), whole.len() as u64, "only the file that was cut");
    assert!(number(&report, "bytes_found") > 0);
    assert_eq!(files_below(&folder.join("deltas")).len(), 3, "the unfinished one is gone");
    assert_copies_are_sound(&shell);
}

#[test]
fn a_place_that_is_taken_is_never_overwritten() {
    let (shell, _) = with_chain(2);
    shell.scratch.file("db", b"another history");
    let _ = shell.json(&["-r", "copies", "backup", "db", "--volume", "db"]);
    let before = files_below(&shell.scratch.path("copies"));
    shell.run(&["copy", "--to", "copies"]).fails(1, &["number 1 of 'db'", "taken"]);
    assert_eq!(files_below(&shell.scratch.path("copies")), before);
    assert_eq!(number(&shell.json(&["-r", "copies", "list"])[0], "size_bytes"), 15);
}

#[test]
fn repositories_that_do_not_fit_are_told_how_to_make_one_that_does() {
    let shell = Shell::with_repository();
    let _ = backup(&shell, 1, &[]);
    let _ = shell.run(&["init", "copies"]).exits(0);
    shell.run(&["copy", "--to", "copies"]).fails(2, &["differ", "--like"]);
    shell.run(&["copy", "--to", "repo"]).fails(2, &["same repository"]);
    shell.run(&["copy", "--to", "nothing"]).fails(10, &["nothing"]);
    shell.run(&["copy", "ffff", "--to", "copies"]).fails(1, &["ffff"]);
    assert!(shell.run(&["init", "other", "--like", "repo", "--digest", "sha256"]).exits(2).out.is_empty());
    let fits = shell.json(&["init", "fits", "--like", "repo"]);
    assert_eq!((number(&fits, "block_size"), number(&fits, "grain_size")), (64 << 10, 4 << 10));
}

#[test]
fn merges_tags_and_pins_are_copied_and_a_merge_there_is_known() {
    let (shell, ids) = with_chain(4);
    let _ = shell.json(&["tag", &ids[0], "--add", "pin"]);
    let _ = copy(&shell, &[&ids[1]]);
    let _ = shell.json(&["tag", &ids[2], "--add", "month"]);
    let _ = shell.json(&["merge", &ids[2]]);
    // Here 3 is a full now; there it is missing, and comes as that. 2 stays there as it was.
    assert_eq!(copy(&shell, &[])["backups"].as_array().map(Vec::len), Some(2));
    let listed = shell.json(&["-r", "copies", "list"]);
    let tags: Vec<&Value> = listed.as_array().expect("a list").iter().map(|record| &record["tags"]).collect();
    assert_eq!(
        tags,
        [
            &serde_json::json!(["pin"]),
            &serde_json::json!([]),
            &serde_json::json!(["month"]),
            &serde_json::json!([])
        ]
    );
    for (id, state) in ids.iter().zip(1..) {
        assert_copy_is(&shell, id, state);
    }
    let _ = shell.json(&["-r", "copies", "merge", "latest"]);
    assert_eq!(
        copied(&copy(&shell, &["latest"])),
        Vec::<&str>::new(),
        "merged there, it is there all the same"
    );
    assert_copies_are_sound(&shell);
}

/// Damage does not travel, and takes only what builds on it.
#[test]
fn what_is_damaged_is_told_and_the_rest_is_copied() {
    let (shell, ids) = with_chain(3);
    let sound = backup(&shell, 4, &["--kind", "full"]);
    let delta = shell.scratch.path(&format!("repo/volumes/db/deltas/0000000002-{}.delta", ids[1]));
    let mut bytes = read(&delta);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&delta, &bytes);
    let ran = shell.run(&["copy", "--to", "copies", "--json"]).exits(3);
    let report = ran.json();
    assert_eq!(copied(&report), [&ids[0], &sound]);
    let problems: Vec<&str> = report["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|problem| text(problem, "backup_id"))
        .collect();
    assert_eq!(problems, ids[1..]);
    assert!(ran.err.contains(&format!("0000000002-{}.delta", ids[1])), "{}", ran.err);
    assert_copies_are_sound(&shell);
}

/// The first repository burns down: the copy takes its place, and its backups go on from there.
#[test]
fn backups_go_on_in_the_copy() {
    let (shell, ids) = with_chain(2);
    let _ = copy(&shell, &[]);
    std::fs::remove_dir_all(shell.scratch.path("repo")).expect("removing the repository");
    shell.scratch.file("db", &volume_bytes(3, SIZE));
    let next = shell.json(&["-r", "copies", "backup", "db", "--volume", "db"]);
    assert_eq!((text(&next, "kind"), number(&next, "sequence")), ("incremental", 3));
    assert_copy_is(&shell, "latest", 3);
    assert_copy_is(&shell, &ids[0], 1);
}

/// A record is spoilt here: the copy gives it back, once the spoilt one is out of the way.
#[test]
fn a_copy_heals() {
    let (shell, ids) = with_chain(2);
    let _ = copy(&shell, &[]);
    let record = shell.scratch.path("repo/volumes/db/records/0000000001.json");
    let sound = read(&record);
    write(&record, &sound[1..]);
    let back = ["-r", "copies", "copy", "--to", "repo", "--json"];
    let report = shell.run(&back).exits(3).json();
    assert!(text(&report["problems"][0], "what").contains("remove this record there"), "{report}");
    std::fs::remove_file(&record).expect("the record");
    assert_eq!(copied(&shell.json(&back[..5])), [&ids[0]]);
    assert_eq!(read(&record), sound);
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
}

#[test]
fn people_are_told_what_went_where() {
    let (shell, _) = with_chain(2);
    let shown = shell.run(&["copy", "--to", "copies", "--dry-run"]).exits(0);
    assert!(shown.text().contains("2 backups would be copied"), "{}", shown.text());
    let shown = shell.run(&["copy", "--to", "copies"]).exits(0);
    assert!(
        shown.text().contains("2 backups copied") && shown.err.is_empty(),
        "{} {}",
        shown.text(),
        shown.err
    );
}

/// Runs the command with variables of its environment set to paths in the scratch folder.
fn with_files(shell: &Shell, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = shell.command(arguments);
    for (variable, file) in variables {
        command.env(variable, shell.scratch.path(file));
    }
    finish(command)
}

#[test]
fn copies_go_from_a_repository_in_clear_to_one_with_a_key_and_on_to_one_with_another() {
    let (shell, ids) = with_chain(2);
    for file in ["first", "second"] {
        shell.scratch.file(file, format!("the {file} passphrase").as_bytes());
        let key = [("BLKDELTA_PASSWORD_FILE", file)];
        let folder = format!("sealed-{file}");
        let _ = with_files(&shell, &key, &["init", &folder, "--encrypt", "--like", "repo"]).exits(0);
    }
    let to_first = [("BLKDELTA_TO_PASSWORD_FILE", "first")];
    let _ = with_files(&shell, &to_first, &["copy", "--to", "sealed-first"]).exits(0);
    let on = [("BLKDELTA_PASSWORD_FILE", "first"), ("BLKDELTA_TO_PASSWORD_FILE", "second")];
    let _ = with_files(&shell, &on, &["-r", "sealed-first", "copy", "--to", "sealed-second"]).exits(0);
    let wrong = [("BLKDELTA_PASSWORD_FILE", "first"), ("BLKDELTA_TO_PASSWORD_FILE", "first")];
    let _ = with_files(&shell, &wrong, &["-r", "sealed-first", "copy", "--to", "sealed-second"]).exits(12);

    let second = [("BLKDELTA_PASSWORD_FILE", "second")];
    let _ = with_files(&shell, &second, &["-r", "sealed-second", "verify", "--data"]).exits(0);
    let _ = with_files(&shell, &second, &["-r", "sealed-second", "restore", &ids[1], "back"]).exits(0);
    assert_same_bytes(&read(&shell.scratch.path("back")), &volume_bytes(2, SIZE), "twice sealed anew");
}
