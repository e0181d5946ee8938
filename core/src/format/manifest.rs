//! The manifest's bytes: header page, table entries, grain runs. Specified in `docs/FORMAT.md`, section "Manifest".
//!
//! Two forms share the header. The *stored* form (in a repository) holds only the table pages that differ from the
//! parent's. The *working* form (local state, `scan --write-manifest`) holds the whole table and the grain runs.

use crate::backup_id::{Sequence, VolumeIdentity};
use crate::digest::{BLOCKS_PER_PAGE, BlockDigest, DigestKind, GrainDigest, RootDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::{BlockIndex, Geometry, to_usize};

use super::{Fields, put_identity, seal, unseal};

/// First bytes of a manifest: not text, and damaged by line-end conversion.
pub const MAGIC: &[u8; 8] = b"\x89BKM\r\n\x1a\n";
/// The version that this program writes.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 4096;
/// Bytes of a table entry: digest and the sequence of the last real read.
pub const ENTRY_LEN: usize = 36;
/// Bytes of a table page.
pub const PAGE_LEN: usize = ENTRY_LEN * 256;
/// Bytes of a directory entry of the stored form: page number, BLAKE3 of the page.
pub const DIRECTORY_ENTRY_LEN: usize = 8 + 32;
/// Bytes of the check in front of a grain run.
pub const RUN_CHECK_LEN: usize = 8;

const _: () = assert!(PAGE_LEN as u64 == ENTRY_LEN as u64 * BLOCKS_PER_PAGE);

const FLAG_WORKING: u16 = 1;
const FLAG_FULL: u16 = 2;
const FLAG_UNSETTLED: u16 = 4;

/// Which of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In a repository: `pages` table pages with a directory; `full` when it builds on no parent.
    Stored {
        /// How many pages it holds.
        pages: u32,
        /// Pages that it does not hold are zero instead of the parent's.
        full: bool,
    },
    /// Local: the whole table and the grain runs. Unsettled while it is being written or patched.
    Working {
        /// It may hold a mixture of two states.
        unsettled: bool,
    },
}

/// The header's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHeader {
    /// Stored or working.
    pub form: Form,
    /// Sizes.
    pub geometry: Geometry,
    /// Which digest.
    pub digest: DigestKind,
    /// What volume.
    pub identity: VolumeIdentity,
    /// Sequence of the state it describes; a scan counts from 1.
    pub sequence: Sequence,
    /// Parent's sequence; 0 when there is none.
    pub parent_sequence: Sequence,
    /// Parent's root; zeros when there is none.
    pub parent_root: RootDigest,
    /// Newest sequence in which every block was really read; 0 when there was none.
    pub scanned_sequence: Sequence,
    /// Root of the state it describes.
    pub root: RootDigest,
}

impl ManifestHeader {
    /// Table pages of a volume of this geometry.
    #[must_use]
    pub fn page_count(geometry: &Geometry) -> u64 {
        geometry.block_count().div_ceil(BLOCKS_PER_PAGE)
    }

    /// The header page.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (flags, pages) = match self.form {
            Form::Stored { pages, full } => (if full { FLAG_FULL } else { 0 }, pages),
            Form::Working { unsettled } => (FLAG_WORKING | if unsettled { FLAG_UNSETTLED } else { 0 }, 0),
        };
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&[self.digest.code(), 0, 0, 0]);
        out.extend_from_slice(&self.geometry.block_size().to_le_bytes());
        out.extend_from_slice(&self.geometry.grain_size().to_le_bytes());
        out.extend_from_slice(&self.geometry.volume_size().to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.parent_sequence.to_le_bytes());
        out.extend_from_slice(&self.scanned_sequence.to_le_bytes());
        out.extend_from_slice(&pages.to_le_bytes());
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.parent_root.0);
        out.extend_from_slice(&[0; 16 + 32]); // key id and salt, for encryption
        put_identity(&mut out, &self.identity);
        seal(&mut out, HEADER_LEN);
        out
    }

    /// Reads a header page of [`HEADER_LEN`] bytes.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self> {
        let mut fields = unseal(bytes, MAGIC, VERSION, "manifest")?;
        let flags = fields.u16()?;
        let digest = DigestKind::from_code(fields.u8()?)?;
        fields.zeros(3)?;
        let (block_size, grain_size, volume_size) = (fields.u32()?, fields.u32()?, fields.u64()?);
        let geometry = Geometry::new(volume_size, block_size, grain_size)
            .map_err(|error| Error::damaged("impossible sizes in a manifest").because(error))?;
        let (sequence, parent_sequence, scanned_sequence) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let pages = fields.u32()?;
        let (root, parent_root) = (RootDigest(fields.array()?), RootDigest(fields.array()?));
        fields.zeros(16 + 32)?;
        let identity = fields.identity()?;
        fields.zeros_to_end()?;
        if u64::from(pages) > Self::page_count(&geometry) {
            return Err(Error::damaged("a manifest claims more pages than the volume has"));
        }
        let form = decode_form(flags, pages)?;
        if pages != 0 && matches!(form, Form::Working { .. }) {
            return Err(Error::damaged("a working manifest that claims to hold single pages"));
        }
        Ok(Self {
            form,
            geometry,
            digest,
            identity,
            sequence,
            parent_sequence,
            parent_root,
            scanned_sequence,
            root,
        })
    }
}

