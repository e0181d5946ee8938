//! What `thin_delta` (package thin-provisioning-tools) says about two thin volumes of one pool.
//!
//! ```text
//! <superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="1600">
//!   <diff left="1" right="2">
//!     <same begin="0" length="10"/>          mapped to the same data in both
//!     <different begin="10" length="1"/>     mapped in both, to other data
//!     <left_only begin="11" length="1"/>     discarded since: reads as zeros now
//!     <right_only begin="12" length="1"/>    first written since
//!   </diff>
//! </superblock>
//! ```
//!
//! One element a line, in ascending order; `begin` and `length` count chunks of `data_block_size` sectors. The form
//! with `--verbose` only adds where the data lies in the pool, so the short one is read.
//! Trade-off: a strict reader of exactly this instead of an XML library. Output of a later version that looks otherwise
//! is refused, and the volume is read in full; nothing that was not understood is taken for unchanged.

use std::io::{BufRead, Read};
use std::ops::Range;

use super::ChangeMap;
use crate::error::{Error, Result};

const SECTOR: u64 = 512;
/// What device-mapper allows as a pool's chunk: 64 KiB to 1 GiB, in steps of 64 KiB.
const CHUNK_SECTORS: (u64, u64) = (128, 1 << 21);
/// No line of it comes near this.
const LINE_MAX: u64 = 4096;

/// Reads all of it: what differs or was discarded becomes changed, what the newer volume maps becomes mapped. Returns how
/// many sectors that one maps, also beyond its end.
pub fn parse(xml: impl BufRead, map: &mut ChangeMap) -> Result<u64> {
    let mut lines = Lines { xml, number: 0 };
    let chunk = chunk_bytes(&lines.next()?)?;
    lines.next()?.expect("diff", false)?;
    map.tell_mapped();
    let (mut end, mut mapped_bytes) = (0, 0_u64);
    loop {
        let line = lines.next()?;
        if line.is("/diff") {
            break;
        }
        let chunks = line.range(end)?;
        end = chunks.end;
        let (offset, length) =
            bytes(&chunks, chunk).ok_or_else(|| line.problem("numbers that are too large"))?;
        let (changed, mapped) = match line.name() {
            "same" => (false, true),
            "different" | "right_only" => (true, true),
            "left_only" => (true, false),
            _ => return Err(line.problem("an unknown element")),
        };
        if changed {
            map.add_changed(offset, length);
        }
        if mapped {
            map.add_mapped(offset, length);
            mapped_bytes = mapped_bytes.saturating_add(length);
        }
    }
    lines.next()?.expect("/superblock", false)?;
    lines.end()?;
    Ok(mapped_bytes / SECTOR)
}

fn chunk_bytes(superblock: &Line) -> Result<u64> {
    superblock.expect("superblock", false)?;
    let sectors = superblock.number_of("data_block_size")?;
    let (least, most) = CHUNK_SECTORS;
    if !(least..=most).contains(&sectors) || !sectors.is_multiple_of(least) {
        return Err(superblock.problem("a chunk size that no pool has"));
    }
    Ok(sectors * SECTOR)
}

fn bytes(chunks: &Range<u64>, chunk: u64) -> Option<(u64, u64)> {
    let offset = chunks.start.checked_mul(chunk)?;
    Some((offset, chunks.end.checked_mul(chunk)? - offset))
}

/// Lines that are not empty, counted.
struct Lines<R> {
    xml: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Line> {
        self.read()?.ok_or_else(|| refused(self.number, "its end is missing"))
    }

    fn end(&mut self) -> Result<()> {
        self.read()?.map_or(Ok(()), |line| Err(line.problem("more after the end")))
    }

    fn read(&mut self) -> Result<Option<Line>> {
        loop {
            let mut bytes = Vec::new();
            let mut limited = Read::take(&mut self.xml, LINE_MAX);
            self.number += 1;
            limited
                .read_until(b'\n', &mut bytes)
                .map_err(|source| refused(self.number, "it could not be read").because(source))?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            if !bytes.ends_with(b"\n") && !text.ends_with('>') {
                return Err(refused(self.number, "a line is cut or far too long"));
            }
            if !text.is_empty() {
                return Ok(Some(Line { text, number: self.number }));
            }
        }
    }
}

/// One element: `<name attribute="value" ...>`, perhaps with a slash before its end.
struct Line {
    text: String,
    number: u64,
}

impl Line {
    fn problem(&self, what: &str) -> Error {
        refused(self.number, &format!("{what}: {}", self.text.escape_debug()))
    }

    fn inner(&self) -> Option<&str> {
        self.text.strip_prefix('<')?.strip_suffix('>')
    }

    fn name(&self) -> &str {
        let words = self.inner().and_then(|inner| inner.split_ascii_whitespace().next());
        words.unwrap_or_default().trim_end_matches('/')
    }

    fn is(&self, name: &str) -> bool {
        self.name() == name
    }

    fn expect(&self, name: &str, empty: bool) -> Result<()> {
        let closed = self.inner().is_some_and(|inner| inner.ends_with('/'));
        if self.is(name) && closed == empty {
            return Ok(());
        }
        Err(self.problem(&format!("'{name}' was to come here, not")))
    }

    fn number_of(&self, attribute: &str) -> Result<u64> {
        let inner = self.inner().unwrap_or_default().trim_end_matches('/');
        let value = |word: &str| {
            let value = word.strip_prefix(attribute)?.strip_prefix("=\"")?.strip_suffix('"')?;
            value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
        };
        let found = inner.split_ascii_whitespace().find_map(value);
        found.ok_or_else(|| self.problem(&format!("no number '{attribute}' in")))
    }

