//! `blkdelta key`, and every verb on an encrypted repository.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use support::binary::{Ran, Shell, finish};
use support::content::volume_bytes;
use support::scratch::{assert_same_bytes, files_below, read, write};

use super::{assert_keys, text};

/// The command with a variable of its environment set to a path in the scratch folder.
fn with(shell: &Shell, variable: &str, file: &str, arguments: &[&str]) -> Command {
    let mut command = shell.command(arguments);
    command.env(variable, shell.scratch.path(file));
    command
}

fn by_password(shell: &Shell, file: &str, arguments: &[&str]) -> Ran {
    finish(with(shell, "BLKDELTA_PASSWORD_FILE", file, arguments))
}

/// An encrypted repository; its passphrase is in the file `password`.
fn encrypted() -> Shell {
    let shell = Shell::new();
    shell.scratch.file("password", b"correct horse\n");
    let made =
        by_password(&shell, "password", &["--json", "init", "--encrypt", "--block-size", "64KiB"]).exits(0);
    assert_eq!(text(&made.json(), "encryption"), "aes-256-gcm");
    shell
}

fn keys(shell: &Shell) -> Vec<Value> {
    shell.json(&["key", "list"]).as_array().expect("a list").clone()
}

#[test]
fn every_verb_works_on_an_encrypted_repository() {
    let shell = encrypted();
    let image = volume_bytes(3, 200_000);
    shell.scratch.file("db", &image);
    let verbs: [&[&str]; 10] = [
        &["backup", "db", "--volume", "db"],
        &["backup", "db", "--volume", "db", "--tag", "second"],
        &["list"],
        &["show", "latest"],
        &["diff", "latest~1", "latest"],
        &["tag", "latest", "--add", "pin"],
        &["verify", "--data"],
        &["restore", "latest", "copy"],
        &["merge", "latest"],
        &["prune", "--keep-last", "1"],
    ];
    for verb in verbs {
        let ran = by_password(&shell, "password", verb).exits(0);
        assert!(ran.err.is_empty(), "{verb:?} wrote: {}", ran.err);
    }
    assert_same_bytes(&read(&shell.scratch.path("copy")), &image, "the restored volume");
    let _ = by_password(&shell, "password", &["verify", "--data"]).exits(0);
}

#[test]
fn without_the_key_or_with_a_wrong_one_nothing_opens() {
    let shell = encrypted();
    shell.scratch.file("db", b"data");
    shell.scratch.file("wrong", b"battery staple");
    for verb in [&["list"][..], &["backup", "db"], &["verify"], &["key", "export"], &["key", "remove", "0"]] {
        shell.run(verb).fails(12, &["config.json", "encrypted", "BLKDELTA_PASSWORD_FILE"]);
    }
    by_password(&shell, "wrong", &["list"]).fails(12, &["does not open", "keys"]);
    finish(with(&shell, "BLKDELTA_KEY_FILE", "password", &["list"])).fails(12, &["does not open"]);
    by_password(&shell, "no-such-file", &["list"]).fails(1, &["no-such-file"]);
    let mut two = with(&shell, "BLKDELTA_KEY_FILE", "password", &["list"]);
    two.env("BLKDELTA_PASSWORD_FILE", shell.scratch.path("password"));
    finish(two).fails(2, &["more than one"]);
}

#[test]
fn a_command_may_tell_the_passphrase() {
    let shell = encrypted();
    for (command, code) in [("echo correct horse", 0), ("echo wrong", 12), ("false", 12)] {
        let mut list = shell.command(&["list"]);
        list.env("BLKDELTA_PASSWORD_COMMAND", command);
        let _ = finish(list).exits(code);
    }
}

#[test]
fn a_repository_in_clear_is_refused_to_whoever_gives_a_key() {
    let shell = Shell::with_repository();
    shell.scratch.file("password", b"correct horse");
    by_password(&shell, "password", &["list"]).fails(12, &["not encrypted", "config.json"]);
    by_password(&shell, "password", &["init", "elsewhere"]).fails(2, &["--encrypt"]);
    shell.run(&["key", "list"]).fails(2, &["not encrypted"]);
    shell.run(&["key", "add", "--key-file", "password"]).fails(2, &["not encrypted"]);
}

