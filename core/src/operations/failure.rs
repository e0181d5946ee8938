//! How stages in threads end together: the first error of any of them stops the others.

use std::sync::{Mutex, PoisonError};

use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// A stage that panics stops the others too, instead of leaving them waiting for its messages.
struct StopOnPanic<'a>(&'a CancelToken);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

/// The first error of any stage, and the token that stops the others.
#[derive(Default)]
pub struct Failure {
    first: Mutex<Option<Error>>,
    pub stop: CancelToken,
}

impl Failure {
    pub fn guard(&self, stage: impl FnOnce() -> Result<()>) {
        let _unwinding = StopOnPanic(&self.stop);
        if let Err(error) = stage() {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.stop.cancel();
        }
    }

    pub fn into_result(self) -> Result<()> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// A later stage has ended; its own error says why.
pub fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "another stage has stopped")
}
