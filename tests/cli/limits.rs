//! `limits`: what runs, and changing it. That new limits are taken is shown on a real device, in `tests/storage/limits`.

use support::binary::Shell;

#[test]
fn with_nothing_running_there_is_nothing_to_show_or_set() {
    let shell = Shell::with_repository();
    assert_eq!(shell.json(&["limits", "show"]), serde_json::json!([]));
    shell.run(&["limits", "set", "--bwlimit", "1MiB/s"]).fails(1, &["running", "HINT"]);
    let _ = shell.run(&["limits", "set", "--bwlimit", "0"]).exits(2);
}

#[test]
fn limits_are_kept_by_every_verb_that_reads_or_writes_much() {
    let shell = Shell::with_repository();
    shell.scratch.file("db", &vec![7; 3 << 20]);
    let made =
        shell.json(&["backup", "db", "--volume", "db", "--bwlimit", "4MiB/s", "--latency-target", "off"]);
    assert!(made["throttled_s"].as_f64().unwrap() > 0.3, "{made}");
    let back =
        shell.json(&["restore", "latest", "copy", "--write-limit", "4MiB/s", "--latency-target", "off"]);
    assert!(back["throttled_s"].as_f64().unwrap() > 0.3, "{back}");
    let checked = shell.json(&["verify", "--data", "--bwlimit", "8KiB/s", "--latency-target", "off"]);
    assert!(checked["throttled_s"].as_f64().unwrap() > 0.1, "{checked}");
}
