//! Bytes that somebody made up: every reader answers with damage (or "a newer version"), never with a panic, and never
//! takes memory because a field says so.
//!
//! A checksum is no protection against its author, so most of these bytes carry a right one: what is tested is what
//! stands behind it.
// A broken expectation must end the test, also in a function that several tests call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

mod faults;

use std::fs;
use std::sync::Arc;

use blkdelta_core::backup_id::BackupRecord;
use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::format::delta::{self, DeltaHeader, DeltaTrailer, FrameHeader};
use blkdelta_core::format::index::{
    SegmentLine, decode_segment, decode_table_page, encode_segment, encode_table,
};
use blkdelta_core::format::manifest::{self, ManifestHeader};
use blkdelta_core::format::record;
use blkdelta_core::geometry::Geometry;
use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::verify::{VerifyOptions, verify};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::Repository;
use blkdelta_core::storage::Storage;
use blkdelta_core::storage::memory::MemoryStorage;
use faults::alone;
use faults::hostile::{Chance, peak_memory, reseal};
use faults::journal::{Journal, Step};
use faults::lab::{Lab, format, image, try_restored};

/// Damage, or something newer: nothing else may come of bytes that do not make sense.
fn assert_honest<T>(result: Result<T>, context: &str) {
    if let Err(error) = result {
        assert_honest_error(&error, context);
    }
}

fn assert_honest_error(error: &Error, context: &str) {
    let honest = matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported);
    assert!(honest, "{context}: {error:?}");
}

/// A repository in memory with a full, an incremental and one of a grown volume.
struct Victim {
    lab: Lab,
    steps: Vec<Step>,
}

impl Victim {
    fn new() -> Self {
        let journal = Journal::new();
        let lab = Lab::new();
        let repository = Repository::init(Arc::new(journal.clone()), format()).unwrap();
        for generation in 1..=3 {
            lab.write_image(generation);
            lab.backup_to(&repository, WantedKind::Auto).unwrap();
        }
        Self { lab, steps: journal.steps() }
    }

    /// The bytes of the objects whose name ends so, in order.
    fn objects(&self, ending: &str) -> Vec<(String, Vec<u8>)> {
        let puts = self.steps.iter().filter_map(|step| match step {
            Step::Put(name, bytes) if name.ends_with(ending) => Some((name.clone(), bytes.clone())),
            _ => None,
        });
        puts.collect()
    }

    /// The repository with one object exchanged, and records that are right about its size.
    fn with(&self, name: &str, bytes: &[u8]) -> MemoryStorage {
        let storage = MemoryStorage::new();
        for step in &self.steps {
            let Step::Put(other, old) = step else { continue };
            let mut new = if other == name { bytes.to_vec() } else { old.clone() };
            if other.ends_with(".json") && other != name && other.contains("/records/") {
                new = adjusted(old, name, bytes.len() as u64);
            }
            storage.put_new(other, &new).unwrap();
        }
        storage
    }
}

/// The record with the size that its file has now.
fn adjusted(bytes: &[u8], name: &str, size: u64) -> Vec<u8> {
    let mut record: BackupRecord = record::decode(bytes).unwrap();
    for file in [&mut record.delta, &mut record.manifest] {
        if file.name == name {
            file.size = size;
        }
    }
    record::encode(&record).unwrap()
}

/// All that a user would do with it: every way must end, and honestly.
fn use_all(storage: MemoryStorage, context: &str) {
    let repository = match Repository::open(Arc::new(storage)) {
        Ok(repository) => repository,
        Err(error) => return assert_honest_error(&error, context),
    };
    let catalog = match repository.catalog(None) {
        Ok(catalog) => catalog,
        Err(error) => return assert_honest_error(&error, context),
    };
    catalog.damaged.iter().for_each(|error| assert_honest_error(error, context));
    let (progress, cancel) = (Progress::new(), CancelToken::new());
    for data in [false, true] {
        verify(
            &repository,
            &catalog.records,
            &catalog.damaged,
            &VerifyOptions { data, gentleness: Gentleness::full_speed(), ..VerifyOptions::default() },
            &progress,
            &cancel,
        )
        .unwrap();
    }
    for record in &catalog.records {
        match try_restored(&repository, record) {
            Ok(bytes) => assert!(bytes == *image(record.sequence), "{context}: other bytes are restored"),
            Err(error) => assert_honest_error(&error, context),
        }
    }
}

/// The next backup, whose local state has to be rebuilt from what is stored.
fn build_on(lab: &Lab, storage: MemoryStorage, context: &str) {
    let Ok(repository) = Repository::open(Arc::new(storage)) else { return };
    let _ = fs::remove_dir_all(lab.path("state"));
    match lab.backup_to(&repository, WantedKind::Auto) {
        Ok(report) => {
            let bytes = try_restored(&repository, &report.record);
            assert!(
                bytes.is_ok_and(|bytes| bytes == *image(3)),
                "{context}: a backup that does not come back"
            );
        }
        Err(error) => assert_honest_error(&error, context),
    }
}

