//! Watches a snapshot while it is read: before, every few seconds, and after.
//!
//! A snapshot that overflows is gone, whatever its device answers from then on; so its loss is told as the error of the
//! run, in place of what it led to (a read error, a source that changed), and nothing is committed.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::Snapshot;

/// How often it is looked at while it is read.
const INTERVAL: Duration = Duration::from_secs(2);

/// The watch over one snapshot.
pub struct SnapshotWatch;

impl SnapshotWatch {
    /// Does `work` with a token that is cancelled as soon as the snapshot is lost.
    pub fn over<T>(
        snapshot: Option<&dyn Snapshot>,
        cancel: &CancelToken,
        work: impl FnOnce(&CancelToken) -> Result<T>,
    ) -> Result<T> {
        let Some(snapshot) = snapshot else { return work(cancel) };
        snapshot.check()?;
        let (ended, wake) = (Mutex::new(false), Condvar::new());
        let mut lost: Option<Error> = None;
        let done = std::thread::scope(|scope| {
            let (ended, wake, inner) = (&ended, &wake, cancel.child());
            let token = inner.clone();
            let watch = scope.spawn(move || watch(snapshot, &token, ended, wake));
            let end = EndOnDrop { ended, wake };
            let done = work(&inner);
            drop(end);
            lost = watch.join().ok().flatten();
            done
        });
        // A loss is why the work failed, not the other way round.
        match lost.map_or_else(|| snapshot.check(), Err) {
            Err(error) if error.kind() == ErrorKind::SnapshotLost => Err(error),
            sound => {
                let done = done?;
                sound.map(|()| done)
            }
        }
    }
}

/// Ends the watch also when the work panics.
struct EndOnDrop<'a> {
    ended: &'a Mutex<bool>,
    wake: &'a Condvar,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }
}

fn watch(snapshot: &dyn Snapshot, token: &CancelToken, ended: &Mutex<bool>, wake: &Condvar) -> Option<Error> {
    let mut guard = ended.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        guard = wake.wait_timeout(guard, INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        if *guard {
            return None;
        }
        if let Err(error) = snapshot.check() {
            token.cancel();
            return Some(error);
        }
    }
}
