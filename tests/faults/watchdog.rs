//! A stage that waits for another which has failed would hang the test for ever: end it with a word instead.

use std::fmt::Debug;
use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Far longer than any step of these tests takes, also on a machine that others keep busy.
const PATIENCE: Duration = Duration::from_secs(400);

/// Runs `work`; if it does not end, ends the process and says at which `fault`.
pub fn guard<T>(fault: &dyn Debug, work: impl FnOnce() -> T) -> T {
    let text = format!("{fault:?}: the operation hangs\n");
    let (done, wait) = channel::<()>();
    let watching = std::thread::spawn(move || {
        if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = std::io::stderr().write_all(text.as_bytes());
            std::process::abort();
        }
    });
    let result = work();
    drop(done);
    watching.join().unwrap();
    result
}
