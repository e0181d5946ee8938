//! From flags to limits.

use blkdelta_core::error::Result;
use blkdelta_core::local_state;
use blkdelta_core::operations::gentleness::{Gentleness, Wishes};
use blkdelta_core::operations::running::Running;

use crate::cli::{GentleArgs, LimitArgs};

/// Takes the flags of a run. Wrong ones are refused here, before anything starts.
pub fn begin(args: GentleArgs) -> Result<Running> {
    begin_from(Gentleness::default(), args)
}

/// The same for a restore, for which somebody waits: it listens to others only if that is asked for.
pub fn begin_restore(args: GentleArgs) -> Result<Running> {
    begin_from(Gentleness::full_speed(), args)
}

fn begin_from(usual: Gentleness, args: GentleArgs) -> Result<Running> {
    let GentleArgs { limits, full_speed, ionice, nice, cgroup } = args;
    let wishes = Wishes { ionice, nice, cgroup, ..wishes(limits, full_speed) };
    Running::begin(&local_state::default_folder()?, wishes.gentleness(usual)?)
}

/// The flags that a run which goes on can take too.
pub fn wishes(args: LimitArgs, full_speed: bool) -> Wishes {
    let LimitArgs { latency_target, bwlimit, iops_limit, write_limit, limit_at, min_rate } = args;
    Wishes {
        full_speed,
        latency_target,
        bwlimit,
        iops_limit,
        write_limit,
        min_rate,
        limit_at,
        ..Wishes::default()
    }
}
