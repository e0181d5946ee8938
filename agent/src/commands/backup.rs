//! `blkdelta backup`

use blkdelta_core::error::Result;
use blkdelta_core::operations::backup::{BackupOptions, BackupReport, backup};
use blkdelta_core::units::format_size;

use crate::cli::{BackupArgs, Hints};
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness::Running;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: BackupArgs) -> Result<Exit> {
    let repository = context.repository()?;
    let running = Running::begin(args.gentle)?;
    let options = BackupOptions {
        gentleness: running.gentleness.clone(),
        volume: args.volume,
        kind: args.kind.wanted(args.parent),
        allow_live: args.read.allow_live,
        new_identity: args.read.new_identity,
        hints: args.read.hints == Hints::Auto,
        queue_depth: args.read.queue_depth,
        compression: args.compression,
        tags: args.tag,
        ..BackupOptions::new(args.source, Context::state_folder()?)
    };
    let view = ProgressView::start("backup", "changed", &context.progress, context.quiet);
    let done = backup(&repository, &options, &context.progress, &context.cancel);
    drop(view);
    let done = done?;
    if context.json {
        report::json(&done)?;
    } else {
        report::line(&text(&done))?;
    }
    Ok(if done.alarm.is_some() { Exit::Doubtful } else { Exit::Done })
}

fn text(report: &BackupReport) -> String {
    let (record, counts) = (&report.record, &report.record.statistics);
    format!(
        "{} {} of '{}' (number {}): read {}, {} changed in {} of {} blocks, {} stored",
        record.kind.name(),
        record.backup_id,
        record.volume,
        record.sequence,
        report::rate(counts.bytes_read, counts.duration_s),
        format_size(counts.bytes_changed),
        counts.blocks_changed,
        counts.blocks_total,
        format_size(counts.bytes_stored),
    )
}
