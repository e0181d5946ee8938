//! PostgreSQL, through psql: a checkpoint and the place in the log, or backup mode when there are several volumes.
//!
//! One volume is a state as after a power cut, from which PostgreSQL recovers by itself; a checkpoint right before it
//! makes that short. Snapshots of several volumes (data and log, tablespaces) are not of one instant, and only backup
//! mode makes them fit together. It belongs to a session, so one psql is kept from before the snapshots until after them;
//! when it ends in whatever way, PostgreSQL ends backup mode.
//! Passwords are psql's own matter (PGPASSFILE, peer, a service file): one in the connection string would be seen by
//! everybody who lists processes, so it is refused.

use std::time::Duration;

use serde::Deserialize;

use crate::backup_id::PostgresPosition;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::command::Command;
use crate::sys::command::session::Session;
use crate::sys::host;

/// A checkpoint of a busy server takes its time.
const PATIENCE: Duration = Duration::from_secs(600);
/// What psql prints after each answer.
const MARK: &str = "blkdelta-done";
/// Who owns a PostgreSQL cluster on most systems, and may log in without a password there.
const OWNER: &str = "postgres";
/// The oldest server with the functions used here, and the first with the new names of two of them.
const OLDEST: u32 = 100_000;
const RENAMED: u32 = 150_000;

const RIGHTS: &str = "check the connection (--postgresql='host=... port=... user=...', or service=NAME), its password file, \
    and the rights of its role: pg_checkpoint, for several volumes also pg_backup_start and pg_backup_stop";
const POSITION: &str = "select json_build_object('version', current_setting('server_version_num')::int, \
    'lsn', case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, \
    'timeline', timeline_id, 'system_identifier', system_identifier::text) \
    from pg_control_checkpoint(), pg_control_system();";

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    connection: String,
    user: Option<String>,
}

impl PostgresOptions {
    /// With a connection string or URI of libpq (`service=NAME`, `host=... user=...`). An empty one is the local server
    /// of the environment (`PGHOST`, `PGPORT`...), asked by root as the operating system's user postgres, whom it trusts.
    pub fn new(connection: impl Into<String>) -> Result<Self> {
        let connection = connection.into();
        if holds_password(&connection) {
            return Err(Error::new(ErrorKind::WrongUse, "a password does not belong on a command line")
                .hint("put it into ~/.pgpass (or PGPASSFILE), or name a service of pg_service.conf: service=NAME"));
        }
        let user = (connection.is_empty() && host::is_root()).then(|| OWNER.to_owned());
        Ok(Self { connection, user })
    }

    /// psql runs as this user of the operating system.
    #[must_use]
    pub fn as_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Makes it ready for snapshots of so many volumes. Dropping the answer ends backup mode.
    pub(super) fn prepare(&self, volumes: usize, cancel: &CancelToken) -> Result<Prepared> {
        let mut server = Server(self.psql().session()?);
        let at: Position =
            server.ask(&format!("set client_min_messages = error;\ncheckpoint;\n{POSITION}"), cancel)?;
        if at.version < OLDEST {
            return Err(Error::new(ErrorKind::Unsupported, "this PostgreSQL is older than version 10").hint(
                "leave --postgresql out: it recovers from a snapshot of one volume as after a power cut",
            ));
        }
        let position = PostgresPosition {
            lsn: at.lsn,
            timeline: at.timeline,
            system_identifier: at.system_identifier,
            backup_label: None,
            tablespace_map: None,
        };
        if volumes < 2 {
            return Ok(Prepared { position, backup_mode: None });
        }
        let renamed = at.version >= RENAMED;
        let start = if renamed {
            "pg_backup_start('blkdelta', true)"
        } else {
            "pg_start_backup('blkdelta', true, false)"
        };
        let _: String = server.ask(&format!("select to_json({start}::text);"), cancel)?;
        Ok(Prepared { position, backup_mode: Some((server, renamed)) })
    }

