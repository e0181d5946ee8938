//! Chance that is the same on every run, and what an author of bad bytes would do with it.

use std::fs;

use serde_json::Value;

/// Numbers where lengths go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 60,
    (1 << 60) + 1,
    i64::MAX as u64,
    u64::MAX,
];

/// A small generator (xorshift): the same numbers on every run, so that a failure can be repeated.
pub struct Chance(u64);

impl Chance {
    /// Each test has a seed of its own.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }

    /// Any number, often one on an edge.
    pub fn number(&mut self) -> u64 {
        let any = self.next();
        if any.is_multiple_of(2) { EDGES[self.below(EDGES.len())] } else { any >> self.below(64) }
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// One to four changes: a bit, a byte, or a number of 2, 4 or 8 bytes.
    pub fn mutate(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let width = [1, 1, 2, 4, 8][self.below(5)].min(bytes.len() - at);
            if self.below(3) == 0 {
                bytes[at] ^= 1 << self.below(8);
            } else {
                bytes[at..at + width].copy_from_slice(&self.number().to_le_bytes()[..width]);
            }
        }
    }

    /// Changes one value somewhere in a document, or takes it away.
    pub fn mutate_json(&mut self, value: &mut Value) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                let key = fields.keys().nth(self.below(fields.len())).unwrap().clone();
                if self.below(10) == 0 {
                    fields.remove(&key);
                } else if let Some(inner) = fields.get_mut(&key) {
                    self.mutate_json(inner);
                }
            }
            other => *other = self.json_value(),
        }
    }

    fn json_value(&mut self) -> Value {
        match self.below(6) {
            0 => Value::Null,
            1 => Value::from(-i64::from(self.next().to_le_bytes()[0])),
            2 => Value::from(""),
            3 => Value::from(["../../config.json", "/", "config.json", "volumes", "none"][self.below(5)]),
            4 => Value::from("0".repeat(self.below(100))),
            _ => Value::from(self.number()),
        }
    }
}

/// Makes the BLAKE3 at the end of a fixed header right.
pub fn reseal(header: &mut [u8]) {
    let (body, checksum) = header.split_at_mut(header.len() - 32);
    checksum.copy_from_slice(blake3::hash(body).as_bytes());
}

/// The largest address space that this process has had, in bytes: memory that was asked for counts even if it was never
/// touched.
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