#[test]
fn what_cannot_be_encrypted_is_not_made() {
    let shell = Shell::new();
    shell.scratch.file("password", b"correct horse");
    shell.scratch.file("empty", b"\n");
    by_password(&shell, "password", &["init", "--encrypt", "--digest", "xxh3"]).fails(2, &["xxh3"]);
    by_password(&shell, "empty", &["init", "--encrypt"]).fails(2, &["empty"]);
    shell.run(&["init", "--encrypt"]).fails(2, &["passphrase", "BLKDELTA_PASSWORD_FILE"]);
    assert!(!shell.scratch.path("repo").exists(), "a repository was made all the same");
}

#[test]
fn keys_are_added_listed_changed_and_removed() {
    let shell = encrypted();
    for (name, bytes) in [("second", &b"tr0ub4dor"[..]), ("third", b"third"), ("file", &[7; 32])] {
        shell.scratch.file(name, bytes);
    }
    let run = |password: &str, arguments: &[&str]| by_password(&shell, password, arguments);
    let first = text(&keys(&shell)[0], "key_id").to_owned();
    let add = ["--json", "key", "add", "--new-password-file", "second", "--note", "night shift"];
    let added = run("password", &add).exits(0).json();
    assert_keys(&added, &["key_id", "kind", "created_at", "host", "note", "argon2id"]);
    let _ = run("second", &["key", "add", "--key-file", "file"]).exits(0);
    let _ = finish(with(&shell, "BLKDELTA_KEY_FILE", "file", &["list"])).exits(0);
    let listed = keys(&shell);
    assert_eq!(
        listed.iter().map(|key| text(key, "kind")).collect::<Vec<_>>(),
        ["passphrase", "passphrase", "key-file"]
    );
    assert_eq!(text(&listed[1], "note"), "night shift");
    assert!(shell.run(&["key", "list"]).exits(0).text().contains("night shift"));
    let _ = run("second", &["key", "passwd", "--new-password-file", "third"]).exits(0);
    run("second", &["list"]).fails(12, &["does not open"]);
    let _ = run("third", &["key", "remove", &first[..8]]).exits(0);
    run("password", &["list"]).fails(12, &["does not open"]);
    assert_eq!(keys(&shell).len(), 2);
    let last = text(&keys(&shell)[0], "key_id").to_owned();
    let _ = run("third", &["key", "remove", &last]).exits(0);
    let last = text(&keys(&shell)[0], "key_id").to_owned();
    run("third", &["key", "remove", &last]).fails(1, &["last key", "key add"]);
    let _ = run("third", &["list"]).exits(0);
}

#[test]
fn a_rotated_key_leaves_the_old_ones_outside() {
    let shell = encrypted();
    shell.scratch.file("new", b"new passphrase");
    shell.scratch.file("db", b"data");
    let run = |password: &str, arguments: &[&str]| by_password(&shell, password, arguments);
    let _ = run("password", &["backup", "db", "--volume", "db"]).exits(0);
    let _ = run("password", &["key", "rotate", "--new-password-file", "new"]).exits(0);
    run("password", &["list"]).fails(12, &["does not open"]);
    let _ = run("new", &["backup", "db", "--volume", "db"]).exits(0);
    let _ = run("new", &["verify", "--data"]).exits(0);
    assert_eq!(keys(&shell).len(), 1);
}

#[test]
fn the_key_from_the_safe_opens_what_nobody_else_can() {
    let shell = encrypted();
    shell.scratch.file("db", b"data");
    let _ = by_password(&shell, "password", &["backup", "db", "--volume", "db"]).exits(0);
    let printed = by_password(&shell, "password", &["key", "export"]).exits(0);
    let _ = by_password(&shell, "password", &["key", "export", "safe"]).exits(0);
    let safe = shell.scratch.path("safe");
    assert_eq!(String::from_utf8(read(&safe)).unwrap(), printed.text());
    assert_eq!(std::fs::metadata(&safe).unwrap().permissions().mode() & 0o777, 0o600);
    by_password(&shell, "password", &["key", "export", "safe"]).fails(1, &["safe"]);
    for slot in files_below(&shell.scratch.path("repo/keys")) {
        std::fs::remove_file(slot).unwrap();
    }
    by_password(&shell, "password", &["list"]).fails(1, &["keys", "exported"]);
    let by_safe = |arguments: &[&str]| finish(with(&shell, "BLKDELTA_KEY_FILE", "safe", arguments));
    let _ = by_safe(&["verify", "--data"]).exits(0);
    shell.scratch.file("again", b"again");
    let _ = shell.run(&["key", "import", "safe", "--new-password-file", "again"]).exits(0);
    let _ = by_password(&shell, "again", &["verify", "--data"]).exits(0);
    let typed = printed.text().replacen("\nkey ", "\nkey 0", 1);
    write(&safe, typed.as_bytes());
    by_safe(&["list"]).fails(12, &["exported key"]);
}

