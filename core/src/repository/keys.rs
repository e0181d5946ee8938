//! The keys of an encrypted repository: objects `keys/ID.json`, each of which wraps the same master keys by another
//! passphrase or key file. They are created if absent and never changed: a new passphrase is a new slot.
//!
//! Trade-off: a slot that was removed is only gone if nobody has a copy of it; [`Repository::rotate_key`] makes sure that
//! old slots cannot open what is written from then on. Each slot is bound to the configuration: were it not, who owns the
//! storage could put a weaker digest there, or take the encryption away.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::audit::{AuditEvent, AuditOutcome};
use super::layout::{CONFIG, KEYS, is_clear};
use super::publish::lock_note;
use super::{InitOptions, Repository, new_config, put_config, read_config, there_is_one};
use crate::backup_id::BackupId;
use crate::crypto::export::ExportedKey;
use crate::crypto::master_keys::MasterKeys;
use crate::crypto::sealing::Sealer;
use crate::crypto::secret::Secret;
use crate::crypto::wrapping::{SALT_LEN, WrappingKey};
use crate::digest::{from_hex, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::format::key_slot::{Cost, KeySlot, SlotFacts};
use crate::format::record;
use crate::format::repository_config::{Encryption, RepositoryConfig};
use crate::storage::sealed::SealedStorage;
use crate::storage::{LockGuard, Storage, read_small};
use crate::sys::{faults, host};

/// Most keys of a repository; each one that does not fit costs a moment at opening.
const SLOTS_MAX: usize = 32;
/// Longest slot in bytes.
const SLOT_LEN_MAX: u64 = 64 << 10;

/// What is written into a new slot besides the keys.
#[derive(Debug, Clone, Default)]
pub struct SlotOptions {
    /// For people: whose it is, where its passphrase is kept.
    pub note: String,
    /// What guessing shall cost.
    pub cost: Cost,
}

/// What opened a repository.
pub(super) struct Opened {
    keys: MasterKeys,
    /// BLAKE3 of config.json.
    config: [u8; 32],
    /// The slot that opened it; an exported key needs none.
    slot: Option<BackupId>,
}

/// The keys that a repository has.
#[derive(Debug, Default)]
pub struct KeyList {
    /// What sound slots say, oldest first.
    pub keys: Vec<SlotFacts>,
    /// Slots that cannot be read.
    pub damaged: Vec<Error>,
}

/// The keys of the repository in this storage; no passphrase is needed to see them.
pub fn list(storage: &dyn Storage) -> Result<KeyList> {
    encrypted(read_config(storage)?.0.encryption)?;
    let slots = Slots::read(storage)?;
    let mut keys: Vec<SlotFacts> = slots.sound.into_iter().map(|(facts, _)| facts).collect();
    keys.sort_by_key(|facts| (facts.created_at, facts.key_id));
    Ok(KeyList { keys, damaged: slots.damaged })
}

/// Keys without a configuration belong to a repository that lost it: a new one there would end it for good.
pub(super) fn refuse_orphans(storage: &dyn Storage) -> Result<()> {
    if slot_names(storage)?.is_empty() || storage.open(CONFIG).is_ok() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, "there are keys of a repository whose configuration is lost")
        .path(storage.display(KEYS))
        .hint("put config.json back from a copy; only if an init was interrupted here, remove the folder of keys"))
}

/// A configuration in clear beside keys was put there by somebody else.
pub(super) fn refuse_without_encryption(storage: &dyn Storage) -> Result<()> {
    if slot_names(storage)?.is_empty() {
        return Ok(());
    }
    Err(Error::damaged("the repository has keys, but its configuration says that nothing is encrypted")
        .path(storage.display(CONFIG))
        .hint("the configuration was changed: put it back from a copy of the repository"))
}

impl Repository {
    /// Makes an encrypted repository in storage that has none; `secret` will open it.
    pub fn init_encrypted(
        storage: Arc<dyn Storage>,
        options: InitOptions,
        secret: &Secret,
        slot: &SlotOptions,
    ) -> Result<Self> {
        let config = new_config(&*storage, options, Some(Encryption::Aes256Gcm))?;
        if storage.open(CONFIG).is_ok() {
            return Err(there_is_one(&*storage));
        }
        refuse_orphans(&*storage)?;
        let bytes = record::encode(&config)?;
        let mut opened =
            Opened { keys: MasterKeys::new_random()?, config: *blake3::hash(&bytes).as_bytes(), slot: None };
        let facts = opened.put_slot(&*storage, secret, slot)?;
        opened.slot = Some(facts.key_id);
        if let Err(error) = put_config(&*storage, &bytes) {
            // It may have got its name all the same; then it needs its key.
            if !read_small(&*storage, CONFIG, record::MAX_LEN).is_ok_and(|found| found == bytes) {
                let _ = storage.remove(&slot_name(facts.key_id));
            }
            return Err(error);
        }
        Ok(Self::sealed(storage, config, opened))
    }

