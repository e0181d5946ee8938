//! Encryption as a layer: what is above sees plain bytes, what is below sealed ones.
//!
//! Trade-off: every object is sealed, but names, sizes and times stay what they are; a read fetches whole units of 64 KiB.
//! Nothing of a unit is handed out before it is proven. What does not open is damage, with the place of the unit in the
//! stored object; were a unit that opens elsewhere accepted here, who owns the storage could swap parts of backups.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Durable, ObjectReader, ObjectWriter, Storage};
use crate::crypto::sealing::{HEADER_LEN, ObjectKey, SEALED_UNIT_LEN, SealedShape, Sealer, UNIT_LEN};
use crate::error::{Error, Result};
use crate::geometry::to_usize;

/// Units that are written or fetched at once.
const BATCH: usize = 16;

/// All objects of a storage, sealed.
pub struct SealedStorage {
    inner: Arc<dyn Storage>,
    sealer: Arc<Sealer>,
    is_clear: fn(&str) -> bool,
}

impl SealedStorage {
    /// Seals what goes to `inner`, but for the names that `is_clear` tells.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, sealer: Sealer, is_clear: fn(&str) -> bool) -> Self {
        Self { inner, sealer: Arc::new(sealer), is_clear }
    }
}

impl Storage for SealedStorage {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.inner.create(name)?;
        if (self.is_clear)(name) {
            return Ok(inner);
        }
        let (header, key) = self.sealer.begin(name)?;
        let bytes = header.to_vec();
        Ok(Box::new(SealedWriter { inner, key, open: bytes.len(), bytes, number: 0 }))
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if (self.is_clear)(name) {
            return self.inner.put_new(name, bytes);
        }
        let (header, key) = self.sealer.begin(name)?;
        let mut sealed = header.to_vec();
        let units = bytes.len().div_ceil(UNIT_LEN).max(1);
        for number in 0..units {
            let open = sealed.len();
            sealed.extend_from_slice(&bytes[number * UNIT_LEN..bytes.len().min((number + 1) * UNIT_LEN)]);
            key.seal(number as u64, number + 1 == units, &mut sealed, open)?;
        }
        self.inner.put_new(name, &sealed)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let inner = self.inner.open(name)?;
        if (self.is_clear)(name) {
            return Ok(inner);
        }
        let stored = inner.size();
        let shape = SealedShape::of(stored).ok_or_else(|| {
            Error::damaged("no sealed object has this length").path(inner.display()).at(stored, 0)
        })?;
        Ok(Arc::new(SealedReader {
            inner,
            sealer: Arc::clone(&self.sealer),
            name: name.to_owned(),
            shape,
            key: OnceLock::new(),
            kept: Mutex::new(None),
        }))
    }

    fn open_unfinished(&self, unfinished: &str, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let inner = self.inner.open_unfinished(unfinished, name)?;
        if (self.is_clear)(name) {
            return Ok(inner);
        }
        let shape = SealedShape::unfinished(inner.size());
        let sealer = Arc::clone(&self.sealer);
        let (key, kept) = (OnceLock::new(), Mutex::new(None));
        Ok(Arc::new(SealedReader { inner, sealer, name: name.to_owned(), shape, key, kept }))
    }

    super::pass_on_to_inner!();
}

/// Seals what it is given, unit by unit.
struct SealedWriter {
    inner: Box<dyn ObjectWriter>,
    key: ObjectKey,
    /// The header and sealed units, written together: many small writes beside page borders cost as much as the sealing. Then,
    /// from `open` on, the unit that is being filled.
    bytes: Vec<u8>,
    open: usize,
    number: u64,
}

impl SealedWriter {
    fn seal_unit(&mut self, last: bool) -> Result<()> {
        let number = self.number;
        // Counted before anything can fail: no number is ever sealed twice.
        self.number += 1;
        self.key.seal(number, last, &mut self.bytes, self.open)?;
        self.open = self.bytes.len();
        if last || self.open >= BATCH * SEALED_UNIT_LEN { self.write_sealed() } else { Ok(()) }
    }

    fn write_sealed(&mut self) -> Result<()> {
        let written = self.inner.write(&self.bytes[..self.open]);
        self.bytes.drain(..self.open);
        self.open = 0;
        written
    }
}

