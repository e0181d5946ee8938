//! The code stays as it is meant: who may import whom, where `unsafe` may stand, how long a file may be.
//!
//! The sources are read as text, line by line; comments are left out. That is coarse, and good enough for a house whose
//! imports are formatted by rustfmt.
#![allow(clippy::expect_used, clippy::unwrap_used)] // the helpers of a test may end it too

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use support::scratch::files_below;

/// The floors of the core, lowest first: a module may use those above it in this list, and its own neighbours where the
/// flag allows it. `error` is used by all; the stages share `flow` and know nothing of each other.
const FLOORS: [(&[&str], Neighbours); 9] = [
    (&["error"], Neighbours::Unknown),
    (&["geometry", "digest", "backup_id", "cancel", "progress", "units", "grain_set"], Neighbours::Allowed),
    (&["flow", "sys", "format", "throttle", "retention", "crypto"], Neighbours::Allowed),
    (
        &["source", "snapshot", "consistency", "hint", "sink", "manifest", "delta", "storage"],
        Neighbours::Allowed,
    ),
    (&["reader", "hasher", "comparer", "encoder"], Neighbours::Unknown),
    (&["repository"], Neighbours::Unknown),
    (&["local_state"], Neighbours::Unknown),
    (&["operations"], Neighbours::Unknown),
    (&["lib"], Neighbours::Unknown),
];

/// Whether modules of one floor may use each other (never in a circle).
#[derive(PartialEq)]
enum Neighbours {
    Allowed,
    Unknown,
}

const LINES_MAX: usize = 450;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Every Rust source of ours below this folder of the workspace.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files = files_below(&root().join(folder));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!files.is_empty(), "no sources in {folder}: the test looks in the wrong place");
    files
}

fn all_sources() -> Vec<PathBuf> {
    ["core", "agent", "bindings", "tests", "benches"].into_iter().flat_map(sources).collect()
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).expect("a path of the workspace").display().to_string()
}

/// The text without comments, and without the unit tests at the end of a file.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source is UTF-8");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The module of a file of the core: its first name below `src`.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(root().join("core/src")).expect("a file of the core");
    let first = below.iter().next().expect("a name").to_str().expect("a name that is text");
    first.trim_end_matches(".rs").to_owned()
}

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|(modules, _)| modules.contains(&module));
    found.unwrap_or_else(|| panic!("'{module}' is on no floor: put it into FLOORS of tests/tidy.rs"))
}

/// Modules that a file names as `crate::module`, also inside `use crate::{...}`.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| {
        text.trim().split(|c: char| !c.is_ascii_lowercase() && c != '_').next().map(str::to_owned)
    };
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => found.extend(word(rest)),
            Some(group) => found.extend(outer_items(group).iter().filter_map(|item| word(item))),
        }
    }
    found.remove("");
    found
}

/// The items of a group whose opening brace was taken off, without what is in braces inside.
fn outer_items(group: &str) -> Vec<String> {
    let (mut depth, mut outer) = (0, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            c if depth == 0 => outer.push(c),
            _ => {}
        }
    }
    outer.split(',').map(str::to_owned).collect()
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn the_reading_of_imports_works() {
    assert_eq!(module(&root().join("core/src/sys/ring.rs")), "sys");
    let found = imports(
        "use crate::error::{Error, Result};\nuse crate::{sys::{files, host}, flow};\ncrate::digest::is_zero(x)",
    );
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["digest", "error", "flow", "sys"]);
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for path in sources("core/src") {
        let from = module(&path);
        for to in imports(&code(&path)) {
            let allowed = match floor(&from).cmp(&floor(&to)) {
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => from == to || FLOORS[floor(&from)].1 == Neighbours::Allowed,
                std::cmp::Ordering::Less => false,
            };
            if !allowed {
                wrong.push(format!("{} uses {to}", name(&path)));
            }
        }
    }
    assert_none("imports against the direction of FLOORS", &wrong);
}

