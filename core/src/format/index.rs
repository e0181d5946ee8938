//! The index of a delta: entries, segments, segment table. Specified in `docs/FORMAT.md`, "Delta".
//!
//! An entry tells for one block which grains the delta holds, where, and their digests. A segment is a run of entries in
//! block order, bound to its place by its checksum; the table lists the segments.

use crate::digest::{BlockDigest, GrainDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::grain_set::GrainSet;

use super::{Fields, checked_len, placed_checksum};

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_LEN: usize = 48;
/// Most bytes of a segment, header included.
pub const SEGMENT_MAX: usize = 1 << 20;
/// Bytes of a line of the segment table.
pub const TABLE_ENTRY_LEN: usize = 32;
/// Lines of the segment table that share a checksum.
pub const TABLE_PAGE_ENTRIES: usize = 1024;
const SEGMENT_MAGIC: &[u8; 4] = b"INDX";
const ENTRY_GRAINS: u8 = 1;
const ENTRY_ZERO: u8 = 2;
const ENTRY_ZERO_RANGE: u8 = 3;
const ENTRY_WHOLE: u8 = 1;

/// A run of stored grains inside one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset of the frame in the delta.
    pub frame: u64,
    /// Where the run starts in the frame's raw bytes.
    pub raw_offset: u32,
    /// How many of the block's stored grains are in it, in their order.
    pub grains: u32,
}

/// What a delta says of one block, or of a run of zero blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexEntry {
    /// Grains of one block.
    Grains(GrainsEntry),
    /// A block that is zero now, over old data.
    Zero {
        /// Which block.
        index: BlockIndex,
        /// Its length in bytes.
        len: u32,
        /// The parent's digest of it.
        old: BlockDigest,
    },
    /// Blocks that are zero where the parent has none.
    ZeroRange {
        /// First block.
        first: BlockIndex,
        /// How many.
        count: u64,
    },
}

/// The changed grains of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrainsEntry {
    /// Which block.
    pub index: BlockIndex,
    /// Its length in bytes.
    pub len: u32,
    /// Nothing is inherited from the parent.
    pub whole: bool,
    /// The parent's digest of it; unknown when it has no such block.
    pub old: BlockDigest,
    /// Its digest now.
    pub new: BlockDigest,
    /// Grains whose bytes are stored.
    pub stored: GrainSet,
    /// Grains that are zero now.
    pub zero: GrainSet,
    /// Where the stored grains are.
    pub pieces: Vec<Piece>,
    /// Digest of each stored grain.
    pub digests: Vec<GrainDigest>,
}

impl IndexEntry {
    /// First block, and how many.
    #[must_use]
    pub fn span(&self) -> (BlockIndex, u64) {
        match self {
            Self::Grains(entry) => (entry.index, 1),
            Self::Zero { index, .. } => (*index, 1),
            Self::ZeroRange { first, count } => (*first, *count),
        }
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Grains(entry) => entry.encode(out),
            Self::Zero { index, len, old } => {
                put_entry_start(out, ENTRY_ZERO, 0, 0, *len, *index);
                out.extend_from_slice(&old.0);
            }
            Self::ZeroRange { first, count } => {
                put_entry_start(out, ENTRY_ZERO_RANGE, 0, 0, 0, *first);
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
    }

    fn decode(fields: &mut Fields<'_>, geometry: &Geometry) -> Result<Self> {
        let (kind, flags) = (fields.u8()?, fields.u8()?);
        let (pieces, len, index) = (fields.u16()?, fields.u32()?, fields.u64()?);
        let fits =
            index < geometry.block_count() && (kind == ENTRY_ZERO_RANGE || len == geometry.block_len(index));
        if !fits {
            return Err(Error::damaged(format!("block {index} of {len} bytes does not fit the volume")));
        }
        let unused = kind != ENTRY_GRAINS && pieces != 0 || kind == ENTRY_ZERO_RANGE && len != 0;
        if unused {
            return Err(Error::new(ErrorKind::Unsupported, "a reserved field is used"));
        }
        match (kind, flags) {
            (ENTRY_GRAINS, 0 | ENTRY_WHOLE) => {
                let whole = flags == ENTRY_WHOLE;
                GrainsEntry::decode(fields, geometry, index, len, whole, pieces).map(Self::Grains)
            }
            (ENTRY_ZERO, 0) => Ok(Self::Zero { index, len, old: BlockDigest(fields.array()?) }),
            (ENTRY_ZERO_RANGE, 0) => {
                let count = fields.u64()?;
                if count == 0 || count > geometry.block_count() - index {
                    return Err(Error::damaged(format!("a zero range of {count} blocks at block {index}")));
                }
                Ok(Self::ZeroRange { first: index, count })
            }
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                format!("an index entry of kind {kind}, flags {flags}"),
            )),
        }
    }
}

