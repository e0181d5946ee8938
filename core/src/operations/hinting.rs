//! Which hint a run uses and why; and what happens when it is proven wrong.
//!
//! A hint holds for one parent only: the state of the newest backup (the baseline). Against any other parent the blocks
//! that differ between that one and the baseline are read as well. Any doubt about a hint ends it before the run, with
//! the reason in the result; a block that contradicts it ends it during the run, and everything is read.

use std::path::PathBuf;

use super::plan::Skipping;
use super::tracking::{Tracked, has_holes};
use crate::backup_id::{BackupId, BackupRecord, HintReport, Sequence};
use crate::digest::{BLOCKS_PER_PAGE, BlockDigest, RootDigest};
use crate::error::Result;
use crate::format::manifest::{ENTRY_LEN, ManifestHeader, TableEntry};
use crate::geometry::{BlockIndex, Geometry};
use crate::hint::block_set::BlockSet;
use crate::hint::proof::{MapPlan, Proof};
use crate::hint::{ChangeMap, map_file};
use crate::manifest::working::WorkingManifest;
use crate::repository::chain::ChainTable;
use crate::snapshot::{NoHint, Snapshot};
use crate::source::Source;

/// Where hints may come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HintChoice {
    /// From the storage layer: the snapshot that is the baseline, else the holes of a file.
    #[default]
    Auto,
    /// Every block is read.
    Off,
    /// A map file: what may have changed since the newest backup (or the manifest of a scan).
    File(PathBuf),
}

impl std::str::FromStr for HintChoice {
    type Err = std::convert::Infallible;

    /// `auto`, `off`, or the path of a map.
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "off" => Self::Off,
            path => Self::File(path.into()),
        })
    }
}

/// What a hint is to hold for.
pub(super) struct Situation<'a> {
    pub source: &'a dyn Source,
    pub geometry: Geometry,
    /// The volume is another one than before.
    pub new_identity: bool,
    /// The state that the run builds on.
    pub parent: Option<&'a WorkingManifest>,
    /// The table of the newest backup, when the parent is another one.
    pub baseline: Option<ChainTable>,
    /// What is known of the baseline.
    pub baseline_state: Option<BaselineState>,
    /// The newest backup and the snapshot that is read now.
    pub snapshot: Option<(&'a dyn Snapshot, Option<&'a BackupRecord>)>,
    pub sequence: Sequence,
    /// Blocks whose stored bytes in the parent are damaged: they are read whatever is known of them.
    pub damaged: Option<&'a BlockSet>,
}

/// The state that a map is about.
#[derive(Debug, Clone)]
pub(super) struct BaselineState {
    pub root: RootDigest,
    pub size: u64,
    /// The backup that holds it; a scan has none.
    pub backup_id: Option<BackupId>,
}

/// The hint of a run.
pub(super) struct Hinting {
    chosen: Chosen,
    kind: String,
    reason: String,
    rolling_runs: u32,
    /// The root that a map promises.
    promised_root: Option<String>,
}

enum Chosen {
    Nothing,
    Holes,
    Unmapped(BlockSet),
    Map(MapPlan),
}

impl Hinting {
    fn none(reason: impl Into<String>) -> Self {
        Self::of(Chosen::Nothing, "none", reason)
    }

    fn of(chosen: Chosen, kind: &str, reason: impl Into<String>) -> Self {
        Self { chosen, kind: kind.to_owned(), reason: reason.into(), rolling_runs: 0, promised_root: None }
    }

