//! Snapshots of logical volumes, through the programs of lvm2 and device-mapper.
//!
//! A thick volume gets a snapshot with room for the changes of its origin; when that room is full the snapshot is lost,
//! and while it exists every first write to a chunk of the origin costs a copy, so one is kept as a baseline only when
//! asked for. A snapshot of a thin volume shares its pool and costs next to nothing.
//! Both are taken read-only: replaying a journal in a writable one would change what was to be saved. `lvcreate` freezes
//! a mounted file system by itself while it works.
//! If `lvcreate` dies in between, the origin could stay suspended, and with it everything above: it is resumed then.

mod changes;
mod metadata_snapshot;
mod report;
mod status;
mod taken;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::{Brought, CowSize, Origin, Snapshot};
use crate::backup_id::{SnapshotRecord, VolumeIdentity};
use crate::error::{Error, ErrorKind, Result};
use crate::source::identity;
use crate::sys::block_device::{self, DeviceNumber};
use report::LogicalVolumeReport;
use taken::Taken;

/// For changes of lvm2's metadata: long, because a busy device is flushed first, and ending one halfway does harm.
const PATIENCE: Duration = Duration::from_secs(900);

/// A logical volume that snapshots can be taken of.
pub struct LogicalVolume {
    report: LogicalVolumeReport,
    number: DeviceNumber,
    device: PathBuf,
    identity: VolumeIdentity,
}

/// The logical volume behind a path; `None` for everything else, for snapshots that are not volumes of their own, and
/// where lvm2 is not installed.
pub fn find(source: &Path) -> Result<Option<LogicalVolume>> {
    let Some((number, report)) = look_up(source)? else { return Ok(None) };
    if shows_its_origin(&report) {
        return Ok(None);
    }
    let device = PathBuf::from(&report.device);
    Ok(Some(LogicalVolume { identity: identity::of_device(number)?, report, number, device }))
}

/// What a path to a snapshot shows: the state of its origin. A writable thin snapshot is a volume of its own.
pub fn brought(source: &Path) -> Result<Option<Brought>> {
    let Some((_, report)) = look_up(source)? else { return Ok(None) };
    if !shows_its_origin(&report) {
        return Ok(None);
    }
    let identity = VolumeIdentity::new(format!("lvm:{}", report::plain(&report.origin_uuid)))?;
    let read_only_snapshot = report.is_read_only().then(|| format!("lvm:{}", report::plain(&report.uuid)));
    Ok(Some(Brought { device: source.to_path_buf(), identity, read_only_snapshot }))
}

fn shows_its_origin(report: &LogicalVolumeReport) -> bool {
    let thin = report.is_thin() && report.is_read_only();
    report.is_thick_snapshot() || (thin && !report.origin_uuid.is_empty())
}

fn look_up(source: &Path) -> Result<Option<(DeviceNumber, LogicalVolumeReport)>> {
    let Some(number) = block_device::number_of(source).ok().flatten() else { return Ok(None) };
    let Some((uuid, group)) = mapped_by_lvm(number) else { return Ok(None) };
    let volumes = report::of(&[&group])?;
    Ok(volumes.into_iter().find(|volume| volume.device_uuid() == uuid).map(|volume| (number, volume)))
}

/// UUID and volume group of a device; told by sysfs, so that nothing is run where there is no LVM.
fn mapped_by_lvm(number: DeviceNumber) -> Option<(String, String)> {
    let uuid = block_device::attribute(number, "dm/uuid").filter(|uuid| uuid.starts_with("LVM-"))?;
    Some((uuid, report::group_of(&block_device::attribute(number, "dm/name")?)))
}

/// See [`super::sweep`]. Also releases what a run that died while it read a pool's metadata has left.
pub fn sweep(prefix: &str, keep: Option<&SnapshotRecord>) -> Result<Vec<String>> {
    let devices = block_device::all().into_iter();
    let groups: BTreeSet<String> = devices.filter_map(mapped_by_lvm).map(|(_, group)| group).collect();
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let volumes = report::of(&groups.iter().map(String::as_str).collect::<Vec<_>>())?;
    metadata_snapshot::release_left_behind(&volumes);
    let mut swept = Vec::new();
    for volume in volumes.iter().filter(|volume| volume.name.starts_with(prefix)) {
        if keep.is_some_and(|keep| keep.uuid == volume.uuid) {
            continue;
        }
        match remove(volume) {
            Ok(()) => swept.push(volume.full_name()),
            Err(error) => {
                tracing::warn!(
                    snapshot = volume.full_name(),
                    error = error.full_text(),
                    "an old snapshot was not removed"
                );
            }
        }
    }
    Ok(swept)
}

