//! How an object is sealed: a header in clear, then units of 64 KiB, each encrypted and authenticated by itself.
//!
//! ```text
//! magic 8 | version u16 | zero 6 | master key id 16 | salt 32 | unit | unit | ...        unit = ciphertext | tag 16
//! ```
//! The key of an object comes from the master key, its salt, the repository and its whole name, so it opens nowhere else;
//! the nonce of a unit is its number and whether it is the last, so units cannot be moved, left out or cut off.
//! Trade-off: 64 KiB is what a reader of one byte decrypts (7 us); the tags cost 0.025 % of the room.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::library_failed;
use super::master_keys::{KEY_LEN, MasterKey, MasterKeys};
use crate::backup_id::BackupId;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;
use crate::sys::host::random_bytes;

/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Bytes of a unit before it is sealed.
pub const UNIT_LEN: usize = 64 << 10;
/// What sealing adds to a unit.
pub const TAG_LEN: usize = 16;
/// Bytes of a full unit when it is sealed.
pub const SEALED_UNIT_LEN: usize = UNIT_LEN + TAG_LEN;

const MAGIC: &[u8; 8] = b"\x89BKS\r\n\x1a\n";
const VERSION: u16 = 1;
const SALT_LEN: usize = 32;
const OBJECT_INFO: &[u8] = b"blkdelta.object.1";

/// Gives objects of one repository their keys.
pub struct Sealer {
    keys: MasterKeys,
    repository: BackupId,
}

impl Sealer {
    /// For the objects of this repository.
    #[must_use]
    pub fn new(keys: MasterKeys, repository: BackupId) -> Self {
        Self { keys, repository }
    }

    /// Header and key of a new object with this name.
    pub fn begin(&self, name: &str) -> Result<([u8; HEADER_LEN], ObjectKey)> {
        let (master, salt) = (self.keys.newest(), random_bytes::<SALT_LEN>()?);
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[16..32].copy_from_slice(master.id.as_bytes());
        header[32..].copy_from_slice(&salt);
        Ok((header, self.object_key(master, &salt, name)?))
    }

    /// The key of an object with this name and header.
    pub fn key_of(&self, name: &str, header: &[u8; HEADER_LEN]) -> Result<ObjectKey> {
        if header[..8] != *MAGIC {
            return Err(Error::damaged("this is not a sealed object"));
        }
        match u16::from_le_bytes([header[8], header[9]]) {
            0 => return Err(Error::damaged("a sealed object of version 0")),
            VERSION => {}
            version => {
                let text =
                    format!("a sealed object of version {version}; this program reads up to {VERSION}");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        }
        if header[10..16] != [0; 6] {
            return Err(Error::new(ErrorKind::Unsupported, "a reserved field is used"));
        }
        let (mut id, mut salt) = ([0; 16], [0; SALT_LEN]);
        id.copy_from_slice(&header[16..32]);
        salt.copy_from_slice(&header[32..]);
        let master = self.keys.find(BackupId::from_bytes(id)).ok_or_else(|| {
            Error::damaged("an object is sealed with a key that this passphrase does not open").hint(
                "if the key was rotated, open the repository with the newest passphrase; else it is damaged",
            )
        })?;
        self.object_key(master, &salt, name)
    }

    fn object_key(&self, master: &MasterKey, salt: &[u8; SALT_LEN], name: &str) -> Result<ObjectKey> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        Salt::new(HKDF_SHA256, salt)
            .extract(&*master.key)
            .expand(&[OBJECT_INFO, self.repository.as_bytes(), name.as_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *key))
            .map_err(|_| library_failed())?;
        ObjectKey::new(&key)
    }
}

/// Seals and opens the units of one object.
pub struct ObjectKey(LessSafeKey);

impl ObjectKey {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| library_failed())?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals in place the unit that `bytes` hold from `open` on; it grows by its tag. Never two units of one number.
    pub fn seal(&self, number: u64, last: bool, bytes: &mut Vec<u8>, open: usize) -> Result<()> {
        self.seal_with(number, last, &[], bytes, open)
    }

    /// Opens a unit in place; `None` when it is not the one that was sealed as this number.
    #[must_use]
    pub fn open<'a>(&self, number: u64, last: bool, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.open_with(number, last, &[], sealed)
    }

    pub(super) fn seal_with(
        &self,
        number: u64,
        last: bool,
        bound: &[u8],
        bytes: &mut Vec<u8>,
        open: usize,
    ) -> Result<()> {
        let unit = bytes.get_mut(open..).unwrap_or_default();
        let tag = self.0.seal_in_place_separate_tag(nonce(number, last), Aad::from(bound), unit);
        bytes.extend_from_slice(tag.map_err(|_| library_failed())?.as_ref());
        Ok(())
    }

    pub(super) fn open_with<'a>(
        &self,
        number: u64,
        last: bool,
        bound: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.0.open_in_place(nonce(number, last), Aad::from(bound), sealed).ok()
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce[8] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

