//! `blkdelta list`

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::error::Result;
use blkdelta_core::units::format_size;

use crate::cli::ListArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

pub fn run(context: &Context, args: &ListArgs) -> Result<Exit> {
    let catalog = context.repository()?.catalog(args.volume.as_deref())?;
    for error in &catalog.damaged {
        tracing::error!("{}", error.full_text());
    }
    if context.json {
        report::json(&catalog.records)?;
    } else {
        report::line(
            "ID            TAKEN AT              KIND          SIZE       CHANGED    STORED     VOLUME",
        )?;
        catalog.records.iter().try_for_each(|record| report::line(&row(record)))?;
    }
    Ok(if catalog.damaged.is_empty() { Exit::Done } else { Exit::Doubtful })
}

fn row(record: &BackupRecord) -> String {
    format!(
        "{:.12}  {:.19}Z  {:<12}  {:<9}  {:<9}  {:<9}  {}",
        record.backup_id.to_string(),
        record.taken_at.to_string(),
        record.kind.name(),
        format_size(record.size_bytes),
        format_size(record.statistics.bytes_changed),
        format_size(record.statistics.bytes_stored),
        record.volume,
    )
}
