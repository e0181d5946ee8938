//! Reads through io_uring into the buffers of one pool, with the file and the buffers registered.
//!
//! Its gain is overlap: the device works while the cores hash. The in-flight table owns each buffer until its completion
//! has arrived, also when the ring is dropped early: a buffer that the kernel still writes to must not be reused. Where
//! io_uring is refused (seccomp, sysctl, old kernels) making a ring fails and the caller falls back to `pread`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, Submitter, opcode, squeue, types};

use super::buffer_pool::{BufferPool, PooledBuffer};
use super::direct_file::aligned_len;
use super::faults;
use crate::geometry::to_usize;

/// A block that has been read.
pub struct Completion {
    /// What the caller called it.
    pub tag: u64,
    /// The buffer, with what was read from its start on.
    pub buffer: PooledBuffer,
    /// Whether every piece came whole; the first failure otherwise.
    pub result: io::Result<Whole>,
}

/// Whether a read brought all that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// All of it.
    Yes,
    /// Less: the end of the file, or a read that must be finished by hand.
    Short,
}

/// A block whose pieces are on their way.
struct Block {
    tag: u64,
    buffer: PooledBuffer,
    /// Where its next piece begins in the file.
    offset: u64,
    /// Bytes of it, and how many of them have been queued.
    len: u32,
    queued: u32,
    pieces_out: u32,
    result: io::Result<Whole>,
}

/// A request on its way: a piece of a block.
struct Request {
    /// Its block's place in the block table.
    block: usize,
    /// Bytes of the block in it.
    len: u32,
    begun: Instant,
}

/// Whether the kernel holds a buffer's pages for reads. Their pages are made when they are registered: when they are first
/// used, while the device already works for the ones before, or while the reader has to wait anyway. Most of those that a
/// run never needs are never made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Registration {
    Pending,
    Done,
    Refused,
}

/// A ring that reads one file.
pub struct ReadRing {
    ring: IoUring,
    file: RawFd,
    /// By the buffers' numbers.
    registrations: Vec<Registration>,
    file_registered: bool,
    priority: u16,
    blocks: Vec<Option<Block>>,
    /// The block that has pieces left to queue.
    filling: Option<usize>,
    requests: Vec<Option<Request>>,
    in_flight: usize,
    // Keeps the registered memory mapped at least as long as the ring.
    pool: BufferPool,
}

impl ReadRing {
    /// A ring of `depth` requests on `file`, which must stay open as long as the ring lives. Each request carries
    /// `priority` (as ioprio_set(2) packs it; 0 is the thread's own).
    pub fn new(depth: u32, file: BorrowedFd<'_>, pool: &BufferPool, priority: u16) -> io::Result<Self> {
        faults::point("io_uring_setup")?;
        let ring = IoUring::new(depth.max(1).next_power_of_two())?;
        let file = file.as_raw_fd();
        let submitter = ring.submitter();
        let registrations = vec![register_buffers(&submitter, pool); pool.count()];
        let file_registered = submitter.register_files(&[file]).is_ok();
        let mut requests = Vec::new();
        requests.resize_with(usize::try_from(depth.max(1)).unwrap_or(1), || None);
        let ring = Self {
            ring,
            file,
            registrations,
            file_registered,
            priority,
            blocks: Vec::new(),
            filling: None,
            requests,
            in_flight: 0,
            pool: pool.clone(),
        };
        Ok(ring)
    }

    /// Requests that have not ended yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes of the block that was begun and are not queued yet; 0 when there is none.
    #[must_use]
    pub fn left(&self) -> u32 {
        let block = self.filling.and_then(|slot| self.blocks[slot].as_ref());
        block.map_or(0, |block| block.len - block.queued)
    }