/// What a sealed object's length says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedShape {
    /// Bytes before sealing.
    pub size: u64,
    /// Units.
    pub units: u64,
}

impl SealedShape {
    /// Of an object with so many bytes as it is stored; `None` for a length that none has.
    #[must_use]
    pub fn of(stored: u64) -> Option<Self> {
        let body = stored.checked_sub(HEADER_LEN as u64)?;
        let units = body.div_ceil(SEALED_UNIT_LEN as u64);
        let size = body.checked_sub(units.checked_mul(TAG_LEN as u64)?)?;
        // Only the one unit of an empty object is empty; the last of others holds at least one byte.
        let full = size.div_ceil(UNIT_LEN as u64).max(1);
        (units == full).then_some(Self { size, units })
    }

    /// Of what is there of an object that was never finished: its full units, of which none was sealed as the last.
    #[must_use]
    pub fn unfinished(stored: u64) -> Self {
        let full = stored.saturating_sub(HEADER_LEN as u64) / SEALED_UNIT_LEN as u64;
        Self { size: full * UNIT_LEN as u64, units: u64::MAX }
    }

    /// Where a unit lies in the stored object: its offset and length.
    #[must_use]
    pub fn place(&self, number: u64) -> (u64, usize) {
        let before = number * UNIT_LEN as u64;
        let len = self.size.saturating_sub(before).min(UNIT_LEN as u64);
        (HEADER_LEN as u64 + number * SEALED_UNIT_LEN as u64, to_usize(len) + TAG_LEN)
    }

    /// Whether this unit is the last.
    #[must_use]
    pub fn is_last(&self, number: u64) -> bool {
        number + 1 == self.units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(size: u64) -> u64 {
        HEADER_LEN as u64 + size + size.div_ceil(UNIT_LEN as u64).max(1) * TAG_LEN as u64
    }

    #[test]
    fn a_stored_length_tells_one_size_or_none() {
        let unit = UNIT_LEN as u64;
        for size in [0, 1, 15, 16, 17, unit - 1, unit, unit + 1, 2 * unit, 2 * unit + 1, 1 << 50] {
            let units = size.div_ceil(unit).max(1);
            assert_eq!(SealedShape::of(stored(size)), Some(SealedShape { size, units }), "{size}");
        }
        // All lengths around two units: each possible one once, the others (a unit without a byte) not at all.
        let mut sizes: Vec<u64> =
            (0..stored(2 * unit + 100)).filter_map(SealedShape::of).map(|shape| shape.size).collect();
        sizes.dedup();
        assert_eq!(sizes, (0..2 * unit + 100).collect::<Vec<_>>());
        assert!(SealedShape::of(0).is_none() && SealedShape::of(79).is_none());
        assert_eq!(SealedShape::of(u64::MAX).map(|shape| shape.size < u64::MAX), Some(true));
    }

    #[test]
    fn a_unit_opens_only_with_its_name_repository_salt_number_and_end() {
        let repository = BackupId::from_bytes([1; 16]);
        let keys = MasterKeys::new_random().unwrap();
        let sealer = Sealer::new(keys.clone(), repository);
        let (header, key) = sealer.begin("a/b").unwrap();
        let mut sealed = b"content".to_vec();
        key.seal(3, false, &mut sealed, 0).unwrap();
        let opens = |sealer: &Sealer, name: &str, header: &[u8; HEADER_LEN], number, last| {
            let key = sealer.key_of(name, header).unwrap();
            key.open(number, last, &mut sealed.clone()).is_some_and(|plain| plain == b"content")
        };
        assert!(opens(&sealer, "a/b", &header, 3, false));
        assert!(!opens(&sealer, "a/c", &header, 3, false), "another name");
        assert!(!opens(&sealer, "a/b", &header, 2, false), "another number");
        assert!(!opens(&sealer, "a/b", &header, 3, true), "as the last one");
        let other = Sealer::new(keys, BackupId::from_bytes([2; 16]));
        assert!(!opens(&other, "a/b", &header, 3, false), "another repository");
        assert!(!opens(&sealer, "a/b", &sealer.begin("a/b").unwrap().0, 3, false), "another salt");
    }
}
