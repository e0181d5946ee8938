//! Running the host's own programs (lvm2, ZFS, thin-provisioning-tools, psql): with a time limit, without a shell, apart from
//! the terminal's signals, and with their errors told as ours.
//!
//! Trade-off: programs instead of libraries, because their command lines are the stable interface of these layers. Each
//! runs in its own process group, so that Ctrl-C does not cut a change of metadata in half; on a time-out the group is
//! killed. Passwords never go on a command line.

pub mod session;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::faults;
use crate::error::{Error, ErrorKind, Result};
use session::Session;

/// How long a program may take unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// Folders of the system's programs, which a user's PATH may not have.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// A program to be run.
pub struct Command {
    program: OsString,
    inner: std::process::Command,
    patience: Duration,
}

/// What a program that ended well has said.
#[derive(Debug)]
pub struct Said {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Command {
    /// This program, found by PATH and in the system's folders; its messages in English.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut inner = std::process::Command::new(program.as_ref());
        let path = std::env::var("PATH").unwrap_or_default();
        inner
            .env("PATH", format!("{path}:{SYSTEM_FOLDERS}"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .process_group(0);
        Self { program: program.as_ref().to_owned(), inner, patience: PATIENCE }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.inner.args(args);
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// The folder that it runs in.
    #[must_use]
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.inner.current_dir(folder);
        self
    }

    /// Another time limit.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn problem(&self, source: io::Error) -> Error {
        let name = self.program.display();
        match source.kind() {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("the program {name} is not installed"))
                    .because(source)
                    .hint(format!("install the package that has {name}"))
            }
            _ => Error::new(ErrorKind::Io, format!("running {name}")).because(source),
        }
    }

    /// Runs it to its end. A failure (exit code, signal, time-out) is an error with what it said last.
    pub fn run(mut self) -> Result<Said> {
        tracing::debug!(command = self.by_hand(), "running");
        faults::point("spawn").map_err(|source| self.problem(source))?;
        let spawned = self.inner.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|source| self.problem(source))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, err, status) = std::thread::scope(|scope| {
            let out = scope.spawn(|| text_of(out));
            let err = scope.spawn(|| text_of(err));
            let status = wait(&mut child, self.patience);
            (out.join().unwrap_or_default(), err.join().unwrap_or_default(), status)
        });
        let status = status.map_err(|source| self.problem(source))?;
        match status {
            Some(status) if status.success() => Ok(Said { out, err }),
            _ => Err(self.failure(status, &err)),
        }
    }

    fn failure(&self, status: Option<ExitStatus>, err: &str) -> Error {
        let name = self.program.display();
        let how = status.map_or_else(
            || format!("ended after {} s", self.patience.as_secs()),
            |status| status.to_string(),
        );
        Error::new(ErrorKind::Io, format!("{name} failed ({how}): {}", complaint(err)))
            .hint(format!("try it by hand: {}", self.by_hand()))
    }

    fn by_hand(&self) -> String {
        let arguments = self.inner.get_args().map(|argument| format!(" {}", argument.display()));
        format!("{}{}", self.program.display(), arguments.collect::<String>())
    }

    /// Runs it and reads its standard output as it comes; [`Stream::finish`] tells how it ended.
    pub fn stream(mut self) -> Result<Stream> {
        tracing::debug!(command = self.by_hand(), "reading from");
        faults::point("spawn").map_err(|source| self.problem(source))?;
        let spawned = self.inner.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|source| self.problem(source))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let err = std::thread::spawn(move || text_of(err));
        Ok(Stream { command: self, child, out, err: Some(err) })
    }

    /// Starts it and keeps its standard input open, to talk to it.
    pub fn session(mut self) -> Result<Session> {
        tracing::debug!(command = self.by_hand(), "talking to");
        faults::point("spawn").map_err(|source| self.problem(source))?;
        let piped = self.inner.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.spawn().map_err(|source| self.problem(source))?;
        Ok(Session::new(self, child))
    }
}

/// A program whose output is being read. Dropping it ends the program.
pub struct Stream {
    command: Command,
    child: Child,
    out: Option<ChildStdout>,
    err: Option<std::thread::JoinHandle<String>>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.out.as_mut().map_or(Ok(0), |out| out.read(buffer))
    }
}

impl Stream {
    /// Waits for its end; a failure is an error with what it said last. Call it after the last byte was read.
    pub fn finish(mut self) -> Result<()> {
        self.out = None;
        let status = wait(&mut self.child, self.command.patience).map_err(|e| self.command.problem(e))?;
        let err = self.err.take().and_then(|err| err.join().ok()).unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(()),
            _ => Err(self.command.failure(status, &err)),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// The first lines of what it said on standard error, in one; lvm2 puts warnings before and resignation after the cause.
fn complaint(err: &str) -> String {
    let lines = err.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("WARNING:"));
    lines.take(3).collect::<Vec<_>>().join("; ")
}

fn text_of(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits; `None` when it had to be killed.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + patience;
    loop {
        // Asked before the last look: if this machine stands still for a while, that is not the program's slowness.
        let late = Instant::now() >= end;
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if late {
            break;
        }
        std::thread::sleep(LOOK);
    }
    kill(child);
    child.wait()?;
    Ok(None)
}

fn kill(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_and_how_it_ends_is_told() {
        let said = Command::new("sh").args(["-c", "echo out; echo err >&2"]).run().unwrap();
        assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
        let error = Command::new("sh").args(["-c", "echo why >&2; exit 7"]).run().unwrap_err();
        assert!(error.to_string().contains("why") && error.next_step().is_some(), "{error}");
        let error = Command::new("no-such-program-at-all").run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let begun = Instant::now();
        let slow = Command::new("sh").args(["-c", "sleep 600 & sleep 600"]);
        let error = slow.patience(Duration::from_millis(50)).run().unwrap_err();
        assert!(error.to_string().contains("ended after"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(300), "its children went with it");
    }

    #[test]
    fn a_stream_tells_a_failure_at_its_end() {
        let mut stream = Command::new("sh").args(["-c", "printf abc; exit 3"]).stream().unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(stream.finish().is_err());
        drop(Command::new("sleep").arg("60").stream().unwrap());
    }
}
