//! An interrupted backup goes on: how far a run has come is noted beside the local state, and the next run of the same
//! unchanged source takes over what is durable.
//!
//! The source must be the same one for sure: a read-only snapshot with the same UUID (then it goes on by itself), or, when
//! the user asks for it, an image file or a read-only device whose size, times and identity are the same. What was stored
//! goes into a new object, so a key or a number that was used once is never used again. The note is a hint where to look,
//! and never believed: the old delta's header says what it is, and each of its frames and segments is proven.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::prepare::Prepared;
use crate::backup_id::Sequence;
use crate::delta::prefix::DeltaPrefix;
use crate::delta::writer::{Passed, Reached};
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::DeltaHeader;
use crate::geometry::BlockIndex;
use crate::local_state::notes::Note;
use crate::operations::taking_over::{Checkpoints, TakenOver};
use crate::repository::Repository;

const KIND: &str = "checkpoint";
const VERSION: u32 = 1;

/// What must be the same for a run to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMark {
    /// The same as long as the source cannot have changed.
    pub text: String,
    /// Nobody needs to be asked: it is a read-only snapshot.
    pub automatic: bool,
}

/// How far a run has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    version: u32,
    source: SourceMark,
    sequence: Sequence,
    taken_at: Timestamp,
    /// Every block was read, none was passed on a hint.
    read_all: bool,
    /// Names of the delta while it is written, and when it is whole.
    pub unfinished: String,
    pub delta: String,
    /// Bytes of it that are durable; they end behind an index segment.
    len: u64,
    /// All blocks before this one are in them, as far as they changed.
    next: BlockIndex,
}

/// The note of this volume.
pub fn note(state: &Path, repository: &Repository, volume: &str) -> Result<Note> {
    Note::new(state, repository, volume, KIND)
}

/// What is noted, if anything.
pub fn noted(note: &Note) -> Option<Checkpoint> {
    let found: Option<Checkpoint> = note.path().exists().then(|| note.read()).flatten();
    found.filter(|found| found.version == VERSION)
}

/// What an interrupted run has left, proven to be of this very backup.
pub struct Left {
    prefix: DeltaPrefix,
    /// Name of its delta. Storage may have had to give what was unfinished this name to read it.
    pub delta: String,
    next: BlockIndex,
    pub read_all: bool,
    pub taken_at: Timestamp,
}

impl Left {
    pub fn taken_over(&self) -> TakenOver<'_> {
        TakenOver { prefix: &self.prefix, next: self.next, read_all: self.read_all }
    }

    /// The first block that was not passed.
    pub fn next(&self) -> BlockIndex {
        self.next
    }
}

/// Looks whether the run can go on from what is noted; `Err` in the inner result says why it cannot and begins anew.
pub fn look(
    prepared: &Prepared<'_>,
    found: &Checkpoint,
    mark: Option<&SourceMark>,
    header: &DeltaHeader,
) -> Result<std::result::Result<Left, String>> {
    let resume = prepared.options.resume;
    if mark != Some(&found.source) {
        if resume {
            return Err(refused(prepared));
        }
        return Ok(Err("the source may have changed since".to_owned()));
    }
    if !resume && !found.source.automatic {
        return Ok(Err("--resume was not given".to_owned()));
    }
    if found.sequence != prepared.sequence {
        return Ok(Err("another backup was made since".to_owned()));
    }
    let storage = prepared.repository.storage();
    let object =
        storage.open_unfinished(&found.unfinished, &found.delta).or_else(|error| match error.kind() {
            ErrorKind::NotFound => storage.open(&found.delta),
            _ => Err(error),
        });
    let prefix = object.and_then(|object| DeltaPrefix::open(object, found.len));
    let prefix = match prefix {
        Err(error) if error.kind() == ErrorKind::NotFound || error.is_damage() => {
            return Ok(Err(format!("what it had stored is not there or damaged ({})", error.full_text())));
        }
        other => other?,
    };
    if prefix.header() != header {
        return Ok(Err("it was another kind of backup, or built on another one".to_owned()));
    }
    let Checkpoint { ref delta, next, read_all, taken_at, .. } = *found;
    Ok(Ok(Left { prefix, delta: delta.clone(), next, read_all, taken_at }))
}

/// A smeared image must not come of it, whatever the user says.
pub fn refused(prepared: &Prepared<'_>) -> Error {
    Error::new(ErrorKind::Refused, "the source may have changed since the backup was interrupted")
        .path(&prepared.options.source)
        .hint("run it again without --resume: it reads everything and stores what changed")
}

/// The marks that a run leaves.
pub struct Marks {
    note: Note,
    /// What they say beside how far the run has come; none when nobody may go on from it.
    template: Mutex<Option<Checkpoint>>,
    saved: AtomicU64,
    /// Names of the unfinished objects that outlive this run.
    made: Mutex<BTreeSet<String>>,
}

impl Marks {
    pub fn new(note: Note) -> Self {
        Self { note, template: Mutex::default(), saved: AtomicU64::new(0), made: Mutex::default() }
    }

    /// A pass begins that writes this delta.
    pub fn begin(
        &self,
        prepared: &Prepared<'_>,
        source: &SourceMark,
        taken_at: Timestamp,
        delta: &str,
        read_all: bool,
    ) {
        self.saved.store(0, Ordering::Release);
        *self.template.lock().unwrap_or_else(PoisonError::into_inner) = Some(Checkpoint {
            version: VERSION,
            source: source.clone(),
            sequence: prepared.sequence,
            taken_at,
            read_all,
            unfinished: String::new(),
            delta: delta.to_owned(),
            len: 0,
            next: 0,
        });
    }
}

impl Checkpoints for Marks {
    fn save(&self, reached: Reached) {
        if let Some(name) = reached.unfinished {
            self.write(reached.durable, &name);
        }
        self.saved.store(reached.last, Ordering::Release);
    }

    fn saved(&self) -> BlockIndex {
        self.saved.load(Ordering::Acquire)
    }

    fn forget(&self) {
        *self.template.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Err(error) = self.note.remove() {
            tracing::warn!(%error, "the note of an interrupted backup stays");
        }
    }
}

impl Marks {
    fn write(&self, durable: Option<Passed>, name: &str) {
        let mut template = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(checkpoint) = &mut *template else { return };
        let folder = checkpoint.delta.rsplit_once('/').map_or("", |(folder, _)| folder);
        checkpoint.unfinished = format!("{folder}/{name}");
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(checkpoint.unfinished.clone());
        let Some(Passed { len, next }) = durable else { return };
        (checkpoint.len, checkpoint.next) = (len, next);
        if let Err(error) = self.note.write(checkpoint) {
            tracing::debug!(%error, "how far the backup has come is not noted");
        }
    }
}

impl Marks {
    /// Nobody goes on any more: the note goes, then what this run and the one before it left unfinished.
    pub fn clear(&self, prepared: &Prepared<'_>) {
        if let Err(error) = self.note.remove() {
            tracing::warn!(%error, "the note of an interrupted backup stays");
            return;
        }
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let before = prepared.checkpoint.iter().map(|checkpoint| &checkpoint.unfinished);
        before.chain(made.iter()).for_each(|name| prepared.publisher.discard_unfinished(name));
    }
}
