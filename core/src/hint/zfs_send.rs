//! What changed in a zvol, read off the stream of `zfs send -i BASELINE SNAPSHOT`.
//!
//! ```text
//! stream  := BEGIN record* END, and nothing after it
//! record  := 312 bytes, payload; the last 32 of the 312 are the Fletcher-4 sum of all bytes before them
//! ```
//!
//! Numbers are in the byte order of the host that sends; the magic number tells which. Only the records of the data object
//! count: what they write, free or redact may have changed. Frees are read like writes, because ZFS has had bugs in when
//! a hole was made. The data itself is summed and thrown away: the stream costs reading the changed blocks once more.
//! If a record were misread, changes would be missed; so the sum of every record must hold, the stream must be between
//! the very two snapshots, must end with END, and whatever is not known is refused. Then there is no hint.

use std::io::{BufReader, ErrorKind as IoErrorKind, Read};

use super::ChangeMap;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;

const RECORD: usize = 312;
/// Where the sum stands in every record but BEGIN, which has the snapshot's name there.
const SUM_AT: usize = RECORD - 32;
const MAGIC: u64 = 0x2_f5ba_cbac;
/// The header type of one snapshot's stream, in the two lowest bits of the version.
const SINGLE_STREAM: u64 = 1;
/// Features that change neither the records nor what is left out: spill blocks, embedded and compressed data, large
/// blocks and dnodes, raw (encrypted) data. Resumed, redacted and deduplicated streams are not among them.
const FEATURES: u64 = 1 << 2 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 27;
const TYPE_ZVOL: u32 = 3;
/// The object of a zvol that holds its data; the others hold its properties.
const DATA_OBJECT: u64 = 1;
/// No record carries more than one block, and no block is larger.
const PAYLOAD_MAX: u64 = 16 << 20;
const CHUNK: usize = 128 << 10;

mod kind {
    pub const BEGIN: u32 = 0;
    pub const OBJECT: u32 = 1;
    pub const FREEOBJECTS: u32 = 2;
    pub const WRITE: u32 = 3;
    pub const FREE: u32 = 4;
    pub const END: u32 = 5;
    pub const WRITE_BYREF: u32 = 6;
    pub const SPILL: u32 = 7;
    pub const WRITE_EMBEDDED: u32 = 8;
    pub const OBJECT_RANGE: u32 = 9;
    pub const REDACT: u32 = 10;
}

/// Puts into `map` what the stream between the snapshots with these guids says. An error means that there is no hint.
pub fn parse(stream: impl Read, from: u64, to: u64, map: &mut ChangeMap) -> Result<()> {
    let mut stream = SendStream::begin(stream, from, to)?;
    loop {
        let record = stream.next_record()?;
        if record.kind() == kind::END {
            return stream.end(&record, to);
        }
        let (changed, payload) = record.meaning()?;
        if let Some((offset, length)) = changed {
            map.add_changed(offset, length);
        }
        stream.skip(payload)?;
    }
}

/// The stream after its BEGIN record.
struct SendStream<R> {
    stream: BufReader<R>,
    sum: Fletcher4,
    chunk: Vec<u8>,
}

impl<R: Read> SendStream<R> {
    fn begin(stream: R, from: u64, to: u64) -> Result<Self> {
        let mut stream = BufReader::with_capacity(CHUNK, stream);
        let mut first = Record { bytes: [0; RECORD], swapped: false };
        stream.read_exact(&mut first.bytes).map_err(trouble)?;
        first.swapped = first.u64_at(8) == MAGIC.swap_bytes();
        first.check_begin(from, to)?;
        let mut sum = Fletcher4 { swapped: first.swapped, ..Fletcher4::default() };
        sum.add(&first.bytes);
        let mut begun = Self { stream, sum, chunk: vec![0; CHUNK] };
        begun.skip(u64::from(first.u32_at(4)))?;
        Ok(begun)
    }

    fn next_record(&mut self) -> Result<Record> {
        let mut bytes = [0; RECORD];
        self.stream.read_exact(&mut bytes).map_err(trouble)?;
        let record = Record { bytes, swapped: self.sum.swapped };
        let (counted, sum) = record.bytes.split_at(SUM_AT);
        self.sum.add(counted);
        if [0, 8, 16, 24].map(|at| record.u64_at(SUM_AT + at)) != self.sum.sums {
            return Err(Error::damaged("a checksum in the stream of zfs send does not match"));
        }
        self.sum.add(sum);
        Ok(record)
    }

