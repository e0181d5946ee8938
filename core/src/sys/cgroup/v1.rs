//! Version 1: a group below our own in the `blkio` hierarchy.
//!
//! There the kernel's limits are flat: those of a parent do not hold for its children. What an administrator set for
//! our own group is therefore copied into the new one, and the smaller limit holds; otherwise making a group would be a
//! way out of one.

use std::fs;
use std::path::Path;

use super::own::Own;
use super::{IoLimits, Place, device, weigh, write};
use crate::sys::block_device::DeviceNumber;

/// The kernel's names; bfq's weight goes to 1000 only.
const WEIGHTS: [(&str, u16); 2] = [("blkio.weight", 1000), ("blkio.bfq.weight", 1000)];

/// The group, this process in it, and what its description adds.
pub(super) fn make(
    own: &Own,
    disks: &[DeviceNumber],
    limits: &IoLimits,
) -> Result<(Place, Vec<String>), String> {
    let mut place = Place::create(&own.folder, &own.folder)?;
    let done = fill(own, &place.folder, disks, limits).and_then(|remarks| place.enter().map(|()| remarks));
    match done {
        Ok(remarks) => Ok((place, remarks)),
        Err(reason) => {
            place.leave();
            Err(reason)
        }
    }
}

fn fill(own: &Own, folder: &Path, disks: &[DeviceNumber], limits: &IoLimits) -> Result<Vec<String>, String> {
    let wanted = [
        ("blkio.throttle.read_bps_device", limits.read_bps),
        ("blkio.throttle.write_bps_device", limits.write_bps),
        ("blkio.throttle.read_iops_device", limits.read_iops),
        ("blkio.throttle.write_iops_device", None),
    ];
    let mut remarks = Vec::new();
    for (file, limit) in wanted {
        let inherited = fs::read_to_string(own.folder.join(file)).unwrap_or_default();
        if !inherited.trim().is_empty() && remarks.is_empty() {
            remarks.push(format!("and no more than {} allows", own.folder.display()));
        }
        for line in lines(&inherited, disks, limit) {
            write(&folder.join(file), &line)?;
        }
    }
    remarks.extend(weigh(folder, &WEIGHTS, limits)?);
    Ok(remarks)
}

/// What is to be written: the own group's limits, and ours for the disks where they are smaller.
fn lines(inherited: &str, disks: &[DeviceNumber], limit: Option<u64>) -> Vec<String> {
    let held: Vec<(&str, u64)> = inherited
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(device, rate)| Some((device, rate.trim().parse().ok()?)))
        .collect();
    let disks: Vec<String> = disks.iter().map(|disk| device(*disk)).collect();
    let kept = held.iter().filter(|(device, _)| limit.is_none() || !disks.iter().any(|disk| disk == device));
    let mut lines: Vec<String> = kept.map(|(device, rate)| format!("{device} {rate}")).collect();
    for (disk, limit) in disks.iter().filter_map(|disk| Some((disk, limit?))) {
        let before = held.iter().find(|(device, _)| device == disk).map_or(limit, |(_, rate)| *rate);
        lines.push(format!("{disk} {}", limit.min(before)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_holds_and_others_are_kept() {
        let disks = [libc::makedev(8, 0), libc::makedev(8, 16)];
        let inherited = "8:0 1000\n8:32 77\n";
        assert_eq!(lines(inherited, &disks, Some(5000)), ["8:32 77", "8:0 1000", "8:16 5000"]);
        assert_eq!(lines(inherited, &disks, Some(10)), ["8:32 77", "8:0 10", "8:16 10"]);
        assert_eq!(lines(inherited, &disks, None), ["8:0 1000", "8:32 77"]);
        assert!(lines("", &disks, None).is_empty());
    }
}