#[test]
fn made_up_headers_are_damage() {
    let _alone = alone();
    let victim = Victim::new();
    let manifest: Vec<u8> = victim.objects(".manifest")[1].1[..manifest::HEADER_LEN].to_vec();
    let (_, whole) = &victim.objects(".delta")[1];
    let header = whole[..delta::HEADER_LEN].to_vec();
    let trailer_at = whole.len() - delta::TRAILER_LEN;
    let trailer = whole[trailer_at..].to_vec();
    let frame = whole[delta::HEADER_LEN..][..delta::FRAME_HEADER_LEN].to_vec();
    let before = peak_memory();
    let mut chance = Chance::new(1);
    for round in 0..20_000 {
        let context = format!("round {round}");
        let mut bytes = manifest.clone();
        chance.mutate(&mut bytes[10..]);
        reseal(&mut bytes);
        assert_honest(ManifestHeader::decode(&bytes.try_into().unwrap()), &context);
        let mut bytes = header.clone();
        chance.mutate(&mut bytes[10..]);
        reseal(&mut bytes);
        assert_honest(DeltaHeader::decode(&bytes.try_into().unwrap()), &context);
        let mut bytes = trailer.clone();
        chance.mutate(&mut bytes[10..]);
        reseal(&mut bytes);
        assert_honest(DeltaTrailer::decode(&bytes.try_into().unwrap(), trailer_at as u64), &context);
        let mut bytes = frame.clone();
        chance.mutate(&mut bytes);
        assert_honest(FrameHeader::decode(&bytes.try_into().unwrap()), &context);
    }
    assert!(peak_memory() - before < 64 << 20, "a length was believed");
}

#[test]
fn made_up_segments_and_tables_are_damage() {
    let _alone = alone();
    let victim = Victim::new();
    let (_, whole) = &victim.objects(".delta")[2];
    let (line, body, geometry) = only_segment(whole);
    let sound = encode_segment(&body, &line);
    assert!(!decode_segment(&sound, &line, &geometry).unwrap().is_empty());
    let before = peak_memory();
    let mut chance = Chance::new(2);
    for round in 0..20_000 {
        let mut body = body.clone();
        // Half of them near the start, where the lengths are.
        let reach = if chance.below(2) == 0 { 128.min(body.len()) } else { body.len() };
        chance.mutate(&mut body[..reach]);
        body.truncate(body.len() - if chance.below(4) == 0 { chance.below(body.len()) } else { 0 });
        let mut line = line;
        if chance.below(4) == 0 {
            line.entries = chance.number() as u32;
            line.last = chance.number();
        }
        let bytes = encode_segment(&body, &line);
        assert_honest(decode_segment(&bytes, &line, &geometry), &format!("round {round}"));
        let lines = vec![SegmentLine { len: chance.number() as u32, offset: chance.number(), ..line }; 3];
        assert_honest(decode_table_page(&encode_table(&lines, 7), 7), &format!("round {round}"));
        let len = chance.below(200);
        assert_honest(decode_table_page(&chance.bytes(len), 7), &format!("round {round}"));
    }
    assert!(peak_memory() - before < 64 << 20, "a length was believed");
}

/// The line and entries of a small delta's only segment.
fn only_segment(whole: &[u8]) -> (SegmentLine, Vec<u8>, Geometry) {
    let trailer_at = whole.len() - delta::TRAILER_LEN;
    let trailer = DeltaTrailer::decode(whole[trailer_at..].try_into().unwrap(), trailer_at as u64).unwrap();
    let header = DeltaHeader::decode(whole[..delta::HEADER_LEN].try_into().unwrap()).unwrap();
    assert_eq!(trailer.segments, 1);
    let table = &whole[trailer.table_offset as usize..trailer_at];
    let line = decode_table_page(table, trailer.table_offset).unwrap()[0];
    let start = line.offset as usize + blkdelta_core::format::index::SEGMENT_HEADER_LEN;
    (line, whole[start..line.offset as usize + line.len as usize].to_vec(), header.geometry)
}

/// The delta with these entries in its only segment, and every checksum right again.
fn rebuilt(whole: &[u8], body: &[u8]) -> Vec<u8> {
    let trailer_at = whole.len() - delta::TRAILER_LEN;
    let mut trailer =
        DeltaTrailer::decode(whole[trailer_at..].try_into().unwrap(), trailer_at as u64).unwrap();
    let (mut line, _, _) = only_segment(whole);
    let mut bytes = whole[..line.offset as usize].to_vec();
    let segment = encode_segment(body, &line);
    line.len = u32::try_from(segment.len()).unwrap();
    bytes.extend_from_slice(&segment);
    trailer.table_offset = bytes.len() as u64;
    bytes.extend_from_slice(&encode_table(&[line], trailer.table_offset));
    trailer.digest = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&trailer.encode());
    bytes
}

