//! A small encrypted repository in memory, of which every stored byte is known.

use std::sync::Arc;

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::{Error, Result};
use blkdelta_core::format::key_slot::Cost;
use blkdelta_core::format::repository_config::Compression;
use blkdelta_core::operations::backup::{BackupOptions, WantedKind, backup};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::merge::{MergeOptions, merge};
use blkdelta_core::operations::verify::{VerifyOptions, VerifyReport, verify};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::keys::SlotOptions;
use blkdelta_core::repository::{InitOptions, Repository};
use blkdelta_core::storage::Storage;
use blkdelta_core::storage::memory::MemoryStorage;
use support::scratch::{Scratch, write};

use crate::faults::journal::{Journal, Step};

/// The volume's name, and a text that its bytes, tags and notes hold.
pub const VOLUME: &str = "db";
pub const MARKER: &str = "a marker that nobody but us may read";

/// The least that Argon2id can cost.
pub fn cheap(note: &str) -> SlotOptions {
    SlotOptions { note: note.to_owned(), cost: Cost { memory_kib: 8, passes: 1, lanes: 1 } }
}

pub fn passphrase(text: &str) -> Secret {
    Secret::passphrase(text.as_bytes()).unwrap()
}

/// Nothing is compressed, so that a marker in clear would be found.
pub fn format() -> InitOptions {
    InitOptions {
        block_size: 64 << 10,
        grain_size: 4 << 10,
        compression: Compression::None,
        ..InitOptions::default()
    }
}

/// The bytes of a state: three grains, of which one changes.
pub fn state(generation: u32) -> Vec<u8> {
    let mut bytes = vec![0; 3 * 4096 + 100];
    for (number, grain) in bytes.chunks_mut(4096).enumerate() {
        let line = format!("{MARKER}: grain {number}\n");
        grain[..line.len()].copy_from_slice(line.as_bytes());
    }
    bytes[4096 + 200..4096 + 204].copy_from_slice(&generation.to_le_bytes());
    bytes
}

/// A repository with three backups and tags that were changed later.
pub struct Victim {
    pub scratch: Scratch,
    pub journal: Journal,
    pub repository: Repository,
}

impl Victim {
    pub fn encrypted() -> Self {
        let journal = Journal::new();
        let repository =
            Repository::init_encrypted(Arc::new(journal.clone()), format(), &passphrase("right"), &cheap(""))
                .unwrap();
        Self::filled(journal, repository)
    }

    /// The same in clear, to show that a test would find what it looks for.
    pub fn in_clear() -> Self {
        let journal = Journal::new();
        let repository = Repository::init(Arc::new(journal.clone()), format()).unwrap();
        Self::filled(journal, repository)
    }

    fn filled(journal: Journal, repository: Repository) -> Self {
        let victim = Self { scratch: Scratch::new(), journal, repository };
        for generation in 1..=3 {
            victim.backup(generation).unwrap();
        }
        let newest = victim.repository.resolve("latest", None, None).unwrap();
        victim.repository.change_tags(&newest, &[format!("{MARKER}, again")], &[]).unwrap();
        victim
    }

    /// Backs this state up.
    pub fn backup(&self, generation: u32) -> Result<()> {
        self.backup_to(&self.repository, generation)
    }

    pub fn backup_to(&self, repository: &Repository, generation: u32) -> Result<()> {
        let image = self.scratch.path("image");
        write(&image, &state(generation));
        let options = BackupOptions {
            volume: Some(VOLUME.to_owned()),
            kind: WantedKind::Auto,
            gentleness: Gentleness::full_speed(),
            tags: vec![MARKER.to_owned()],
            ..BackupOptions::new(&image, self.scratch.path("state"))
        };
        backup(repository, &options, &Progress::new(), &CancelToken::new()).map(drop)
    }

    /// Merges all into a full.
    pub fn merge(&self) {
        let last = self.repository.resolve("latest", None, None).unwrap();
        let options = MergeOptions {
            last,
            first: None,
            compression: None,
            gentleness: Gentleness::full_speed(),
            state: self.scratch.path("state"),
        };
        merge(&self.repository, &options, &Progress::new(), &CancelToken::new()).unwrap();
    }

    /// What is stored now: name and bytes.
    pub fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let storage = Journal::replay(&self.journal.steps());
        self.journal
            .names()
            .into_iter()
            .map(|name| (name.clone(), blkdelta_core::storage::read_small(&storage, &name, 1 << 24).unwrap()))
            .collect()
    }

    /// Everything that was ever stored.
    pub fn ever_stored(&self) -> Vec<(String, Vec<u8>)> {
        let puts = self.journal.steps().into_iter().filter_map(|step| match step {
            Step::Put(name, bytes) => Some((name, bytes)),
            Step::Remove(_) => None,
        });
        puts.collect()
    }

    /// The storage with some objects exchanged.
    pub fn with(&self, changed: &[(&str, &[u8])]) -> Arc<MemoryStorage> {
        let storage = MemoryStorage::new();
        for (name, bytes) in self.objects() {
            let other = changed.iter().find(|(changed, _)| *changed == name);
            storage.put_new(&name, other.map_or(&bytes[..], |(_, bytes)| bytes)).unwrap();
        }
        Arc::new(storage)
    }
}

/// All that `verify --data` has to say.
pub fn verified(repository: &Repository) -> VerifyReport {
    let catalog = repository.catalog(None).unwrap();
    let mut unreadable: Vec<Error> = catalog.damaged;
    unreadable.extend(catalog.damaged_tags);
    let (progress, cancel) = (Progress::new(), CancelToken::new());
    let options =
        VerifyOptions { data: true, gentleness: Gentleness::full_speed(), ..VerifyOptions::default() };
    verify(repository, &catalog.records, &unreadable, &options, &progress, &cancel).unwrap()
}
