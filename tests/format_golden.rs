//! The formats stay what they are: files of every released version, kept in `tests/golden/`, are read and restored with
//! today's code, and today's encoders give the bytes of `docs/FORMAT.md`.
//!
//! Trade-off: the files are small and few, one history for each digest; `tests/storage/format_reader` covers more, but with
//! repositories made the same day, which cannot show that a format has changed.
//! If it fails: the format has changed. Never make the files anew; give the change a version, and make its own folder with
//! `tests/golden/make`.

#![allow(clippy::expect_used, clippy::unwrap_used)] // tests: a panic is the report

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blkdelta_core::backup_id::{BackupRecord, VolumeIdentity};
use blkdelta_core::cancel::CancelToken;
use blkdelta_core::delta::reader::DeltaReader;
use blkdelta_core::digest::{BlockDigest, DigestKind, GrainDigest, RootDigest};
use blkdelta_core::error::{ErrorKind, Result};
use blkdelta_core::format::delta::{self, DeltaHeader, DeltaParent, DeltaTrailer, FrameHeader};
use blkdelta_core::format::index::{
    self, GrainsEntry, IndexEntry, Piece, SegmentLine, decode_segment, encode_segment, encode_table,
};
use blkdelta_core::format::manifest::{self, Form, ManifestHeader, TableEntry, run_check};
use blkdelta_core::format::record;
use blkdelta_core::format::repository_config::Codec;
use blkdelta_core::geometry::Geometry;
use blkdelta_core::grain_set::GrainSet;
use blkdelta_core::manifest::working::WorkingManifest;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::restore::RestoreOptions;
use blkdelta_core::operations::{apply, audit, restore, verify};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::Repository;
use blkdelta_core::repository::tags::TagsDocument;
use blkdelta_core::storage::Storage;
use blkdelta_core::storage::local::LocalStorage;
use sha2::Digest as _;
use support::scratch::copy_folder;

/// One folder for each format version that was ever written. Since v3 the second of three backups was merged into the third.
const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];
const REPOSITORIES: [&str; 3] = ["blake3-zstd", "sha256-lz4", "xxh3-none"];

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(version)
}

