//! The XML of the device-mapper's era target: what `era_invalidate` prints.
//!
//! `era_invalidate` counts in blocks of the era device and does not say how large they are. The size has to stand in the
//! file, as a comment before the list (`<!-- block=64KiB -->`): so it travels with the map, and without it the map is
//! refused. A wrong size there would make a wrong map; that is why a number without a unit is not accepted (`dmsetup table`
//! tells sectors).

use std::io::{BufRead, Read};

use super::{Binding, add, cut_short, unreadable, wrong};
use crate::error::{Error, Result};
use crate::hint::ChangeMap;
use crate::units::parse_size;

const TAG_MAX: u64 = 64 << 10;
const SECTOR: u64 = 512;

const HOW_TO_SAY_THE_BLOCK_SIZE: &str = "put a comment with the era device's block size in front of it: \
    (echo '<!-- block=64KiB -->'; era_invalidate ...) > FILE; `dmsetup table` tells it in sectors of 512 bytes, as the last \
    number";

pub(super) fn parse(reader: impl BufRead, map: &mut ChangeMap) -> Result<Binding> {
    let mut tags = Tags { reader, read: 0 };
    let mut block_size = None;
    loop {
        let tag = tags.next()?.ok_or_else(|| cut_short("it has no list in it"))?;
        if let Some(comment) = tag.strip_prefix("!--") {
            block_size = block_size_in(comment)?.or(block_size);
        } else if tag.starts_with(['?', '!']) {
            continue;
        } else {
            return match name_of(&tag) {
                "blocks" => blocks(&tag, tags, block_size, map),
                other => Err(wrong(format!("a change map of XML does not begin with <{other}>"))),
            };
        }
    }
}

/// The size in a comment `block=SIZE`; any other comment says nothing.
fn block_size_in(comment: &str) -> Result<Option<u64>> {
    let Some(text) = comment.trim_end_matches('-').trim().strip_prefix("block=") else { return Ok(None) };
    let size =
        parse_size(text).ok().filter(|size| *size > 0 && size.is_multiple_of(SECTOR) && text.ends_with("iB"));
    match size {
        Some(size) => Ok(Some(size)),
        None => {
            Err(wrong(format!("'{text}' is not the block size of an era device"))
                .hint(HOW_TO_SAY_THE_BLOCK_SIZE))
        }
    }
}

/// `<blocks> <range begin="1" end="5"/> <block block="7"/> </blocks>`; `end` is the first block after the range.
fn blocks<R: BufRead>(
    root: &str,
    mut tags: Tags<R>,
    block_size: Option<u64>,
    map: &mut ChangeMap,
) -> Result<Binding> {
    while !root.ends_with('/') {
        let tag = tags.next()?.ok_or_else(|| cut_short("</blocks> is missing"))?;
        let (begin, end) = match name_of(&tag) {
            "/blocks" => break,
            "range" => (tags.number(&tag, "begin")?, tags.number(&tag, "end")?),
            "block" => {
                let block = tags.number(&tag, "block")?;
                (block, block.saturating_add(1))
            }
            other if other.starts_with("!--") => continue,
            other => return Err(tags.wrong(&format!("<{other}> has no place in a list of blocks"))),
        };
        let Some(size) = block_size else {
            return Err(tags.wrong("blocks of an unknown size").hint(HOW_TO_SAY_THE_BLOCK_SIZE));
        };
        let bytes = end
            .checked_sub(begin)
            .and_then(|count| Some((begin.checked_mul(size)?, count.checked_mul(size)?)));
        let (offset, length) = bytes.ok_or_else(|| tags.wrong("a range that cannot be"))?;
        add(map, offset, length).map_err(|what| tags.wrong(&what))?;
    }
    match tags.next()? {
        None => Ok(Binding { form: "era", ..Binding::default() }),
        Some(_) => Err(tags.wrong("something follows the list")),
    }
}

/// The tags and comments of a text that has nothing but space between them.
struct Tags<R> {
    reader: R,
    read: u64,
}

impl<R: BufRead> Tags<R> {
    /// What stands between the next `<` and its `>`; of a comment all up to `--`.
    fn next(&mut self) -> Result<Option<String>> {
        let mut tag = Vec::new();
        if self.take_until(b'<', &mut tag)? == 0 {
            return Ok(None);
        }
        let space = tag.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b'<');
        match tag.last() {
            _ if !space => return Err(self.wrong("text where a tag is expected")),
            Some(b'<') => tag.clear(),
            _ => return Ok(None),
        }
        loop {
            let read = self.take_until(b'>', &mut tag)?;
            if tag.last() != Some(&b'>') || read == 0 {
                return Err(cut_short(&format!("the tag before byte {} has no end", self.read)));
            }
            if !tag.starts_with(b"!--") || tag.ends_with(b"-->") {
                break;
            }
        }
        tag.pop();
        String::from_utf8(tag).map(Some).map_err(|_| self.wrong("this is not text"))
    }

    fn take_until(&mut self, end: u8, into: &mut Vec<u8>) -> Result<u64> {
        let room = TAG_MAX.saturating_sub(into.len() as u64);
        let read = (&mut self.reader).take(room).read_until(end, into).map_err(unreadable)? as u64;
        self.read = self.read.saturating_add(read);
        if into.len() as u64 == TAG_MAX { Err(self.wrong("a tag without an end")) } else { Ok(read) }
    }

    fn number(&self, tag: &str, name: &str) -> Result<u64> {
        attribute(tag, name)
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| self.wrong(&format!("<{tag}> has no number '{name}'")))
    }

    fn wrong(&self, what: &str) -> Error {
        wrong(format!("the change map is wrong before byte {}: {what}", self.read))
    }
}

fn name_of(tag: &str) -> &str {
    tag.trim_end_matches('/').split_whitespace().next().unwrap_or_default()
}

/// The value of `name="value"`; versions of the tool differ in the space around the equals sign.
fn attribute<'a>(mut tag: &'a str, name: &str) -> Option<&'a str> {
    loop {
        let (key, rest) = tag.split_once('=')?;
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, behind) = rest[1..].split_once(quote)?;
        if key.split_whitespace().next_back() == Some(name) {
            return Some(value);
        }
        tag = behind;
    }
}
