//! The stored form: a directory of those table pages that differ from the parent's, then the pages.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::digest::BLOCKS_PER_PAGE;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{DIRECTORY_ENTRY_LEN, Form, HEADER_LEN, ManifestHeader, PAGE_LEN};
use crate::geometry::to_usize;
use crate::storage::{ObjectReader, ObjectWriter};
use crate::sys::faults;

const DIGEST_LEN: usize = 32;

/// Collects the pages of a manifest while a scan goes on, in a file without a name: the header, which comes first, is
/// known only at the end, and 9 MiB per TiB would not fit the memory bound.
pub struct PageSpool {
    file: File,
    directory: Vec<(u64, [u8; DIGEST_LEN])>,
}

impl PageSpool {
    /// An empty spool in `folder`.
    pub fn new(folder: &std::path::Path) -> Result<Self> {
        let file = faults::point("open")
            .and_then(|()| tempfile::tempfile_in(folder))
            .map_err(|source| Error::io("making a spool file in", folder, source))?;
        Ok(Self { file, directory: Vec::new() })
    }

    /// Adds a page; pages come in ascending order.
    pub fn push(&mut self, page: u64, bytes: &[u8]) -> Result<()> {
        let offset = self.directory.len() as u64 * PAGE_LEN as u64;
        faults::point("pwrite")
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .map_err(|source| Error::io("writing", "a spool file", source))?;
        self.directory.push((page, *blake3::hash(bytes).as_bytes()));
        Ok(())
    }

    /// Pages so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.directory.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.is_empty()
    }

    /// Numbers of the pages, ascending.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.directory.iter().map(|(page, _)| *page)
    }

    /// The bytes of the page at this position.
    pub fn page_at(&self, position: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_LEN];
        faults::point("pread")
            .and_then(|()| self.file.read_exact_at(&mut bytes, position as u64 * PAGE_LEN as u64))
            .map_err(|source| Error::io("reading", "a spool file", source))?;
        Ok(bytes)
    }

    /// Writes the whole stored manifest; `header.form` is set from the pages. Returns its length and BLAKE3.
    pub fn write_to(
        &self,
        mut header: ManifestHeader,
        full: bool,
        out: &mut dyn ObjectWriter,
    ) -> Result<(u64, [u8; 32])> {
        let pages = u32::try_from(self.directory.len()).map_err(|_| {
            Error::new(ErrorKind::WrongUse, "the volume has too many blocks; use a larger block size")
        })?;
        header.form = Form::Stored { pages, full };
        let mut directory = Vec::with_capacity(self.directory.len() * DIRECTORY_ENTRY_LEN + DIGEST_LEN);
        for (page, digest) in &self.directory {
            directory.extend_from_slice(&page.to_le_bytes());
            directory.extend_from_slice(digest);
        }
        let checksum = *blake3::hash(&directory).as_bytes();
        directory.extend_from_slice(&checksum);
        let mut hasher = blake3::Hasher::new();
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            len += bytes.len() as u64;
            out.write(bytes)
        };
        put(&header.encode())?;
        put(&directory)?;
        for position in 0..self.directory.len() {
            put(&self.page_at(position)?)?;
        }
        Ok((len, *hasher.finalize().as_bytes()))
    }
}

/// A stored manifest, open for reading.
pub struct StoredManifest {
    object: Arc<dyn ObjectReader>,
    header: ManifestHeader,
    directory: Vec<(u64, [u8; DIGEST_LEN])>,
}

impl StoredManifest {
    /// Reads and checks header and directory.
    pub fn open(object: Arc<dyn ObjectReader>) -> Result<Self> {
        let path = object.display();
        Self::read(object).map_err(|error| error.path(path))
    }

    fn read(object: Arc<dyn ObjectReader>) -> Result<Self> {
        let mut bytes = [0; HEADER_LEN];
        object.read_exact_at(&mut bytes, 0)?;
        let header = ManifestHeader::decode(&bytes)?;
        let Form::Stored { pages, .. } = header.form else {
            return Err(Error::damaged("a local manifest stands where a stored one should be"));
        };
        let pages = u64::from(pages);
        let directory_len = pages * DIRECTORY_ENTRY_LEN as u64 + DIGEST_LEN as u64;
        if object.size() != HEADER_LEN as u64 + directory_len + pages * PAGE_LEN as u64 {
            return Err(Error::damaged("the manifest has the wrong length").at(object.size(), 0));
        }
        let mut bytes = vec![0; to_usize(directory_len)];
        object.read_exact_at(&mut bytes, HEADER_LEN as u64)?;
        let (lines, checksum) = bytes.split_at(bytes.len() - DIGEST_LEN);
        if blake3::hash(lines).as_bytes() != checksum {
            return Err(Error::damaged("the manifest's directory does not match its checksum")
                .at(HEADER_LEN as u64, 0));
        }
        let (lines, _) = lines.as_chunks::<DIRECTORY_ENTRY_LEN>();
        let directory = lines.iter().map(split_line).collect::<Vec<_>>();
        let ascending = directory.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let inside =
            directory.last().is_none_or(|(page, _)| *page < ManifestHeader::page_count(&header.geometry));
        if !ascending || !inside {
            return Err(Error::damaged("the manifest's directory is out of order"));
        }
        Ok(Self { object, header, directory })
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// Whether pages that it does not hold are zero.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.header.form, Form::Stored { full: true, .. })
    }

    /// Numbers of the pages it holds, ascending.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.directory.iter().map(|(page, _)| *page)
    }

    /// A page that it holds, checked; `None` when it does not hold it.
    pub fn page(&self, page: u64) -> Result<Option<Vec<u8>>> {
        let Ok(position) = self.directory.binary_search_by_key(&page, |(page, _)| *page) else {
            return Ok(None);
        };
        let start =
            HEADER_LEN + self.directory.len() * DIRECTORY_ENTRY_LEN + DIGEST_LEN + position * PAGE_LEN;
        let mut bytes = vec![0; PAGE_LEN];
        self.object.read_exact_at(&mut bytes, start as u64)?;
        let blocks = self.header.geometry.block_count() - page * BLOCKS_PER_PAGE;
        let used = to_usize(blocks.min(BLOCKS_PER_PAGE)) * (PAGE_LEN / to_usize(BLOCKS_PER_PAGE));
        let sound = blake3::hash(&bytes).as_bytes() == &self.directory[position].1;
        if !sound || !crate::digest::is_zero(&bytes[used..]) {
            return Err(Error::damaged("a manifest page does not match its checksum")
                .path(self.object.display())
                .at(start as u64, PAGE_LEN as u64));
        }
        Ok(Some(bytes))
    }
}

fn split_line(line: &[u8; DIRECTORY_ENTRY_LEN]) -> (u64, [u8; DIGEST_LEN]) {
    let (mut page, mut digest) = ([0; 8], [0; DIGEST_LEN]);
    page.copy_from_slice(&line[..8]);
    digest.copy_from_slice(&line[8..]);
    (u64::from_le_bytes(page), digest)
}
