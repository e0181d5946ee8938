//! Reads through io_uring into the buffers of one pool, with the file and the buffers registered.
//!
//! Its gain is overlap: the device works while the cores hash. The in-flight table owns each buffer until its completion
//! has arrived, also when the ring is dropped early: a buffer that the kernel still writes to must not be reused. Where
//! io_uring is refused (seccomp, sysctl, old kernels) making a ring fails and the caller falls back to `pread`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::{IoUring, opcode, types};

use super::buffer_pool::{BufferPool, PooledBuffer};
use super::faults;

/// A read that has ended.
pub struct Completion {
    /// What the caller called it.
    pub tag: u64,
    /// The buffer, with what was read from its start on.
    pub buffer: PooledBuffer,
    /// Bytes read, or why not.
    pub result: io::Result<usize>,
}

struct InFlight {
    tag: u64,
    buffer: PooledBuffer,
}

/// A ring that reads one file.
pub struct ReadRing {
    ring: IoUring,
    file: RawFd,
    buffers_registered: bool,
    file_registered: bool,
    in_flight: Vec<Option<InFlight>>,
    count: usize,
    // Keeps the registered memory mapped at least as long as the ring.
    _pool: BufferPool,
}

impl ReadRing {
    /// A ring of `depth` reads on `file`, which must stay open as long as the ring lives.
    pub fn new(depth: u32, file: BorrowedFd<'_>, pool: &BufferPool) -> io::Result<Self> {
        faults::point("io_uring_setup")?;
        let ring = IoUring::new(depth.max(1).next_power_of_two())?;
        let file = file.as_raw_fd();
        let submitter = ring.submitter();
        // SAFETY: the spans lie in the pool's mapping, which `_pool` keeps alive until after the ring is closed.
        let buffers_registered = match unsafe { submitter.register_buffers(&pool.spans()) } {
            Ok(()) => true,
            Err(reason) => {
                tracing::debug!(%reason, "buffers are not registered: reads cost more CPU");
                false
            }
        };
        let file_registered = submitter.register_files(&[file]).is_ok();
        let mut in_flight = Vec::new();
        in_flight.resize_with(usize::try_from(depth.max(1)).unwrap_or(1), || None);
        let ring = Self {
            ring,
            file,
            buffers_registered,
            file_registered,
            in_flight,
            count: 0,
            _pool: pool.clone(),
        };
        Ok(ring)
    }

    /// Reads that have not ended yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.count
    }

    /// Whether another read fits.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.count < self.in_flight.len()
    }

    /// Queues a read of `len` bytes at `offset` into the buffer's start; `len` is cut to the buffer.
    pub fn push(&mut self, tag: u64, buffer: PooledBuffer, offset: u64, len: u32) -> io::Result<()> {
        let slot = self.in_flight.iter().position(Option::is_none).ok_or(io::ErrorKind::WouldBlock)?;
        let len = len.min(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
        let entry = self.entry(&buffer, offset, len).user_data(slot as u64);
        self.in_flight[slot] = Some(InFlight { tag, buffer });
        self.count += 1;
        // SAFETY: the buffer now sits in the in-flight table until its completion arrives, so the memory stays valid and
        // unaliased; the file descriptor stays open by the contract of `new`.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.in_flight[slot] = None;
            self.count -= 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn entry(&self, buffer: &PooledBuffer, offset: u64, len: u32) -> io_uring::squeue::Entry {
        let (start, number) = (buffer.start(), buffer.number());
        match (self.buffers_registered, self.file_registered) {
            (true, true) => {
                opcode::ReadFixed::new(types::Fixed(0), start, len, number).offset(offset).build()
            }
            (true, false) => {
                opcode::ReadFixed::new(types::Fd(self.file), start, len, number).offset(offset).build()
            }
            (false, true) => opcode::Read::new(types::Fixed(0), start, len).offset(offset).build(),
            (false, false) => opcode::Read::new(types::Fd(self.file), start, len).offset(offset).build(),
        }
    }

    /// Starts what is queued, without waiting.
    pub fn submit(&mut self) -> io::Result<()> {
        retry_interrupted(|| faults::point("io_uring_enter").and_then(|()| self.ring.submit()))
    }

    /// Starts what is queued, waits for at least one read to end, and appends all that have ended to `done`.
    pub fn wait(&mut self, done: &mut Vec<Completion>) -> io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        retry_interrupted(|| faults::point("io_uring_enter").and_then(|()| self.ring.submit_and_wait(1)))?;
        self.collect(done);
        Ok(())
    }

    fn collect(&mut self, done: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            let slot = crate::geometry::to_usize(entry.user_data());
            let Some(InFlight { tag, mut buffer }) = self.in_flight.get_mut(slot).and_then(Option::take)
            else {
                continue;
            };
            self.count -= 1;
            let code = entry.result();
            let result = faults::point("read_uring")
                .inspect_err(|_| buffer.fill(faults::SPOILT))
                .and_then(|()| usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code)))
                .map(|got| faults::shortened("short_uring", got, &mut buffer));
            done.push(Completion { tag, buffer, result });
        }
    }
}

impl Drop for ReadRing {
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.count > 0 {
            if retry_interrupted(|| self.ring.submit_and_wait(1)).is_err() {
                // Rather lose the buffers than reuse memory that the kernel may still write to.
                for held in self.in_flight.drain(..).flatten() {
                    std::mem::forget(held.buffer);
                }
                return;
            }
            self.collect(&mut done);
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
