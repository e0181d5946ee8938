//! Bounding chains behind a backup: the oldest states of each go, and groups go whole or stay whole.
//!
//! ```text
//! chains, how long they may be -> how many states go (pure): fewer, while one of a group is still in another's chain
//!                              -> each chain is merged up to its first state that stays
//! ```
//! Trade-off: a chain that cannot become short without tearing a group apart stays longer, which is said and is no error: a
//! state that is kept beside a merged one would cost a full with every backup. Volumes that are backed up together, with one
//! bound, lose their oldest groups together.

use std::collections::BTreeSet;

use super::{MergeOptions, MergeReport, merge_leaving};
use crate::backup_id::{BackupId, BackupRecord};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::progress::Progress;
use crate::repository::Repository;

/// A chain to be bounded.
pub struct Shortening {
    /// Its newest backup, and how to merge.
    pub options: MergeOptions,
    /// How many backups it may have.
    pub longest: usize,
    /// What the merge did, if there was one.
    pub merged: Option<MergeReport>,
}

impl Shortening {
    /// The chain of `options.last`.
    #[must_use]
    pub fn new(options: MergeOptions, longest: usize) -> Self {
        Self { options, longest: longest.max(1), merged: None }
    }
}

/// Merges the oldest backups of chains that are longer than they may be.
///
/// # Errors
/// As for [`super::merge`]; what was done before that is told.
pub fn shorten(
    repository: &Repository,
    wanted: &mut [Shortening],
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<()> {
    let is_short = |one: &Shortening| Ok(repository.chain(&one.options.last)?.records().len() <= one.longest);
    if wanted.iter().map(is_short).collect::<Result<Vec<_>>>()?.into_iter().all(|short| short) {
        return Ok(());
    }
    let all = repository.catalog(None)?.records;
    let mut plan = Plan::new(&all, wanted.iter().map(|one| (&one.options.last, one.longest)));
    plan.keep_groups_whole();
    let leaving = plan.leaving();
    for (number, one) in wanted.iter_mut().enumerate() {
        let (chain, going) = (&plan.chains[number], plan.going[number]);
        if chain.len() - going > one.longest {
            let volume = &one.options.last.volume;
            tracing::warn!(
                "the chain of '{volume}' stays {} backups long: one of a group with its oldest states is still in \
                 the chain of another volume; back them up together with one --max-chain",
                chain.len() - going
            );
        }
        if going > 0 {
            let options = MergeOptions { last: chain[going].clone(), first: None, ..one.options.clone() };
            one.merged = Some(merge_leaving(repository, &options, &leaving, progress, cancel)?);
        }
    }
    Ok(())
}

/// The others of a backup's group.
pub(super) fn mates<'a>(
    record: &'a BackupRecord,
    all: &'a [BackupRecord],
) -> impl Iterator<Item = &'a BackupRecord> {
    let is_mate = |other: &&BackupRecord| other.group == record.group && other.volume != record.volume;
    all.iter().filter(move |other| record.group.is_some() && is_mate(other))
}

/// Whether one builds right on the other.
pub(super) fn is_parent(parent: &BackupRecord, child: &BackupRecord) -> bool {
    let link = child.parent.filter(|link| link.sequence < child.sequence);
    parent.volume == child.volume
        && link.is_some_and(|link| (link.sequence, link.root) == (parent.sequence, parent.root))
}

/// How many of the oldest states of each chain go.
struct Plan<'a> {
    all: &'a [BackupRecord],
    /// Oldest first.
    chains: Vec<Vec<&'a BackupRecord>>,
    going: Vec<usize>,
}

impl<'a> Plan<'a> {
    fn new<'b>(all: &'a [BackupRecord], wanted: impl Iterator<Item = (&'b BackupRecord, usize)>) -> Self {
        let (mut chains, mut going) = (Vec::new(), Vec::new());
        for (tip, longest) in wanted {
            let tip = all.iter().find(|record| record.backup_id == tip.backup_id);
            let chain = tip.map_or(Vec::new(), |tip| chain_of(tip, all));
            going.push(chain.len().saturating_sub(longest));
            chains.push(chain);
        }
        Self { all, chains, going }
    }

    fn keep_groups_whole(&mut self) {
        while let Some((number, place)) = self.held_up() {
            self.going[number] = place;
        }
    }

    /// A state that must not go, as one of its group is still in a chain on which the next backup builds.
    fn held_up(&self) -> Option<(usize, usize)> {
        let mut living = self.living();
        living.retain(|id| !self.states().any(|record| record.backup_id == *id));
        let is_held =
            |record: &&BackupRecord| mates(record, self.all).any(|mate| living.contains(&mate.backup_id));
        let place = |number: usize| self.chains[number][..self.going[number]].iter().position(is_held);
        (0..self.chains.len()).find_map(|number| Some((number, place(number)?)))
    }

    /// The states that go by the numbers.
    fn states(&self) -> impl Iterator<Item = &'a BackupRecord> {
        self.chains.iter().zip(&self.going).flat_map(|(chain, going)| chain[..*going].iter().copied())
    }

    /// What the next backup of each volume builds on.
    fn living(&self) -> BTreeSet<BackupId> {
        let is_newest = |record: &&BackupRecord| {
            let newer =
                |other: &BackupRecord| other.volume == record.volume && other.sequence > record.sequence;
            !self.all.iter().any(newer)
        };
        let tips = self.all.iter().filter(is_newest);
        tips.flat_map(|tip| chain_of(tip, self.all)).map(|record| record.backup_id).collect()
    }

    /// Those that really go: no pin, nothing that builds on them and no one of their group keeps them.
    fn leaving(&self) -> BTreeSet<BackupId> {
        let merged_into = |id: &BackupId| {
            let mut ends = self.chains.iter().zip(&self.going).filter(|(_, going)| **going > 0);
            ends.any(|(chain, going)| chain[*going].backup_id == *id)
        };
        let mut leaving: BTreeSet<BackupId> =
            self.states().filter(|record| !record.is_pinned()).map(|record| record.backup_id).collect();
        loop {
            let stays = |other: &BackupRecord| !leaving.contains(&other.backup_id);
            let child_stays = |record: &BackupRecord| {
                self.all
                    .iter()
                    .any(|child| is_parent(record, child) && stays(child) && !merged_into(&child.backup_id))
            };
            let kept = self
                .states()
                .find(|record| !stays(record) && (child_stays(record) || mates(record, self.all).any(stays)));
            match kept {
                Some(record) => leaving.remove(&record.backup_id),
                None => return leaving,
            };
        }
    }
}

/// A backup and what it builds on, oldest first.
fn chain_of<'a>(tip: &'a BackupRecord, all: &'a [BackupRecord]) -> Vec<&'a BackupRecord> {
    let below = |child: &&'a BackupRecord| all.iter().find(|record| is_parent(record, child));
    let mut chain: Vec<&BackupRecord> = std::iter::successors(Some(tip), below).collect();
    chain.reverse();
    chain
}
