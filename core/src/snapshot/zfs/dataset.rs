//! What `zfs` says of a dataset (a file system, a zvol, a snapshot or a bookmark), and destroying one.
//!
//! Facts are asked for when they are needed and never kept: a name can be given to something else at any time, only a
//! guid cannot. While a pool is suspended `zfs` may hang where no signal reaches it; so [`unusable_pool`] asks the kernel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::patiently;
use crate::error::Result;
use crate::sys::command::{Command, Said};

/// How long others may still hold what is to be destroyed: udev looks into every device that was closed.
const BUSY: Duration = Duration::from_secs(10);

/// The facts of a dataset.
#[derive(Debug, Default)]
pub struct Dataset {
    /// `filesystem`, `volume`, `snapshot` or `bookmark`.
    pub kind: String,
    /// Never given twice; a bookmark has its snapshot's.
    pub guid: String,
    /// The transaction group in which it was made, in this pool.
    pub createtxg: String,
    /// The snapshot under a clone.
    pub origin: Option<String>,
}

/// Runs `zfs`.
pub fn zfs<const N: usize>(arguments: [&str; N]) -> Result<Said> {
    Command::new("zfs").args(arguments).run()
}

/// The facts of the dataset with this name; `None` when there is none.
pub fn look(name: &str) -> Result<Option<Dataset>> {
    let is_missing = |text: &str| ["does not exist", "no such pool"].iter().any(|what| text.contains(what));
    let said = match zfs(["get", "-Hp", "-o", "property,value", "type,guid,createtxg,origin", name]) {
        Err(error) if is_missing(&error.to_string()) => return Ok(None),
        said => said?,
    };
    Ok(Some(facts(&said.out)))
}

fn facts(lines: &str) -> Dataset {
    let mut found = Dataset::default();
    for (property, value) in lines.lines().filter_map(|line| line.split_once('\t')) {
        match property {
            "type" => value.clone_into(&mut found.kind),
            "guid" => value.clone_into(&mut found.guid),
            "createtxg" => value.clone_into(&mut found.createtxg),
            "origin" => found.origin = (value != "-").then(|| value.to_owned()),
            _ => {}
        }
    }
    found
}

/// A moment in a volume's life that has a name: a snapshot or a bookmark.
#[derive(Debug)]
pub struct Mark {
    /// `POOL/VOL@NAME` or `POOL/VOL#NAME`.
    pub name: String,
    /// As in [`Dataset`].
    pub guid: String,
    /// As in [`Dataset`].
    pub createtxg: String,
}

impl Mark {
    /// Whether it holds data.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.name.contains('@')
    }
}

/// The snapshots and bookmarks of a volume.
pub fn marks(volume: &str) -> Result<Vec<Mark>> {
    let columns = "name,guid,createtxg";
    let said = zfs(["list", "-Hp", "-d", "1", "-t", "snapshot,bookmark", "-o", columns, volume])?;
    let rows = said.out.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let marks = rows.filter_map(|row| <[String; 3]>::try_from(row).ok());
    Ok(marks.map(|[name, guid, createtxg]| Mark { name, guid, createtxg }).collect())
}

/// Destroys a snapshot, a bookmark, or a clone with the snapshots that others took of it; never what depends on it.
pub fn destroy(name: &str) -> Result<()> {
    let attempt = || match name.contains(['@', '#']) {
        true => zfs(["destroy", name]),
        false => zfs(["destroy", "-r", name]),
    };
    let mut busy = None;
    let ended = patiently(BUSY, || match attempt() {
        Err(error) if error.to_string().contains("busy") => {
            busy = Some(error);
            None
        }
        ended => Some(ended),
    });
    match (ended, busy) {
        (Some(ended), _) => ended.map(|_| ()),
        (None, busy) => busy.map_or(Ok(()), Err),
    }
}

/// The part of a name behind the last `/`, `@` or `#`.
#[must_use]
pub fn short_name(name: &str) -> &str {
    name.rsplit(['/', '@', '#']).next().unwrap_or_default()
}

/// Whether the kernel has ZFS, so that there can be pools at all.
#[must_use]
pub fn kernel_has_zfs() -> bool {
    Path::new("/sys/module/zfs").exists()
}

/// The state of the dataset's pool, if it is one in which nothing can be done (SUSPENDED, FAULTED).
#[must_use]
pub fn unusable_pool(name: &str) -> Option<String> {
    let pool = name.split(['/', '@', '#']).next().unwrap_or_default();
    let state = std::fs::read_to_string(kernel_statistics().join(pool).join("state")).ok()?;
    let state = state.trim();
    (!matches!(state, "ONLINE" | "DEGRADED")).then(|| state.to_owned())
}

/// The pools that are imported.
#[must_use]
pub fn pools() -> Vec<String> {
    let entries = std::fs::read_dir(kernel_statistics()).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().join("state").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn kernel_statistics() -> PathBuf {
    PathBuf::from("/proc/spl/kstat/zfs")
}
