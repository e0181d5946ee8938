//! One range a line: `START LENGTH data|zero|same`, the map of borg, and what `blkdelta diff` and `scan` print as text.
//!
//! Numbers are bytes, decimal or `0x...`; `#` begins a comment. Where a line says `same`, the map claims to tell of every
//! byte: then it has to be sorted and without a gap, and its end is the size of the volume. A map of changes alone has no
//! such proof; if whole lines were cut off its end, nothing here could tell.

use std::io::{BufRead, Read};

use super::{Binding, add, cut_short, unreadable, wrong};
use crate::error::{Error, Result};
use crate::hint::ChangeMap;

const LINE_MAX: u64 = 4096;

pub(super) fn parse(mut reader: impl BufRead, map: &mut ChangeMap) -> Result<Binding> {
    let (mut text, mut number) = (Vec::new(), 0u64);
    let mut coverage = Coverage::default();
    while next_line(&mut reader, &mut text, number + 1)? {
        number += 1;
        let line = str::from_utf8(&text).map_err(|_| at_line(number, "this is not text"))?;
        let line = line.split('#').next().unwrap_or_default();
        if line.trim().is_empty() {
            continue;
        }
        let range = Range::parse(line).ok_or_else(|| at_line(number, "no START LENGTH data|zero|same"))?;
        let end = if range.same {
            range.offset.checked_add(range.length)
        } else {
            add(map, range.offset, range.length).ok()
        };
        let end = end.ok_or_else(|| at_line(number, "the range ends beyond what 64 bits can count"))?;
        coverage.extend(&range, end, number);
    }
    coverage.binding()
}

/// Reads one line with its end; false at the end of the file.
fn next_line(reader: &mut impl BufRead, text: &mut Vec<u8>, number: u64) -> Result<bool> {
    text.clear();
    reader.take(LINE_MAX).read_until(b'\n', text).map_err(unreadable)?;
    match text.last() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if text.len() as u64 == LINE_MAX => Err(at_line(number, "the line has no end")),
        Some(_) => Err(cut_short(&format!("line {number} does not end with a newline"))),
    }
}

fn at_line(number: u64, what: &str) -> Error {
    wrong(format!("line {number} of the change map: {what}"))
}

struct Range {
    offset: u64,
    length: u64,
    same: bool,
}

impl Range {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (offset, length) = (bytes(words.next()?)?, bytes(words.next()?)?);
        let same = match words.next()? {
            "data" | "zero" => false,
            "same" => true,
            _ => return None,
        };
        words.next().is_none().then_some(Self { offset, length, same })
    }
}

fn bytes(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

/// How far the lines tell of every byte.
#[derive(Default)]
struct Coverage {
    end: u64,
    ranges: u64,
    claimed: bool,
    /// The first line that does not begin where the one before it ended.
    broken: Option<u64>,
}

impl Coverage {
    fn extend(&mut self, range: &Range, end: u64, line: u64) {
        if range.offset != self.end {
            self.broken.get_or_insert(line);
        }
        self.end = end;
        self.ranges += 1;
        self.claimed |= range.same;
    }

    fn binding(&self) -> Result<Binding> {
        if self.ranges == 0 {
            return Err(cut_short("there is no range in it")
                .hint("a map without changes is written as `0 SIZE same`"));
        }
        match self.broken {
            Some(line) if self.claimed => {
                Err(at_line(line, "it does not begin where the line before it ended").hint(
                    "a map with `same` must tell of every byte, sorted and without a gap; make it again",
                ))
            }
            _ => Ok(Binding {
                form: "lines",
                volume_size: self.claimed.then_some(self.end),
                ..Binding::default()
            }),
        }
    }
}
