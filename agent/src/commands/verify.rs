//! `blkdelta verify`

use blkdelta_core::error::Result;
use blkdelta_core::local_state;
use blkdelta_core::operations::verify::{ProblemKind, VerifyOptions, VerifyReport, verify, wanted};
use blkdelta_core::units::format_size;

use crate::cli::VerifyArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: VerifyArgs) -> Result<Exit> {
    let repository = context.repository()?;
    let (records, wrong) = wanted(&repository, &args.ids, args.volume.as_deref())?;
    let running = gentleness::begin(args.gentle)?;
    let view = ProgressView::start("verify", "rewritten", &context.progress, context.quiet);
    let options = VerifyOptions {
        data: args.data,
        sample: args.sample,
        state: Some(local_state::default_folder()?),
        gentleness: running.gentleness.clone(),
    };
    let done = verify(&repository, &records, &wrong, &options, &context.progress, &context.cancel);
    drop(view);
    let done = done?;
    for warning in &done.warnings {
        tracing::warn!("{warning}");
    }
    if context.json {
        report::json(&done)?;
    } else {
        text(&done)?;
    }
    if done.ok {
        return Ok(Exit::Done);
    }
    if done.problems.iter().any(|problem| problem.kind == ProblemKind::Newer) {
        report::hint("update blkdelta: what a newer version wrote can be verified by that version");
    }
    if !done.is_damaged() {
        return Ok(Exit::Doubtful);
    }
    report::hint(
        "restore what is not named, or all but that with --skip-damaged; the next backup heals what the source still has; \
         check the disk",
    );
    Ok(Exit::Damaged)
}

fn text(done: &VerifyReport) -> Result<()> {
    for problem in &done.problems {
        let id = problem.backup_id.map_or_else(|| "-".into(), |id| id.to_string());
        let range = match problem.length {
            0 => String::new(),
            length => format!(" {}+{length}", problem.offset),
        };
        let what = match problem.kind {
            ProblemKind::Damaged => "DAMAGED",
            ProblemKind::Newer => "NEWER",
        };
        report::line(&format!("{what} {id}{range}: {}", problem.what))?;
    }
    let how = match &done.sampled {
        _ if done.data => "every byte read".to_owned(),
        Some(sampled) => {
            format!("structure and digests, and {} of what is stored", format_size(sampled.bytes))
        }
        None => "structure and digests; --data reads every byte".to_owned(),
    };
    let counts =
        format!("{} backups checked ({how}), {} problems", done.backups_checked, done.problems.len());
    report::line(&counts)?;
    let Some(coverage) = &done.coverage else { return Ok(()) };
    let oldest = match coverage.oldest {
        Some(oldest) => format!("; the oldest proof is of {oldest}"),
        None => String::new(),
    };
    report::line(&format!(
        "samples have proven {:.1} % of {} since {}{oldest}",
        coverage.share * 100.0,
        format_size(coverage.bytes_total),
        coverage.since,
    ))
}
