//! `blkdelta verify`

use blkdelta_core::error::Result;
use blkdelta_core::operations::verify::verify;

use crate::cli::VerifyArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::gentleness;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: VerifyArgs) -> Result<Exit> {
    let repository = context.repository()?;
    let (records, damaged) = if args.ids.is_empty() {
        let catalog = repository.catalog(args.volume.as_deref())?;
        (catalog.records, catalog.damaged.into_iter().chain(catalog.damaged_tags).collect())
    } else {
        let resolve = |id: &String| repository.resolve(id, args.volume.as_deref(), None);
        (args.ids.iter().map(resolve).collect::<Result<_>>()?, Vec::new())
    };
    let running = gentleness::begin(args.gentle)?;
    let view = ProgressView::start("verify", "rewritten", &context.progress, context.quiet);
    let done = verify(
        &repository,
        &records,
        &damaged,
        args.data,
        &running.gentleness,
        &context.progress,
        &context.cancel,
    );
    drop(view);
    let done = done?;
    if context.json {
        report::json(&done)?;
    } else {
        for problem in &done.problems {
            let id = problem.backup_id.map_or_else(|| "-".into(), |id| id.to_string());
            report::line(&format!("DAMAGED {id}: {}", problem.what))?;
        }
        let how =
            if done.data { "every byte read" } else { "structure and digests; --data reads every byte" };
        report::line(&format!(
            "{} backups checked ({how}), {} problems",
            done.backups_checked,
            done.problems.len()
        ))?;
    }
    if done.ok {
        return Ok(Exit::Done);
    }
    report::hint(
        "restore from a backup that is not named; back the volume up again with --kind full, and check the disk",
    );
    Ok(Exit::Damaged)
}
