//! Pure conversions between bytes and structs: no I/O, no clock, no allocation from a length that was not checked.
//!
//! `docs/FORMAT.md` specifies every byte; this module is its only implementation. All integers are little-endian. Every
//! header carries a magic, a version and a checksum; a version or flag that is not known is refused, never guessed.

pub mod delta;
pub mod index;
pub mod key_slot;
pub mod manifest;
pub mod record;
pub mod repository_config;

use crate::backup_id::VolumeIdentity;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;

/// Reads fields from a slice, front to back; running out is damage.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| Error::damaged("a structure is cut short"))?;
        let piece = &self.bytes[self.at..end];
        self.at = end;
        Ok(piece)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes that must be zero: room for later versions.
    pub(crate) fn zeros(&mut self, len: usize) -> Result<()> {
        if self.bytes(len)?.iter().any(|byte| *byte != 0) {
            return Err(Error::new(ErrorKind::Unsupported, "a reserved field is used"));
        }
        Ok(())
    }

    /// All that is left; it must be zero.
    pub(crate) fn zeros_to_end(&mut self) -> Result<()> {
        self.zeros(self.bytes.len() - self.at)
    }

    pub(crate) fn identity(&mut self) -> Result<VolumeIdentity> {
        let len = usize::from(self.u16()?);
        let mut room = Fields::new(self.bytes(VolumeIdentity::MAX_LEN)?);
        let text = std::str::from_utf8(room.bytes(len)?).ok();
        room.zeros_to_end()?;
        let text = text.ok_or_else(|| Error::damaged("an identity is not text"))?;
        VolumeIdentity::new(text).map_err(|error| Error::damaged("an identity is not valid").because(error))
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// Appends an identity: length (2 bytes) and 256 bytes of room.
pub(crate) fn put_identity(out: &mut Vec<u8>, identity: &VolumeIdentity) {
    let text = identity.as_str().as_bytes();
    // VolumeIdentity::new has checked the length against MAX_LEN.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(text);
    out.resize(out.len() + VolumeIdentity::MAX_LEN - text.len(), 0);
}

/// Ends a fixed header: zeros up to `len` - 32, then BLAKE3 of all before.
pub(crate) fn seal(out: &mut Vec<u8>, len: usize) {
    out.resize(len - 32, 0);
    let checksum = *blake3::hash(out).as_bytes();
    out.extend_from_slice(&checksum);
}

/// Checks magic, version and checksum of a fixed header and returns the fields after the version.
pub(crate) fn unseal<'a>(bytes: &'a [u8], magic: &[u8; 8], version: u16, what: &str) -> Result<Fields<'a>> {
    let mut fields = Fields::new(bytes);
    if fields.array::<8>()? != *magic {
        return Err(Error::damaged(format!("this is not a {what}")));
    }
    let found = fields.u16()?;
    if found > version {
        let text = format!("{what} of version {found}; this program reads up to {version}");
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let (body, checksum) = bytes.split_at(bytes.len() - 32);
    if found == 0 || blake3::hash(body).as_bytes() != checksum {
        return Err(Error::damaged(format!("the header of a {what} does not match its checksum")));
    }
    Ok(Fields { bytes: body, at: fields.at })
}

/// First 16 bytes of BLAKE3 over the unit's offset in its file and its bytes: binds a unit to its place.
pub(crate) fn placed_checksum(offset: u64, parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    let mut checksum = [0; 16];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    checksum
}

/// Checks a length from a file against a limit before anything is allocated for it.
pub(crate) fn checked_len(len: u32, limit: usize, what: &str) -> Result<usize> {
    let len = to_usize(u64::from(len));
    if len > limit {
        return Err(Error::damaged(format!("{what} claims {len} bytes, at most {limit} are possible")));
    }
    Ok(len)
}
