//! The few numbers of a result that most programs ask for; the whole result is the JSON document.
#![allow(unsafe_code)] // a struct of C is written byte by byte

use std::ffi::c_char;
use std::ptr;

use blkdelta_core::backup_id::{BackupRecord, Statistics};
use blkdelta_core::error::Result;

use crate::guard::Caller;
use crate::options::extensible;

/// What a call did, in numbers; what has no meaning for the verb is 0. The caller sets struct_size, the library the rest.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Summary {
    /// sizeof of this struct, set by the caller.
    pub struct_size: usize,
    /// Bytes of the volume.
    pub size_bytes: u64,
    /// Blocks of the volume that differ.
    pub blocks_changed: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes believed unchanged on a hint, without having been read.
    pub bytes_carried: u64,
    /// Bytes that changed.
    pub bytes_changed: u64,
    /// Bytes that the repository or the delta grew by.
    pub bytes_stored: u64,
    /// Bytes written to a target, or into the repository that was copied to.
    pub bytes_written: u64,
    /// Problems that verify found, ranges that a restore left out, backups that could not be copied.
    pub problems: u64,
    /// Backups that verify looked at.
    pub backups_checked: u64,
    /// Wall time in seconds.
    pub duration_s: f64,
    /// Part of it spent waiting for limits, in seconds.
    pub throttled_s: f64,
    /// Number of the backup inside its volume.
    pub sequence: u32,
    /// 1: a hint was proven wrong, and the volume was read in full.
    pub alarm: u32,
    /// 1: the root of the whole volume was proven on what was written.
    pub root_proven: u32,
    /// Id of the backup, 32 hexadecimal digits; empty when there is none.
    pub backup_id: [c_char; 36],
    /// Zero.
    pub reserved: [u8; 64],
}

extensible!(Summary, "blkdelta_summary");

impl Summary {
    /// All zero.
    pub fn new() -> Self {
        Self {
            struct_size: 0,
            size_bytes: 0,
            blocks_changed: 0,
            bytes_read: 0,
            bytes_carried: 0,
            bytes_changed: 0,
            bytes_stored: 0,
            bytes_written: 0,
            problems: 0,
            backups_checked: 0,
            duration_s: 0.0,
            throttled_s: 0.0,
            sequence: 0,
            alarm: 0,
            root_proven: 0,
            backup_id: [0; 36],
            reserved: [0; 64],
        }
    }

    /// What a record says.
    pub fn of_record(record: &BackupRecord) -> Self {
        Self { size_bytes: record.size_bytes, sequence: record.sequence, ..Self::new() }
            .with_statistics(&record.statistics)
            .with_id(&record.backup_id.to_string())
    }

    /// What a pass counted.
    pub fn with_statistics(self, counts: &Statistics) -> Self {
        Self {
            blocks_changed: counts.blocks_changed,
            bytes_read: counts.bytes_read,
            bytes_carried: counts.bytes_carried,
            bytes_changed: counts.bytes_changed,
            bytes_stored: counts.bytes_stored,
            duration_s: counts.duration_s,
            throttled_s: counts.throttled_s,
            ..self
        }
    }

    /// Which backup it is about; the last place stays the end of the string.
    pub fn with_id(mut self, id: &str) -> Self {
        let last = self.backup_id.len() - 1;
        for (place, byte) in self.backup_id[..last].iter_mut().zip(id.bytes()) {
            *place = c_char::try_from(byte).unwrap_or_default(); // hexadecimal digits always fit
        }
        self
    }
}

/// A place for a summary that was checked before the work began.
pub struct Place {
    summary: *mut Summary,
    size: usize,
}

impl Caller {
    /// Checks where a summary is to go; NULL means that it is not wanted.
    pub fn summary(&self, summary: *mut Summary) -> Result<Place> {
        let size = if summary.is_null() { 0 } else { self.struct_size(summary)? };
        Ok(Place { summary, size })
    }

    /// Writes a summary; what a newer header knows beyond ours is zero.
    pub fn give_summary(&self, place: &Place, mut value: Summary) {
        if place.summary.is_null() {
            return;
        }
        value.struct_size = place.size;
        let known = size_of::<Summary>();
        // SAFETY: not NULL, and by its struct_size `size` bytes long, of which `struct_size` demands ours at least.
        unsafe {
            ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), place.summary.cast(), known);
            ptr::write_bytes(place.summary.cast::<u8>().add(known), 0, place.size - known);
        }
    }
}