fn put_entry_start(out: &mut Vec<u8>, kind: u8, flags: u8, pieces: u16, len: u32, index: BlockIndex) {
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&pieces.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&index.to_le_bytes());
}

impl GrainsEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        // A piece holds at least one grain, and a block has at most 16,384.
        let pieces = u16::try_from(self.pieces.len()).unwrap_or(u16::MAX);
        put_entry_start(out, ENTRY_GRAINS, u8::from(self.whole), pieces, self.len, self.index);
        out.extend_from_slice(&self.old.0);
        out.extend_from_slice(&self.new.0);
        self.stored.write_to(out);
        self.zero.write_to(out);
        for piece in &self.pieces {
            out.extend_from_slice(&piece.frame.to_le_bytes());
            out.extend_from_slice(&piece.raw_offset.to_le_bytes());
            out.extend_from_slice(&piece.grains.to_le_bytes());
        }
        for digest in &self.digests {
            out.extend_from_slice(&digest.0);
        }
    }

    fn decode(
        fields: &mut Fields<'_>,
        geometry: &Geometry,
        index: BlockIndex,
        len: u32,
        whole: bool,
        pieces: u16,
    ) -> Result<Self> {
        let wrong = |what: &str| Error::damaged(format!("block {index}: {what}"));
        let grains = geometry.grains_in(len);
        let (old, new) = (BlockDigest(fields.array()?), BlockDigest(fields.array()?));
        let mut set = || {
            let bytes = fields.bytes(GrainSet::byte_len(grains))?;
            GrainSet::from_bytes(bytes, grains).ok_or_else(|| wrong("grains beyond its end"))
        };
        let (stored, zero) = (set()?, set()?);
        let pieces = (0..pieces)
            .map(|_| Ok(Piece { frame: fields.u64()?, raw_offset: fields.u32()?, grains: fields.u32()? }))
            .collect::<Result<Vec<_>>>()?;
        let digests =
            (0..stored.count()).map(|_| Ok(GrainDigest(fields.array()?))).collect::<Result<Vec<_>>>()?;
        let placed = pieces.iter().map(|piece| u64::from(piece.grains)).sum::<u64>();
        if placed != u64::from(stored.count()) || pieces.iter().any(|piece| piece.grains == 0) {
            return Err(wrong("its pieces do not hold its grains"));
        }
        if stored.intersects(&zero) || (whole && stored.count() + zero.count() != grains) {
            return Err(wrong("its grain sets contradict each other"));
        }
        Ok(Self { index, len, whole, old, new, stored, zero, pieces, digests })
    }
}

/// The bytes of a segment that holds these encoded entries, placed at `offset`.
#[must_use]
pub fn encode_segment(entries: &[u8], line: &SegmentLine) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER_LEN + entries.len());
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&line.entries.to_le_bytes());
    out.extend_from_slice(&line.first.to_le_bytes());
    out.extend_from_slice(&line.last.to_le_bytes());
    out.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let checksum = placed_checksum(line.offset, &[&out, entries]);
    out.extend_from_slice(&checksum);
    out.extend_from_slice(entries);
    out
}

/// The line that belongs to the segment at `offset` which begins with this header: what it says of itself, believed only
/// when [`decode_segment`] has proven it.
pub fn segment_line(header: &[u8; SEGMENT_HEADER_LEN], offset: u64) -> Result<SegmentLine> {
    let mut fields = Fields::new(header);
    if fields.array::<4>()? != *SEGMENT_MAGIC {
        return Err(Error::damaged("there is no index segment here"));
    }
    let (entries, first, last) = (fields.u32()?, fields.u64()?, fields.u64()?);
    let body = checked_len(fields.u32()?, SEGMENT_MAX - SEGMENT_HEADER_LEN, "an index segment")?;
    let len = u32::try_from(SEGMENT_HEADER_LEN + body).unwrap_or(u32::MAX);
    Ok(SegmentLine { offset, len, entries, first, last })
}

/// Reads a segment, given all its bytes and its line in the table. Entries come back in block order.
pub fn decode_segment(bytes: &[u8], line: &SegmentLine, geometry: &Geometry) -> Result<Vec<IndexEntry>> {
    let mut fields = Fields::new(bytes);
    let header = fields.bytes(SEGMENT_HEADER_LEN - 16)?;
    let checksum = fields.array::<16>()?;
    let mut start = Fields::new(header);
    let magic = start.array::<4>()?;
    let (entries, first, last) = (start.u32()?, start.u64()?, start.u64()?);
    let payload = start.u32()?;
    let body = fields.bytes(checked_len(payload, SEGMENT_MAX, "an index segment")?)?;
    let sound = magic == *SEGMENT_MAGIC && checksum == placed_checksum(line.offset, &[header, body]);
    if !sound || !fields.at_end() || (entries, first, last) != (line.entries, line.first, line.last) {
        return Err(Error::damaged("an index segment does not match its checksum"));
    }
    start.zeros(4)?;
    decode_entries(body, line, geometry)
}

