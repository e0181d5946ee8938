//! An interrupted restore goes on: a note beside the local state says which backup was being written onto which target,
//! and how far everything is durable there.
//!
//! What is before that position is not believed: it is read back from the target, block by block, and written again where
//! it differs from the backup. So a target that was changed meanwhile costs time, never correctness; the root is proven
//! over all. The note only has to say that the target holds nothing but our own work, so that it may be overwritten.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::backup_id::{BackupId, BackupRecord};
use crate::digest::RootDigest;
use crate::error::{Error, ErrorKind, Result};
use crate::local_state::notes::{self, Note};
use crate::repository::Repository;
use crate::source::identity;
use crate::sys::block_device;

const VERSION: u32 = 1;

/// What is noted of a restore under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    backup_id: BackupId,
    root: RootDigest,
    target: PathBuf,
    /// Of the file or device, once there is one.
    identity: String,
    range: Range<u64>,
    in_place: bool,
    /// Everything before this offset is durable on the target.
    position: u64,
}

/// A restore onto a path that can be resumed.
pub(super) struct Resumable {
    note: Note,
    marker: Marker,
    /// How far an interrupted run had come.
    pub resumed_to: u64,
}

impl Resumable {
    /// Looks for an interrupted restore when `resume` is asked for; without it a new one begins.
    pub fn new(
        state: &Path,
        repository: &Repository,
        record: &BackupRecord,
        target: &Path,
        range: Range<u64>,
        in_place: bool,
        resume: bool,
    ) -> Result<Self> {
        let target = std::fs::canonicalize(target).or_else(|_| std::path::absolute(target));
        let target = target.map_err(|source| Error::io("looking at the target", "", source))?;
        let digest = blake3::hash(target.as_os_str().as_encoded_bytes()).to_hex();
        let note =
            Note::new(state, repository, &record.volume, &format!("restore-{}", &digest.as_str()[..16]))?;
        let marker = Marker {
            version: VERSION,
            backup_id: record.backup_id,
            root: record.root,
            identity: String::new(),
            range,
            in_place,
            position: 0,
            target,
        };
        let mut resumable = Self { note, marker, resumed_to: 0 };
        if resume {
            resumable.take_over()?;
        } else {
            notes::folder(state, repository)?;
        }
        Ok(resumable)
    }

    fn take_over(&mut self) -> Result<()> {
        let refused = |text: String, hint: &str| {
            Err(Error::new(ErrorKind::Refused, text).path(&self.marker.target).hint(hint))
        };
        let found = self.note.path().exists().then(|| self.note.read::<Marker>()).flatten();
        let Some(found) = found.filter(|found| found.version == VERSION) else {
            return refused(
                "no interrupted restore onto this target is known".into(),
                "leave --resume out; --in-place writes only what differs",
            );
        };
        if (found.backup_id, found.root) != (self.marker.backup_id, self.marker.root) {
            return refused(
                format!("the interrupted restore is of backup {}", found.backup_id),
                "name that backup, or leave --resume out",
            );
        }
        if (&found.range, found.in_place) != (&self.marker.range, self.marker.in_place) {
            return refused(
                "the interrupted restore had another --range or --in-place".into(),
                "name them as before, or leave --resume out",
            );
        }
        if found.target != self.marker.target || identity_of(&found.target)? != found.identity {
            return refused(
                "another target is behind this path than when the restore was interrupted".into(),
                "check the path, or leave --resume out",
            );
        }
        self.resumed_to = found.position;
        self.marker = found;
        Ok(())
    }

    /// The target is open: from now on it holds our own.
    pub fn begin(&mut self) -> Result<()> {
        self.marker.identity = identity_of(&self.marker.target)?;
        self.note.write(&self.marker)
    }

    /// Everything before `position` is durable. A note that cannot be written costs only time after an interruption.
    pub fn reached(&self, position: u64) {
        if position <= self.marker.position {
            return;
        }
        if let Err(error) = self.note.write(&Marker { position, ..self.marker.clone() }) {
            tracing::debug!(%error, "the restore's position is not noted");
        }
    }

    /// The restore is done.
    pub fn done(&self) {
        if let Err(error) = self.note.remove() {
            tracing::warn!(%error, "the note of the restore stays; the next restore onto this target replaces it");
        }
    }
}

/// Which file or device it is.
fn identity_of(path: &Path) -> Result<String> {
    let problem = |source| Error::io("looking at the target", path, source);
    if let Some(number) = block_device::number_of(path).map_err(problem)? {
        return identity::of_device(number).map(|identity| identity.as_str().to_owned());
    }
    let file = std::fs::File::open(path).map_err(problem)?;
    identity::of_file(path, &file).map(|identity| identity.as_str().to_owned())
}
