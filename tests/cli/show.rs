//! `blkdelta show`, and how every verb finds a backup by name.

use support::binary::Shell;

use super::text;

#[test]
fn the_record_as_the_backup_reported_it() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", b"data");
    let made = shell.backup("db");
    let shown = shell.json(&["show", "latest"]);
    for (key, value) in shown.as_object().unwrap() {
        assert_eq!(made.get(key), Some(value), "{key}");
    }
    let lines = shell.run(&["info", "latest"]).exits(0);
    assert!(lines.text().contains(text(&made, "backup_id")) && lines.text().contains(text(&made, "root")));
}

#[test]
fn by_unique_prefix_latest_and_steps_back() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", b"data");
    // With more backups than hexadecimal digits two ids begin alike.
    let ids: Vec<String> = (0..17).map(|_| text(&shell.backup("db"), "backup_id").to_owned()).collect();
    let id_of = |name: &str| text(&shell.json(&["show", name]), "backup_id").to_owned();
    assert_eq!(id_of("latest"), ids[16]);
    assert_eq!(id_of("latest~0"), ids[16]);
    assert_eq!(id_of("latest~1"), ids[15]);
    assert_eq!(id_of("latest~16"), ids[0]);
    assert_eq!(id_of(&ids[5]), ids[5]);
    assert_eq!(id_of(&ids[5][..20]), ids[5]);
    shell.run(&["show", "latest~17"]).fails(1, &["latest~17", "blkdelta list"]);
    for wrong in ["latest~", "latest~x", "latest-1"] {
        shell.run(&["show", wrong]).fails(2, &[wrong]);
    }
    let begins_alike = |digit: char| ids.iter().filter(|id| id.starts_with(digit)).count() > 1;
    let digit = "0123456789abcdef".chars().find(|digit| begins_alike(*digit)).unwrap().to_string();
    shell.run(&["show", &digit]).fails(2, &["several"]);
    shell.run(&["show", "xyz"]).fails(1, &["xyz", "blkdelta list"]);
}

#[test]
fn latest_of_two_volumes_must_be_named() {
    let shell = Shell::with_repository();
    shell.scratch.file("a", b"first");
    shell.scratch.file("b", b"second");
    let (first, _second) = (shell.backup("a"), shell.backup("b"));
    for verb in [&["show", "latest"][..], &["restore", "latest", "x"], &["diff", "latest", "latest"]] {
        shell.run(verb).fails(2, &["which volume", "--volume"]);
    }
    assert!(!shell.scratch.path("x").exists());
    let found = shell.json(&["show", "latest", "--volume", "a"]);
    assert_eq!(found["backup_id"], first["backup_id"]);
    shell.run(&["show", "latest", "--volume", "c"]).fails(1, &["latest"]);
    // An id needs no volume.
    let found = shell.json(&["show", text(&first, "backup_id")]);
    assert_eq!(text(&found, "volume"), "a");
}