    /// Reads over a payload; only its sum is wanted.
    fn skip(&mut self, length: u64) -> Result<()> {
        if length > PAYLOAD_MAX || !length.is_multiple_of(4) {
            return Err(Error::damaged(format!("a record in the stream of zfs send claims {length} bytes")));
        }
        let mut left = to_usize(length);
        while left > 0 {
            let chunk = &mut self.chunk[..left.min(CHUNK)];
            self.stream.read_exact(chunk).map_err(trouble)?;
            self.sum.add(chunk);
            left -= chunk.len();
        }
        Ok(())
    }

    fn end(mut self, record: &Record, to: u64) -> Result<()> {
        if record.u64_at(40) != to {
            return Err(Error::damaged("the stream of zfs send ends at another snapshot"));
        }
        match self.stream.read(&mut [0]).map_err(trouble)? {
            0 => Ok(()),
            _ => Err(Error::damaged("something follows the end of the stream of zfs send")),
        }
    }
}

fn trouble(source: std::io::Error) -> Error {
    match source.kind() {
        IoErrorKind::UnexpectedEof => Error::damaged("the stream of zfs send was cut off"),
        _ => Error::new(ErrorKind::Io, "reading the stream of zfs send").because(source),
    }
}

/// The 312 bytes that every record begins with.
struct Record {
    bytes: [u8; RECORD],
    swapped: bool,
}

impl Record {
    fn kind(&self) -> u32 {
        self.u32_at(0)
    }

    fn check_begin(&self, from: u64, to: u64) -> Result<()> {
        let version = self.u64_at(16);
        let features = version >> 2;
        let wrong = if self.u64_at(8) != MAGIC {
            "its magic number is missing".to_owned()
        } else if self.kind() != kind::BEGIN || version & 3 != SINGLE_STREAM {
            "it is not the stream of one snapshot".to_owned()
        } else if features & !FEATURES != 0 {
            format!("it has features that are not known ({:#x})", features & !FEATURES)
        } else if self.u32_at(32) != TYPE_ZVOL {
            "it is not of a zvol".to_owned()
        } else if (self.u64_at(48), self.u64_at(40)) != (from, to) {
            "it is between other snapshots".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::damaged(format!("the stream of zfs send cannot be used: {wrong}")))
    }

    /// The bytes of the volume that may have changed, if any, and the length of the payload that follows.
    fn meaning(&self) -> Result<(Option<(u64, u64)>, u64)> {
        let range = |offset, length| {
            (self.u64_at(8) == DATA_OBJECT).then(|| (self.u64_at(offset), self.u64_at(length)))
        };
        Ok(match self.kind() {
            kind::WRITE => {
                let compressed = self.bytes[50] != 0;
                (range(24, 32), self.u64_at(if compressed { 96 } else { 32 }))
            }
            kind::WRITE_EMBEDDED => (range(16, 24), u64::from(self.u32_at(52)).next_multiple_of(8)),
            kind::FREE | kind::WRITE_BYREF | kind::REDACT => (range(16, 24), 0),
            kind::FREEOBJECTS => (self.frees_the_data().then_some((0, u64::MAX)), 0),
            kind::OBJECT => match self.u32_at(36) {
                0 => (None, u64::from(self.u32_at(28)).next_multiple_of(8)),
                raw => (None, u64::from(raw)),
            },
            kind::SPILL => match self.u64_at(40) {
                0 => (None, self.u64_at(16)),
                compressed => (None, compressed),
            },
            kind::OBJECT_RANGE => (None, 0),
            other => {
                return Err(Error::damaged(format!("the stream of zfs send has a record of kind {other}")));
            }
        })
    }

    fn frees_the_data(&self) -> bool {
        let (first, count) = (self.u64_at(8), self.u64_at(16));
        (first..first.saturating_add(count)).contains(&DATA_OBJECT)
    }

    fn u32_at(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes[at..at + 4]);
        let value = u32::from_le_bytes(bytes);
        if self.swapped { value.swap_bytes() } else { value }
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.bytes[at..at + 8]);
        let value = u64::from_le_bytes(bytes);
        if self.swapped { value.swap_bytes() } else { value }
    }
}

/// The running checksum of a stream: four sums over its 32-bit words, each over the one before.
#[derive(Default)]
struct Fletcher4 {
    sums: [u64; 4],
    swapped: bool,
}

