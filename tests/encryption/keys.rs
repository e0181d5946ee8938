//! What the keys of a repository do: several, changed, rotated, lost, exported.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use blkdelta_core::crypto::export::ExportedKey;
use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::{ErrorKind, Result};
use blkdelta_core::format::record;
use blkdelta_core::repository::keys::{self, SlotOptions};
use blkdelta_core::repository::{InitOptions, Repository};
use blkdelta_core::storage::memory::MemoryStorage;
use blkdelta_core::storage::{Storage, read_small};
use zeroize::Zeroizing;

use super::victim::{Victim, cheap, passphrase, state, verified};
use crate::faults::alone;
use crate::faults::lab::try_restored;

fn new() -> (Arc<MemoryStorage>, Repository) {
    let storage = Arc::new(MemoryStorage::new());
    let options = InitOptions::default();
    let repository =
        Repository::init_encrypted(Arc::clone(&storage) as _, options, &passphrase("first"), &cheap(""))
            .unwrap();
    (storage, repository)
}

fn opens(storage: &Arc<MemoryStorage>, secret: &Secret) -> Result<Repository> {
    Repository::open_with(Arc::clone(storage) as _, secret)
}

fn kind_of(opened: Result<Repository>) -> ErrorKind {
    opened.err().expect("it opens").kind()
}

fn slots(storage: &Arc<MemoryStorage>) -> Vec<String> {
    keys::list(&**storage).unwrap().keys.iter().map(|key| key.key_id.to_string()).collect()
}

#[test]
fn a_missing_key_and_a_wrong_one_are_told_as_that() {
    let (storage, _) = new();
    assert_eq!(kind_of(Repository::open(Arc::clone(&storage) as _)), ErrorKind::WrongKey);
    assert_eq!(kind_of(opens(&storage, &passphrase("second"))), ErrorKind::WrongKey);
    // The same bytes as a key file are another key.
    let as_file = Secret::KeyFile(Zeroizing::new(b"first".to_vec()));
    assert_eq!(kind_of(opens(&storage, &as_file)), ErrorKind::WrongKey);
    assert!(opens(&storage, &passphrase("first\n")).is_ok(), "a line end is no part of a passphrase");
}

#[test]
fn a_key_for_a_repository_in_clear_is_refused() {
    let storage = Arc::new(MemoryStorage::new());
    let repository = Repository::init(Arc::clone(&storage) as _, InitOptions::default()).unwrap();
    assert_eq!(kind_of(opens(&storage, &passphrase("first"))), ErrorKind::WrongKey);
    assert_eq!(repository.export_key().err().unwrap().kind(), ErrorKind::WrongUse);
    assert_eq!(repository.add_key(&passphrase("x"), &cheap("")).err().unwrap().kind(), ErrorKind::WrongUse);
}

#[test]
fn xxh3_is_refused_where_volumes_are_secret() {
    let options = InitOptions { digest: "xxh3".parse().unwrap(), ..InitOptions::default() };
    let storage = Arc::new(MemoryStorage::new());
    let made = Repository::init_encrypted(Arc::clone(&storage) as _, options, &passphrase("x"), &cheap(""));
    assert_eq!(kind_of(made), ErrorKind::WrongUse);
    assert!(storage.open("config.json").is_err());
}

#[test]
fn keys_come_and_go_but_never_the_last_one() {
    let (storage, repository) = new();
    let file = Secret::KeyFile(Zeroizing::new(vec![7; 32]));
    let second = repository.add_key(&passphrase("second"), &cheap("of the night shift")).unwrap();
    repository.add_key(&file, &cheap("")).unwrap();
    for secret in [passphrase("first"), passphrase("second"), file.clone()] {
        assert!(opens(&storage, &secret).is_ok());
    }
    let listed = keys::list(&*storage).unwrap();
    assert!(listed.damaged.is_empty() && listed.keys.iter().any(|key| key.note == "of the night shift"));
    assert_eq!(repository.remove_key(&second.key_id.to_string()[..8]).unwrap(), second.key_id);
    assert_eq!(kind_of(opens(&storage, &passphrase("second"))), ErrorKind::WrongKey);
    let changed = opens(&storage, &passphrase("first")).unwrap();
    changed.change_key(&passphrase("third"), &cheap("")).unwrap();
    assert_eq!(kind_of(opens(&storage, &passphrase("first"))), ErrorKind::WrongKey);
    let [one, other] = &slots(&storage)[..] else { panic!("two keys are left") };
    repository.remove_key(one).unwrap();
    assert_eq!(repository.remove_key(other).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(repository.remove_key("no such").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(slots(&storage).len(), 1, "{other} stays");
}

#[test]
fn a_rotated_key_seals_what_comes_and_the_old_one_opens_what_was() {
    let _alone = alone();
    let victim = Victim::encrypted();
    victim.repository.add_key(&passphrase("second"), &cheap("")).unwrap();
    let before: BTreeSet<String> = victim.objects().into_iter().map(|(name, _)| name).collect();
    victim.repository.rotate_key(&passphrase("new"), &cheap("")).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(victim.journal.clone());
    for old in ["right", "second"] {
        let opened = Repository::open_with(Arc::clone(&storage), &passphrase(old));
        assert_eq!(kind_of(opened), ErrorKind::WrongKey);
    }
    let rotated = Repository::open_with(storage, &passphrase("new")).unwrap();
    victim.backup_to(&rotated, 4).unwrap();
    assert!(verified(&rotated).ok);
    for record in rotated.catalog(None).unwrap().records {
        assert!(try_restored(&rotated, &record).unwrap() == state(record.sequence));
    }
    // Who kept the old key reads what it sealed, and nothing newer.
    let catalog = victim.repository.catalog(None).unwrap();
    assert_eq!((catalog.records.len(), catalog.damaged.len()), (3, 1));
    let key_ids = |new: bool| -> BTreeSet<Vec<u8>> {
        let objects = victim.objects().into_iter();
        let sealed = objects.filter(|(name, _)| name.contains("volumes/") && before.contains(name) != new);
        sealed.map(|(_, bytes)| bytes[16..32].to_vec()).collect()
    };
    assert_eq!((key_ids(false).len(), key_ids(true).len()), (1, 1));
    assert_ne!(key_ids(false), key_ids(true));
}

#[test]
fn an_exported_key_opens_the_repository_when_all_others_are_lost() {
    let (storage, repository) = new();
    let text = repository.export_key().unwrap();
    for id in slots(&storage) {
        storage.remove(&format!("keys/{id}.json")).unwrap();
    }
    assert_eq!(kind_of(opens(&storage, &passphrase("first"))), ErrorKind::Damaged);
    let exported = Secret::Exported(ExportedKey::parse(&text).unwrap());
    let opened = opens(&storage, &exported).unwrap();
    opened.add_key(&passphrase("again"), &cheap("")).unwrap();
    assert!(opens(&storage, &passphrase("again")).is_ok());
    assert_eq!(opened.change_key(&passphrase("x"), &cheap("")).err().unwrap().kind(), ErrorKind::WrongUse);
    let (other, _) = new();
    assert_eq!(kind_of(opens(&other, &exported)), ErrorKind::WrongKey);
}

#[test]
fn every_flipped_byte_of_a_key_is_told_apart_from_a_wrong_passphrase() {
    let (storage, _) = new();
    let name = format!("keys/{}.json", slots(&storage)[0]);
    let bytes = read_small(&*storage, &name, 1 << 20).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        storage.remove(&name).unwrap();
        storage.put_new(&name, &flipped).unwrap();
        let error = opens(&storage, &passphrase("first")).err().unwrap_or_else(|| panic!("byte {at}"));
        assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at}: {error:?}");
        assert!(error.error_path().is_some_and(|path| path.ends_with(&name)), "byte {at}: {error:?}");
    }
}

