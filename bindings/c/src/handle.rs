//! Handles: what C holds instead of our objects.
//!
//! A handle is a number in the shape of a pointer. It is looked up in a table and never followed, so a freed handle, one of
//! another kind and a pointer from elsewhere are told for sure; numbers have the highest bit set, where no program has
//! memory, and are never given twice. Trade-off: one look-up under a lock for each call, which is nothing beside a block.
//! An object lives as long as a call uses it, also when another thread closes its handle meanwhile.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use blkdelta_core::error::Result;

use crate::error::wrong_use;

/// A kind of handle: the type that C knows by name only, and what stands behind it.
pub trait Handle {
    /// What stands behind it.
    type Object: Send + Sync + 'static;
    /// For messages.
    const NAME: &'static str;
}

type Object = Arc<dyn Any + Send + Sync>;

static OPEN: RwLock<BTreeMap<usize, Object>> = RwLock::new(BTreeMap::new());
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// Gives the object a handle.
pub fn open<H: Handle>(object: H::Object) -> *mut H {
    let number = NEXT.fetch_add(1, Ordering::Relaxed) << 4 | 1 << (usize::BITS - 1);
    OPEN.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(object));
    std::ptr::without_provenance_mut(number)
}

/// The object of a handle.
pub fn object<H: Handle>(handle: *const H) -> Result<Arc<H::Object>> {
    if handle.is_null() {
        return Err(wrong_use(format!("the {} is NULL", H::NAME)));
    }
    let found = OPEN.read().unwrap_or_else(PoisonError::into_inner).get(&handle.addr()).cloned();
    found.and_then(|object| object.downcast().ok()).ok_or_else(|| {
        wrong_use(format!("this is no {}, or it was closed before", H::NAME))
            .hint("a handle is used until it is closed, and only with the functions of its kind")
    })
}

/// Ends a handle; NULL is fine.
pub fn close<H: Handle>(handle: *const H) -> Result<()> {
    if handle.is_null() {
        return Ok(());
    }
    let object = object(handle)?;
    let listed = OPEN.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.addr());
    // Dropped here, after the lock was given back: an object may have a lot to end.
    drop((listed, object));
    Ok(())
}
