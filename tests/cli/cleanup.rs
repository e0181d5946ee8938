//! `cleanup`: what an interrupted backup left is removed, what is at work is left alone. Snapshots are shown where there are
//! any, in `tests/storage/lvm` and `scripts/test-zfs`.

use support::binary::Shell;
use support::scratch::files_below;

#[test]
fn what_a_dead_run_left_goes_and_backups_stay() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", &vec![7; 1 << 20]);
    let made = shell.json(&["backup", "db", "--volume", "db"]);
    let delta = shell.scratch.path(&format!("repo/{}", made["delta"]["name"].as_str().unwrap()));
    let leftover = delta.with_extension("delta.unfinished");
    std::fs::write(&leftover, b"half").unwrap();
    let before = files_below(&shell.scratch.path("repo"));

    let cleaned = shell.json(&["cleanup"]);
    assert_eq!(cleaned[0]["volume"], "db");
    assert_eq!(cleaned[0]["problem"], serde_json::Value::Null);
    assert!(!leftover.exists() && delta.exists());
    assert_eq!(files_below(&shell.scratch.path("repo")).len(), before.len() - 1);
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
}
