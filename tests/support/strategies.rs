//! What proptest draws from: changes, sizes around every edge, formats.

use blkdelta_core::digest::DigestKind;
use blkdelta_core::format::repository_config::Compression;
use blkdelta_core::repository::InitOptions;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::sample::select;

use crate::model::Change;

const BLOCK: u64 = 64 << 10;
const GRAIN: u64 = 4 << 10;

/// So many cases unless PROPTEST_CASES says otherwise. A case takes up to a second, so shrinking is bounded too.
#[must_use]
pub fn cases(usual: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: wanted.unwrap_or(usual),
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Lengths around the edges of bytes, sectors, grains and blocks.
fn length() -> impl Strategy<Value = u64> {
    select(vec![
        1,
        7,
        511,
        512,
        513,
        GRAIN - 1,
        GRAIN,
        GRAIN + 1,
        3 * GRAIN,
        BLOCK - 512,
        BLOCK,
        BLOCK + 1,
        3 * BLOCK,
    ])
}

/// Places: any, or at the edge of a grain or block.
fn place() -> impl Strategy<Value = u64> {
    let number = 0..(1u64 << 30);
    prop_oneof![
        number.clone(),
        number.clone().prop_map(|number| number / GRAIN * GRAIN),
        number.prop_map(|number| number / BLOCK * BLOCK),
    ]
}

/// A change. Growing is as likely as shrinking, so that volumes stay small.
pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (place(), length(), any::<u64>()).prop_map(|(at, len, seed)| Change::Write { at, len, seed }),
        1 => (place(), length()).prop_map(|(at, len)| Change::WriteZeros { at, len }),
        1 => (place(), length()).prop_map(|(at, len)| Change::Punch { at, len }),
        2 => (any::<u64>(), select(vec![GRAIN, BLOCK, 4 * BLOCK]), any::<bool>())
            .prop_map(|(number, size, punch)| Change::ZeroUnit { number, size, punch }),
        1 => length().prop_map(Change::Grow),
        1 => length().prop_map(Change::Shrink),
        1 => Just(Change::OldSize),
        1 => Just(Change::Touch),
    ]
}

/// Sizes of small volumes: every edge, and many blocks.
pub fn volume_size() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => select(vec![0, 1, 511, 512, GRAIN - 512, GRAIN, GRAIN + 1, BLOCK - 1, BLOCK, BLOCK + 512]),
        6 => (1u64..24, select(vec![-4096i64, -512, -1, 0, 1, 512, 4097]))
            .prop_map(|(blocks, more)| (blocks * BLOCK).saturating_add_signed(more)),
    ]
}

/// Digest, sizes and compression of all kinds, weighted to small ones.
pub fn format() -> impl Strategy<Value = InitOptions> {
    let digest = select(vec![DigestKind::Blake3, DigestKind::Sha256, DigestKind::Xxh3]);
    let compression =
        select(vec![Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(3)]);
    let block_size = select(vec![64 << 10, 64 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20]);
    let grain_size = select(vec![4 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10]);
    (digest, block_size, grain_size, compression).prop_map(|(digest, block_size, grain_size, compression)| {
        InitOptions { digest, block_size, grain_size, compression }
    })
}