    /// The chunks of an element that stands alone; they begin at or after `least`.
    fn range(&self, least: u64) -> Result<Range<u64>> {
        self.expect(self.name(), true)?;
        let (begin, length) = (self.number_of("begin")?, self.number_of("length")?);
        let end = begin.checked_add(length).filter(|_| begin >= least && length > 0);
        Ok(begin..end.ok_or_else(|| self.problem("a range that cannot be"))?)
    }
}

fn refused(line: u64, what: &str) -> Error {
    Error::damaged(format!("line {line} of thin_delta's output was not understood: {what}"))
        .hint("the volume is read in full instead")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    const MIB: u64 = 1 << 20;

    fn wrapped(inner: &str) -> String {
        format!(
            "<superblock uuid=\"\" time=\"1\" transaction=\"2\" version=\"2\" data_block_size=\"128\" \
             nr_data_blocks=\"160\">\n  <diff left=\"1\" right=\"2\">\n{inner}  </diff>\n</superblock>\n"
        )
    }

    /// Blocks of 1 MiB, chunks of 64 KiB: 16 chunks a block.
    fn parsed(xml: &str) -> Result<ChangeMap> {
        let mut map = ChangeMap::new(Geometry::new(10 * MIB, 1 << 20, 8192).unwrap());
        parse(xml.as_bytes(), &mut map).map(|_| map)
    }

    fn blocks(map: &ChangeMap, of: impl Fn(&ChangeMap, u64) -> bool) -> Vec<u64> {
        (0..10).filter(|index| of(map, *index)).collect()
    }

    #[test]
    fn what_changed_and_what_is_mapped_is_told_apart() {
        let map = parsed(&wrapped(
            "    <same begin=\"0\" length=\"17\"/>\n    <different begin=\"32\" length=\"1\"/>\n\
             <left_only begin=\"48\" length=\"16\"/>\n<right_only begin=\"79\" length=\"2\"/>\n\
             <right_only begin=\"159\" length=\"1000\"/>\n",
        ))
        .unwrap();
        assert_eq!(blocks(&map, |map, index| map.changed().contains(index)), [2, 3, 4, 5, 9]);
        assert_eq!(blocks(&map, ChangeMap::is_unmapped), [3, 6, 7, 8]);
    }

    #[test]
    fn what_the_newer_volume_maps_is_counted() {
        let xml = wrapped(
            "<same begin=\"0\" length=\"17\"/>\n<different begin=\"32\" length=\"1\"/>\n\
             <left_only begin=\"48\" length=\"16\"/>\n<right_only begin=\"159\" length=\"2\"/>\n",
        );
        let mut map = ChangeMap::new(Geometry::new(10 * MIB, 1 << 20, 8192).unwrap());
        assert_eq!(parse(xml.as_bytes(), &mut map).unwrap(), 20 * 128);
    }

    #[test]
    fn two_volumes_that_are_the_same_or_empty_are_no_error() {
        let map = parsed(&wrapped("<same begin=\"0\" length=\"160\"/>\n")).unwrap();
        assert_eq!((map.changed().count(), blocks(&map, ChangeMap::is_unmapped).len()), (0, 0));
        let map = parsed(&wrapped("")).unwrap();
        assert_eq!((map.changed().count(), blocks(&map, ChangeMap::is_unmapped).len()), (0, 10));
    }

    #[test]
    fn output_that_is_cut_anywhere_is_refused() {
        let whole =
            wrapped("    <same begin=\"0\" length=\"17\"/>\n    <different begin=\"32\" length=\"1\"/>\n");
        assert!(parsed(whole.trim_end()).is_ok(), "only the last line feed is missing");
        for end in 0..whole.trim_end().len() {
            assert!(parsed(&whole[..end]).is_err(), "cut at {end} of {}", whole.len());
        }
    }

    #[test]
    fn what_was_not_understood_is_refused() {
        for inner in [
            "<moved begin=\"0\" length=\"1\"/>",
            "<different begin=\"0\" length=\"1\">",
            "<different begin=\"0\"/>",
            "<different length=\"1\"/>",
            "<different begin=\"0\" length=\"0\"/>",
            "<different begin=\"-1\" length=\"1\"/>",
            "<different begin=\"+1\" length=\"1\"/>",
            "<different begin=\"\" length=\"1\"/>",
            "<different begin=\"0x1\" length=\"1\"/>",
            "<different begin=\"18446744073709551615\" length=\"1\"/>",
            "<different begin=\"18446744073709551616\" length=\"1\"/>",
            "<different begin=\"281474976710656\" length=\"281474976710656\"/>",
            "<same begin=\"8\" length=\"8\"/>\n<different begin=\"15\" length=\"1\"/>",
            "different begin=\"0\" length=\"1\"",
            "</superblock>",
            "<diff left=\"1\" right=\"2\">",
        ] {
            assert!(parsed(&wrapped(&format!("{inner}\n"))).is_err(), "{inner}");
        }
    }

    #[test]
    fn a_frame_that_is_not_thin_deltas_is_refused() {
        let good = wrapped("");
        for (old, new) in [
            ("\"128\"", "\"0\""),
            ("\"128\"", "\"127\""),
            ("\"128\"", "\"192\""),
            ("\"128\"", "\"4194304\""),
            ("\"128\"", "\"99999999999999999999\""),
            ("data_block_size", "block_size"),
            ("<superblock", "<cache"),
            ("<diff", "<device"),
            ("</superblock>\n", "</superblock>\n<superblock>\n"),
        ] {
            assert!(parsed(&good.replace(old, new)).is_err(), "{new}");
        }
        let endless = "<superblock ".to_owned() + &" ".repeat(1 << 20);
        assert!(parsed(&endless).is_err());
        assert!(parsed("").unwrap_err().to_string().contains("line 1"));
    }
}
