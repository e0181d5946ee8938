//! What this host remembers of a repository, in a folder of its local state named after the repository's id: the newest
//! backup of each volume and the head of the audit log that it has seen, and the records it has read.
//!
//! ```text
//! STATE/REPOSITORY/seen.json        what `rollback` compares with
//! STATE/REPOSITORY/VOLUME.catalog   records by object name and stamp: one listing tells which of them still hold
//! ```
//! Losing it is no harm but one: a host that has seen nothing cannot know that a repository went back to an older state.
//! What cannot be read here passes for lost; what cannot be written is passed over, for whoever may only read must be able to.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Repository;
use super::layout::encode_volume;
use crate::backup_id::{AuditHead, BackupId, BackupRecord, Sequence};
use crate::digest::RootDigest;
use crate::error::{Error, Result};
use crate::format::record;
use crate::storage::local::replace_cache;

/// Version of the documents here; others pass for lost.
const SCHEMA_VERSION: u32 = 1;
const SEEN: &str = "seen.json";

/// The newest backup of a volume that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenVolume {
    pub sequence: Sequence,
    pub backup_id: BackupId,
    pub root: RootDigest,
    /// Number of the audit log's newest entry then.
    pub audit: u32,
}

/// What was seen of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    schema_version: u32,
    pub audit: Option<AuditHead>,
    pub volumes: BTreeMap<String, SeenVolume>,
}

impl Seen {
    /// Takes over whatever is newer in `other`.
    fn merge(&mut self, other: &Self) {
        let number = |head: &Option<AuditHead>| head.as_ref().map_or(0, |head| head.number);
        if number(&other.audit) > number(&self.audit) {
            self.audit.clone_from(&other.audit);
        }
        for (volume, theirs) in &other.volumes {
            let ours = self.volumes.entry(volume.clone()).or_insert_with(|| theirs.clone());
            if (theirs.sequence, theirs.audit) > (ours.sequence, ours.audit) {
                *ours = theirs.clone();
            }
        }
    }
}

/// A record that was read before, and what the storage said of its object then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KnownRecord {
    pub stamp: String,
    pub record: BackupRecord,
}

/// Records of a volume by their objects' names.
pub(super) type KnownRecords = HashMap<String, KnownRecord>;

#[derive(Serialize, Deserialize)]
struct CatalogDocument<T> {
    schema_version: u32,
    records: T,
}

/// The memory of one repository; shared by all clones of it.
pub(super) struct Memory {
    folder: PathBuf,
    state: Mutex<State>,
    catalogs: Mutex<BTreeMap<String, Arc<KnownRecords>>>,
}

struct State {
    seen: Seen,
    /// The audit log's head that is known to be there, in this process.
    head: Option<AuditHead>,
    /// The repository contradicts what was seen: nothing is learnt from it.
    doubted: bool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Repository {
    /// Where this host keeps what belongs to the repository, below the folder of all local state.
    #[must_use]
    pub fn local_folder(&self, state: &Path) -> PathBuf {
        state.join(self.config().repository_id.to_string())
    }

    /// The same repository, with what this host remembers of it below `state`.
    #[must_use]
    pub fn remembering(&self, state: &Path) -> Self {
        let folder = self.local_folder(state);
        if self.memory.as_ref().is_some_and(|memory| memory.folder == folder) {
            return self.clone();
        }
        Self { memory: Some(Arc::new(Memory::open(folder))), ..self.clone() }
    }

    /// The head of the audit log that this host has seen, if that entry is still there.
    pub(super) fn remembered_head(&self) -> Result<Option<AuditHead>> {
        let Some(memory) = &self.memory else { return Ok(None) };
        let state = held(&memory.state);
        if state.head.is_some() {
            return Ok(state.head.clone());
        }
        let seen = state.seen.audit.clone();
        drop(state);
        let Some(seen) = seen else { return Ok(None) };
        let now = self.audit_head_at(seen.number)?;
        Ok(now.filter(|now| *now == seen))
    }

    /// Learns of a newer head.
    pub(super) fn remember_head(&self, head: &AuditHead) {
        let Some(memory) = &self.memory else { return };
        let mut state = held(&memory.state);
        state.head = Some(head.clone());
        if !state.doubted {
            let news = Seen { audit: Some(head.clone()), ..Seen::default() };
            memory.learn(&mut state, &news);
        }
    }

    /// Learns of newer backups.
    pub(super) fn remember_backups<'a>(&self, newest: impl Iterator<Item = &'a BackupRecord>) {
        let Some(memory) = &self.memory else { return };
        let mut state = held(&memory.state);
        let audit = state.head.as_ref().map_or(0, |head| head.number);
        let of = |record: &BackupRecord| {
            let BackupRecord { sequence, backup_id, root, .. } = *record;
            (record.volume.clone(), SeenVolume { sequence, backup_id, root, audit })
        };
        let news = Seen { volumes: newest.map(of).collect(), audit: state.head.clone(), ..Seen::default() };
        if !state.doubted {
            memory.learn(&mut state, &news);
        }
    }
}