/// A document with another value for a key.
fn with_value(document: &str, key: &str, value: &str) -> String {
    let start = document.find(&format!("\"{key}\":")).expect("the key") + key.len() + 3;
    let end = start + document[start..].find([',', '}']).expect("its end");
    [&document[..start], value, &document[end..]].concat()
}

/// A checksum is no protection against its author: the slot is bound to what it says of itself.
#[test]
fn a_key_that_was_changed_behind_its_checksum_does_not_open() {
    let (storage, _) = new();
    let name = format!("keys/{}.json", slots(&storage)[0]);
    let bytes = read_small(&*storage, &name, 1 << 20).unwrap();
    let document: Box<serde_json::value::RawValue> = record::decode(&bytes).unwrap();
    let zeros = format!("\"{}\"", "00".repeat(32));
    let half = format!("\"{}\"", "00".repeat(16));
    let changes = [
        ("note", "\"\"", true),
        ("note", "\"of the owner\"", false),
        ("host", "\"elsewhere\"", false),
        ("created_at", "\"2020-01-01T00:00:00Z\"", false),
        ("kind", "\"key-file\"", false),
        ("salt", &zeros, false),
        ("salt", "\"00\"", false),
        ("check", &half, false),
        ("memory_kib", "16", false),
        ("memory_kib", "104857600", false),
        ("schema_version", "2", false),
        ("wrapped", &zeros, false),
        ("wrapped", "\"0\"", false),
    ];
    for (key, value, sound) in changes {
        let changed = with_value(document.get(), key, value);
        let changed = serde_json::value::RawValue::from_string(changed).unwrap();
        storage.remove(&name).unwrap();
        storage.put_new(&name, &record::encode(&changed).unwrap()).unwrap();
        match opens(&storage, &passphrase("first")) {
            Ok(_) => assert!(sound, "{key} {value}"),
            Err(error) => {
                let honest =
                    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::WrongKey | ErrorKind::Unsupported);
                assert!(honest && !sound, "{key} {value}: {error:?}");
            }
        }
    }
}

#[test]
fn a_repository_has_a_bounded_number_of_keys() {
    let (_, repository) = new();
    let mut added = 1;
    while repository.add_key(&passphrase("x"), &SlotOptions { ..cheap("") }).is_ok() {
        added += 1;
        assert!(added < 100);
    }
    assert_eq!(added, 32);
}

/// In a bucket with object lock: data that is kept from being removed is worth nothing without what opens it.
#[test]
fn keys_and_configuration_are_retained_with_the_newest_backup() {
    let _alone = alone();
    let victim = Victim::encrypted();
    let retained = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&retained);
    let hooked = victim.journal.with_hook(move |verb, name| {
        if verb == "retain" {
            seen.lock().unwrap().insert(name.to_owned());
        }
    });
    let repository = Repository::open_with(Arc::new(hooked), &passphrase("right")).unwrap();
    let added = repository.add_key(&passphrase("second"), &cheap("")).unwrap();
    let slot = format!("keys/{}.json", added.key_id);
    assert_eq!(std::mem::take(&mut *retained.lock().unwrap()), BTreeSet::from([slot]));
    victim.backup_to(&repository, 4).unwrap();
    let needed = |name: &String| !name.contains("/tags/") && !name.ends_with("/lock");
    let expected: BTreeSet<String> = victim.journal.names().into_iter().filter(needed).collect();
    assert_eq!(expected.iter().filter(|name| name.starts_with("keys/")).count(), 2);
    assert_eq!(*retained.lock().unwrap(), expected);
}
