//! The durable beginning of a delta that was never finished: what an interrupted run has passed is taken over from it.
//!
//! There is no trailer and no table, so it is walked from front to back; each frame and segment is proven by its checksum,
//! which is bound to its place. It ends exactly behind an index segment, so that every frame has its entries. A byte that
//! does not fit ends the walk with an error: half a past is no past.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::flow::{DeltaMessage, EncodedFrame};
use crate::format::delta::{DeltaHeader, FRAME_HEADER_LEN, FRAME_MAGIC, FrameHeader, HEADER_LEN};
use crate::format::index::{IndexEntry, SEGMENT_HEADER_LEN, decode_segment, segment_line};
use crate::geometry::{BlockIndex, to_usize};
use crate::storage::ObjectReader;

/// An unfinished delta, as far as it is durable.
pub struct DeltaPrefix {
    object: Arc<dyn ObjectReader>,
    header: DeltaHeader,
    len: u64,
}

impl DeltaPrefix {
    /// Its first `len` bytes, which end behind a segment.
    pub fn open(object: Arc<dyn ObjectReader>, len: u64) -> Result<Self> {
        let path = object.display();
        if len < HEADER_LEN as u64 || object.size() < len {
            return Err(Error::damaged("the unfinished delta is cut short").path(path).at(object.size(), 0));
        }
        let mut bytes = [0; HEADER_LEN];
        object.read_exact_at(&mut bytes, 0)?;
        let header =
            DeltaHeader::decode(&bytes).map_err(|error| error.path(path).at(0, HEADER_LEN as u64))?;
        Ok(Self { object, header, len })
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &DeltaHeader {
        &self.header
    }

    /// Hands on frames, numbered from 0, and entries whose pieces name frames by number, in the order of the file. Returns
    /// the number of frames.
    pub fn walk(&self, mut on_message: impl FnMut(DeltaMessage) -> Result<()>) -> Result<u64> {
        let (mut at, mut free, mut frames) = (HEADER_LEN as u64, 0, 0);
        // Offsets of frames that an entry may still point to.
        let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
        while at < self.len {
            let mut magic = [0; 4];
            self.read(&mut magic, at)?;
            if magic == *FRAME_MAGIC {
                let (frame, len) = self.frame(at, frames).map_err(|error| self.place(error, at))?;
                numbers.insert(at, frames);
                frames += 1;
                at += len;
                on_message(DeltaMessage::Frame(frame))?;
                continue;
            }
            let (entries, len) = self.segment(at, free).map_err(|error| self.place(error, at))?;
            for mut entry in entries {
                self.number(&mut entry, &mut numbers).map_err(|error| self.place(error, at))?;
                free = entry.span().0 + entry.span().1;
                on_message(DeltaMessage::Entry(entry))?;
            }
            at += len;
        }
        if at != self.len {
            return Err(self.place(Error::damaged("the unfinished delta does not end behind a segment"), at));
        }
        Ok(frames)
    }

    fn place(&self, error: Error, at: u64) -> Error {
        error.path(self.object.display()).at(at, 0)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        if at.saturating_add(buffer.len() as u64) > self.len {
            return Err(self.place(Error::damaged("the unfinished delta is cut short"), at));
        }
        self.object.read_exact_at(buffer, at)
    }

    fn frame(&self, at: u64, number: u64) -> Result<(EncodedFrame, u64)> {
        let mut bytes = [0; FRAME_HEADER_LEN];
        self.read(&mut bytes, at)?;
        let header = FrameHeader::decode(&bytes)?;
        let mut payload = vec![0; to_usize(u64::from(header.stored_len))];
        self.read(&mut payload, at + FRAME_HEADER_LEN as u64)?;
        let codec = header.prove(&bytes, &payload, at)?;
        let len = FRAME_HEADER_LEN as u64 + u64::from(header.stored_len);
        Ok((EncodedFrame { number, codec, raw_len: header.raw_len, payload }, len))
    }

    fn segment(&self, at: u64, free: BlockIndex) -> Result<(Vec<IndexEntry>, u64)> {
        let mut header = [0; SEGMENT_HEADER_LEN];
        self.read(&mut header, at)?;
        let line = segment_line(&header, at)?;
        if line.first < free || line.last < line.first {
            return Err(Error::damaged("index segments out of order"));
        }
        let mut bytes = vec![0; to_usize(u64::from(line.len))];
        self.read(&mut bytes, at)?;
        Ok((decode_segment(&bytes, &line, &self.header.geometry)?, u64::from(line.len)))
    }

    /// Offsets of frames become their numbers.
    fn number(&self, entry: &mut IndexEntry, numbers: &mut BTreeMap<u64, u64>) -> Result<()> {
        let IndexEntry::Grains(entry) = entry else { return Ok(()) };
        if let Some(first) = entry.pieces.iter().map(|piece| piece.frame).min() {
            // Entries point to the last frame of the one before them, and forwards.
            *numbers = numbers.split_off(&first);
        }
        for piece in &mut entry.pieces {
            let number = numbers.get(&piece.frame);
            piece.frame =
                *number.ok_or_else(|| Error::damaged("an entry points to a frame that is not there"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::backup_id::VolumeIdentity;
    use crate::delta::writer::{DeltaWriter, Passed, References};
    use crate::digest::DigestKind;
    use crate::geometry::Geometry;
    use crate::storage::{Durable, ObjectWriter, Storage, memory::MemoryStorage};

    /// As an object store: what is durable are whole parts, and some of them are on their way.
    struct Lagging(Arc<Mutex<Vec<u8>>>);
    const PART: u64 = 300;

    impl ObjectWriter for Lagging {
        fn write(&mut self, bytes: &[u8]) -> Result<()> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        }

        fn make_durable(&mut self) -> Result<Option<Durable>> {
            let len = self.0.lock().unwrap().len() as u64;
            let len = (len / PART).saturating_sub(2) * PART;
            Ok((len > 0).then(|| Durable { name: "a".into(), len }))
        }

        fn finish(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    /// The blocks that are told of in the first bytes of a delta.
    fn told(bytes: &[u8], len: u64) -> Vec<BlockIndex> {
        let storage = MemoryStorage::new();
        storage.put_new("a", bytes).unwrap();
        let mut blocks = Vec::new();
        let prefix = DeltaPrefix::open(storage.open("a").unwrap(), len).unwrap();
        let told = prefix.walk(|message| {
            let DeltaMessage::Entry(entry) = message else { panic!("no entry") };
            blocks.push(entry.span().0);
            Ok(())
        });
        told.unwrap();
        blocks
    }

    #[test]
    fn a_mark_waits_until_the_storage_has_caught_up() {
        let header = DeltaHeader {
            geometry: Geometry::new(1 << 30, 4 << 20, 8192).unwrap(),
            digest: DigestKind::Blake3,
            identity: VolumeIdentity::new("file:a").unwrap(),
            sequence: 1,
            parent: None,
        };
        let bytes = Arc::default();
        let out = Box::new(Lagging(Arc::clone(&bytes)));
        let mut writer = DeltaWriter::begin(out, &header, References::Forward).unwrap();
        let mut marks: Vec<Passed> = Vec::new();
        for first in 0..100 {
            writer.accept(DeltaMessage::Entry(IndexEntry::ZeroRange { first, count: 1 })).unwrap();
            writer.accept(DeltaMessage::Passed(first + 1)).unwrap();
            assert!(writer.has_passed());
            let reached = writer.make_durable().unwrap();
            assert_eq!(reached.last, first + 1, "the last mark is told of, durable or not");
            let Some(passed) = reached.durable else { continue };
            assert!(passed.len + 2 * PART <= writer.written(), "{passed:?} is not durable");
            assert!(marks.last().is_none_or(|last| last.next < passed.next), "{passed:?}");
            assert_eq!(
                told(&bytes.lock().unwrap()[..to_usize(passed.len)], passed.len),
                (0..passed.next).collect::<Vec<_>>()
            );
            marks.push(passed);
        }
        let last = marks.last().expect("some are durable");
        assert!(last.next > 80, "the last mark is not far behind: {last:?}");
    }
}