    fn psql(&self) -> Command {
        let command = match &self.user {
            Some(user) => Command::new("runuser").args(["-u", user, "--", "psql"]),
            None => Command::new("psql"),
        };
        let command = command.args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"]).folder("/");
        let command = default_variable(command, "PGDATABASE", OWNER);
        let command = default_variable(command, "PGCONNECT_TIMEOUT", "15");
        let command = command.env("PGAPPNAME", "blkdelta");
        if self.connection.is_empty() { command } else { command.args(["-d", &self.connection]) }
    }
}

fn default_variable(command: Command, name: &str, value: &str) -> Command {
    if std::env::var_os(name).is_some() { command } else { command.env(name, value) }
}

/// `password=` in either form of a connection string, or `user:password@` in a URI.
fn holds_password(connection: &str) -> bool {
    let named = connection
        .to_ascii_lowercase()
        .split("password")
        .skip(1)
        .any(|rest| rest.trim_start().starts_with('='));
    let authority =
        connection.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    let login = authority.and_then(|authority| authority.rsplit_once('@')).map(|(login, _)| login);
    named || login.is_some_and(|login| login.contains(':'))
}

#[derive(Deserialize)]
struct Position {
    version: u32,
    lsn: String,
    timeline: u32,
    system_identifier: String,
}

/// What the end of backup mode gives back.
#[derive(Deserialize)]
struct Stopped {
    lsn: String,
    labelfile: String,
    spcmapfile: String,
}

/// A server that is ready for the snapshot.
pub(super) struct Prepared {
    position: PostgresPosition,
    /// The session whose backup mode it is, and whether its functions have the names of version 15.
    backup_mode: Option<(Server, bool)>,
}

impl Prepared {
    /// Ends backup mode, if it is on, and says where it was.
    pub(super) fn finish(mut self, cancel: &CancelToken) -> Result<PostgresPosition> {
        if let Some((mut server, renamed)) = self.backup_mode.take() {
            let stop = if renamed { "pg_backup_stop(false)" } else { "pg_stop_backup(false, false)" };
            let stopped: Stopped = server.ask(&format!("select row_to_json(s) from {stop} s;"), cancel)?;
            self.position.lsn = stopped.lsn;
            self.position.backup_label = Some(stopped.labelfile);
            self.position.tablespace_map = Some(stopped.spcmapfile).filter(|map| !map.is_empty());
        }
        Ok(self.position)
    }
}

/// One psql.
struct Server(Session);

impl Server {
    /// The last line of the answer, which is JSON.
    fn ask<T: for<'de> Deserialize<'de>>(&mut self, sql: &str, cancel: &CancelToken) -> Result<T> {
        let text = format!("{sql}\n\\echo {MARK}\n");
        let answer = self.0.ask(&text, MARK, PATIENCE, cancel).map_err(not_answered)?;
        let line = answer.last().map(String::as_str).unwrap_or_default();
        serde_json::from_str(line).map_err(|source| {
            let what = format!("PostgreSQL gave an answer that was not understood: {line}");
            Error::new(ErrorKind::Io, what)
                .because(source)
                .hint("it may be of a version that is newer than this one knows")
        })
    }
}

fn not_answered(error: Error) -> Error {
    if error.kind() == ErrorKind::Cancelled {
        return error;
    }
    Error::new(error.kind(), "asking PostgreSQL").because(error).hint(RIGHTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_refused_wherever_it_stands() {
        for wrong in [
            "password=x",
            "host=a PassWord = 'x y' user=b",
            "sslpassword=x",
            "postgresql://user:secret@host/db",
            "postgres://:secret@/db",
            "postgres://user@host/db?password=x",
        ] {
            let error = PostgresOptions::new(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongUse);
            assert!(
                error.next_step().is_some_and(|hint| hint.contains("PGPASSFILE"))
                    && !error.full_text().contains("secret")
            );
        }
        for right in [
            "",
            "service=db",
            "host=/run/pg port=5433",
            "postgres://user@host:5432/db",
            "postgres://host:5432,b:1/db",
            "passfile=/x",
        ] {
            PostgresOptions::new(right).unwrap();
        }
    }
}
