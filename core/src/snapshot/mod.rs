//! Snapshots of logical volumes and zvols: taken, watched, kept as the baseline of the next hint, given back.
//!
//! A snapshot belongs to one volume of one repository: its name begins with [`Owner::prefix`]. Whoever holds the volume's
//! lock may remove every snapshot of that owner that is not the baseline, so a run that was killed leaves nothing that
//! its next run cannot find; no file on the side can disagree with what is there.
//! If a name of ours were given to a snapshot by somebody else, it would be removed: the prefix has 64 random-looking
//! bits for that reason.

pub mod lvm;
pub mod zfs;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;

use crate::backup_id::{BackupId, SnapshotRecord, VolumeIdentity};
use crate::error::{Error, ErrorKind, Result};
use crate::hint::ChangeMap;
use crate::units;

/// Whose snapshots: one volume of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// Of this volume of the repository with this id.
    #[must_use]
    pub fn new(repository_id: &str, volume: &str) -> Self {
        let digest = blake3::hash(format!("{repository_id}\0{volume}").as_bytes());
        Self(digest.to_hex().as_str()[..16].to_owned())
    }

    /// How the names of all its snapshots begin.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("blkdelta-{}-", self.0)
    }

    /// The name of the snapshot for one backup.
    #[must_use]
    pub fn name(&self, id: BackupId) -> String {
        format!("{}{}", self.prefix(), &id.to_string()[..8])
    }
}

/// Which layer takes snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Whichever the source stands on; none if there is none.
    #[default]
    Auto,
    /// LVM or it is an error.
    Lvm,
    /// ZFS or it is an error.
    Zfs,
    /// The source is read as it is.
    None,
}

/// Room for the changes of the origin while a thick snapshot exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CowSize {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the origin.
    Percent(u32),
}

impl Default for CowSize {
    fn default() -> Self {
        Self::Percent(10)
    }
}

impl fmt::Display for CowSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for CowSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::WrongUse, format!("'{text}' is not a size of a snapshot"))
                .hint("write bytes such as 20GiB, or a share of the volume such as 15%")
        };
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
                percent.map(Self::Percent).ok_or_else(wrong)
            }
            None => {
                let bytes = units::parse_size(text).ok().filter(|bytes| *bytes > 0);
                bytes.map(Self::Bytes).ok_or_else(wrong)
            }
        }
    }
}

/// A volume that its storage layer can take snapshots of.
pub trait Origin: Send + Sync {
    /// The device of the volume itself.
    fn device(&self) -> &Path;
    /// Which volume it is.
    fn identity(&self) -> &VolumeIdentity;
    /// Takes a read-only snapshot with this name.
    fn take(&self, name: &str, cow: CowSize) -> Result<Box<dyn Snapshot>>;
    /// Whether taking a snapshot freezes the file system on it, so that nobody may have frozen it before.
    fn freezes_itself(&self) -> bool;
    /// Whether a kept baseline costs the origin next to nothing, so that it is kept unless forbidden.
    fn keeps_cheaply(&self) -> bool;
}

/// Why there is no hint, in words for the result.
#[derive(Debug)]
pub struct NoHint(pub String);

/// A snapshot that this run has taken. Dropping it gives everything back, except what was kept.
pub trait Snapshot: Send + Sync {
    /// What is read.
    fn device(&self) -> &Path;
    /// How the backup's record names it; `kept` is false until [`Snapshot::keep`].
    fn record(&self) -> &SnapshotRecord;
    /// When it was taken.
    fn taken_at(&self) -> Timestamp;
    /// An error (kind `SnapshotLost`) as soon as it no longer holds the state at which it was taken.
    fn check(&self) -> Result<()>;
    /// Puts into `map` what may have changed between the baseline and this snapshot. The baseline is looked up by what
    /// never is given twice (LV UUID, ZFS guid), and its generation must be the recorded one.
    fn changes_since(
        &self,
        baseline: &SnapshotRecord,
        map: &mut ChangeMap,
    ) -> Result<std::result::Result<(), NoHint>>;
    /// Tells `map` what is mapped to data in this snapshot, where the layer knows; the rest reads as zeros.
    fn mapped(&self, _map: &mut ChangeMap) -> Result<std::result::Result<(), NoHint>> {
        Ok(Err(NoHint("the storage layer does not tell what is mapped".into())))
    }
    /// Lets it stay as the baseline of the next hint when this is dropped, in the cheapest form that serves (a bookmark);
    /// from now on its record says `kept`. Called before the commit: if the commit fails, the next run sweeps it away.
    fn keep(&mut self) -> Result<()>;
}

/// What a user may call a source: a path, or `zfs:POOL/VOL`.
#[must_use]
pub fn zfs_name(source: &Path) -> Option<&str> {
    source.to_str()?.strip_prefix("zfs:")
}

/// The volume behind `source`, when a layer can take snapshots of it; `None` when it is a plain source (or itself a
/// snapshot), which is read as it is. An error when a layer was asked for that it does not stand on.
pub fn origin(source: &Path, wanted: Wanted) -> Result<Option<Box<dyn Origin>>> {
    if wanted == Wanted::None {
        return Ok(None);
    }
    if wanted != Wanted::Lvm
        && let Some(volume) = zfs::find(source)?
    {
        return Ok(Some(Box::new(volume)));
    }
    if wanted != Wanted::Zfs
        && let Some(volume) = lvm::find(source)?
    {
        return Ok(Some(Box::new(volume)));
    }
    if wanted == Wanted::Auto && zfs_name(source).is_none_or(|name| name.contains('@')) {
        return Ok(None);
    }
    let layer = if wanted == Wanted::Lvm { "a logical volume" } else { "a zvol" };
    Err(Error::new(ErrorKind::WrongUse, format!("the source is not {layer} that a snapshot can be taken of"))
        .path(source)
        .hint("name /dev/VG/LV or zfs:POOL/VOL, or read it as it is with --snapshot none"))
}

/// Removes every snapshot (and what was made for reading it) whose name begins with `prefix`, but not `keep`; on every
/// layer that this host has. The caller holds the volume's lock. Returns the names.
pub fn sweep(prefix: &str, keep: Option<&SnapshotRecord>) -> Result<Vec<String>> {
    let mut swept = lvm::sweep(prefix, keep)?;
    swept.extend(zfs::sweep(prefix, keep)?);
    Ok(swept)
}

/// What somebody else's snapshot (or a zvol) really is, for a source that is read as it is: the origin's identity, and
/// for `zfs:POOL/VOL@SNAP` the device. `None` where the path says all.
pub fn brought(source: &Path) -> Result<Option<Brought>> {
    Ok(match zfs::brought(source)? {
        Some(brought) => Some(brought),
        None => lvm::brought(source)?,
    })
}

/// A snapshot that the user brings.
#[derive(Debug, Clone)]
pub struct Brought {
    /// The device to read.
    pub device: PathBuf,
    /// The volume that it shows.
    pub identity: VolumeIdentity,
    /// What is never given to another snapshot, if this is one that nobody can write to.
    pub read_only_snapshot: Option<String>,
}
