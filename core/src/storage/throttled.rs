//! An object that is written, or read, no faster than the limits allow: a decorator, so that no storage knows of limits.
//!
//! Large pieces are cut, so that the rate is kept within each tenth of a second and cancelling works between pieces. What
//! is written around it (records, manifests' last pages) is small and passes unlimited.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Durable, ObjectReader, ObjectWriter, Storage};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::throttle::governor::Throttle;

/// Waits before it writes.
pub struct ThrottledWriter {
    inner: Box<dyn ObjectWriter>,
    throttle: Throttle,
    cancel: CancelToken,
}

impl ThrottledWriter {
    /// Passes on to `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn ObjectWriter>, throttle: Throttle, cancel: CancelToken) -> Self {
        Self { inner, throttle, cancel }
    }
}

impl ObjectWriter for ThrottledWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(self.throttle.write_piece()) {
            self.throttle.wait_to_write(piece.len() as u64, &self.cancel)?;
            self.inner.write(piece)?;
        }
        Ok(())
    }

    fn make_durable(&mut self) -> Result<Option<Durable>> {
        self.inner.make_durable()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.inner.finish()
    }
}

/// Waits before it reads.
pub struct ThrottledReader {
    inner: Arc<dyn ObjectReader>,
    throttle: Throttle,
    cancel: CancelToken,
}

impl ThrottledReader {
    /// Passes on to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectReader>, throttle: Throttle, cancel: CancelToken) -> Self {
        Self { inner, throttle, cancel }
    }
}

impl ObjectReader for ThrottledReader {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.throttle.in_turns(buffer.len(), &self.cancel, |piece| {
            let place = offset + piece.start as u64;
            self.inner.read_exact_at(&mut buffer[piece], place)
        })
    }

    fn display(&self) -> PathBuf {
        self.inner.display()
    }
}

/// All objects of a storage, with waiting.
pub struct ThrottledStorage {
    inner: Arc<dyn Storage>,
    throttle: Throttle,
    cancel: CancelToken,
}

impl ThrottledStorage {
    /// Passes on to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, throttle: Throttle, cancel: CancelToken) -> Self {
        Self { inner, throttle, cancel }
    }
}

impl Storage for ThrottledStorage {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.inner.create(name)?;
        Ok(Box::new(ThrottledWriter::new(inner, self.throttle.clone(), self.cancel.clone())))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.inner.put_new(name, bytes)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let inner = self.inner.open(name)?;
        Ok(Arc::new(ThrottledReader::new(inner, self.throttle.clone(), self.cancel.clone())))
    }

    fn open_unfinished(&self, unfinished: &str, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let inner = self.inner.open_unfinished(unfinished, name)?;
        Ok(Arc::new(ThrottledReader::new(inner, self.throttle.clone(), self.cancel.clone())))
    }

    super::pass_on_to_inner!();
}
