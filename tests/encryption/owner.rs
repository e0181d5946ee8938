//! What the owner of the storage sees and can do.

use std::collections::BTreeSet;
use std::sync::Arc;

use blkdelta_core::error::{ErrorKind, Result};
use blkdelta_core::repository::Repository;
use blkdelta_core::repository::layout::is_clear;
use blkdelta_core::storage::memory::MemoryStorage;
use blkdelta_core::storage::{Storage, read_small};

use super::victim::{MARKER, Victim, cheap, format, passphrase, state, verified};
use crate::faults::alone;
use crate::faults::lab::try_restored;

fn reopened(storage: Arc<MemoryStorage>) -> Result<Repository> {
    Repository::open_with(storage, &passphrase("right"))
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn nothing_of_a_volume_its_digests_or_its_records_is_stored_in_clear() {
    let _alone = alone();
    let (sealed, clear) = (Victim::encrypted(), Victim::in_clear());
    for (victim, expected) in [(&sealed, false), (&clear, true)] {
        victim.merge();
        let record = victim.repository.resolve("latest", None, None).unwrap();
        let root = blkdelta_core::digest::from_hex::<32>(&record.root.to_string()).unwrap();
        let root_in_digits = record.root.to_string();
        let grain = *blake3::hash(&state(3)[..4096]).as_bytes();
        let wanted: [(&str, &[u8]); 6] = [
            ("content and tags", MARKER.as_bytes()),
            ("a root", &root),
            ("a root in digits", root_in_digits.as_bytes()),
            ("a grain's digest", &grain[..16]),
            ("a record", b"\"taken_at\""),
            ("the identity", record.identity.as_str().as_bytes()),
        ];
        for (what, bytes) in wanted {
            let found = victim.ever_stored().iter().any(|(_, object)| holds(object, bytes));
            assert_eq!(found, expected, "{what} in clear");
        }
    }
}

#[test]
fn every_flipped_byte_and_every_cut_of_every_object_is_found() {
    let _alone = alone();
    let victim = Victim::encrypted();
    for (name, bytes) in victim.objects().iter().filter(|(name, _)| !is_clear(name)) {
        let read = |changed: &[u8]| {
            let storage = victim.with(&[(name, changed)]);
            read_small(reopened(storage).unwrap().storage(), name, 1 << 24)
        };
        assert!(read(bytes).is_ok());
        // The header and around the ends each byte, between them samples: each is a repository opened anew.
        let places = (0..bytes.len()).filter(|at| *at < 100 || at % 41 == 0 || bytes.len() - at < 40);
        for at in places {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            for (what, changed) in [("flipped", &flipped[..]), ("cut", &bytes[..at])] {
                let error = read(changed).expect_err(&format!("{name} {what} at {at}"));
                assert!(
                    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported),
                    "{name}: {error:?}"
                );
                assert!(error.error_path().is_some(), "{name} {what} at {at}: {error:?}");
            }
        }
    }
}

#[test]
fn what_a_flipped_byte_hurts_is_named_and_nothing_wrong_is_restored() {
    let _alone = alone();
    let victim = Victim::encrypted();
    let before = victim.repository.catalog(None).unwrap().records;
    for (name, bytes) in victim.objects().iter().filter(|(name, _)| !is_clear(name)) {
        for at in [70, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let repository = reopened(victim.with(&[(name, &flipped)])).unwrap();
            let report = verified(&repository);
            assert!(!report.ok, "{name} flipped at {at} is called sound");
            let named = report.problems.iter().any(|problem| problem.what.contains(name.as_str()));
            assert!(named, "{name} flipped at {at}: {:?}", report.problems);
            for record in repository.catalog(None).unwrap().records {
                if let Ok(restored) = try_restored(&repository, &record) {
                    assert!(restored == state(record.sequence), "{name} at {at}: other bytes are restored");
                }
            }
        }
    }
    assert_eq!(before.len(), 3);
}

#[test]
fn objects_cannot_change_their_names() {
    let _alone = alone();
    let (victim, other) = (Victim::encrypted(), Victim::encrypted());
    let objects = victim.objects();
    let sealed: Vec<_> = objects.iter().filter(|(name, _)| !is_clear(name)).collect();
    assert!(sealed.len() >= 10);
    for (name, own) in &sealed {
        for (from, bytes) in &sealed {
            let storage = victim.with(&[(name, bytes)]);
            let read = read_small(reopened(storage).unwrap().storage(), name, 1 << 24);
            assert_eq!(read.is_ok(), name == from, "{from} in the place of {name}");
        }
        // Of another repository with the same volume, states and passphrase.
        let kind = |name: &str| name.rsplit('/').nth(1).map(str::to_owned);
        for (_, bytes) in other.objects().iter().filter(|(other, _)| kind(other) == kind(name)) {
            let storage = victim.with(&[(name, bytes)]);
            let error = read_small(reopened(storage).unwrap().storage(), name, 1 << 24).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {error:?}");
            assert_ne!(own, bytes);
        }
    }
}

