//! Freezing file systems and control groups, with a guardian that thaws them when we do not.
//!
//! The guardian is a shell with a pipe from us, in a process group of its own. It thaws when the pipe closes without our
//! saying that we did (we were killed), and when time is up (we hang). It is up before the first freeze, and waits in a
//! read: a program that it has to start then is only read from disk, which a freeze does not stop.
//! A helper process instead of a fork of this one, because a fork beside reads in flight into registered buffers copies
//! or loses what they read; and a process instead of a thread, because a thread dies with us.
//!
//! Our own thaw is also the proof: it fails when the file system was no longer frozen. Then the snapshot was not taken
//! within the freeze, and the run fails.
//! What no guardian survives: `kill -9` of both, as of a whole control group. Then `fsfreeze --unfreeze` by hand.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::control_group::ControlGroup;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::block_device::DeviceNumber;
use crate::sys::command::Command;
use crate::sys::command::session::Session;
use crate::sys::{freeze as calls, mounts};

/// Its arguments: seconds, mount points and folders of control groups. After the time is up it stays, so that a freeze that was under way then is
/// thawed when the pipe closes.
const GUARDIAN: &str = r#"
trap '' HUP INT QUIT TERM
for tool in timeout cat fsfreeze; do
  command -v $tool >/dev/null || { echo "there is no $tool here" >&2; exit 1; }
done
seconds=$1; shift
thaw() {
  for point; do
    if [ -f "$point/cgroup.freeze" ]; then echo 0 >"$point/cgroup.freeze"
    elif [ -f "$point/freezer.state" ]; then echo THAWED >"$point/freezer.state"
    else fsfreeze --unfreeze "$point"
    fi
  done
}
echo ready
told=$(timeout -s KILL "$seconds" cat) || { thaw "$@"; told=$(cat); }
[ "$told" = thawed ] || thaw "$@"
"#;

/// How long the guardian may take until it is ready.
const READY: Duration = Duration::from_secs(20);

/// What can be frozen.
enum Point {
    /// By an open directory of it.
    FileSystem(File),
    ControlGroup(ControlGroup),
}

/// What is frozen. Dropping it thaws all.
pub(super) struct Frozen {
    points: Vec<(PathBuf, Point)>,
    guardian: Option<Session>,
    timeout: Duration,
}

/// Freezes all of them, or none; `None` when there are none.
pub(super) fn freeze(points: &[PathBuf], timeout: Duration) -> Result<Option<Frozen>> {
    if points.is_empty() {
        return Ok(None);
    }
    let opened: Vec<(PathBuf, Point)> = points.iter().map(|point| open(point)).collect::<Result<_>>()?;
    for (path, point) in &opened {
        if let Point::FileSystem(root) = point {
            calls::flush(root).map_err(|source| Error::io("writing out", path, source))?;
        }
    }
    let begun = Instant::now();
    let guardian = guardian(opened.iter().rev().map(|(path, _)| path.as_path()), timeout)?;
    let mut frozen = Frozen { points: Vec::new(), guardian: Some(guardian), timeout };
    for (path, point) in opened {
        match &point {
            Point::FileSystem(root) => calls::freeze(root).map_err(|source| refused(&path, source))?,
            Point::ControlGroup(group) => group.freeze(timeout)?,
        }
        frozen.points.push((path, point));
    }
    if begun.elapsed() >= timeout {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("freezing took longer than {} s", timeout.as_secs()),
        )
        .hint(
            "the file systems have much to write out: try again, or give more time with --freeze-timeout",
        ));
    }
    Ok(Some(frozen))
}