fn decode_entries(body: &[u8], line: &SegmentLine, geometry: &Geometry) -> Result<Vec<IndexEntry>> {
    let mut fields = Fields::new(body);
    let mut entries: Vec<IndexEntry> = Vec::new();
    let mut next = line.first;
    for _ in 0..line.entries {
        let entry = IndexEntry::decode(&mut fields, geometry)?;
        let (first, count) = entry.span();
        if first < next || first + count - 1 > line.last {
            return Err(Error::damaged("index entries out of order"));
        }
        next = first + count;
        entries.push(entry);
    }
    if !fields.at_end() {
        return Err(Error::damaged("an index segment is longer than its entries"));
    }
    Ok(entries)
}

/// A line of the segment table: where a segment is and which blocks it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLine {
    /// Offset of the segment in the delta.
    pub offset: u64,
    /// Its bytes, header included.
    pub len: u32,
    /// Its entries.
    pub entries: u32,
    /// First block.
    pub first: BlockIndex,
    /// Last block, included.
    pub last: BlockIndex,
}

impl SegmentLine {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.last.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self> {
        let (offset, len, entries) = (fields.u64()?, fields.u32()?, fields.u32()?);
        checked_len(len, SEGMENT_MAX, "an index segment")?;
        Ok(Self { offset, len, entries, first: fields.u64()?, last: fields.u64()? })
    }
}

/// The segment table at `offset`: pages of up to 1024 lines, each page followed by its checksum.
#[must_use]
pub fn encode_table(lines: &[SegmentLine], offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for page in lines.chunks(TABLE_PAGE_ENTRIES) {
        let start = out.len();
        page.iter().for_each(|line| line.encode(&mut out));
        let checksum = placed_checksum(offset + start as u64, &[&out[start..]]);
        out.extend_from_slice(&checksum);
    }
    out
}

/// Offset and length of the table page that holds line `number`, from the start of the table.
#[must_use]
pub fn table_page(number: u64, lines: u64) -> (u64, usize) {
    let page = number / TABLE_PAGE_ENTRIES as u64;
    let here = (lines - page * TABLE_PAGE_ENTRIES as u64).min(TABLE_PAGE_ENTRIES as u64);
    (page * (TABLE_PAGE_ENTRIES * TABLE_ENTRY_LEN + 16) as u64, to_usize(here) * TABLE_ENTRY_LEN + 16)
}

/// Reads a page of the segment table that stands at `offset` in the file.
pub fn decode_table_page(bytes: &[u8], offset: u64) -> Result<Vec<SegmentLine>> {
    let (body, checksum) = bytes.split_at(bytes.len().saturating_sub(16));
    if checksum != placed_checksum(offset, &[body]) {
        return Err(Error::damaged("the segment table does not match its checksum"));
    }
    let mut fields = Fields::new(body);
    (0..body.len() / TABLE_ENTRY_LEN).map(|_| SegmentLine::decode(&mut fields)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_round_trip_and_any_flip_is_found() {
        let geometry = Geometry::new(40 << 20, 4 << 20, 64 << 10).unwrap();
        let (mut stored, mut zero) = (GrainSet::empty(64), GrainSet::empty(64));
        stored.insert(3);
        stored.insert(63);
        zero.insert(4);
        let entries = [
            IndexEntry::Grains(GrainsEntry {
                index: 1,
                len: 4 << 20,
                whole: false,
                old: BlockDigest([1; 32]),
                new: BlockDigest([2; 32]),
                stored,
                zero,
                pieces: vec![Piece { frame: 512, raw_offset: 0, grains: 2 }],
                digests: vec![GrainDigest([5; 16]), GrainDigest([6; 16])],
            }),
            IndexEntry::Zero { index: 2, len: 4 << 20, old: BlockDigest([3; 32]) },
            IndexEntry::ZeroRange { first: 4, count: 6 },
        ];
        let mut body = Vec::new();
        entries.iter().for_each(|entry| entry.encode(&mut body));
        let mut line = SegmentLine { offset: 1000, len: 0, entries: 3, first: 1, last: 9 };
        let bytes = encode_segment(&body, &line);
        line.len = u32::try_from(bytes.len()).unwrap();
        assert_eq!(decode_segment(&bytes, &line, &geometry).unwrap(), entries);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(decode_segment(&bytes, &line, &geometry).is_err(), "byte {at}");
            assert!(decode_segment(&bytes[..at], &line, &geometry).is_err(), "cut at {at}");
        }
        let moved = SegmentLine { offset: 1001, ..line };
        assert!(decode_segment(&bytes, &moved, &geometry).is_err());
    }
}
