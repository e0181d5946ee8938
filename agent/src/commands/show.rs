//! `blkdelta show`

use blkdelta_core::error::{Error, Result};

use crate::cli::ShowArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

pub fn run(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let record = context.repository_to_read(args.volume.as_deref())?.resolve(
        &args.id,
        args.volume.as_deref(),
        None,
    )?;
    if context.json {
        report::json(&record)?;
        return Ok(Exit::Done);
    }
    let problem = |source: serde_json::Error| Error::io("writing", "standard output", source.into());
    let fields = serde_json::to_value(&record).map_err(problem)?;
    for (key, value) in fields.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        report::line(&format!("{key:<16} {text}"))?;
    }
    Ok(Exit::Done)
}
