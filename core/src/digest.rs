//! Digests: one pass over a block gives the digest of each grain and of the block; block digests give the root.
//!
//! ```text
//! root   = TREE("blkdelta.root.v1" | volume size | block size | grain size | kind | page digests)
//! page   = TREE("blkdelta.page.v1" | first block | number of blocks | block digests)         256 blocks
//! block  = TREE("blkdelta.blck.v1" | real length | full-width grain digests)
//! grain  = KIND(bytes of the real length)
//! ```
//! TREE is SHA-256 for `sha256` and BLAKE3 for the others. A grain, block or page of zeros has the fixed digest of
//! zero bytes (no real digest is that, but for a chance of 2^-128 or less), so what is empty costs nothing. A block that
//! could not be read has the fixed digest of 0xff bytes, which equals nothing, not even itself: see [`BlockDigest::same`].
//! Trade-off: `xxh3` grains cost the least CPU, but somebody who writes the volume can make two contents that look alike.

mod lanes;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;

use self::lanes::{LANES, Lanes};

use crate::error::{Error, ErrorKind, Result};
use crate::geometry::{BlockIndex, Geometry};

/// Blocks whose digests make one page of the tree, and one page of the manifest.
pub const BLOCKS_PER_PAGE: u64 = 256;

const WIDTH: usize = 32;

/// Which function digests the grains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestKind {
    /// BLAKE3, 256 bits: the default.
    Blake3,
    /// SHA-256.
    Sha256,
    /// XXH3, 128 bits: the least CPU, no protection against somebody who writes the volume on purpose.
    Xxh3,
}

impl DigestKind {
    /// Its number in the formats.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Blake3 => 1,
            Self::Sha256 => 2,
            Self::Xxh3 => 3,
        }
    }

    /// The kind with this number.
    pub fn from_code(code: u8) -> Result<Self> {
        match code {
            1 => Ok(Self::Blake3),
            2 => Ok(Self::Sha256),
            3 => Ok(Self::Xxh3),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("digest kind {code}"))),
        }
    }

    /// Its name in flags and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Xxh3 => "xxh3",
        }
    }
}

impl fmt::Display for DigestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DigestKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Blake3, Self::Sha256, Self::Xxh3].into_iter().find(|kind| kind.name() == text).ok_or_else(
            || {
                Error::new(ErrorKind::WrongUse, format!("unknown digest '{text}'"))
                    .hint("use blake3, sha256 or xxh3")
            },
        )
    }
}

/// Digest of one block, full width.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockDigest(pub [u8; WIDTH]);

impl BlockDigest {
    /// A block of zeros, whatever its length.
    pub const ZERO: Self = Self([0; WIDTH]);
    /// A block that could not be read, or that is not there.
    pub const UNKNOWN: Self = Self([0xff; WIDTH]);

    /// Whether both are known and equal.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self == other && *self != Self::UNKNOWN
    }
}

/// Digest of one grain as it is stored: the first 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GrainDigest(pub [u8; 16]);

impl GrainDigest {
    /// Bytes of a stored grain digest.
    pub const LEN: usize = 16;
    /// A grain of zeros, whatever its length.
    pub const ZERO: Self = Self([0; 16]);
}

/// Digest of a whole volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootDigest(pub [u8; WIDTH]);

impl RootDigest {
    /// Stands where there is no parent.
    pub const NONE: Self = Self([0; WIDTH]);
}

/// Writes bytes as lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads exactly `N` bytes from hexadecimal digits.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! hex_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                from_hex(&text)
                    .map(Self)
                    .ok_or_else(|| serde::de::Error::custom("not a digest of 64 hexadecimal digits"))
            }
        }
    };
}
hex_text!(BlockDigest);
hex_text!(RootDigest);