/// By its UUID: another volume that has its name by now stays.
fn remove(volume: &LogicalVolumeReport) -> Result<()> {
    let select = format!("lv_uuid={}", volume.uuid);
    let arguments = ["--force", "--select", &select, &volume.group];
    report::program("lvremove").args(arguments).patience(PATIENCE).run().map(drop)
}

impl LogicalVolume {
    fn create(&self, name: &str, cow: CowSize) -> Result<()> {
        let was_suspended = self.is_suspended();
        self.refuse_what_harms(was_suspended)?;
        let mut command =
            report::program("lvcreate").args(["--snapshot", "--permission", "r", "--name", name]);
        command = match cow {
            _ if self.report.is_thin() => command.args(["--setactivationskip", "n"]),
            CowSize::Percent(percent) => command.args(["--extents", &format!("{percent}%ORIGIN")]),
            CowSize::Bytes(bytes) => command.args(["--size", &format!("{}s", bytes.div_ceil(512))]),
        };
        let created = command.arg(self.report.full_name()).patience(PATIENCE).run();
        if created.is_err() && self.is_suspended() && !was_suspended {
            status::resume(&self.report.device_uuid())?;
        }
        created.map(drop).map_err(no_room)
    }

    /// A thin volume that a snapshot is to be merged into shows that snapshot as soon as nobody has it open, while every
    /// snapshot that lvm2 takes of it still shows what was there before, whatever is written.
    fn refuse_what_harms(&self, suspended: bool) -> Result<()> {
        let refused = |text: &str, hint: &str| {
            Err(Error::new(ErrorKind::Refused, text).path(&self.device).hint(hint.to_owned()))
        };
        if self.report.is_merged_into() {
            return refused(
                "lvm2 is to merge a snapshot into this volume, and until then takes no good snapshot of it",
                "let the merge come to its end: close the volume and activate it again (lvchange --activate n, then y)",
            );
        }
        if suspended && self.report.is_thin() {
            return refused(
                "lvm2 cannot take a snapshot of a suspended thin volume",
                "let it go on first (dmsetup resume); its pool would be left with a wrong transaction id",
            );
        }
        Ok(())
    }

    fn is_suspended(&self) -> bool {
        block_device::attribute(self.number, "dm/suspended").as_deref() == Some("1")
    }

    /// Removes what a failed attempt has left.
    fn undo(&self, name: &str) {
        let left = report::of(&[&self.report.group]).unwrap_or_default();
        let ours = |volume: &&LogicalVolumeReport| volume.name == name;
        if let Some(volume) = left.iter().find(ours)
            && let Err(error) = remove(volume)
        {
            tracing::warn!(
                snapshot = volume.full_name(),
                error = error.full_text(),
                "a snapshot was not removed"
            );
        }
    }
}

fn no_room(error: Error) -> Error {
    if !error.to_string().to_lowercase().contains("insufficient ") {
        return error;
    }
    error
        .kind_is(ErrorKind::NoSpace)
        .hint("the volume group has too few free extents for the snapshot: extend it, or give it less (--snapshot-size)")
}

impl Origin for LogicalVolume {
    fn device(&self) -> &Path {
        &self.device
    }

    fn identity(&self) -> &VolumeIdentity {
        &self.identity
    }

    fn take(&self, name: &str, cow: CowSize) -> Result<Box<dyn Snapshot>> {
        let created = self.create(name, cow);
        let taken_at = Timestamp::now();
        match created.and_then(|()| Taken::new(name, &self.report, taken_at)) {
            Ok(taken) => Ok(Box::new(taken)),
            Err(error) => {
                self.undo(name);
                Err(error)
            }
        }
    }

    fn freezes_itself(&self) -> bool {
        true
    }

    fn keeps_cheaply(&self) -> bool {
        self.report.is_thin()
    }
}
