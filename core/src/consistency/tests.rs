//! The order of the steps, and the way back on every path. Real servers and file systems are in `tests/storage`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::*;
use crate::error::{Error, ErrorKind};

/// Hooks that leave a line in a file.
fn hooks(log: &Path, before: &str, after: &str) -> Consistency {
    let hook =
        |more: &str| Some(format!("echo $BLKDELTA_EVENT $BLKDELTA_VOLUME >>{}; {more}", log.display()));
    let environment = vec![("BLKDELTA_VOLUME".into(), "db".into())];
    Consistency {
        hooks: Hooks { before: hook(before), after: hook(after), environment },
        ..Consistency::default()
    }
}

fn lines(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

const BOTH: [&str; 2] = ["before-snapshot db", "after-snapshot db"];

#[test]
fn the_snapshot_is_between_the_hooks() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let take = || {
        assert_eq!(lines(&log), BOTH[..1]);
        Ok(7)
    };
    let (taken, around) = hooks(&log, ":", ":").around(1, &CancelToken::new(), take).unwrap();
    assert_eq!((taken, around), (7, Surroundings::default()));
    assert_eq!(lines(&log), BOTH);
}

#[test]
fn a_failing_hook_before_stops_and_one_after_warns() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let failing = hooks(&log, "echo no room >&2; exit 3", ":");
    let error = failing.around(1, &CancelToken::new(), || -> Result<()> { panic!("taken") }).unwrap_err();
    assert!(error.full_text().contains("no room") && error.next_step().is_some(), "{error:?}");
    assert_eq!(lines(&log), BOTH, "what the first hook did by half is undone by the second");

    let failing = hooks(&log, ":", "exit 4");
    let around = failing.around(1, &CancelToken::new(), || Ok(())).unwrap().1;
    assert!(around.warnings.len() == 1 && around.warnings[0].contains("after-snapshot"), "{around:?}");
}

#[test]
fn the_way_back_is_walked_on_every_path() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let cancel = CancelToken::new();
    let failing = || -> Result<()> { Err(Error::new(ErrorKind::NoSpace, "no room")) };
    let error = hooks(&log, ":", ":").around(1, &cancel, failing).unwrap_err();
    assert_eq!((error.kind(), lines(&log).as_slice()), (ErrorKind::NoSpace, &BOTH.map(str::to_owned)[..]));

    let panicking = || -> Result<()> { panic!("on purpose") };
    let run = AssertUnwindSafe(|| hooks(&log, ":", ":").around(1, &CancelToken::new(), panicking));
    assert!(catch_unwind(run).is_err());
    assert_eq!(lines(&log).len(), 4);

    cancel.cancel();
    let error = hooks(&log, ":", ":").around(1, &cancel, || Ok(())).unwrap_err();
    assert_eq!((error.kind(), lines(&log).len()), (ErrorKind::Cancelled, 4), "nothing was begun");
}

#[test]
fn only_a_mount_point_is_frozen() {
    let folder = tempfile::tempdir().unwrap();
    for (path, kind) in
        [(folder.path().to_path_buf(), ErrorKind::WrongUse), (folder.path().join("x"), ErrorKind::NotFound)]
    {
        let consistency = Consistency { freeze: vec![path.clone()], ..Consistency::default() };
        let error = consistency.around(1, &CancelToken::new(), || Ok(())).unwrap_err();
        assert_eq!((error.kind(), error.error_path()), (kind, Some(path.as_path())));
    }
}

#[test]
fn what_lvm_freezes_by_itself_is_refused() {
    let mount =
        crate::sys::mounts::mounts().into_iter().find(|mount| mount.point == Path::new("/proc")).unwrap();
    let points = [mount.point.clone()];
    let error = freeze::refuse_mounts_of(mount.device, &points).unwrap_err();
    assert_eq!((error.kind(), error.error_path()), (ErrorKind::WrongUse, Some(mount.point.as_path())));
    freeze::refuse_mounts_of(mount.device + 1, &points).unwrap();
}
