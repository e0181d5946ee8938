//! Where restored blocks go.

mod checks;
pub mod device;
pub mod image_file;
pub mod overlay;
pub mod pipe;
pub mod throttled;

pub use checks::Target;

use crate::error::Result;
use crate::sys::buffer_pool::PooledBuffer;

/// A destination for blocks.
pub trait Sink: Send + Sync {
    /// Writes bytes at an offset of the volume. Several threads call it, unless [`Sink::in_order`].
    fn put(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// Makes a range zero.
    fn put_zeros(&self, offset: u64, len: u64) -> Result<()>;
    /// Whether writing may leave out what is zero, because it is zero there already.
    fn starts_zero(&self) -> bool {
        false
    }
    /// Whether blocks must come one by one in volume order.
    fn in_order(&self) -> bool {
        false
    }
    /// Reads what is there now into the buffer's start.
    fn read(&self, buffer: &mut PooledBuffer, offset: u64, len: usize) -> Result<()>;
    /// Makes all durable.
    fn finish(&self) -> Result<()>;
}