    /// Picks the hint. A map file that cannot be read is an error; any doubt about a hint is a reason to read everything.
    pub fn choose(choice: &HintChoice, proof: Proof, mut situation: Situation<'_>) -> Result<Self> {
        if *choice == HintChoice::Off {
            return Ok(Self::none("hints are off"));
        }
        if situation.new_identity {
            // What is known of the old volume says nothing of this one.
            return Ok(Self::none("the volume has a new identity"));
        }
        let mut map = ChangeMap::new(situation.geometry);
        let found = match choice {
            HintChoice::File(path) => from_file(path, &situation, &mut map)?,
            _ => from_snapshot(&situation, &mut map)?,
        };
        let because = match found {
            Some(Ok(map_hint)) => match situation.parent {
                Some(parent) => {
                    let (must, doubted) = must_read(&mut situation, parent, &map, proof)?;
                    let plan = MapPlan::new(&must, &doubted, &map, proof, situation.sequence);
                    return Ok(Self {
                        rolling_runs: proof.rolling_runs,
                        promised_root: map_hint.promised_root,
                        ..Self::of(Chosen::Map(plan), &map_hint.kind, map_hint.reason)
                    });
                }
                None => "a full backup reads everything".into(),
            },
            Some(Err(NoHint(reason))) => {
                if let Some(mapped) = mapped_blocks(&situation)? {
                    let reason = format!("{reason}, but for what nothing is mapped to");
                    return Ok(Self::of(Chosen::Unmapped(mapped), "unmapped", reason));
                }
                reason
            }
            None if has_holes(situation.source)? => {
                let reason = "the file has holes; those without data in the parent were not read";
                return Ok(Self::of(Chosen::Holes, "holes", reason));
            }
            None => "the source tells nothing about changes; every block was read".into(),
        };
        Ok(Self::none(because))
    }

    fn skipping(&self) -> Skipping<'_> {
        match &self.chosen {
            Chosen::Nothing => Skipping::Nothing,
            Chosen::Holes => Skipping::Holes,
            Chosen::Unmapped(mapped) => Skipping::Unmapped(mapped),
            Chosen::Map(plan) => Skipping::Map(plan),
        }
    }

    /// Whether every block is read.
    pub fn reads_all(&self) -> bool {
        matches!(self.chosen, Chosen::Nothing)
    }

    /// Runs `pass`; when a block contradicts the hint, once more without it. Returns the alarm too.
    pub fn track<T>(
        &mut self,
        mut pass: impl FnMut(Skipping<'_>, bool) -> Result<(Tracked, T)>,
    ) -> Result<(Tracked, T, Option<String>)> {
        let (tracked, made) = pass(self.skipping(), self.reads_all())?;
        let Some(alarm) = self.proven_wrong(&tracked) else { return Ok((tracked, made, None)) };
        *self = Self::none(alarm.as_str());
        let (tracked, made) = pass(Skipping::Nothing, true)?;
        Ok((tracked, made, Some(alarm)))
    }

    fn proven_wrong(&self, tracked: &Tracked) -> Option<String> {
        let kind = &self.kind;
        let what = match (&self.chosen, tracked.lie, &self.promised_root) {
            (Chosen::Holes | Chosen::Unmapped(_), Some(offset), _) => {
                format!("offset {offset} was called a hole and it holds data")
            }
            (_, Some(offset), _) => {
                format!("the hint ({kind}) calls offset {offset} unchanged and it differs from the parent")
            }
            (_, None, Some(root)) if *root != tracked.root.to_string() => {
                format!("the hint ({kind}) was made for another state than the one that was read")
            }
            _ => return None,
        };
        Some(format!("{what}: read in full instead"))
    }

    /// For the record and the result.
    pub fn report(&self, tracked: &Tracked) -> HintReport {
        HintReport {
            kind: self.kind.clone(),
            reason: self.reason.clone(),
            sampled_blocks: tracked.proofs.0,
            rolling_blocks: tracked.proofs.1,
            rolling_runs: self.rolling_runs,
        }
    }
}

/// What is told of a change map that is used.
struct MapHint {
    kind: String,
    reason: String,
    promised_root: Option<String>,
}

/// A hint, or why there is none.
type Found = Option<std::result::Result<MapHint, NoHint>>;

fn from_file(path: &std::path::Path, situation: &Situation<'_>, map: &mut ChangeMap) -> Result<Found> {
    let binding = map_file::read(path, map)?;
    let Some(baseline) = &situation.baseline_state else {
        return Ok(Some(Err(NoHint("a map needs a backup that it is about; everything was read".into()))));
    };
    let another_root = binding.parent_root.is_some_and(|root| root != baseline.root.to_string());
    let id = baseline.backup_id.map(|id| id.to_string());
    if another_root || binding.parent_backup.is_some_and(|wanted| id != Some(wanted)) {
        let reason = "the map was made against another state than the newest backup; everything was read";
        return Ok(Some(Err(NoHint(reason.into()))));
    }
    let sizes = [baseline.size, situation.geometry.volume_size()];
    if binding.volume_size.is_some_and(|wanted| !sizes.contains(&wanted)) {
        return Ok(Some(Err(NoHint("the map is of a volume of another size; everything was read".into()))));
    }
    Ok(Some(Ok(MapHint {
        kind: binding.form.to_owned(),
        reason: format!("{} says what may have changed", path.display()),
        promised_root: binding.root,
    })))
}

