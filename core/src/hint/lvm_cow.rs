//! The table of a thick snapshot: which chunks of the origin were overwritten since it was taken.
//!
//! The kernel's persistent exception store, little-endian, cut into chunks:
//!
//! ```text
//! chunk 0                       magic "SnAp", valid (1), version (1), sectors of a chunk; 4 bytes each
//! chunk 1                       area 0: pairs (chunk of the origin, chunk of the store), 8 bytes each
//! chunks 2 .. N + 1             the old content of N chunks, where N pairs fill an area
//! chunk N + 2                   area 1, and so on; the first pair with chunk 0 of the store ends the table
//! ```
//!
//! A write to the origin waits until its pair is on the disk, so what this says is complete for all that was written
//! before the reading began. It must be read past the page cache, which knows nothing of the kernel's own writes.
//! Later writes may add pairs meanwhile: those chunks are read for nothing, and no harm is done.

use std::io;

use super::ChangeMap;
use crate::error::{Error, Result};
use crate::geometry::to_usize;

const MAGIC: u32 = u32::from_le_bytes(*b"SnAp");
const VERSION: u32 = 1;
const SECTOR: u64 = 512;
/// lvm2 makes 4 KiB to 512 KiB; the upper bound is there to keep memory small.
const CHUNK_SECTORS: (u32, u32) = (8, 1 << 15);
const PAIR: usize = 16;

/// Reads the table through `read` (offset and what is to be filled) from a store of `cow_size` bytes: every chunk in
/// it becomes changed.
pub fn parse(
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    cow_size: u64,
    map: &mut ChangeMap,
) -> Result<()> {
    let mut header = [0; PAIR];
    read(0, &mut header).map_err(unreadable)?;
    let chunk = chunk_bytes(&header)?;
    let pairs_in_area = chunk / PAIR as u64;
    let mut area = vec![0; to_usize(chunk)];
    for number in 0.. {
        let place = 1 + number * (pairs_in_area + 1);
        let end = (place + 1).checked_mul(chunk).filter(|end| *end <= cow_size);
        let end = end.ok_or_else(|| refused("its table runs past its end"))?;
        read(end - chunk, &mut area).map_err(unreadable)?;
        for pair in area.chunks_exact(PAIR) {
            let (old, new) = (number_in(&pair[..8]), number_in(&pair[8..]));
            if new == 0 {
                return Ok(());
            }
            let is_data = new >= 2 && new % (pairs_in_area + 1) != 1;
            if !is_data || new >= cow_size / chunk {
                return Err(refused("its table names a place where no data can be"));
            }
            let offset = old.checked_mul(chunk).filter(|offset| *offset < map.geometry().volume_size());
            map.add_changed(
                offset.ok_or_else(|| refused("its table names a place beyond the volume"))?,
                chunk,
            );
        }
    }
    Ok(())
}

/// Bytes of a chunk, when the header is that of a store that is still valid.
fn chunk_bytes(header: &[u8; PAIR]) -> Result<u64> {
    let field = |index: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[index * 4..index * 4 + 4]);
        u32::from_le_bytes(bytes)
    };
    let (magic, valid, version, sectors) = (field(0), field(1), field(2), field(3));
    if magic != MAGIC || version != VERSION {
        return Err(refused("it is not a snapshot store of a known version"));
    }
    if valid != 1 {
        return Err(refused("the snapshot was invalidated"));
    }
    let (least, most) = CHUNK_SECTORS;
    if !sectors.is_power_of_two() || !(least..=most).contains(&sectors) {
        return Err(refused("its chunk size cannot be"));
    }
    Ok(u64::from(sectors) * SECTOR)
}

