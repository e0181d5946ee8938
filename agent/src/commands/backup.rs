//! `blkdelta backup`

use std::path::PathBuf;

use blkdelta_core::consistency::{Consistency, Hooks, MysqlOptions, PostgresOptions};
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::local_state;
use blkdelta_core::operations::backup::{BackupOptions, BackupReport, Group, backup_group};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::merge::{MergeOptions, MergeReport, Shortening, shorten};
use blkdelta_core::repository::Repository;
use blkdelta_core::units::format_size;
use serde::Serialize;

use crate::cli::{BackupArgs, ConsistencyArgs};
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: &BackupArgs) -> Result<Exit> {
    check_sources(args)?;
    let repository = context.repository()?;
    let running = gentleness::begin(args.gentle.clone())?;
    let group = Group {
        volumes: options(args, &running.gentleness)?,
        consistency: consistency(&args.consistency, args)?,
    };
    let mut reports = Vec::new();
    let view = ProgressView::start("backup", "changed", &context.progress, context.quiet);
    let done = backup_group(&repository, &group, &context.progress, &context.cancel, &mut |report| {
        reports.push(report);
        Ok(())
    });
    drop(view);
    let (reports, shortened) = bound(context, args, &repository, &running.gentleness, reports);
    // What was committed before a later volume failed is told too.
    tell(context, args.group, &reports)?;
    done?;
    shortened?;
    Ok(if reports.iter().any(|done| done.report.alarm.is_some()) { Exit::Doubtful } else { Exit::Done })
}

/// A backup, and the merge that bounded its chain.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    report: BackupReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged: Option<MergeReport>,
}

/// Bounds the chains of the new backups; these are told whatever becomes of that.
fn bound(
    context: &Context,
    args: &BackupArgs,
    repository: &Repository,
    gentleness: &Gentleness,
    reports: Vec<BackupReport>,
) -> (Vec<Told>, Result<()>) {
    let mut chains: Vec<Shortening> = Vec::new();
    let done = local_state::default_folder().and_then(|state| {
        let chain = |report: &BackupReport| {
            let (last, state, gentleness) = (report.record.clone(), state.clone(), gentleness.clone());
            let options =
                MergeOptions { last, first: None, compression: args.compression, gentleness, state };
            args.max_chain.map(|longest| Shortening::new(options, longest.into()))
        };
        chains.extend(reports.iter().filter_map(chain));
        shorten(repository, &mut chains, &context.progress, &context.cancel)
    });
    let merged = chains.into_iter().map(|chain| chain.merged).chain(std::iter::repeat_with(|| None));
    (reports.into_iter().zip(merged).map(|(report, merged)| Told { report, merged }).collect(), done)
}

fn check_sources(args: &BackupArgs) -> Result<()> {
    let wrong = |text: &str, hint: &str| Err(Error::new(ErrorKind::WrongUse, text).hint(hint));
    if args.source.len() > 1 && !args.group {
        return wrong("several sources", "add --group to take their snapshots at one moment, or name one");
    }
    if !args.volume.is_empty() && args.volume.len() != args.source.len() {
        return wrong("--volume must be given once for each source", "leave it out, or name all volumes");
    }
    if args.parent.is_some() && args.source.len() > 1 {
        return wrong("--parent is for one source", "leave it out, or name one source");
    }
    Ok(())
}

fn options(args: &BackupArgs, gentleness: &Gentleness) -> Result<Vec<BackupOptions>> {
    let state = local_state::default_folder()?;
    let of_source = |(number, source): (usize, &PathBuf)| BackupOptions {
        gentleness: gentleness.clone(),
        volume: args.volume.get(number).cloned(),
        kind: args.kind.wanted(args.parent.as_deref()),
        allow_live: args.read.allow_live,
        new_identity: args.read.new_identity,
        snapshot: args.snapshot.snapshot.into(),
        snapshot_size: args.snapshot.snapshot_size,
        keep_snapshot: args.snapshot.keep_snapshot.into(),
        hints: args.read.hints.clone(),
        proof: args.read.proof(),
        queue_depth: args.read.queue_depth,
        compression: args.compression,
        resume: args.resume,
        tags: args.tag.clone(),
        ..BackupOptions::new(source, &state)
    };
    Ok(args.source.iter().enumerate().map(of_source).collect())
}

fn consistency(args: &ConsistencyArgs, backup: &BackupArgs) -> Result<Consistency> {
    let sources: Vec<_> = backup.source.iter().map(|source| source.display().to_string()).collect();
    let hooks = Hooks {
        before: args.before_snapshot.clone(),
        after: args.after_snapshot.clone(),
        environment: vec![("BLKDELTA_SOURCES".into(), sources.join("\n"))],
    };
    let mysql = args.mysql.as_ref().map(|file| MysqlOptions {
        defaults_file: Some(file.clone()).filter(|file| !file.as_os_str().is_empty()),
    });
    Ok(Consistency {
        hooks,
        freeze: args.freeze.clone(),
        postgres: args.postgresql.as_ref().map(PostgresOptions::new).transpose()?,
        mysql,
        timeout: args.freeze_timeout,
    })
}

/// A group's JSON is an array.
fn tell(context: &Context, group: bool, reports: &[Told]) -> Result<()> {
    match reports {
        _ if context.json && group => report::json(&reports),
        [only] if context.json => report::json(only),
        _ if context.json => Ok(()),
        _ => reports.iter().try_for_each(|done| {
            report::line(&text(&done.report))?;
            done.merged.as_ref().map_or(Ok(()), |merged| report::line(&super::merge::text(merged)))
        }),
    }
}

fn text(report: &BackupReport) -> String {
    let (record, counts) = (&report.record, &report.record.statistics);
    let carried = match counts.bytes_carried {
        0 => String::new(),
        bytes => format!(", {} carried over by hint ({})", format_size(bytes), record.hint.kind),
    };
    let resumed = match report.resumed_at {
        Some(offset) => format!(" from {} on", format_size(offset)),
        None => String::new(),
    };
    let healed = match report.blocks_healed {
        0 => String::new(),
        blocks => format!(", {blocks} damaged blocks healed"),
    };
    format!(
        "{} {} of '{}' (number {}): read {}{resumed}{carried}, {} changed in {} of {} blocks, {} stored{healed}",
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
