//! The sink of `verify`: the blocks are proven on their way, and go nowhere.

use super::Sink;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::buffer_pool::PooledBuffer;

/// Takes everything and keeps nothing.
pub struct ComparingSink;

impl Sink for ComparingSink {
    fn put(&self, _offset: u64, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn put_zeros(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }

    fn read(&self, _buffer: &mut PooledBuffer, _offset: u64, _len: usize) -> Result<()> {
        Err(Error::new(ErrorKind::WrongUse, "there is nothing to read"))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