#[test]
fn neighbours_do_not_use_each_other_in_a_circle() {
    let uses: BTreeSet<(String, String)> = sources("core/src")
        .iter()
        .flat_map(|path| imports(&code(path)).into_iter().map(|to| (module(path), to)).collect::<Vec<_>>())
        .filter(|(from, to)| from != to)
        .collect();
    let mut reach = uses;
    loop {
        let next: BTreeSet<_> = reach
            .iter()
            .flat_map(|(from, over)| {
                let further = reach.iter().filter(move |(start, _)| start == over);
                further.map(move |(_, to)| (from.clone(), to.clone()))
            })
            .collect();
        let before = reach.len();
        reach.extend(next);
        if reach.len() == before {
            break;
        }
    }
    let circles: Vec<String> =
        reach.iter().filter(|(from, to)| from == to).map(|(from, _)| format!("{from} uses itself")).collect();
    assert_none("circles", &circles);
}

/// Storage keeps bytes and knows no format; a format is bytes and structs, and touches no file.
#[test]
fn storage_and_format_know_nothing_of_each_other() {
    let mut wrong = Vec::new();
    for (folder, forbidden) in
        [("core/src/storage", &["format"][..]), ("core/src/format", &["sys", "flow", "storage"])]
    {
        for path in sources(folder) {
            let found = imports(&code(&path));
            wrong.extend(
                forbidden
                    .iter()
                    .filter(|to| found.contains(**to))
                    .map(|to| format!("{} uses {to}", name(&path))),
            );
        }
    }
    assert_none("imports that a module must not have", &wrong);
}

/// The agent is a face of the library: what it can do, a program can do too.
#[test]
fn system_calls_of_the_agent_go_through_the_core() {
    let wrong = |path: &PathBuf| ["libc::", "nix::"].iter().any(|word| code(path).contains(word));
    let found: Vec<String> =
        sources("agent/src").iter().filter(|path| wrong(path)).map(|path| name(path)).collect();
    assert_none("system calls in the agent", &found);
}

/// Where `unsafe` may stand: the system calls, and the files that C calls.
const UNSAFE: [&str; 2] = ["core/src/sys/", "bindings/"];

#[test]
fn unsafe_stands_at_the_borders_alone_and_is_explained() {
    let mut wrong = Vec::new();
    for path in all_sources() {
        let words = |line: &str| {
            line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "unsafe")
        };
        let code = code(&path);
        let mut lines = code.lines().filter(|line| words(line) && !line.contains('"')).peekable();
        if lines.peek().is_none() {
            continue;
        }
        // A name that is not mangled is unsafe in a file without anything to explain.
        let explained = || std::fs::read_to_string(&path).unwrap().contains("// SAFETY:");
        if !UNSAFE.iter().any(|border| name(&path).starts_with(border)) {
            wrong.push(format!("{} has unsafe code", name(&path)));
        } else if lines.any(|line| line.trim() != "#[unsafe(no_mangle)]") && !explained() {
            wrong.push(format!("{} does not say why its unsafe code is sound", name(&path)));
        }
    }
    assert_none("unsafe", &wrong);
}

#[test]
fn names_can_be_traced_by_eye() {
    let mut wrong = Vec::new();
    for path in all_sources() {
        for line in code(&path).lines().map(str::trim) {
            let glob = (line.starts_with("use ") || line.starts_with("pub use ")) && line.contains("::*");
            // `pub use armed::*` switches a whole file between its two builds.
            let armed = line == "pub use armed::*;" && name(&path) == "core/src/sys/faults.rs";
            let inside_tests = line == "use super::*;";
            if (glob && !armed && !inside_tests) || line.starts_with("#[path") {
                wrong.push(format!("{}: {line}", name(&path)));
            }
        }
    }
    assert_none("imports of everything, and modules that are not where their name says", &wrong);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut wrong = Vec::new();
    for path in all_sources() {
        let lines = std::fs::read_to_string(&path).expect("a source is UTF-8").lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines} lines", name(&path)));
        }
    }
    assert_none("files that are too long", &wrong);
}

#[test]
fn every_file_says_what_it_is() {
    let first_line = |path: &PathBuf| std::fs::read_to_string(path).unwrap().starts_with("//! ");
    let silent: Vec<String> =
        all_sources().iter().filter(|path| !first_line(path)).map(|path| name(path)).collect();
    assert_none("files that do not begin with what they are", &silent);
}

