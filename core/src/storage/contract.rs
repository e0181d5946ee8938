//! What every storage and every layer over one must do, whatever is below: the same test for each of them.
//!
//! Trade-off: an object store stands in memory here, with its client's own conditions, ranges and uploads in parts; what a
//! real server and a network do is in the storage tests. That client tells of no range in an empty object in a way of its own,
//! so the store in memory is not asked for one. If this test asked for less than the repository relies on, a
//! storage could pass it and lose backups: what is new in [`super::Storage`] belongs here first.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::local::LocalStorage;
use super::memory::MemoryStorage;
use super::sealed::SealedStorage;
use super::throttled::ThrottledStorage;
use super::{Durable, ObjectWriter, Storage, Unlocked, is_unfinished, read_small};
use crate::backup_id::BackupId;
use crate::cancel::CancelToken;
use crate::crypto::master_keys::MasterKeys;
use crate::crypto::sealing::Sealer;
use crate::error::{ErrorKind, Result};
use crate::throttle::Limits;
use crate::throttle::governor::{Governor, Watched};

/// More than a part of an upload, and no multiple of anything.
const LARGE: usize = (9 << 20) + 12_345;
const ALL: u64 = 1 << 20;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at / 4096 + at) % 251).to_le_bytes()[0]).collect()
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    let error = result.err().expect("an error");
    assert!(error.error_path().is_some(), "no path: {error:?}");
    error.kind()
}

fn names(storage: &dyn Storage, folder: &str) -> Vec<String> {
    storage.list(folder).unwrap().into_iter().filter(|name| !is_unfinished(name)).collect()
}

/// Each `instance` is another program's view of the same place. Objects have at least `smallest` bytes.
fn keeps_the_contract(instance: &dyn Fn() -> Arc<dyn Storage>, smallest: usize) {
    let (storage, another) = (&instance(), &instance());
    a_name_is_given_once(&**storage);
    nothing_counts_before_it_is_whole(&**storage);
    of_many_one_wins(storage);
    ranges_are_read_exactly(&**storage, smallest);
    folders_are_listed_in_order(&**storage);
    stamps_tell_objects_apart(&**storage);
    what_is_removed_is_gone(&**storage);
    what_is_durable_can_be_read(&**storage, &**another);
    what_is_removed_unfinished_is_never_finished(&**storage, &**another);
    what_is_finished_outlives_its_unfinished_name(&**storage, &**another);
    a_lock_has_one_holder(&**storage);
    storage.retain(&["once/a"]).unwrap();
}

fn a_name_is_given_once(storage: &dyn Storage) {
    assert_eq!(kind(storage.open("once/a")), ErrorKind::NotFound);
    storage.put_new("once/a", b"first").unwrap();
    assert_eq!(kind(storage.put_new("once/a", b"second")), ErrorKind::AlreadyExists);
    for len in [6, LARGE] {
        let mut late = storage.create("once/a").unwrap();
        let written = late.write(&bytes(len)).and_then(|()| late.finish());
        assert_eq!(kind(written), ErrorKind::AlreadyExists, "{len} bytes");
    }
    assert_eq!(read_small(storage, "once/a", ALL).unwrap(), b"first");
}

fn nothing_counts_before_it_is_whole(storage: &dyn Storage) {
    for len in [0, 100, LARGE] {
        let mut writer = storage.create("whole/a").unwrap();
        writer.write(&bytes(len)).unwrap();
        assert_eq!(kind(storage.open("whole/a")), ErrorKind::NotFound, "{len} bytes");
        assert!(names(storage, "whole").is_empty(), "{len} bytes");
        drop(writer);
        assert!(storage.list("whole").unwrap().is_empty(), "{len} bytes of a writer that gave up");
    }
}

fn of_many_one_wins(storage: &Arc<dyn Storage>) {
    let put = |number: u8| storage.put_new("race/a", &[number; 100]);
    let won: Vec<u8> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..6).map(|number| (number, scope.spawn(move || put(number)))).collect();
        let ended = racers.into_iter().map(|(number, racer)| (number, racer.join().unwrap()));
        ended.filter(|(_, result)| result.is_ok()).map(|(number, _)| number).collect()
    });
    assert_eq!(won.len(), 1, "{won:?} have won");
    assert_eq!(read_small(&**storage, "race/a", ALL).unwrap(), [won[0]; 100]);
}

