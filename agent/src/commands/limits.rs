//! `blkdelta limits`

use blkdelta_core::error::Result;
use blkdelta_core::local_state;
use blkdelta_core::operations::running::{self, RunningWork};
use blkdelta_core::units::format_rate;

use crate::cli::{LimitsArgs, LimitsSetArgs, LimitsVerb};
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::report;

pub fn run(context: &Context, args: LimitsArgs) -> Result<Exit> {
    let runs = match args.what {
        LimitsVerb::Show => running::list(&local_state::default_folder()?)?,
        LimitsVerb::Set(args) => set(args)?,
    };
    if context.json {
        report::json(&runs)?;
        return Ok(Exit::Done);
    }
    for run in &runs {
        report::line(&text(run))?;
    }
    Ok(Exit::Done)
}

fn set(args: LimitsSetArgs) -> Result<Vec<RunningWork>> {
    let wishes = gentleness::wishes(args.limits, args.full_speed);
    running::change(&local_state::default_folder()?, args.pid, &mut |limits| wishes.change_running(limits))
}

fn text(run: &RunningWork) -> String {
    let limits = &run.limits;
    let rate = |what: &str, rate: Option<std::num::NonZeroU64>| {
        rate.map(|rate| format!(", {what} {}", format_rate(rate.get()))).unwrap_or_default()
    };
    let target = String::from(limits.latency_target);
    let windows: String = limits.limit_at.iter().map(|window| format!(", {window}")).collect();
    let requests = limits.iops_limit.map(|number| format!(", {number} requests/s")).unwrap_or_default();
    format!(
        "process {}: latency target {target}{}{requests}{}{windows}",
        run.pid,
        rate("reading at most", limits.bwlimit),
        rate("writing at most", limits.write_limit),
    )
}
