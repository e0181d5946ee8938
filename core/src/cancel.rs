//! A token that is tested between blocks: setting it ends every stage within one block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Shared by whoever may cancel and whoever works.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    flag: Arc<AtomicBool>,
    /// Whoever cancels one of these cancels us too.
    above: Vec<Arc<AtomicBool>>,
}

impl CancelToken {
    /// Not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps a flag that somebody else sets, such as a signal handler.
    #[must_use]
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self { flag, above: Vec::new() }
    }

    /// A token of its own that is also cancelled when this one is.
    #[must_use]
    pub fn child(&self) -> Self {
        let above = self.above.iter().chain([&self.flag]).cloned().collect();
        Self { flag: Arc::default(), above }
    }

    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether it should stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        set(&self.flag) || self.above.iter().any(set)
    }

    /// An error of kind `Cancelled` when it should stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "interrupted")
                .hint("nothing that was stored is lost; run it again"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_cancelled_with_each_above_it_and_never_upwards() {
        let top = CancelToken::new();
        let middle = top.child();
        let (low, other) = (middle.child(), top.child());
        middle.cancel();
        assert!(low.is_cancelled() && !top.is_cancelled() && !other.is_cancelled());
        top.cancel();
        assert!(other.is_cancelled());
    }
}
