//! `blkdelta tag`

use serde_json::{Value, json};
use support::binary::Shell;
use support::scratch::{files_below, read, write};

use super::{assert_keys, text};

fn tags_files(shell: &Shell) -> Vec<std::path::PathBuf> {
    let mut files = files_below(&shell.scratch.path("repo/volumes/db/tags"));
    files.retain(|path| path.extension().is_some());
    files
}

fn with_backup() -> (Shell, Value) {
    let shell = Shell::with_repository();
    shell.scratch.file("db", b"data");
    let made = shell.json(&["backup", "db", "--volume", "db", "--tag", "first"]);
    (shell, made)
}

#[test]
fn tags_change_and_the_record_does_not() {
    let (shell, made) = with_backup();
    let record = shell.scratch.path("repo/volumes/db/records/0000000001.json");
    let before = read(&record);
    let id = text(&made, "backup_id");
    let changed = shell.json(&["tag", &id[..8], "--add", "pin", "--add", "größe 1", "--remove", "first"]);
    assert_keys(&changed, &["backup_id", "volume", "sequence", "tags"]);
    assert_eq!(changed["tags"], json!(["pin", "größe 1"]));
    assert_eq!(shell.json(&["tag", "latest", "--add", "pin"])["tags"], changed["tags"], "once is enough");
    assert_eq!(read(&record), before);
    assert_eq!(shell.json(&["show", "latest"])["tags"], changed["tags"]);
    assert_eq!(shell.json(&["list"])[0]["tags"], changed["tags"]);
    assert!(shell.run(&["list"]).exits(0).text().contains("[pin, größe 1]"));
    let _ = shell.json(&["tag", "latest", "--remove", "pin", "--remove", "größe 1"]);
    assert_eq!(shell.json(&["show", "latest"])["tags"], json!([]), "not those of the record again");
    assert_eq!(tags_files(&shell).len(), 1, "older generations go");
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
}

#[test]
fn a_pin_keeps_a_backup_and_its_tags_go_with_it() {
    let (shell, _) = with_backup();
    for _ in 0..2 {
        let _ = shell.json(&["backup", "db", "--volume", "db", "--kind", "full"]);
    }
    let _ = shell.json(&["tag", "latest~2", "--add", "pin"]);
    assert_eq!(shell.json(&["prune", "--keep-last", "1"])["removed"], 1);
    assert_eq!(shell.json(&["list"])[0]["tags"], json!(["first", "pin"]));
    let _ = shell.json(&["tag", "latest~1", "--remove", "pin"]);
    assert_eq!(shell.json(&["prune", "--keep-last", "1"])["removed"], 1);
    assert_eq!(tags_files(&shell).len(), 0);
}

#[test]
fn what_is_no_tag_is_wrong_use() {
    let (shell, _) = with_backup();
    shell.run(&["tag", "latest", "--add", ""]).fails(2, &["tag"]);
    shell.run(&["tag", "latest", "--add", "two\nlines"]).fails(2, &["tag"]);
    assert!(shell.run(&["tag", "latest"]).exits(2).out.is_empty());
    shell.run(&["backup", "db", "--volume", "db", "--tag", "two\nlines"]).fails(2, &["tag"]);
    shell.run(&["tag", "ffff", "--add", "x"]).fails(1, &["ffff"]);
}

/// Nobody knows whether a pin was in it: the backup works, and prune leaves the volume alone.
#[test]
fn damaged_tags_are_told_and_stop_prune_not_backups() {
    let (shell, _) = with_backup();
    let _ = shell.json(&["tag", "latest", "--add", "pin"]);
    let file = tags_files(&shell).remove(0);
    let mut bytes = read(&file);
    let middle = bytes.len() - 20;
    bytes[middle] ^= 1;
    write(&file, &bytes);
    for _ in 0..2 {
        let _ = shell.json(&["backup", "db", "--volume", "db", "--kind", "full"]);
    }
    let name = file.file_name().expect("a name").to_str().expect("text");
    for verb in [&["list"][..], &["prune", "--keep-last", "1"]] {
        assert!(shell.run(verb).exits(3).err.contains(name), "{verb:?}");
    }
    assert!(shell.run(&["verify"]).exits(14).text().contains(name));
    assert_eq!(shell.run(&["list", "--json"]).exits(3).json().as_array().map(Vec::len), Some(3));
    let _ = shell.json(&["restore", "latest~2", "back"]);
    assert_eq!(read(&shell.scratch.path("back")), b"data");
}
