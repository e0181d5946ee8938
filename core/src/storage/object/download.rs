//! An object that is read by ranges, with reading ahead.
//!
//! A delta is read in pieces of some 100 KiB to 1 MiB, each with its header before it, and mostly front to back, by one
//! thread or by several that are some blocks apart: asked for one by one each piece would cost the time of a request
//! twice. So bytes are fetched in windows, which grow while the reading goes on where one of them ended; all windows that
//! a read needs, and some behind them, are on their way before the first is waited for. All readers of a storage share one
//! bound of memory: with many open (the deltas of a long chain) each has small windows.
//! Trade-off: what is read here and there brings up to three times its bytes.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use object_store::GetRange;
use object_store::path::Path;

use super::refusal::{Failure, Meaning};
use super::remote::Remote;
use crate::error::{Error, Result};
use crate::geometry::to_usize;
use crate::storage::ObjectReader;

/// What opening fetches: all of a record, the header and more of a large object.
const FIRST: u64 = 64 << 10;
/// Smallest and largest window.
const WINDOW: Range<u64> = (32 << 10)..(8 << 20);
/// Window after a jump.
const AFTER_JUMP: u64 = 256 << 10;
/// Bytes that all readers may hold.
const BUDGET: u64 = 48 << 20;
/// Windows that one reader may hold whatever their size: the one in use, the next, and the one before.
const WINDOWS_MIN: usize = 3;
/// The largest window is this part of what a reader may hold: one is in use, two are ahead, and threads are not in step.
const WINDOWS: u64 = 6;
/// What is ahead, as a multiple of the window in use.
const AHEAD: u64 = 2;

/// One of these per storage.
#[derive(Default)]
pub struct ReadBudget {
    /// Of objects that did not come whole with their opening.
    readers: AtomicU64,
}

/// Reads one object.
pub struct Download {
    remote: Arc<Remote>,
    budget: Arc<ReadBudget>,
    key: Path,
    name: String,
    size: u64,
    windows: Mutex<Windows>,
}

/// Windows that do not overlap, the one that was used last at the end.
type Windows = Vec<Arc<Window>>;

/// What came of a request; several may wait for it.
type Arrived = std::result::Result<Arc<Vec<u8>>, Arc<Failure>>;

