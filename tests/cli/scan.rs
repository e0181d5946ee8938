//! `blkdelta scan`

use support::binary::{Ran, Shell};
use support::content::random_bytes;
use support::model::{Change, Volume};
use support::scratch::{assert_same_bytes, read, write};

use super::{assert_keys, number, ranges};

const SMALL: [&str; 4] = ["--block-size", "64KiB", "--grain-size", "4KiB"];

fn shell_with_volume() -> (Shell, Volume) {
    let shell = Shell::new();
    let volume = Volume::new(shell.scratch.path("db"), random_bytes(2, 300_000));
    (shell, volume)
}

fn scan(shell: &Shell, flags: &[&str]) -> Ran {
    let mut arguments = vec!["scan", "db"];
    arguments.extend(flags);
    if !flags.contains(&"--manifest") {
        arguments.extend(SMALL);
    }
    shell.run(&arguments)
}

#[test]
fn no_repository_is_needed_to_track_changes() {
    let (shell, mut volume) = shell_with_volume();
    let first = scan(&shell, &["--json", "--write-manifest", "m"]).exits(0).json();
    assert_keys(
        &first,
        &["size_bytes", "block_size", "grain_size", "digest", "root", "hint", "bytes_changed"],
    );
    assert_eq!(ranges(&first), [(0, 300_000, "data")]);
    volume.write(70_000, b"changed");
    volume.apply(&Change::WriteZeros { at: 131_072, len: 65_536 });
    let second = scan(&shell, &["--json", "--manifest", "m", "--write-manifest", "m"]).exits(0).json();
    assert_eq!(ranges(&second), [(69_632, 4096, "data"), (131_072, 65_536, "zero")]);
    assert_eq!((number(&second, "blocks_changed"), number(&second, "bytes_changed")), (2, 69_632));
    assert_eq!(second["parent_root"], first["root"]);
    let third = scan(&shell, &["--json", "--manifest", "m"]).exits(0).json();
    assert_eq!((ranges(&third), &third["root"]), (Vec::new(), &second["root"]));
}

#[test]
fn as_text_a_range_is_a_line() {
    let (shell, mut volume) = shell_with_volume();
    let _ = scan(&shell, &["--write-manifest", "m"]).exits(0);
    volume.write(0, b"changed");
    volume.apply(&Change::WriteZeros { at: 65_536, len: 65_536 });
    let ran = scan(&shell, &["--manifest", "m"]).exits(0);
    assert_eq!(ran.text(), "0 4096 data\n65536 65536 zero\n");
}

#[test]
fn a_delta_may_go_through_a_pipe() {
    let (shell, volume) = shell_with_volume();
    let piped = scan(&shell, &["--delta", "-"]).exits(0);
    write(&shell.scratch.path("piped"), &piped.out);
    let _ = shell.run(&["apply", "piped", "copy"]).exits(0);
    assert_same_bytes(&read(&shell.scratch.path("copy")), volume.bytes(), "a delta from a pipe");
    scan(&shell, &["--delta", "-", "--json"]).fails(2, &["standard output"]);
}

#[test]
fn a_manifest_of_another_volume_is_refused_unless_accepted() {
    let (shell, volume) = shell_with_volume();
    let _ = scan(&shell, &["--write-manifest", "m"]).exits(0);
    std::fs::rename(volume.path(), shell.scratch.path("old")).unwrap();
    let _other = Volume::new(shell.scratch.path("db"), volume.bytes().to_vec());
    scan(&shell, &["--manifest", "m"]).fails(1, &["the manifest is of", "--new-identity"]);
    let accepted = scan(&shell, &["--manifest", "m", "--new-identity", "--json"]).exits(0).json();
    assert_eq!(ranges(&accepted), []);
}

#[test]
fn what_is_no_manifest_is_an_error_and_stays_as_it_is() {
    let (shell, _volume) = shell_with_volume();
    scan(&shell, &["--manifest", "nowhere"]).fails(1, &["nowhere"]);
    for wrong in [&b""[..], b"short", &[0x5a; 20_000]] {
        write(&shell.scratch.path("m"), wrong);
        scan(&shell, &["--manifest", "m", "--write-manifest", "m", "--delta", "d"]).fails(1, &["m"]);
        assert_same_bytes(&read(&shell.scratch.path("m")), wrong, "the manifest of a scan that failed");
        assert!(!shell.scratch.path("d").exists(), "a delta of a scan that failed");
    }
}

/// A damaged manifest must not make changes look like none.
#[test]
fn a_flipped_byte_in_a_manifest_never_hides_a_change() {
    let (shell, mut volume) = shell_with_volume();
    let _ = scan(&shell, &["--write-manifest", "m"]).exits(0);
    let sound = read(&shell.scratch.path("m"));
    volume.write(0, b"changed");
    for at in (0..sound.len()).step_by(sound.len() / 40) {
        let mut flipped = sound.clone();
        flipped[at] ^= 0x20;
        write(&shell.scratch.path("m"), &flipped);
        let ran = scan(&shell, &["--manifest", "m", "--json"]);
        if ran.code == 0 {
            assert!(ranges(&ran.json()).iter().any(|(offset, ..)| *offset == 0), "flipped at {at}");
        } else {
            ran.fails(1, &["m"]);
        }
    }
}
