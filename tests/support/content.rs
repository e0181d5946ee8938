//! Pseudo-random content: the same seed gives the same bytes.

/// A generator (SplitMix64): enough for test data, and it needs no crate.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// Fills with bytes that do not compress.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// Bytes that do not compress.
#[must_use]
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Random::new(seed).fill(&mut bytes);
    bytes
}

/// What a volume may look like: pages of 4 KiB that are random, repeat a few bytes, or are zero, in runs.
#[must_use]
pub fn volume_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; len];
    let mut pages = bytes.chunks_mut(4096);
    while pages.len() > 0 {
        let (kind, run) = (random.below(4), random.below(12) + 1);
        for page in pages.by_ref().take(usize::try_from(run).unwrap_or(1)) {
            match kind {
                0 => {}
                1 => page.fill(random.number().to_le_bytes()[0]),
                _ => random.fill(page),
            }
        }
    }
    bytes
}
