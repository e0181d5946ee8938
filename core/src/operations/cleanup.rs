//! `cleanup`: what the next backup of each volume would remove anyway, removed now: unfinished files, dead snapshots.
//!
//! A volume whose lock is held is left alone, and said so: what looks dead there may be at work.

use std::path::Path;

use serde::Serialize;

use crate::backup_id::BackupRecord;
use crate::error::{Error, Result};
use crate::local_state::LocalState;
use crate::repository::Repository;
use crate::snapshot::{self, Owner};

/// What was done for one volume.
#[derive(Debug, Clone, Serialize)]
pub struct CleanedVolume {
    /// Its name.
    pub volume: String,
    /// Snapshots that were removed.
    pub removed_snapshots: Vec<String>,
    /// Why it was left as it is.
    pub problem: Option<String>,
}

/// Cleans one volume, or all.
pub fn cleanup(repository: &Repository, volume: Option<&str>, state: &Path) -> Result<Vec<CleanedVolume>> {
    let volumes = match volume {
        Some(volume) => vec![volume.to_owned()],
        None => repository.volumes()?,
    };
    let clean = |volume: String| {
        let done = clean_volume(repository, &volume, state);
        let problem = done.as_ref().err().map(Error::full_text);
        CleanedVolume { volume, removed_snapshots: done.unwrap_or_default(), problem }
    };
    if let Err(error) = repository.sweep_audit() {
        tracing::warn!(%error, "entries of the audit log that were not finished stay; the next cleanup removes them");
    }
    Ok(volumes.into_iter().map(clean).collect())
}

fn clean_volume(repository: &Repository, volume: &str, state: &Path) -> Result<Vec<String>> {
    let _publisher = repository.publisher(volume)?;
    LocalState::new(state, repository, volume)?.remove_leftovers();
    let newest = repository.newest(volume)?;
    let owner = Owner::new(&repository.config().repository_id.to_string(), volume);
    snapshot::sweep(&owner.prefix(), newest.as_ref().and_then(BackupRecord::baseline))
}
