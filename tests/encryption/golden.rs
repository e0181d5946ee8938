//! An encrypted repository that was stored once must open for ever, with each of its keys.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::repository::Repository;
use blkdelta_core::storage::local::LocalStorage;
use sha2::Digest as _;
use support::scratch::{Scratch, copy_folder};

use super::victim::verified;
use crate::faults::lab::try_restored;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/encrypted").join(name)
}

#[test]
fn the_golden_repository_opens_with_its_passphrase_its_key_file_and_its_exported_key() {
    let expected = std::fs::read_to_string(golden("expected")).unwrap();
    let secrets = [
        Secret::from_password_file(&golden("password")).unwrap(),
        Secret::from_key_file(&golden("key-file")).unwrap(),
        Secret::from_key_file(&golden("exported")).unwrap(),
    ];
    // A copy: whoever restores is written down, and golden files never change.
    let scratch = Scratch::new();
    let copy = scratch.path("repository");
    copy_folder(&golden("repository"), &copy);
    for secret in secrets {
        let storage = Arc::new(LocalStorage::new(&copy));
        let repository = Repository::open_with(storage, &secret).unwrap();
        assert!(verified(&repository).ok);
        let records = repository.catalog(None).unwrap().records;
        assert_eq!(records.len(), 3);
        assert_eq!(records[2].tags, ["state 3", "golden"]);
        for record in records {
            let digest = sha2::Sha256::digest(try_restored(&repository, &record).unwrap());
            let hex = digest.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            });
            assert!(
                expected.contains(&format!("{hex} repository {}\n", record.sequence)),
                "{}",
                record.sequence
            );
        }
    }
}
