//! `blkdelta merge` and `backup --max-chain`.

use support::binary::Shell;
use support::scratch::{assert_same_bytes, files_below, read, write};

/// A volume with this many backups, each another state; the ids, oldest first, and the states.
fn chain(shell: &Shell, count: u8) -> (Vec<String>, Vec<Vec<u8>>) {
    let mut states = Vec::new();
    let ids = (1..=count).map(|number| {
        let mut bytes = vec![0; 300_000];
        bytes[usize::from(number) * 20_000..][..50_000].fill(number);
        write(&shell.scratch.path("db"), &bytes);
        states.push(bytes);
        shell.backup("db")["backup_id"].as_str().expect("an id").to_owned()
    });
    (ids.collect(), states)
}

fn assert_restores(shell: &Shell, id: &str, expected: &[u8]) {
    let target = shell.scratch.path("restored");
    let _ = std::fs::remove_file(&target);
    let _ = shell.run(&["restore", id, "restored"]).exits(0);
    assert_same_bytes(&read(&target), expected, id);
}

#[test]
fn a_chain_becomes_a_full_that_still_answers_to_the_old_id() {
    let shell = Shell::with_repository();
    let (ids, states) = chain(&shell, 4);
    let merged = shell.json(&["merge", &ids[2]]);
    assert_eq!((merged["kind"].as_str(), merged["sequence"].as_u64()), (Some("full"), Some(3)));
    assert_eq!(merged["removed"].as_array().map(Vec::len), Some(3));
    for id in [&ids[2], merged["backup_id"].as_str().expect("an id")] {
        assert_restores(&shell, id, &states[2]);
    }
    assert_restores(&shell, &ids[3], &states[3]);
    shell.run(&["restore", &ids[0], "x"]).fails(1, &["no backup", "it was merged into"]);
    assert_eq!(shell.json(&["list"]).as_array().map(Vec::len), Some(2));
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
    let next = shell.backup("db");
    assert_eq!((next["kind"].as_str(), next["sequence"].as_u64()), (Some("incremental"), Some(5)));
}

