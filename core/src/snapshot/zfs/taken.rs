//! A snapshot of a zvol that this run has taken, and the read-only clone through which it is read.
//!
//! Trade-off: a clone, because it is one device and is found again by its name after a crash. The other way, to set the
//! volume's `snapdev` to `visible`, shows the devices of all its snapshots, and a crash would leave the user's property
//! changed. While the clone exists its snapshot cannot be destroyed, only both together.
//! As the baseline a bookmark is enough: it holds no data, and `zfs send` needs only the moment that it marks.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Zvol, dataset, device};
use crate::backup_id::SnapshotRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::hint::{ChangeMap, zfs_send};
use crate::snapshot::{NoHint, Snapshot};
use crate::sys::command::Command;

pub(super) const KIND: &str = "zfs";

pub(super) struct Taken {
    volume: String,
    volume_guid: String,
    device: PathBuf,
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
        clone_read_only(&snapshot, &clone)?;
        made.0.push(clone.clone());
        Ok(Self {
            volume: zvol.name.clone(),
            volume_guid: zvol.guid.clone(),
            device: device::appearing(&clone)?,
            record: SnapshotRecord {
                kind: KIND.to_owned(),
                name: snapshot,
                generation: generation(&facts.createtxg, &zvol.guid),
                uuid: facts.guid,
                kept: false,
            },
            taken_at,
            made,
        })
    }

    /// What still marks the moment of the baseline: its snapshot or its bookmark.
    fn find(&self, baseline: &SnapshotRecord) -> Result<std::result::Result<String, NoHint>> {
        let no_hint = |why: &str| Ok(Err(NoHint(why.to_owned())));
        if baseline.kind != KIND {
            return no_hint("the last backup was not read from a ZFS snapshot");
        }
        let types = "snapshot,bookmark";
        let list = ["list", "-Hp", "-d", "1", "-t", types, "-o", "name,guid,createtxg", &self.volume];
        let said = dataset::zfs(list)?;
        let mut rows = said.out.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let row = rows.find(|row| row.get(1) == Some(&baseline.uuid.as_str()));
        let Some(&[name, _, createtxg]) = row.as_deref() else {
            return no_hint(
                "the snapshot of the last backup and its bookmark are gone: destroyed, or rolled back",
            );
        };
        if generation(createtxg, &self.volume_guid) != baseline.generation {
            return no_hint("the bookmark of the last backup is not from the moment that was recorded");
        }
        Ok(Ok(name.to_owned()))
    }

    /// Reads the stream from `baseline` to this snapshot.
    fn read_stream(&self, baseline: &str, from: &str, map: &mut ChangeMap) -> Result<()> {
        let guid = |text: &str| {
            text.parse().map_err(|_| Error::new(ErrorKind::Damaged, format!("'{text}' is no guid of ZFS")))
        };
        let (from, to) = (guid(from)?, guid(&self.record.uuid)?);
        // Raw: blocks are sent as they lie on the disks, neither unpacked nor decrypted, and no key is needed.
        let send = Command::new("zfs").args(["send", "-w", "-i", baseline, &self.record.name]);
        let mut stream = send.stream()?;
        let parsed = zfs_send::parse(&mut stream, from, to, map);
        match (parsed, stream.finish()) {
            (Ok(()), ended) => ended,
            (Err(parsed), Err(ended)) => Err(parsed.because(ended)),
            (parsed, Ok(())) => parsed,
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
            return Err(lost(name, &format!("its pool is {state}"))
                .hint("see `zpool status`; nothing was committed, run it again when the pool is well"));
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
        let name = match self.find(baseline)? {
            Ok(name) => name,
            Err(no_hint) => return Ok(Err(no_hint)),
        };
        Ok(self.read_stream(&name, &baseline.uuid, map).map_err(|error| NoHint(error.full_text())))
    }

    fn keep(&mut self) -> Result<()> {
        let bookmark = self.record.name.replacen('@', "#", 1);
        if let Err(error) = dataset::zfs(["bookmark", &self.record.name, &bookmark]) {
            let why = error.full_text();
            tracing::warn!(why, "no bookmark can be made: the snapshot itself stays, and old data with it");
            self.made.0.retain(|name| name != &self.record.name);
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

/// A bookmark of another volume could have the guid, after the volume was cloned and promoted or received; not both.
fn generation(createtxg: &str, volume_guid: &str) -> String {
    format!("{createtxg}/{volume_guid}")
}

fn lost(snapshot: &str, why: &str) -> Error {
    Error::new(ErrorKind::SnapshotLost, format!("the snapshot is lost: {why}")).path(snapshot)
}
