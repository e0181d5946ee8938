//! From flags to limits, and the folder through which limits of running work are changed.
//!
//! Each run that takes limits has a file `running/PID.json` in the state folder, which it reads again and again and removes
//! in the end; `limits set` replaces it. A file whose process is gone is removed by whoever sees it. If a process number
//! were used again meanwhile, the file would show limits of a run that has ended, and setting them would change nothing.

use std::path::{Path, PathBuf};

use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::storage::ObjectWriter;
use blkdelta_core::storage::local::FileReplacer;
use blkdelta_core::throttle::Limits;
use blkdelta_core::throttle::listener::parse_limits;
use blkdelta_core::throttle::schedule::Schedule;

use crate::cli::{GentleArgs, LimitArgs};
use crate::context::Context;

/// The limits of a run, with the file that may change them; the file goes with this value.
pub struct Running {
    /// For the library.
    pub gentleness: Gentleness,
    file: Option<PathBuf>,
}

impl Running {
    /// Takes the flags. Wrong ones are refused here, before anything starts.
    pub fn begin(args: GentleArgs) -> Result<Self> {
        let base = if args.full_speed { Gentleness::full_speed() } else { Gentleness::default() };
        Self::from(base, args)
    }

    /// The same for a restore, for which somebody waits: it listens to others only if that is asked for.
    pub fn begin_restore(args: GentleArgs) -> Result<Self> {
        Self::from(Gentleness::full_speed(), args)
    }

    fn from(mut gentleness: Gentleness, args: GentleArgs) -> Result<Self> {
        change(&mut gentleness.limits, args.limits)?;
        if args.ionice.is_some() {
            gentleness.priority.io = args.ionice;
        }
        if args.nice.is_some() {
            gentleness.priority.nice = args.nice;
        }
        gentleness.priority.cgroup = args.cgroup;
        let file = match write_control(&gentleness.limits) {
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

fn write_control(limits: &Limits) -> Result<PathBuf> {
    let folder = folder()?;
    std::fs::create_dir_all(&folder).map_err(|source| Error::io("making", &folder, source))?;
    let file = folder.join(format!("{}.json", std::process::id()));
    replace(&file, limits)?;
    Ok(file)
}

/// Puts limits that were named in the place of the present ones.
pub fn change(limits: &mut Limits, args: LimitArgs) -> Result<()> {
    limits.latency_target = args.latency_target.unwrap_or(limits.latency_target);
    limits.bwlimit = args.bwlimit.or(limits.bwlimit);
    limits.iops_limit = args.iops_limit.or(limits.iops_limit);
    limits.write_limit = args.write_limit.or(limits.write_limit);
    limits.min_rate = args.min_rate.unwrap_or(limits.min_rate);
    if !args.limit_at.is_empty() {
        limits.limit_at = args.limit_at;
    }
    Schedule::new(limits.limit_at.clone()).map(drop)
}

/// Writes a control file whole.
pub fn replace(file: &Path, limits: &Limits) -> Result<()> {
    let text =
        serde_json::to_vec_pretty(limits).map_err(|source| Error::io("writing JSON", file, source.into()))?;
    let mut out = Box::new(FileReplacer::begin(file)?);
    out.write(&text)?;
    out.finish()
}

/// Running work: process numbers, files and limits. Files of the dead are removed.
pub fn running() -> Result<Vec<(u32, PathBuf, Limits)>> {
    let folder = folder()?;
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let pid = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            let _ = std::fs::remove_file(&path);
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io("reading", &path, source))?;
        let (limits, _) = parse_limits(&text, &path)?;
        found.push((pid, path, limits));
    }
    found.sort_by_key(|(pid, _, _)| *pid);
    Ok(found)
}

/// The work that is meant; an error when there is none.
pub fn chosen(pid: Option<u32>) -> Result<Vec<(u32, PathBuf, Limits)>> {
    let mut found = running()?;
    found.retain(|(number, _, _)| pid.is_none_or(|pid| pid == *number));
    if found.is_empty() {
        let folder = folder()?;
        return Err(Error::new(ErrorKind::NotFound, "nothing runs whose limits could be set")
            .path(folder)
            .hint(
                "runs are found through the state folder: use the same user and BLKDELTA_STATE as they do",
            ));
    }
    Ok(found)
}

fn folder() -> Result<PathBuf> {
    Ok(Context::state_folder()?.join("running"))
}