impl Memory {
    fn open(folder: PathBuf) -> Self {
        let seen = read(&folder.join(SEEN)).unwrap_or_default();
        let state = State { seen, head: None, doubted: false };
        Self { folder, state: Mutex::new(state), catalogs: Mutex::default() }
    }

    pub(super) fn seen(&self) -> Seen {
        held(&self.state).seen.clone()
    }

    /// From now on nothing is learnt: the repository is not the one that was seen.
    pub(super) fn doubt(&self) {
        held(&self.state).doubted = true;
    }

    /// Forgets what was seen.
    pub(super) fn forget(&self) -> Result<()> {
        *held(&self.state) = State { seen: Seen::default(), head: None, doubted: false };
        let path = self.folder.join(SEEN);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("removing", &path, source))
            }
            _ => Ok(()),
        }
    }

    /// Others may have learnt meanwhile: the newer of each is kept.
    fn learn(&self, state: &mut State, news: &Seen) {
        let mut seen = state.seen.clone();
        seen.merge(news);
        if seen == state.seen {
            return;
        }
        if let Some(others) = read::<Seen>(&self.folder.join(SEEN)) {
            seen.merge(&others);
        }
        seen.schema_version = SCHEMA_VERSION;
        self.write(SEEN, &seen);
        state.seen = seen;
    }

    /// Records of a volume that were read before.
    pub(super) fn known_records(&self, volume: &str) -> Arc<KnownRecords> {
        let mut catalogs = held(&self.catalogs);
        if let Some(known) = catalogs.get(volume) {
            return Arc::clone(known);
        }
        let file = catalog_file(volume).map(|name| self.folder.join(name));
        let document = file.ok().and_then(|file| read::<CatalogDocument<KnownRecords>>(&file));
        let document = document.filter(|document| document.schema_version == SCHEMA_VERSION);
        let known = Arc::new(document.map(|document| document.records).unwrap_or_default());
        catalogs.insert(volume.to_owned(), Arc::clone(&known));
        known
    }

    /// Keeps the records of a volume.
    pub(super) fn keep_records(&self, volume: &str, known: KnownRecords) {
        if let Ok(file) = catalog_file(volume) {
            self.write(&file, &CatalogDocument { schema_version: SCHEMA_VERSION, records: &known });
        }
        held(&self.catalogs).insert(volume.to_owned(), Arc::new(known));
    }

    fn write<T: Serialize>(&self, file: &str, document: &T) {
        let path = self.folder.join(file);
        let written = record::encode(document).and_then(|bytes| {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder)
                .map_err(|source| Error::io("making", &self.folder, source))?;
            // A torn file passes for lost: its digest tells.
            replace_cache(&path, &bytes)
        });
        if let Err(error) = written {
            tracing::debug!("{}", error.full_text());
        }
    }
}

fn catalog_file(volume: &str) -> Result<String> {
    Ok(format!("{}.catalog", encode_volume(volume)?))
}

/// `None` for what is not there or not whole: its digest tells.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    record::decode(&fs::read(path).ok()?).ok()
}
