//! `blkdelta apply`

use blkdelta_core::error::Result;
use blkdelta_core::operations::apply::apply;
use blkdelta_core::units::format_size;

use crate::cli::ApplyArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::progress_bar::ProgressView;
use crate::report;

pub fn run(context: &Context, args: &ApplyArgs) -> Result<Exit> {
    let view = ProgressView::start("apply", "written", &context.progress, context.quiet);
    let done = apply(&args.delta, &args.target, args.force, &context.progress, &context.cancel);
    drop(view);
    let done = done?;
    if context.json {
        report::json(&done)?;
    } else if done.already_applied {
        report::line(&format!("{} has that state already; its root is proven", done.target))?;
    } else {
        report::line(&format!(
            "{} written to {}; its root is proven",
            format_size(done.bytes_written),
            done.target
        ))?;
    }
    Ok(Exit::Done)
}
