//! What is costly to make and wanted by several threads: frames that were decompressed, blocks that were proven.
//!
//! It holds a fixed number of things, dropping the one that was used longest ago; a thread that needs a thing which another
//! is making waits for that one. What could not be made is not held: the next one tries again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

type Slot<V> = Arc<Mutex<Option<Arc<V>>>>;

/// At most `limit` values by their keys.
pub struct SharedCache<K, V> {
    slots: Mutex<Slots<K, V>>,
    limit: usize,
}

struct Slots<K, V> {
    held: HashMap<K, (u64, Slot<V>)>,
    clock: u64,
}

impl<K: Copy + Eq + Hash, V> SharedCache<K, V> {
    pub fn new(limit: usize) -> Self {
        Self { slots: Mutex::new(Slots { held: HashMap::new(), clock: 0 }), limit }
    }

    /// The value of `key`, made now if it is not there.
    pub fn get(&self, key: K, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>> {
        let slot = self.slot(key);
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = &*held {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(make()?);
        *held = Some(Arc::clone(&value));
        Ok(value)
    }

    fn slot(&self, key: K) -> Slot<V> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.clock += 1;
        let now = slots.clock;
        let slot = {
            let (used, slot) = slots.held.entry(key).or_default();
            *used = now;
            Arc::clone(slot)
        };
        if slots.held.len() > self.limit
            && let Some(oldest) = slots.held.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key)
        {
            slots.held.remove(&oldest);
        }
        slot
    }
}
