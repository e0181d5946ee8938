//! Writes a delta front to back: frames in number order, index entries in block order, segments between, trailer last.
//!
//! Frames arrive in any order (several threads compress); they are held until their turn. An entry is held until the
//! last frame it points to is written. What is held is bounded by what the compressing threads have in flight, and by whoever
//! plans the reading, who looks at [`DeltaWriter::waiting_bytes`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::digest::RootDigest;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{DeltaMessage, EncodedFrame};
use crate::format::delta::{DeltaHeader, DeltaTrailer, FrameHeader};
use crate::format::index::{
    IndexEntry, SEGMENT_HEADER_LEN, SEGMENT_MAX, SegmentLine, encode_segment, encode_table,
};
use crate::geometry::BlockIndex;
use crate::storage::ObjectWriter;

/// A segment is closed at this size, so that a restore over many deltas holds little of each.
const SEGMENT_TARGET: usize = 256 << 10;

/// What the trailer counts besides frames and segments.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChangeCounts {
    /// Blocks that differ.
    pub blocks: u64,
    /// Grains that differ.
    pub grains: u64,
    /// Bytes of those grains.
    pub bytes: u64,
}

/// A finished delta.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Bytes of the file.
    pub size: u64,
    /// BLAKE3 of the file.
    pub blake3: [u8; 32],
}

/// To which frames an entry may point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// To the last frame of the entry before it, and to later ones.
    Forward,
    /// To any; the offsets of all frames are kept, 16 bytes for each MiB of data.
    Any,
}

/// Writes one delta.
pub struct DeltaWriter {
    out: Box<dyn ObjectWriter>,
    offset: u64,
    hasher: blake3::Hasher,
    /// The frames before this number are written.
    next_frame: u64,
    frames: u64,
    waiting_frames: BTreeMap<u64, EncodedFrame>,
    waiting_bytes: u64,
    /// Numbers that no frame has.
    gaps: VecDeque<Range<u64>>,
    waiting_entries: VecDeque<IndexEntry>,
    /// Numbers and offsets of written frames, as long as an entry may point to them.
    offsets: VecDeque<(u64, u64)>,
    references: References,
    segment: Vec<u8>,
    line: Option<SegmentLine>,
    lines: Vec<SegmentLine>,
    /// Entries that were taken, and those that are written.
    taken: u64,
    entered: u64,
    /// Blocks that are passed as soon as so many entries are written.
    passing: VecDeque<(u64, BlockIndex)>,
    /// Those that are written and not yet durable, and the last of which that was asked.
    passed: VecDeque<Passed>,
    told: Option<BlockIndex>,
}

/// How far a delta that is being written could be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Bytes of the file, which end behind a segment.
    pub len: u64,
    /// All blocks before this one are in them, as far as they changed.
    pub next: BlockIndex,
}

/// How far a delta that is being written is, when it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// The block that was passed last: all before it are written.
    pub last: BlockIndex,
    /// The name under which something of it outlives its writer; see [`ObjectWriter::make_durable`].
    pub unfinished: Option<String>,
    /// How far it could be taken over under that name, when that is farther than the last time.
    pub durable: Option<Passed>,
}

impl DeltaWriter {
    /// Begins with the header.
    pub fn begin(out: Box<dyn ObjectWriter>, header: &DeltaHeader, references: References) -> Result<Self> {
        let mut writer = Self {
            out,
            offset: 0,
            hasher: blake3::Hasher::new(),
            next_frame: 0,
            frames: 0,
            waiting_frames: BTreeMap::new(),
            waiting_bytes: 0,
            gaps: VecDeque::new(),
            waiting_entries: VecDeque::new(),
            offsets: VecDeque::new(),
            references,
            segment: Vec::new(),
            line: None,
            lines: Vec::new(),
            taken: 0,
            entered: 0,
            passing: VecDeque::new(),
            passed: VecDeque::new(),
            told: None,
        };
        writer.put(&header.encode())?;
        Ok(writer)
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.offset
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write(bytes)?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of frames that wait for those before them.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Takes a frame or an entry and writes all whose turn has come.
    pub fn accept(&mut self, message: DeltaMessage) -> Result<()> {
        match message {
            DeltaMessage::Frame(frame) => {
                self.waiting_bytes += frame.payload.len() as u64;
                if frame.number < self.next_frame || self.waiting_frames.insert(frame.number, frame).is_some()
                {
                    return Err(Error::new(ErrorKind::Io, "two frames of the delta have one number"));
                }
            }
            DeltaMessage::NoFrames(numbers) => self.gaps.push_back(numbers),
            DeltaMessage::Entry(entry) => {
                self.taken += 1;
                self.waiting_entries.push_back(entry);
            }
            DeltaMessage::Passed(next) => self.passing.push_back((self.taken, next)),
        }
        // Marks before entries and entries before frames, one at a time: what is behind a mark must not come before it.
        loop {
            if let Some((_, next)) = self.passing.pop_front_if(|(entries, _)| *entries <= self.entered) {
                self.close_segment()?;
                self.passed.push_back(Passed { len: self.offset, next });
            } else if let Some(entry) = self.next_ready_entry() {
                self.put_entry(entry)?;
                self.entered += 1;
            } else if !self.put_next_frame()? {
                return Ok(());
            }
        }
    }

    /// Whether it was told since the last time that it was made durable.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.passed.back().is_some_and(|last| Some(last.next) != self.told)
    }