fn decode_form(flags: u16, pages: u32) -> Result<Form> {
    match flags {
        FLAG_WORKING => Ok(Form::Working { unsettled: false }),
        flags if flags == FLAG_WORKING | FLAG_UNSETTLED => Ok(Form::Working { unsettled: true }),
        0 => Ok(Form::Stored { pages, full: false }),
        FLAG_FULL => Ok(Form::Stored { pages, full: true }),
        _ => Err(Error::new(ErrorKind::Unsupported, format!("a manifest with flags {flags:#x}"))),
    }
}

/// One block's line in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEntry {
    /// The block's digest.
    pub digest: BlockDigest,
    /// Sequence at which it was last really read; 0 when never (a hole). The header's `scanned_sequence` counts too: the
    /// real mark of a block that was ever read is the later of both.
    pub last_read: Sequence,
}

impl TableEntry {
    /// A hole that was never read: all bytes zero.
    pub const HOLE: Self = Self { digest: BlockDigest::ZERO, last_read: 0 };

    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest.0);
        out.extend_from_slice(&self.last_read.to_le_bytes());
    }

    /// Reads it from [`ENTRY_LEN`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes);
        Ok(Self { digest: BlockDigest(fields.array()?), last_read: fields.u32()? })
    }
}

/// Where things stand in the working form.
#[derive(Debug, Clone, Copy)]
pub struct WorkingLayout {
    geometry: Geometry,
}

impl WorkingLayout {
    /// For a volume of this geometry.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry }
    }

    /// Offset of block `index`'s table entry.
    #[must_use]
    pub fn entry(&self, index: BlockIndex) -> u64 {
        HEADER_LEN as u64 + index * ENTRY_LEN as u64
    }

    /// Offset of block `index`'s grain run: check, then a digest for each grain of a full block.
    #[must_use]
    pub fn run(&self, index: BlockIndex) -> u64 {
        self.entry(ManifestHeader::page_count(&self.geometry) * BLOCKS_PER_PAGE)
            + index * self.run_len() as u64
    }

    /// Bytes of a grain run.
    #[must_use]
    pub fn run_len(&self) -> usize {
        RUN_CHECK_LEN + to_usize(u64::from(self.geometry.grains_per_block())) * GrainDigest::LEN
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.run(self.geometry.block_count())
    }
}

/// The check of a grain run: XXH3-64 over the block's digest and the run, so that a run is used only with the block
/// digest that it was written for.
#[must_use]
pub fn run_check(digest: &BlockDigest, run: &[GrainDigest]) -> [u8; RUN_CHECK_LEN] {
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    hasher.update(&digest.0);
    for grain in run {
        hasher.update(&grain.0);
    }
    hasher.digest().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ManifestHeader {
        ManifestHeader {
            form: Form::Stored { pages: 3, full: false },
            geometry: Geometry::new(5 << 40, 4 << 20, 8192).unwrap(),
            digest: DigestKind::Blake3,
            identity: VolumeIdentity::new("file:0:1:2").unwrap(),
            sequence: 7,
            parent_sequence: 6,
            parent_root: RootDigest([1; 32]),
            scanned_sequence: 5,
            root: RootDigest([2; 32]),
        }
    }

    #[test]
    fn a_header_survives_and_any_flip_is_found() {
        let bytes: [u8; HEADER_LEN] = header().encode().try_into().unwrap();
        assert_eq!(ManifestHeader::decode(&bytes).unwrap(), header());
        for at in 0..HEADER_LEN {
            let mut bytes = bytes;
            bytes[at] ^= 0x10;
            assert!(ManifestHeader::decode(&bytes).is_err(), "byte {at}");
        }
    }
}
