//! `unlock`: dead locks go, living ones stay and are told.

use support::binary::Shell;
use support::scratch::write;

use crate::text;

fn with_backup() -> Shell {
    let shell = Shell::with_repository();
    write(&shell.scratch.path("disk"), &[7; 256 << 10]);
    let _ = shell.backup("disk");
    shell
}

#[test]
fn locks_of_a_directory_end_with_their_process() {
    let shell = with_backup();
    let done = shell.json(&["unlock"]);
    let locks: Vec<_> =
        done.as_array().unwrap().iter().map(|lock| (text(lock, "lock"), text(lock, "state"))).collect();
    assert_eq!(locks, [("volume", "free"), ("tags", "free")]);
    assert!(shell.run(&["unlock", "--volume", "disk"]).exits(0).text().contains("'disk': lock free"));
}

#[test]
fn a_lock_that_is_held_stays_even_by_force() {
    let shell = with_backup();
    let file = std::fs::File::open(shell.scratch.path("repo/volumes/disk/lock")).unwrap();
    file.lock().unwrap();
    let ran = shell.run(&["unlock", "--force"]).exits(11);
    assert!(ran.text().contains("held: a running process holds it"), "{ran:?}");
    assert!(ran.err.contains("HINT: "));
    file.unlock().unwrap();
    assert_eq!(shell.run(&["unlock", "--force"]).code, 0);
}
