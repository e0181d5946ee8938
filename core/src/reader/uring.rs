//! The io_uring reader: keeps `depth` reads in flight while buffers last.

use std::time::Duration;

use crossbeam::channel::Sender;

use super::{PATIENCE, PlanIter, ReadJob};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Planned, Read};
use crate::geometry::{BlockIndex, to_usize};
use crate::sys::ring::{Completion, ReadRing, Whole};
use crate::throttle::state::{Reason, Turn};

pub fn run(mut ring: ReadRing, job: &ReadJob<'_>, plan: PlanIter<'_>, out: &Sender<Read>) -> Result<()> {
    let mut plan = plan.peekable();
    let mut done = Vec::new();
    loop {
        job.cancel.check()?;
        let wait = fill(&mut ring, job, &mut plan, out)?;
        if ring.in_flight() > 0 {
            ring.wait(&mut done, |len, took| job.throttle.done(len, took))
                .map_err(|source| Error::io("reading with io_uring", job.file.path(), source))?;
        } else if let Some((wait, reason)) = wait {
            // Making a buffer takes milliseconds, which cost nothing while the throttle takes its first look.
            if !ring.make_ready() {
                job.throttle.wait(wait, reason);
            }
        } else if plan.peek().is_none() {
            return Ok(());
        } else {
            // Only the window holds the next block back: the collector is about to move it.
            std::thread::sleep(Duration::from_micros(200));
        }
        for completion in done.drain(..) {
            let block = finish(job, completion)?;
            if out.send(block).is_err() {
                return Ok(());
            }
        }
    }
}

/// Queues what there is room for; tells how long to wait when a limit forbids the next request.
fn fill(
    ring: &mut ReadRing,
    job: &ReadJob<'_>,
    plan: &mut std::iter::Peekable<PlanIter<'_>>,
    out: &Sender<Read>,
) -> Result<Option<(Duration, Reason)>> {
    while ring.has_room() {
        if ring.left() == 0 {
            let Some(index) = next_to_read(plan, job, out)? else { break };
            if !begin(ring, job, index) {
                break;
            }
            plan.next();
        }
        match job.throttle.turn(ring.left().min(job.request_len)) {
            Turn::Wait(wait, reason) => return Ok(Some((wait, reason))),
            Turn::Go(len) => ring
                .queue(len)
                .map_err(|source| Error::io("reading with io_uring", job.file.path(), source))?,
        }
    }
    Ok(None)
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

/// Begins a block if a buffer is free; waits for one only when nothing else could bring one back.
fn begin(ring: &mut ReadRing, job: &ReadJob<'_>, index: BlockIndex) -> bool {
    let buffer = if ring.in_flight() == 0 { job.pool.take(PATIENCE) } else { job.pool.try_take() };
    let Some(buffer) = buffer else { return false };
    ring.begin(index, buffer, job.geometry.block_offset(index), job.geometry.block_len(index));
    true
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
