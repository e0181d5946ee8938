//! A snapshot of a zvol that this run has taken, and the read-only clone through which it is read.
//!
//! Trade-off: a clone, because it is one device and is found again by its name after a crash. The other way, to set the
//! volume's `snapdev` to `visible`, shows the devices of all its snapshots, and a crash would leave the user's property
//! changed. While the clone exists its snapshot cannot be destroyed, only both together.
//! As the baseline a bookmark is mostly enough: it holds no data, and `zfs send` needs only the moment that it marks.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::set_back::{self, Before};
use super::{Zvol, dataset, device};
use crate::backup_id::SnapshotRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::hint::{ChangeMap, zfs_send};
use crate::snapshot::{NoHint, Snapshot};
use crate::sys::command::Command;

pub(super) const KIND: &str = "zfs";

pub(super) struct Taken {
    volume: Zvol,
    device: PathBuf,
    before: Before,
    record: SnapshotRecord,
    taken_at: Timestamp,
    made: Made,
}

/// What was made, in this order; dropping it gives it back.
struct Made(Vec<String>);

impl Drop for Made {
    fn drop(&mut self) {
        for name in self.0.iter().rev() {
            let problem = match dataset::unusable_pool(name) {
                Some(state) => Some(format!("its pool is {state}")),
                None => dataset::destroy(name).err().map(|error| error.full_text()),
            };
            if let Some(problem) = problem {
                tracing::warn!(
                    name,
                    problem,
                    "could not be destroyed: the volume's next backup will try again"
                );
            }
        }
    }
}

impl Taken {
    /// Takes a snapshot with this name, and a clone beside the volume with the same one.
    pub(super) fn take(zvol: &Zvol, name: &str) -> Result<Self> {
        let snapshot = format!("{}@{name}", zvol.name);
        let clone = zvol.name.rsplit_once('/').map(|(parent, _)| format!("{parent}/{name}"));
        let clone =
            clone.ok_or_else(|| Error::new(ErrorKind::WrongUse, "a pool is no zvol").path(&zvol.name))?;
        let taken_at = Timestamp::now();
        dataset::zfs(["snapshot", &snapshot])?;
        let mut made = Made(vec![snapshot.clone()]);
        let facts = dataset::look(&snapshot)?.ok_or_else(|| lost(&snapshot, "it was destroyed at once"))?;
        let before = Before::of(&snapshot, &facts.createtxg)?;
        clone_read_only(&snapshot, &clone)?;
        made.0.push(clone.clone());
        Ok(Self {
            volume: zvol.clone(),
            device: device::appearing(&clone)?,
            record: SnapshotRecord {
                kind: KIND.to_owned(),
                generation: [&facts.createtxg, &zvol.guid, before.text()].join("/"),
                name: snapshot,
                uuid: facts.guid,
                kept: false,
            },
            before,
            taken_at,
            made,
        })
    }

    /// What still marks the moment of the baseline: its snapshot or its bookmark.
    fn find(&self, baseline: &SnapshotRecord) -> Result<String> {
        let recorded: Vec<&str> = baseline.generation.split('/').collect();
        let &[createtxg, volume_guid, before] = recorded.as_slice() else {
            return Err(doubt("the last backup was not read from a ZFS snapshot"));
        };
        let marks = dataset::marks(&self.volume.name)?;
        let found = |snapshot: bool| {
            marks.iter().find(|mark| mark.guid == baseline.uuid && mark.is_snapshot() == snapshot)
        };
        let Some(mark) = found(true).or_else(|| found(false)) else {
            return Err(doubt("the last backup's snapshot or bookmark is gone: destroyed, or rolled back"));
        };
        if (mark.createtxg.as_str(), self.volume.guid.as_str()) != (createtxg, volume_guid) {
            return Err(doubt("the last backup's snapshot or bookmark is not the recorded one"));
        }
        if !mark.is_snapshot() && !set_back::still_believed(mark, before, &marks) {
            return Err(doubt("the volume may have been set back to before its last backup"));
        }
        Ok(mark.name.clone())
    }

    /// Reads the stream from the baseline to this snapshot.
    fn read_stream(&self, baseline: &SnapshotRecord, map: &mut ChangeMap) -> Result<()> {
        let guid = |text: &str| text.parse().map_err(|_| doubt(&format!("'{text}' is no guid of ZFS")));
        let (from, to) = (guid(&baseline.uuid)?, guid(&self.record.uuid)?);
        // Raw: blocks are sent as they lie on the disks, neither unpacked nor decrypted, and no key is needed.
        let send = Command::new("zfs").args(["send", "-w", "-i", &self.find(baseline)?, &self.record.name]);
        let mut stream = send.stream()?;
        let parsed = zfs_send::parse(&mut stream, from, to, map);
        match (parsed, stream.finish()) {
            (Err(parsed), Err(ended)) => Err(parsed.because(ended)),
            (parsed, ended) => parsed.and(ended),
        }
    }
}

impl Snapshot for Taken {
    fn device(&self) -> &Path {
        &self.device
    }

    fn record(&self) -> &SnapshotRecord {
        &self.record
    }

    fn taken_at(&self) -> Timestamp {
        self.taken_at
    }

    fn check(&self) -> Result<()> {
        let name = &self.record.name;
        if let Some(state) = dataset::unusable_pool(name) {
            return Err(lost(name, &format!("its pool is {state}")));
        }
        match dataset::look(name)? {
            Some(found) if found.guid == self.record.uuid => Ok(()),
            Some(_) => Err(lost(name, "another one has its name")),
            None => Err(lost(name, "it was destroyed")),
        }
    }

    fn changes_since(
        &self,
        baseline: &SnapshotRecord,
        map: &mut ChangeMap,
    ) -> Result<std::result::Result<(), NoHint>> {
        Ok(self.read_stream(baseline, map).map_err(|error| NoHint(error.full_text())))
    }

    fn keep(&mut self) -> Result<()> {
        let name = &self.record.name;
        let bookmarked = self.before.bookmark_is_enough(name).and_then(|enough| {
            if enough {
                dataset::zfs(["bookmark", name, &name.replacen('@', "#", 1)])?;
            }
            Ok(enough)
        });
        match bookmarked {
            Ok(true) => {}
            Ok(false) => self.made.0.retain(|made| made != name),
            Err(error) => {
                let why = error.full_text();
                tracing::warn!(
                    why,
                    "no bookmark can be made: the snapshot itself stays, and old data with it"
                );
                self.made.0.retain(|made| made != name);
            }
        }
        self.record.kept = true;
        Ok(())
    }
}

/// Partitions of the clone are nobody's business: with `volmode=dev` the kernel does not look for them.
fn clone_read_only(snapshot: &str, clone: &str) -> Result<()> {
    let options = ["readonly=on", "volmode=dev", "com.sun:auto-snapshot=false"];
    let options = options.into_iter().flat_map(|option| ["-o", option]);
    Command::new("zfs").arg("clone").args(options).args([snapshot, clone]).run().map(|_| ())
}

/// A reason for there being no hint.
fn doubt(why: &str) -> Error {
    Error::new(ErrorKind::WrongParent, why)
}

fn lost(snapshot: &str, why: &str) -> Error {
    Error::new(ErrorKind::SnapshotLost, format!("the snapshot is lost: {why}"))
        .path(snapshot)
        .hint("nothing was committed; see `zpool status` and `zpool history`, then run it again")
}
