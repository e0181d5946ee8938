//! Reads a delta: header and trailer when it is opened, then index segments one at a time, frames at random.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::delta::compression::decompress;
use crate::delta::passing::{Passing, Room};
use crate::error::{Error, Result};
use crate::format::delta::{
    DeltaHeader, DeltaTrailer, FRAME_HEADER_LEN, FrameHeader, HEADER_LEN, TRAILER_LEN,
};
use crate::format::index::{
    IndexEntry, SegmentLine, TABLE_PAGE_ENTRIES, decode_segment, decode_table_page, table_page,
};
use crate::format::repository_config::Codec;
use crate::geometry::{BlockIndex, to_usize};
use crate::storage::ObjectReader;

/// A frame before decompression.
pub struct StoredFrame {
    /// How it is compressed.
    pub codec: Codec,
    /// Bytes before compression.
    pub raw_len: u32,
    /// The compressed bytes.
    pub payload: Vec<u8>,
}

/// An open delta.
pub struct DeltaReader {
    object: Arc<dyn ObjectReader>,
    /// The same object, by a way of its own for frames.
    frames: Arc<dyn ObjectReader>,
    header: DeltaHeader,
    trailer: DeltaTrailer,
}

impl DeltaReader {
    /// Reads and checks header and trailer.
    pub fn open(object: Arc<dyn ObjectReader>) -> Result<Self> {
        let path = object.display();
        Self::read(object).map_err(|error| error.path(path))
    }

    fn read(object: Arc<dyn ObjectReader>) -> Result<Self> {
        let trailer_offset = object.size().checked_sub(TRAILER_LEN as u64);
        let trailer_offset = trailer_offset.filter(|offset| *offset >= HEADER_LEN as u64);
        let trailer_offset =
            trailer_offset.ok_or_else(|| Error::damaged("the delta is cut short").at(object.size(), 0))?;
        let mut bytes = [0; HEADER_LEN];
        object.read_exact_at(&mut bytes, 0)?;
        let header = DeltaHeader::decode(&bytes).map_err(|error| error.at(0, HEADER_LEN as u64))?;
        let mut bytes = [0; TRAILER_LEN];
        object.read_exact_at(&mut bytes, trailer_offset)?;
        let trailer = DeltaTrailer::decode(&bytes, trailer_offset)
            .map_err(|error| error.at(trailer_offset, TRAILER_LEN as u64))?;
        Ok(Self { frames: Arc::clone(&object), object, header, trailer })
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &DeltaHeader {
        &self.header
    }

    /// Its trailer.
    #[must_use]
    pub fn trailer(&self) -> &DeltaTrailer {
        &self.trailer
    }

    /// The file it is read from.
    #[must_use]
    pub fn object(&self) -> &dyn ObjectReader {
        &*self.object
    }

    /// Reads all bytes and compares them with the trailer's digest; returns BLAKE3 of the whole file.
    pub fn prove_bytes(&self, on_bytes: impl FnMut(u64) -> Result<()>) -> Result<[u8; 32]> {
        self.in_passing(&Arc::default()).1.finish(on_bytes)
    }

    /// The same delta, and what proves all its bytes while its frames are read.
    #[must_use]
    pub fn in_passing(&self, room: &Arc<Room>) -> (Arc<Self>, Arc<Passing>) {
        let object = Arc::clone(&self.object);
        let passing = Arc::new(Passing::new(Arc::clone(&object), self.trailer, Arc::clone(room)));
        let frames = Arc::clone(&passing) as Arc<dyn ObjectReader>;
        (Arc::new(Self { object, frames, header: self.header.clone(), trailer: self.trailer }), passing)
    }

    /// The raw bytes of the frame at `offset`.
    pub fn frame(&self, offset: u64) -> Result<Vec<u8>> {
        let raw = || {
            let StoredFrame { codec, raw_len, payload } = self.read_frame(offset)?;
            decompress(codec, payload, to_usize(u64::from(raw_len)))
        };
        raw().map_err(|error| error.path(self.object.display()).at(offset, 0))
    }

    /// The frame at `offset` as it is stored; its bytes are proven to be those that were written.
    pub fn stored_frame(&self, offset: u64) -> Result<StoredFrame> {
        self.read_frame(offset).map_err(|error| error.path(self.object.display()).at(offset, 0))
    }

    fn read_frame(&self, offset: u64) -> Result<StoredFrame> {
        if offset.saturating_add(FRAME_HEADER_LEN as u64) > self.trailer.table_offset {
            return Err(Error::damaged("a frame is said to be beyond the delta's end"));
        }
        let mut bytes = [0; FRAME_HEADER_LEN];
        self.frames.read_exact_at(&mut bytes, offset)?;
        let header = FrameHeader::decode(&bytes)?;
        let mut payload = vec![0; to_usize(u64::from(header.stored_len))];
        self.frames.read_exact_at(&mut payload, offset + FRAME_HEADER_LEN as u64)?;
        let codec = header.prove(&bytes, &payload, offset)?;
        Ok(StoredFrame { codec, raw_len: header.raw_len, payload })
    }

    /// Walks the index in block order.
    #[must_use]
    pub fn cursor(self: &Arc<Self>) -> IndexCursor {
        IndexCursor {
            reader: Arc::clone(self),
            page: Vec::new(),
            next_line: 0,
            free: 0,
            entries: Vec::new().into_iter(),
            current: None,
            lost: None,
        }
    }

    fn line(&self, number: u64, page: &mut Vec<SegmentLine>) -> Result<SegmentLine> {
        let position = to_usize(number % TABLE_PAGE_ENTRIES as u64);
        if position == 0 || page.is_empty() {
            let (start, len) = table_page(number, self.trailer.segments);
            let offset = self.trailer.table_offset + start;
            let mut bytes = vec![0; len];
            self.object.read_exact_at(&mut bytes, offset)?;
            *page = decode_table_page(&bytes, offset).map_err(|error| error.at(offset, len as u64))?;
        }
        page.get(position).copied().ok_or_else(|| Error::damaged("the segment table is too short"))
    }

    /// The lines of all index segments, in block order.
    pub fn segments(&self) -> Result<Vec<SegmentLine>> {
        let mut page = Vec::new();
        let lines = (0..self.trailer.segments).map(|number| self.line(number, &mut page));
        lines.collect::<Result<_>>().map_err(|error: Error| error.path(self.object.display()))
    }

    /// The entries of one index segment.
    pub fn entries(&self, line: &SegmentLine) -> Result<Vec<IndexEntry>> {
        self.segment(line).map_err(|error| error.path(self.object.display()))
    }

    fn segment(&self, line: &SegmentLine) -> Result<Vec<IndexEntry>> {
        if line.offset.saturating_add(u64::from(line.len)) > self.trailer.table_offset {
            return Err(Error::damaged("a segment is said to be beyond the delta's end"));
        }
        let mut bytes = vec![0; to_usize(u64::from(line.len))];
        self.object.read_exact_at(&mut bytes, line.offset)?;
        decode_segment(&bytes, line, &self.header.geometry)
            .map_err(|error| error.at(line.offset, u64::from(line.len)))
    }
}

/// A position in a delta's index; holds one segment.
pub struct IndexCursor {
    reader: Arc<DeltaReader>,
    page: Vec<SegmentLine>,
    next_line: u64,
    /// First block that the next segment may speak of.
    free: BlockIndex,
    entries: std::vec::IntoIter<IndexEntry>,
    current: Option<IndexEntry>,
    /// The last part of the index that could not be read.
    lost: Option<LostPart>,
}

/// Blocks of which nobody knows what the index says, and why.
#[derive(Debug, Clone)]
pub struct LostPart {
    /// They are these; the volume may end before.
    pub blocks: RangeInclusive<BlockIndex>,
    /// What is wrong, and where.
    pub what: String,
}

impl IndexCursor {
    /// The delta it walks.
    #[must_use]
    pub fn reader(&self) -> &Arc<DeltaReader> {
        &self.reader
    }

