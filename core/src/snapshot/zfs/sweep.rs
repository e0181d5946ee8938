//! Removing what earlier runs left behind: clones, snapshots and bookmarks with a prefix of ours.
//!
//! A volume is destroyed only when it stands on a snapshot that has the prefix as well, so a volume of the user's that
//! happens to be called like a clone of ours stays. What cannot be destroyed now is left for the next run and told in the
//! log; a backup does not fail because of it.

use super::{dataset, taken};
use crate::backup_id::SnapshotRecord;
use crate::error::Result;

/// See [`super::sweep`].
pub(super) fn sweep(prefix: &str, keep: Option<&SnapshotRecord>) -> Result<Vec<String>> {
    let (unusable, pools): (Vec<_>, Vec<_>) =
        dataset::pools().into_iter().partition(|pool| dataset::unusable_pool(pool).is_some());
    for pool in unusable {
        tracing::warn!(pool, "the pool is not usable now: what earlier runs left there stays");
    }
    let mut swept = Vec::new();
    for pool in pools {
        for name in to_be_swept(&pool, prefix, keep)? {
            match dataset::destroy(&name) {
                Ok(()) => swept.push(name),
                Err(error) => {
                    tracing::warn!(name, why = error.full_text(), "left by an earlier run, and stays");
                }
            }
        }
    }
    Ok(swept)
}

/// In the order in which they can be destroyed: clones, snapshots, bookmarks.
fn to_be_swept(pool: &str, prefix: &str, keep: Option<&SnapshotRecord>) -> Result<Vec<String>> {
    let ours = |name: &str| dataset::short_name(name).starts_with(prefix);
    // Names alone, in their own order, are much cheaper than any property.
    let list = ["list", "-H", "-r", "-t", "volume,snapshot,bookmark", "-o", "name", "-s", "name", pool];
    let said = dataset::zfs(list)?;
    let names: Vec<&str> = said.out.lines().filter(|name| ours(name)).collect();
    let of_kind = |mark: char| names.iter().filter(move |name| name.contains(mark));

    let mut clones = Vec::new();
    for name in names.iter().filter(|name| !name.contains(['@', '#'])) {
        let origin = dataset::look(name)?.and_then(|found| found.origin);
        clones.extend(origin.filter(|origin| ours(origin)).map(|_| (*name).to_owned()));
    }
    let (mut snapshots, mut bookmarks, mut bookmark_kept) = (Vec::new(), Vec::new(), false);
    for name in of_kind('#') {
        match is_baseline(name, keep)? {
            true => bookmark_kept = true,
            false => bookmarks.push((*name).to_owned()),
        }
    }
    for name in of_kind('@') {
        if bookmark_kept || !is_baseline(name, keep)? {
            snapshots.push((*name).to_owned());
        }
    }
    Ok([clones, snapshots, bookmarks].concat())
}

fn is_baseline(name: &str, keep: Option<&SnapshotRecord>) -> Result<bool> {
    let Some(keep) = keep.filter(|keep| keep.kind == taken::KIND) else { return Ok(false) };
    Ok(dataset::look(name)?.is_some_and(|found| found.guid == keep.uuid))
}
