//! Which volume is behind a path. Paths, minors and inodes are reused; what is taken here outlives a reboot.
//!
//! | source | identity |
//! | --- | --- |
//! | file | `file:` file system UUID, inode, birth time |
//! | loop device | `loop:` identity of its backing file, offset |
//! | logical volume | `lvm:` LV UUID (a snapshot of it has another; taking the origin's is the snapshot issue's work) |
//! | other device-mapper | `dm:` its UUID |
//! | md array | `md:` its UUID |
//! | disk | `device:` WWN or serial |
//! | partition | its disk's, and the partition number |
//!
//! A device that tells nothing of itself gets `unidentified:` and its kernel name: better than refusing, and said so.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::backup_id::VolumeIdentity;
use crate::digest::to_hex;
use crate::error::{Error, Result};
use crate::sys::block_device::{self, DeviceNumber};
use crate::sys::files;

/// The identity of an open regular file.
pub fn of_file(path: &Path, file: &File) -> Result<VolumeIdentity> {
    let metadata = file.metadata().map_err(|source| Error::io("looking at", path, source))?;
    let born = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let born = born.map_or_else(|| "-".into(), |age| age.as_nanos().to_string());
    let system = file_system_uuid(file, metadata.dev());
    VolumeIdentity::new(format!("file:{system}:{}:{born}", metadata.ino()))
}

fn file_system_uuid(file: &File, device: DeviceNumber) -> String {
    if let Some(uuid) = files::file_system_uuid(file) {
        return dashed(&to_hex(&uuid));
    }
    let by_uuid = std::fs::read_dir("/dev/disk/by-uuid").into_iter().flatten().flatten();
    let ours =
        by_uuid.into_iter().find(|link| block_device::number_of(&link.path()).ok().flatten() == Some(device));
    ours.map_or_else(
        || files::file_system_number(file),
        |link| link.file_name().to_string_lossy().into_owned(),
    )
}

/// 8-4-4-4-12 digits, as UUIDs are written.
fn dashed(hex: &str) -> String {
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The identity of a block device.
pub fn of_device(number: DeviceNumber) -> Result<VolumeIdentity> {
    VolumeIdentity::new(text_of_device(number))
}

fn text_of_device(number: DeviceNumber) -> String {
    loop_text(number)
        .or_else(|| mapped_text(number))
        .or_else(|| block_device::attribute(number, "md/uuid").map(|uuid| format!("md:{uuid}")))
        .or_else(|| partition_text(number))
        .or_else(|| disk_text(number))
        .unwrap_or_else(|| {
            let folder = std::fs::canonicalize(block_device::sysfs(number)).unwrap_or_default();
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            tracing::warn!(
                device = name,
                "the device has no serial number or UUID: it is known by its name alone"
            );
            format!("unidentified:{name}")
        })
}

fn loop_text(number: DeviceNumber) -> Option<String> {
    let backing = block_device::loop_backing(number)?;
    let file = File::open(&backing).ok()?;
    let offset = block_device::attribute(number, "loop/offset").unwrap_or_else(|| "0".into());
    let inner = match block_device::number_of(&backing).ok()? {
        Some(device) => text_of_device(device),
        None => of_file(&backing, &file).ok()?.as_str().to_owned(),
    };
    Some(format!("loop:{inner}:{offset}"))
}

fn mapped_text(number: DeviceNumber) -> Option<String> {
    let uuid = block_device::attribute(number, "dm/uuid")?;
    // LVM-<32 characters of the group><32 of the volume>, perhaps with a layer's suffix.
    let volume = uuid.strip_prefix("LVM-").and_then(|both| both.get(32..64));
    Some(volume.map_or_else(|| format!("dm:{uuid}"), |volume| format!("lvm:{volume}")))
}

fn partition_text(number: DeviceNumber) -> Option<String> {
    let partition = block_device::attribute(number, "partition")?;
    let disk = block_device::whole_disk(number)?;
    Some(format!("{}:part{partition}", text_of_device(disk)))
}

fn disk_text(number: DeviceNumber) -> Option<String> {
    ["wwid", "device/wwid", "serial", "device/serial"]
        .iter()
        .find_map(|name| block_device::attribute(number, name))
        .map(|text| format!("device:{text}"))
}