/// Whether every byte is zero; stops at the first that is not.
#[must_use]
pub fn is_zero(data: &[u8]) -> bool {
    let (chunks, rest) = data.as_chunks::<128>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// BLAKE3 or SHA-256, for the levels above the grains.
enum TreeHasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl TreeHasher {
    fn new(kind: DigestKind, domain: &[u8; 16]) -> Self {
        let mut hasher = match kind {
            DigestKind::Sha256 => Self::Sha256(sha2::Sha256::new()),
            DigestKind::Blake3 | DigestKind::Xxh3 => Self::Blake3(Box::new(blake3::Hasher::new())),
        };
        hasher.update(domain);
        hasher
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => drop(hasher.update(bytes)),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> [u8; WIDTH] {
        match self {
            Self::Blake3(hasher) => *hasher.finalize().as_bytes(),
            Self::Sha256(hasher) => hasher.finalize().into(),
        }
    }
}

/// Digests blocks; holds its scratch space, so one per thread.
pub struct BlockHasher {
    kind: DigestKind,
    geometry: Geometry,
    wide: Vec<u8>,
    lanes: Lanes,
}

impl BlockHasher {
    /// For blocks of this geometry.
    #[must_use]
    pub fn new(kind: DigestKind, geometry: Geometry) -> Self {
        Self { kind, geometry, wide: Vec::new(), lanes: Lanes::default() }
    }

    /// Digests a block of its real length; `grains` is filled with the stored form of each grain's digest.
    pub fn hash(&mut self, block: &[u8], grains: &mut Vec<GrainDigest>) -> BlockDigest {
        let grain_len = crate::geometry::to_usize(u64::from(self.geometry.grain_size()));
        let (count, side_by_side) =
            (block.len().div_ceil(grain_len), self.kind == DigestKind::Blake3 && Lanes::fit(grain_len));
        grains.clear();
        grains.resize(count, GrainDigest::ZERO);
        self.wide.clear();
        self.wide.resize(count * self.width(), 0);
        let (mut all_zero, mut waiting) = (true, Waiting::default());
        for (number, grain) in block.chunks(grain_len).enumerate().filter(|(_, grain)| !is_zero(grain)) {
            all_zero = false;
            if side_by_side && grain.len() == grain_len {
                waiting.add(number, grain);
                if waiting.count == LANES {
                    self.digest_waiting(&mut waiting, grains);
                }
            } else {
                self.digest_one(number, grain, grains);
            }
        }
        if all_zero {
            return BlockDigest::ZERO;
        }
        self.digest_waiting(&mut waiting, grains);
        let mut tree = TreeHasher::new(self.kind, b"blkdelta.blck.v1");
        tree.update(&(block.len() as u64).to_le_bytes());
        tree.update(&self.wide);
        BlockDigest(tree.finish())
    }

    fn width(&self) -> usize {
        if self.kind == DigestKind::Xxh3 { 16 } else { WIDTH }
    }

    fn digest_waiting(&mut self, waiting: &mut Waiting<'_>, grains: &mut [GrainDigest]) {
        let digests = self.lanes.digest(&waiting.grains[..waiting.count]);
        for (number, digest) in waiting.numbers.iter().zip(digests) {
            put(*number, digest, &mut self.wide, grains);
        }
        waiting.count = 0;
    }

    fn digest_one(&mut self, number: usize, grain: &[u8], grains: &mut [GrainDigest]) {
        let wide = &mut self.wide;
        match self.kind {
            DigestKind::Blake3 => put(number, blake3::hash(grain).as_bytes(), wide, grains),
            DigestKind::Sha256 => put(number, &sha2::Sha256::digest(grain), wide, grains),
            DigestKind::Xxh3 => put(number, &xxhash_rust::xxh3::xxh3_128(grain).to_le_bytes(), wide, grains),
        }
    }
}

/// Grains that wait until they fill all lanes.
#[derive(Default)]
struct Waiting<'a> {
    numbers: [usize; LANES],
    grains: [&'a [u8]; LANES],
    count: usize,
}

impl<'a> Waiting<'a> {
    fn add(&mut self, number: usize, grain: &'a [u8]) {
        (self.numbers[self.count], self.grains[self.count]) = (number, grain);
        self.count += 1;
    }
}

/// A grain's digest at its place: at full width for the block's digest, cut as it is stored.
fn put(number: usize, digest: &[u8], wide: &mut [u8], grains: &mut [GrainDigest]) {
    wide[number * digest.len()..][..digest.len()].copy_from_slice(digest);
    grains[number].0.copy_from_slice(&digest[..GrainDigest::LEN]);
}

/// Digest of one page of block digests; a page of zero blocks is zero.
#[must_use]
fn page_digest(kind: DigestKind, first: BlockIndex, blocks: &[BlockDigest]) -> [u8; WIDTH] {
    if blocks.iter().all(|digest| *digest == BlockDigest::ZERO) {
        return [0; WIDTH];
    }
    let mut tree = TreeHasher::new(kind, b"blkdelta.page.v1");
    tree.update(&first.to_le_bytes());
    tree.update(&(blocks.len() as u64).to_le_bytes());
    for digest in blocks {
        tree.update(&digest.0);
    }
    tree.finish()
}

/// Builds the root from the block digests, pushed in volume order.
pub struct RootBuilder {
    kind: DigestKind,
    tree: TreeHasher,
    page: Vec<BlockDigest>,
    pushed: u64,
    expected: u64,
}

impl RootBuilder {
    /// For a volume of this geometry.
    #[must_use]
    pub fn new(kind: DigestKind, geometry: &Geometry) -> Self {
        let mut tree = TreeHasher::new(kind, b"blkdelta.root.v1");
        tree.update(&geometry.volume_size().to_le_bytes());
        tree.update(&geometry.block_size().to_le_bytes());
        tree.update(&geometry.grain_size().to_le_bytes());
        tree.update(&[kind.code()]);
        Self { kind, tree, page: Vec::new(), pushed: 0, expected: geometry.block_count() }
    }

    /// The next block.
    pub fn push(&mut self, digest: BlockDigest) {
        self.page.push(digest);
        self.pushed += 1;
        if self.pushed.is_multiple_of(BLOCKS_PER_PAGE) {
            self.close_page();
        }
    }

    /// The next `count` blocks, all zero; whole pages cost one step each.
    pub fn push_zeros(&mut self, mut count: u64) {
        while count > 0 {
            if self.page.is_empty() && count >= BLOCKS_PER_PAGE {
                self.tree.update(&[0; WIDTH]);
                self.pushed += BLOCKS_PER_PAGE;
                count -= BLOCKS_PER_PAGE;
            } else {
                self.push(BlockDigest::ZERO);
                count -= 1;
            }
        }
    }

    fn close_page(&mut self) {
        let first = self.pushed - self.page.len() as u64;
        self.tree.update(&page_digest(self.kind, first, &self.page));
        self.page.clear();
    }

    /// The root; an error when not every block was pushed.
    pub fn finish(mut self) -> Result<RootDigest> {
        if self.pushed != self.expected {
            let text = format!("the root needs {} blocks, {} came", self.expected, self.pushed);
            return Err(Error::new(ErrorKind::Damaged, text));
        }
        if !self.page.is_empty() {
            self.close_page();
        }
        Ok(RootDigest(self.tree.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_test_looks_at_every_byte() {
        for len in [0, 1, 127, 128, 129, 4096, 4097] {
            assert!(is_zero(&vec![0; len]));
            for at in 0..len {
                let mut data = vec![0; len];
                data[at] = 1;
                assert!(!is_zero(&data), "byte {at} of {len}");
            }
        }
    }

    #[test]
    fn length_is_part_of_a_digest_but_not_of_zero() {
        let geometry = Geometry::new(1 << 20, 64 << 10, 4096).unwrap();
        for kind in [DigestKind::Blake3, DigestKind::Sha256, DigestKind::Xxh3] {
            let mut hasher = BlockHasher::new(kind, geometry);
            let mut grains = Vec::new();
            let mut data = vec![0; 8192];
            data[0] = 1;
            let long = hasher.hash(&data, &mut grains);
            assert_eq!((grains.len(), grains[1]), (2, GrainDigest::ZERO));
            let short = hasher.hash(&data[..8191], &mut grains);
            assert_ne!(long, short);
            assert_eq!(hasher.hash(&[0; 5000], &mut grains), BlockDigest::ZERO);
        }
    }

    #[test]
    fn zeros_pushed_at_once_or_singly_give_one_root() {
        let geometry = Geometry::new(1000 * (64 << 10), 64 << 10, 4096).unwrap();
        let mut a = RootBuilder::new(DigestKind::Blake3, &geometry);
        let mut b = RootBuilder::new(DigestKind::Blake3, &geometry);
        a.push(BlockDigest([7; 32]));
        a.push_zeros(999);
        b.push(BlockDigest([7; 32]));
        (0..999).for_each(|_| b.push(BlockDigest::ZERO));
        assert_eq!(a.finish().unwrap(), b.finish().unwrap());
        assert!(RootBuilder::new(DigestKind::Blake3, &geometry).finish().is_err());
    }
}
