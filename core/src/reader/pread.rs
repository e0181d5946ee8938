//! The fallback: a few threads that `pread`.

use std::sync::Mutex;

use crossbeam::channel::Sender;

use super::{PATIENCE, PlanIter, ReadJob, uring::unreadable};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Planned, Read};
use crate::geometry::{BlockIndex, to_usize};
use crate::sys::buffer_pool::PooledBuffer;

const MAX_THREADS: u32 = 4;

pub fn run(job: &ReadJob<'_>, plan: &Mutex<PlanIter<'_>>, out: &Sender<Read>) -> Result<()> {
    let threads = job.depth.clamp(1, MAX_THREADS);
    std::thread::scope(|scope| {
        // One failed worker must stop the others: what they read would wait for the block that never comes, with the
        // buffers that they wait for.
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    job.throttle.enter_thread();
                    work(job, plan, out).inspect_err(|_| job.cancel.cancel())
                })
            })
            .collect();
        let results = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
        let results = results.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let failures: Vec<Error> = results.filter_map(Result::err).collect();
        first_cause(failures)
    })
}

/// The failure that stopped the others, not their being stopped.
fn first_cause(failures: Vec<Error>) -> Result<()> {
    let (stopped, mut causes): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|error| error.kind() == ErrorKind::Cancelled);
    causes.extend(stopped);
    causes.into_iter().next().map_or(Ok(()), Err)
}

fn work(job: &ReadJob<'_>, plan: &Mutex<PlanIter<'_>>, out: &Sender<Read>) -> Result<()> {
    loop {
        // The buffer comes first: whoever has the lowest block of the plan must never wait for a buffer that only a
        // later block could give back.
        let mut buffer = loop {
            job.cancel.check()?;
            if let Some(buffer) = job.pool.take(PATIENCE) {
                break buffer;
            }
        };
        let Some(index) = next_to_read(job, plan, out)? else { return Ok(()) };
        read(job, index, &mut buffer)?;
        if out.send(Read::Block { index, buffer }).is_err() {
            return Ok(());
        }
    }
}

fn next_to_read(
    job: &ReadJob<'_>,
    plan: &Mutex<PlanIter<'_>>,
    out: &Sender<Read>,
) -> Result<Option<BlockIndex>> {
    let next = {
        let mut plan = plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        loop {
            match plan.next().transpose()? {
                Some(Planned::Skip(skipped)) => drop(out.send(Read::Skip(skipped))),
                Some(Planned::Read(index)) => break index,
                None => return Ok(None),
            }
        }
    };
    while !job.window.admits(next) {
        job.cancel.check()?;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(Some(next))
}

fn read(job: &ReadJob<'_>, index: BlockIndex, buffer: &mut PooledBuffer) -> Result<()> {
    let len = to_usize(u64::from(job.geometry.block_len(index)));
    let start = job.geometry.block_offset(index);
    let result = job.throttle.in_turns(len, job.cancel, |piece| {
        let (place, piece_len) = (start + piece.start as u64, piece.len());
        job.file.read_block(&mut buffer[piece.start..], place, piece_len)
    });
    result.map_err(|error| if error.kind() == ErrorKind::Unreadable { unreadable(error) } else { error })?;
    buffer.set_len(len);
    Ok(())
}
