//! The io_uring reader: keeps as many reads in flight as [`Depth`] says, while buffers last.

use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use super::depth::Depth;
use super::{PATIENCE, PlanIter, ReadJob};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Planned, Read};
use crate::geometry::{BlockIndex, to_usize};
use crate::sys::ring::{Completion, ReadRing, Whole};
use crate::throttle::state::{Reason, Turn};

/// What keeps more requests from being queued.
enum Held {
    /// Nothing but the depth and the plan.
    No,
    /// All buffers are with those who hash.
    NoBuffer,
    /// A limit, or others.
    Throttled(Duration, Reason),
}

impl Held {
    /// Whether the rate would tell of something else than the device.
    fn spoils_rate(&self) -> bool {
        !matches!(self, Self::No | Self::Throttled(_, Reason::FirstLook))
    }
}

pub fn run(mut ring: ReadRing, job: &ReadJob<'_>, plan: PlanIter<'_>, out: &Sender<Read>) -> Result<()> {
    let mut plan = plan.peekable();
    let mut done = Vec::new();
    let mut depth = Depth::new(job.depth);
    loop {
        job.cancel.check()?;
        // The device gets its next requests first: who takes a block must often be woken.
        let held = fill(&mut ring, job, &mut plan, out, depth.allowed())?;
        if held.spoils_rate() {
            depth.disturbed();
        }
        for completion in done.drain(..) {
            let block = finish(job, completion)?;
            if out.send(block).is_err() {
                return Ok(());
            }
        }
        if ring.in_flight() > 0 {
            let mut bytes = 0;
            let ended = |len, took| {
                bytes += u64::from(len);
                job.throttle.done(len, took);
            };
            ring.wait(&mut done, ended)
                .map_err(|source| Error::io("reading with io_uring", job.file.path(), source))?;
            depth.count(bytes, Instant::now());
            continue;
        }
        match held {
            Held::NoBuffer => drop(job.pool.take(PATIENCE)), // it is the first to be taken again
            // Making a buffer takes milliseconds, which cost nothing while the throttle takes its first look.
            Held::Throttled(wait, reason) if !ring.make_ready() => job.throttle.wait(wait, reason),
            Held::Throttled(..) => {}
            Held::No if plan.peek().is_none() => return Ok(()),
            // Only the window holds the next block back: the collector is about to move it.
            Held::No => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// Queues what there is room for, up to so many requests in flight.
fn fill(
    ring: &mut ReadRing,
    job: &ReadJob<'_>,
    plan: &mut std::iter::Peekable<PlanIter<'_>>,
    out: &Sender<Read>,
    depth: usize,
) -> Result<Held> {
    while ring.in_flight() < depth {
        if ring.left() == 0 {
            let Some(index) = next_to_read(plan, job, out)? else { break };
            let Some(buffer) = job.pool.try_take() else { return Ok(Held::NoBuffer) };
            ring.begin(index, buffer, job.geometry.block_offset(index), job.geometry.block_len(index));
            plan.next();
        }
        match job.throttle.turn(ring.left().min(job.request_len)) {
            Turn::Wait(wait, reason) => return Ok(Held::Throttled(wait, reason)),
            Turn::Go(len) => ring
                .queue(len)
                .map_err(|source| Error::io("reading with io_uring", job.file.path(), source))?,
        }
    }
    Ok(Held::No)
}

/// Passes holes on and returns the next block to read, which stays in the plan; `None` when there is nothing to queue
/// now.
fn next_to_read(
    plan: &mut std::iter::Peekable<PlanIter<'_>>,
    job: &ReadJob<'_>,
    out: &Sender<Read>,
) -> Result<Option<BlockIndex>> {
    loop {
        match plan.peek() {
            Some(Ok(Planned::Read(index))) => return Ok(job.window.admits(*index).then_some(*index)),
            None => return Ok(None),
            Some(_) => {}
        }
        match plan.next() {
            Some(Err(error)) => return Err(error),
            Some(Ok(Planned::Skip(skipped))) => drop(out.send(Read::Skip(skipped))),
            Some(Ok(Planned::Read(_))) | None => {}
        }
    }
}

/// A short or failed read is repeated the careful way, which finishes it or names the place.
fn finish(job: &ReadJob<'_>, completion: Completion) -> Result<Read> {
    let Completion { tag: index, mut buffer, result } = completion;
    let len = to_usize(u64::from(job.geometry.block_len(index)));
    if !matches!(result, Ok(Whole::Yes)) {
        if let Err(reason) = &result {
            tracing::warn!(offset = job.geometry.block_offset(index), %reason, "a read failed; trying it in pieces");
        }
        let retried = job.file.read_block(&mut buffer, job.geometry.block_offset(index), len);
        retried
            .map_err(|error| if error.kind() == ErrorKind::Unreadable { unreadable(error) } else { error })?;
    }
    buffer.set_len(len);
    Ok(Read::Block { index, buffer })
}

/// EIO is an error, never zeros.
pub fn unreadable(error: Error) -> Error {
    error.hint("the source has unreadable sectors: look at the kernel log (dmesg), nothing was committed")
}