/// Bytes of the object, there or on their way.
struct Window {
    range: Range<u64>,
    bytes: Mutex<Option<Arrived>>,
    arrived: Condvar,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Download {
    /// Opens an object; its first bytes come with the answer.
    pub fn open(remote: &Arc<Remote>, budget: &Arc<ReadBudget>, name: &str) -> Result<Self> {
        let key = remote.key(name)?;
        let (task, place) = (Arc::clone(remote), key.clone());
        let opened = remote.wait(async move {
            match task.get(&place, Some(GetRange::Bounded(0..FIRST))).await {
                Ok((bytes, size, _)) => Ok((bytes, size)),
                // An empty object has no range.
                Err(failure) if failure.meaning == Meaning::Range => {
                    Ok((Vec::new(), task.size(&place).await?))
                }
                Err(failure) => Err(failure),
            }
        });
        let (bytes, size) = opened.map_err(|failure| failure.error("opening", &remote.display(name)))?;
        budget.readers.fetch_add(u64::from(size > FIRST), Ordering::Relaxed);
        let first = Window::with(0..bytes.len() as u64, bytes);
        Ok(Self {
            remote: Arc::clone(remote),
            budget: Arc::clone(budget),
            key,
            name: name.to_owned(),
            size,
            windows: Mutex::new(vec![Arc::new(first)]),
        })
    }

    /// Bytes that a reader may hold now.
    fn share(&self) -> u64 {
        BUDGET / self.budget.readers.load(Ordering::Relaxed).max(1)
    }

    /// The windows that hold these bytes, and behind them what is likely wanted next: there or on their way.
    fn windows(&self, range: Range<u64>) -> Windows {
        let mut all = held(&self.windows);
        let (mut needed, mut at) = (Windows::new(), range.start);
        while at < range.end {
            let window = match all.iter().position(|window| window.range.contains(&at)) {
                Some(place) => {
                    let window = all.remove(place);
                    all.push(Arc::clone(&window));
                    window
                }
                None => self.send_for(&mut all, at, range.end - at),
            };
            at = window.range.end;
            needed.push(window);
        }
        // Half of a window must be used before more is sent for, or every jump would fetch twice.
        let used = |window: &Window| range.end - window.range.start >= window.len() / 2;
        if let Some(last) = needed.last().filter(|last| last.range.start > 0 && used(last)) {
            self.read_ahead(&mut all, last);
        }
        needed
    }

    fn read_ahead(&self, all: &mut Windows, last: &Window) {
        // More would push out what it brings before that is read.
        let ahead = (AHEAD * last.len()).min(self.share() / 2);
        let (mut next, end) = (last.range.end, last.range.end.saturating_add(ahead));
        while next < end.min(self.size) {
            let there = all.iter().find(|window| window.range.contains(&next));
            next = match there {
                Some(window) => window.range.end,
                None => self.send_for(all, next, 0).range.end,
            };
        }
    }

    /// A new window from `offset` on, twice as long as the one that ends there; `wanted` bytes of it are needed at once.
    fn send_for(&self, all: &mut Windows, offset: u64, wanted: u64) -> Arc<Window> {
        let max = (self.share() / WINDOWS).clamp(WINDOW.start, WINDOW.end);
        let before = all.iter().find(|window| window.range.end == offset);
        let usual = before.map_or(0, |before| before.len() * 2).max(AFTER_JUMP).min(max);
        let len = usual.max(wanted.min(WINDOW.end));
        let behind = all.iter().map(|window| window.range.start).filter(|start| *start > offset).min();
        let range = offset..offset.saturating_add(len).min(behind.unwrap_or(self.size));
        let window = Arc::new(Window::empty(range.clone()));
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        // The window itself tells when it is there.
        let filling = Filling(Arc::clone(&window));
        drop(self.remote.start(async move {
            let got = remote.get(&key, Some(GetRange::Bounded(range))).await;
            filling.0.fill(got.map(|(bytes, _, _)| bytes));
            Ok(())
        }));
        all.push(Arc::clone(&window));
        while all.len() > WINDOWS_MIN && all.iter().map(|window| window.len()).sum::<u64>() > self.share() {
            all.remove(0);
        }
        window
    }

    fn problem(&self, failed: &Failure, offset: u64, len: u64) -> Error {
        // The next reader of this place asks again.
        held(&self.windows).retain(|window| !window.has_failed());
        let failure = Failure::told(failed.meaning, failed.text.as_str());
        failure.error("reading", &self.display()).at(offset, len)
    }
}

impl Window {
    fn empty(range: Range<u64>) -> Self {
        Self { range, bytes: Mutex::new(None), arrived: Condvar::new() }
    }

    fn with(range: Range<u64>, bytes: Vec<u8>) -> Self {
        Self { range, bytes: Mutex::new(Some(Ok(Arc::new(bytes)))), arrived: Condvar::new() }
    }

    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn fill(&self, got: std::result::Result<Vec<u8>, Failure>) {
        let whole = got.map(Arc::new).map_err(Arc::new);
        *held(&self.bytes) = Some(whole);
        self.arrived.notify_all();
    }

    fn has_failed(&self) -> bool {
        matches!(*held(&self.bytes), Some(Err(_)))
    }

