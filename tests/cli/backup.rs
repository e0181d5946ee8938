//! `blkdelta backup`

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;

use blkdelta_core::sys::files::FileLock;
use support::binary::{Shell, send_signal};
use support::content::{random_bytes, volume_bytes};
use support::model::{Change, Volume};
use support::scratch::{files_below, read, write};

use super::{assert_keys, number, text};

const SIZE: u64 = 1_000_000;

fn shell_with_volume() -> (Shell, Volume) {
    let shell = Shell::with_repository();
    let volume = Volume::new(shell.scratch.path("db"), random_bytes(1, usize::try_from(SIZE).unwrap()));
    (shell, volume)
}

#[test]
fn the_report_has_every_key_of_the_contract() {
    let (shell, _volume) = shell_with_volume();
    let report = shell.json(&["backup", "db", "--volume", "main", "--tag", "nightly", "--tag", "two"]);
    let keys = "backup_id volume kind parent source size_bytes block_size grain_size digest root hint blocks_total \
                blocks_changed grains_changed bytes_read bytes_carried bytes_changed bytes_stored duration_s throttled_s";
    assert_keys(&report, &keys.split(' ').collect::<Vec<_>>());
    assert_keys(&report["hint"], &["kind", "reason", "sampled_blocks"]);
    assert_eq!((text(&report, "volume"), text(&report, "kind")), ("main", "full"));
    assert!(std::path::Path::new(text(&report, "source")).ends_with("db"));
    assert_eq!((number(&report, "size_bytes"), number(&report, "bytes_read")), (SIZE, SIZE));
    assert_eq!((number(&report, "blocks_total"), number(&report, "bytes_changed")), (16, SIZE));
    assert_eq!(report["tags"], serde_json::json!(["nightly", "two"]));
    assert!(report["parent"].is_null());
    let stored: usize = ["deltas", "manifests"]
        .iter()
        .flat_map(|folder| files_below(&shell.scratch.path(&format!("repo/volumes/main/{folder}"))))
        .map(|path| read(&path).len())
        .sum();
    assert_eq!(number(&report, "bytes_stored"), stored as u64);
}

#[test]
fn the_first_is_full_and_the_next_ones_hold_what_changed() {
    let (shell, mut volume) = shell_with_volume();
    let full = shell.backup("db");
    volume.write(100_000, b"changed");
    let next = shell.backup("db");
    assert_eq!(text(&next, "kind"), "incremental");
    assert_eq!(next["parent"]["backup_id"], full["backup_id"]);
    assert_eq!((number(&next, "blocks_changed"), number(&next, "bytes_changed")), (1, 4096));
    assert!(number(&next, "bytes_stored") < 32_000);
    volume.apply(&Change::Touch);
    let same = shell.backup("db");
    assert_eq!((number(&same, "blocks_changed"), number(&same, "bytes_changed")), (0, 0));
    assert_eq!(same["root"], next["root"]);
}

#[test]
fn kinds_and_parents_as_asked_for() {
    let (shell, mut volume) = shell_with_volume();
    let full = shell.backup("db");
    volume.write(0, b"one");
    let first = shell.backup("db");
    volume.write(500_000, b"two");
    let backup = |flags: &[&str]| {
        let mut arguments = vec!["backup", "db", "--volume", "db"];
        arguments.extend(flags);
        shell.json(&arguments)
    };
    let differential = backup(&["--kind", "differential"]);
    assert_eq!((text(&differential, "kind"), number(&differential, "bytes_changed")), ("differential", 8192));
    assert_eq!(differential["parent"]["backup_id"], full["backup_id"]);
    let since = backup(&["--parent", &text(&first, "backup_id")[..12]]);
    assert_eq!((number(&since, "bytes_changed"), &since["parent"]["backup_id"]), (4096, &first["backup_id"]));
    let again = backup(&["--kind", "full"]);
    assert!(text(&again, "kind") == "full" && again["parent"].is_null());
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
}

