//! `scan`: change tracking without a repository: the changed ranges, and a delta of them.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};

use blkdelta_core::error::Result;
use blkdelta_core::hint::proof::Proof;
use blkdelta_core::operations::DEFAULT_QUEUE_DEPTH;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::hinting::HintChoice;
use blkdelta_core::operations::scan::{ScanOptions as CoreOptions, ScanReport, scan};
use blkdelta_core::storage::local::FileReplacer;
use blkdelta_core::storage::{ObjectWriter, StreamWriter};

use crate::error::{Status, wrong_use};
use crate::guard::{Caller, enter};
use crate::init::{self, FormatOptions};
use crate::options::extensible;
use crate::run::{ChangedRange, RangeCallback, Run, RunOptions, tell_range};
use crate::summary::Summary;

/// How a source is read; the names are those of the command's flags. What is NULL or 0 is the default.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ReadOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Where to learn what may have changed: "auto" (as NULL), "off", or the path of a map of changes ("./off" is a file).
    pub hints: *const c_char,
    /// How many of the blocks that a hint calls unchanged are read all the same: "64", "2%" or "auto" (as NULL).
    pub hint_sample: *const c_char,
    /// Read every block at least once in so many backups; 0: 30.
    pub rescan_every: u32,
    /// Not 0: never read all in turn, whatever rescan_every says.
    pub no_rescan: u32,
    /// Reads in flight at most, 1 to 256; 0: the default.
    pub queue_depth: u32,
    /// Not 0: read a source that others may write to.
    pub allow_live: u32,
    /// Not 0: accept another volume under this name or manifest.
    pub new_identity: u32,
    /// Zero.
    pub reserved: [u8; 44],
}

extensible!(ReadOptions, "blkdelta_read_options");

/// The same, checked.
pub struct Read {
    pub hints: HintChoice,
    pub proof: Proof,
    pub queue_depth: u32,
    pub allow_live: bool,
    pub new_identity: bool,
}

impl ReadOptions {
    /// Takes what the caller filled in.
    pub fn checked(caller: &Caller, options: *const Self) -> Result<Read> {
        let options = caller.options(options)?;
        let usual = Proof::default();
        let rolling_runs = match (options.no_rescan, options.rescan_every) {
            (0, 0) => usual.rolling_runs,
            (0, runs) => runs,
            _ => 0,
        };
        let queue_depth = match options.queue_depth {
            0 => DEFAULT_QUEUE_DEPTH,
            depth @ 1..=256 => depth,
            depth => return Err(wrong_use(format!("queue_depth is 1 to 256, not {depth}"))),
        };
        let sample = caller.parsed("hint_sample", options.hint_sample)?.unwrap_or(usual.sample);
        Ok(Read {
            hints: hints(caller.optional_path(options.hints)),
            proof: Proof { sample, rolling_runs },
            queue_depth,
            allow_live: options.allow_live != 0,
            new_identity: options.new_identity != 0,
        })
    }
}

fn hints(choice: Option<PathBuf>) -> HintChoice {
    match choice {
        None => HintChoice::Auto,
        Some(word) if word == Path::new("auto") => HintChoice::Auto,
        Some(word) if word == Path::new("off") => HintChoice::Off,
        Some(path) => HintChoice::File(path),
    }
}

/// What a scan takes; the names are those of the command's flags. Only `source` must be set.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ScanOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Block device or image file.
    pub source: *const c_char,
    /// Compare with this manifest; NULL: everything that is not zero is told.
    pub manifest: *const c_char,
    /// Write the manifest of what was read; may be the same file. NULL: none.
    pub write_manifest: *const c_char,
    /// Write what changed as a delta into this file. NULL: none, or into delta_fd. Only for blkdelta_scan().
    pub delta: *const c_char,
    /// How the volume is cut when there is no manifest to take that from; its compression is the delta's. NULL: defaults.
    pub format: *const FormatOptions,
    /// How the source is read; NULL: as usual.
    pub read: *const ReadOptions,
    /// Write the delta into this open file instead, such as a pipe; 0: not. Hints are then not used. Stays the caller's.
    pub delta_fd: i32,
    /// Zero.
    pub reserved: [u8; 60],
}

