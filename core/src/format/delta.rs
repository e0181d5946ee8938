//! The delta's bytes: header, frames, index segments, segment table, trailer. Specified in `docs/FORMAT.md`, "Delta".
//!
//! ```text
//! delta := header (frame | segment)* segment-table trailer
//! ```
//! Written front to back, so also into a pipe; that is why the new root stands in the trailer. Each frame and segment is
//! bound to its place by a checksum that covers its offset.

use crate::backup_id::{Sequence, VolumeIdentity};
use crate::digest::{DigestKind, RootDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::Geometry;

use super::index::{TABLE_ENTRY_LEN, TABLE_PAGE_ENTRIES};
use super::repository_config::Codec;
use super::{Fields, checked_len, placed_checksum, put_identity, seal, unseal};

/// First bytes of a delta.
pub const MAGIC: &[u8; 8] = b"\x89BKD\r\n\x1a\n";
/// First bytes of the trailer.
pub const TRAILER_MAGIC: &[u8; 8] = b"\x89BKT\r\n\x1a\n";
/// The version that this program writes.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 512;
/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 256;
/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: usize = 32;
/// Most raw bytes of a frame: a grain may be added while there is less than a full frame.
pub const FRAME_RAW_MAX: usize = (1 << 20) + (64 << 10);

/// First bytes of a frame.
pub const FRAME_MAGIC: &[u8; 4] = b"FRAM";
const FLAG_FULL: u16 = 1;

/// The parent that a delta builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaParent {
    /// Its sequence.
    pub sequence: Sequence,
    /// Its root.
    pub root: RootDigest,
    /// Its size in bytes.
    pub size: u64,
}

/// The header's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaHeader {
    /// Sizes of the new state.
    pub geometry: Geometry,
    /// Which digest.
    pub digest: DigestKind,
    /// What volume.
    pub identity: VolumeIdentity,
    /// Sequence of the new state; a scan counts from 1.
    pub sequence: Sequence,
    /// Absent when it holds everything.
    pub parent: Option<DeltaParent>,
}

impl DeltaHeader {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let parent = self.parent.unwrap_or(DeltaParent { sequence: 0, root: RootDigest::NONE, size: 0 });
        let flags = if self.parent.is_none() { FLAG_FULL } else { 0 };
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&[self.digest.code(), 0, 0, 0]);
        out.extend_from_slice(&self.geometry.block_size().to_le_bytes());
        out.extend_from_slice(&self.geometry.grain_size().to_le_bytes());
        out.extend_from_slice(&self.geometry.volume_size().to_le_bytes());
        out.extend_from_slice(&parent.size.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&parent.sequence.to_le_bytes());
        out.extend_from_slice(&parent.root.0);
        out.extend_from_slice(&[0; 16 + 32]); // key id and salt, for encryption
        put_identity(&mut out, &self.identity);
        seal(&mut out, HEADER_LEN);
        out
    }

    /// Reads it from [`HEADER_LEN`] bytes.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let mut fields = unseal(bytes, MAGIC, VERSION, "delta")?;
        let flags = fields.u16()?;
        if flags & !FLAG_FULL != 0 {
            return Err(Error::new(ErrorKind::Unsupported, format!("a delta with flags {flags:#x}")));
        }
        let digest = DigestKind::from_code(fields.u8()?)?;
        fields.zeros(3)?;
        let (block_size, grain_size) = (fields.u32()?, fields.u32()?);
        let (volume_size, parent_size) = (fields.u64()?, fields.u64()?);
        let (sequence, parent_sequence) = (fields.u32()?, fields.u32()?);
        let parent_root = RootDigest(fields.array()?);
        fields.zeros(16 + 32)?;
        let identity = fields.identity()?;
        fields.zeros_to_end()?;
        let geometry = Geometry::new(volume_size, block_size, grain_size)
            .and_then(|geometry| geometry.resized(parent_size).map(|_| geometry))
            .map_err(|error| Error::damaged("impossible sizes in a delta").because(error))?;
        let full = flags & FLAG_FULL != 0;
        if full && (parent_sequence, parent_root, parent_size) != (0, RootDigest::NONE, 0) {
            return Err(Error::damaged("a full delta that names a parent"));
        }
        let parent = DeltaParent { sequence: parent_sequence, root: parent_root, size: parent_size };
        Ok(Self { geometry, digest, identity, sequence, parent: (!full).then_some(parent) })
    }
}

/// A frame's header: how many bytes follow and how to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes before compression.
    pub raw_len: u32,
    /// Bytes of the payload.
    pub stored_len: u32,
    /// Codec and reserved bytes, believed only when the checksum matches.
    coding: [u8; 4],
    checksum: [u8; 16],
}

impl FrameHeader {
    /// The header of a frame whose payload is `payload`, placed at `offset`.
    #[must_use]
    pub fn encode(codec: Codec, raw_len: u32, payload: &[u8], offset: u64) -> Vec<u8> {
        let stored_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(FRAME_HEADER_LEN);
        out.extend_from_slice(FRAME_MAGIC);
        out.extend_from_slice(&[codec.code(), 0, 0, 0]);
        out.extend_from_slice(&raw_len.to_le_bytes());
        out.extend_from_slice(&stored_len.to_le_bytes());
        let checksum = placed_checksum(offset, &[&out, payload]);
        out.extend_from_slice(&checksum);
        out
    }

