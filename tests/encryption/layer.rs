//! The layer alone: whatever is written in whatever pieces is read back in whatever pieces, and nothing else opens.

use std::sync::Arc;

use blkdelta_core::backup_id::BackupId;
use blkdelta_core::crypto::master_keys::MasterKeys;
use blkdelta_core::crypto::sealing::{HEADER_LEN, SEALED_UNIT_LEN, Sealer, UNIT_LEN};
use blkdelta_core::error::ErrorKind;
use blkdelta_core::storage::memory::MemoryStorage;
use blkdelta_core::storage::sealed::SealedStorage;
use blkdelta_core::storage::{ObjectReader, Storage, read_small};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use support::content::volume_bytes;
use support::strategies::cases;

fn sealed(inner: &MemoryStorage, keys: &MasterKeys) -> SealedStorage {
    let sealer = Sealer::new(keys.clone(), BackupId::from_bytes([1; 16]));
    SealedStorage::new(Arc::new(inner.clone()), sealer, |name| name == "clear")
}

/// Sizes on both sides of every edge of a unit.
fn size() -> impl Strategy<Value = usize> {
    let edges = (0..5_usize, 0..3_usize).prop_map(|(units, off)| (units * UNIT_LEN + off).saturating_sub(1));
    prop_oneof![edges, 0..3 * UNIT_LEN, (18 * UNIT_LEN - 2)..(18 * UNIT_LEN + 2)]
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn any_bytes_come_back_however_they_are_written_and_read(
        size in size(),
        at_once in any::<bool>(),
        cuts in proptest::collection::vec(1..2 * UNIT_LEN, 1..6),
        reads in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..12),
    ) {
        let (inner, keys) = (MemoryStorage::new(), MasterKeys::new_random().unwrap());
        let storage = sealed(&inner, &keys);
        let model = volume_bytes(size as u64, size);
        if at_once {
            storage.put_new("object", &model).unwrap();
        } else {
            let mut writer = storage.create("object").unwrap();
            let (mut rest, mut cuts) = (&model[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                writer.write(now).unwrap();
                rest = later;
            }
            writer.finish().unwrap();
        }
        let object = storage.open("object").unwrap();
        assert_eq!(object.size(), size as u64);
        for (offset, len) in reads {
            let offset = (offset % (size as u64 + 1)) as usize;
            let len = (len % (size as u64 - offset as u64 + 1)) as usize;
            let mut buffer = vec![0; len];
            object.read_exact_at(&mut buffer, offset as u64).unwrap();
            assert!(buffer == model[offset..offset + len], "{len} bytes at {offset} of {size}");
        }
        let mut whole = vec![0; size];
        object.read_exact_at(&mut whole, 0).unwrap();
        assert!(whole == model, "the whole object");
        for (offset, len) in [(size as u64, 1), (size as u64 + 1, 0), (u64::MAX, 2)] {
            let error = object.read_exact_at(&mut vec![0; len], offset).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
        let stored = inner.open("object").unwrap().size();
        assert_eq!(stored, (HEADER_LEN + size + 16 * size.div_ceil(UNIT_LEN).max(1)) as u64);
    }
}

/// Reads all, as one piece and unit by unit; an error of either is what is told.
fn read_all(object: &dyn ObjectReader) -> blkdelta_core::error::Result<Vec<u8>> {
    let mut bytes = vec![0; object.size() as usize];
    for (number, piece) in bytes.chunks_mut(1000).enumerate() {
        object.read_exact_at(piece, number as u64 * 1000)?;
    }
    object.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[test]
fn units_cannot_change_places_nor_go_nor_come() {
    let (inner, keys) = (MemoryStorage::new(), MasterKeys::new_random().unwrap());
    let storage = sealed(&inner, &keys);
    let plain = volume_bytes(1, 3 * UNIT_LEN + 100);
    storage.put_new("object", &plain).unwrap();
    let whole = read_small(&inner, "object", 1 << 20).unwrap();
    let unit = |number: usize| &whole[HEADER_LEN + number * SEALED_UNIT_LEN..][..SEALED_UNIT_LEN];
    let (head, last) = (&whole[..HEADER_LEN], &whole[HEADER_LEN + 3 * SEALED_UNIT_LEN..]);
    let wrong: [(&str, Vec<u8>); 6] = [
        ("two units in the other order", [head, unit(1), unit(0), unit(2), last].concat()),
        ("a unit twice", [head, unit(0), unit(1), unit(1), unit(2), last].concat()),
        ("a unit less", [head, unit(0), unit(2), last].concat()),
        ("cut behind a unit", [head, unit(0), unit(1), unit(2)].concat()),
        ("cut inside a unit", whole[..whole.len() - 1].to_vec()),
        ("something behind the end", [&whole[..], b"more"].concat()),
    ];
    for (what, bytes) in wrong {
        inner.remove("object").unwrap();
        inner.put_new("object", &bytes).unwrap();
        let error = storage.open("object").and_then(|object| read_all(&*object)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
        assert!(error.error_path().is_some() && error.place().is_some(), "{what}: {error:?}");
    }
    inner.remove("object").unwrap();
    inner.put_new("object", &whole).unwrap();
    assert!(read_all(&*storage.open("object").unwrap()).unwrap() == plain);
}

#[test]
fn what_must_be_read_without_a_key_stays_in_clear() {
    let (inner, keys) = (MemoryStorage::new(), MasterKeys::new_random().unwrap());
    let storage = sealed(&inner, &keys);
    storage.put_new("clear", b"text").unwrap();
    assert_eq!(read_small(&inner, "clear", 100).unwrap(), b"text");
    assert_eq!(read_small(&storage, "clear", 100).unwrap(), b"text");
}
