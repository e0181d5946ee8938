//! `blkdelta restore`

use std::ops::Range;
use std::path::Path;

use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::local_state;
use blkdelta_core::operations::restore::{RestoreOptions, RestoreReport, RestoreTarget, restore};
use blkdelta_core::sys::files::standard_output;
use blkdelta_core::units::{format_size, parse_size};

use crate::cli::RestoreArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: RestoreArgs) -> Result<Exit> {
    let to_stdout = args.target == Path::new("-");
    if to_stdout && context.json {
        return Err(Error::new(
            ErrorKind::WrongUse,
            "standard output cannot hold both the volume and the JSON document",
        )
        .hint("restore to a file, or leave --json out"));
    }
    let range = args.range.as_deref().map(parse_range).transpose()?;
    let repository = context.repository_to_read(args.volume.as_deref())?;
    let record = repository.resolve(&args.id, args.volume.as_deref(), args.at)?;
    let target = if to_stdout {
        RestoreTarget::Stream(
            standard_output().map_err(|source| Error::io("opening", "standard output", source))?,
        )
    } else {
        RestoreTarget::Path(args.target)
    };
    let running = gentleness::begin_restore(args.gentle)?;
    let options = RestoreOptions {
        target,
        range,
        in_place: args.in_place,
        force: args.force,
        read_back: args.read_back,
        skip_damaged: args.skip_damaged,
        resume: args.resume,
        state: Some(local_state::default_folder()?),
        gentleness: running.gentleness.clone(),
    };
    let view = ProgressView::start("restore", "written", &context.progress, context.quiet);
    let done = restore(&repository, &record, &options, &context.progress, &context.cancel);
    drop(view);
    let done = done?;
    for warning in &done.warnings {
        tracing::warn!("{warning}");
    }
    if context.json {
        report::json(&done)?;
    } else if !to_stdout {
        for missing in &done.missing {
            report::line(&format!("MISSING {}+{}: {}", missing.offset, missing.length, missing.what))?;
        }
        report::line(&text(&done))?;
    } else {
        // Standard output is the volume's.
        for missing in &done.missing {
            tracing::warn!("missing {}+{}: {}", missing.offset, missing.length, missing.what);
        }
    }
    if done.missing.is_empty() {
        return Ok(Exit::Done);
    }
    report::hint(
        "the missing ranges may be sound in another backup: restore them from it with --range and --in-place",
    );
    Ok(Exit::Doubtful)
}

/// OFF+LEN, both sizes.
fn parse_range(text: &str) -> Result<Range<u64>> {
    let wrong = || {
        Error::new(ErrorKind::WrongUse, format!("'{text}' is not a range"))
            .hint("write OFF+LEN in bytes or units, such as 4MiB+512KiB")
    };
    let (offset, length) = text.split_once('+').ok_or_else(wrong)?;
    let (offset, length) = (parse_size(offset)?, parse_size(length)?);
    Ok(offset..offset.checked_add(length).ok_or_else(wrong)?)
}

fn text(report: &RestoreReport) -> String {
    let proven = match (report.root_proven, report.read_back) {
        (true, true) => "root proven, and again on what was read back",
        (true, false) => "root proven on what was written",
        (false, _) if report.bytes_missing > 0 => "the rest proven, root not",
        (false, _) => "blocks proven, root not",
    };
    let resumed = match report.resumed_at {
        Some(offset) => format!("; resumed at {}", format_size(offset)),
        None => String::new(),
    };
    let missing = match report.bytes_missing {
        0 => String::new(),
        bytes => format!(", {} MISSING", format_size(bytes)),
    };
    format!(
        "restored {} of '{}' to {}: {} written, {} there already{missing}, in {:.1} s; {proven}{resumed}",
        report.backup_id,
        report.volume,
        report.target,
        format_size(report.bytes_written),
        format_size(report.bytes_kept),
        report.duration_s,
    )
}
