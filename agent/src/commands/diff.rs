//! `blkdelta diff`

use blkdelta_core::error::Result;
use blkdelta_core::operations::diff::diff;

use crate::cli::DiffArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::ranges::RangeSpool;

pub fn run(context: &Context, args: &DiffArgs) -> Result<Exit> {
    let repository = context.repository_to_read(args.volume.as_deref())?;
    let from = repository.resolve(&args.from, args.volume.as_deref(), None)?;
    let to = repository.resolve(&args.to, args.volume.as_deref(), None)?;
    let mut spool = RangeSpool::new()?;
    let totals = diff(&repository, &from, &to, &mut |range| spool.push(range), &context.cancel)?;
    if context.json {
        spool.print_json(&totals)?;
    } else {
        spool.print_text()?;
    }
    Ok(Exit::Done)
}