    /// Reads it; the lengths are within their limits afterwards.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        if fields.array::<4>()? != *FRAME_MAGIC {
            return Err(Error::damaged("there is no frame here"));
        }
        let coding = fields.array()?;
        let (raw_len, stored_len) = (fields.u32()?, fields.u32()?);
        checked_len(raw_len, FRAME_RAW_MAX, "a frame")?;
        checked_len(stored_len, FRAME_RAW_MAX, "a frame's payload")?;
        Ok(Self { raw_len, stored_len, coding, checksum: fields.array()? })
    }

    /// Proves that this header (as read from `offset`) and the payload belong together and to this place; returns how the
    /// payload is compressed.
    pub fn prove(&self, header: &[u8; FRAME_HEADER_LEN], payload: &[u8], offset: u64) -> Result<Codec> {
        if self.checksum != placed_checksum(offset, &[&header[..16], payload]) {
            return Err(Error::damaged("a frame does not match its checksum"));
        }
        let mut fields = Fields::new(&self.coding);
        let codec = Codec::from_code(fields.u8()?)?;
        fields.zeros_to_end()?;
        Ok(codec)
    }
}

/// The trailer's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaTrailer {
    /// Offset of the segment table.
    pub table_offset: u64,
    /// Segments.
    pub segments: u64,
    /// Frames.
    pub frames: u64,
    /// Blocks that differ.
    pub blocks_changed: u64,
    /// Grains that differ.
    pub grains_changed: u64,
    /// Bytes of those grains.
    pub bytes_changed: u64,
    /// Root of the new state.
    pub root: RootDigest,
    /// BLAKE3 of all bytes of the file before the trailer.
    pub digest: [u8; 32],
}

impl DeltaTrailer {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_LEN);
        out.extend_from_slice(TRAILER_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        for number in [
            self.table_offset,
            self.segments,
            self.frames,
            self.blocks_changed,
            self.grains_changed,
            self.bytes_changed,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.digest);
        seal(&mut out, TRAILER_LEN);
        out
    }

    /// Reads it from [`TRAILER_LEN`] bytes; `trailer_offset` is where it stands, which the table must end at.
    pub fn decode(bytes: &[u8; TRAILER_LEN], trailer_offset: u64) -> Result<Self> {
        let mut fields = unseal(bytes, TRAILER_MAGIC, VERSION, "delta's trailer")?;
        fields.zeros(6)?;
        let mut number = || fields.u64();
        let (table_offset, segments, frames) = (number()?, number()?, number()?);
        let (blocks_changed, grains_changed, bytes_changed) = (number()?, number()?, number()?);
        let (root, digest) = (RootDigest(fields.array()?), fields.array()?);
        fields.zeros_to_end()?;
        let pages = segments.div_ceil(TABLE_PAGE_ENTRIES as u64);
        let table = segments.checked_mul(TABLE_ENTRY_LEN as u64).and_then(|len| len.checked_add(pages * 16));
        if table.and_then(|len| len.checked_add(table_offset)) != Some(trailer_offset) {
            return Err(Error::damaged("the segment table does not end at the trailer"));
        }
        Ok(Self {
            table_offset,
            segments,
            frames,
            blocks_changed,
            grains_changed,
            bytes_changed,
            root,
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_trailer_survive_and_any_flip_is_found() {
        let header = DeltaHeader {
            geometry: Geometry::new(40 << 20, 4 << 20, 8192).unwrap(),
            digest: DigestKind::Sha256,
            identity: VolumeIdentity::new("lvm:abc").unwrap(),
            sequence: 2,
            parent: Some(DeltaParent { sequence: 1, root: RootDigest([9; 32]), size: 20 << 20 }),
        };
        let bytes: [u8; HEADER_LEN] = header.encode().try_into().unwrap();
        assert_eq!(DeltaHeader::decode(&bytes).unwrap(), header);
        let trailer = DeltaTrailer {
            table_offset: 600,
            segments: 1,
            frames: 1,
            blocks_changed: 1,
            grains_changed: 1,
            bytes_changed: 8192,
            root: RootDigest([8; 32]),
            digest: [7; 32],
        };
        let end: [u8; TRAILER_LEN] = trailer.encode().try_into().unwrap();
        assert_eq!(DeltaTrailer::decode(&end, 648).unwrap(), trailer);
        assert!(DeltaTrailer::decode(&end, 649).is_err());
        for at in 0..HEADER_LEN.max(TRAILER_LEN) {
            if let Some(byte) = bytes.clone().get_mut(at) {
                *byte ^= 2;
                let mut flipped = bytes;
                flipped[at] ^= 2;
                assert!(DeltaHeader::decode(&flipped).is_err());
            }
            if at < TRAILER_LEN {
                let mut flipped = end;
                flipped[at] ^= 2;
                assert!(DeltaTrailer::decode(&flipped, 648).is_err());
            }
        }
    }
}
