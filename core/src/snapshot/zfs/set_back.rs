//! Whether the volume can have been set back to a state from before the baseline without anybody noticing.
//!
//! Blocks that come back that way are older than the baseline, so no stream since the baseline names them, and the hint
//! would miss them. `zfs rollback` destroys all younger snapshots and bookmarks, which is noticed. `zfs receive -F`
//! destroys the snapshots but leaves the bookmarks, so a bookmark alone is believed only where that cannot have happened.
//! A volume is set back to an older snapshot of its own; therefore a bookmark is enough
//! - where there was none and is none, or
//! - where nothing was written between the youngest of them and the baseline, as in a replica, and that one is still
//!   there: to go back to it changes nothing, and to go back further destroys it.
//!
//! Otherwise the snapshot itself stays as the baseline: it costs what is overwritten until the next backup, beside older
//! snapshots that cost the same.

use super::dataset::{self, Mark};
use crate::error::Result;

/// How the generation of a baseline says that there was no older snapshot.
const NONE: &str = "-";

/// The youngest snapshot to which the volume could be set back when this one was taken.
pub(super) struct Before(Option<Mark>);

impl Before {
    /// Those of the same owner are left out: they do not outlive the run.
    pub(super) fn of(snapshot: &str, createtxg: &str) -> Result<Self> {
        let (volume, name) = snapshot.split_once('@').unwrap_or((snapshot, ""));
        let (owner, _) = name.rsplit_once('-').unwrap_or((name, ""));
        let mut older = dataset::marks(volume)?;
        older.retain(|mark| is_older(mark, createtxg) && !dataset::short_name(&mark.name).starts_with(owner));
        Ok(Self(older.into_iter().max_by_key(|mark| number(&mark.createtxg))))
    }

    /// How the baseline's generation names it.
    pub(super) fn text(&self) -> &str {
        self.0.as_ref().map_or(NONE, |mark| &mark.guid)
    }

    /// Whether a bookmark of `snapshot` will be enough as the baseline.
    pub(super) fn bookmark_is_enough(&self, snapshot: &str) -> Result<bool> {
        let Some(before) = &self.0 else { return Ok(true) };
        let written = format!("written@{}", dataset::short_name(&before.name));
        let said = dataset::zfs(["get", "-Hp", "-o", "value", &written, snapshot])?;
        Ok(said.out.trim() == "0")
    }
}

/// Whether `bookmark` can still be believed, which was enough at its time; `before` is what its generation says.
pub(super) fn still_believed(bookmark: &Mark, before: &str, marks: &[Mark]) -> bool {
    match before {
        NONE => !marks.iter().any(|mark| is_older(mark, &bookmark.createtxg)),
        guid => marks.iter().any(|mark| mark.is_snapshot() && mark.guid == guid),
    }
}

fn is_older(mark: &Mark, createtxg: &str) -> bool {
    mark.is_snapshot() && number(&mark.createtxg) < number(createtxg)
}

fn number(createtxg: &str) -> Option<u64> {
    createtxg.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str, guid: &str, createtxg: &str) -> Mark {
        Mark { name: name.into(), guid: guid.into(), createtxg: createtxg.into() }
    }

    #[test]
    fn a_bookmark_is_believed_only_where_nothing_can_have_gone_back_behind_it() {
        let bookmark = mark("p/v#ours", "5", "50");
        let (younger, older) = (mark("p/v@younger", "6", "60"), mark("p/v@older", "4", "40"));
        let older_bookmark = mark("p/v#older", "4", "40");
        for (before, marks, believed) in [
            (NONE, vec![], true),
            (NONE, vec![&younger, &older_bookmark], true),
            (NONE, vec![&older], false), // handed over by a clone that was promoted
            ("4", vec![&older, &younger], true),
            ("4", vec![&younger], false),
            ("4", vec![&older_bookmark], false),
        ] {
            let marks: Vec<Mark> = marks.into_iter().map(|m| mark(&m.name, &m.guid, &m.createtxg)).collect();
            assert_eq!(still_believed(&bookmark, before, &marks), believed, "{before} {marks:?}");
        }
    }
}