    /// The last part of the index that could not be read.
    #[must_use]
    pub fn lost(&self) -> Option<&LostPart> {
        self.lost.as_ref()
    }

    /// What the delta says of `block`, if anything. Blocks must be asked for in ascending order. Behind a part that cannot
    /// be read, which is an error for each of its blocks, it goes on.
    pub fn seek(&mut self, block: BlockIndex) -> Result<Option<&IndexEntry>> {
        if let Some(lost) = self.lost.as_ref().filter(|lost| lost.blocks.contains(&block)) {
            return Err(Error::damaged(lost.what.clone()));
        }
        loop {
            match &self.current {
                Some(entry) if entry.span().0 + entry.span().1 > block => break,
                _ => {
                    if !self.advance(block)? {
                        self.current = None;
                        return Ok(None);
                    }
                }
            }
        }
        Ok(self.current.as_ref().filter(|entry| entry.span().0 <= block))
    }

    /// The next entry, in order.
    pub fn next_entry(&mut self) -> Result<Option<IndexEntry>> {
        if !self.advance(0)? {
            return Ok(None);
        }
        Ok(self.current.take())
    }

    /// The first block at or after `block` that the delta speaks of.
    pub fn next_block(&mut self, block: BlockIndex) -> Result<Option<BlockIndex>> {
        self.seek(block)?;
        Ok(self.current.as_ref().map(|entry| entry.span().0.max(block)))
    }

    /// Steps to the next entry, passing over segments that end before `block`; false at the end.
    fn advance(&mut self, block: BlockIndex) -> Result<bool> {
        loop {
            if let Some(entry) = self.entries.next() {
                self.current = Some(entry);
                return Ok(true);
            }
            if self.next_line == self.reader.trailer.segments {
                return Ok(false);
            }
            let line = self.step().map_err(|error| self.lose(self.free..=BlockIndex::MAX, error))?;
            self.free = line.last.saturating_add(1);
            self.next_line += 1;
            if line.last >= block {
                let entries = self.reader.entries(&line);
                self.entries = entries.map_err(|error| self.lose(line.first..=line.last, error))?.into_iter();
            }
        }
    }

    fn step(&mut self) -> Result<SegmentLine> {
        let path = || self.reader.object.display();
        let line = self.reader.line(self.next_line, &mut self.page).map_err(|error| error.path(path()))?;
        if line.first < self.free || line.last < line.first {
            return Err(Error::damaged("index segments out of order").path(path()).at(line.offset, 0));
        }
        Ok(line)
    }

    fn lose(&mut self, blocks: RangeInclusive<BlockIndex>, error: Error) -> Error {
        if error.is_damage() {
            self.lost = Some(LostPart { blocks, what: error.full_text() });
        }
        error
    }
}
