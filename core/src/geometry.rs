//! Sizes and the only arithmetic between block index, grain index and byte offset.
//!
//! A volume of `volume_size` bytes is cut into blocks of `block_size` (the last may be shorter), a block into grains of
//! `grain_size` (the last of the last block may be shorter). All offsets are bytes from the start of the volume. If a
//! length in here were wrong, digests would cover the wrong bytes; so nothing else in the crate multiplies by a size.

use crate::error::{Error, ErrorKind, Result};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("blkdelta needs a 64-bit machine: offsets and lengths are 64 bits wide");

/// The smallest and largest block size, in bytes.
pub const BLOCK_SIZE_RANGE: (u32, u32) = (64 << 10, 64 << 20);
/// The smallest and largest grain size, in bytes.
pub const GRAIN_SIZE_RANGE: (u32, u32) = (4 << 10, 64 << 10);
/// The largest volume, in bytes: 2^60, far below any overflow of the arithmetic here.
pub const VOLUME_SIZE_MAX: u64 = 1 << 60;

/// Number of a block, from 0.
pub type BlockIndex = u64;

/// `usize` from a 64-bit size; lossless, since only 64-bit targets compile.
#[must_use]
#[allow(clippy::cast_possible_truncation)] // the one place: guarded by the compile_error above
pub const fn to_usize(value: u64) -> usize {
    value as usize
}

/// The three sizes that fix how a volume is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    volume_size: u64,
    block_size: u32,
    grain_size: u32,
}

impl Geometry {
    /// Checks the sizes: powers of two in their ranges, the grain not larger than the block, the volume not absurd.
    pub fn new(volume_size: u64, block_size: u32, grain_size: u32) -> Result<Self> {
        check_power("block size", block_size, BLOCK_SIZE_RANGE)?;
        check_power("grain size", grain_size, GRAIN_SIZE_RANGE)?;
        if volume_size > VOLUME_SIZE_MAX {
            return Err(Error::new(
                ErrorKind::WrongUse,
                format!("a volume of {volume_size} bytes is too large"),
            ));
        }
        Ok(Self { volume_size, block_size, grain_size })
    }

    /// The same cut for another volume size.
    pub fn resized(&self, volume_size: u64) -> Result<Self> {
        Self::new(volume_size, self.block_size, self.grain_size)
    }

    /// Bytes of the volume.
    #[must_use]
    pub fn volume_size(&self) -> u64 {
        self.volume_size
    }

    /// Bytes of a full block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Bytes of a full grain.
    #[must_use]
    pub fn grain_size(&self) -> u32 {
        self.grain_size
    }

    /// How many blocks the volume has; the last may be short.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.volume_size.div_ceil(u64::from(self.block_size))
    }

    /// Where block `index` starts.
    #[must_use]
    pub fn block_offset(&self, index: BlockIndex) -> u64 {
        index.saturating_mul(u64::from(self.block_size))
    }

    /// Real length of block `index` in bytes; 0 beyond the end.
    #[must_use]
    pub fn block_len(&self, index: BlockIndex) -> u32 {
        let left = self.volume_size.saturating_sub(self.block_offset(index));
        u32::try_from(left).unwrap_or(u32::MAX).min(self.block_size)
    }

    /// Bytes of the blocks `first .. first + count`, as far as they lie in the volume.
    #[must_use]
    pub fn span_len(&self, first: BlockIndex, count: u64) -> u64 {
        let end = self.block_offset(first.saturating_add(count)).min(self.volume_size);
        end.saturating_sub(self.block_offset(first))
    }

    /// Blocks at the start that a volume of this cut and one of the other size share whole; all of them when the sizes are
    /// equal.
    #[must_use]
    pub fn shared_blocks(&self, other: &Self) -> u64 {
        if other.volume_size == self.volume_size {
            return self.block_count();
        }
        other.volume_size.min(self.volume_size) / u64::from(self.block_size)
    }

    /// Grains in a full block.
    #[must_use]
    pub fn grains_per_block(&self) -> u32 {
        self.block_size / self.grain_size
    }

    /// Grains in a block of `block_len` bytes.
    #[must_use]
    pub fn grains_in(&self, block_len: u32) -> u32 {
        block_len.div_ceil(self.grain_size)
    }

    /// The bytes of grain `grain` inside a block of `block_len` bytes, as a range from the block's start.
    #[must_use]
    pub fn grain_range(&self, grain: u32, block_len: u32) -> std::ops::Range<usize> {
        let start = u64::from(grain) * u64::from(self.grain_size);
        let end = (start + u64::from(self.grain_size)).min(u64::from(block_len));
        to_usize(start)..to_usize(end)
    }

    /// The same of `count` neighbouring grains, at least one.
    #[must_use]
    pub fn grains_range(&self, first: u32, count: u32, block_len: u32) -> std::ops::Range<usize> {
        self.grain_range(first, block_len).start..self.grain_range(first + count - 1, block_len).end
    }

    /// The block that holds byte `offset`.
    #[must_use]
    pub fn block_of(&self, offset: u64) -> BlockIndex {
        offset / u64::from(self.block_size)
    }
}

fn check_power(what: &str, value: u32, (min, max): (u32, u32)) -> Result<()> {
    if value.is_power_of_two() && (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::WrongUse, format!("{what} of {value} bytes")).hint(format!(
        "use a power of two from {} KiB to {} KiB",
        min >> 10,
        max >> 10
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_is_short() {
        let geometry = Geometry::new((4 << 20) + 513, 4 << 20, 8192).unwrap();
        assert_eq!(geometry.block_count(), 2);
        assert_eq!((geometry.block_len(0), geometry.block_len(1), geometry.block_len(2)), (4 << 20, 513, 0));
        assert_eq!(geometry.grains_in(513), 1);
        assert_eq!(geometry.grain_range(0, 513), 0..513);
        assert_eq!(geometry.span_len(0, 9), (4 << 20) + 513);
    }

    #[test]
    fn odd_sizes_are_refused() {
        assert!(Geometry::new(0, 4 << 20, 8192).is_ok());
        for (block, grain) in
            [(3 << 20, 8192), (4 << 20, 5000), (32 << 10, 8192), (128 << 20, 8192), (4 << 20, 2048)]
        {
            assert!(Geometry::new(1, block, grain).is_err());
        }
        assert!(Geometry::new(u64::MAX, 4 << 20, 8192).is_err());
    }
}
