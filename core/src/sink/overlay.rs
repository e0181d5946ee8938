//! The sink of `apply`'s doubt: lays a block's new grains over what was read of it, in memory.

use std::sync::{Mutex, PoisonError};

use super::Sink;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;
use crate::sys::buffer_pool::PooledBuffer;

/// One block as it would be if it were written to.
pub struct OverlaySink {
    offset: u64,
    grain_size: usize,
    block: Mutex<Overlaid>,
}

struct Overlaid {
    bytes: PooledBuffer,
    begun: bool,
}

impl OverlaySink {
    /// Over the block at `offset`, whose bytes are these.
    pub fn new(bytes: PooledBuffer, offset: u64, grain_size: u32) -> Self {
        let block = Mutex::new(Overlaid { bytes, begun: false });
        Self { offset, grain_size: to_usize(u64::from(grain_size)), block }
    }

    /// The block with all that was put, and whether some of it had been there already.
    pub fn into_block(self) -> (PooledBuffer, bool) {
        let block = self.block.into_inner().unwrap_or_else(PoisonError::into_inner);
        (block.bytes, block.begun)
    }

    fn lay(&self, offset: u64, len: usize, data: Option<&[u8]>) -> Result<()> {
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let Overlaid { bytes, begun } = &mut *block;
        let start = to_usize(offset - self.offset);
        let place = bytes.get_mut(start..start + len);
        let place =
            place.ok_or_else(|| Error::damaged("a grain is beyond its block").at(offset, len as u64))?;
        for (number, grain) in place.chunks_mut(self.grain_size).enumerate() {
            let from = number * self.grain_size;
            let same = match data {
                Some(data) => *grain == data[from..from + grain.len()],
                None => crate::digest::is_zero(grain),
            };
            *begun |= same;
            match data {
                Some(data) => grain.copy_from_slice(&data[from..from + grain.len()]),
                None => grain.fill(0),
            }
        }
        Ok(())
    }
}

impl Sink for OverlaySink {
    fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.lay(offset, data.len(), Some(data))
    }

    fn put_zeros(&self, offset: u64, len: u64) -> Result<()> {
        self.lay(offset, to_usize(len), None)
    }

    fn read(&self, _buffer: &mut PooledBuffer, _offset: u64, _len: usize) -> Result<()> {
        Err(Error::new(ErrorKind::WrongUse, "there is nothing to read"))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
