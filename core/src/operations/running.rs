//! The limits of running work, and changing them from outside.
//!
//! Each run that takes limits has a file `running/PID.NUMBER.json` below the state folder, which it reads again and again
//! and removes in the end; whoever may write there replaces it. A file whose process is gone is removed by whoever sees it.
//! If a process number were used again meanwhile, the file would show limits of a run that has ended, and setting them
//! would change nothing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;

use super::gentleness::Gentleness;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::local::{remove_unfinished, replace_file};
use crate::throttle::Limits;
use crate::throttle::listener::parse_limits;
use crate::throttle::schedule::Schedule;

/// The limits of a run, with the file that may change them; the file goes with this value.
#[derive(Debug)]
pub struct Running {
    /// For the options of the run.
    pub gentleness: Gentleness,
    file: Option<PathBuf>,
}

/// Work that goes on.
#[derive(Debug, Clone, Serialize)]
pub struct RunningWork {
    /// Its process.
    pub pid: u32,
    /// Its present limits.
    pub limits: Limits,
    #[serde(skip)]
    file: PathBuf,
}

impl Running {
    /// Checks the limits and makes the file. Without a folder to make it in, the work runs all the same.
    ///
    /// # Errors
    /// `WrongUse` for windows of time that contradict each other.
    pub fn begin(state: &Path, mut gentleness: Gentleness) -> Result<Self> {
        Schedule::new(gentleness.limits.limit_at.clone())?;
        let file = match write_control(state, &gentleness.limits) {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::debug!("limits cannot be changed while this runs: {}", error.full_text());
                None
            }
        };
        gentleness.control.clone_from(&file);
        Ok(Self { gentleness, file })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// All running work whose state folder this is, by process. Files of the dead are removed.
pub fn list(state: &Path) -> Result<Vec<RunningWork>> {
    remove_unfinished(&folder(state));
    let Ok(entries) = std::fs::read_dir(folder(state)) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for file in entries.flatten().map(|entry| entry.path()) {
        let Some(pid) = process_of(&file) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            let _ = std::fs::remove_file(&file);
            continue;
        }
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue, // it has just ended
            Err(source) => return Err(Error::io("reading", &file, source)),
        };
        let (limits, _) = parse_limits(&text, &file)?;
        found.push(RunningWork { pid, limits, file });
    }
    found.sort_by_key(|work| work.pid);
    Ok(found)
}

/// Changes the limits of all running work, or of that of one process, and tells the new ones.
///
/// # Errors
/// `NotFound` when nothing runs that is meant; what `change` or writing says.
pub fn change(
    state: &Path,
    pid: Option<u32>,
    change: &mut dyn FnMut(&mut Limits) -> Result<()>,
) -> Result<Vec<RunningWork>> {
    let mut found = list(state)?;
    found.retain(|work| pid.is_none_or(|pid| pid == work.pid));
    if found.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "nothing runs whose limits could be set")
            .path(folder(state))
            .hint(
                "runs are found through the state folder: use the same user and BLKDELTA_STATE as they do",
            ));
    }
    for work in &mut found {
        change(&mut work.limits)?;
        Schedule::new(work.limits.limit_at.clone())?;
        replace(&work.file, &work.limits)?;
    }
    Ok(found)
}

fn folder(state: &Path) -> PathBuf {
    state.join("running")
}

fn process_of(file: &Path) -> Option<u32> {
    let name = file.file_name()?.to_str()?.strip_suffix(".json")?;
    name.split_once('.')?.0.parse().ok()
}

fn write_control(state: &Path, limits: &Limits) -> Result<PathBuf> {
    /// A process may do several things at once.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = folder(state);
    std::fs::create_dir_all(&folder).map_err(|source| Error::io("making", &folder, source))?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file = folder.join(format!("{}.{number}.json", std::process::id()));
    replace(&file, limits)?;
    Ok(file)
}

/// Writes a control file whole.
fn replace(file: &Path, limits: &Limits) -> Result<()> {
    let text =
        serde_json::to_vec_pretty(limits).map_err(|source| Error::io("writing JSON", file, source.into()))?;
    replace_file(file, &text)
}