fn sha256(path: &Path) -> String {
    let digest = sha2::Sha256::digest(fs::read(path).unwrap());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// SHA-256 of the state that this backup of this repository must restore to.
fn expected(version: &str, repository: &str, sequence: u32) -> String {
    let lines = fs::read_to_string(golden(version).join("expected")).unwrap();
    let wanted = format!(" {repository} {sequence}");
    lines.lines().find_map(|line| line.strip_suffix(&wanted)).unwrap().to_owned()
}

fn restored(repository: &Repository, record: &BackupRecord, target: &Path) {
    let options = RestoreOptions { gentleness: Gentleness::full_speed(), ..RestoreOptions::new(target) };
    let report =
        restore::restore(repository, record, &options, &Progress::new(), &CancelToken::new()).unwrap();
    assert!(report.root_proven);
}

/// A copy, as a restore is written down in the repository.
fn opened(version: &str, name: &str, scratch: &Path) -> Repository {
    let folder = scratch.join(format!("repository-{version}-{name}"));
    copy_folder(&golden(version).join(name), &folder);
    Repository::open_local(&folder).unwrap()
}

fn records(repository: &Repository) -> Vec<BackupRecord> {
    let catalog = repository.catalog(None).unwrap();
    assert!(catalog.damaged.is_empty(), "{:?}", catalog.damaged);
    catalog.records
}

#[test]
fn every_version_is_restored_and_verified() {
    let scratch = tempfile::tempdir().unwrap();
    for (version, name) in VERSIONS.iter().flat_map(|version| REPOSITORIES.map(|name| (version, name))) {
        let repository = opened(version, name, scratch.path());
        let records = records(&repository);
        let sequences: Vec<u32> = records.iter().map(|record| record.sequence).collect();
        assert_eq!(sequences, if *version >= "v3" { vec![1, 3] } else { vec![1, 2, 3] });
        for record in &records {
            let target = scratch.path().join(format!("{version}-{name}-{}", record.sequence));
            restored(&repository, record, &target);
            assert_eq!(
                sha256(&target),
                expected(version, name, record.sequence),
                "{name} {}",
                record.sequence
            );
        }
        let report = verify::verify(
            &repository,
            &records,
            &[],
            &verify::VerifyOptions {
                data: true,
                gentleness: Gentleness::full_speed(),
                ..verify::VerifyOptions::default()
            },
            &Progress::new(),
            &CancelToken::new(),
        )
        .unwrap();
        assert!(report.ok, "{:?}", report.problems);
    }
}

#[test]
fn every_version_of_scan_files_is_read_and_applied() {
    let scratch = tempfile::tempdir().unwrap();
    for version in VERSIONS {
        let parent = WorkingManifest::open(&golden(version).join("scan.manifest")).unwrap();
        let object = LocalStorage::new(golden(version)).open("scan.delta").unwrap();
        let delta = Arc::new(DeltaReader::open(object).unwrap());
        delta.prove_bytes(|_| Ok(())).unwrap();
        assert_eq!(delta.header().parent.unwrap().root, parent.header().root);
        assert_eq!(delta.header().parent.unwrap().size, parent.header().geometry.volume_size());
        for block in 0..parent.header().geometry.block_count() {
            let entry = parent.entry(block).unwrap().unwrap();
            assert!(parent.run(block, &entry.digest).unwrap().is_some(), "the run of block {block}");
        }

        let repository = opened(version, "blake3-zstd", scratch.path());
        let target = scratch.path().join(version);
        restored(&repository, &records(&repository)[0], &target);
        let (file, progress) = (golden(version).join("scan.delta"), Progress::new());
        let report = apply::apply(&file, &target, false, &progress, &CancelToken::new()).unwrap();
        assert_eq!(report.root, delta.trailer().root);
        // The state behind the delta is that of the second backup, the same in all versions.
        assert_eq!(sha256(&target), expected("v2", "blake3-zstd", 2));
    }
}

#[test]
fn a_record_with_every_key_is_read() {
    let bytes = fs::read(golden("v2").join("whole-record.json")).unwrap();
    let record: BackupRecord = record::decode(&bytes).unwrap();
    assert_eq!((record.schema_version, record.sequence), (2, 3));
    let baseline = record.baseline().unwrap();
    assert_eq!(baseline.kind, "lvm-thin");
    assert!(baseline.name.starts_with("vg0/blkdelta-") && baseline.generation.ends_with("thin id 7"));
    assert_eq!(record.group.unwrap().to_string(), "00112233445566778899aabbccddeeff");
    let position = record.position.clone().unwrap();
    assert_eq!(position.postgres.unwrap().lsn, "0/2DCD1F8");
    assert_eq!(position.mysql.unwrap().position, Some(2173));
    let again: BackupRecord = record::decode(&record::encode(&record).unwrap()).unwrap();
    assert_eq!(again, record);

    let bytes = fs::read(golden("v3").join("whole-record.json")).unwrap();
    let merged: BackupRecord = record::decode(&bytes).unwrap();
    assert_eq!((merged.schema_version, merged.sequence, merged.revision), (3, 3, 1));
    let replaced: Vec<u32> = merged.replaces.iter().map(|replaced| replaced.sequence).collect();
    assert_eq!(replaced, [2, 3]);
    let bytes = fs::read(golden("v4").join("whole-record.json")).unwrap();
    let known: BackupRecord = record::decode(&bytes).unwrap();
    assert_eq!((known.schema_version, known.audit.map(|head| head.number)), (4, Some(3)));
    assert!(merged.answers_to(&merged.replaces[1].backup_id.to_string()), "the old id of the same state");
    assert!(
        merged.was_merged_from(&merged.replaces[0].backup_id.to_string()),
        "the id of a state that is gone"
    );
}

/// The log of three backups and a merge.
#[test]
fn an_audit_log_is_read_and_proven() {
    let repository = Repository::open_local(&golden("v4").join("blake3-zstd")).unwrap();
    let log = audit::audit(&repository, true).unwrap();
    assert!(log.ok, "{:?}", log.problems);
    let verbs: Vec<&str> = log.entries.iter().map(|entry| entry.verb.as_str()).collect();
    assert_eq!(verbs, ["backup", "backup", "backup", "merge", "merge"]);
    for entry in &log.entries {
        let name = golden("v4").join(format!("blake3-zstd/audit/{:010}.json", entry.number));
        assert_eq!(record::encode(entry).unwrap(), fs::read(name).unwrap(), "today's encoder");
    }
}

/// Both generations put beside the record: the greater one counts, and today's encoder gives its bytes.
#[test]
fn tags_that_were_changed_later_are_read() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("volumes/golden%2Fvolume%201/tags");
    copy_folder(&golden("v2").join("blake3-zstd"), scratch.path());
    copy_folder(&golden("tags"), &folder);
    let records = records(&Repository::open_local(scratch.path()).unwrap());
    let tags: Vec<Vec<String>> = records.iter().map(|record| record.tags.clone()).collect();
    assert_eq!(tags, [vec!["state 1"], vec!["state 2"], vec!["pin", "größe 1"]]);

    let document = TagsDocument { schema_version: 1, backup_id: records[2].backup_id, tags: tags[2].clone() };
    let bytes = fs::read(folder.join("0000000003-0000000002.json")).unwrap();
    assert_eq!(record::encode(&document).unwrap(), bytes);
}