    /// Makes durable what is written, or as much of it as the storage can without waiting.
    pub fn make_durable(&mut self) -> Result<Reached> {
        let last = self.passed.back().map_or(0, |last| last.next);
        self.told = Some(last);
        let Some(kept) = self.out.make_durable()? else { return Ok(Reached { last, ..Reached::default() }) };
        let mut durable = None;
        while self.passed.front().is_some_and(|passed| passed.len <= kept.len) {
            durable = self.passed.pop_front();
        }
        Ok(Reached { last, unfinished: Some(kept.name), durable })
    }

    /// False when the next one has not come.
    fn put_next_frame(&mut self) -> Result<bool> {
        while let Some(numbers) = self.gaps.pop_front_if(|numbers| numbers.start == self.next_frame) {
            self.next_frame = numbers.end;
        }
        let Some(frame) = self.waiting_frames.remove(&self.next_frame) else { return Ok(false) };
        self.waiting_bytes -= frame.payload.len() as u64;
        self.put_frame(&frame)?;
        Ok(true)
    }

    fn put_frame(&mut self, frame: &EncodedFrame) -> Result<()> {
        let offset = self.offset;
        self.put(&FrameHeader::encode(frame.codec, frame.raw_len, &frame.payload, offset))?;
        self.put(&frame.payload)?;
        self.offsets.push_back((frame.number, offset));
        self.next_frame += 1;
        self.frames += 1;
        Ok(())
    }

    fn next_ready_entry(&mut self) -> Option<IndexEntry> {
        let ready = match self.waiting_entries.front()? {
            IndexEntry::Grains(entry) => entry.pieces.iter().all(|piece| piece.frame < self.next_frame),
            IndexEntry::Zero { .. } | IndexEntry::ZeroRange { .. } => true,
        };
        if ready { self.waiting_entries.pop_front() } else { None }
    }

    fn put_entry(&mut self, mut entry: IndexEntry) -> Result<()> {
        if let IndexEntry::Grains(grains) = &mut entry {
            if let (References::Forward, Some(first)) = (self.references, grains.pieces.first()) {
                let first = first.frame;
                while self.offsets.pop_front_if(|(number, _)| *number < first).is_some() {}
            }
            for piece in &mut grains.pieces {
                let position = self.offsets.binary_search_by_key(&piece.frame, |(number, _)| *number).ok();
                let offset = position.and_then(|position| self.offsets.get(position));
                piece.frame =
                    offset.ok_or_else(|| Error::new(ErrorKind::Io, "an entry points to a lost frame"))?.1;
            }
        }
        let before = self.segment.len();
        entry.encode(&mut self.segment);
        if self.segment.len() + SEGMENT_HEADER_LEN > SEGMENT_MAX && before > 0 {
            let last = self.segment.split_off(before);
            self.close_segment()?;
            self.segment = last;
        }
        let (first, count) = entry.span();
        let line = self.line.get_or_insert(SegmentLine { offset: 0, len: 0, entries: 0, first, last: first });
        line.entries += 1;
        line.last = first + count - 1;
        if self.segment.len() >= SEGMENT_TARGET {
            self.close_segment()?;
        }
        Ok(())
    }

    fn close_segment(&mut self) -> Result<()> {
        let Some(mut line) = self.line.take() else { return Ok(()) };
        line.offset = self.offset;
        let bytes = encode_segment(&std::mem::take(&mut self.segment), &line);
        line.len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.lines.push(line);
        self.put(&bytes)
    }

    /// Writes what is left, the table and the trailer, and makes the file durable.
    pub fn finish(mut self, root: RootDigest, counts: ChangeCounts) -> Result<Written> {
        if !self.waiting_entries.is_empty() || !self.waiting_frames.is_empty() {
            return Err(Error::new(ErrorKind::Io, "the delta misses a frame"));
        }
        self.close_segment()?;
        let table_offset = self.offset;
        let table = encode_table(&self.lines, table_offset);
        self.put(&table)?;
        let trailer = DeltaTrailer {
            table_offset,
            segments: self.lines.len() as u64,
            frames: self.frames,
            blocks_changed: counts.blocks,
            grains_changed: counts.grains,
            bytes_changed: counts.bytes,
            root,
            digest: *self.hasher.finalize().as_bytes(),
        };
        self.put(&trailer.encode())?;
        self.out.finish()?;
        Ok(Written { size: self.offset, blake3: *self.hasher.finalize().as_bytes() })
    }
}