    fn wait(&self) -> Arrived {
        let mut bytes = held(&self.bytes);
        loop {
            match &*bytes {
                Some(there) => return there.clone(),
                None => bytes = self.arrived.wait(bytes).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Fills its window whatever becomes of the request, so that nobody waits for ever.
struct Filling(Arc<Window>);

impl Drop for Filling {
    fn drop(&mut self) {
        if held(&self.0.bytes).is_none() {
            self.0.fill(Err(Failure::own("the request was dropped")));
        }
    }
}

impl ObjectReader for Download {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let len = buffer.len() as u64;
        let cut = || Error::damaged("the object is cut short").path(self.display()).at(offset, len);
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(cut());
        }
        let (mut at, mut left) = (offset, buffer);
        for window in self.windows(offset..offset + len) {
            let bytes = window.wait().map_err(|failed| self.problem(&failed, offset, len))?;
            let start = to_usize(at - window.range.start);
            let piece = bytes.get(start..).filter(|piece| !piece.is_empty()).ok_or_else(cut)?;
            let count = piece.len().min(left.len());
            let (now, later) = left.split_at_mut(count);
            now.copy_from_slice(&piece[..count]);
            left = later;
            at += count as u64;
        }
        if !left.is_empty() {
            return Err(cut());
        }
        Ok(())
    }

    fn display(&self) -> PathBuf {
        self.remote.display(&self.name)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.budget.readers.fetch_sub(u64::from(self.size > FIRST), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutOptions;

    use super::*;

    const PIECE: usize = 1 << 20;
    const PIECES: usize = 48;

    /// An object whose bytes tell where they stand, and its reader.
    fn object() -> Download {
        let (_, remote) = super::super::in_memory_remote();
        let (task, bytes) = (Arc::clone(&remote), (0..PIECES * PIECE).map(expected).collect());
        let key = remote.key("o").unwrap();
        remote.wait(async move { task.put_new(&key, bytes, PutOptions::default()).await }).unwrap();
        Download::open(&remote, &Arc::default(), "o").unwrap()
    }

    fn expected(at: usize) -> u8 {
        ((at / 4096 + at) % 251).to_le_bytes()[0]
    }

    fn read(download: &Download, at: usize, len: usize) {
        let mut bytes = vec![0; len];
        download.read_exact_at(&mut bytes, at as u64).unwrap();
        assert!(bytes.iter().enumerate().all(|(place, byte)| *byte == expected(at + place)), "at {at}");
    }

    fn ranges(download: &Download) -> Vec<Range<u64>> {
        held(&download.windows).iter().map(|window| window.range.clone()).collect()
    }

    /// Reads all pieces in this order, each with a header before it; returns the requests that were made.
    fn read_all(download: &Download, order: impl Iterator<Item = usize>) -> Vec<Range<u64>> {
        let mut requests = Vec::new();
        for number in order {
            let known = ranges(download);
            read(download, number * PIECE, 64);
            read(download, number * PIECE + 64, PIECE - 64);
            requests.extend(ranges(download).into_iter().filter(|range| !known.contains(range)));
        }
        requests
    }

    fn sum(requests: &[Range<u64>]) -> u64 {
        requests.iter().map(|range| range.end - range.start).sum()
    }

    #[test]
    fn front_to_back_every_byte_comes_once_in_few_requests() {
        let requests = read_all(&object(), 0..PIECES);
        assert_eq!(sum(&requests) + FIRST, (PIECES * PIECE) as u64);
        assert!(requests.len() < 16, "{requests:?}");
    }

    #[test]
    fn what_comes_next_is_on_its_way_before_it_is_asked_for() {
        let download = object();
        for number in 0..PIECES - 1 {
            read(&download, number * PIECE, PIECE);
            let next = ((number + 1) * PIECE) as u64;
            assert!(ranges(&download).iter().any(|range| range.contains(&next)), "after piece {number}");
        }
    }

    /// Four threads, each with the four pieces of a block of its own.
    #[test]
    fn several_threads_front_to_back_bring_hardly_a_byte_twice() {
        let order = (0..PIECES).map(|number| number / 16 * 16 + number % 4 * 4 + number / 4 % 4);
        let requests = read_all(&object(), order);
        assert!(sum(&requests) <= ((PIECES + 2) * PIECE) as u64 && requests.len() < 40, "{requests:?}");
    }

    #[test]
    fn one_of_many_readers_keeps_what_it_has_sent_for() {
        let download = object();
        download.budget.readers.fetch_add(59, Ordering::Relaxed);
        let requests = read_all(&download, 0..PIECES);
        assert!(sum(&requests) <= ((PIECES + 2) * PIECE) as u64, "{requests:?}");
    }

    #[test]
    fn here_and_there_little_is_fetched() {
        let download = object();
        for at in [30 * PIECE, 5 * PIECE, 20 * PIECE + 17] {
            read(&download, at, 1000);
            let range = ranges(&download).pop().unwrap();
            assert_eq!((range.start, range.end - range.start), (at as u64, AFTER_JUMP));
        }
    }
}
