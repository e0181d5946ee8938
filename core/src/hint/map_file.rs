//! Change maps that a user brings with `--hints FILE`: what another tool says has changed, in that tool's own form.
//!
//! The form is recognised by the content. Ranges go from the parser straight into the map, so memory depends on the
//! volume and never on the number of ranges. Strictness is the trade-off: whatever is not understood to the last byte is
//! refused, because a map that is cut short, of another unit or of another question (what is allocated, instead of what
//! changed) looks like a volume with fewer changes, and its changes would be missed without a sound.
//! What a map says about the volume and the parent that it belongs to is handed back as [`Binding`]; the caller compares.

mod era;
mod json;
mod lines;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::{ChangeMap, lvm_thin};
use crate::error::{Error, ErrorKind, Result};

/// What a map says about itself, as far as its form tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// Which form it has, for reports.
    pub form: &'static str,
    /// The root of the state since which it lists changes.
    pub parent_root: Option<String>,
    /// The backup since which it lists changes.
    pub parent_backup: Option<String>,
    /// The root of the state up to which it lists changes.
    pub root: Option<String>,
    /// Bytes of the volume.
    pub volume_size: Option<u64>,
}

const KNOWN_FORMS: &str = "known forms: `blkdelta scan --json` and `diff --json`; lines START LENGTH data|zero|same; \
    `rbd diff --format json`; `thin_delta`; `era_invalidate` with its block size in a comment; `nbdinfo --map --json` of \
    a dirty bitmap; EBS ListChangedBlocks; CSI GetMetadataDelta (docs/HINTS.md has an example of each)";

/// Puts what the file calls changed into `map`. After an error the map may hold a part of it and is of no use.
pub fn read(path: &Path, map: &mut ChangeMap) -> Result<Binding> {
    let file = File::open(path).map_err(|source| Error::io("opening the change map", path, source))?;
    parse(BufReader::with_capacity(64 << 10, file), map).map_err(|error| error.path(path))
}

/// The same from bytes.
pub fn parse(mut reader: impl BufRead, map: &mut ChangeMap) -> Result<Binding> {
    let begin = reader.fill_buf().map_err(unreadable)?;
    match begin.iter().copied().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{' | b'[') => json::parse(reader, map),
        Some(b'<') if begin.trim_ascii_start().starts_with(b"<superblock") => thin_delta(reader, map),
        Some(b'<') => era::parse(reader, map),
        Some(b'0'..=b'9' | b'#') => lines::parse(reader, map),
        Some(_) => Err(wrong("this is not a change map in a known form")),
        None => Err(wrong("the change map is empty").hint(
            "a file without a byte may be what a failed command left; a map without changes is written as [] or as \
             `0 SIZE same`",
        )),
    }
}

fn thin_delta(reader: impl BufRead, map: &mut ChangeMap) -> Result<Binding> {
    lvm_thin::parse(reader, map).map_err(|error| error.kind_is(ErrorKind::WrongUse).hint(KNOWN_FORMS))?;
    // Whatever pool a file comes from: only reading proves that what it calls unmapped is zero.
    map.mapped = None;
    Ok(Binding { form: "thin_delta", ..Binding::default() })
}

/// A map that is not what its form says.
fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::WrongUse, message).hint(KNOWN_FORMS)
}

/// A map that ends too early.
fn cut_short(what: &str) -> Error {
    wrong(format!("the change map is cut short: {what}"))
        .hint("make it again, and check that the command that made it ended well and had room to write")
}

fn unreadable(source: io::Error) -> Error {
    Error::new(ErrorKind::Io, "reading the change map")
        .because(source)
        .hint("check that the path is a file that can be read")
}

/// Counts these bytes as changed.
fn add(map: &mut ChangeMap, offset: u64, length: u64) -> std::result::Result<u64, String> {
    let end = offset.checked_add(length).ok_or_else(|| {
        format!("a range of {length} bytes from {offset} on ends beyond what 64 bits can count")
    })?;
    map.add_changed(offset, length);
    Ok(end)
}

#[cfg(test)]
mod tests;
