//! A delta that is digested while its frames are read by others, so that proving the whole file costs no second reading.
//!
//! The bytes are fetched from front to back, in pieces, each when the first frame in it is asked for, and digested; the
//! last pieces stay in memory for threads that are a little behind. Trade-off: a frame that is asked for after its piece
//! was given away (frames that a merge has copied need not be in order) is fetched again by itself. What cannot be fetched
//! ends the digesting, never the reading of frames elsewhere: who asks for the proof is told.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::format::delta::{DeltaTrailer, TRAILER_LEN};
use crate::geometry::to_usize;
use crate::storage::ObjectReader;

const PIECE: u64 = 1 << 20;
/// Pieces that each delta may keep.
const KEPT_MIN: usize = 2;
/// Pieces that all may keep beyond these; whose threads are further apart takes of them.
const ROOM: usize = 40;
/// What is further ahead than this is not fetched up to.
const LEAP: u64 = 64 << 20;

/// What deltas that pass at the same time may keep in memory together.
pub struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(ROOM))
    }
}

impl Room {
    /// As many more pieces as are there, at most `wanted`.
    fn take(&self, wanted: usize) -> usize {
        let rest = |left: usize| Some(left.saturating_sub(wanted));
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        left.unwrap_or_else(|left| left).min(wanted)
    }
}

/// A delta's bytes on their way to others.
pub struct Passing {
    object: Arc<dyn ObjectReader>,
    trailer: DeltaTrailer,
    room: Arc<Room>,
    front: Mutex<Front>,
}

struct Front {
    /// Bytes before this offset are digested.
    at: u64,
    hasher: blake3::Hasher,
    /// The last pieces before it; all but the file's last one are whole.
    kept: VecDeque<Vec<u8>>,
    keep: usize,
    /// Why it goes no further.
    failure: Option<Error>,
}

impl Front {
    /// Copies bytes that are kept; false when they are not all there.
    fn copy(&self, buffer: &mut [u8], offset: u64) -> bool {
        let start = self.start();
        if offset < start || offset + buffer.len() as u64 > self.at {
            return false;
        }
        let (mut piece, mut within) =
            (to_usize((offset - start) / PIECE), to_usize((offset - start) % PIECE));
        let mut left = buffer;
        while !left.is_empty() {
            let Some(bytes) = self.kept.get(piece).and_then(|bytes| bytes.get(within..)) else {
                return false;
            };
            let (now, later) = left.split_at_mut(bytes.len().min(left.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            (left, piece, within) = (later, piece + 1, 0);
        }
        true
    }

    fn start(&self) -> u64 {
        self.at - self.kept.iter().map(|piece| piece.len() as u64).sum::<u64>()
    }
}

impl Passing {
    /// Of a delta whose trailer was read; the file is longer than that.
    pub(super) fn new(object: Arc<dyn ObjectReader>, trailer: DeltaTrailer, room: Arc<Room>) -> Self {
        let (hasher, kept) = (blake3::Hasher::new(), VecDeque::new());
        let front = Front { at: 0, hasher, kept, keep: KEPT_MIN, failure: None };
        Self { object, trailer, room, front: Mutex::new(front) }
    }

    /// Where the trailer begins, which is digested last.
    fn end(&self) -> u64 {
        self.object.size().saturating_sub(TRAILER_LEN as u64)
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches and digests the next piece; false when it cannot.
    fn advance(&self, front: &mut Front) -> bool {
        if front.failure.is_some() {
            return false;
        }
        let full = front.kept.len() >= front.keep;
        let mut piece = if full { front.kept.pop_front() } else { None }.unwrap_or_default();
        piece.resize(to_usize(PIECE.min(self.end() - front.at)), 0);
        if let Err(failure) = self.object.read_exact_at(&mut piece, front.at) {
            front.failure = Some(failure);
            return false;
        }
        front.hasher.update(&piece);
        front.at += piece.len() as u64;
        front.kept.push_back(piece);
        true
    }

    /// Digests what nobody has asked for, and proves that it is what the trailer tells; returns BLAKE3 of the whole file.
    ///
    /// # Errors
    /// What hindered the digesting before, too.
    pub fn finish(&self, mut on_bytes: impl FnMut(u64) -> Result<()>) -> Result<[u8; 32]> {
        let mut front = self.front();
        while front.failure.is_none() && front.at < self.end() {
            let before = front.at;
            self.advance(&mut front);
            on_bytes(front.at - before)?;
        }
        if let Some(failure) = front.failure.take() {
            return Err(failure);
        }
        if *front.hasher.finalize().as_bytes() != self.trailer.digest {
            return Err(Error::damaged("the delta does not match its digest").path(self.object.display()));
        }
        let mut trailer = [0; TRAILER_LEN];
        self.object.read_exact_at(&mut trailer, self.end())?;
        Ok(*front.hasher.update(&trailer).finalize().as_bytes())
    }
}

impl ObjectReader for Passing {
    fn size(&self) -> u64 {
        self.object.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut front = self.front();
        let end = offset.saturating_add(buffer.len() as u64);
        if end <= self.end() && end <= front.at.saturating_add(LEAP) {
            while front.at < end && self.advance(&mut front) {}
            if front.copy(buffer, offset) {
                return Ok(());
            }
            if offset < front.start() {
                front.keep += self.room.take(front.keep);
            }
        }
        drop(front);
        self.object.read_exact_at(buffer, offset)
    }

    fn display(&self) -> PathBuf {
        self.object.display()
    }
}