fn ranges_are_read_exactly(storage: &dyn Storage, smallest: usize) {
    for len in [0, 1, 70_000, LARGE].into_iter().filter(|len| *len >= smallest) {
        let (name, whole) = (format!("ranges/{len}"), bytes(len));
        let mut writer = storage.create(&name).unwrap();
        whole.chunks(999_983).for_each(|piece| writer.write(piece).unwrap());
        writer.finish().unwrap();
        let object = storage.open(&name).unwrap();
        assert_eq!(object.size(), len as u64);
        for (start, end) in [(0, len), (0, len.min(1)), (len / 2, len), (len / 3, len / 2), (len, len)] {
            let mut piece = vec![0; end - start];
            object.read_exact_at(&mut piece, start as u64).unwrap();
            assert!(piece == whole[start..end], "{start}..{end} of {len} bytes");
        }
        for start in [len as u64, len.saturating_sub(1) as u64, u64::MAX] {
            assert_eq!(
                kind(object.read_exact_at(&mut [0; 2], start)),
                ErrorKind::Damaged,
                "{start} of {len}"
            );
        }
    }
}

fn folders_are_listed_in_order(storage: &dyn Storage) {
    for name in ["list/b", "list/a", "list/c/x", "list/aa/y/z", "listed/no", "list.no"] {
        storage.put_new(name, b"x").unwrap();
    }
    assert_eq!(storage.list("list").unwrap(), ["a", "b"]);
    assert_eq!(storage.folders("list").unwrap(), ["aa", "c"]);
    assert_eq!(storage.folders("list/aa").unwrap(), ["y"]);
    assert!(
        storage.list("list/none").unwrap().is_empty() && storage.folders("list/none").unwrap().is_empty()
    );
}

fn stamps_tell_objects_apart(storage: &dyn Storage) {
    let stamp = || storage.list_stamped("stamps").unwrap();
    storage.put_new("stamps/a", b"one").unwrap();
    let before = stamp();
    storage.remove("stamps/a").unwrap();
    storage.put_new("stamps/a", b"two").unwrap();
    let (before, after) = (&before[0], &stamp()[0]);
    assert_eq!((&before.0, &after.0), (&"a".to_owned(), &"a".to_owned()));
    assert!(before.1.is_none() || before.1 != after.1, "{before:?} and {after:?}");
}

fn what_is_removed_is_gone(storage: &dyn Storage) {
    storage.put_new("gone/a", b"one").unwrap();
    let open = storage.open("gone/a").unwrap();
    storage.remove("gone/a").unwrap();
    storage.remove("gone/a").unwrap();
    assert_eq!(kind(storage.open("gone/a")), ErrorKind::NotFound);
    assert!(storage.list("gone").unwrap().is_empty());
    storage.put_new("gone/a", b"other").unwrap();
    assert_eq!((read_small(storage, "gone/a", ALL).unwrap(), open.size()), (b"other".to_vec(), 3));
}

/// A writer of more than a part whose unfinished object is durable; its name, and how much of it. `None` where nothing is
/// kept.
fn durable(
    storage: &dyn Storage,
    name: &str,
    whole: &[u8],
) -> Option<(Box<dyn ObjectWriter>, String, usize)> {
    let mut writer = storage.create(name).unwrap();
    writer.write(whole).unwrap();
    // Some of it may be on its way still; nobody waits for that.
    let look = |_| {
        std::thread::sleep(Duration::from_millis(5));
        writer.make_durable().unwrap()
    };
    let durable = (0..400).find_map(look);
    assert!(names(storage, "durable").is_empty());
    let Some(Durable { name: unfinished, len }) = durable else {
        assert_eq!(kind(storage.open_unfinished("durable/a.unfinished", name)), ErrorKind::Unsupported);
        return None;
    };
    let (unfinished, len) = (format!("durable/{unfinished}"), usize::try_from(len).unwrap());
    assert!(is_unfinished(&unfinished) && len <= LARGE && len + (8 << 20) >= LARGE, "{unfinished}: {len}");
    assert!(storage.list("durable").unwrap().contains(&unfinished["durable/".len()..].to_owned()));
    Some((writer, unfinished, len))
}

