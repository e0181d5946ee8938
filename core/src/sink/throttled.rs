//! A sink that is written and read no faster than the limits allow: a decorator, so that no sink knows of limits.

use std::time::Instant;

use super::Sink;
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::geometry::to_usize;
use crate::sys::buffer_pool::PooledBuffer;
use crate::throttle::governor::Throttle;
use crate::throttle::state::Turn;

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
        let wanted = u32::try_from(len).unwrap_or(u32::MAX);
        let mut allowed = 0;
        // The sink reads whole blocks; what is limited is when, in the sum.
        while allowed < len {
            self.cancel.check()?;
            match self.throttle.turn(wanted - u32::try_from(allowed).unwrap_or(wanted)) {
                Turn::Wait(wait, reason) => self.throttle.wait(wait, reason),
                Turn::Go(piece) => {
                    allowed += to_usize(u64::from(piece));
                    let begun = Instant::now();
                    let result = if allowed >= len { self.inner.read(buffer, offset, len) } else { Ok(()) };
                    self.throttle.done(piece, begun.elapsed());
                    result?;
                }
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        self.inner.finish()
    }
}
