//! The built `blkdelta`, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::scratch::{Scratch, no_descriptor_leaks};

/// The command's path. Cargo builds another member's binary for nobody, so it is built here, once per test program, with
/// the profile and into the target folder of the test itself.
#[must_use]
pub fn binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let (target, profile) = target_and_profile();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let name = if profile == "debug" { "dev" } else { profile.as_str() };
        let mut build = Command::new(cargo);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "build",
            "--quiet",
            "-p",
            "blkdelta",
            "--profile",
            name,
        ]);
        build.arg("--target-dir").arg(&target);
        let status = build.status().expect("running cargo");
        assert!(status.success(), "blkdelta does not build");
        target.join(profile).join("blkdelta")
    })
}

/// From `TARGET/PROFILE/deps/test-program`.
fn target_and_profile() -> (PathBuf, String) {
    let program = std::env::current_exe().expect("the path of the test program");
    let profile = program.parent().and_then(Path::parent).expect("deps inside a profile's folder");
    let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile's name");
    (profile.parent().expect("the target folder").to_path_buf(), name.to_owned())
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output, as bytes (a restore to `-` writes a volume).
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let err = String::from_utf8(output.stderr).expect("errors are text");
        Self { code: output.status.code().unwrap_or(-1), out: output.stdout, err }
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("standard output is text")
    }

    /// Standard output as exactly one JSON document.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|error| panic!("not one JSON document ({error}): {self:?}"))
    }

    /// Ends the test unless the exit code is this one.
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    /// A failure that follows the contract: this code, nothing on standard output, and on standard error what went wrong,
    /// these words, and a next step.
    pub fn fails(self, code: i32, words: &[&str]) {
        let ran = self.exits(code);
        assert!(
            ran.out.is_empty(),
            "a failure wrote to standard output: {}",
            String::from_utf8_lossy(&ran.out)
        );
        assert!(ran.err.contains("blkdelta: "), "{}", ran.err);
        assert!(ran.err.lines().any(|line| line.starts_with("HINT: ")), "no next step: {}", ran.err);
        for word in words {
            assert!(ran.err.contains(word), "'{word}' is not in: {}", ran.err);
        }
    }
}

/// A scratch folder in which the command runs, with its own repository and state.
pub struct Shell {
    /// The folder; `repo` and `state` in it are the command's.
    pub scratch: Scratch,
}

impl Default for Shell {
    fn default() -> Self {
        Self::new()
    }
}

impl Shell {
    /// Without a repository.
    #[must_use]
    pub fn new() -> Self {
        Self { scratch: Scratch::new() }
    }

    /// With a repository of small blocks (64 KiB) and grains (4 KiB).
    #[must_use]
    pub fn with_repository() -> Self {
        let shell = Self::new();
        let _ = shell.run(&["init", "--block-size", "64KiB", "--grain-size", "4KiB"]).exits(0);
        shell
    }

    /// The command in the scratch folder: relative paths are in it, and so are repository and state.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.scratch.folder()).args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BLKDELTA_") {
                command.env_remove(name);
            }
        }
        command
            .env("BLKDELTA_REPO", self.scratch.path("repo"))
            .env("BLKDELTA_STATE", self.scratch.path("state"));
        command
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments))
    }

    /// Runs it with --json, expects success, returns the document.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        self.run(&all).exits(0).json()
    }

    /// Backs the file `name` up as a volume of that name; returns the report.
    #[must_use]
    pub fn backup(&self, name: &str) -> Value {
        self.json(&["backup", name, "--volume", name])
    }
}

/// Sends a signal (`-TERM`) to a run. Between fork and exec `kill` too holds every descriptor of ours.
pub fn send_signal(child: &Child, signal: &str) {
    let gate = no_descriptor_leaks();
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).spawn();
    drop(gate);
    let ended = kill.and_then(|mut kill| kill.wait()).expect("running kill");
    assert!(ended.success(), "kill {signal} of a run that must not have ended");
}

/// Runs a command to its end.
#[must_use]
pub fn finish(mut command: Command) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let gate = no_descriptor_leaks();
    let child = command.spawn().expect("starting blkdelta");
    drop(gate);
    Ran::of(child.wait_with_output().expect("waiting for blkdelta"))
}
