//! Local state: the newest manifest with both tables, a cache beside the repository.
//!
//! It is brought from one backup to the next by rolling it forward from what the repository holds: the table pages of
//! the backup's manifest and the grain digests of its delta's index, never data. The same roll serves the ordinary run
//! (after its record has committed), a state that is older than the newest record, one that is lost (rolled from the
//! full on), and one whose roll was interrupted: every step writes absolute values, so doing it twice is harmless.
//! Losing it costs a read of the chain's indexes, nothing else.

pub mod notes;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::backup_id::BackupRecord;
use crate::digest::GrainDigest;
use crate::error::{Error, ErrorKind, Result};
use crate::format::index::{GrainsEntry, IndexEntry};
use crate::format::manifest::{Form, ManifestHeader};
use crate::geometry::to_usize;
use crate::manifest::working::{self, WorkingManifest};
use crate::repository::Repository;
use crate::repository::chain::Chain;
use crate::repository::layout::encode_volume;
use crate::storage::local::remove_unfinished;
use crate::sys::faults;
use crate::sys::files::FileLock;
use crate::sys::host;

/// Where the state of this machine's user is kept: BLKDELTA_STATE, else as root /var/lib/blkdelta, else
/// $XDG_STATE_HOME/blkdelta, else ~/.local/state/blkdelta.
///
/// # Errors
/// `WrongUse` when none of these is to be had.
pub fn default_folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("BLKDELTA_STATE") {
        return Ok(folder);
    }
    if host::is_root() {
        return Ok("/var/lib/blkdelta".into());
    }
    let home = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    home.map(|home| home.join("blkdelta")).ok_or_else(|| {
        Error::new(ErrorKind::WrongUse, "there is no folder for local state").hint("set BLKDELTA_STATE")
    })
}

/// Where one volume's state of one repository is kept.
pub struct LocalState {
    path: PathBuf,
    /// Copies of a repository share its id and so its state; their own locks do not keep their runs apart.
    _lock: Option<FileLock>,
}

impl LocalState {
    /// Below `base`, in a folder named after the repository's id.
    pub fn new(base: &Path, repository: &Repository, volume: &str) -> Result<Self> {
        let folder = notes::folder(base, repository)?;
        let path = folder.join(format!("{}.manifest", encode_volume(volume)?));
        let lock = lock(&path.with_extension("lock"))?;
        Ok(Self { path, _lock: Some(lock) })
    }

    /// The folder, for spool files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// The working manifest of a chain's tip: as it is, rolled forward, or rebuilt.
    pub fn at(&self, repository: &Repository, chain: &Chain) -> Result<WorkingManifest> {
        let tip = chain.tip();
        match WorkingManifest::open(&self.path) {
            Ok(state) if is_state_of(&state, tip) => return Ok(state),
            Ok(_) => {}
            Err(error) => tracing::info!(%error, "the local state cannot be used as it is"),
        }
        self.catch_up(repository, chain).or_else(|error| {
            tracing::info!(%error, "rebuilding the local state from the repository");
            let records: Vec<&BackupRecord> = chain.records().iter().rev().collect();
            self.roll(repository, None, &records)
        })
    }

    /// The working manifest of a chain's tip beside the newest one, for a run whose parent is an older backup.
    pub fn aside(&self, repository: &Repository, chain: &Chain) -> Result<(Self, WorkingManifest)> {
        let aside = Self { path: self.path.with_extension("parent"), _lock: None };
        let records: Vec<&BackupRecord> = chain.records().iter().rev().collect();
        let state = aside.roll(repository, None, &records)?;
        Ok((aside, state))
    }

    /// Takes the place of `other`.
    pub fn replace(self, other: &Self) -> Result<()> {
        faults::point("rename")
            .and_then(|()| std::fs::rename(&self.path, &other.path))
            .map_err(|source| Error::io("naming", &other.path, source))
    }

    /// Removes what a dead run left beside the state. The caller holds the volume's lock.
    pub fn remove_leftovers(&self) {
        remove_unfinished(self.folder());
        for extension in ["next", "parent", "resized"] {
            if let Err(error) = working::remove(&self.path.with_extension(extension)) {
                tracing::warn!(%error, "an unfinished local state stays; the next run removes it");
            }
        }
    }