fn from_snapshot(situation: &Situation<'_>, map: &mut ChangeMap) -> Result<Found> {
    let Some((snapshot, newest)) = situation.snapshot else { return Ok(None) };
    let no_hint = |reason: &str| Ok(Some(Err(NoHint(format!("{reason}; everything was read")))));
    let Some(newest) = newest else { return no_hint("there is no backup before this one") };
    let Some(baseline) = newest.baseline() else {
        return no_hint("the newest backup has left no snapshot to compare with");
    };
    if baseline.kind != snapshot.record().kind {
        return no_hint("the newest backup's snapshot is of another kind");
    }
    if situation.parent.is_none() {
        return no_hint("a full backup");
    }
    Ok(Some(match snapshot.changes_since(baseline, map)? {
        Ok(()) => Ok(MapHint {
            kind: baseline.kind.clone(),
            reason: format!("compared with snapshot {}", baseline.name),
            promised_root: None,
        }),
        Err(NoHint(reason)) => Err(NoHint(format!("{reason}; everything was read"))),
    }))
}

/// What the snapshot's layer maps to data: without a better hint the rest need not be read where the parent has no data.
fn mapped_blocks(situation: &Situation<'_>) -> Result<Option<BlockSet>> {
    let Some((snapshot, _)) = situation.snapshot else { return Ok(None) };
    let mut map = ChangeMap::new(situation.geometry);
    let told = snapshot.mapped(&mut map)?;
    Ok(told.ok().and_then(|()| map.into_mapped()))
}

/// Blocks that must be read whatever the map says, and those that must prove it: their last proof is too old, or nothing
/// is mapped to them where the parent has data.
fn must_read(
    situation: &mut Situation<'_>,
    parent: &WorkingManifest,
    map: &ChangeMap,
    proof: Proof,
) -> Result<(BlockSet, BlockSet)> {
    let geometry = situation.geometry;
    let blocks = geometry.block_count();
    let mut must = BlockSet::none(blocks);
    let mut doubted = BlockSet::none(blocks);
    let mut shared = geometry.shared_blocks(&parent.header().geometry);
    if let Some(baseline) = &situation.baseline_state {
        shared = shared.min(geometry.shared_blocks(&geometry.resized(baseline.size)?));
    }
    must.insert(shared..blocks);
    if let Some(damaged) = situation.damaged {
        (0..blocks).filter(|index| damaged.contains(*index)).for_each(|index| must.insert(index..index + 1));
    }
    let too_old = situation.sequence.saturating_sub(proof.rolling_runs.saturating_mul(2));
    let scanned = parent.header().scanned_sequence;
    for number in 0..ManifestHeader::page_count(&geometry) {
        let first = number * BLOCKS_PER_PAGE;
        let page = parent.page(number)?;
        for (index, bytes) in (first..shared).zip(page.chunks_exact(ENTRY_LEN)) {
            let entry = TableEntry::decode(bytes)?;
            if entry.digest == BlockDigest::UNKNOWN || differs(situation, index, &entry)? {
                must.insert(index..index + 1);
            } else if map.is_unmapped(index) {
                if entry.digest != BlockDigest::ZERO {
                    doubted.insert(index..index + 1);
                }
            } else if proof.rolling_runs > 0 && entry.last_read.max(scanned) < too_old {
                doubted.insert(index..index + 1);
            }
        }
    }
    Ok((must, doubted))
}

fn differs(situation: &mut Situation<'_>, index: BlockIndex, entry: &TableEntry) -> Result<bool> {
    match &mut situation.baseline {
        Some(baseline) => Ok(!baseline.entry(index)?.digest.same(&entry.digest)),
        None => Ok(false),
    }
}
