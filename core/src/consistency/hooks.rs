//! Commands of the user before and after the snapshot: `sh -c`, with what they are about in their environment.
//!
//! A failing command before the snapshot stops the run before anything is frozen. The one after it runs on every path,
//! also when the first one failed half-way; its own failure comes too late to undo anything and is a warning.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::sys::command::Command;

/// How long a hook may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Commands of the user.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Before anything else.
    pub before: Option<String>,
    /// After all else.
    pub after: Option<String>,
    /// What they find in their environment besides `BLKDELTA_EVENT`.
    pub environment: Vec<(String, String)>,
}

impl Hooks {
    /// Runs the first one. Dropping the answer runs the other.
    pub(super) fn begin(&self) -> Result<After<'_>> {
        let after = After { hooks: self, pending: true };
        if let Some(command) = &self.before {
            let hint =
                "the snapshot was not taken; correct the command of --before-snapshot, or leave it out";
            self.run("before-snapshot", command).map_err(|error| error.hint(hint))?;
        }
        Ok(after)
    }

    fn run(&self, event: &str, command: &str) -> Result<()> {
        let shell = Command::new("sh").args(["-c", command]).patience(PATIENCE).env("BLKDELTA_EVENT", event);
        let shell = self.environment.iter().fold(shell, |shell, (name, value)| shell.env(name, value));
        shell
            .run()
            .map(drop)
            .map_err(|error| Error::new(error.kind(), format!("the {event} hook")).because(error))
    }
}

/// The command that has yet to run.
pub(super) struct After<'a> {
    hooks: &'a Hooks,
    pending: bool,
}

impl After<'_> {
    /// Runs it; its failure is a warning.
    pub(super) fn finish(mut self) -> Option<String> {
        self.run()
    }

    fn run(&mut self) -> Option<String> {
        let command = self.hooks.after.as_ref().filter(|_| std::mem::take(&mut self.pending))?;
        let error = self.hooks.run("after-snapshot", command).err()?;
        Some(format!("{}: what it was to undo may still be in place", error.full_text()))
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        if let Some(warning) = self.run() {
            tracing::warn!("{warning}");
        }
    }
}
