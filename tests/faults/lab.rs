//! The volume: an image of a little over 11 blocks whose states ("generations") are known byte by byte, and a repository
//! that can be put back to an earlier state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::cancel::CancelToken;
use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::{ErrorKind, Result};
use blkdelta_core::format::key_slot::Cost;
use blkdelta_core::operations::backup::{BackupOptions, BackupReport, WantedKind, backup};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::restore::{RestoreOptions, RestoreTarget, restore};
use blkdelta_core::operations::verify::{VerifyOptions, VerifyReport, verify};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::keys::SlotOptions;
use blkdelta_core::repository::{InitOptions, Repository};
use blkdelta_core::storage::local::LocalStorage;
use blkdelta_core::storage::{Storage, is_unfinished};
use tempfile::TempDir;

pub const BLOCK: usize = 64 << 10;
pub const GRAIN: usize = 4 << 10;
pub const VOLUME: &str = "host/db";

/// The formats that these tests use: small blocks, so that little data makes many of them.
pub fn format() -> InitOptions {
    InitOptions { block_size: 64 << 10, grain_size: 4 << 10, ..InitOptions::default() }
}

/// The bytes of a generation. Block 3 is always zero; block 7 is zero in odd generations; from one generation to the
/// next some grains of some blocks change; the last block is short, and generation 3 is longer than the others.
pub fn image(generation: u32) -> Arc<Vec<u8>> {
    static IMAGES: Mutex<BTreeMap<u32, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());
    let mut images = IMAGES.lock().unwrap();
    Arc::clone(images.entry(generation).or_insert_with(|| Arc::new(make_image(generation))))
}

fn make_image(generation: u32) -> Vec<u8> {
    let len = 11 * BLOCK + 513 + if generation == 3 { 100 << 10 } else { 0 };
    let mut bytes = vec![0; len];
    for (number, grain) in bytes.chunks_mut(GRAIN).enumerate() {
        let block = number * GRAIN / BLOCK;
        if block == 3 || (block == 7 && generation % 2 == 1) {
            continue;
        }
        let changed = (block % 4 == 1 && number % 5 == 0) || block == 11;
        fill(grain, number as u64 + if changed { u64::from(generation) << 32 } else { 0 });
    }
    bytes
}

/// Bytes that differ for each seed; in every fourth grain they do not compress.
fn fill(grain: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for piece in grain.chunks_mut(8) {
        if seed.is_multiple_of(4) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        piece.copy_from_slice(&state.to_le_bytes()[..piece.len()]);
    }
}

/// All files below a folder, by path relative to it.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A folder with image, repository and local state.
pub struct Lab {
    folder: TempDir,
    /// What opens the repository, if it is encrypted.
    secret: Option<Secret>,
}

impl Lab {
    /// With an empty repository and the image at generation 1.
    pub fn new() -> Self {
        Self::with_secret(None)
    }

    /// The same, encrypted.
    pub fn encrypted() -> Self {
        Self::with_secret(Some(Secret::passphrase(b"secret").unwrap()))
    }

