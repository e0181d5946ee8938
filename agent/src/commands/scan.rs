//! `blkdelta scan`

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::operations::hinting::HintChoice;
use blkdelta_core::operations::scan::{ScanOptions, scan};
use blkdelta_core::storage::local::FileReplacer;
use blkdelta_core::storage::{ObjectWriter, StreamWriter};
use blkdelta_core::sys::files::standard_output;
use blkdelta_core::units::format_size;

use super::init;
use crate::cli::ScanArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::progress_bar::ProgressView;
use crate::ranges::RangeSpool;
use crate::report;

pub fn run(context: &Context, args: ScanArgs) -> Result<Exit> {
    let to_stdout = args.delta.as_deref() == Some(Path::new("-"));
    if to_stdout && context.json {
        return Err(Error::new(
            ErrorKind::WrongUse,
            "standard output cannot hold both the delta and the JSON document",
        )
        .hint("write the delta to a file, or leave --json out"));
    }
    let running = gentleness::begin(args.gentle)?;
    let options = ScanOptions {
        gentleness: running.gentleness.clone(),
        manifest: args.manifest,
        write_manifest: args.write_manifest,
        format: init::options(&args.format),
        allow_live: args.read.allow_live,
        new_identity: args.read.new_identity,
        // A delta that has gone down a pipe cannot be begun again.
        hints: if to_stdout { HintChoice::Off } else { args.read.hints.clone() },
        proof: args.read.proof(),
        queue_depth: args.read.queue_depth,
        ..ScanOptions::new(args.source)
    };
    let spool = RefCell::new(RangeSpool::new()?);
    let mut make = args.delta.map(|path| move || open_delta(&path));
    let delta = make.as_mut().map(|make| make as &mut dyn FnMut() -> Result<Box<dyn ObjectWriter>>);
    let view = ProgressView::start("scan", "changed", &context.progress, context.quiet);
    let done = scan(
        &options,
        delta,
        &mut |range| spool.borrow_mut().push(range),
        &mut || spool.borrow_mut().clear(),
        &context.progress,
        &context.cancel,
    );
    drop(view);
    let done = done?;
    for warning in &done.warnings {
        tracing::warn!("{warning}");
    }
    if context.json {
        spool.into_inner().print_json(&done)?;
    } else if !to_stdout {
        spool.into_inner().print_text()?;
        let counts = &done.statistics;
        tracing::info!(
            "read {}, {} changed in {} of {} blocks",
            report::rate(counts.bytes_read, counts.duration_s),
            format_size(counts.bytes_changed),
            counts.blocks_changed,
            counts.blocks_total
        );
    }
    Ok(if done.alarm.is_some() { Exit::Doubtful } else { Exit::Done })
}

fn open_delta(path: &PathBuf) -> Result<Box<dyn ObjectWriter>> {
    if path == Path::new("-") {
        let out = standard_output().map_err(|source| Error::io("opening", "standard output", source))?;
        return Ok(Box::new(StreamWriter::new(out)));
    }
    Ok(Box::new(FileReplacer::begin(path)?))
}