/// The structures of `pinned.json`, made from the specification by `tests/golden/pinned.py`.
struct Pinned(serde_json::Value);

impl Pinned {
    fn read() -> Self {
        Self(serde_json::from_slice(&fs::read(golden("v1").join("pinned.json")).unwrap()).unwrap())
    }

    fn group(&self, group: &str) -> BTreeMap<String, Vec<u8>> {
        let group = self.0[group].as_object().unwrap();
        group.iter().map(|(name, text)| (name.clone(), bytes(text.as_str().unwrap()))).collect()
    }
}

/// Hexadecimal digits; `(N)` stands for N zero bytes.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in text.split_inclusive(')') {
        let (digits, zeros) = piece.split_once('(').unwrap_or((piece, "0)"));
        for at in (0..digits.len()).step_by(2) {
            out.push(u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        }
        out.resize(out.len() + zeros.trim_end_matches(')').parse::<usize>().unwrap(), 0);
    }
    out
}

fn identity() -> VolumeIdentity {
    VolumeIdentity::new("file:golden").unwrap()
}

fn manifest_header(form: Form) -> ManifestHeader {
    ManifestHeader {
        form,
        geometry: Geometry::new(5 << 40, 4 << 20, 8192).unwrap(),
        digest: DigestKind::Blake3,
        identity: identity(),
        sequence: 7,
        parent_sequence: 6,
        parent_root: RootDigest([1; 32]),
        scanned_sequence: 5,
        root: RootDigest([2; 32]),
    }
}

fn delta_header(parent: Option<DeltaParent>) -> DeltaHeader {
    DeltaHeader {
        geometry: Geometry::new((40 << 20) + 5, 1 << 20, 4096).unwrap(),
        digest: DigestKind::Sha256,
        identity: identity(),
        sequence: 2,
        parent,
    }
}

fn delta_parent() -> DeltaParent {
    DeltaParent { sequence: 1, root: RootDigest([9; 32]), size: 20 << 20 }
}

/// Where a trailer stands that says its table of one segment begins at 600.
const TRAILER_OFFSET: u64 = 600 + 32 + 16;

fn trailer() -> DeltaTrailer {
    DeltaTrailer {
        table_offset: 600,
        segments: 1,
        frames: 2,
        blocks_changed: 3,
        grains_changed: 4,
        bytes_changed: 16384,
        root: RootDigest([8; 32]),
        digest: [7; 32],
    }
}

const FRAME_OFFSET: u64 = 512;
const PAYLOAD: &[u8] = b"blkdelta";

fn segment_geometry() -> Geometry {
    Geometry::new(10 * 65536, 65536, 4096).unwrap()
}

fn grain_set(grains: &[u32]) -> GrainSet {
    let mut set = GrainSet::empty(16);
    grains.iter().for_each(|grain| set.insert(*grain));
    set
}

fn entries() -> [IndexEntry; 3] {
    [
        IndexEntry::Grains(GrainsEntry {
            index: 1,
            len: 65536,
            whole: false,
            old: BlockDigest([1; 32]),
            new: BlockDigest([2; 32]),
            stored: grain_set(&[3, 15]),
            zero: grain_set(&[4]),
            pieces: vec![Piece { frame: 512, raw_offset: 4096, grains: 2 }],
            digests: vec![GrainDigest([5; 16]), GrainDigest([6; 16])],
        }),
        IndexEntry::Zero { index: 2, len: 65536, old: BlockDigest([3; 32]) },
        IndexEntry::ZeroRange { first: 4, count: 6 },
    ]
}

fn segment_line(len: usize) -> SegmentLine {
    SegmentLine { offset: 1000, len: u32::try_from(len).unwrap(), entries: 3, first: 1, last: 9 }
}

/// Today's bytes of what `pinned.py` has under the same name.
fn encoded() -> BTreeMap<&'static str, Vec<u8>> {
    let mut body = Vec::new();
    entries().iter().for_each(|entry| entry.encode(&mut body));
    let lines = [segment_line(300), SegmentLine { offset: 2000, len: 72, entries: 1, first: 10, last: 12 }];
    let mut table_entry = Vec::new();
    TableEntry { digest: BlockDigest([4; 32]), last_read: 7 }.encode(&mut table_entry);
    let mut frame = FrameHeader::encode(Codec::None, 8, PAYLOAD, FRAME_OFFSET);
    frame.extend_from_slice(PAYLOAD);
    let stored = |full| manifest_header(Form::Stored { pages: 3, full }).encode();
    let working = |unsettled| manifest_header(Form::Working { unsettled }).encode();
    BTreeMap::from([
        ("manifest stored", stored(false)),
        ("manifest stored full", stored(true)),
        ("manifest working", working(false)),
        ("manifest working unsettled", working(true)),
        ("delta", delta_header(Some(delta_parent())).encode()),
        ("delta full", delta_header(None).encode()),
        ("trailer", trailer().encode()),
        ("frame", frame),
        ("segment", encode_segment(&body, &segment_line(0))),
        ("table", encode_table(&lines, 5000)),
        ("table entry", table_entry),
        (
            "run check",
            run_check(&BlockDigest([1; 32]), &[GrainDigest([5; 16]), GrainDigest([6; 16])]).to_vec(),
        ),
        ("envelope", record::encode(&serde_json::json!({"a": 1})).unwrap()),
    ])
}