#[test]
fn a_run_of_incrementals_becomes_one() {
    let shell = Shell::with_repository();
    let (ids, states) = chain(&shell, 4);
    let run = format!("{}..latest", ids[1]);
    let merged = shell.json(&["merge", &run]);
    assert_eq!(merged["kind"], "incremental");
    assert_eq!(merged["parent"]["sequence"], 1);
    assert_restores(&shell, "latest", &states[3]);
    assert_restores(&shell, &ids[0], &states[0]);
    assert_eq!(shell.json(&["list"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn what_others_build_on_stays() {
    let shell = Shell::with_repository();
    let (ids, states) = chain(&shell, 3);
    let since = shell.json(&["backup", "db", "--volume", "db", "--parent", &ids[1]]);
    let merged = shell.json(&["merge", &ids[2]]);
    let kept: Vec<_> =
        merged["kept"].as_array().expect("an array").iter().map(|kept| &kept["backup_id"]).collect();
    assert_eq!(kept, [ids[1].as_str(), ids[0].as_str()]);
    for (id, state) in [(since["backup_id"].as_str().expect("an id"), &states[2]), (&ids[1], &states[1])] {
        assert_restores(&shell, id, state);
    }
}

#[test]
fn backups_that_are_no_run_are_refused() {
    let shell = Shell::with_repository();
    let (ids, _) = chain(&shell, 2);
    shell.run(&["merge", &ids[0]]).fails(2, &["alone", "HINT"]);
    shell.run(&["merge", &format!("{}..{}", ids[1], ids[0])]).fails(2, &["does not build on", "HINT"]);
    shell.run(&["merge", "ffff"]).fails(1, &["no backup"]);
}

#[test]
fn a_chain_stays_as_short_as_it_is_wanted() {
    let shell = Shell::with_repository();
    let mut states = Vec::new();
    for number in 1..=6 {
        write(&shell.scratch.path("db"), &vec![number; 200_000]);
        states.push(vec![number; 200_000]);
        let done = shell.json(&["backup", "db", "--volume", "db", "--max-chain", "3"]);
        assert_eq!(done["merged"].is_object(), number > 3, "backup {number}");
    }
    let listed = shell.json(&["list"]);
    let kinds: Vec<_> = listed.as_array().expect("an array").iter().map(|record| &record["kind"]).collect();
    assert_eq!(kinds, ["full", "incremental", "incremental"]);
    for (back, state) in ["latest~2", "latest~1", "latest"].iter().zip(&states[3..]) {
        assert_restores(&shell, back, state);
    }
}

#[test]
fn tags_stay_with_the_state_and_pinned_backups_stay() {
    let shell = Shell::with_repository();
    let (ids, states) = chain(&shell, 4);
    let _ = shell.json(&["tag", &ids[1], "--add", "pin"]);
    let _ = shell.json(&["tag", &ids[3], "--add", "release"]);
    let merged = shell.json(&["merge", "latest"]);
    let kept: Vec<_> =
        merged["kept"].as_array().expect("an array").iter().map(|kept| &kept["backup_id"]).collect();
    assert_eq!(kept, [ids[1].as_str(), ids[0].as_str()], "the pin, and what it needs");
    assert_eq!(shell.json(&["show", "latest"])["tags"], serde_json::json!(["release"]));
    let again = shell.json(&["tag", &ids[3], "--add", "again"]);
    assert_eq!(again["backup_id"], merged["backup_id"]);
    assert_eq!(shell.json(&["show", "latest"])["tags"], serde_json::json!(["release", "again"]));
    assert_eq!(shell.json(&["prune", "--keep-last", "1"])["removed"], 0);
    let _ = shell.json(&["tag", &ids[1], "--remove", "pin"]);
    assert_eq!(shell.json(&["prune", "--keep-last", "1"])["removed"], 2);
    assert_restores(&shell, "latest", &states[3]);
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
}

#[test]
fn what_is_damaged_is_not_merged_into_something_that_looks_sound() {
    let shell = Shell::with_repository();
    let (ids, states) = chain(&shell, 3);
    let deltas = shell.scratch.path("repo/volumes/db/deltas");
    let damaged = files_below(&deltas).into_iter().nth(1).expect("the second delta");
    let sound = read(&damaged);
    for at in [600, sound.len() / 2, sound.len() - 300] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        write(&damaged, &bytes);
        shell.run(&["merge", &ids[2]]).fails(1, &["0000000002", "HINT"]);
        assert_eq!(files_below(&deltas).len(), 3, "a failed merge left something, or took something");
    }
    write(&damaged, &sound);
    let _ = shell.json(&["merge", &ids[2]]);
    assert_restores(&shell, &ids[2], &states[2]);
}

/// Two volumes at one moment; returns what the backup told of each.
fn together(shell: &Shell, state: u8, more: &[&str]) -> Vec<serde_json::Value> {
    for volume in ["a", "b"] {
        write(&shell.scratch.path(volume), &vec![state; 200_000]);
    }
    let arguments = ["backup", "a", "b", "--group", "--volume", "a", "--volume", "b"];
    shell.json(&[&arguments[..], more].concat()).as_array().expect("a group").clone()
}

/// Numbers of a volume's backups, after a proof that each restores and that no group lost one of its two.
fn whole_groups(shell: &Shell, volume: &str) -> Vec<u64> {
    let listed = shell.json(&["list"]);
    let listed = listed.as_array().expect("an array");
    for record in listed.iter().filter(|record| record["group"].is_string()) {
        let members = listed.iter().filter(|other| other["group"] == record["group"]).count();
        assert_eq!(members, 2, "the group of {record}");
    }
    assert_eq!(shell.json(&["verify", "--data"])["ok"], true);
    let own = listed.iter().filter(|record| record["volume"] == volume);
    own.map(|record| record["sequence"].as_u64().expect("a number")).collect()
}

#[test]
fn a_merge_keeps_what_others_of_a_group_need_and_prune_takes_groups_whole() {
    let shell = Shell::with_repository();
    let rounds: Vec<_> = (1..=3).map(|state| together(&shell, state, &[])).collect();
    for volume in ["a", "b"] {
        let merged = shell.json(&["merge", "latest", "--volume", volume]);
        assert_eq!(merged["kind"], "full");
        assert_eq!(merged["group"], rounds[2][0]["group"], "the state that stays is still of its group");
        let kept = merged["kept"].as_array().expect("an array");
        assert_eq!(kept.len(), 2, "{merged}");
        assert!(
            kept.iter().all(|kept| kept["reason"].as_str().expect("a text").contains("of one group with"))
        );
        assert_eq!(whole_groups(&shell, volume), [1, 2, 3]);
    }
    assert_restores(&shell, rounds[1][0]["backup_id"].as_str().expect("an id"), &[2; 200_000]);
    assert_eq!(shell.json(&["prune", "--keep-last", "1"])["removed"], 4);
    assert_eq!(whole_groups(&shell, "b"), [3]);
}

#[test]
fn volumes_that_are_backed_up_together_lose_their_oldest_groups_together() {
    let shell = Shell::with_repository();
    for state in 1..=5 {
        for told in together(&shell, state, &["--max-chain", "3"]) {
            assert_eq!(told["merged"].is_object(), state > 3, "backup {state}");
            assert!(state <= 3 || told["merged"]["kept"] == serde_json::json!([]), "{told}");
        }
    }
    assert_eq!(whole_groups(&shell, "a"), [3, 4, 5]);
    assert_eq!(whole_groups(&shell, "b"), [3, 4, 5]);
}

#[test]
fn a_chain_stays_long_rather_than_tear_a_group_apart() {
    let shell = Shell::with_repository();
    for state in 1..=2 {
        let _ = together(&shell, state, &[]);
    }
    write(&shell.scratch.path("a"), &[3; 200_000]);
    let alone = ["backup", "a", "--volume", "a", "--max-chain", "2"];
    let ran = shell.run(&alone).exits(0);
    assert!(ran.err.contains("one of a group with its oldest states"), "{ran:?}");
    assert_eq!(whole_groups(&shell, "a"), [1, 2, 3]);
    // Only the first states of both may go: the second one of `b` is what its chain begins with.
    let _ = together(&shell, 4, &["--max-chain", "2"]);
    assert_eq!(whole_groups(&shell, "a"), [2, 3, 4]);
    assert_eq!(whole_groups(&shell, "b"), [2, 3]);
}

#[test]
fn a_pin_keeps_its_whole_group_beside_short_chains() {
    let shell = Shell::with_repository();
    let first = together(&shell, 1, &[]);
    let _ = shell.json(&["tag", first[1]["backup_id"].as_str().expect("an id"), "--add", "pin"]);
    for state in 2..=4 {
        let _ = together(&shell, state, &["--max-chain", "2"]);
    }
    assert_eq!(whole_groups(&shell, "a"), [1, 3, 4]);
    assert_eq!(whole_groups(&shell, "b"), [1, 3, 4]);
}