    /// Opens the encrypted repository in this storage. One in clear is refused: who has a key expects it to be used.
    pub fn open_with(storage: Arc<dyn Storage>, secret: &Secret) -> Result<Self> {
        let (config, digest) = read_config(&*storage)?;
        if config.encryption.is_none() {
            let text = "a key is given, but the configuration says that the repository is not encrypted";
            return Err(Error::new(ErrorKind::WrongKey, text).path(storage.display(CONFIG)).hint(
                "give none if it never was encrypted; else somebody changed config.json: put it back from a copy",
            ));
        }
        let opened = match secret {
            Secret::Exported(exported) => {
                check_exported(exported, config.repository_id, &digest)
                    .map_err(|error| error.path(storage.display(CONFIG)))?;
                Opened { keys: exported.keys.clone(), config: digest, slot: None }
            }
            _ => Slots::read(&*storage)?.open(secret, digest, &*storage)?,
        };
        Ok(Self::sealed(storage, config, opened))
    }

    /// Opens the repository in this storage with what the environment names, if it names anything.
    pub fn open_by_environment(storage: Arc<dyn Storage>) -> Result<Self> {
        match Secret::from_environment()? {
            Some(secret) => Self::open_with(storage, &secret),
            None => Self::open(storage),
        }
    }

    fn sealed(storage: Arc<dyn Storage>, config: RepositoryConfig, opened: Opened) -> Self {
        let sealer = Sealer::new(opened.keys.clone(), config.repository_id);
        let storage = Arc::new(SealedStorage::new(storage, sealer, is_clear));
        Self { storage, config, memory: None, opened: Some(Arc::new(opened)) }
    }

    /// Keys that cannot be read: nothing is lost yet, but one that opens the repository may be among them.
    pub fn damaged_keys(&self) -> Result<Vec<Error>> {
        match self.config.encryption {
            Some(_) => Slots::read(self.storage()).map(|slots| slots.damaged),
            None => Ok(Vec::new()),
        }
    }

    /// Adds a key: the repository opens with it too.
    pub fn add_key(&self, secret: &Secret, options: &SlotOptions) -> Result<SlotFacts> {
        let opened = self.opened()?;
        let _lock = self.lock_keys()?;
        let facts = opened.put_slot(self.storage(), secret, options)?;
        self.log_key("added", facts.key_id);
        Ok(facts)
    }

    /// Puts another key in the place of the one that opened the repository.
    pub fn change_key(&self, secret: &Secret, options: &SlotOptions) -> Result<SlotFacts> {
        let opened = self.opened()?;
        let old = opened.slot.ok_or_else(|| {
            Error::new(
                ErrorKind::WrongUse,
                "an exported key opened the repository: there is nothing to change",
            )
            .hint("add a passphrase with `blkdelta key add`")
        })?;
        let _lock = self.lock_keys()?;
        let facts = opened.put_slot(self.storage(), secret, options)?;
        self.log_key(&format!("changed from {old} to"), facts.key_id);
        self.storage().remove(&slot_name(old))?;
        Ok(facts)
    }

