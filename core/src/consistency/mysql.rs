//! MySQL and MariaDB, through their client: a global read lock while the snapshot is taken, and the place in the binary log.
//!
//! The lock stops every writer, so nobody may hold it for long: it is waited for, and held, no longer than the time-out.
//! The server itself sees to that: it ends a session that says nothing for so long, and with the session the lock. The
//! lock also goes when this process is killed, because the client ends when its input closes. Our last question proves
//! that the session, and so the lock, lasted until the snapshot was complete.
//! Logins are the client's own matter (`~/.my.cnf`, a file of options, the socket): no password goes on a command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::backup_id::MysqlPosition;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::command::Command;
use crate::sys::command::session::Session;

/// What the client prints after each answer.
const MARK: &str = "blkdelta-done";
/// For logging in and answering, beyond the time for the lock.
const PATIENCE: Duration = Duration::from_secs(30);
const RIGHTS: &str = "check the login (--mysql=FILE with [client] user, password, socket) and its rights: RELOAD and \
    REPLICATION CLIENT (MariaDB: BINLOG MONITOR); a statement that runs for long holds the lock up";
/// From this version on MySQL has another statement for the place in the log.
const RENAMED: (u32, u32) = (8, 2);

/// How to reach a server.
#[derive(Debug, Clone, Default)]
pub struct MysqlOptions {
    /// A file of options for the client, read after the usual ones; the usual ones alone without it.
    pub defaults_file: Option<PathBuf>,
}

impl MysqlOptions {
    /// Locks all tables for reading. Dropping the answer unlocks them.
    pub(super) fn lock(&self, timeout: Duration, cancel: &CancelToken) -> Result<Locked> {
        let session = match self.client("mysql").session() {
            Err(error) if error.kind() == ErrorKind::NotFound => self.client("mariadb").session()?,
            other => other?,
        };
        let seconds = timeout.as_millis().div_ceil(1000).max(1);
        let mut server = Server { session, patience: timeout.saturating_add(PATIENCE) };
        let answer = server.ask(
            &format!(
                "SET SESSION wait_timeout = {seconds}; SET SESSION lock_wait_timeout = {seconds}; \
                 FLUSH TABLES WITH READ LOCK; SELECT VERSION();"
            ),
            cancel,
        )?;
        let version = answer.into_iter().next().unwrap_or_default();
        let position = server.position(&version, cancel)?;
        Ok(Locked { server, position })
    }

    fn client(&self, name: &str) -> Command {
        let command = Command::new(name);
        let command = match &self.defaults_file {
            // The client wants it first.
            Some(file) => command.arg(format!("--defaults-extra-file={}", file.display())),
            None => command,
        };
        command.args([
            "--batch",
            "--skip-column-names",
            "--unbuffered",
            "--skip-reconnect",
            "--connect-timeout=15",
        ])
    }
}

/// A server all of whose tables are locked.
pub(super) struct Locked {
    server: Server,
    position: MysqlPosition,
}

impl Locked {
    /// Unlocks, and proves that the lock lasted until now.
    pub(super) fn unlock(mut self, cancel: &CancelToken) -> Result<MysqlPosition> {
        match self.server.ask("UNLOCK TABLES;", cancel) {
            Ok(_) => Ok(self.position),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                let text = "the read lock was lost before the snapshot was complete, which may hold a mixture of states";
                Err(Error::new(ErrorKind::SnapshotLost, text).because(error).hint(
                    "nothing was committed; the server ends the lock after --freeze-timeout: give more time, or find out \
                     what took so long",
                ))
            }
        }
    }
}

/// One client.
struct Server {
    session: Session,
    patience: Duration,
}

impl Server {
    fn ask(&mut self, sql: &str, cancel: &CancelToken) -> Result<Vec<String>> {
        let text = format!("{sql} SELECT '{MARK}';\n");
        self.session.ask(&text, MARK, self.patience, cancel).map_err(|error| {
            if error.kind() == ErrorKind::Cancelled {
                return error;
            }
            Error::new(error.kind(), "asking MySQL").because(error).hint(RIGHTS)
        })
    }

    /// A server without a binary log answers with nothing.
    fn position(&mut self, version: &str, cancel: &CancelToken) -> Result<MysqlPosition> {
        let statement =
            if status_is_renamed(version) { "SHOW BINARY LOG STATUS;" } else { "SHOW MASTER STATUS;" };
        let Some(status) = self.ask(statement, cancel)?.into_iter().next() else {
            return Ok(MysqlPosition::default());
        };
        let mut columns = status.split('\t');
        let file = columns.next().map(str::to_owned);
        let position = columns.next().and_then(|digits| digits.parse().ok());
        let gtid = if is_mariadb(version) {
            self.ask("SELECT @@GLOBAL.gtid_binlog_pos;", cancel)?.into_iter().next()
        } else {
            columns.nth(2).map(|set| set.replace("\\n", ""))
        };
        Ok(MysqlPosition { file, position, gtid: gtid.filter(|set| !set.is_empty()) })
    }
}

fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

fn status_is_renamed(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let known = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    !is_mariadb(version) && known >= RENAMED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart() {
        for (version, renamed) in [
            ("8.4.3", true),
            ("9.1.0-commercial", true),
            ("8.0.36-0ubuntu1", false),
            ("5.7.44-log", false),
            ("10.11.6-MariaDB-0+deb12u1", false),
            ("11.4.2-MariaDB", false),
            ("", false),
        ] {
            assert_eq!(status_is_renamed(version), renamed, "{version}");
        }
    }
}