#[test]
fn damage_of_sealed_objects_is_damage_and_names_the_backup() {
    let shell = encrypted();
    shell.scratch.file("db", &volume_bytes(4, 300_000));
    let _ = by_password(&shell, "password", &["backup", "db", "--volume", "db"]).exits(0);
    let deltas = shell.scratch.path("repo/volumes/db/deltas");
    let delta = files_below(&deltas).remove(0);
    let mut bytes = read(&delta);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    write(&delta, &bytes);
    let report = by_password(&shell, "password", &["--json", "verify", "--data"]).exits(14).json();
    let problem = &report["problems"][0];
    assert!(!text(problem, "backup_id").is_empty() && text(problem, "what").contains(".delta"), "{problem}");
    by_password(&shell, "password", &["restore", "latest", "copy"]).fails(1, &[".delta", "offset"]);
}

/// What somebody without a key can do: see which keys there are, one of which nobody can read.
#[test]
fn a_damaged_key_is_named() {
    let shell = encrypted();
    shell.scratch.file("second", b"second");
    let add = ["key", "add", "--new-password-file", "second"];
    let _ = by_password(&shell, "password", &add).exits(0);
    let id = text(&keys(&shell)[0], "key_id").to_owned();
    let path = shell.scratch.path(&format!("repo/keys/{id}.json"));
    let mut bytes = read(&path);
    bytes[200] ^= 1;
    write(&path, &bytes);
    let listed = shell.run(&["--json", "key", "list"]).exits(3);
    assert!(listed.json().as_array().unwrap().len() == 1 && listed.err.contains(&id), "{}", listed.err);
    by_password(&shell, "password", &["list"]).fails(1, &[&id, "cannot be read"]);
    let _ = by_password(&shell, "second", &["list"]).exits(0);
    let report = by_password(&shell, "second", &["--json", "verify"]).exits(14).json();
    assert!(text(&report["problems"][0], "what").contains(&id), "{report}");
}

/// From a repository in clear into an encrypted one and on into one with another passphrase: each seals by itself.
#[test]
fn copies_have_keys_of_their_own_and_key_changes_are_written_down() {
    let shell = Shell::with_repository();
    let image = volume_bytes(5, 200_000);
    shell.scratch.file("db", &image);
    let _ = shell.backup("db");
    shell.scratch.file("password", b"correct horse\n");
    shell.scratch.file("other", b"battery staple\n");
    for (folder, password) in [("safe", "password"), ("third", "other")] {
        let _ = by_password(&shell, password, &["init", folder, "--encrypt", "--like", "repo"]).exits(0);
    }
    let in_safe =
        |arguments: &[&str]| by_password(&shell, "password", &[&["-r", "safe"], arguments].concat());
    let _ = finish(with(&shell, "BLKDELTA_TO_PASSWORD_FILE", "password", &["copy", "--to", "safe"])).exits(0);
    let mut onward =
        with(&shell, "BLKDELTA_TO_PASSWORD_FILE", "other", &["-r", "safe", "copy", "--to", "third"]);
    onward.env("BLKDELTA_PASSWORD_FILE", shell.scratch.path("password"));
    let _ = finish(onward).exits(0);
    let back = by_password(&shell, "other", &["-r", "third", "restore", "latest", "-"]).exits(0);
    assert_same_bytes(&back.out, &image, "restored from the copy of the copy");
    let _ = by_password(&shell, "other", &["-r", "third", "verify", "--data"]).exits(0);
    let _ = in_safe(&["key", "export", "exported"]).exits(0);
    let log = in_safe(&["audit", "--check", "--json"]).exits(0).json();
    let verbs: Vec<&str> =
        log["entries"].as_array().expect("a list").iter().map(|entry| text(entry, "verb")).collect();
    assert_eq!(verbs, ["copy", "copy", "copy", "copy", "key"]);
}
