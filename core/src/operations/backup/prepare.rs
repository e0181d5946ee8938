//! Before a backup: the volume's lock, its leftovers, its newest record; then the snapshot.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::BackupOptions;
use super::resuming::{self, Checkpoint, SourceMark};
use crate::backup_id::{BackupId, BackupRecord, Sequence, VolumeIdentity};
use crate::consistency::{Consistency, freeze};
use crate::error::{Error, ErrorKind, Result};
use crate::local_state::LocalState;
use crate::local_state::notes::Note;
use crate::repository::Repository;
use crate::repository::publish::Publisher;
use crate::repository::tags::check_tag;
use crate::snapshot::{self, Origin, Owner, Snapshot};
use crate::source::{self, Source};
use crate::sys::{block_device, host};

/// A volume whose lock is held and which is ready to be read.
pub struct Prepared<'a> {
    pub repository: &'a Repository,
    pub options: &'a BackupOptions,
    pub volume: String,
    pub owner: Owner,
    pub publisher: Publisher<'a>,
    pub state: LocalState,
    pub newest: Option<BackupRecord>,
    pub sequence: Sequence,
    pub id: BackupId,
    /// How far an interrupted run had come.
    pub note: Note,
    pub checkpoint: Option<Checkpoint>,
    origin: Option<Box<dyn Origin>>,
}

/// What is read, as it was at one moment. The source is closed before its snapshot goes.
pub struct Taken {
    pub source: Box<dyn Source>,
    pub snapshot: Option<Box<dyn Snapshot>>,
    /// Whether the snapshot may stay as baseline at hardly any cost.
    pub keeps_cheaply: bool,
    /// By which a later run would know that it is unchanged.
    pub mark: Option<SourceMark>,
    pub taken_at: Timestamp,
}

impl<'a> Prepared<'a> {
    pub fn new(repository: &'a Repository, options: &'a BackupOptions) -> Result<Self> {
        check_source(&options.source)?;
        options.tags.iter().try_for_each(|tag| check_tag(tag))?;
        let volume = options.volume.clone().unwrap_or_else(|| default_volume(&options.source));
        let note = resuming::note(&options.state, repository, &volume)?;
        let mut checkpoint = None;
        let publisher = repository.publisher_keeping(&volume, || {
            checkpoint = resuming::noted(&note);
            checkpoint.iter().map(|checkpoint| checkpoint.unfinished.clone()).collect()
        })?;
        let state = LocalState::new(&options.state, repository, &volume)?;
        state.remove_leftovers();
        let newest = repository.newest(&volume)?;
        let sequence = newest.as_ref().map_or(Ok(1), |newest| next_sequence(newest.sequence))?;
        let id = host::random_bytes()?;
        let origin = snapshot::origin(&options.source, options.snapshot)?;
        let owner = Owner::new(&repository.config().repository_id.to_string(), &volume);
        let prepared = Self {
            repository,
            options,
            volume,
            owner,
            publisher,
            state,
            newest,
            sequence,
            id: BackupId::from_bytes(id),
            note,
            checkpoint,
            origin,
        };
        if let Some(origin) = &prepared.origin {
            prepared.check_identity(origin.identity())?;
            prepared.sweep(prepared.newest.as_ref())?;
        }
        Ok(prepared)
    }

    /// Removes the snapshots of this volume but the baseline of `newest`.
    pub fn sweep(&self, newest: Option<&BackupRecord>) -> Result<()> {
        for name in snapshot::sweep(&self.owner.prefix(), newest.and_then(BackupRecord::baseline))? {
            tracing::info!(name, "removed a snapshot that is no longer needed");
        }
        Ok(())
    }

    /// Whether a layer below takes part, or did so for the newest backup: then there may be snapshots to be swept.
    pub fn may_have_snapshots(&self) -> bool {
        self.origin.is_some() || self.newest.as_ref().is_some_and(|newest| newest.snapshot.is_some())
    }

    /// Freezing a file system, or locking a database, for a source that is read as it is would be over before it is read.
    pub fn check_consistency(&self, consistency: &Consistency) -> Result<()> {
        let Some(origin) = &self.origin else {
            if !consistency.holds_writers() {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::WrongUse,
                "there is no snapshot that writers could be held back for",
            )
            .path(&self.options.source)
            .hint("name a logical volume or a zvol, or leave --freeze, --postgresql and --mysql out"));
        };
        match block_device::number_of(origin.device()) {
            Ok(Some(number)) if origin.freezes_itself() => {
                freeze::refuse_mounts_of(number, &consistency.freeze)
            }
            _ => Ok(()),
        }
    }

    /// Takes the snapshot, or opens the source as it is.
    pub fn take(&self) -> Result<Taken> {
        let Some(origin) = &self.origin else { return self.open_as_it_is() };
        let snapshot = origin.take(&self.owner.name(self.id), self.options.snapshot_size)?;
        snapshot.check()?;
        let identity = Some(origin.identity().clone());
        let source = source::open(snapshot.device(), self.options.allow_live, identity)?;
        let (taken_at, keeps_cheaply) = (snapshot.taken_at(), origin.keeps_cheaply());
        Ok(Taken { source, snapshot: Some(snapshot), keeps_cheaply, mark: None, taken_at })
    }

    fn open_as_it_is(&self) -> Result<Taken> {
        let brought = snapshot::brought(&self.options.source)?;
        let device = brought.as_ref().map_or(&self.options.source, |brought| &brought.device);
        let identity = brought.as_ref().map(|brought| brought.identity.clone());
        let source = source::open(device, self.options.allow_live, identity)?;
        self.check_identity(source.identity())?;
        let snapshot = brought.and_then(|brought| brought.read_only_snapshot);
        let mark = match snapshot {
            Some(text) => Some(SourceMark { text, automatic: true }),
            None => source.mark().map(|text| SourceMark { text, automatic: false }),
        };
        Ok(Taken { source, snapshot: None, keeps_cheaply: false, mark, taken_at: Timestamp::now() })
    }

    fn check_identity(&self, identity: &VolumeIdentity) -> Result<()> {
        let Some(newest) = &self.newest else { return Ok(()) };
        if newest.identity == *identity || self.options.new_identity {
            return Ok(());
        }
        let text = format!(
            "another volume is behind this path: '{}' is {}, this is {identity}",
            self.volume, newest.identity
        );
        Err(Error::new(ErrorKind::IdentityMismatch, text)
            .path(&self.options.source)
            .hint("check the path and --volume; --new-identity accepts it under this name from now on"))
    }
}

/// A mistyped path is told before anything is locked or made.
fn check_source(source: &Path) -> Result<()> {
    if snapshot::zfs_name(source).is_some() {
        return Ok(());
    }
    source::check(source).map(drop)
}

fn next_sequence(newest: u32) -> Result<u32> {
    newest.checked_add(1).ok_or_else(|| Error::new(ErrorKind::WrongUse, "the volume has too many backups"))
}

/// HOST/NAME, NAME being the last part of the path.
fn default_volume(source: &Path) -> String {
    let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{}/{name}", host::hostname())
}

/// The path as the record tells it.
pub fn told(source: &Path) -> String {
    match snapshot::zfs_name(source) {
        Some(_) => source.display().to_string(),
        None => std::path::absolute(source).unwrap_or_else(|_| PathBuf::from(source)).display().to_string(),
    }
}
