//! What device-mapper says about a mapped device: one line of `dmsetup status`, and messages to its target.
//!
//! Devices are named by their UUID, so that nothing that took over a name is ever asked or told. The lines are the
//! kernel's: first sector, length, target, and what the target adds. Only the form that says that all is well is known
//! here; whatever else comes is a fault and is told as it stands, so a state of a later kernel is never overlooked.

use crate::error::Result;
use crate::sys::command::Command;

/// The line of a device with one target. Without a flush: a pool would write its metadata out each time it is asked.
pub fn status(device_uuid: &str) -> Result<String> {
    let said = Command::new("dmsetup").args(["status", "--noflush", "--uuid", device_uuid]).run()?;
    Ok(said.out.trim().to_owned())
}

/// The parameters of the target, as they were loaded.
pub fn table(device_uuid: &str) -> Result<String> {
    let said = Command::new("dmsetup").args(["table", "--uuid", device_uuid]).run()?;
    Ok(said.out.trim().to_owned())
}

/// Sends a message to the target.
pub fn message(device_uuid: &str, text: &str) -> Result<()> {
    Command::new("dmsetup").args(["message", "--uuid", device_uuid, "0", text]).run().map(drop)
}

/// Lets a suspended device go on.
pub fn resume(device_uuid: &str) -> Result<()> {
    Command::new("dmsetup").args(["resume", "--uuid", device_uuid]).run().map(drop)
}

fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// What is wrong with a thick snapshot: `0 204800 snapshot 64/65536 16` is well.
pub fn thick_fault(line: &str) -> Option<String> {
    match words(line).as_slice() {
        [_, _, "snapshot", "Invalid" | "Overflow", ..] => {
            Some("its room for the changes of the origin is full".into())
        }
        [_, _, "snapshot", used, _] if used.contains('/') => None,
        _ => Some(format!("its status is '{line}'")),
    }
}

/// What is wrong with a thin volume: `0 204800 thin 1024 204799` is well.
pub fn thin_fault(line: &str) -> Option<String> {
    match words(line).as_slice() {
        [_, _, "thin", mapped, _] if mapped.parse::<u64>().is_ok() => None,
        _ => Some(format!("its status is '{line}'")),
    }
}

/// How many sectors a thin volume that is well maps.
pub fn thin_mapped(line: &str) -> Option<u64> {
    words(line).get(3).filter(|_| thin_fault(line).is_none()).and_then(|mapped| mapped.parse().ok())
}

/// A thin pool, as far as its snapshots care: `0 204800 thin-pool 1 14/1024 16/1600 - rw discard_passdown
/// queue_if_no_space - 1024`. Without room for data it still reads well; one whose metadata failed does not.
#[derive(Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// The block that holds the root of its metadata snapshot, when somebody has reserved one.
    pub metadata_snapshot: Option<u64>,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// Reads a pool's line.
pub fn pool(line: &str) -> PoolStatus {
    let words = words(line);
    let held = match words.as_slice() {
        [_, _, "thin-pool", _, _, _, held, _, ..] => Some(*held),
        _ => None,
    };
    let known = held.is_some_and(|held| held == "-" || held.parse::<u64>().is_ok());
    PoolStatus {
        metadata_snapshot: held.and_then(|held| held.parse().ok()),
        fault: (!known || words.contains(&"needs_check"))
            .then(|| format!("the status of its pool is '{line}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thick_snapshot_that_is_well_is_well() {
        assert_eq!(thick_fault("0 204800 snapshot 64/65536 16"), None);
        for line in [
            "0 204800 snapshot Invalid",
            "0 204800 snapshot Overflow",
            "0 204800 snapshot Merge failed",
            "0 204800 snapshot Unknown",
            "0 204800 snapshot-merge 64/65536 16",
            "0 204800 linear ",
            "",
        ] {
            assert!(thick_fault(line).is_some(), "{line}");
        }
    }

    #[test]
    fn only_a_thin_volume_that_is_well_is_well() {
        assert_eq!(thin_fault("0 204800 thin 1024 204799"), None);
        assert_eq!(thin_fault("0 204800 thin 0 -"), None, "nothing mapped");
        assert_eq!(thin_mapped("0 204800 thin 1024 204799"), Some(1024));
        for line in ["0 204800 thin Fail", "0 204800 thin Error", "0 204800 error ", ""] {
            assert!(thin_fault(line).is_some() && thin_mapped(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_full_pool_still_reads_and_a_failed_one_does_not() {
        let line = |held, mode, check| {
            format!(
                "0 204800 thin-pool 3 14/1024 1600/1600 {held} {mode} discard_passdown queue_if_no_space {check} 1024"
            )
        };
        for mode in ["rw", "ro", "out_of_data_space"] {
            let well = PoolStatus { metadata_snapshot: None, fault: None };
            assert_eq!(pool(&line("-", mode, "-")), well, "{mode}");
        }
        assert_eq!(pool(&line("17", "rw", "-")).metadata_snapshot, Some(17));
        for line in [
            line("-", "ro", "needs_check"),
            line("?", "rw", "-"),
            "0 204800 thin-pool Fail".into(),
            "0 204800 thin-pool Error".into(),
            String::new(),
        ] {
            assert!(pool(&line).fault.is_some(), "{line}");
        }
    }
}
