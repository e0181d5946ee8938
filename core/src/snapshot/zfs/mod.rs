//! Snapshots of zvols, taken and looked at with the `zfs` program.
//!
//! A zvol is known by the guid of its dataset, which neither renaming nor rolling back changes. What a run makes is named
//! after its [`Owner`](super::Owner): snapshot `POOL/VOL@NAME`, for reading the clone `POOL/NAME` beside the volume, and
//! for the next hint the bookmark `POOL/VOL#NAME`. If a name were trusted instead of a guid, another volume's changes
//! could be taken for this one's.

mod dataset;
mod device;
mod set_back;
mod sweep;
mod taken;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Brought, CowSize, Origin, Snapshot, zfs_name};
use crate::backup_id::{SnapshotRecord, VolumeIdentity};
use crate::error::{Error, ErrorKind, Result};

/// How every name of ours begins, whoever the owner is.
const OURS: &str = "blkdelta-";

/// A zvol.
#[derive(Clone)]
pub struct Zvol {
    name: String,
    guid: String,
    device: PathBuf,
    identity: VolumeIdentity,
}

/// The zvol behind a path or a name `zfs:POOL/VOL`; `None` for what is no zvol, and for what already is a snapshot.
pub fn find(source: &Path) -> Result<Option<Zvol>> {
    let Some(name) = name_of(source)?.filter(|name| !name.contains('@')) else { return Ok(None) };
    let found = volume(&name)?;
    if found.origin.is_some() && dataset::short_name(&name).starts_with(OURS) {
        return Ok(None);
    }
    let device = device_of(source, &name)?;
    let identity = VolumeIdentity::new(format!("zfs:{}", found.guid))?;
    Ok(Some(Zvol { name, guid: found.guid, device, identity }))
}

/// The zvol, or the snapshot of one, that a path or name leads to, to be read as it is; with the volume's identity.
pub fn brought(source: &Path) -> Result<Option<Brought>> {
    let Some(name) = name_of(source)? else { return Ok(None) };
    let (of_volume, _) = name.split_once('@').unwrap_or((&name, ""));
    let identity = VolumeIdentity::new(format!("zfs:{}", volume(of_volume)?.guid))?;
    let snapshot = if name.contains('@') { dataset::look(&name)? } else { None };
    let read_only_snapshot = snapshot.map(|snapshot| format!("zfs:{}", snapshot.guid));
    Ok(Some(Brought { device: device_of(source, &name)?, identity, read_only_snapshot }))
}

/// See [`super::sweep`].
pub fn sweep(prefix: &str, keep: Option<&SnapshotRecord>) -> Result<Vec<String>> {
    sweep::sweep(prefix, keep)
}

/// The name of the dataset that is meant; nothing is said yet about whether it exists.
fn name_of(source: &Path) -> Result<Option<String>> {
    let Some(name) = zfs_name(source) else { return device::name_of(source) };
    if !dataset::kernel_has_zfs() {
        return Err(Error::new(ErrorKind::NotFound, "this host has no ZFS")
            .path(source)
            .hint("install it (Debian: zfsutils-linux, zfs-dkms) and load it: modprobe zfs"));
    }
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || name.contains('#') {
        return Err(not_a_zvol(name, "no volume or snapshot has such a name"));
    }
    Ok(Some(name.to_owned()))
}

fn volume(name: &str) -> Result<dataset::Dataset> {
    match dataset::look(name)? {
        Some(found) if found.kind == "volume" => Ok(found),
        Some(found) => Err(not_a_zvol(name, &format!("it is a {}", found.kind))),
        None => Err(not_a_zvol(name, "there is no such dataset").kind_is(ErrorKind::NotFound)),
    }
}

fn not_a_zvol(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::WrongUse, format!("this is not a zvol: {why}"))
        .path(name)
        .hint("name a zvol as zfs:POOL/VOL; `zfs list -t volume` shows them")
}

fn device_of(source: &Path, name: &str) -> Result<PathBuf> {
    if zfs_name(source).is_none() {
        return Ok(source.to_path_buf());
    }
    device::of(name).ok_or_else(|| match name.split_once('@') {
        Some((of_volume, _)) => {
            let error = match dataset::look(name) {
                Ok(None) => Error::new(ErrorKind::NotFound, "there is no such snapshot"),
                _ => Error::new(ErrorKind::NotFound, "the snapshot has no device"),
            };
            error
                .path(name)
                .hint(format!("`zfs set snapdev=visible {of_volume}` shows its snapshots as devices"))
        }
        None => Error::new(ErrorKind::NotFound, "the zvol has no device")
            .path(name)
            .hint(format!("look at `zfs get volmode {name}`: it must not be none")),
    })
}

impl Origin for Zvol {
    fn device(&self) -> &Path {
        &self.device
    }

    fn identity(&self) -> &VolumeIdentity {
        &self.identity
    }

    fn take(&self, name: &str, _cow: CowSize) -> Result<Box<dyn Snapshot>> {
        Ok(Box::new(taken::Taken::take(self, name)?))
    }

    fn freezes_itself(&self) -> bool {
        false
    }

    fn keeps_cheaply(&self) -> bool {
        true
    }
}

/// Looks again and again, ever less often, until there is an answer or the time is up.
fn patiently<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(10);
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
