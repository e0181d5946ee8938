//! The working form: the whole block table and the grain runs, in one local file.
//!
//! Read with `pread`, a page of the table or one run at a time: a scan touches 9 KiB per GiB of volume, so mapping it
//! would save nothing, and a file cut short under a mapping is a signal instead of an error. Written with `pwrite`; zeros
//! are left as holes, so an empty volume costs no space. While it may hold a mixture of two states its header says
//! unsettled; then it is good only for being patched again or thrown away.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::digest::{BLOCKS_PER_PAGE, BlockDigest, GrainDigest, is_zero};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{
    ENTRY_LEN, Form, HEADER_LEN, ManifestHeader, PAGE_LEN, RUN_CHECK_LEN, TableEntry, WorkingLayout,
    run_check,
};
use crate::geometry::{BlockIndex, to_usize};
use crate::sys::faults;

use super::table_root;

/// An open working manifest.
pub struct WorkingManifest {
    file: File,
    path: PathBuf,
    header: ManifestHeader,
    layout: WorkingLayout,
}

impl WorkingManifest {
    /// Opens one. Its header, length and root are proven; it must be settled.
    pub fn open(path: &Path) -> Result<Self> {
        let manifest = Self::open_unproven(path)?;
        if manifest.header.form != (Form::Working { unsettled: false }) {
            return Err(Error::damaged("the manifest was being written when its writer died").path(path));
        }
        manifest.prove_root()?;
        Ok(manifest)
    }

    /// Opens one that may be unsettled, to be rolled to a later state, which proves its root in the end.
    pub fn open_for_rolling(path: &Path) -> Result<Self> {
        Self::open_unproven(path)
    }