    /// Begins a read of `len` bytes at `offset` into the buffer's start; `len` is cut to the buffer. A file may end inside
    /// the last 4096 bytes: they are asked for whole. The block before this one must have been queued to its end.
    pub fn begin(&mut self, tag: u64, buffer: PooledBuffer, offset: u64, len: u32) {
        debug_assert!(self.filling.is_none());
        self.register(buffer.number());
        let len = len.min(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
        let block = Block { tag, buffer, offset, len, queued: 0, pieces_out: 0, result: Ok(Whole::Yes) };
        let free = self.blocks.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.blocks.push(None);
            self.blocks.len() - 1
        });
        self.blocks[slot] = Some(block);
        self.filling = Some(slot);
    }

    /// Starts the next request of the block that was begun, of at most `piece` bytes (a multiple of 4096, unless it is all
    /// that is left), without waiting for it.
    pub fn queue(&mut self, piece: u32) -> io::Result<()> {
        let Some(slot) = self.filling else { return Ok(()) };
        let free = self.requests.iter().position(Option::is_none).ok_or(io::ErrorKind::WouldBlock)?;
        let Some(block) = &mut self.blocks[slot] else { return Ok(()) };
        let len = piece.max(1).min(block.len - block.queued);
        let number = block.buffer.number();
        let start = block.buffer.start().wrapping_add(to_usize(block.queued.into()));
        let target = Target {
            file: self.file,
            fixed_file: self.file_registered,
            fixed_buffers: self.registrations[usize::from(number)] == Registration::Done,
        };
        let entry = read_entry(target, start, aligned_len(len), block.offset, number, self.priority);
        // SAFETY: start .. start + aligned length lies in the block's buffer: queued is a multiple of the alignment,
        // queued + len <= block.len <= the buffer's length, and a pool's buffers are a multiple of the alignment long. The
        // buffer sits in the block table until all its completions have arrived, so the memory stays valid and
        // unaliased; the file descriptor stays open by the contract of `new`.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(free as u64)) };
        pushed.map_err(|_| io::ErrorKind::WouldBlock)?;
        block.queued += len;
        block.offset += u64::from(len);
        block.pieces_out += 1;
        if block.queued == block.len {
            self.filling = None;
        }
        self.requests[free] = Some(Request { block: slot, len, begun: Instant::now() });
        self.in_flight += 1;
        retry_interrupted(|| faults::point("io_uring_enter").and_then(|()| self.ring.submit()))
    }

    /// Makes the next buffer before it is needed, while there is nothing else to do; false when half of them are made: so
    /// many are read into before the first comes back.
    pub fn make_ready(&mut self) -> bool {
        let half = self.registrations.len().div_ceil(2);
        let mut next = (0..).zip(&self.registrations[..half]);
        let Some((number, _)) = next.find(|(_, made)| **made == Registration::Pending) else { return false };
        self.register(number);
        true
    }

    /// Registers a buffer before its first use; one that is refused is read into all the same.
    fn register(&mut self, number: u16) {
        let registration = &mut self.registrations[usize::from(number)];
        if *registration != Registration::Pending {
            return;
        }
        let (submitter, span) = (self.ring.submitter(), self.pool.span(number.into()));
        // SAFETY: the span is a buffer of the pool, which `pool` keeps mapped until after the ring is closed.
        let update = || unsafe { submitter.register_buffers_update(number.into(), &[span], None) };
        *registration = told(faults::point("io_uring_buffer").and_then(|()| update()));
    }

    /// Waits for at least one request to end, tells each one's bytes and time, and appends all blocks that are complete
    /// to `done`.
    pub fn wait(
        &mut self,
        done: &mut Vec<Completion>,
        mut ended: impl FnMut(u32, Duration),
    ) -> io::Result<()> {
        if self.in_flight == 0 {
            return Ok(());
        }
        retry_interrupted(|| faults::point("io_uring_enter").and_then(|()| self.ring.submit_and_wait(1)))?;
        self.collect(done, &mut ended);
        Ok(())
    }

    fn collect(&mut self, done: &mut Vec<Completion>, ended: &mut dyn FnMut(u32, Duration)) {
        for entry in self.ring.completion() {
            let request = self.requests.get_mut(to_usize(entry.user_data())).and_then(Option::take);
            let Some(Request { block: slot, len, begun }) = request else { continue };
            self.in_flight -= 1;
            ended(len, begun.elapsed());
            let Some(Some(block)) = self.blocks.get_mut(slot) else { continue };
            block.pieces_out -= 1;
            block.take_result(entry.result(), to_usize(len.into()));
            if block.pieces_out == 0
                && self.filling != Some(slot)
                && let Some(Block { tag, buffer, result, .. }) = self.blocks[slot].take()
            {
                done.push(Completion { tag, buffer, result });
            }
        }
    }
}

