//! `unlock`: removes locks whose holders are dead.
//!
//! A lock in a directory ends with its process by itself, so this matters in object stores: a lease is over by itself too, and
//! this spares the wait. A living holder whose lock is removed by force is told before it commits; it loses its run, no data.

use serde::Serialize;

use crate::error::Result;
use crate::repository::Repository;
use crate::repository::audit::AuditEvent;
use crate::storage::Unlocked;

/// What became of a volume's lock.
#[derive(Debug, Clone, Serialize)]
pub struct UnlockedVolume {
    /// Its name.
    pub volume: String,
    /// The lock: `volume`, or `tags` for the short one while tags change.
    pub lock: &'static str,
    /// `free`, `removed` or `held`.
    pub state: &'static str,
    /// Who held or holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Why it was removed, or why it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Removes dead locks of one volume, or of all; with `force` living ones too.
pub fn unlock(repository: &Repository, volume: Option<&str>, force: bool) -> Result<Vec<UnlockedVolume>> {
    let volumes = match volume {
        Some(volume) => vec![volume.to_owned()],
        None => repository.volumes()?,
    };
    let mut done = Vec::new();
    for volume in volumes {
        for (lock, name) in repository.locks(&volume)? {
            let unlocked = repository.storage().unlock(&name, force);
            write_down(repository, &volume, lock, &unlocked);
            let (state, holder, why) = match unlocked? {
                Unlocked::Free => ("free", None, None),
                Unlocked::Removed { holder, why } => ("removed", Some(holder), Some(why)),
                Unlocked::Held { holder, why } => ("held", Some(holder), Some(why)),
            };
            done.push(UnlockedVolume { volume: volume.clone(), lock, state, holder, why });
        }
    }
    Ok(done)
}

/// A lock that was taken from its holder is told in the audit log, and so is the try that failed; what left it as it was is
/// not. A log that cannot be written to must not keep a dead lock in the way of the next backup.
fn write_down(repository: &Repository, volume: &str, lock: &str, unlocked: &Result<Unlocked>) {
    let detail = match unlocked {
        Ok(Unlocked::Free | Unlocked::Held { .. }) => return,
        Ok(Unlocked::Removed { holder, why }) => format!("lock of the {lock} removed: {why} (of {holder})"),
        Err(_) => format!("lock of the {lock}"),
    };
    let event = AuditEvent::ended("unlock", unlocked).volume(volume).detail(detail);
    if let Some(warning) = repository.audit_or_warn(&event) {
        tracing::warn!("{warning}");
    }
}
