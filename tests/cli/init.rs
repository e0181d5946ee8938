//! `blkdelta init`

use support::binary::Shell;
use support::scratch::read;

use super::{assert_keys, number, text};

#[test]
fn the_flags_become_the_configuration() {
    let shell = Shell::new();
    let flags =
        ["--digest", "sha256", "--block-size", "1MiB", "--grain-size", "16KiB", "--compression", "lz4"];
    let mut arguments = vec!["init"];
    arguments.extend(flags);
    let config = shell.json(&arguments);
    assert_keys(&config, &["repository_id", "created_at", "format_version"]);
    assert_eq!((text(&config, "digest"), text(&config, "compression")), ("sha256", "lz4"));
    assert_eq!((number(&config, "block_size"), number(&config, "grain_size")), (1 << 20, 16 << 10));
    shell.scratch.file("db", b"data");
    let backup = shell.backup("db");
    assert_eq!((text(&backup, "digest"), number(&backup, "grain_size")), ("sha256", 16 << 10));
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Shell::new().json(&["init"]);
    assert_eq!((text(&config, "digest"), text(&config, "compression")), ("blake3", "zstd:1"));
    assert_eq!((number(&config, "block_size"), number(&config, "grain_size")), (4 << 20, 8 << 10));
}

#[test]
fn a_directory_may_be_named_instead_of_the_flag() {
    let shell = Shell::new();
    let _ = shell.run(&["init", "here/below"]).exits(0);
    let _ = shell.run(&["list", "-r", "here/below"]).exits(0);
    assert!(!shell.scratch.path("repo").exists());
}

#[test]
fn a_second_init_changes_nothing() {
    let shell = Shell::with_repository();
    let before = read(&shell.scratch.path("repo/config.json"));
    shell.run(&["init", "--digest", "xxh3"]).fails(1, &["already", "config.json"]);
    assert_eq!(read(&shell.scratch.path("repo/config.json")), before);
}

#[test]
fn impossible_formats_are_wrong_use() {
    let shell = Shell::new();
    for (flag, value) in [
        ("--digest", "md5"),
        ("--block-size", "3MiB"),
        ("--block-size", "32KiB"),
        ("--block-size", "128MiB"),
        ("--block-size", "4MB"),
        ("--grain-size", "2KiB"),
        ("--grain-size", "128KiB"),
        ("--compression", "zstd:99"),
        ("--compression", "gzip"),
    ] {
        let ran = shell.run(&["init", flag, value]).exits(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty());
        assert!(!shell.scratch.path("repo").exists(), "{flag} {value} made a repository");
    }
}
