//! A sink that is written and read no faster than the limits allow: a decorator, so that no sink knows of limits.

use std::time::Instant;

use super::Sink;
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::sys::buffer_pool::PooledBuffer;
use crate::throttle::governor::Throttle;

/// Waits before it passes on.
pub struct ThrottledSink<'a> {
    inner: &'a dyn Sink,
    throttle: &'a Throttle,
    cancel: &'a CancelToken,
}

impl<'a> ThrottledSink<'a> {
    /// Passes on to `inner`.
    #[must_use]
    pub fn new(inner: &'a dyn Sink, throttle: &'a Throttle, cancel: &'a CancelToken) -> Self {
        Self { inner, throttle, cancel }
    }
}

impl Sink for ThrottledSink<'_> {
    fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut at = 0;
        while at < data.len() {
            let end = data.len().min(at.saturating_add(self.throttle.write_piece()));
            self.throttle.wait_to_write((end - at) as u64, self.cancel)?;
            let begun = Instant::now();
            self.inner.put(offset + at as u64, &data[at..end])?;
            self.throttle.wrote(begun.elapsed());
            at = end;
        }
        Ok(())
    }

    /// Zeros are made by the target itself where it can, which costs it little: they pass.
    fn put_zeros(&self, offset: u64, len: u64) -> Result<()> {
        self.inner.put_zeros(offset, len)
    }

    fn starts_zero(&self) -> bool {
        self.inner.starts_zero()
    }

    fn in_order(&self) -> bool {
        self.inner.in_order()
    }

    fn read(&self, buffer: &mut PooledBuffer, offset: u64, len: usize) -> Result<()> {
        // The sink reads whole blocks; what is limited is when, in the sum.
        self.throttle.in_turns(len, self.cancel, |piece| {
            if piece.end == len { self.inner.read(buffer, offset, len) } else { Ok(()) }
        })
    }

    fn finish(&self) -> Result<()> {
        self.inner.finish()
    }
}