    /// After a commit: from its parent's state to `record`'s.
    pub fn advance(
        &self,
        repository: &Repository,
        state: Option<WorkingManifest>,
        record: &BackupRecord,
    ) -> Result<()> {
        self.roll(repository, state, &[record]).map(drop)
    }

    /// Rolls a state forward that belongs to one of the tip's ancestors.
    fn catch_up(&self, repository: &Repository, chain: &Chain) -> Result<WorkingManifest> {
        let state = WorkingManifest::open_for_rolling(&self.path)?;
        let missing =
            chain.records().iter().take_while(|record| !is_state_of(&state, record)).collect::<Vec<_>>();
        if missing.is_empty() {
            // It says that it is the tip's state, and was refused as such: rolling nothing forward would prove nothing.
            return Err(Error::damaged("the local state is damaged").path(&self.path));
        }
        if missing.len() == chain.records().len() {
            return Err(
                Error::new(ErrorKind::WrongParent, "the local state is not of this chain").path(&self.path)
            );
        }
        self.roll(repository, Some(state), &missing.into_iter().rev().collect::<Vec<_>>())
    }

    /// Applies records, oldest first, to a state (or to nothing, when the first is a full).
    fn roll(
        &self,
        repository: &Repository,
        state: Option<WorkingManifest>,
        records: &[&BackupRecord],
    ) -> Result<WorkingManifest> {
        let next = self.path.with_extension("next");
        let mut state = state;
        let mut renamed = false;
        for record in records {
            let stored = repository.manifest(record)?;
            let header =
                ManifestHeader { form: Form::Working { unsettled: true }, ..stored.header().clone() };
            let mut rolled = match state {
                Some(mut same) if !stored.is_full() && same.header().geometry == header.geometry => {
                    same.unsettle()?;
                    same
                }
                Some(other) if !stored.is_full() => {
                    renamed = true;
                    let resized = other.resized(&self.path.with_extension("resized"), header)?;
                    resized.rename(&next)?
                }
                _ => {
                    renamed = true;
                    WorkingManifest::create(&next, header)?
                }
            };
            roll_one(repository, &mut rolled, record)?;
            rolled.settle(stored.header().clone())?;
            state = Some(rolled);
        }
        let state = state
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no state to start from").path(&self.path))?;
        if renamed { state.rename(&self.path) } else { Ok(state) }
    }
}

fn lock(path: &Path) -> Result<FileLock> {
    let problem = |source| Error::io("locking the local state", path, source);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = faults::point("open").and_then(|()| options.open(path)).map_err(problem)?;
    FileLock::try_lock(file).map_err(|(_, error)| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            Error::new(ErrorKind::Locked, "another run uses this volume's local state").path(path)
        }
        _ => problem(error),
    })
}

fn is_state_of(state: &WorkingManifest, record: &BackupRecord) -> bool {
    let header = state.header();
    (header.sequence, header.root) == (record.sequence, record.root)
        && header.geometry.volume_size() == record.size_bytes
        && header.identity == record.identity
}

fn roll_one(repository: &Repository, state: &mut WorkingManifest, record: &BackupRecord) -> Result<()> {
    let stored = repository.manifest(record)?;
    let delta = repository.delta(record)?;
    let mut cursor = delta.cursor();
    while let Some(entry) = cursor.next_entry()? {
        if let IndexEntry::Grains(entry) = entry {
            roll_run(state, &entry)?;
        }
    }
    for page in stored.pages() {
        if let Some(bytes) = stored.page(page)? {
            state.put_page(page, &bytes)?;
        }
    }
    Ok(())
}

/// Brings one block's grain run from the entry's old digest to its new one. A run that belongs to neither stays as it
/// is: its check will fail, and the block is stored whole next time.
fn roll_run(state: &WorkingManifest, entry: &GrainsEntry) -> Result<()> {
    let grains = to_usize(u64::from(entry.stored.capacity()));
    let mut run = if entry.whole {
        vec![GrainDigest::ZERO; grains]
    } else {
        match state.run(entry.index, &entry.old)? {
            Some(run) => run,
            None => return Ok(()),
        }
    };
    for grain in entry.zero.iter() {
        run[to_usize(u64::from(grain))] = GrainDigest::ZERO;
    }
    for (grain, digest) in entry.stored.iter().zip(&entry.digests) {
        run[to_usize(u64::from(grain))] = *digest;
    }
    state.put_run(entry.index, &entry.new, &run)
}