    /// Removes the key whose id begins so; never the last one that can be read.
    pub fn remove_key(&self, prefix: &str) -> Result<BackupId> {
        self.opened()?;
        let _lock = self.lock_keys()?;
        let mut ids: Vec<BackupId> = slot_ids(self.storage())?;
        ids.retain(|id| id.to_string().starts_with(prefix));
        let id = match ids[..] {
            [id] => id,
            [] => {
                return Err(Error::new(ErrorKind::NotFound, format!("no key '{prefix}'"))
                    .path(self.storage().display(KEYS))
                    .hint("`blkdelta key list` shows what is there"));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::WrongUse,
                    format!("'{prefix}' is the beginning of several ids"),
                )
                .hint("write more of the id"));
            }
        };
        if Slots::read(self.storage())?.sound.iter().all(|(facts, _)| facts.key_id == id) {
            return Err(Error::new(
                ErrorKind::Refused,
                "this is the last key: without it nobody can open the repository",
            )
            .path(self.storage().display(&slot_name(id)))
            .hint("add another one first, with `blkdelta key add`"));
        }
        self.storage().remove(&slot_name(id))?;
        self.log_key("removed", id);
        Ok(id)
    }

    /// A new master key for all that is written from now on, known to this secret alone: all other keys go.
    pub fn rotate_key(&self, secret: &Secret, options: &SlotOptions) -> Result<SlotFacts> {
        let opened = self.opened()?;
        let _lock = self.lock_keys()?;
        let old = slot_ids(self.storage())?;
        let rotated = Opened { keys: opened.keys.rotated()?, config: opened.config, slot: None };
        let facts = rotated.put_slot(self.storage(), secret, options)?;
        self.log_key("rotated to", facts.key_id);
        old.into_iter().try_for_each(|id| self.storage().remove(&slot_name(id)))?;
        Ok(facts)
    }

    /// Who changed keys, or took them out, is written down; a key must be changed also where that is not possible.
    fn log_key(&self, what: &str, id: BackupId) {
        let event = AuditEvent::new("key", AuditOutcome::Done).detail(format!("{what} {id}"));
        if let Some(warning) = self.audit_or_warn(&event) {
            tracing::warn!("{warning}");
        }
    }

    /// The keys as text for the safe.
    pub fn export_key(&self) -> Result<Zeroizing<String>> {
        let opened = self.opened()?;
        if let Some(slot) = opened.slot {
            self.log_key("exported by", slot);
        }
        let (repository, config) = (self.config.repository_id, opened.config);
        Ok(ExportedKey { repository, config, keys: opened.keys.clone() }.to_text())
    }

    /// The same into a new file, which its owner alone may read.
    pub fn export_key_to(&self, path: &Path) -> Result<()> {
        let text = self.export_key()?;
        let problem = |source| Error::io("writing the key to", path, source);
        faults::point("open").map_err(problem)?;
        let mut out =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(problem)?;
        out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(problem)
    }

    /// The names of what opens the repository; none in one that is not encrypted.
    pub(super) fn key_names(&self) -> Result<Vec<String>> {
        match self.config.encryption {
            Some(_) => Ok(slot_ids(self.storage())?.into_iter().map(slot_name).collect()),
            None => Ok(Vec::new()),
        }
    }

    fn opened(&self) -> Result<&Opened> {
        encrypted(self.config.encryption)?;
        self.opened.as_deref().ok_or_else(not_encrypted)
    }

    fn lock_keys(&self) -> Result<Box<dyn LockGuard>> {
        self.storage().lock(&format!("{KEYS}/lock"), &lock_note())
    }
}

impl Opened {
    fn put_slot(&self, storage: &dyn Storage, secret: &Secret, options: &SlotOptions) -> Result<SlotFacts> {
        let (kind, bytes) = secret.for_slot().ok_or_else(|| {
            Error::new(ErrorKind::WrongUse, "an exported key cannot be a new key")
                .hint("give a new passphrase, or a key file")
        })?;
        if slot_ids(storage)?.len() >= SLOTS_MAX {
            return Err(Error::new(
                ErrorKind::WrongUse,
                format!("a repository has at most {SLOTS_MAX} keys"),
            )
            .hint("remove one that nobody needs"));
        }
        let salt = host::random_bytes::<SALT_LEN>()?;
        let key = WrappingKey::derive(bytes, &salt, options.cost)?;
        let facts = SlotFacts {
            schema_version: KeySlot::SCHEMA_VERSION,
            key_id: BackupId::from_bytes(host::random_bytes()?),
            kind,
            created_at: Timestamp::now(),
            host: host::hostname(),
            note: options.note.clone(),
            argon2id: options.cost,
            salt: to_hex(&salt),
            check: to_hex(&key.check()),
        };
        let slot = serde_json::value::to_raw_value(&facts)
            .map_err(|source| Error::new(ErrorKind::Io, "writing a key slot as JSON").because(source))?;
        let wrapped = to_hex(&key.wrap(&self.keys, &self.config, slot.get().as_bytes())?);
        let name = slot_name(facts.key_id);
        storage.put_new(&name, &record::encode(&KeySlot { slot, wrapped })?)?;
        // Until the next backup extends it too: it opens data that is retained already, and may soon be the only one.
        if let Err(error) = storage.retain(&[&name]) {
            tracing::warn!(%error, "the retention of the key was not extended");
        }
        Ok(facts)
    }
}

/// All slots of a repository.
struct Slots {
    sound: Vec<(SlotFacts, KeySlot)>,
    damaged: Vec<Error>,
}

