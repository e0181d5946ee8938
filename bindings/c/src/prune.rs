//! `prune`: backups go that no rule keeps.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;

use blkdelta_core::error::Result;
use blkdelta_core::operations::prune::{PruneOptions as CorePruneOptions, prune};
use blkdelta_core::retention::{Policy, parse_time_zone};
use blkdelta_core::units::parse_span;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::options::extensible;
use crate::run::{Run, RunOptions};

/// Which backups stay; rules add up, and hold for each volume by itself. A number of 0 is no rule.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PruneOptions {
    /// The size of this struct.
    pub struct_size: usize,
    /// Only this volume (UTF-8); NULL: all.
    pub volume: *const c_char,
    /// The newest so many.
    pub keep_last: u32,
    /// The newest of each hour, for the newest so many hours that have a backup.
    pub keep_hourly: u32,
    /// The same for days.
    pub keep_daily: u32,
    /// The same for weeks, from Monday.
    pub keep_weekly: u32,
    /// The same for months.
    pub keep_monthly: u32,
    /// The same for years.
    pub keep_yearly: u32,
    /// All that were taken in this time before now, such as "30d"; NULL: no rule.
    pub keep_within: *const c_char,
    /// All with one of these tags.
    pub keep_tag: *const *const c_char,
    /// How many tags.
    pub keep_tag_count: usize,
    /// Nothing goes that was finished in this time before now; NULL: no such limit.
    pub min_age: *const c_char,
    /// Where hours and days begin, such as "Europe/Berlin"; NULL: the host's.
    pub time_zone: *const c_char,
    /// Not 0: only say what would go, and why.
    pub dry_run: u32,
    /// Zero.
    pub reserved: [u8; 60],
}
extensible!(PruneOptions, "blkdelta_prune_options");

/// Removes the backups that no rule keeps. No chain and no group is broken; the newest and the last good backup of a volume
/// and those with the tag "pin" stay. Cancelled, what is removed is removed.
///
/// `options`: at least one rule. `run`: for progress and cancelling; NULL for the defaults. `json`: receives each backup
/// and why it stays or goes (`blkdelta prune --json`), freed with blkdelta_string_free(); NULL: not wanted.
/// BLKDELTA_STATUS_DOUBTFUL: a volume was left alone, and `json` says why. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_prune(
    repository: *const RepositoryHandle,
    options: *const PruneOptions,
    run: *const RunOptions,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let repository = handle::object(repository)?;
        let options = wanted(caller, options)?;
        let mut run = Run::new(caller, run)?;
        let report =
            run.perform(|work| prune(&repository, &options, Timestamp::now(), &work.cancel), |(): ()| true)?;
        caller.give_json(json, &report)?;
        Ok(if report.problems.is_empty() { Status::Ok } else { Status::Doubtful })
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

fn wanted(caller: &Caller, options: *const PruneOptions) -> Result<CorePruneOptions> {
    let options = caller.options(options)?;
    let span = |what: &str, text| caller.optional_name(what, text)?.map(parse_span).transpose();
    let zone = caller.optional_name("time_zone", options.time_zone)?.map(parse_time_zone).transpose()?;
    let policy = Policy {
        last: options.keep_last,
        hourly: options.keep_hourly,
        daily: options.keep_daily,
        weekly: options.keep_weekly,
        monthly: options.keep_monthly,
        yearly: options.keep_yearly,
        within: span("keep_within", options.keep_within)?,
        tags: caller.names("keep_tag", options.keep_tag, options.keep_tag_count)?,
        min_age: span("min_age", options.min_age)?,
        time_zone: zone.unwrap_or_else(TimeZone::system),
    };
    let volume = caller.optional_name("volume", options.volume)?.map(str::to_owned);
    Ok(CorePruneOptions { volume, policy, dry_run: options.dry_run != 0 })
}
