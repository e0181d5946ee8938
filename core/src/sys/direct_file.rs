//! A file or device that is read and written past the page cache.
//!
//! O_DIRECT where it is granted; where it is refused (some file systems), ordinary reads that give back those pages of
//! the cache that were not there before, so that a backup does not drive out what the database keeps warm. One
//! descriptor never mixes both modes. Writes whose length is not a multiple of the alignment end on a second, ordinary
//! descriptor. If the alignment assumed here (4096) were too small for a device, the kernel would answer EINVAL.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::cache_guard::CacheGuard;
use super::faults;
use super::files;
use crate::error::{Error, ErrorKind, Result};

/// What offsets, lengths and addresses of direct I/O must be multiples of.
pub const ALIGNMENT: usize = 4096;

/// Reads that failed are repeated in pieces of this size, to name the place.
const CAREFUL_PIECE: usize = 4096;

/// How the file is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// O_DIRECT.
    Direct,
    /// Through the page cache, leaving it as it was.
    Buffered,
}

/// An open file or device.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    tail: Option<File>,
    path: PathBuf,
    mode: Mode,
    guard: CacheGuard,
}

impl DirectFile {
    /// Opens for reading; falls back to `Mode::Buffered` where O_DIRECT is refused.
    pub fn open_read(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        let file = open(&options, path, 0).map_err(|source| Error::io("opening the source", path, source))?;
        match open(&options, path, libc::O_DIRECT).and_then(|file| probe(&file).map(|()| file)) {
            Ok(direct) => Ok(Self {
                file: direct,
                tail: None,
                path: path.to_path_buf(),
                mode: Mode::Direct,
                guard: CacheGuard::default(),
            }),
            Err(reason) => {
                tracing::debug!(path = %path.display(), %reason, "O_DIRECT refused");
                // Read-ahead would bring in pages of the next block, which then look as if they had been there before.
                files::expect_random_reads(&file);
                Ok(Self {
                    file,
                    tail: None,
                    path: path.to_path_buf(),
                    mode: Mode::Buffered,
                    guard: CacheGuard::default(),
                })
            }
        }
    }

