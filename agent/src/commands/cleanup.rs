//! `blkdelta cleanup`

use blkdelta_core::error::Result;
use blkdelta_core::local_state;
use blkdelta_core::operations::cleanup::{CleanedVolume, cleanup};

use crate::cli::CleanupArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

pub fn run(context: &Context, args: &CleanupArgs) -> Result<Exit> {
    let repository = context.repository()?;
    let cleaned = cleanup(&repository, args.volume.as_deref(), &local_state::default_folder()?)?;
    if context.json {
        report::json(&cleaned)?;
    } else {
        cleaned.iter().try_for_each(|volume| report::line(&text(volume)))?;
    }
    Ok(if cleaned.iter().all(|volume| volume.problem.is_none()) { Exit::Done } else { Exit::Doubtful })
}

fn text(cleaned: &CleanedVolume) -> String {
    let volume = &cleaned.volume;
    match &cleaned.problem {
        Some(problem) => format!("'{volume}': not cleaned: {problem}"),
        None if cleaned.removed_snapshots.is_empty() => format!("'{volume}': clean"),
        None => format!("'{volume}': removed {}", cleaned.removed_snapshots.join(", ")),
    }
}
