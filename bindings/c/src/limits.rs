//! `limits`: how gently a run treats others, and changing that while it runs.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::{c_char, c_int};
use std::num::NonZeroU64;
use std::path::PathBuf;

use blkdelta_core::error::Result;
use blkdelta_core::local_state;
use blkdelta_core::operations::gentleness::Wishes;
use blkdelta_core::operations::running;

use crate::error::Status;
use crate::guard::{Caller, enter};
use crate::options::extensible;

/// How gently others on the same device are treated; the names are those of the command's flags. What is NULL or 0 stays
/// as it is: the usual for a run that begins, the present for one that goes on.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LimitOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// "auto", "off" or a time such as "5ms".
    pub latency_target: *const c_char,
    /// Read at most so many bytes a second.
    pub bwlimit: u64,
    /// At most so many read requests a second.
    pub iops_limit: u64,
    /// Store or write at most so many bytes a second.
    pub write_limit: u64,
    /// Bytes a second that latency_target leaves in any case.
    pub min_rate: u64,
    /// Other bwlimits at some hours, such as "mon-fri 09:00-18:00=50MiB/s".
    pub limit_at: *const *const c_char,
    /// How many they are.
    pub limit_at_count: usize,
    /// "idle", "best-effort:0" to "best-effort:7", "realtime:0" to "realtime:7". Only for a run that begins.
    pub ionice: *const c_char,
    /// Niceness of the working threads, -20 to 19. Only for a run that begins.
    pub nice: *const c_int,
    /// Not 0: join a control group of our own, if we may. Only for a run that begins.
    pub cgroup: u32,
    /// Not 0: take no care of others; limits that are named still hold.
    pub full_speed: u32,
    /// Zero.
    pub reserved: [u8; 64],
}

extensible!(LimitOptions, "blkdelta_limit_options");

/// Takes what the caller filled in.
pub fn wishes(caller: &Caller, options: *const LimitOptions) -> Result<Wishes> {
    let options = caller.options(options)?;
    let windows = caller.names("limit_at", options.limit_at, options.limit_at_count)?;
    let nice = match options.nice.is_null() {
        true => None,
        false => caller.array("nice", options.nice, 1)?.first().copied(),
    };
    Ok(Wishes {
        full_speed: options.full_speed != 0,
        latency_target: caller.parsed("latency_target", options.latency_target)?,
        bwlimit: NonZeroU64::new(options.bwlimit),
        iops_limit: NonZeroU64::new(options.iops_limit),
        write_limit: NonZeroU64::new(options.write_limit),
        min_rate: NonZeroU64::new(options.min_rate),
        limit_at: windows.iter().map(|window| window.parse()).collect::<Result<_>>()?,
        ionice: caller.parsed("ionice", options.ionice)?,
        nice,
        cgroup: options.cgroup != 0,
    })
}

fn state_folder(caller: &Caller, state: *const c_char) -> Result<PathBuf> {
    caller.optional_path(state).map_or_else(local_state::default_folder, Ok)
}

/// Tells what runs, in this process or another, and under which limits: a JSON array as `blkdelta limits show --json`.
///
/// `state`: folder of the local state, NULL: the usual one. `json`: receives a string that the caller frees with
/// blkdelta_string_free(). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_limits_show(state: *const c_char, json: *mut *mut c_char) -> Status {
    let work = |caller: &Caller| {
        caller.check_out("json", json)?;
        caller.give_json(json, &running::list(&state_folder(caller, state)?)?)?;
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// Changes the limits of work that is running: of the process `pid`, or of all when it is 0. A run takes new limits
/// within a quarter of a second.
///
/// `state`: folder of the local state that the runs use, NULL: the usual one. `limits`: what is to change. `json`:
/// receives the new limits as an array (`blkdelta limits set --json`), freed with blkdelta_string_free(); NULL: not wanted.
/// Any thread, also from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_limits_set(
    state: *const c_char,
    pid: u32,
    limits: *const LimitOptions,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        let wishes = wishes(caller, limits)?;
        let pid = (pid != 0).then_some(pid);
        let state = state_folder(caller, state)?;
        let changed = running::change(&state, pid, &mut |limits| wishes.change_running(limits))?;
        caller.give_json(json, &changed)?;
        Ok(Status::Ok)
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}