/// Prepares a table for buffers to come; kernels before 5.19 want all of them at once.
fn register_buffers(submitter: &Submitter<'_>, pool: &BufferPool) -> Registration {
    let count = u32::try_from(pool.count()).unwrap_or(u32::MAX);
    let sparse = faults::point("io_uring_sparse").and_then(|()| submitter.register_buffers_sparse(count));
    if sparse.is_ok() {
        return Registration::Pending;
    }
    // SAFETY: the spans lie in the pool's mapping, which the ring's `pool` keeps alive until after the ring is closed.
    told(unsafe { submitter.register_buffers(&pool.spans()) })
}

fn told(registered: io::Result<()>) -> Registration {
    match registered {
        Ok(()) => Registration::Done,
        Err(reason) => {
            tracing::debug!(%reason, "a buffer is not registered: reads into it cost more CPU");
            Registration::Refused
        }
    }
}

/// Where a request goes, and what of it the kernel knows already.
#[derive(Clone, Copy)]
struct Target {
    file: RawFd,
    fixed_file: bool,
    fixed_buffers: bool,
}

fn read_entry(
    target: Target,
    start: *mut u8,
    len: u32,
    offset: u64,
    buffer: u16,
    priority: u16,
) -> squeue::Entry {
    let fd = types::Fd(target.file);
    match (target.fixed_buffers, target.fixed_file) {
        (true, true) => opcode::ReadFixed::new(types::Fixed(0), start, len, buffer)
            .offset(offset)
            .ioprio(priority)
            .build(),
        (true, false) => {
            opcode::ReadFixed::new(fd, start, len, buffer).offset(offset).ioprio(priority).build()
        }
        (false, true) => {
            opcode::Read::new(types::Fixed(0), start, len).offset(offset).ioprio(priority).build()
        }
        (false, false) => opcode::Read::new(fd, start, len).offset(offset).ioprio(priority).build(),
    }
}

impl Block {
    /// What a piece of `len` bytes brought: bytes, or a negative error number.
    fn take_result(&mut self, code: i32, len: usize) {
        let got = faults::point("read_uring")
            .inspect_err(|_| self.buffer.fill(faults::SPOILT))
            .and_then(|()| usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code)))
            .map(|got| faults::shortened("short_uring", got, &mut self.buffer));
        match got {
            Ok(got) if got >= len => {}
            Ok(_) if self.result.is_ok() => self.result = Ok(Whole::Short),
            Err(error) if self.result.is_ok() => self.result = Err(error),
            _ => {}
        }
    }
}

impl Drop for ReadRing {
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.in_flight > 0 {
            if retry_interrupted(|| self.ring.submit_and_wait(1)).is_err() {
                // Rather lose the buffers than reuse memory that the kernel may still write to.
                for held in self.blocks.drain(..).flatten() {
                    std::mem::forget(held.buffer);
                }
                return;
            }
            self.collect(&mut done, &mut |_, _| {});
        }
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    loop {
        match call() {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn half_of_the_buffers_are_made_before_they_are_needed_and_all_are_read_into() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..4_u8).flat_map(|block| [block + 1; 4096]).collect();
        file.write_all(&bytes).unwrap();
        let pool = BufferPool::new(4, 4096).unwrap();
        let mut ring = ReadRing::new(4, file.as_fd(), &pool, 0).unwrap();
        assert_eq!([ring.make_ready(), ring.make_ready(), ring.make_ready()], [true, true, false]);
        for block in 0..4 {
            ring.begin(block, pool.try_take().unwrap(), block * 4096, 4096);
            ring.queue(4096).unwrap();
        }
        let mut done = Vec::new();
        while ring.in_flight() > 0 {
            ring.wait(&mut done, |_, _| {}).unwrap();
        }
        assert_eq!(done.len(), 4);
        for Completion { tag, buffer, result } in done {
            assert!(matches!(result, Ok(Whole::Yes)));
            assert_eq!(*buffer, bytes[to_usize(tag * 4096)..][..4096]);
        }
    }
}
