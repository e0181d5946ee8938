//! Counters that the stages raise and that anybody may read while a run goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared counters, in bytes; relaxed, so a reader may see them slightly apart.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    total: AtomicU64,
    done: AtomicU64,
    changed: AtomicU64,
    stored: AtomicU64,
    note: Mutex<String>,
}

impl Progress {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the volume or range that will be passed.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Bytes passed so far, holes included.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }

    /// Bytes found changed (or, in a restore, written) so far.
    #[must_use]
    pub fn bytes_changed(&self) -> u64 {
        self.0.changed.load(Ordering::Relaxed)
    }

    /// Bytes stored so far.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        self.0.stored.load(Ordering::Relaxed)
    }

    /// A new pass over `total` bytes begins.
    pub fn begin(&self, total: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Counts bytes passed.
    pub fn add_done(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes changed.
    pub fn add_changed(&self, bytes: u64) {
        self.0.changed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes stored.
    pub fn add_stored(&self, bytes: u64) {
        self.0.stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What slows the run down now, in a few words; empty when nothing does.
    #[must_use]
    pub fn note(&self) -> String {
        self.0.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what slows the run down now.
    pub fn set_note(&self, note: &str) {
        let mut current = self.0.note.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != note {
            note.clone_into(&mut current);
        }
    }
}