impl ObjectWriter for SealedWriter {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            // A full unit waits for the next byte, as the last one is sealed as such.
            if self.bytes.len() - self.open == UNIT_LEN {
                self.seal_unit(false)?;
            }
            let room = (UNIT_LEN - (self.bytes.len() - self.open)).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.bytes.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Only full units: the one that is being filled cannot be sealed twice.
    fn make_durable(&mut self) -> Result<Option<Durable>> {
        self.write_sealed()?;
        let durable = self.inner.make_durable()?;
        Ok(durable.map(|durable| Durable { len: SealedShape::unfinished(durable.len).size, ..durable }))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.seal_unit(true)?;
        self.inner.finish()
    }
}

/// Opens what was sealed, wherever it is read.
struct SealedReader {
    inner: Arc<dyn ObjectReader>,
    sealer: Arc<Sealer>,
    name: String,
    shape: SealedShape,
    key: OnceLock<ObjectKey>,
    /// The unit that was read last, as small reads follow each other.
    kept: Mutex<Option<(u64, Arc<[u8]>)>>,
}

impl SealedReader {
    /// The object's key, from its header; what is fetched with it is the first unit, which is mostly wanted next.
    fn key(&self) -> Result<&ObjectKey> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let (_, first) = self.shape.place(0);
        let mut head = vec![0; HEADER_LEN + first];
        self.inner.read_exact_at(&mut head, 0)?;
        let (header, unit) = head.split_at_mut(HEADER_LEN);
        let mut fixed = [0; HEADER_LEN];
        fixed.copy_from_slice(header);
        let key = self.sealer.key_of(&self.name, &fixed);
        let key = key.map_err(|error| error.path(self.inner.display()).at(0, HEADER_LEN as u64))?;
        if let Some(plain) = key.open(0, self.shape.is_last(0), unit) {
            self.keep(0, Arc::from(&*plain));
        }
        Ok(self.key.get_or_init(|| key))
    }

    fn keep(&self, number: u64, unit: Arc<[u8]>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, unit));
    }

    fn unit(&self, number: u64) -> Result<Arc<[u8]>> {
        let key = self.key()?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, unit)) = kept.filter(|(kept, _)| *kept == number) {
            return Ok(unit);
        }
        let (offset, len) = self.shape.place(number);
        let mut sealed = vec![0; len];
        self.inner.read_exact_at(&mut sealed, offset)?;
        let unit: Arc<[u8]> = Arc::from(self.open_unit(key, number, &mut sealed)?);
        self.keep(number, Arc::clone(&unit));
        Ok(unit)
    }

    fn open_unit<'a>(&self, key: &ObjectKey, number: u64, sealed: &'a mut [u8]) -> Result<&'a [u8]> {
        let plain = key.open(number, self.shape.is_last(number), sealed);
        plain.map(|plain| &*plain).ok_or_else(|| {
            let (offset, len) = self.shape.place(number);
            Error::damaged("a sealed unit is not what was stored here")
                .path(self.inner.display())
                .at(offset, len as u64)
        })
    }

    /// Opens full units, as many as fit `buffer` exactly.
    fn read_units(&self, first: u64, buffer: &mut [u8]) -> Result<()> {
        let key = self.key()?;
        let units = buffer.len() / UNIT_LEN;
        let mut sealed = vec![0; units * SEALED_UNIT_LEN];
        self.inner.read_exact_at(&mut sealed, self.shape.place(first).0)?;
        let pieces = sealed.chunks_mut(SEALED_UNIT_LEN).zip(buffer.chunks_mut(UNIT_LEN));
        for (number, (sealed, out)) in (first..).zip(pieces) {
            out.copy_from_slice(self.open_unit(key, number, sealed)?);
        }
        Ok(())
    }
}

impl ObjectReader for SealedReader {
    fn size(&self) -> u64 {
        self.shape.size
    }

    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.shape.size) {
            let error = Error::damaged("the object is cut short").path(self.inner.display());
            return Err(error.at(offset, buffer.len() as u64));
        }
        // That it is empty is proven too: one that was cut down to nothing has no unit that opens.
        if self.shape.size == 0 {
            self.unit(0)?;
        }
        while !buffer.is_empty() {
            let (number, within) = (offset / UNIT_LEN as u64, to_usize(offset % UNIT_LEN as u64));
            let full = if within == 0 { (buffer.len() / UNIT_LEN).min(BATCH) * UNIT_LEN } else { 0 };
            let len = if full > 0 { full } else { (UNIT_LEN - within).min(buffer.len()) };
            let (now, later) = std::mem::take(&mut buffer).split_at_mut(len);
            if full > 0 {
                self.read_units(number, now)?;
            } else {
                now.copy_from_slice(&self.unit(number)?[within..within + len]);
            }
            (buffer, offset) = (later, offset + len as u64);
        }
        Ok(())
    }

    fn display(&self) -> PathBuf {
        self.inner.display()
    }
}