#[test]
fn a_repository_does_not_open_with_the_keys_of_another() {
    let (victim, other) = (Victim::encrypted(), Victim::encrypted());
    let key_of =
        |victim: &Victim| victim.objects().into_iter().find(|(name, _)| name.starts_with("keys/")).unwrap();
    let ((_, ours), (theirs, bytes)) = (key_of(&victim), key_of(&other));
    let storage = victim.with(&[]);
    storage.remove(&key_of(&victim).0).unwrap();
    storage.put_new(&theirs, &bytes).unwrap();
    let error = reopened(Arc::clone(&storage)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    // Under a name that is not its own it is damaged too.
    storage.remove(&theirs).unwrap();
    storage.put_new(&theirs, &ours).unwrap();
    assert_eq!(reopened(storage).err().unwrap().kind(), ErrorKind::Damaged);
}

/// A copy of an older state is whole in itself. Sealing cannot tell; the database's host can (heads in its local state).
#[test]
fn an_older_state_of_all_is_whole_in_itself() {
    let _alone = alone();
    let victim = Victim::encrypted();
    let older = victim.with(&[]);
    victim.backup(4).unwrap();
    let repository = reopened(older).unwrap();
    assert!(verified(&repository).ok);
    assert_eq!(repository.catalog(None).unwrap().records.len(), 3);
}

#[test]
fn no_object_is_ever_sealed_with_the_salt_of_another() {
    let _alone = alone();
    let victim = Victim::encrypted();
    // The same state again, a run that fails before its commit and is made anew, and a merge.
    victim.backup(3).unwrap();
    let hooked = victim.journal.with_hook(|verb, name| {
        assert!(!(verb == "put_new" && name.contains("/records/")), "a power cut");
    });
    let cut_off = Repository::open_with(Arc::new(hooked), &passphrase("right")).unwrap();
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| victim.backup_to(&cut_off, 4)));
    assert!(run.is_err());
    victim.backup(4).unwrap();
    victim.merge();
    let sealed: Vec<_> = victim.ever_stored().into_iter().filter(|(name, _)| !is_clear(name)).collect();
    let salts: BTreeSet<_> = sealed.iter().map(|(_, bytes)| bytes[32..64].to_vec()).collect();
    assert!(sealed.len() > 16);
    assert_eq!(salts.len(), sealed.len());
}

#[test]
fn the_configuration_cannot_be_changed_unseen() {
    let victim = Victim::encrypted();
    let config = read_small(&*victim.with(&[]), "config.json", 1 << 20).unwrap();
    let document: serde_json::Value = blkdelta_core::format::record::decode(&config).unwrap();
    let mut changes = vec![
        ("digest", Some(serde_json::json!("sha256"))),
        ("digest", Some(serde_json::json!("xxh3"))),
        ("block_size", Some(serde_json::json!(1 << 20))),
        ("grain_size", Some(serde_json::json!(8192))),
        ("compression", Some(serde_json::json!("lz4"))),
        ("created_at", Some(serde_json::json!("2020-01-01T00:00:00Z"))),
        ("repository_id", Some(serde_json::json!("00112233445566778899aabbccddeeff"))),
        ("format_version", Some(serde_json::json!(1))),
    ];
    changes.push(("encryption", None));
    for (key, value) in changes {
        let mut document = document.clone();
        match &value {
            Some(value) => document[key] = value.clone(),
            None => {
                document.as_object_mut().unwrap().remove(key);
                document["format_version"] = 1.into();
            }
        }
        let storage =
            victim.with(&[("config.json", &blkdelta_core::format::record::encode(&document).unwrap())]);
        let error = reopened(Arc::clone(&storage) as _).err().unwrap_or_else(|| panic!("{key} {value:?}"));
        let told = if value.is_none() { ErrorKind::WrongKey } else { ErrorKind::Damaged };
        assert_eq!(error.kind(), told, "{key} {value:?}: {error:?}");
        // Nor does it pass for one in clear, to somebody who gives no key.
        let error = Repository::open(storage).err().unwrap();
        assert!(
            matches!(error.kind(), ErrorKind::Damaged | ErrorKind::WrongKey),
            "{key} {value:?}: {error:?}"
        );
    }
}

#[test]
fn a_configuration_that_is_lost_is_not_made_anew_over_its_keys() {
    let victim = Victim::encrypted();
    let storage = victim.with(&[]);
    storage.remove("config.json").unwrap();
    assert_eq!(reopened(Arc::clone(&storage)).err().unwrap().kind(), ErrorKind::NoRepository);
    let again = Repository::init_encrypted(Arc::clone(&storage) as _, format(), &passphrase("x"), &cheap(""));
    assert_eq!(again.err().unwrap().kind(), ErrorKind::Refused);
    assert_eq!(Repository::init(storage, format()).err().unwrap().kind(), ErrorKind::Refused);
}