    /// Opens for reading and writing; `flags` are added (O_EXCL claims a device for us alone).
    pub fn open_write(path: &Path, options: &OpenOptions, flags: i32) -> io::Result<Self> {
        let tail = open(options, path, flags)?;
        let again = OpenOptions::new().read(true).write(true).to_owned();
        let (file, tail, mode) =
            match open(&again, path, libc::O_DIRECT).and_then(|file| probe(&file).map(|()| file)) {
                Ok(direct) => (direct, Some(tail), Mode::Direct),
                Err(_) => (tail, None, Mode::Buffered),
            };
        Ok(Self { file, tail, path: path.to_path_buf(), mode, guard: CacheGuard::default() })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is reached.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The descriptor, for a ring.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The ordinary descriptor: for metadata, sizes, holes and syncing.
    #[must_use]
    pub fn plain(&self) -> &File {
        self.tail.as_ref().unwrap_or(&self.file)
    }

    /// Fills the first `len` bytes of `buffer` from `offset`. `buffer` must have room for `len` rounded up to
    /// [`ALIGNMENT`]. Failed reads are repeated in small pieces; an error names the piece.
    pub fn read_block(&self, buffer: &mut [u8], offset: u64, len: usize) -> Result<()> {
        match self.read_whole(buffer, offset, len) {
            Ok(()) => Ok(()),
            Err(error) if is_medium_error(&error) => self.read_carefully(buffer, offset, len),
            Err(error) => Err(self.read_error(error, offset, len)),
        }
    }

    fn read_carefully(&self, buffer: &mut [u8], offset: u64, len: usize) -> Result<()> {
        let mut at = 0;
        while at < len {
            let piece = CAREFUL_PIECE.min(len - at);
            let place = offset + at as u64;
            self.read_whole(&mut buffer[at..], place, piece)
                .map_err(|error| self.read_error(error, place, piece))?;
            at += piece;
        }
        Ok(())
    }

    fn read_error(&self, error: io::Error, offset: u64, len: usize) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Error::new(ErrorKind::SourceChanged, "it ended before its size")
                .path(&self.path)
                .at(offset, len as u64);
        }
        let kind = if is_medium_error(&error) { ErrorKind::Unreadable } else { ErrorKind::Io };
        Error::io("reading", &self.path, error).kind_is(kind).at(offset, len as u64)
    }

    fn read_whole(&self, buffer: &mut [u8], offset: u64, len: usize) -> io::Result<()> {
        match self.mode {
            Mode::Direct => self.read_direct(buffer, offset, len),
            Mode::Buffered => {
                let absent = self.guard.before(&self.file, offset, len);
                faults::point("read_buffered")?;
                self.file.read_exact_at(&mut buffer[..len], offset)?;
                self.guard.after(&self.file, absent);
                Ok(())
            }
        }
    }

    fn read_direct(&self, buffer: &mut [u8], offset: u64, len: usize) -> io::Result<()> {
        let room = len.next_multiple_of(ALIGNMENT);
        let mut got = 0;
        while got < len {
            let mut read = || self.file.read_at(&mut buffer[got..room], offset + got as u64);
            match faults::point("read_direct").and_then(|()| read()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => got += faults::shortened("short_direct", more, &mut buffer[got..]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if got < len && !got.is_multiple_of(512) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Writes all of `data` at `offset`; what is not aligned goes through the ordinary descriptor. Short writes are
    /// finished or fail.
    pub fn write_all(&self, data: &[u8], offset: u64) -> Result<()> {
        let problem = |source| Error::io("writing", &self.path, source).at(offset, data.len() as u64);
        faults::point("pwrite").map_err(problem)?;
        let Some(tail) = &self.tail else {
            return self.file.write_all_at(data, offset).map_err(problem);
        };
        let direct =
            offset.is_multiple_of(ALIGNMENT as u64) && data.as_ptr().addr().is_multiple_of(ALIGNMENT);
        let even = if direct { data.len() / ALIGNMENT * ALIGNMENT } else { 0 };
        self.file.write_all_at(&data[..even], offset).map_err(problem)?;
        tail.write_all_at(&data[even..], offset + even as u64).map_err(problem)
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> Result<()> {
        files::sync(self.plain()).map_err(|source| Error::io("syncing", &self.path, source))
    }

    /// Size of a regular file now, in bytes.
    pub fn file_len(&self) -> Result<u64> {
        let metadata =
            self.plain().metadata().map_err(|source| Error::io("looking at", &self.path, source))?;
        Ok(metadata.len())
    }
}

fn open(options: &OpenOptions, path: &Path, flags: i32) -> io::Result<File> {
    faults::point(if flags & libc::O_DIRECT == 0 { "open" } else { "open_direct" })?;
    options.clone().custom_flags(flags | libc::O_CLOEXEC).open(path)
}

/// What the block layer answers when the medium, the target or the transport's checksums fail: not only EIO.
fn is_medium_error(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENODATA | libc::EREMOTEIO | libc::EILSEQ))
}

/// Some file systems accept the flag and refuse the reads.
fn probe(file: &File) -> io::Result<()> {
    #[repr(align(4096))]
    struct Page([u8; ALIGNMENT]);
    let mut page = Box::new(Page([0; ALIGNMENT]));
    match file.read_at(&mut page.0, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

impl AsRawFd for DirectFile {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        self.guard.after(&self.file, Vec::new());
    }
}

/// `len` rounded up to what direct I/O reads.
#[must_use]
pub fn aligned_len(len: u32) -> u32 {
    len.next_multiple_of(u32::try_from(ALIGNMENT).unwrap_or(4096))
}
