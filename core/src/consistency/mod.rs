//! Making a database or file system consistent around the moment of its snapshot.
//!
//! ```text
//! before hook, PostgreSQL, MySQL, freeze  ->  snapshot  ->  thaw, MySQL, PostgreSQL, after hook
//! ```
//!
//! Each step hands over something whose drop undoes it, so that the way back is walked on every path: an error, a
//! cancelled run, a panic. What stops others for as long as it lasts (a frozen file system, MySQL's read lock) is ended by
//! somebody else when this process is killed or hangs: a guardian process, the server's own time-out. If it was ended
//! that way before the snapshot was complete, the run fails: the snapshot may hold a mixture of states.
//!
//! A database that writes to one volume survives a snapshot without any of this (it recovers as after a power cut). These
//! steps make recovery short, and say where in its log the snapshot stands.

mod control_group;
pub mod freeze;
mod hooks;
mod mysql;
mod postgres;

use std::path::PathBuf;
use std::time::Duration;

pub use hooks::Hooks;
pub use mysql::MysqlOptions;
pub use postgres::PostgresOptions;

use crate::backup_id::DatabasePosition;
use crate::cancel::CancelToken;
use crate::error::Result;

/// What is done around a snapshot.
#[derive(Debug, Clone)]
pub struct Consistency {
    /// Commands of the user.
    pub hooks: Hooks,
    /// Mount points and folders of control groups that are frozen.
    pub freeze: Vec<PathBuf>,
    /// A PostgreSQL server that is asked.
    pub postgres: Option<PostgresOptions>,
    /// A MySQL or MariaDB server that is asked.
    pub mysql: Option<MysqlOptions>,
    /// How long writers may be stopped, by a freeze and by a lock.
    pub timeout: Duration,
}

impl Default for Consistency {
    fn default() -> Self {
        Self {
            hooks: Hooks::default(),
            freeze: Vec::new(),
            postgres: None,
            mysql: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What became known around a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Where the databases stood; for the backup's record.
    pub position: DatabasePosition,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Consistency {
    /// Whether writers are held back while snapshots are taken (hooks may do so too, and are trusted to).
    #[must_use]
    pub fn holds_writers(&self) -> bool {
        !self.freeze.is_empty() || self.postgres.is_some() || self.mysql.is_some()
    }

    /// Takes the snapshot (or snapshots, of so many `volumes`) with `take` while all is consistent.
    pub fn around<T>(
        &self,
        volumes: usize,
        cancel: &CancelToken,
        take: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Surroundings)> {
        cancel.check()?;
        let hooks = self.hooks.begin()?;
        cancel.check()?;
        let postgres = self.postgres.as_ref().map(|options| options.prepare(volumes, cancel)).transpose()?;
        let mysql = self.mysql.as_ref().map(|options| options.lock(self.timeout, cancel)).transpose()?;
        cancel.check()?;
        let frozen = freeze::freeze(&self.freeze, self.timeout)?;
        let taken = take()?;
        frozen.map(freeze::Frozen::thaw).transpose()?;
        let position = DatabasePosition {
            mysql: mysql.map(|locked| locked.unlock(cancel)).transpose()?,
            postgres: postgres.map(|prepared| prepared.finish(cancel)).transpose()?,
        };
        let warnings = hooks.finish().into_iter().collect();
        Ok((taken, Surroundings { position, warnings }))
    }
}

#[cfg(test)]
mod tests;
