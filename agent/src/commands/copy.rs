//! `blkdelta copy`

use blkdelta_core::error::Result;
use blkdelta_core::operations::copy::{CopiedBackup, CopyOptions, CopyReport, copy};
use blkdelta_core::units::format_size;

use crate::cli::CopyArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: CopyArgs) -> Result<Exit> {
    let (from, to) =
        (context.repository_to_read(args.volume.as_deref())?, context.repository_of_copies(&args.to)?);
    let resolve = |id: &String| from.resolve(id, args.volume.as_deref(), None);
    let chosen = args.ids.iter().map(resolve).collect::<Result<_>>()?;
    let running = gentleness::begin(args.gentle)?;
    let options = CopyOptions {
        chosen,
        volume: args.volume,
        read_back: args.read_back,
        dry_run: args.dry_run,
        gentleness: running.gentleness.clone(),
    };
    let view = ProgressView::start("copy", "written", &context.progress, context.quiet);
    let done = copy(&from, &to, &options, &context.progress, &context.cancel);
    drop(view);
    let done = done?;
    for warning in &done.warnings {
        tracing::warn!("{warning}");
    }
    for problem in &done.problems {
        let id = problem.backup_id.map_or_else(|| "-".into(), |id| id.to_string());
        tracing::warn!("not copied: {id}: {}", problem.what);
    }
    if context.json {
        report::json(&done)?;
    } else {
        done.backups.iter().try_for_each(|backup| report::line(&row(backup, done.dry_run)))?;
        report::line(&summary(&done))?;
    }
    Ok(if done.problems.is_empty() { Exit::Done } else { Exit::Doubtful })
}

fn row(backup: &CopiedBackup, dry_run: bool) -> String {
    format!(
        "{:.12}  {:<12}  {:<9}  {} (number {}){}  {}",
        backup.backup_id.to_string(),
        backup.kind.name(),
        format_size(backup.bytes),
        backup.volume,
        backup.sequence,
        if backup.needed { ", which others build on" } else { "" },
        if dry_run { "would be copied" } else { "copied" },
    )
}

fn summary(report: &CopyReport) -> String {
    let verb = if report.dry_run { "would be copied" } else { "copied" };
    let found = match report.bytes_found {
        0 => String::new(),
        bytes => format!(", {} left by an interrupted copy", format_size(bytes)),
    };
    format!(
        "{} backups {verb} ({}{found}), {} there already, {} not copied",
        report.backups.len(),
        report::rate(report.bytes_copied, report.duration_s),
        report.there_already,
        report.problems.len(),
    )
}
