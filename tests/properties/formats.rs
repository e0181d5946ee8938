//! Every digest, compression, block size and grain size, with volumes of every odd length.

use blkdelta_core::digest::DigestKind;
use blkdelta_core::format::repository_config::Compression;
use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::repository::InitOptions;
use support::engine::{Engine, cut_of};
use support::expect::{Cut, changes, contents};
use support::model::Volume;
use support::scratch::{assert_same_bytes, read};

use super::assert_counts;

fn format(digest: DigestKind, compression: Compression, block_kib: u32, grain_kib: u32) -> InitOptions {
    InitOptions { digest, block_size: block_kib << 10, grain_size: grain_kib << 10, compression }
}

/// Nothing, a byte, a sector, a grain, blocks; and one byte or sector around each.
fn odd_sizes(cut: Cut) -> Vec<usize> {
    let mut sizes = vec![0, 1, 511, 512, 513];
    for edge in [cut.grain, cut.block, 3 * cut.block] {
        sizes.extend([edge - 512, edge - 1, edge, edge + 1, edge + 512]);
    }
    sizes.push(2 * cut.block + cut.grain + 1);
    sizes
}

/// A full backup; a change of the last byte alone; a volume with a zero tail. Each restores, and counts what it must.
fn round_trip(options: &InitOptions, size: usize) {
    let (engine, cut) = (Engine::new(*options), cut_of(options));
    let mut volume = Volume::seeded(engine.scratch.path("image"), size as u64 + 1, size as u64);
    let full = engine.backup(volume.path(), WantedKind::Auto).expect("a full backup");
    assert_eq!(full.record.size_bytes, size as u64);
    assert_counts(&full.record.statistics, &contents(volume.bytes(), cut), true);
    let before = volume.bytes().to_vec();
    if let Some(last) = before.last() {
        volume.write(size - 1, &[last ^ 1]);
    }
    let next = engine.backup(volume.path(), WantedKind::Auto).expect("an incremental backup");
    assert_counts(&next.record.statistics, &changes(&before, volume.bytes(), cut), true);
    let (_, ranges) = engine.diff(&full.record, &next.record).expect("a diff");
    assert_eq!(ranges, changes(&before, volume.bytes(), cut).ranges);
    for (record, bytes) in [(&full.record, before.as_slice()), (&next.record, volume.bytes())] {
        let target = engine.scratch.path(&format!("restored {}", record.sequence));
        let report = engine.restore_to(record, &target, false).expect("a restore");
        assert!(report.root_proven);
        assert_same_bytes(&read(&target), bytes, &format!("{options:?} with {size} bytes"));
    }
    let report = engine.verify(true);
    assert!(report.ok, "{options:?} with {size} bytes: {:?}", report.problems);
}

fn round_trips(options: &InitOptions) {
    odd_sizes(cut_of(options)).into_iter().for_each(|size| round_trip(options, size));
}

#[test]
fn blake3_zstd_64_kib_blocks_4_kib_grains() {
    round_trips(&format(DigestKind::Blake3, Compression::Zstd(1), 64, 4));
}

#[test]
fn sha256_lz4_64_kib_blocks_that_are_one_grain() {
    round_trips(&format(DigestKind::Sha256, Compression::Lz4, 64, 64));
}

#[test]
fn xxh3_uncompressed_128_kib_blocks_8_kib_grains() {
    round_trips(&format(DigestKind::Xxh3, Compression::None, 128, 8));
}

/// The other combinations with three sizes each: the smallest with a second grain, one block and a sector, and the largest.
#[test]
fn every_digest_with_every_compression_and_size() {
    let digests = [DigestKind::Blake3, DigestKind::Sha256, DigestKind::Xxh3];
    let compressions = [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)];
    let cuts = [(64, 16), (128, 4), (256, 32), (512, 64), (1024, 8)];
    let mut cuts = cuts.iter().cycle();
    for digest in digests {
        for compression in compressions {
            let (block, grain) = cuts.next().expect("an endless list");
            let options = format(digest, compression, *block, *grain);
            let cut = cut_of(&options);
            for size in [cut.grain + 1, cut.block + 512, 2 * cut.block - 1] {
                round_trip(&options, size);
            }
        }
    }
}
