//! The reading stage: takes the plan in order, fills pool buffers, hands them on in any order.
//!
//! Two readers with the same results: io_uring with O_DIRECT, and `pread` on a few threads where io_uring or O_DIRECT is
//! refused. Neither lets more blocks be on their way than [`Window`] allows, so that nobody behind it needs unbounded
//! room to put them in order again.

mod depth;
mod pread;
mod uring;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::cancel::CancelToken;
use crate::error::Result;
use crate::flow::{Planned, Read};
use crate::geometry::{BlockIndex, Geometry};
use crate::sys::buffer_pool::BufferPool;
use crate::sys::direct_file::{DirectFile, Mode};
use crate::sys::io_priority::IoPriority;
use crate::sys::ring::ReadRing;
use crate::throttle::governor::Throttle;

/// How long a reader waits for a buffer before it looks at the cancel token again.
const PATIENCE: Duration = Duration::from_millis(50);

/// Blocks that may be on their way at once, unchanged ones included.
const WINDOW_BLOCKS: u64 = 4096;

/// How far the collector has come; readers do not run further ahead than the window is wide.
#[derive(Debug, Default)]
pub struct Window(AtomicU64);

impl Window {
    /// All blocks before this one have been collected.
    pub fn advance(&self, next: BlockIndex) {
        self.0.store(next, Ordering::Release);
    }

    fn admits(&self, index: BlockIndex) -> bool {
        index < self.0.load(Ordering::Acquire) + WINDOW_BLOCKS
    }
}

/// What a reader works with.
pub struct ReadJob<'a> {
    /// The file or device.
    pub file: &'a DirectFile,
    /// How the volume is cut.
    pub geometry: Geometry,
    /// Where buffers come from.
    pub pool: &'a BufferPool,
    /// Requests in flight.
    pub depth: u32,
    /// Bytes of a request at most; a multiple of the alignment.
    pub request_len: u32,
    /// Asked before each request.
    pub throttle: &'a Throttle,
    /// Limits the run ahead.
    pub window: &'a Window,
    /// Tested between blocks.
    pub cancel: &'a CancelToken,
}

/// How the source is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// io_uring and O_DIRECT.
    Uring,
    /// `pread`, and why.
    Pread(String),
}

/// A reader that was chosen by trying.
pub struct BlockReader {
    ring: Option<ReadRing>,
    method: Method,
}

impl BlockReader {
    /// io_uring if the kernel grants a ring and the file O_DIRECT, else `pread`.
    #[must_use]
    pub fn choose(file: &DirectFile, pool: &BufferPool, depth: u32, throttle: &Throttle) -> Self {
        if file.mode() == Mode::Buffered {
            let why = "O_DIRECT is refused here; reading through the page cache, leaving it as it was";
            return Self { ring: None, method: Method::Pread(why.into()) };
        }
        let priority = throttle.io_priority().map_or(0, IoPriority::bits);
        match ReadRing::new(depth, file.as_fd(), pool, priority) {
            Ok(ring) => Self { ring: Some(ring), method: Method::Uring },
            Err(reason) => {
                let why = format!("io_uring is refused here ({reason}); reading with pread");
                Self { ring: None, method: Method::Pread(why) }
            }
        }
    }

    /// Which one it became.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Reads the whole plan. Returns when all is handed on, when `out` is closed, or with the first error.
    pub fn run(self, job: &ReadJob<'_>, plan: PlanIter<'_>, out: &Sender<Read>) -> Result<()> {
        match self.ring {
            Some(ring) => uring::run(ring, job, plan, out),
            None => pread::run(job, &Mutex::new(plan), out),
        }
    }
}

/// The plan, in the order in which it is to be read.
pub type PlanIter<'a> = Box<dyn Iterator<Item = Result<Planned>> + Send + 'a>;