#[test]
fn no_tabs_and_no_traces_of_a_machine() {
    let mut wrong = Vec::new();
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).expect("a source is UTF-8");
        let private = ["/home", "/root", "/work"].iter().any(|start| text.contains(&format!("{start}/")));
        if text.contains('\t') || text.contains('\r') || private {
            wrong.push(name(&path));
        }
    }
    assert_none("tabs, carriage returns, or a path of somebody's machine", &wrong);
}

/// A word has one file name on every floor.
#[test]
fn every_verb_has_its_file_in_core_agent_and_tests() {
    let verbs =
        sources("tests/cli").into_iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    let verbs: Vec<String> = verbs.filter(|verb| !["main", "damage"].contains(&verb.as_str())).collect();
    for path in sources("agent/src/commands") {
        let verb = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(verb == "mod" || verbs.contains(&verb), "{verb} has no file in tests/cli");
    }
    let missing: Vec<&String> =
        verbs.iter().filter(|verb| !root().join(format!("agent/src/commands/{verb}.rs")).is_file()).collect();
    assert!(missing.is_empty(), "no file in agent/src/commands: {missing:?}");
}

/// Our shell scripts: those that say so in their first line.
fn scripts() -> Vec<PathBuf> {
    let folders = ["scripts", "tests", "benches", "bindings", ".ci"];
    let mut files: Vec<_> =
        folders.into_iter().flat_map(|folder| files_below(&root().join(folder))).collect();
    files.retain(|path| {
        let bytes = std::fs::read(path).expect("a file that can be read");
        let first = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let first = first.lines().next().unwrap_or_default();
        first.starts_with("# shellcheck shell=") || (first.starts_with("#!") && first.ends_with("sh"))
    });
    assert!(files.len() > 20, "{} scripts: the test looks in the wrong place", files.len());
    files
}

/// The lines that pipe into a `grep` which ends at its first match.
fn piped_into_a_quiet_grep(script: &str) -> Vec<String> {
    let quiet = |word: &str| match word.strip_prefix("--") {
        Some(long) => ["quiet", "silent"].contains(&long),
        None => word.starts_with('-') && word.contains('q'),
    };
    let is_quiet_grep = |reader: &str| {
        let words = reader.trim_start_matches('&').split_ascii_whitespace();
        let mut words = words.skip_while(|word| word.contains('='));
        words.next() == Some("grep")
            && words.take_while(|word| !["&&", ";"].contains(word) && !word.ends_with(';')).any(quiet)
    };
    let script = script.replace("\\\n", " ").replace("|\n", "| ");
    let lines = script.lines().filter(|line| !line.trim_start().starts_with('#'));
    let wrong = lines.filter(|line| line.replace("||", ";").split('|').skip(1).any(is_quiet_grep));
    wrong.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_reading_of_pipes_works() {
    for wrong in [
        "ls | grep -q x",
        "ls |grep -Fxq x",
        "ls | sort | LC_ALL=C grep -i -q x && y",
        "ls | grep x -q",
        "ls |\n  grep --quiet x",
        "ls \\\n  | grep -qx y",
    ] {
        assert_eq!(piped_into_a_quiet_grep(wrong).len(), 1, "{wrong}");
    }
    for right in [
        "grep -q x file",
        "ls || grep -q x file",
        "ls | grep x >/dev/null",
        "ls | grep x; cmp -q a b",
        "# ls | grep -q x",
        "ls | grep -v '[|]' && grep -q x file",
    ] {
        assert!(piped_into_a_quiet_grep(right).is_empty(), "{right}");
    }
}

/// Such a reader goes before its writer has ended: by chance that one dies of SIGPIPE, and `set -o pipefail` calls the
/// check failed.
#[test]
fn no_reader_of_a_pipe_ends_early() {
    let mut wrong = Vec::new();
    for path in scripts() {
        let text = std::fs::read_to_string(&path).expect("a script is UTF-8");
        wrong.extend(piped_into_a_quiet_grep(&text).iter().map(|line| format!("{}: {line}", name(&path))));
    }
    assert_none("`| grep -q`: write `| grep ... >/dev/null`", &wrong);
}
