//! A set of grains of one block, as a bitmap; the least significant bit of byte 0 is grain 0.

use crate::geometry::to_usize;

/// Which grains of one block are meant. At most 16,384 (64 MiB blocks, 4 KiB grains).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrainSet {
    words: Vec<u64>,
    grains: u32,
}

impl GrainSet {
    /// No grain of `grains`.
    #[must_use]
    pub fn empty(grains: u32) -> Self {
        Self { words: vec![0; to_usize(u64::from(grains.div_ceil(64)))], grains }
    }

    /// Reads the bitmap's bytes; `None` when the length is wrong or a bit beyond the last grain is set.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], grains: u32) -> Option<Self> {
        if bytes.len() != Self::byte_len(grains) {
            return None;
        }
        let mut set = Self::empty(grains);
        for (word, chunk) in set.words.iter_mut().zip(bytes.chunks(8)) {
            let mut raw = [0; 8];
            raw[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(raw);
        }
        let spare = to_usize(u64::from(grains % 64));
        let beyond = spare != 0 && set.words.last().is_some_and(|last| last >> spare != 0);
        (!beyond).then_some(set)
    }

    /// Bytes of the bitmap for `grains` grains.
    #[must_use]
    pub fn byte_len(grains: u32) -> usize {
        to_usize(u64::from(grains.div_ceil(8)))
    }

    /// Appends the bitmap's bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + Self::byte_len(self.grains);
        for word in &self.words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.truncate(end);
    }

    /// Adds a grain.
    pub fn insert(&mut self, grain: u32) {
        self.words[to_usize(u64::from(grain / 64))] |= 1 << (grain % 64);
    }

    /// Takes a grain out.
    pub fn remove(&mut self, grain: u32) {
        self.words[to_usize(u64::from(grain / 64))] &= !(1 << (grain % 64));
    }

    /// Whether the grain is in.
    #[must_use]
    pub fn contains(&self, grain: u32) -> bool {
        self.words[to_usize(u64::from(grain / 64))] >> (grain % 64) & 1 == 1
    }

    /// How many grains are in.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// How many grains there could be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.grains
    }

    /// Whether no grain is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether both have a grain in common.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// The grains that are in, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.grains).filter(|grain| self.contains(*grain))
    }

    /// Runs of neighbouring grains: (first, count), ascending.
    #[must_use]
    pub fn runs(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for grain in self.iter() {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == grain => *count += 1,
                _ => runs.push((grain, 1)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_stray_bits_are_refused() {
        let mut set = GrainSet::empty(13);
        for grain in [0, 5, 6, 12] {
            set.insert(grain);
        }
        let mut bytes = Vec::new();
        set.write_to(&mut bytes);
        assert_eq!(bytes, [0b0110_0001, 0b0001_0000]);
        assert_eq!(GrainSet::from_bytes(&bytes, 13), Some(set.clone()));
        assert_eq!(set.runs(), [(0, 1), (5, 2), (12, 1)]);
        bytes[1] |= 0x80;
        assert_eq!(GrainSet::from_bytes(&bytes, 13), None);
    }
}
