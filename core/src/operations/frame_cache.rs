//! Decompressed frames, shared by the threads of a restore.
//!
//! A frame of a sparse delta holds grains of many blocks; without a cache each of those blocks would decompress it again.
//! It holds a fixed number of frames, dropping the one that was used longest ago; a thread that needs a frame which
//! another is decompressing waits for that one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::delta::reader::DeltaReader;
use crate::error::Result;

const FRAMES_MIN: usize = 24;
const FRAMES_MAX: usize = 72;

type Slot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// The cache of one restore.
pub struct FrameCache {
    slots: Mutex<Slots>,
    limit: usize,
}

#[derive(Default)]
struct Slots {
    frames: HashMap<(usize, u64), (u64, Slot)>,
    clock: u64,
}

impl FrameCache {
    /// For a chain of this length: each of its deltas wants its current frame to stay.
    pub fn new(chain: usize) -> Self {
        Self { slots: Mutex::default(), limit: (FRAMES_MIN + chain).min(FRAMES_MAX) }
    }

    /// The raw bytes of a frame of delta number `number`.
    pub fn get(&self, number: usize, delta: &DeltaReader, offset: u64) -> Result<Arc<Vec<u8>>> {
        let slot = self.slot((number, offset));
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = &*held {
            return Ok(Arc::clone(frame));
        }
        let frame = Arc::new(delta.frame(offset)?);
        *held = Some(Arc::clone(&frame));
        Ok(frame)
    }

    fn slot(&self, key: (usize, u64)) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let now = slots.clock;
        let slot = {
            let (used, slot) = slots.frames.entry(key).or_default();
            *used = now;
            Arc::clone(slot)
        };
        if slots.frames.len() > self.limit
            && let Some(oldest) = slots.frames.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            slots.frames.remove(&oldest);
        }
        slot
    }
}
