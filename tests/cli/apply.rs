//! `blkdelta apply`

use support::binary::Shell;
use support::content::random_bytes;
use support::model::Volume;
use support::scratch::{assert_same_bytes, read, write};

use super::{assert_keys, number};

/// A full delta `full` of the first state and a delta `step` to the second; the states.
fn two_deltas() -> (Shell, [Vec<u8>; 2]) {
    let shell = Shell::new();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(8, 300_000));
    let small = ["--block-size", "64KiB", "--grain-size", "4KiB"];
    let mut first = vec!["scan", "db", "--write-manifest", "m", "--delta", "full"];
    first.extend(small);
    let _ = shell.run(&first).exits(0);
    let old = volume.bytes().to_vec();
    volume.write(100_000, b"changed");
    let _ = shell.run(&["scan", "db", "--manifest", "m", "--delta", "step"]).exits(0);
    let states = [old, volume.bytes().to_vec()];
    (shell, states)
}

#[test]
fn deltas_one_after_the_other_make_the_newest_state() {
    let (shell, states) = two_deltas();
    let copy = shell.scratch.path("copy");
    let report = shell.json(&["apply", "full", "copy"]);
    assert_keys(&report, &["target", "size_bytes", "root", "bytes_written", "already_applied", "duration_s"]);
    assert_same_bytes(&read(&copy), &states[0], "a full delta");
    let report = shell.json(&["apply", "step", "copy"]);
    assert_eq!((number(&report, "bytes_written"), &report["already_applied"]), (4096, &false.into()));
    assert_same_bytes(&read(&copy), &states[1], "the next delta");
    let again = shell.json(&["apply", "step", "copy"]);
    assert_eq!((number(&again, "bytes_written"), &again["already_applied"]), (0, &true.into()));
    assert_same_bytes(&read(&copy), &states[1], "the same delta again");
}

#[test]
fn another_image_is_refused_and_not_touched() {
    let (shell, states) = two_deltas();
    let mut other = states[0].clone();
    other[299_999] ^= 1;
    for image in [&other[..], &states[0][..299_999], &random_bytes(1, 300_000), b""] {
        let path = shell.scratch.file("other", image);
        shell.run(&["apply", "step", "other"]).fails(1, &["other", "nothing was written"]);
        assert_same_bytes(&read(&path), image, "a refused image");
    }
    shell.run(&["apply", "step", "nowhere"]).fails(1, &["nowhere"]);
    assert!(!shell.scratch.path("nowhere").exists());
}

#[test]
fn a_full_delta_overwrites_only_by_force() {
    let (shell, states) = two_deltas();
    let path = shell.scratch.file("other", b"something else");
    shell.run(&["apply", "full", "other"]).fails(1, &["other", "--force"]);
    assert_same_bytes(&read(&path), b"something else", "a refused file");
    let _ = shell.run(&["apply", "full", "other", "--force"]).exits(0);
    assert_same_bytes(&read(&path), &states[0], "a forced file");
}

#[test]
fn a_damaged_delta_changes_nothing() {
    let (shell, states) = two_deltas();
    let sound = read(&shell.scratch.path("step"));
    let path = shell.scratch.file("copy", &states[0]);
    for at in (0..sound.len()).step_by(sound.len() / 50) {
        let mut flipped = sound.clone();
        flipped[at] ^= 4;
        for damaged in [&flipped[..], &sound[..at]] {
            write(&shell.scratch.path("step"), damaged);
            shell.run(&["apply", "step", "copy"]).fails(1, &["step"]);
            assert_same_bytes(&read(&path), &states[0], &format!("after a delta damaged at {at}"));
        }
    }
    shell.run(&["apply", "no-such-delta", "copy"]).fails(1, &["no-such-delta"]);
}
