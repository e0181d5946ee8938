//! To be written.

use std::path::{Path, PathBuf};

use super::{Brought, CowSize, Origin, Snapshot};
use crate::backup_id::{SnapshotRecord, VolumeIdentity};
use crate::error::{Error, ErrorKind, Result};

/// A zvol.
pub struct Zvol {
    device: PathBuf,
    identity: VolumeIdentity,
}

/// The zvol behind a path.
pub fn find(_source: &Path) -> Result<Option<Zvol>> {
    Ok(None)
}

/// What a path to a snapshot shows.
pub fn brought(_source: &Path) -> Result<Option<Brought>> {
    Ok(None)
}

/// See [`super::sweep`].
pub fn sweep(_prefix: &str, _keep: Option<&SnapshotRecord>) -> Result<Vec<String>> {
    Ok(Vec::new())
}

impl Origin for Zvol {
    fn device(&self) -> &Path {
        &self.device
    }

    fn identity(&self) -> &VolumeIdentity {
        &self.identity
    }

    fn take(&self, _name: &str, _cow: CowSize) -> Result<Box<dyn Snapshot>> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    fn keeps_cheaply(&self) -> bool {
        false
    }
}
