//! Single stages: digests by kind and grain size, zero test, compression by codec. `cargo bench -p blkdelta-benches`.
#![allow(missing_docs)] // criterion's macros make undocumented items

use blkdelta_benches::volume_bytes;
use blkdelta_core::delta::compression::{Compressor, decompress};
use blkdelta_core::digest::{BlockHasher, DigestKind, is_zero};
use blkdelta_core::format::repository_config::Compression;
use blkdelta_core::geometry::Geometry;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BLOCK: u32 = 4 << 20;

fn digests(criterion: &mut Criterion) {
    let block = volume_bytes(BLOCK as usize);
    let mut group = criterion.benchmark_group("digest");
    group.throughput(Throughput::Bytes(u64::from(BLOCK)));
    for kind in [DigestKind::Blake3, DigestKind::Sha256, DigestKind::Xxh3] {
        for grain in [4096, 8192, 16384, 65536] {
            let Ok(geometry) = Geometry::new(u64::from(BLOCK), BLOCK, grain) else { continue };
            let (mut hasher, mut grains) = (BlockHasher::new(kind, geometry), Vec::new());
            group.bench_function(format!("{kind}/{grain}"), |bencher| {
                bencher.iter(|| hasher.hash(&block, &mut grains));
            });
        }
    }
    let zeros = vec![0; BLOCK as usize];
    group.bench_function("zero_test", |bencher| bencher.iter(|| is_zero(std::hint::black_box(&zeros))));
    group.finish();
}

fn compression(criterion: &mut Criterion) {
    let frame = volume_bytes(1 << 20);
    let mut group = criterion.benchmark_group("compression");
    group.throughput(Throughput::Bytes(1 << 20));
    for choice in [Compression::Lz4, Compression::Zstd(1), Compression::Zstd(3)] {
        let Ok(mut compressor) = Compressor::new(choice) else { continue };
        group
            .bench_function(format!("pack/{choice}"), |bencher| bencher.iter(|| compressor.compress(&frame)));
        let Ok((codec, payload)) = compressor.compress(&frame) else { continue };
        group.bench_function(format!("unpack/{choice}"), |bencher| {
            bencher.iter(|| decompress(codec, payload.clone(), frame.len()));
        });
    }
    group.finish();
}

criterion_group!(stages, digests, compression);
criterion_main!(stages);