/// Decodes what a name of `pinned.json` begins with.
fn decode(name: &str, bytes: &[u8]) -> Result<()> {
    match name.split(':').next().unwrap().split(' ').next().unwrap() {
        "manifest" => ManifestHeader::decode(bytes.try_into().unwrap()).map(drop),
        "delta" => DeltaHeader::decode(bytes.try_into().unwrap()).map(drop),
        "trailer" => DeltaTrailer::decode(bytes.try_into().unwrap(), TRAILER_OFFSET).map(drop),
        "frame" => {
            let (header, payload) = bytes.split_first_chunk().unwrap();
            FrameHeader::decode(header)?.prove(header, payload, FRAME_OFFSET).map(drop)
        }
        "segment" => decode_segment(bytes, &segment_line(bytes.len()), &segment_geometry()).map(drop),
        "table" if name == "table entry" => TableEntry::decode(bytes).map(drop),
        "table" => index::decode_table_page(bytes, 5000).map(drop),
        "envelope" => record::decode::<serde_json::Value>(bytes).map(drop),
        "run" => Ok(()),
        other => panic!("nobody decodes '{other}'"),
    }
}

#[test]
fn encoders_give_the_bytes_of_the_specification() {
    let pinned = Pinned::read().group("pinned");
    let encoded = encoded();
    assert_eq!(pinned.keys().collect::<Vec<_>>(), encoded.keys().collect::<Vec<_>>());
    for (name, bytes) in &pinned {
        assert!(*bytes == encoded[name.as_str()], "the bytes of '{name}' have changed");
        decode(name, bytes).unwrap();
    }
}

#[test]
fn decoders_give_back_what_was_encoded() {
    let pinned = Pinned::read().group("pinned");
    let of = |name: &str| pinned[name].as_slice();
    for (name, form) in [
        ("manifest stored", Form::Stored { pages: 3, full: false }),
        ("manifest stored full", Form::Stored { pages: 3, full: true }),
        ("manifest working", Form::Working { unsettled: false }),
        ("manifest working unsettled", Form::Working { unsettled: true }),
    ] {
        let header = ManifestHeader::decode(of(name).try_into().unwrap()).unwrap();
        assert_eq!(header, manifest_header(form));
    }
    let header = DeltaHeader::decode(of("delta").try_into().unwrap()).unwrap();
    assert_eq!(header, delta_header(Some(delta_parent())));
    let full = DeltaHeader::decode(of("delta full").try_into().unwrap()).unwrap();
    assert_eq!(full, delta_header(None));
    let end = DeltaTrailer::decode(of("trailer").try_into().unwrap(), TRAILER_OFFSET).unwrap();
    assert_eq!(end, trailer());
    let segment = of("segment");
    assert_eq!(
        decode_segment(segment, &segment_line(segment.len()), &segment_geometry()).unwrap(),
        entries()
    );
}

#[test]
fn what_a_newer_program_wrote_is_refused_as_unsupported() {
    for (name, bytes) in Pinned::read().group("unsupported") {
        let error = decode(&name, &bytes).expect_err(&name);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_as_damaged() {
    for (name, bytes) in Pinned::read().group("damaged") {
        let error = decode(&name, &bytes).expect_err(&name);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {error}");
    }
}

#[test]
fn sizes_are_those_of_the_specification() {
    assert_eq!((manifest::HEADER_LEN, manifest::ENTRY_LEN, manifest::PAGE_LEN), (4096, 36, 9216));
    assert_eq!((manifest::DIRECTORY_ENTRY_LEN, manifest::RUN_CHECK_LEN), (40, 8));
    assert_eq!((delta::HEADER_LEN, delta::TRAILER_LEN, delta::FRAME_HEADER_LEN), (512, 256, 32));
    assert_eq!((delta::FRAME_RAW_MAX, index::SEGMENT_MAX), (1_114_112, 1_048_576));
    assert_eq!(
        (index::SEGMENT_HEADER_LEN, index::TABLE_ENTRY_LEN, index::TABLE_PAGE_ENTRIES),
        (48, 32, 1024)
    );
    assert_eq!(record::MAX_LEN, 1_048_576);
}