extensible!(ScanOptions, "blkdelta_scan_options");

impl ScanOptions {
    /// For the library.
    pub fn for_core(&self, caller: &Caller, gentleness: Gentleness) -> Result<CoreOptions> {
        let read = ReadOptions::checked(caller, self.read)?;
        // A delta that has gone down a pipe cannot be begun again.
        let to_pipe = self.delta.is_null() && self.delta_fd != 0;
        Ok(CoreOptions {
            manifest: caller.optional_path(self.manifest),
            write_manifest: caller.optional_path(self.write_manifest),
            format: init::format(caller, self.format)?,
            allow_live: read.allow_live,
            new_identity: read.new_identity,
            hints: if to_pipe { HintChoice::Off } else { read.hints },
            proof: read.proof,
            queue_depth: read.queue_depth,
            gentleness,
            ..CoreOptions::new(caller.path("source", self.source)?)
        })
    }
}

type Delta = Box<dyn ObjectWriter>;
type MakeDelta = Box<dyn FnMut() -> Result<Delta> + Send>;

/// What makes the object that a delta is written to.
fn delta(caller: &Caller, options: &ScanOptions) -> Result<Option<MakeDelta>> {
    match (caller.optional_path(options.delta), options.delta_fd) {
        (Some(_), fd) if fd != 0 => Err(wrong_use("both delta and delta_fd are set")),
        (Some(path), _) => Ok(Some(Box::new(move || Ok(Box::new(FileReplacer::begin(&path)?))))),
        (None, 0) => Ok(None),
        (None, fd) => {
            let mut file = Some(caller.file("delta_fd", fd)?);
            Ok(Some(Box::new(move || {
                let file = file.take().ok_or_else(|| wrong_use("a pipe cannot be begun again"))?;
                Ok(Box::new(StreamWriter::new(file)))
            })))
        }
    }
}

/// What a report says in numbers.
pub fn summary(report: &ScanReport) -> Summary {
    let alarm = u32::from(report.alarm.is_some());
    Summary { size_bytes: report.size_bytes, alarm, ..Summary::new() }.with_statistics(&report.statistics)
}

/// What a report comes to.
pub fn status(report: &ScanReport) -> Status {
    if report.alarm.is_some() { Status::Doubtful } else { Status::Ok }
}

/// Tracks changes without a repository: tells the ranges of a volume that differ from a manifest, and may write the new
/// manifest and a delta. For the bytes themselves see blkdelta_changes_open() and blkdelta_changes_each().
///
/// `run`: NULL for the defaults. `on_range`: told each range (its data is NULL), with `user`; NULL: nobody is. `summary`,
/// `json`: the report; NULL: not wanted. The document is that of `blkdelta scan --json` without its ranges, freed with
/// blkdelta_string_free(). BLKDELTA_STATUS_DOUBTFUL: a hint was proven wrong, and the volume was read in full. Any
/// thread; returns when all is done. Cancelled or failed, no manifest and no delta file is left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_scan(
    options: *const ScanOptions,
    run: *const RunOptions,
    on_range: RangeCallback,
    user: *mut c_void,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let place = caller.summary(summary)?;
        let options = caller.options(options)?;
        let mut run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::default())?;
        let wanted = options.for_core(caller, running.gentleness.clone())?;
        let mut delta = delta(caller, &options)?;
        let report = run.perform(
            |work| {
                let make = delta.as_mut().map(|make| &mut **make as &mut dyn FnMut() -> Result<Delta>);
                let mut on_range = |range| work.tell(range);
                scan(&wanted, make, &mut on_range, &mut || Ok(()), &work.progress, &work.cancel)
            },
            |found: blkdelta_core::operations::ChangedRange| {
                tell_range(on_range, user, &ChangedRange::new(found.offset, found.length, found.kind))
            },
        )?;
        caller.give_json(json, &report)?;
        caller.give_summary(&place, self::summary(&report));
        Ok(status(&report))
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
