//! What the benchmarks share: bytes that look like a volume. They are neither zero nor random: half of each grain repeats.

/// `len` bytes, the same every time.
#[must_use]
pub fn volume_bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(if bytes.len() % 128 < 64 { b"tuple   " } else { &[0; 8] });
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