#[test]
fn an_incremental_needs_something_to_build_on() {
    let (shell, _volume) = shell_with_volume();
    for kind in ["incremental", "differential"] {
        shell.run(&["backup", "db", "--kind", kind]).fails(1, &["no backup to build on", "--kind auto"]);
    }
    let _ = shell.backup("db");
    shell.run(&["backup", "db", "--volume", "db", "--parent", "ffff0000"]).fails(1, &["ffff0000"]);
    let _ = shell.run(&["backup", "db", "--kind", "full", "--parent", "latest"]).exits(2);
    let _ = shell.run(&["backup", "db", "--kind", "weekly"]).exits(2);
    assert_eq!(shell.json(&["list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn a_volume_is_named_after_host_and_file() {
    let (shell, _volume) = shell_with_volume();
    let report = shell.json(&["backup", "db"]);
    assert_eq!(text(&report, "volume"), format!("{}/db", text(&report, "host")));
}

/// An image that was replaced is another volume, even when path and content are the same.
#[test]
fn another_volume_behind_the_path_is_refused_unless_accepted() {
    let (shell, volume) = shell_with_volume();
    let _ = shell.backup("db");
    std::fs::rename(volume.path(), shell.scratch.path("old")).unwrap();
    let other = Volume::seeded(shell.scratch.path("db"), 9, SIZE / 2);
    let refused = shell.run(&["backup", "db", "--volume", "db"]);
    refused.fails(1, &["another volume", "db", "--new-identity"]);
    assert_eq!(shell.json(&["list"]).as_array().map(Vec::len), Some(1));
    let report = shell.json(&["backup", "db", "--volume", "db", "--new-identity"]);
    assert_eq!(
        text(&report["hint"], "kind"),
        "none",
        "what is known of the old volume says nothing of this one"
    );
    let _ = shell.json(&["restore", "latest", "restored"]);
    assert!(read(&shell.scratch.path("restored")) == other.bytes());
    let _ = shell.backup("db"); // known from now on
}

#[test]
fn a_source_that_somebody_writes_is_refused_unless_insisted() {
    let (shell, volume) = shell_with_volume();
    let writer = OpenOptions::new().write(true).open(volume.path()).unwrap();
    shell.run(&["backup", "db", "--volume", "db"]).fails(1, &["live", "db", "--allow-live"]);
    let _ = shell.run(&["backup", "db", "--volume", "db", "--allow-live"]).exits(0);
    drop(writer);
}

#[test]
fn what_is_no_volume_is_refused_with_its_path() {
    let shell = Shell::with_repository();
    shell.run(&["backup", "no-such-image"]).fails(1, &["no-such-image"]);
    shell.run(&["backup", "."]).fails(2, &["directory"]);
    shell.run(&["backup", "/dev/null"]).fails(2, &["/dev/null"]);
    assert_eq!(shell.json(&["list"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn a_volume_that_another_run_holds_is_locked() {
    let (shell, _volume) = shell_with_volume();
    let _ = shell.backup("db");
    let lock = OpenOptions::new().write(true).open(shell.scratch.path("repo/volumes/db/lock")).unwrap();
    let held = FileLock::try_lock(lock).expect("nobody else holds it");
    shell.run(&["backup", "db", "--volume", "db"]).fails(11, &["locked", "lock"]);
    let _ = shell.run(&["backup", "db", "--volume", "other"]).exits(0);
    let _ = shell.run(&["verify", "--data"]).exits(0);
    drop(held);
    let _ = shell.backup("db");
}

#[test]
fn local_state_is_private_and_may_be_lost() {
    let (shell, mut volume) = shell_with_volume();
    let _ = shell.backup("db");
    let mut states = files_below(&shell.scratch.path("state"));
    for state in &states {
        assert_eq!(
            std::fs::metadata(state).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            state.display()
        );
    }
    states.retain(|path| path.extension().is_some_and(|kind| kind == "manifest"));
    assert_eq!(states.len(), 1, "{states:?}");
    write(&states[0], b"not a manifest");
    volume.write(7, b"x");
    assert_eq!(number(&shell.backup("db"), "bytes_changed"), 4096);
    std::fs::remove_dir_all(shell.scratch.path("state")).unwrap();
    volume.write(8, b"y");
    assert_eq!(number(&shell.backup("db"), "bytes_changed"), 4096);
}

#[test]
fn holes_are_not_read_unless_hints_are_off() {
    let shell = Shell::with_repository();
    let mut bytes = vec![0; 8 << 20];
    bytes[..1 << 20].copy_from_slice(&volume_bytes(3, 1 << 20));
    bytes[0] = 1;
    let _volume = Volume::new(shell.scratch.path("db"), bytes);
    let hinted = shell.backup("db");
    assert_eq!(text(&hinted["hint"], "kind"), "holes");
    assert!(number(&hinted, "bytes_read") < 4 << 20);
    let all = shell.json(&["backup", "db", "--volume", "db", "--hints", "off"]);
    assert_eq!((number(&all, "bytes_read"), number(&all, "bytes_changed")), (8 << 20, 0));
    assert_eq!(all["root"], hinted["root"]);
}

const BLOCK: usize = 4 << 20;

/// Two blocks of which the second has changed since the first backup.
fn changed_in_its_second_block() -> Shell {
    let shell = Shell::with_repository();
    let mut bytes = vec![7; 2 * BLOCK];
    shell.scratch.file("db", &bytes);
    let _ = shell.backup("db");
    bytes[BLOCK] = 8;
    shell.scratch.file("db", &bytes);
    shell
}

#[test]
fn a_map_decides_what_is_read() {
    let shell = changed_in_its_second_block();
    shell.scratch.file("map", format!("0 {BLOCK} same\n{BLOCK} {BLOCK} data\n").as_bytes());
    let made = shell.json(&[
        "backup",
        "db",
        "--volume",
        "db",
        "--hints",
        "map",
        "--hint-sample",
        "0",
        "--rescan-every",
        "0",
    ]);
    assert_eq!(
        (made["bytes_read"].as_u64(), made["bytes_carried"].as_u64()),
        (Some(BLOCK as u64), Some(BLOCK as u64))
    );
    assert!(made["hint"]["kind"] != "none" && made["alarm"].is_null(), "{made}");
    let _ = shell.run(&["restore", "latest", "copy"]).exits(0);
    assert_eq!(
        std::fs::read(shell.scratch.path("copy")).unwrap(),
        std::fs::read(shell.scratch.path("db")).unwrap()
    );
}

#[test]
fn a_map_that_lies_is_found_and_alarms() {
    let shell = changed_in_its_second_block();
    shell.scratch.file("map", format!("0 {BLOCK} data\n{BLOCK} {BLOCK} same\n").as_bytes());
    let made = shell.run(&["backup", "db", "--volume", "db", "--hints", "map", "--json"]).exits(3).json();
    assert!(made["alarm"].as_str().unwrap().contains(&BLOCK.to_string()), "{made}");
    assert_eq!(made["bytes_read"].as_u64(), Some(2 * BLOCK as u64));
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
}

#[test]
fn wrong_hints_and_snapshots_are_refused_before_anything_is_read() {
    let shell = changed_in_its_second_block();
    shell.scratch.file("map", b"this is no map\n");
    shell.run(&["backup", "db", "--volume", "db", "--hints", "map"]).fails(2, &["map", "HINT"]);
    shell.run(&["backup", "db", "--volume", "db", "--hints", "missing"]).fails(1, &["missing", "HINT"]);
    for wrong in [
        &["--hint-sample", "101%"][..],
        &["--rescan-every", "-1"],
        &["--snapshot-size", "0"],
        &["--snapshot-size", "101%"],
        &["--freeze-timeout", "0s"],
        &["--snapshot", "btrfs"],
    ] {
        let _ = shell.run(&[&["backup", "db", "--volume", "db"], wrong].concat()).exits(2);
    }
    shell.run(&["backup", "db", "--volume", "db", "--snapshot", "lvm"]).fails(2, &["logical volume", "HINT"]);
    shell.run(&["backup", "db", "--volume", "db", "--freeze", "/"]).fails(2, &["no snapshot", "HINT"]);
    shell.run(&["backup", "db", "db", "--volume", "db"]).fails(2, &["--group"]);
    shell.run(&["backup", "db", "db", "--group", "--volume", "a"]).fails(2, &["--volume"]);
    shell
        .run(&["backup", "db", "--postgresql=postgres://a:secret@localhost/b", "--volume", "db"])
        .fails(2, &["password", "PGPASSFILE"]);
    assert_eq!(shell.json(&["list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_group_is_told_as_one_and_hooks_run_around_it() {
    let shell = Shell::with_repository();
    shell.scratch.file("a", b"first");
    shell.scratch.file("b", b"second");
    let (before, after) = ("echo $BLKDELTA_EVENT >>hooks", "echo $BLKDELTA_EVENT >>hooks");
    let made = shell.json(&[
        "backup",
        "a",
        "b",
        "--group",
        "--volume",
        "a",
        "--volume",
        "b",
        "--before-snapshot",
        before,
        "--after-snapshot",
        after,
    ]);
    assert_eq!(made.as_array().unwrap().len(), 2);
    assert_eq!(made[0]["group"], made[0]["backup_id"]);
    assert_eq!(made[1]["group"], made[0]["backup_id"]);
    let hooks = std::fs::read_to_string(shell.scratch.path("hooks")).unwrap();
    assert_eq!(hooks, "before-snapshot\nafter-snapshot\n");
    shell
        .run(&["backup", "a", "--volume", "a", "--before-snapshot", "exit 9"])
        .fails(1, &["before-snapshot", "HINT"]);
    assert_eq!(shell.json(&["list"]).as_array().unwrap().len(), 2);
}

/// Starts a slow backup and ends it with this signal when `ready`.
fn interrupted(shell: &Shell, flags: &[&str], signal: &str, ready: impl Fn() -> bool) -> Option<i32> {
    let mut arguments = vec!["backup", "db", "--volume", "db", "--bwlimit", "1MiB/s"];
    arguments.extend(flags);
    let mut command = shell.command(&arguments);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let gate = support::scratch::no_descriptor_leaks();
    let mut child = command.spawn().unwrap();
    drop(gate);
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    send_signal(&child, signal);
    child.wait().unwrap().code()
}

/// Sizes of what is not finished.
fn unfinished(shell: &Shell) -> Vec<u64> {
    let files = files_below(&shell.scratch.path("repo")).into_iter();
    let left = files.filter(|path| path.to_str().unwrap().ends_with(".unfinished"));
    left.filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).collect()
}

/// Some of the volume has been stored.
fn some_stored(shell: &Shell) -> bool {
    unfinished(shell).iter().any(|size| *size > 1 << 20)
}

/// How far an interrupted backup has come by its note, in bytes; 0 without one.
fn noted(shell: &Shell) -> u64 {
    let mut files = files_below(&shell.scratch.path("state")).into_iter();
    let note = files.rfind(|path| path.to_str().unwrap().ends_with(".checkpoint"));
    let note: Option<serde_json::Value> =
        note.and_then(|path| std::fs::read(path).ok()).and_then(|bytes| serde_json::from_slice(&bytes).ok());
    note.map_or(0, |note| number(&note, "next") * (64 << 10))
}

#[test]
fn an_interrupted_backup_goes_on_when_it_is_asked_to() {
    let shell = Shell::with_repository();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(31, 24 << 20));
    assert_eq!(interrupted(&shell, &[], "-TERM", || some_stored(&shell)), Some(143));
    assert_eq!(unfinished(&shell).len(), 1);
    // Killed while it goes on, behind a mark of its own: the next one goes on from there.
    let before = noted(&shell);
    assert!(before > 0);
    assert_eq!(interrupted(&shell, &["--resume"], "-KILL", || noted(&shell) > before), None);
    let report = shell.json(&["backup", "db", "--volume", "db", "--resume"]);
    let resumed = number(&report, "resumed_at");
    assert!(resumed > before && resumed < 24 << 20, "behind the second run's mark: {report}");
    assert_eq!(number(&report, "bytes_read"), (24 << 20) - resumed);
    assert_eq!(number(&report, "bytes_changed"), 24 << 20, "all that the backup holds");
    assert!(unfinished(&shell).is_empty());
    let _ = shell.json(&["restore", "latest", "back", "--read-back"]);
    assert!(read(&shell.scratch.path("back")) == volume.bytes());
    let _ = shell.run(&["verify", "--data"]).exits(0);

    // Without being asked it begins anew, and what was left goes.
    volume.write(0, &random_bytes(32, 6 << 20));
    assert_eq!(interrupted(&shell, &[], "-INT", || some_stored(&shell)), Some(130));
    let report = shell.json(&["backup", "db", "--volume", "db"]);
    assert!(report["resumed_at"].is_null() && number(&report, "bytes_read") == 24 << 20, "{report}");
    assert!(unfinished(&shell).is_empty());
    let ran = shell.run(&["backup", "db", "--volume", "db", "--resume", "--json"]).exits(0);
    assert!(ran.json()["resumed_at"].is_null() && ran.err.contains("no interrupted backup"), "{}", ran.err);
}

#[test]
fn a_source_that_may_have_changed_is_not_gone_on_with() {
    let shell = Shell::with_repository();
    let mut volume = Volume::new(shell.scratch.path("db"), random_bytes(33, 16 << 20));
    assert_eq!(interrupted(&shell, &[], "-TERM", || some_stored(&shell)), Some(143));
    volume.write(7 << 20, b"changed meanwhile");
    shell.run(&["backup", "db", "--volume", "db", "--resume"]).fails(1, &["may have changed", "--resume"]);
    shell
        .run(&["backup", "db", "--volume", "db", "--resume", "--allow-live"])
        .fails(1, &["may have changed", "--resume"]);
    let _ = shell.backup("db");
    let _ = shell.json(&["restore", "latest", "back"]);
    assert!(read(&shell.scratch.path("back")) == volume.bytes());

    // What was left is damaged: that is told, and the next run begins anew.
    volume.write(0, &random_bytes(34, 8 << 20));
    assert_eq!(interrupted(&shell, &[], "-TERM", || some_stored(&shell)), Some(143));
    let files = files_below(&shell.scratch.path("repo"));
    let left = files.iter().find(|path| path.to_str().unwrap().ends_with(".unfinished")).unwrap();
    let mut bytes = read(left);
    bytes[2000] ^= 1;
    write(left, &bytes);
    shell.run(&["backup", "db", "--volume", "db", "--resume"]).fails(1, &["frame", ".unfinished"]);
    let _ = shell.run(&["backup", "db", "--volume", "db", "--resume"]).exits(0);
    let _ = shell.json(&["restore", "latest", "again"]);
    assert!(read(&shell.scratch.path("again")) == volume.bytes());
}