#[test]
fn a_delta_made_up_behind_right_checksums_restores_nothing_wrong() {
    let _alone = alone();
    let victim = Victim::new();
    let mut chance = Chance::new(3);
    for (name, whole) in victim.objects(".delta") {
        let (_, body, _) = only_segment(&whole);
        assert!(rebuilt(&whole, &body) == whole, "the helper does not rebuild what was there");
        for round in 0..25 {
            let mut body = body.clone();
            chance.mutate(&mut body);
            use_all(victim.with(&name, &rebuilt(&whole, &body)), &format!("{name}, entries, round {round}"));
            let mut bytes = whole.clone();
            chance.mutate(&mut bytes[10..delta::HEADER_LEN]);
            reseal(&mut bytes[..delta::HEADER_LEN]);
            use_all(victim.with(&name, &bytes), &format!("{name}, header, round {round}"));
            let mut bytes = whole.clone();
            chance.mutate(&mut bytes);
            bytes.truncate(bytes.len() - if chance.below(2) == 0 { chance.below(bytes.len()) } else { 0 });
            use_all(victim.with(&name, &bytes), &format!("{name}, anywhere, round {round}"));
        }
    }
}

#[test]
fn a_grain_that_moved_inside_its_block_is_found_by_the_block() {
    let _alone = alone();
    let victim = Victim::new();
    let (name, whole) = victim.objects(".delta").swap_remove(1);
    let (_, mut body, _) = only_segment(&whole);
    // The bitmap of stored grains of the first entry, behind its start and two digests. Frames and grain digests fit.
    let stored = u16::from_le_bytes([body[80], body[81]]);
    assert!(stored != 0 && stored != u16::MAX, "the block has changed grains and others");
    body[80..82].copy_from_slice(&stored.rotate_left(1).to_le_bytes());
    let repository = Repository::open(Arc::new(victim.with(&name, &rebuilt(&whole, &body)))).unwrap();
    let record = repository.resolve("latest~1", None, None).unwrap();
    assert_eq!(try_restored(&repository, &record).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_manifest_made_up_behind_right_checksums_restores_nothing_wrong() {
    let _alone = alone();
    let victim = Victim::new();
    let mut chance = Chance::new(4);
    for (name, whole) in victim.objects(".manifest") {
        for round in 0..40 {
            let mut bytes = whole.clone();
            chance.mutate(&mut bytes[10..300]);
            reseal(&mut bytes[..manifest::HEADER_LEN]);
            use_all(victim.with(&name, &bytes), &format!("{name}, header, round {round}"));
            build_on(&victim.lab, victim.with(&name, &bytes), &format!("{name}, header, round {round}"));
            let mut bytes = whole.clone();
            chance.mutate(&mut bytes);
            bytes.truncate(bytes.len() - if chance.below(2) == 0 { chance.below(bytes.len()) } else { 0 });
            use_all(victim.with(&name, &bytes), &format!("{name}, anywhere, round {round}"));
        }
    }
}

#[test]
fn made_up_records_and_configurations_are_damage() {
    let _alone = alone();
    let victim = Victim::new();
    let mut chance = Chance::new(5);
    for (name, whole) in victim.objects(".json") {
        let document: serde_json::Value = record::decode(&whole).unwrap();
        for round in 0..50 {
            let mut document = document.clone();
            chance.mutate_json(&mut document);
            let bytes = record::encode(&document).unwrap();
            use_all(victim.with(&name, &bytes), &format!("{name}, round {round}: {document}"));
            let mut bytes = whole.clone();
            chance.mutate(&mut bytes);
            use_all(victim.with(&name, &bytes), &format!("{name}, bytes, round {round}"));
        }
    }
}

#[test]
fn a_manifest_cut_otherwise_than_its_delta_is_damage() {
    let _alone = alone();
    let victim = Victim::new();
    // Offsets of block and grain size in the header.
    for (name, whole) in victim.objects(".manifest") {
        for (at, size) in [(16, 128 << 10), (16, 1 << 20), (20, 8 << 10), (20, 64 << 10)] {
            let mut bytes = whole.clone();
            bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(size));
            reseal(&mut bytes[..manifest::HEADER_LEN]);
            let context = format!("{name}, {size} at {at}");
            use_all(victim.with(&name, &bytes), &context);
            build_on(&victim.lab, victim.with(&name, &bytes), &context);
        }
    }
}