/// Refuses to freeze what lies on a device of which LVM takes the snapshot: device-mapper freezes it by itself then, and
/// on older kernels (seen with 6.1) a freeze before that makes `lvcreate` fail half-way, for somebody to repair by hand.
pub fn refuse_mounts_of(device: DeviceNumber, points: &[PathBuf]) -> Result<()> {
    let on_device = mounts::mounts_of(device);
    for point in points {
        let real = fs::canonicalize(point).map_err(|source| Error::io("looking at", point, source))?;
        if on_device.iter().any(|mount| mount.point == real) {
            let text = "LVM freezes this file system by itself when it takes the snapshot";
            return Err(Error::new(ErrorKind::WrongUse, text).path(point).hint("leave --freeze out for it"));
        }
    }
    Ok(())
}

/// A control group, or the root of a mounted file system: not of one that is merely above the path, which nobody meant.
fn open(point: &Path) -> Result<(PathBuf, Point)> {
    let real =
        fs::canonicalize(point).map_err(|source| Error::io("looking for what to freeze", point, source))?;
    if let Some(group) = ControlGroup::find(&real) {
        return Ok((real, Point::ControlGroup(group)));
    }
    if !mounts::mounts().iter().any(|mount| mount.point == real) {
        return Err(Error::new(
            ErrorKind::WrongUse,
            "nothing is mounted there, so nothing of its own can be frozen",
        )
        .path(point)
        .hint("name the mount point itself; findmnt --target shows it"));
    }
    let root = File::open(&real).map_err(|source| Error::io("opening the mount point", point, source))?;
    Ok((real, Point::FileSystem(root)))
}

fn guardian<'a>(points: impl Iterator<Item = &'a Path>, timeout: Duration) -> Result<Session> {
    let seconds = timeout.as_millis().div_ceil(1000).max(1);
    let shell = Command::new("sh").args(["-c", GUARDIAN, "blkdelta-guardian"]).arg(seconds.to_string());
    let mut guardian = shell.args(points).folder("/").session()?;
    // A cancelled run is noticed right after the freeze.
    guardian.ask("", "ready", READY, &CancelToken::new())?;
    Ok(guardian)
}

fn refused(path: &Path, source: io::Error) -> Error {
    let code = source.raw_os_error();
    let error = Error::io("freezing the file system", path, source);
    match code {
        Some(libc::EBUSY) => {
            error.hint("it is frozen already: wait for whoever froze it, or thaw it with fsfreeze --unfreeze")
        }
        Some(libc::EOPNOTSUPP | libc::ENOTTY) => {
            error.hint("this kind of file system cannot be frozen: leave --freeze out for it")
        }
        _ => error,
    }
}

impl Frozen {
    /// Thaws them, and proves that they were frozen until now.
    pub(super) fn thaw(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        let (mut outcome, mut all_thawed) = (Ok(()), true);
        while let Some((path, point)) = self.points.pop() {
            let thawed = match &point {
                Point::FileSystem(root) => calls::thaw(root),
                Point::ControlGroup(group) => group.thaw(),
            };
            if let Err(source) = thawed {
                let thawed_before = source.raw_os_error() == Some(libc::EINVAL);
                all_thawed &= thawed_before;
                outcome = outcome.and(Err(self.problem(&path, source, thawed_before)));
            }
        }
        // Its input closes here: without the word it thaws what is left.
        let said = self
            .guardian
            .take()
            .map_or(Ok(()), |guardian| guardian.end(if all_thawed { "thawed" } else { "" }));
        if let Err(error) = said {
            tracing::debug!(%error, "the guardian of the freeze");
        }
        outcome
    }

    fn problem(&self, path: &Path, source: io::Error, thawed_before: bool) -> Error {
        if !thawed_before {
            return Error::io("thawing", path, source).hint("look whether it is thawed, and do it by hand");
        }
        let text = "this was thawed before the snapshot was complete, which may hold a mixture of states";
        Error::new(ErrorKind::SnapshotLost, text).path(path).hint(format!(
            "nothing was committed; a freeze ends after {} s (--freeze-timeout); find out what took so long, it must not \
             write to a frozen file system itself",
            self.timeout.as_secs()
        ))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            tracing::warn!("{}", error.full_text());
        }
    }
}