    fn with_secret(secret: Option<Secret>) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap(), secret };
        lab.write_image(1);
        match &lab.secret {
            None => Repository::init_local(&lab.path("repo"), format()).unwrap(),
            Some(secret) => {
                let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
                let slot = SlotOptions { cost, ..SlotOptions::default() };
                Repository::init_encrypted(lab.storage(), format(), secret, &slot).unwrap()
            }
        };
        lab
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(LocalStorage::new(self.path("repo")))
    }

    /// With this many backups: a full of generation 1, incrementals of 2, 3, ...
    pub fn with_backups(count: u32) -> Self {
        Self::new().and_backups(count)
    }

    /// The same in this lab.
    pub fn and_backups(self, count: u32) -> Self {
        for generation in 1..=count {
            self.write_image(generation);
            self.backup().unwrap();
        }
        self
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the image; zero blocks become holes. The file stays the same one, as its identity is part of a backup.
    pub fn write_image(&self, generation: u32) {
        let bytes = image(generation);
        let file = File::create(self.path("image")).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        for (block, piece) in bytes.chunks(BLOCK).enumerate() {
            if piece.iter().any(|byte| *byte != 0) {
                file.write_all_at(piece, (block * BLOCK) as u64).unwrap();
            }
        }
    }

    /// Opens the repository anew.
    pub fn repository(&self) -> Result<Repository> {
        match &self.secret {
            None => Repository::open_local(&self.path("repo")),
            Some(secret) => Repository::open_with(self.storage(), secret),
        }
    }

    /// Backs the image up as it is.
    pub fn backup(&self) -> Result<BackupReport> {
        self.backup_as(WantedKind::Auto)
    }

    /// Backs the image up.
    pub fn backup_as(&self, kind: WantedKind) -> Result<BackupReport> {
        self.backup_to(&self.repository()?, kind)
    }

    /// Backs the image up into another repository.
    pub fn backup_to(&self, repository: &Repository, kind: WantedKind) -> Result<BackupReport> {
        backup(repository, &self.options(kind), &Progress::new(), &CancelToken::new())
    }

    fn options(&self, kind: WantedKind) -> BackupOptions {
        let mut options = BackupOptions::new(self.path("image"), self.path("state"));
        options.gentleness = Gentleness::full_speed();
        options.volume = Some(VOLUME.into());
        options.kind = kind;
        options
    }

    /// Backs the image up as it is, going on where an interrupted run was.
    pub fn resume(&self) -> Result<BackupReport> {
        let options = BackupOptions { resume: true, ..self.options(WantedKind::Auto) };
        backup(&self.repository()?, &options, &Progress::new(), &CancelToken::new())
    }

    /// Backs the image up slowly, and is interrupted when half of it has been passed; again and slower if that came too late.
    pub fn interrupt(&self) {
        let saved = self.save();
        for rate in [2 << 20, 256 << 10, 32 << 10] {
            match self.interrupted_at(rate) {
                Err(error) => return assert_eq!(error.kind(), ErrorKind::Cancelled),
                Ok(_) => self.put_back(&saved),
            }
        }
        panic!("it always ended before it was interrupted");
    }

    fn interrupted_at(&self, rate: u64) -> Result<BackupReport> {
        let mut options = self.options(WantedKind::Auto);
        options.gentleness.limits.bwlimit = rate.try_into().ok();
        let (progress, cancel) = (Progress::new(), CancelToken::new());
        let repository = self.repository().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while progress.bytes_done() < 6 * BLOCK as u64 {
                    std::thread::sleep(Duration::from_micros(200));
                }
                cancel.cancel();
            });
            backup(&repository, &options, &progress, &cancel)
        })
    }

    /// All backups, of which none may be damaged.
    pub fn records(&self) -> Vec<BackupRecord> {
        let catalog = self.repository().unwrap().catalog(None).unwrap();
        assert!(catalog.damaged.is_empty(), "damaged: {:?}", catalog.damaged);
        catalog.records
    }

    /// Verifies all backups with all their data.
    pub fn verify(&self) -> Result<VerifyReport> {
        let repository = self.repository()?;
        let catalog = repository.catalog(None)?;
        verify(
            &repository,
            &catalog.records,
            &catalog.damaged,
            &VerifyOptions { data: true, gentleness: Gentleness::full_speed(), ..VerifyOptions::default() },
            &Progress::new(),
            &CancelToken::new(),
        )
    }

    /// The state of everything that backups write.
    pub fn save(&self) -> Files {
        let mut files = Files::new();
        for name in ["repo", "state"] {
            collect(&self.path(name), Path::new(name), &mut files);
        }
        files
    }

    /// Puts that state back.
    pub fn put_back(&self, files: &Files) {
        for name in ["repo", "state"] {
            let _ = fs::remove_dir_all(self.path(name));
        }
        for (name, bytes) in files {
            let path = self.folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Whether all of a saved state is still there as it was, but for the note in the lock and what a host has seen; there
    /// may be more beside it.
    pub fn still_has(&self, files: &Files) -> bool {
        let mut kept = files.iter().filter(|(name, _)| !name.ends_with("lock") && !is_memory(name));
        kept.all(|(name, bytes)| fs::read(self.folder.path().join(name)).is_ok_and(|now| now == *bytes))
    }

    /// What a user relies on whatever has happened before: the listed backups are these generations, each comes back byte
    /// by byte, and verification with all data is clean.
    pub fn assert_sound(&self, generations: &[u32], context: &str) {
        let records = self.records();
        let sequences: Vec<u32> = records.iter().map(|record| record.sequence).collect();
        assert_eq!(sequences, (1..).take(generations.len()).collect::<Vec<u32>>(), "{context}");
        let repository = self.repository().unwrap();
        for (record, generation) in records.iter().zip(generations) {
            assert!(
                restored(&repository, record) == *image(*generation),
                "{context}: backup {}",
                record.sequence
            );
        }
        let report = self.verify().unwrap();
        assert!(report.ok, "{context}: {:?}", report.problems);
    }

    /// The next backup, of a generation that no test uses otherwise; then nothing may be left over.
    pub fn assert_next_backup_works(&self, context: &str) {
        self.write_image(8);
        self.let_two_days_pass();
        let report =
            self.backup().unwrap_or_else(|error| panic!("{context}: the next backup fails: {error:?}"));
        assert!(report.warnings.is_empty(), "{context}: {:?}", report.warnings);
        assert!(
            restored(&self.repository().unwrap(), &report.record) == *image(8),
            "{context}: the next backup"
        );
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new(), "{context}: files that nobody needs");
    }

    /// Files of the local state that were not finished may be a living run's while they are young.
    pub fn let_two_days_pass(&self) {
        let mut state = Files::new();
        collect(&self.path("state"), Path::new(""), &mut state);
        for name in state.into_keys().filter(|name| is_unfinished(&name.to_string_lossy())) {
            let file = File::options().append(true).open(self.path("state").join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(48 * 3600)).unwrap();
        }
    }

    /// Files of the repository that no record names (of its tags only the newest generation counts), and files of the local state beside the one manifest and
    /// its lock, which stays.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut named: BTreeSet<PathBuf> =
            ["config.json", "volumes/host%2Fdb/lock", "volumes/host%2Fdb/tags/lock"]
                .map(PathBuf::from)
                .into();
        for record in self.records() {
            let revision = match record.revision {
                0 => String::new(),
                revision => format!(".{revision:010}"),
            };
            named.insert(format!("volumes/host%2Fdb/records/{:010}{revision}.json", record.sequence).into());
            named.extend([record.delta.name, record.manifest.name].map(PathBuf::from));
        }
        let mut repository = Files::new();
        collect(&self.path("repo"), Path::new(""), &mut repository);
        for record in self.records() {
            let begin = format!("volumes/host%2Fdb/tags/{:010}-", record.sequence);
            let tags = repository.keys().filter(|name| name.to_string_lossy().starts_with(&begin));
            named.extend(
                tags.filter(|name| name.extension().is_some_and(|kind| kind == "json")).max().cloned(),
            );
        }
        let mut found: Vec<PathBuf> = repository.into_keys().filter(|name| !named.contains(name)).collect();
        found.retain(|name| !name.starts_with("keys"));
        let mut state = Files::new();
        collect(&self.path("state"), Path::new(""), &mut state);
        let id = self.repository().unwrap().config().repository_id;
        let kept = ["manifest", "lock"].map(|kind| PathBuf::from(format!("{id}/host%2Fdb.{kind}")));
        found.extend(state.into_keys().filter(|name| !kept.contains(name) && !is_memory(name)));
        // The audit log is for ever, and an entry that was not finished goes with the next cleanup.
        found.retain(|name| !name.starts_with("audit"));
        found
    }
}

/// Whether this file of the local state is what the host remembers of the repository.
fn is_memory(name: &Path) -> bool {
    name.ends_with("seen.json") || name.extension().is_some_and(|kind| kind == "catalog")
}

/// All files below a folder, with this name before their own.
pub fn collect(folder: &Path, name: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = name.join(entry.file_name());
        if entry.path().is_dir() {
            collect(&entry.path(), &name, files);
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

/// The bytes that a backup gives back.
pub fn restored(repository: &Repository, record: &BackupRecord) -> Vec<u8> {
    try_restored(repository, record)
        .unwrap_or_else(|error| panic!("restoring {}: {error:?}", record.sequence))
}

/// The bytes that a backup gives back, if it does.
pub fn try_restored(repository: &Repository, record: &BackupRecord) -> Result<Vec<u8>> {
    let mut out = tempfile::tempfile().unwrap();
    let target = RestoreTarget::Stream(out.try_clone().unwrap());
    let options = RestoreOptions { target, ..RestoreOptions::new("") };
    restore(repository, record, &options, &Progress::new(), &CancelToken::new())?;
    let mut bytes = Vec::new();
    out.rewind().unwrap();
    out.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}
