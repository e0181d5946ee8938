//! A block device as target, claimed for us alone.

use std::fs::OpenOptions;

use super::{Sink, Target};
use crate::error::{Error, Result};
use crate::source::identity;
use crate::sys::block_device;
use crate::sys::buffer_pool::PooledBuffer;
use crate::sys::direct_file::DirectFile;

/// BLKZEROOUT wants whole sectors of the device's logical size; 4096 is the largest in use.
const ZERO_ALIGNMENT: u64 = 4096;

/// An open target device.
pub struct DeviceSink {
    file: DirectFile,
}

impl DeviceSink {
    /// Checks and opens it.
    pub fn open(target: &Target) -> Result<Self> {
        let problem = |source| Error::io("opening the target", &target.path, source);
        let number = block_device::number_of(&target.path).map_err(problem)?.unwrap_or_default();
        target.check_device(number)?;
        target.check_identity(identity::of_device(number)?.as_str())?;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = DirectFile::open_write(&target.path, &options, libc::O_EXCL).map_err(|source| {
            let busy = source.raw_os_error() == Some(libc::EBUSY);
            let error = problem(source);
            if busy {
                error.hint("the kernel or another program holds the device: stop it first")
            } else {
                error
            }
        })?;
        let size = block_device::size(file.plain()).map_err(problem)?;
        target.check_device_size(size)?;
        target.check_signature(file.plain(), size)?;
        Ok(Self { file })
    }
}

impl Sink for DeviceSink {
    fn put(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_all(data, offset)
    }

    fn put_zeros(&self, offset: u64, len: u64) -> Result<()> {
        let (start, end) =
            (offset.next_multiple_of(ZERO_ALIGNMENT), (offset + len) / ZERO_ALIGNMENT * ZERO_ALIGNMENT);
        if start >= end {
            return super::image_file::write_zeros(&self.file, offset, len);
        }
        if let Err(reason) = block_device::zero_out(self.file.plain(), start..end) {
            tracing::debug!(%reason, "the device cannot zero a range by itself");
            return super::image_file::write_zeros(&self.file, offset, len);
        }
        super::image_file::write_zeros(&self.file, offset, start - offset)?;
        super::image_file::write_zeros(&self.file, end, offset + len - end)
    }

    fn read(&self, buffer: &mut PooledBuffer, offset: u64, len: usize) -> Result<()> {
        self.file.read_block(buffer, offset, len)
    }

    fn finish(&self) -> Result<()> {
        self.file.sync()
    }
}