fn what_is_durable_can_be_read(storage: &dyn Storage, another: &dyn Storage) {
    let whole = bytes(LARGE);
    let Some((writer, unfinished, len)) = durable(storage, "durable/a", &whole) else { return };
    drop(writer);
    // Twice: whoever opened it first may have died.
    for storage in [another, storage] {
        let mut piece = vec![0; len];
        let object = storage.open_unfinished(&unfinished, "durable/a").unwrap();
        object.read_exact_at(&mut piece, 0).unwrap();
        assert!(piece == whole[..len]);
    }
    another.remove(&unfinished).unwrap();
    another.remove("durable/a").unwrap();
    assert!(storage.list("durable").unwrap().is_empty());
    assert_eq!(kind(storage.open_unfinished(&unfinished, "durable/a")), ErrorKind::NotFound);
}

fn what_is_removed_unfinished_is_never_finished(storage: &dyn Storage, another: &dyn Storage) {
    let Some((writer, unfinished, _)) = durable(storage, "durable/b", &bytes(LARGE)) else { return };
    another.remove(&unfinished).unwrap();
    assert!(writer.finish().is_err());
    assert_eq!(kind(storage.open_unfinished(&unfinished, "durable/b")), ErrorKind::NotFound);
    assert!(storage.list("durable").unwrap().is_empty());
}

fn what_is_finished_outlives_its_unfinished_name(storage: &dyn Storage, another: &dyn Storage) {
    let whole = bytes(LARGE);
    let Some((writer, unfinished, _)) = durable(storage, "durable/c", &whole) else { return };
    writer.finish().unwrap();
    assert_eq!(storage.list("durable").unwrap(), ["c"]);
    assert_eq!(kind(another.open_unfinished(&unfinished, "durable/c")), ErrorKind::NotFound);
    another.remove(&unfinished).unwrap();
    assert!(read_small(another, "durable/c", 10 * ALL).unwrap() == whole);
    storage.remove("durable/c").unwrap();
}

fn a_lock_has_one_holder(storage: &dyn Storage) {
    assert_eq!(storage.unlock("lock/a", true).unwrap(), Unlocked::Free);
    let guard = storage.lock("lock/a", r#"{"host":"a host","pid":1}"#).unwrap();
    guard.check().unwrap();
    let error = storage.lock("lock/a", "another").err().expect("it is held");
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.full_text().contains("a host"), "{error:?}");
    assert!(matches!(storage.unlock("lock/a", false).unwrap(), Unlocked::Held { .. }));
    drop(storage.lock("lock/b", "another").unwrap());
    drop(guard);
    assert_eq!(storage.unlock("lock/a", false).unwrap(), Unlocked::Free);
    drop(storage.lock("lock/a", "another").unwrap());
}

fn in_folder(folder: &Path) -> Arc<dyn Storage> {
    Arc::new(LocalStorage::new(folder))
}

/// Seals with one key for all.
fn sealing() -> impl Fn(Arc<dyn Storage>) -> Arc<dyn Storage> {
    let keys = MasterKeys::new_random().unwrap();
    move |inner| {
        let sealer = Sealer::new(keys.clone(), BackupId::from_bytes([7; 16]));
        Arc::new(SealedStorage::new(inner, sealer, |_| false))
    }
}

/// With a limit that is never reached, so that what is written and read is cut.
fn throttling() -> impl Fn(Arc<dyn Storage>) -> Arc<dyn Storage> {
    let limit = std::num::NonZeroU64::new(8 << 30);
    let limits = Limits { bwlimit: limit, write_limit: limit, ..Limits::none() };
    let governor = Governor::start(&limits, &Watched::default()).unwrap();
    move |inner| Arc::new(ThrottledStorage::new(inner, governor.throttle().clone(), CancelToken::new()))
}

#[test]
fn a_directory() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(&|| in_folder(folder.path()), 0);
}

#[test]
fn memory() {
    let storage = MemoryStorage::new();
    keeps_the_contract(&|| Arc::new(storage.clone()), 0);
}

#[test]
fn a_sealed_directory() {
    let (folder, sealed) = (tempfile::tempdir().unwrap(), sealing());
    keeps_the_contract(&|| sealed(in_folder(folder.path())), 0);
}

#[test]
fn a_throttled_directory() {
    let (folder, throttled) = (tempfile::tempdir().unwrap(), throttling());
    keeps_the_contract(&|| throttled(in_folder(folder.path())), 0);
}

#[cfg(feature = "object-storage")]
#[test]
fn an_object_store() {
    keeps_the_contract(&super::object::in_memory(), 1);
}

#[cfg(feature = "object-storage")]
#[test]
fn a_sealed_and_throttled_object_store() {
    let (instance, sealed, throttled) = (super::object::in_memory(), sealing(), throttling());
    keeps_the_contract(&|| throttled(sealed(instance())), 0);
}