fn number_in(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

fn refused(what: &str) -> Error {
    Error::damaged(format!("the store of the baseline snapshot was not understood: {what}"))
        .hint("the volume is read in full instead")
}

fn unreadable(source: io::Error) -> Error {
    refused("it could not be read").because(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    const CHUNK: usize = 4096;
    const PAIRS: usize = CHUNK / PAIR;
    const BLOCK: u64 = 1 << 16;

    fn map() -> ChangeMap {
        ChangeMap::new(Geometry::new(1000 * CHUNK as u64, 1 << 16, 8192).unwrap())
    }

    /// A store as the kernel writes it, with these chunks of the origin in its table and room for more data.
    fn store(old_chunks: &[u64]) -> Vec<u8> {
        let areas = old_chunks.len() / PAIRS + 1;
        let mut bytes = vec![0; (1 + areas * (PAIRS + 1)) * CHUNK];
        bytes[..4].copy_from_slice(b"SnAp");
        for (index, value) in [1u32, 1, 8].into_iter().enumerate() {
            bytes[4 + index * 4..8 + index * 4].copy_from_slice(&value.to_le_bytes());
        }
        for (index, old) in old_chunks.iter().enumerate() {
            let (area, slot) = (index / PAIRS, index % PAIRS);
            let at = (1 + area * (PAIRS + 1)) * CHUNK + slot * PAIR;
            let new = (1 + area * (PAIRS + 1) + 1 + slot) as u64;
            bytes[at..at + 8].copy_from_slice(&old.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
        }
        bytes
    }

    fn parsed(store: &[u8]) -> Result<ChangeMap> {
        let mut map = map();
        let read = |offset: u64, buffer: &mut [u8]| {
            let from = store.get(to_usize(offset)..).unwrap_or_default();
            let from = from.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(from);
            Ok(())
        };
        parse(read, store.len() as u64, &mut map).map(|()| map)
    }

    fn changed(map: &ChangeMap) -> Vec<u64> {
        (0..map.geometry().block_count()).filter(|index| map.changed().contains(*index)).collect()
    }

    #[test]
    fn every_chunk_of_the_table_is_changed() {
        assert_eq!(changed(&parsed(&store(&[])).unwrap()), [0; 0]);
        let map = parsed(&store(&[999, 0, 17, 16])).unwrap();
        assert_eq!(changed(&map), [0, 1, 999 * CHUNK as u64 / BLOCK]);
        assert!(!map.is_unmapped(5), "it does not tell what is mapped");
    }

    #[test]
    fn a_table_goes_on_in_the_next_area() {
        for count in [PAIRS - 1, PAIRS, PAIRS + 1, 2 * PAIRS, 2 * PAIRS + 7] {
            let old: Vec<u64> = (0..count as u64).rev().collect();
            let map = parsed(&store(&old)).unwrap();
            let blocks = (count as u64 * CHUNK as u64).div_ceil(BLOCK);
            assert_eq!(changed(&map), (0..blocks).collect::<Vec<_>>(), "{count} chunks");
        }
    }

    #[test]
    fn a_table_without_its_end_is_refused() {
        let whole = store(&(0..PAIRS as u64).collect::<Vec<_>>());
        assert!(parsed(&whole[..(1 + PAIRS + 1) * CHUNK]).is_err(), "full, and the next area is missing");
        for length in [0, 15, 16, CHUNK, 2 * CHUNK - 1] {
            assert!(parsed(&whole[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_header_that_is_not_of_a_valid_store_is_refused() {
        for (at, value) in [
            (0, 0x7041_6e54),
            (0, 0),
            (4, 0),
            (4, 2),
            (8, 0),
            (8, 2),
            (12, 0),
            (12, 1),
            (12, 9),
            (12, 1 << 16),
            (12, u32::MAX),
        ] {
            let mut bytes = store(&[1]);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(parsed(&bytes).is_err(), "{value} at {at}");
        }
    }

    #[test]
    fn pairs_that_cannot_be_are_refused() {
        for (at, value) in [
            (CHUNK, 1000),
            (CHUNK, u64::MAX),
            (CHUNK, u64::MAX / CHUNK as u64 + 1),
            (CHUNK + 8, 1),
            (CHUNK + 8, 1 + PAIRS as u64 + 1),
            (CHUNK + 8, 1_000_000),
            (CHUNK + 8, u64::MAX),
        ] {
            let mut bytes = store(&[1, 2]);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(parsed(&bytes).is_err(), "{value} at {at}");
        }
    }
}