impl Fletcher4 {
    /// Adds whole words.
    fn add(&mut self, bytes: &[u8]) {
        let [mut a, mut b, mut c, mut d] = self.sums;
        let (words, _) = bytes.as_chunks::<4>();
        for word in words {
            let word = u32::from_le_bytes(*word);
            a = a.wrapping_add(u64::from(if self.swapped { word.swap_bytes() } else { word }));
            b = b.wrapping_add(a);
            c = c.wrapping_add(b);
            d = d.wrapping_add(c);
        }
        self.sums = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    const FROM: u64 = 11;
    const TO: u64 = 22;
    const BLOCK: u64 = 64 << 10;
    const VERSION: u64 = SINGLE_STREAM | (1 << 22) << 2;
    /// Offset, bytes and value of a number in a record.
    type Field = (usize, usize, u64);
    const BEGIN: [Field; 5] = [(8, 8, MAGIC), (16, 8, VERSION), (32, 4, 3), (40, 8, TO), (48, 8, FROM)];
    const END: [Field; 1] = [(40, 8, TO)];

    /// Writes a stream as ZFS does.
    #[derive(Default)]
    struct Sender {
        sent: Vec<u8>,
        sum: Fletcher4,
    }

    impl Sender {
        fn with_begin(swapped: bool, changed: &[Field]) -> Self {
            let mut sender = Self { sum: Fletcher4 { swapped, ..Fletcher4::default() }, ..Self::default() };
            sender.send(kind::BEGIN, &[&BEGIN, changed].concat(), 0);
            sender
        }

        fn send(&mut self, kind: u32, fields: &[Field], payload: usize) {
            let mut record = [0; RECORD];
            self.put(&mut record, &[(0, 4, u64::from(kind))]);
            self.put(&mut record, fields);
            self.sum.add(&record[..SUM_AT]);
            if kind != kind::BEGIN {
                let sums: Vec<Field> = (0..4).map(|n| (SUM_AT + 8 * n, 8, self.sum.sums[n])).collect();
                self.put(&mut record, &sums);
            }
            self.sum.add(&record[SUM_AT..]);
            let payload: Vec<u8> = (0..payload).map(|n| u8::try_from(n % 251).unwrap()).collect();
            self.sum.add(&payload);
            self.sent.extend([&record[..], &payload].concat());
        }

        fn put(&self, record: &mut [u8; RECORD], fields: &[Field]) {
            for (at, width, value) in fields {
                let mut bytes = value.to_le_bytes()[..*width].to_vec();
                if self.sum.swapped {
                    bytes.reverse();
                }
                record[*at..at + width].copy_from_slice(&bytes);
            }
        }
    }

    fn parsed(stream: &[u8]) -> Result<Vec<u64>> {
        let mut map = ChangeMap::new(Geometry::new(20 * BLOCK, 64 << 10, 4096).unwrap());
        parse(stream, FROM, TO, &mut map)?;
        Ok((0..20).filter(|index| map.changed().contains(*index)).collect())
    }

    /// A stream with this one record in it.
    fn with_record(kind: u32, fields: &[Field], payload: usize) -> Vec<u8> {
        let mut sender = Sender::with_begin(false, &[]);
        sender.send(kind, fields, payload);
        sender.send(kind::END, &END, 0);
        sender.sent
    }

    fn all_records(swapped: bool) -> Vec<u8> {
        let mut sender = Sender::with_begin(swapped, &[]);
        let at = |block: u64| (16, 8, block * BLOCK);
        sender.send(kind::FREEOBJECTS, &[(8, 8, 3), (16, 8, u64::MAX)], 0);
        sender.send(kind::OBJECT_RANGE, &[(16, 8, 32)], 0);
        sender.send(kind::OBJECT, &[(8, 8, 1), (28, 4, 13)], 16);
        sender.send(kind::OBJECT, &[(8, 8, 1), (28, 4, 13), (36, 4, 20)], 20);
        sender.send(kind::WRITE, &[(8, 8, 1), (24, 8, 2 * BLOCK), (32, 8, 8192)], 8192);
        let packed = [(8, 8, 1), (24, 8, 4 * BLOCK), (32, 8, 8192), (50, 1, 15), (96, 8, 512)];
        sender.send(kind::WRITE, &packed, 512);
        sender.send(kind::WRITE, &[(8, 8, 2), (24, 8, 5 * BLOCK), (32, 8, 512)], 512);
        sender.send(kind::WRITE_EMBEDDED, &[(8, 8, 1), at(6), (24, 8, 8192), (52, 4, 33)], 40);
        sender.send(kind::SPILL, &[(8, 8, 1), (16, 8, 1024)], 1024);
        sender.send(kind::SPILL, &[(8, 8, 1), (16, 8, 1024), (40, 8, 512)], 512);
        sender.send(kind::WRITE_BYREF, &[(8, 8, 1), at(8), (24, 8, 2 * BLOCK)], 0);
        sender.send(kind::REDACT, &[(8, 8, 1), at(11), (24, 8, 1)], 0);
        sender.send(kind::FREE, &[(8, 8, 1), at(13), (24, 8, BLOCK)], 0);
        sender.send(kind::FREE, &[(8, 8, 2), at(15), (24, 8, BLOCK)], 0);
        sender.send(kind::FREE, &[(8, 8, 1), at(18), (24, 8, u64::MAX)], 0);
        sender.send(kind::END, &END, 0);
        sender.sent
    }

    #[test]
    fn what_the_data_object_writes_or_frees_has_changed() {
        for swapped in [false, true] {
            assert_eq!(parsed(&all_records(swapped)).unwrap(), [2, 4, 6, 8, 9, 11, 13, 18, 19]);
        }
        let all = with_record(kind::FREEOBJECTS, &[(8, 8, 0), (16, 8, 9)], 0);
        assert_eq!(parsed(&all).unwrap().len(), 20, "the data object itself was freed");
        let nothing = with_record(kind::OBJECT, &[(8, 8, 1)], 0);
        assert!(parsed(&nothing).unwrap().is_empty());
    }

    /// Written by OpenZFS 2.1: `zfs send -w -i` of a zvol of 8 MiB with blocks of 8 KiB, after writing blocks 16, 170, 400,
    /// 800 and 1023 and discarding blocks 64 to 79.
    #[test]
    fn a_real_stream_is_understood() {
        let (from, to) = (13_473_947_610_319_342_156, 5_037_427_376_950_354_222);
        let stream = include_bytes!("testdata/zvol.zfs-send");
        let mut map = ChangeMap::new(Geometry::new(8 << 20, 64 << 10, 4096).unwrap());
        parse(&stream[..], from, to, &mut map).unwrap();
        let changed: Vec<u64> = (0..128).filter(|index| map.changed().contains(*index)).collect();
        assert_eq!(changed, [2, 8, 9, 21, 50, 100, 127]);
        assert!(parse(&stream[..], to, from, &mut map).is_err());
    }

    #[test]
    fn a_stream_that_was_cut_or_hurt_anywhere_is_no_hint() {
        let whole = all_records(false);
        for at in (0..whole.len()).step_by(41).chain([whole.len() - RECORD, whole.len() - 1]) {
            assert!(parsed(&whole[..at]).is_err(), "cut after {at} bytes");
            let mut hurt = whole.clone();
            hurt[at] ^= 1;
            assert!(parsed(&hurt).is_err(), "byte {at} changed");
        }
        assert!(parsed(&[whole.as_slice(), &[0]].concat()).is_err(), "something after the end");
    }

    #[test]
    fn a_stream_that_is_not_the_expected_one_is_no_hint() {
        for (field, why) in [
            ((8, 8, MAGIC + 1), "magic number"),
            ((16, 8, 2), "not the stream of one snapshot"),
            ((16, 8, SINGLE_STREAM | (1 << 20) << 2), "features"),
            ((32, 4, 2), "not of a zvol"),
            ((40, 8, FROM), "other snapshots"),
            ((48, 8, TO), "other snapshots"),
            ((4, 4, 17 << 20), "claims"),
        ] {
            let mut sender = Sender::with_begin(false, &[field]);
            sender.send(kind::END, &END, 0);
            let error = parsed(&sender.sent).unwrap_err();
            assert!(error.to_string().contains(why), "{error}, not {why}");
        }
        let mut sender = Sender::with_begin(false, &[]);
        sender.send(kind::END, &[(40, 8, FROM)], 0);
        assert!(parsed(&sender.sent).is_err(), "it ends at another snapshot");
    }

    #[test]
    fn absurd_records_are_no_hint() {
        for (kind, fields) in [
            (kind::WRITE, vec![(32, 8, u64::MAX)]),
            (kind::WRITE, vec![(32, 8, 510)]),
            (kind::WRITE, vec![(50, 1, 2), (96, 8, 1 << 40)]),
            (kind::WRITE_EMBEDDED, vec![(52, 4, u64::from(u32::MAX))]),
            (kind::OBJECT, vec![(28, 4, u64::from(u32::MAX))]),
            (kind::SPILL, vec![(16, 8, u64::MAX)]),
            (kind::BEGIN, BEGIN.to_vec()),
            (11, vec![]),
            (u32::MAX, vec![]),
        ] {
            let error = parsed(&with_record(kind, &fields, 0)).unwrap_err();
            assert!(!error.to_string().contains("cut off"), "{kind} {fields:?}: {error}");
        }
    }
}
