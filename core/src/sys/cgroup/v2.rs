//! Version 2: where a group can be made, and what has to be switched on above it.
//!
//! The kernel gives a group its controllers only if the parent has no processes of its own (the topmost group
//! excepted). That leaves two places:
//!
//! - *below* our own group, when we are alone in it or it is the topmost one. We move down first, then divide the
//!   group, and put it together again at the end. A service stays within its unit this way, so stopping the unit still
//!   ends us.
//! - *beside* our own group, when others live in it too (a shell, say). It needs the right to write to the parent.
//!
//! Switching the controller on in a group that is not ours stays as it is afterwards: somebody else may have begun to
//! use it, and would lose the limits without a word. It costs next to nothing.

use std::fs;
use std::path::Path;
use std::process;

use super::own::Own;
use super::{IoLimits, Place, device, processes, weigh, write};
use crate::sys::block_device::DeviceNumber;

const WEIGHTS: [(&str, u16); 2] = [("io.weight", 10_000), ("io.bfq.weight", 1000)];

/// The group, this process in it, and what its description adds.
pub(super) fn make(
    own: &Own,
    disks: &[DeviceNumber],
    limits: &IoLimits,
) -> Result<(Place, Vec<String>), String> {
    let mut place = settle(own, "io")?;
    match fill(&place.folder, disks, limits) {
        Ok(remarks) => Ok((place, remarks)),
        Err(reason) => {
            place.leave();
            Err(reason)
        }
    }
}

fn fill(folder: &Path, disks: &[DeviceNumber], limits: &IoLimits) -> Result<Vec<String>, String> {
    for disk in disks {
        if let Some(line) = line(*disk, limits) {
            write(&folder.join("io.max"), &line)?;
        }
    }
    Ok(weigh(folder, &WEIGHTS, limits)?.into_iter().collect())
}

/// `8:16 rbps=1048576 riops=100`; what is not named stays free.
fn line(disk: DeviceNumber, limits: &IoLimits) -> Option<String> {
    let mut line = device(disk);
    for (key, limit) in [("rbps", limits.read_bps), ("wbps", limits.write_bps), ("riops", limits.read_iops)] {
        line.extend(limit.map(|limit| format!(" {key}={limit}")));
    }
    line.contains('=').then_some(line)
}

/// A new group that has `controller`, with this process in it.
pub(super) fn settle(own: &Own, controller: &str) -> Result<Place, String> {
    // Only the topmost group of the machine has no such file; that of a container has.
    let topmost = !own.folder.join("cgroup.events").exists();
    let alone = processes(&own.folder) == [process::id().to_string()];
    let beside = own.folder.parent().filter(|_| own.folder != own.top);
    match beside {
        _ if topmost => {
            switch_on(own, &own.folder, controller)?;
            enter(Place::create(&own.folder, &own.folder)?)
        }
        _ if alone => below(own, controller),
        Some(parent) => {
            switch_on(own, parent, controller)?;
            enter(Place::create(parent, &own.folder)?)
        }
        None => Err(format!(
            "other processes live in {} too, and what is above it cannot be seen from here; start it in a group of its \
             own (systemd-run --scope -p Delegate=yes ...)",
            own.folder.display()
        )),
    }
}

fn enter(mut place: Place) -> Result<Place, String> {
    place.enter().inspect_err(|_| place.leave())?;
    Ok(place)
}

fn below(own: &Own, controller: &str) -> Result<Place, String> {
    ensure_offered(own, &own.folder, controller)?;
    let mut place = enter(Place::create(&own.folder, &own.folder)?)?;
    match write(&own.folder.join("cgroup.subtree_control"), &format!("+{controller}")) {
        Ok(()) => {
            place.switch_off = Some(format!("-{controller}"));
            Ok(place)
        }
        Err(reason) => {
            place.leave();
            Err(reason)
        }
    }
}

/// Gives the groups below `folder` the controller.
fn switch_on(own: &Own, folder: &Path, controller: &str) -> Result<(), String> {
    let file = folder.join("cgroup.subtree_control");
    if lists(&file, controller) {
        return Ok(());
    }
    ensure_offered(own, folder, controller)?;
    write(&file, &format!("+{controller}"))
}

/// Makes sure that `folder` has the controller itself.
fn ensure_offered(own: &Own, folder: &Path, controller: &str) -> Result<(), String> {
    let file = folder.join("cgroup.controllers");
    if lists(&file, controller) {
        return Ok(());
    }
    match folder.parent() {
        Some(parent) if folder != own.top => switch_on(own, parent, controller),
        _ => {
            let offered = fs::read_to_string(&file).unwrap_or_default();
            let offered = if offered.trim().is_empty() { "none" } else { offered.trim() };
            Err(format!(
                "the {controller} controller is not enabled in {} (it offers: {offered}): version 1 has it, \
                 or the kernel lacks it, or the container was not given it",
                own.top.display()
            ))
        }
    }
}

fn lists(file: &Path, controller: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_ascii_whitespace().any(|word| word == controller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_only_what_is_limited() {
        let disk = libc::makedev(254, 3);
        let limits = IoLimits { read_bps: Some(1 << 20), read_iops: Some(100), ..IoLimits::default() };
        assert_eq!(line(disk, &limits).unwrap(), "254:3 rbps=1048576 riops=100");
        let limits = IoLimits { write_bps: Some(5), ..IoLimits::default() };
        assert_eq!(line(disk, &limits).unwrap(), "254:3 wbps=5");
        assert_eq!(line(disk, &IoLimits { weight: Some(10), ..IoLimits::default() }), None);
    }

    /// A tree of plain files: what is offered where, and what would be written.
    #[test]
    fn the_controller_is_switched_on_from_the_top() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().to_path_buf();
        let unit = top.join("system.slice/a.service");
        fs::create_dir_all(&unit).unwrap();
        for group in [&top, &top.join("system.slice"), &unit] {
            fs::write(group.join("cgroup.controllers"), "cpu pids\n").unwrap();
            fs::write(group.join("cgroup.subtree_control"), "pids\n").unwrap();
        }
        let own = Own { top: top.clone(), folder: unit.clone() };
        let reason = ensure_offered(&own, &unit, "io").unwrap_err();
        assert!(reason.contains("the io controller is not enabled in"), "{reason}");
        assert!(reason.contains("offers: cpu pids"), "{reason}");

        fs::write(top.join("cgroup.controllers"), "cpu io pids\n").unwrap();
        ensure_offered(&own, &unit, "io").unwrap();
        let written =
            |group: &str| fs::read_to_string(top.join(group).join("cgroup.subtree_control")).unwrap();
        // Plain files keep what they had behind the three bytes.
        assert_eq!((written("").get(..3), written("system.slice").get(..3)), (Some("+io"), Some("+io")));
        assert_eq!(written("system.slice/a.service"), "pids\n");
    }
}
