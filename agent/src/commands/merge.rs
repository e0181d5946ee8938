//! `blkdelta merge`

use blkdelta_core::error::Result;
use blkdelta_core::local_state;
use blkdelta_core::operations::merge::{MergeOptions, MergeReport, merge};
use blkdelta_core::units::format_size;

use crate::cli::MergeArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: MergeArgs) -> Result<Exit> {
    let repository = context.repository()?;
    let resolve = |id: &str| repository.resolve(id, args.volume.as_deref(), None);
    let (first, last) = match args.run.split_once("..") {
        Some((first, last)) => (Some(resolve(first)?), resolve(last)?),
        None => (None, resolve(&args.run)?),
    };
    let running = gentleness::begin(args.gentle)?;
    let options = MergeOptions {
        last,
        first,
        compression: args.compression,
        gentleness: running.gentleness.clone(),
        state: local_state::default_folder()?,
    };
    let view = ProgressView::start("merge", "merged", &context.progress, context.quiet);
    let done = merge(&repository, &options, &context.progress, &context.cancel);
    drop(view);
    let done = done?;
    for warning in &done.warnings {
        tracing::warn!("{warning}");
    }
    if context.json {
        report::json(&done)?;
    } else {
        report::line(&text(&done))?;
    }
    Ok(Exit::Done)
}

/// For people, also behind a backup that bounds its chain.
pub fn text(report: &MergeReport) -> String {
    let record = &report.record;
    let kept: String =
        report.kept.iter().map(|kept| format!("; kept {}: {}", kept.backup_id, kept.reason)).collect();
    format!(
        "merged {} backups of '{}' into {} {} (number {}): {} copied, {} encoded anew, {} stored, {} removed{kept}",
        report.removed.len() + report.kept.len(),
        record.volume,
        record.kind.name(),
        record.backup_id,
        record.sequence,
        format_size(report.bytes_copied),
        format_size(report.bytes_encoded),
        format_size(record.statistics.bytes_stored),
        report.removed.len(),
    )
}
