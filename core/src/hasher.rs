//! The hashing stage: a block's bytes become the digests of its grains and of the block.

use crate::digest::{BlockDigest, BlockHasher, DigestKind, GrainDigest};
use crate::geometry::Geometry;
use crate::sys::buffer_pool::PooledBuffer;

/// One hashing thread's state.
pub struct Hasher {
    hasher: BlockHasher,
}

/// A block with its digests.
pub struct Hashed {
    /// The block's digest.
    pub digest: BlockDigest,
    /// The digests of all its grains.
    pub grains: Vec<GrainDigest>,
    /// The bytes they were made from.
    pub buffer: PooledBuffer,
}

impl Hasher {
    /// For blocks of this geometry.
    #[must_use]
    pub fn new(kind: DigestKind, geometry: Geometry) -> Self {
        Self { hasher: BlockHasher::new(kind, geometry) }
    }

    /// Hashes; the buffer that was hashed travels on.
    #[must_use]
    pub fn hash(&mut self, buffer: PooledBuffer) -> Hashed {
        let mut grains = Vec::new();
        let digest = self.hasher.hash(&buffer, &mut grains);
        Hashed { digest, grains, buffer }
    }
}
