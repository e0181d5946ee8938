//! A fixed pool of block buffers, made once, touched once, used for ever.
//!
//! What decides the speed of large reads is whether a buffer is contiguous in physical memory: a 4 MiB read into ordinary
//! pages becomes several device requests, into huge pages one. So the pool is one mapping that asks for transparent huge
//! pages by madvise; reserved ones (hugetlb) are left to the database that reserved them, and gain nothing measurable. If
//! no huge pages are to be had, all works the same at a lower rate. The pool bounds the memory of a run: who wants a
//! buffer when all are out waits.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};

use super::faults;
use crate::error::{Error, Result};

const HUGE_PAGE: usize = 2 << 20;
const CACHE_LINE: usize = 64;

/// One anonymous mapping.
struct Region {
    start: NonNull<u8>,
    mapped: NonNull<u8>,
    mapped_len: usize,
}

// SAFETY: the region is plain memory owned by the pool; the free list hands each part to one owner at a time.
unsafe impl Send for Region {}
// SAFETY: as above; a shared reference gives no access to the bytes.
unsafe impl Sync for Region {}

impl Region {
    fn map(len: usize) -> io::Result<Self> {
        faults::point("mmap")?;
        let rounded = len.next_multiple_of(HUGE_PAGE);
        // Room to move the start up to a huge page's boundary.
        let mapped_len = rounded + HUGE_PAGE;
        let mapped = map_anonymous(mapped_len)?;
        let shift = mapped.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: shift < HUGE_PAGE (2 MiB alignment of a byte pointer), and the mapping is HUGE_PAGE longer than `rounded`.
        let start = unsafe { mapped.add(shift) };
        // SAFETY: start .. start + rounded lies inside the mapping made above; advice does not change its contents.
        let advised = unsafe { mman::madvise(start.cast(), rounded, MmapAdvise::MADV_HUGEPAGE) };
        if let Err(reason) = advised {
            tracing::debug!(%reason, "no transparent huge pages: reads will be split by the kernel");
        }
        Ok(Self { start, mapped, mapped_len })
    }
}

fn map_anonymous(len: usize) -> io::Result<NonNull<u8>> {
    let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice aliases nothing.
    let start = unsafe { mman::mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }?;
    Ok(start.cast())
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this start and length, and no buffer of it is left: each holds an
        // Arc of the pool that owns this region.
        if let Err(reason) = unsafe { mman::munmap(self.mapped.cast(), self.mapped_len) } {
            tracing::warn!(%reason, "unmapping the buffer pool");
        }
    }
}

/// The pool; cheap to clone.
#[derive(Clone)]
pub struct BufferPool(Arc<Shared>);

struct Shared {
    region: Region,
    buffer_len: usize,
    count: usize,
    free: Mutex<Vec<u16>>,
    returned: Condvar,
}

impl BufferPool {
    /// `count` buffers of `buffer_len` bytes each (a multiple of 4096).
    pub fn new(count: usize, buffer_len: usize) -> Result<Self> {
        let problem = |source| {
            Error::io("making the buffer pool", "memory", source).hint("use a smaller --queue-depth")
        };
        let total =
            buffer_len.checked_mul(count).ok_or_else(|| problem(io::ErrorKind::InvalidInput.into()))?;
        let numbers = u16::try_from(count).map_err(|_| problem(io::ErrorKind::InvalidInput.into()))?;
        let region = Region::map(total).map_err(problem)?;
        let free = (0..numbers).rev().collect();
        let shared = Shared { region, buffer_len, count, free: Mutex::new(free), returned: Condvar::new() };
        Ok(Self(Arc::new(shared)))
    }

    /// Bytes of one buffer.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.0.buffer_len
    }

    /// How many buffers there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// A buffer, if one is free now.
    #[must_use]
    pub fn try_take(&self) -> Option<PooledBuffer> {
        let number = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(self.buffer(number))
    }

    /// A buffer, waiting at most `patience` for one to come back.
    #[must_use]
    pub fn take(&self, patience: Duration) -> Option<PooledBuffer> {
        let free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.returned.wait_timeout_while(free, patience, |free| free.is_empty());
        let number = waited.unwrap_or_else(PoisonError::into_inner).0.pop()?;
        Some(self.buffer(number))
    }

    fn buffer(&self, number: u16) -> PooledBuffer {
        PooledBuffer { pool: self.clone(), number, len: self.0.buffer_len }
    }

    /// Start and length of each buffer, for registering with a ring.
    pub(super) fn spans(&self) -> Vec<libc::iovec> {
        (0..self.0.count).map(|number| self.span(number)).collect()
    }

    /// Start and length of this buffer.
    pub(super) fn span(&self, number: usize) -> libc::iovec {
        libc::iovec { iov_base: self.start_of(number).as_ptr().cast(), iov_len: self.0.buffer_len }
    }

    fn start_of(&self, number: usize) -> NonNull<u8> {
        debug_assert!(number < self.0.count);
        // SAFETY: number < count, and the region holds count * buffer_len bytes.
        unsafe { self.0.region.start.add(number * self.0.buffer_len) }
    }
}

/// One buffer; goes back to the pool when dropped. Its length may be cut to a block's real length.
pub struct PooledBuffer {
    pool: BufferPool,
    number: u16,
    len: usize,
}

impl PooledBuffer {
    /// Sets the length to `len` bytes, at most the pool's buffer length; bytes keep their old content.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.pool.0.buffer_len, "a buffer cannot grow");
        self.len = len;
    }

    /// Makes this core's cache the owner of the buffer's lines, by writing to each what it holds. For whoever has read the
    /// buffer, before it is read into again: a processor that copies into it (the host of a virtual disk) waits far longer
    /// for lines that two caches hold for reading than for lines that one of them has written.
    pub fn claim(&mut self) {
        for line in self.chunks_mut(CACHE_LINE) {
            let byte = std::ptr::from_mut(&mut line[0]);
            // SAFETY: the byte is borrowed here, mutably, and so valid to read and to write. Volatile, because the compiler
            // must not see that nothing changes.
            unsafe { byte.write_volatile(byte.read_volatile()) }
        }
    }

    /// Its number in the pool, which is its number among a ring's registered buffers.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.pool.start_of(usize::from(self.number)).as_ptr()
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the free list gave this number to this owner alone; len <= buffer_len; the mapping lives as long as
        // the pool, and the memory is initialised (anonymous mappings are zero).
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in deref; &mut self makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        self.pool.0.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.pool.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_do_not_overlap_and_come_back() {
        let pool = BufferPool::new(3, 64 << 10).unwrap();
        let mut held: Vec<_> = (0..3).map(|_| pool.try_take().unwrap()).collect();
        for (fill, buffer) in (1u8..).zip(&mut held) {
            buffer.fill(fill);
        }
        for (fill, buffer) in (1u8..).zip(&held) {
            assert!(buffer.iter().all(|byte| *byte == fill));
        }
        assert!(pool.try_take().is_none());
        assert!(pool.take(Duration::from_millis(1)).is_none());
        for (fill, buffer) in (1u8..).zip(&mut held) {
            buffer.claim();
            assert!(buffer.iter().all(|byte| *byte == fill), "claiming changes nothing");
        }
        held.pop();
        assert!(pool.take(Duration::from_secs(1)).is_some());
    }
}