impl Slots {
    fn read(storage: &dyn Storage) -> Result<Self> {
        let ids = slot_ids(storage)?;
        if ids.len() > SLOTS_MAX {
            let text = format!("{} keys, at most {SLOTS_MAX} are possible", ids.len());
            return Err(Error::damaged(text).path(storage.display(KEYS)));
        }
        let mut slots = Self { sound: Vec::new(), damaged: Vec::new() };
        for id in ids {
            match read_slot(storage, id) {
                Ok(slot) => slots.sound.push(slot),
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                    slots.damaged.push(error);
                }
                // Removed after it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(slots)
    }

    /// Tries the secret on each slot of its kind.
    fn open(self, secret: &Secret, config: [u8; 32], storage: &dyn Storage) -> Result<Opened> {
        let Some((kind, bytes)) = secret.for_slot() else { return Err(no_slot_opens(self, storage)) };
        for (facts, slot) in self.sound.iter().filter(|(facts, _)| facts.kind == kind) {
            let path = || storage.display(&slot_name(facts.key_id));
            let key = WrappingKey::derive(bytes, &hex(&facts.salt)?, facts.argon2id)
                .map_err(|error| error.path(path()))?;
            if key.check() != hex(&facts.check)? {
                continue;
            }
            let keys =
                key.unwrap(&slot.wrapped()?, &config, slot.slot.get().as_bytes()).ok_or_else(|| {
                    let text =
                        "the key is right, but it belongs to another configuration, or was changed itself";
                    Error::damaged(text)
                        .path(path())
                        .hint("put config.json and this key back from a copy, or open with the exported key")
                })?;
            return Ok(Opened { keys, config, slot: Some(facts.key_id) });
        }
        Err(no_slot_opens(self, storage))
    }
}

fn no_slot_opens(slots: Slots, storage: &dyn Storage) -> Error {
    let exported = "open it with the exported key: BLKDELTA_KEY_FILE, `blkdelta key import`";
    match slots.damaged.into_iter().next() {
        // The right one may be among them.
        Some(damaged) => Error::damaged("no key opens the repository, and at least one key cannot be read")
            .path(damaged.error_path().unwrap_or(&storage.display(KEYS)))
            .because(damaged)
            .hint(format!("put the damaged key back from a copy, or {exported}")),
        None if slots.sound.is_empty() => {
            Error::damaged("all keys of the repository are gone").path(storage.display(KEYS)).hint(exported)
        }
        None => Error::new(ErrorKind::WrongKey, "this key does not open the repository")
            .path(storage.display(KEYS)),
    }
}

fn read_slot(storage: &dyn Storage, id: BackupId) -> Result<(SlotFacts, KeySlot)> {
    let name = slot_name(id);
    let bytes = read_small(storage, &name, SLOT_LEN_MAX)?;
    let read = || {
        let slot: KeySlot = record::decode(&bytes)?;
        let facts = slot.facts()?;
        if facts.key_id != id {
            return Err(Error::damaged("a key slot does not belong where it stands"));
        }
        Ok((facts, slot))
    };
    read().map_err(|error: Error| error.path(storage.display(&name)))
}

fn check_exported(exported: &ExportedKey, repository: BackupId, config: &[u8; 32]) -> Result<()> {
    if exported.repository != repository {
        let text = format!("the exported key is that of repository {}", exported.repository);
        return Err(Error::new(ErrorKind::WrongKey, text));
    }
    if exported.config != *config {
        return Err(Error::damaged("the configuration is not the one that the key was exported with")
            .hint("it was changed: put it back from a copy of the repository"));
    }
    Ok(())
}

fn slot_name(id: BackupId) -> String {
    format!("{KEYS}/{id}.json")
}

fn slot_names(storage: &dyn Storage) -> Result<Vec<String>> {
    let mut names = storage.list(KEYS)?;
    names.retain(|name| name.ends_with(".json"));
    Ok(names)
}

fn slot_ids(storage: &dyn Storage) -> Result<Vec<BackupId>> {
    let names = slot_names(storage)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

fn hex<const N: usize>(digits: &str) -> Result<[u8; N]> {
    from_hex(digits).ok_or_else(|| Error::damaged("a key slot has wrong digits"))
}

fn encrypted(encryption: Option<Encryption>) -> Result<()> {
    encryption.map(drop).ok_or_else(not_encrypted)
}

fn not_encrypted() -> Error {
    Error::new(ErrorKind::WrongUse, "the repository is not encrypted, so it has no keys")
        .hint("make an encrypted one with `blkdelta init --encrypt`, and copy the backups there")
}
