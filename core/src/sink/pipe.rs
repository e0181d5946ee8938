//! Standard output or any other stream as target: bytes in volume order, zeros too.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::Sink;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;
use crate::sys::buffer_pool::PooledBuffer;
use crate::sys::faults;

/// A stream.
pub struct PipeSink {
    out: Mutex<File>,
}

impl PipeSink {
    /// Writes to this descriptor.
    #[must_use]
    pub fn new(out: File) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl Sink for PipeSink {
    fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        faults::point("write")
            .and_then(|()| out.write_all(data))
            .map_err(|source| Error::io("writing", "standard output", source).at(offset, data.len() as u64))
    }

    fn put_zeros(&self, offset: u64, len: u64) -> Result<()> {
        let zeros = [0; 64 << 10];
        let mut at = 0;
        while at < len {
            let piece = (len - at).min(zeros.len() as u64);
            self.put(offset + at, &zeros[..to_usize(piece)])?;
            at += piece;
        }
        Ok(())
    }

    fn in_order(&self) -> bool {
        true
    }

    fn read(&self, _buffer: &mut PooledBuffer, _offset: u64, _len: usize) -> Result<()> {
        Err(Error::new(ErrorKind::WrongUse, "a stream cannot be read back")
            .hint("restore to a file or a device"))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
