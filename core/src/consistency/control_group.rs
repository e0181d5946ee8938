//! Stopping all processes of a control group, and letting them go on: what holds the writers of several logical volumes at
//! one moment, because LVM freezes each file system by itself, one after the other.
//!
//! Version 2 has `cgroup.freeze` in every group but the root, version 1 `freezer.state` in the hierarchy of the freezer.
//! Trade-off: the processes stop wherever they are, and their clients wait; a freeze of the file system stops only writes.
//! If we were in that group ourselves nobody would be left to let it go on, so that is refused.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// How often a group is looked at that is still stopping.
const LOOK: Duration = Duration::from_millis(5);

/// A control group that can be frozen.
pub(super) struct ControlGroup {
    folder: PathBuf,
    switch: &'static str,
    words: [&'static str; 2],
}

impl ControlGroup {
    /// The group of this folder; `None` when it is no control group that can be frozen.
    pub fn find(folder: &Path) -> Option<Self> {
        let kinds = [("cgroup.freeze", ["1", "0"]), ("freezer.state", ["FROZEN", "THAWED"])];
        let (switch, words) = kinds.into_iter().find(|(switch, _)| folder.join(switch).is_file())?;
        Some(Self { folder: folder.to_path_buf(), switch, words })
    }

    /// Stops all its processes; returns when the last one stands still.
    pub fn freeze(&self, patience: Duration) -> Result<()> {
        if holds_us(&self.folder) {
            return Err(Error::new(ErrorKind::WrongUse, "blkdelta itself runs in this control group")
                .path(&self.folder)
                .hint("name the group of the database's service"));
        }
        if self.is_frozen() {
            let problem = Error::new(ErrorKind::Refused, "this control group is frozen already");
            return Err(problem.path(&self.folder).hint("wait for whoever froze it, or thaw it"));
        }
        self.turn(self.words[0]).map_err(|source| Error::io("freezing", &self.folder, source))?;
        let begun = Instant::now();
        while !self.is_frozen() {
            if begun.elapsed() >= patience {
                let _ = self.turn(self.words[1]);
                return Err(Error::new(ErrorKind::Refused, "its processes do not stand still in time")
                    .path(&self.folder)
                    .hint(
                        "one of them waits for a device: try again, or give more time with --freeze-timeout",
                    ));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Lets them go on; `EINVAL` when they did so already.
    pub fn thaw(&self) -> io::Result<()> {
        let was_frozen = self.is_frozen();
        self.turn(self.words[1])?;
        if was_frozen { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    fn turn(&self, word: &str) -> io::Result<()> {
        fs::write(self.folder.join(self.switch), word)
    }

    fn is_frozen(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        match self.switch {
            "cgroup.freeze" => read("cgroup.events").lines().any(|line| line == "frozen 1"),
            switch => read(switch).trim() == self.words[0],
        }
    }
}

/// Whether this process is in the group or in one below it.
fn holds_us(folder: &Path) -> bool {
    let ours = std::process::id().to_string();
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let below = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    processes.lines().any(|pid| pid == ours) || below.filter(|path| path.is_dir()).any(|path| holds_us(&path))
}
