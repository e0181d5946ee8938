//! `blkdelta prune`

use blkdelta_core::error::Result;
use blkdelta_core::operations::prune::{PruneOptions, PruneReport, prune};
use blkdelta_core::retention::Decision;
use blkdelta_core::units::format_size;
use jiff::Timestamp;

use crate::cli::PruneArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

pub fn run(context: &Context, args: &PruneArgs) -> Result<Exit> {
    let options = PruneOptions { volume: args.volume.clone(), policy: args.policy(), dry_run: args.dry_run };
    let done = prune(&context.repository()?, &options, Timestamp::now(), &context.cancel)?;
    for problem in &done.problems {
        tracing::warn!("'{}' was left alone: {}", problem.volume, problem.what);
    }
    if context.json {
        report::json(&done)?;
    } else {
        done.backups.iter().try_for_each(|decision| report::line(&row(decision, done.dry_run)))?;
        report::line(&summary(&done))?;
    }
    Ok(if done.problems.is_empty() { Exit::Done } else { Exit::Doubtful })
}

fn row(decision: &Decision, dry_run: bool) -> String {
    let verb = match (decision.keep, dry_run) {
        (true, _) => "kept",
        (false, true) => "would go",
        (false, false) => "removed",
    };
    format!(
        "{:.12}  {:.19}Z  {:<12}  {:<9}  {}  {verb}: {}",
        decision.backup_id.to_string(),
        decision.taken_at.to_string(),
        decision.kind.name(),
        format_size(decision.bytes_stored),
        decision.volume,
        decision.reasons.join(", "),
    )
}

fn summary(report: &PruneReport) -> String {
    let verb = if report.dry_run { "would be removed" } else { "removed" };
    let size = format_size(report.bytes_removed);
    format!("{} backups kept, {} {verb} ({size})", report.kept, report.removed)
}
