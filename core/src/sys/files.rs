//! Calls on files that the standard library does not have: locks, leases, holes, page residency, atomic naming.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{self, AtFlags, FallocateFlags, Flock, FlockArg, PosixFadviseAdvice, RenameFlags};
use nix::sys::mman::{self, MapFlags, ProtFlags};
use nix::unistd::{self, Whence};

use super::faults;

const PAGE: usize = 4096;
/// fcntl(2) command of Linux that the libc crate does not name.
const F_SETSIG: libc::c_int = 10;

/// Signed offset for system calls; sizes are checked to be far below the limit when a geometry is made.
fn signed(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Ranges of bytes (in whole pages) in `offset .. offset + len` that the page cache does not hold. Empty when it cannot be
/// told, so that nothing is dropped by mistake.
#[must_use]
pub fn absent_pages(file: &File, offset: u64, len: u64) -> Vec<Range<u64>> {
    resident_map(file, offset, crate::geometry::to_usize(len))
        .map_or_else(|_| Vec::new(), |map| absent_runs(&map, offset))
}

fn absent_runs(map: &[u8], offset: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (page, resident) in (0u64..).zip(map) {
        let start = offset + page * PAGE as u64;
        if resident & 1 == 1 {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == start => run.end += PAGE as u64,
            _ => runs.push(start..start + PAGE as u64),
        }
    }
    runs
}

fn resident_map(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a fresh shared read-only mapping aliases no Rust memory, and its bytes are never touched: only asked for
    // residency. So a file that shrinks meanwhile cannot raise a signal.
    let start = unsafe {
        mman::mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, signed(offset)?)
    }?;
    let mut map = vec![0u8; len.div_ceil(PAGE)];
    // SAFETY: start .. start + len is the mapping made above; the vector has a byte for each page of it.
    let answer = unsafe { libc::mincore(start.as_ptr(), len, map.as_mut_ptr()) };
    // SAFETY: unmaps exactly that mapping; nothing refers to it.
    unsafe { mman::munmap(start, len) }?;
    if answer == 0 { Ok(map) } else { Err(io::Error::last_os_error()) }
}

