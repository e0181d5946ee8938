//! `blkdelta list`: records as JSON, or for people as trees: a backup stands under the one it builds on.

use std::collections::{BTreeMap, BTreeSet};

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::error::Result;
use blkdelta_core::units::format_size;

use crate::cli::ListArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

/// Deeper branches are not indented further: a chain may have hundreds of links.
const DEEPEST: usize = 10;

pub fn run(context: &Context, args: &ListArgs) -> Result<Exit> {
    let catalog = context.catalog(args.volume.as_deref())?;
    let damaged = || catalog.damaged.iter().chain(&catalog.damaged_tags);
    for error in damaged() {
        tracing::error!("{}", error.full_text());
    }
    if context.json {
        report::json(&catalog.records)?;
    } else {
        show(&catalog.records)?;
    }
    Ok(if damaged().next().is_none() { Exit::Done } else { Exit::Doubtful })
}

fn show(records: &[BackupRecord]) -> Result<()> {
    let trees = trees(records);
    let deepest = trees.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
    let width = 12 + 2 * deepest.min(DEEPEST);
    report::line(&format!(
        "{:<width$}  TAKEN AT              KIND          SIZE       CHANGED    STORED     VOLUME",
        "ID"
    ))?;
    trees.into_iter().try_for_each(|(depth, record)| {
        let id =
            format!("{:indent$}{:.12}", "", record.backup_id.to_string(), indent = 2 * depth.min(DEEPEST));
        report::line(&format!("{id:<width$}  {}", row(record)))
    })
}

/// Each backup with its depth, children right behind their parents; whose parent is not listed stands at the left.
fn trees(records: &[BackupRecord]) -> Vec<(usize, &BackupRecord)> {
    let place = |record: &BackupRecord| (record.volume.clone(), record.sequence);
    let there: BTreeSet<_> = records.iter().map(place).collect();
    let (mut open, mut children) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for record in records.iter().rev() {
        let parent = record.parent.filter(|link| link.sequence < record.sequence);
        match parent
            .map(|link| (record.volume.clone(), link.sequence))
            .filter(|parent| there.contains(parent))
        {
            Some(parent) => children.entry(parent).or_default().push(record),
            None => open.push((0, record)),
        }
    }
    let mut ordered = Vec::with_capacity(records.len());
    while let Some((depth, record)) = open.pop() {
        ordered.push((depth, record));
        let below = children.remove(&place(record)).unwrap_or_default();
        open.extend(below.into_iter().map(|child| (depth + 1, child)));
    }
    ordered
}

fn row(record: &BackupRecord) -> String {
    let tags = if record.tags.is_empty() { String::new() } else { format!("  [{}]", record.tags.join(", ")) };
    format!(
        "{:.19}Z  {:<12}  {:<9}  {:<9}  {:<9}  {}{tags}",
        record.taken_at.to_string(),
        record.kind.name(),
        format_size(record.size_bytes),
        format_size(record.statistics.bytes_changed),
        format_size(record.statistics.bytes_stored),
        record.volume,
    )
}