    fn open_unproven(path: &Path) -> Result<Self> {
        let problem = |source| Error::io("opening the manifest", path, source);
        faults::point("open").map_err(problem)?;
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.or_else(|_| File::open(path)).map_err(problem)?;
        let mut bytes = [0; HEADER_LEN];
        faults::point("pread").and_then(|()| file.read_exact_at(&mut bytes, 0)).map_err(
            |source| match source.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    Error::damaged("the manifest has no header").path(path).because(source)
                }
                _ => Error::io("reading the manifest", path, source).at(0, HEADER_LEN as u64),
            },
        )?;
        let header = ManifestHeader::decode(&bytes).map_err(|error| error.path(path))?;
        let layout = WorkingLayout::new(header.geometry);
        let len = file.metadata().map_err(problem)?.len();
        if !matches!(header.form, Form::Working { .. }) || len != layout.file_len() {
            return Err(Error::damaged("the manifest has the wrong length").path(path).at(len, 0));
        }
        Ok(Self { file, path: path.to_path_buf(), header, layout })
    }

    /// Makes an empty one (all holes), replacing what is there; unsettled until [`WorkingManifest::settle`].
    pub fn create(path: &Path, header: ManifestHeader) -> Result<Self> {
        let problem = |source| Error::io("creating the manifest", path, source);
        faults::point("open").map_err(problem)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(path).map_err(problem)?;
        let layout = WorkingLayout::new(header.geometry);
        faults::point("ftruncate").and_then(|()| file.set_len(layout.file_len())).map_err(problem)?;
        let mut manifest = Self { file, path: path.to_path_buf(), header, layout };
        manifest.unsettle()?;
        Ok(manifest)
    }

    fn prove_root(&self) -> Result<()> {
        if table_root(&self.header, |number| self.page(number))? != self.header.root {
            return Err(Error::damaged("the manifest's table does not give its root").path(&self.path));
        }
        Ok(())
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        faults::point("pread").and_then(|()| self.file.read_exact_at(buffer, offset)).map_err(|source| {
            Error::io("reading the manifest", &self.path, source).at(offset, buffer.len() as u64)
        })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        faults::point("pwrite").and_then(|()| self.file.write_all_at(bytes, offset)).map_err(|source| {
            Error::io("writing the manifest", &self.path, source).at(offset, bytes.len() as u64)
        })
    }

    /// The bytes of a table page; zero entries beyond the last block, and all zero beyond the last page.
    pub fn page(&self, page: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_LEN];
        if page < ManifestHeader::page_count(&self.header.geometry) {
            self.read(&mut bytes, self.layout.entry(page * BLOCKS_PER_PAGE))?;
        }
        Ok(bytes)
    }

    /// A block's table entry; `None` beyond the end of the volume.
    pub fn entry(&self, index: BlockIndex) -> Result<Option<TableEntry>> {
        if index >= self.header.geometry.block_count() {
            return Ok(None);
        }
        let mut bytes = [0; ENTRY_LEN];
        self.read(&mut bytes, self.layout.entry(index))?;
        TableEntry::decode(&bytes).map(Some)
    }

    /// The grain digests that belong to block `index` with this digest; `None` when they were written for another
    /// digest or never, so that they must not be used.
    pub fn run(&self, index: BlockIndex, digest: &BlockDigest) -> Result<Option<Vec<GrainDigest>>> {
        let geometry = &self.header.geometry;
        let grains = to_usize(u64::from(geometry.grains_in(geometry.block_len(index))));
        if *digest == BlockDigest::ZERO {
            return Ok(Some(vec![GrainDigest::ZERO; grains]));
        }
        let mut bytes = vec![0; RUN_CHECK_LEN + grains * GrainDigest::LEN];
        self.read(&mut bytes, self.layout.run(index))?;
        let (check, run) = bytes.split_at(RUN_CHECK_LEN);
        let (digests, _) = run.as_chunks::<{ GrainDigest::LEN }>();
        let run: Vec<GrainDigest> = digests.iter().map(|bytes| GrainDigest(*bytes)).collect();
        Ok((run_check(digest, &run) == check).then_some(run))
    }

    /// Writes a block's grain run for this block digest.
    pub fn put_run(&self, index: BlockIndex, digest: &BlockDigest, run: &[GrainDigest]) -> Result<()> {
        if *digest == BlockDigest::ZERO {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(RUN_CHECK_LEN + run.len() * GrainDigest::LEN);
        bytes.extend_from_slice(&run_check(digest, run));
        run.iter().for_each(|grain| bytes.extend_from_slice(&grain.0));
        self.write(&bytes, self.layout.run(index))
    }

    /// Writes a table page of [`PAGE_LEN`] bytes.
    pub fn put_page(&self, page: u64, bytes: &[u8]) -> Result<()> {
        debug_assert_eq!(bytes.len(), PAGE_LEN);
        self.write(bytes, self.layout.entry(page * BLOCKS_PER_PAGE))
    }

    /// Gives the file another name, replacing what has it.
    pub fn rename(mut self, path: &Path) -> Result<Self> {
        let named = faults::point("rename").and_then(|()| std::fs::rename(&self.path, path));
        named.map_err(|source| Error::io("naming the manifest", path, source))?;
        self.path = path.to_path_buf();
        if let Some(folder) = path.parent() {
            let _ = crate::sys::files::sync_directory(folder);
        }
        Ok(self)
    }

    /// Marks it as a mixture until it is settled again.
    pub fn unsettle(&mut self) -> Result<()> {
        self.header.form = Form::Working { unsettled: true };
        self.write(&self.header.encode(), 0)?;
        self.sync()
    }

    /// Writes the header of the state it now holds, and makes all durable. The table must give that root.
    pub fn settle(&mut self, header: ManifestHeader) -> Result<()> {
        debug_assert_eq!(header.geometry, self.header.geometry);
        self.sync()?;
        self.header = ManifestHeader { form: Form::Working { unsettled: false }, ..header };
        self.prove_root()?;
        self.write(&self.header.encode(), 0)?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        let done = crate::sys::files::sync_data(&self.file);
        done.map_err(|source| Error::io("syncing the manifest", &self.path, source))
    }

    /// Cuts or lengthens it for another volume size. Its layout moves, so the grain runs are copied; unsettled after.
    pub fn resized(&self, path: &Path, header: ManifestHeader) -> Result<Self> {
        let same_cut = header.geometry.block_size() == self.header.geometry.block_size()
            && header.geometry.grain_size() == self.header.geometry.grain_size();
        if !same_cut {
            return Err(Error::new(ErrorKind::WrongParent, "block or grain size differ").path(&self.path));
        }
        let other = Self::create(path, header)?;
        for page in 0..ManifestHeader::page_count(&other.header.geometry) {
            let bytes = self.page(page)?;
            if is_zero(&bytes) {
                continue;
            }
            other.put_page(page, &bytes)?;
            for index in page * BLOCKS_PER_PAGE..(page + 1) * BLOCKS_PER_PAGE {
                let kept = self.header.geometry.block_len(index) == other.header.geometry.block_len(index);
                if let Some(entry) = self.entry(index)?.filter(|_| kept)
                    && let Some(run) = self.run(index, &entry.digest)?
                {
                    other.put_run(index, &entry.digest, &run)?;
                }
            }
        }
        Ok(other)
    }
}

/// Removes the file of a working manifest; one that is gone is no error.
pub fn remove(path: &Path) -> Result<()> {
    match faults::point("unlink").and_then(|()| std::fs::remove_file(path)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("removing", path, source))
        }
        _ => Ok(()),
    }
}