/// Gives pages back that a read has brought in. Advice: a refusal changes nothing but the cache.
pub fn drop_pages(file: &File, ranges: &[Range<u64>]) {
    for range in ranges {
        if let (Ok(start), Ok(len)) = (signed(range.start), signed(range.end - range.start)) {
            let _ = fcntl::posix_fadvise(file, start, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }
}

/// Switches read-ahead off for a descriptor. Advice.
pub fn expect_random_reads(file: &File) {
    let _ = fcntl::posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
}

/// Drops all clean pages of a file that was written and synced.
pub fn drop_all_pages(file: &File) {
    let _ = fcntl::posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// Starts writing dirty pages of a range to the device without waiting. Advice.
pub fn start_writeback(file: &File, range: Range<u64>) {
    if let (Ok(start), Ok(len)) = (signed(range.start), signed(range.end - range.start)) {
        // SAFETY: only numbers are passed; the descriptor is open for the duration of the call.
        unsafe { libc::sync_file_range(file.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE) };
    }
}

/// The next range at or after `from` that holds data; `None` when only a hole follows.
pub fn next_data(file: &File, from: u64, size: u64) -> io::Result<Option<Range<u64>>> {
    faults::point("lseek")?;
    let start = match unistd::lseek(file, signed(from)?, Whence::SeekData) {
        Ok(start) => start.unsigned_abs(),
        Err(nix::errno::Errno::ENXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if start >= size {
        return Ok(None);
    }
    let end = unistd::lseek(file, signed(start)?, Whence::SeekHole)?.unsigned_abs();
    Ok(Some(start..end.min(size)))
}

/// Makes a range of a file read as zeros, freeing its space where the file system can.
pub fn punch_hole(file: &File, range: Range<u64>) -> io::Result<()> {
    faults::point("fallocate")?;
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fcntl::fallocate(file, flags, signed(range.start)?, signed(range.end - range.start)?)?)
}

/// Gives a file its name unless that name is taken (`AlreadyExists`).
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    faults::point("rename")?;
    match fcntl::renameat2(fcntl::AT_FDCWD, from, fcntl::AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {
            link_new(from, to).and_then(|()| std::fs::remove_file(from))
        }
        other => Ok(other?),
    }
}

/// Gives a file a second name unless that name is taken (`AlreadyExists`).
pub fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    faults::point("link")?;
    Ok(unistd::linkat(fcntl::AT_FDCWD, from, fcntl::AT_FDCWD, to, AtFlags::empty())?)
}

/// How often this process has made something durable.
static SYNCS: AtomicU64 = AtomicU64::new(0);

/// How many syncs this process has begun: each makes the file system write and flush more than the data.
#[must_use]
pub fn syncs() -> u64 {
    SYNCS.load(Ordering::Relaxed)
}

/// Makes a file durable, its size and times too.
pub fn sync(file: &File) -> io::Result<()> {
    faults::point("fsync")?;
    SYNCS.fetch_add(1, Ordering::Relaxed);
    file.sync_all()
}

/// Makes a file's data durable, and what is needed to read it.
pub fn sync_data(file: &File) -> io::Result<()> {
    faults::point("fsync")?;
    SYNCS.fetch_add(1, Ordering::Relaxed);
    file.sync_data()
}

/// Makes names in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    faults::point("fsync_dir")?;
    SYNCS.fetch_add(1, Ordering::Relaxed);
    File::open(path)?.sync_all()
}

/// An exclusive lock that the kernel releases when its holder dies.
#[derive(Debug)]
pub struct FileLock(Flock<File>);

impl FileLock {
    /// Locks, or gives the file back when another holds it.
    pub fn try_lock(file: File) -> Result<Self, (File, io::Error)> {
        if let Err(error) = faults::point("flock") {
            return Err((file, error));
        }
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map(Self)
            .map_err(|(file, errno)| (file, errno.into()))
    }

    /// The locked file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// Whether somebody has this regular file open for writing: a read lease is refused then. `None` when it cannot be told
/// (not the owner, or the file system has no leases).
#[must_use]
pub fn open_for_writing_elsewhere(file: &File) -> Option<bool> {
    let fd = file.as_raw_fd();
    // SAFETY: fcntl with integer arguments on an open descriptor. The lease-break signal is set to one that is ignored by
    // default, so a writer that comes in this instant does not kill us; the lease is given back at once.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        if libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0 {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
            return Some(false);
        }
    }
    (io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)).then_some(true)
}

/// Standard output as a file of its own descriptor; written by the restore to `-`.
pub fn standard_output() -> io::Result<File> {
    use std::os::fd::AsFd;
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

mod ioctl {
    /// `struct fsuuid2` of linux/fs.h.
    #[repr(C)]
    pub struct FsUuid {
        pub len: u8,
        pub uuid: [u8; 16],
    }
    nix::ioctl_read!(get_fs_uuid, 0x15, 0, FsUuid);
}

/// UUID of the file system that holds a file; `None` on kernels before 6.9 and file systems without one.
#[must_use]
pub fn file_system_uuid(file: &File) -> Option<[u8; 16]> {
    let mut answer = ioctl::FsUuid { len: 0, uuid: [0; 16] };
    // SAFETY: FS_IOC_GETFSUUID writes one struct fsuuid2 (17 bytes) to the pointer, which is a live FsUuid.
    unsafe { ioctl::get_fs_uuid(file.as_raw_fd(), &raw mut answer) }.ok()?;
    (answer.len == 16 && answer.uuid != [0; 16]).then_some(answer.uuid)
}

/// The number that statvfs(3) gives the file system: stable on many, not on all.
#[must_use]
pub fn file_system_number(file: &File) -> String {
    nix::sys::statvfs::fstatvfs(file)
        .map_or_else(|_| "-".into(), |answer| format!("fsid-{:x}", answer.filesystem_id()))
}
