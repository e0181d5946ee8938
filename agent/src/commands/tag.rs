//! `blkdelta tag`

use blkdelta_core::error::Result;

use crate::cli::TagArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

pub fn run(context: &Context, args: &TagArgs) -> Result<Exit> {
    let repository = context.repository()?;
    let record = repository.resolve(&args.id, args.volume.as_deref(), None)?;
    let tags = repository.change_tags(&record, &args.add, &args.remove)?;
    if context.json {
        report::json(&serde_json::json!({
            "backup_id": record.backup_id,
            "volume": record.volume,
            "sequence": record.sequence,
            "tags": tags,
        }))?;
    } else {
        let tags = if tags.is_empty() { "none".to_owned() } else { tags.join(", ") };
        report::line(&format!("tags of {} of '{}': {tags}", record.backup_id, record.volume))?;
    }
    Ok(Exit::Done)
}
