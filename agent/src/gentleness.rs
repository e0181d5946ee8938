//! From flags to limits.

use blkdelta_core::error::Result;
use blkdelta_core::local_state;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::running::Running;
use blkdelta_core::throttle::Limits;

use crate::cli::{GentleArgs, LimitArgs};

/// Takes the flags of a run. Wrong ones are refused here, before anything starts.
pub fn begin(args: GentleArgs) -> Result<Running> {
    let base = if args.full_speed { Gentleness::full_speed() } else { Gentleness::default() };
    begin_from(base, args)
}

/// The same for a restore, for which somebody waits: it listens to others only if that is asked for.
pub fn begin_restore(args: GentleArgs) -> Result<Running> {
    begin_from(Gentleness::full_speed(), args)
}

fn begin_from(mut gentleness: Gentleness, args: GentleArgs) -> Result<Running> {
    change(&mut gentleness.limits, args.limits);
    if args.ionice.is_some() {
        gentleness.priority.io = args.ionice;
    }
    if args.nice.is_some() {
        gentleness.priority.nice = args.nice;
    }
    gentleness.priority.cgroup = args.cgroup;
    Running::begin(&local_state::default_folder()?, gentleness)
}

/// Puts limits that were named in the place of the present ones.
pub fn change(limits: &mut Limits, args: LimitArgs) {
    limits.latency_target = args.latency_target.unwrap_or(limits.latency_target);
    limits.bwlimit = args.bwlimit.or(limits.bwlimit);
    limits.iops_limit = args.iops_limit.or(limits.iops_limit);
    limits.write_limit = args.write_limit.or(limits.write_limit);
    limits.min_rate = args.min_rate.unwrap_or(limits.min_rate);
    if !args.limit_at.is_empty() {
        limits.limit_at = args.limit_at;
    }
}
