//! A directory as storage.
//!
//! An object is written under an unfinished name, synced, renamed without replacing, and its directory synced. After a
//! failed sync the file is condemned: it is never synced again (the page cache would lie), the run ends. Locks are
//! flock(2) on a file that stays: the kernel releases them when their holder dies, so a dead run never blocks the next.
//! Trade-off: on a network file system without lock support two hosts are kept apart by `put_new` alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Durable, LockGuard, ObjectReader, ObjectWriter, Storage, Unlocked};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{faults, files};

/// Dirty bytes after which write-back is started, so that the final sync has little left to do.
const WRITEBACK_STEP: u64 = 16 << 20;

/// Objects as files below a directory.
pub struct LocalStorage {
    root: PathBuf,
}

impl LocalStorage {
    /// Storage in this directory, which need not exist yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The file's directory, made if need be and synced into its parent.
    fn make_parent(path: &Path) -> Result<&Path> {
        let parent = path.parent().unwrap_or(path);
        if !parent.is_dir() {
            faults::point("mkdir")
                .and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(parent))
                .map_err(|source| Error::io("making a directory", parent, source))?;
            for folder in parent.ancestors().take(4) {
                let _ = files::sync_directory(folder);
            }
        }
        Ok(parent)
    }
}

impl Storage for LocalStorage {
    fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>> {
        let target = self.path(name);
        Self::make_parent(&target)?;
        LocalWriter::begin(target, Naming::New).map(|writer| Box::new(writer) as Box<dyn ObjectWriter>)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut writer = self.create(name)?;
        writer.write(bytes)?;
        writer.finish()
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ObjectReader>> {
        let path = self.path(name);
        let problem = |source| Error::io("opening", &path, source);
        faults::point("open").map_err(problem)?;
        let file = File::open(&path).map_err(problem)?;
        let metadata = file.metadata().map_err(problem)?;
        if !metadata.is_file() {
            return Err(Error::damaged("this is not a file").path(&path));
        }
        Ok(Arc::new(LocalReader { file, path: path.clone(), size: metadata.len() }))
    }

    fn open_unfinished(&self, unfinished: &str, _name: &str) -> Result<Arc<dyn ObjectReader>> {
        self.open(unfinished)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.names(folder, fs::FileType::is_file)
    }

    fn list_stamped(&self, folder: &str) -> Result<Vec<(String, Option<String>)>> {
        let stamped = |name: String| {
            let stamp = fs::symlink_metadata(self.path(folder).join(&name)).ok().as_ref().and_then(stamp);
            (name, stamp)
        };
        Ok(self.list(folder)?.into_iter().map(stamped).collect())
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.names(folder, fs::FileType::is_dir)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match faults::point("unlink").and_then(|()| fs::remove_file(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("removing", &path, error)),
            Ok(()) => files::sync_directory(path.parent().unwrap_or(&self.root))
                .map_err(|source| Error::io("syncing the directory of", &path, source)),
        }
    }

    fn lock(&self, name: &str, note: &str) -> Result<Box<dyn LockGuard>> {
        let path = self.path(name);
        let lock = self.try_lock(&path)?.map_err(|holder| {
            Error::new(ErrorKind::Locked, format!("the volume is locked by {holder}")).path(&path)
        })?;
        // The note is for people only; a full disk must not keep anybody from locking.
        let _ = lock.file().set_len(0).and_then(|()| lock.file().write_all_at(note.as_bytes(), 0));
        Ok(Box::new(LocalLock(lock)))
    }

    fn unlock(&self, name: &str, _force: bool) -> Result<Unlocked> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(Unlocked::Free);
        }
        let why = "a running process holds it; the kernel takes it back when that process ends".to_owned();
        Ok(self.try_lock(&path)?.map_or_else(|holder| Unlocked::Held { holder, why }, |_| Unlocked::Free))
    }

    fn retain(&self, _names: &[&str]) -> Result<()> {
        Ok(())
    }

    fn display(&self, name: &str) -> PathBuf {
        self.path(name)
    }
}

impl LocalStorage {
    /// The lock, or what its holder has written into it.
    fn try_lock(&self, path: &Path) -> Result<std::result::Result<files::FileLock, String>> {
        Self::make_parent(path)?;
        let problem = |source| Error::io("locking", path, source);
        faults::point("open").map_err(problem)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(problem)?;
        match files::FileLock::try_lock(file) {
            Ok(lock) => Ok(Ok(lock)),
            Err((file, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(Err(io::read_to_string(file).unwrap_or_default().trim().to_owned()))
            }
            Err((_, error)) => Err(problem(error)),
        }
    }

    fn names(&self, folder: &str, wanted: impl Fn(&fs::FileType) -> bool) -> Result<Vec<String>> {
        let path = self.path(folder);
        let problem = |source| Error::io("listing", &path, source);
        faults::point("readdir").map_err(problem)?;
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(problem)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(problem)?;
            if wanted(&entry.file_type().map_err(problem)?) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Inode, size and times. A file that has just changed has none: changed again, it could keep the same times.
fn stamp(metadata: &fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    const COARSEST_CLOCK: Duration = Duration::from_secs(2);
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
    (changed + COARSEST_CLOCK < SystemTime::now()).then(|| {
        let (inode, size) = (metadata.ino(), metadata.size());
        let (mtime, ctime) = (metadata.mtime(), metadata.ctime());
        format!("{inode}.{size}.{mtime}.{}.{ctime}.{}", metadata.mtime_nsec(), metadata.ctime_nsec())
    })
}

struct LocalLock(#[allow(dead_code)] files::FileLock);

impl LockGuard for LocalLock {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn can_be_lost(&self) -> bool {
        false
    }
}

struct LocalWriter {
    file: File,
    unfinished: PathBuf,
    target: PathBuf,
    written: u64,
    flushed: u64,
    done: bool,
    /// It stays if it is never finished: somebody may go on from it.
    kept: bool,
    naming: Naming,
}

/// How a file gets its name.
#[derive(Clone, Copy, PartialEq)]
enum Naming {
    New,
    Replacing,
    /// Replacing what may be lost: nothing waits for the disk.
    ReplacingCache,
}

/// A single file that appears whole, replacing what had its name: a scan's delta.
pub struct FileReplacer(Box<LocalWriter>);

impl FileReplacer {
    /// Begins the file that will be at `path`.
    pub fn begin(path: &Path) -> Result<Self> {
        Ok(Self(Box::new(LocalWriter::begin(path.to_path_buf(), Naming::Replacing)?)))
    }
}

/// Writes a small file whole and durably, in place of what had its name.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_as(Naming::Replacing, path, bytes)
}

/// The same for what may be lost at any time: after a crash of the machine the file may be torn.
pub fn replace_cache(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_as(Naming::ReplacingCache, path, bytes)
}

fn replace_as(naming: Naming, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut writer = Box::new(LocalWriter::begin(path.to_path_buf(), naming)?);
    writer.write(bytes)?;
    writer.finish()
}

/// Removes what dead runs have left unfinished in a folder where files are replaced; it is theirs when it is a day old.
pub fn remove_unfinished(folder: &Path) {
    const DEAD: Duration = Duration::from_secs(24 * 3600);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let dead = changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > DEAD));
        if dead && super::is_unfinished(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl ObjectWriter for FileReplacer {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.0.finish()
    }
}

impl LocalWriter {
    fn begin(target: PathBuf, naming: Naming) -> Result<Self> {
        let mut unfinished = target.clone().into_os_string();
        unfinished.push(super::unfinished_ending());
        let unfinished = PathBuf::from(unfinished);
        let file = faults::point("open")
            .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished))
            .map_err(|source| Error::io("creating", &target, source))?;
        Ok(Self { file, unfinished, target, written: 0, flushed: 0, done: false, kept: false, naming })
    }
}

impl ObjectWriter for LocalWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        faults::point("write").and_then(|()| self.file.write_all(bytes)).map_err(|source| {
            Error::io("writing", &self.target, source).at(self.written, bytes.len() as u64)
        })?;
        self.written += bytes.len() as u64;
        if self.written - self.flushed >= WRITEBACK_STEP {
            files::start_writeback(&self.file, self.flushed..self.written);
            self.flushed = self.written;
        }
        Ok(())
    }

    fn make_durable(&mut self) -> Result<Option<Durable>> {
        files::sync_data(&self.file).map_err(|source| Error::io("syncing", &self.target, source))?;
        if !self.kept {
            // Its name must be found after a crash too.
            let folder = self.unfinished.parent().unwrap_or(Path::new("."));
            files::sync_directory(folder).map_err(|source| Error::io("syncing", folder, source))?;
        }
        self.kept = true;
        let name = self.unfinished.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(name.map(|name| Durable { name, len: self.written }))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let problem = |what: &str, source| Error::io(what, &self.target, source);
        if self.naming != Naming::ReplacingCache {
            files::sync(&self.file).map_err(|source| problem("syncing", source))?;
            files::drop_all_pages(&self.file);
        }
        let replace = |point| faults::point(point).and_then(|()| fs::rename(&self.unfinished, &self.target));
        let named = match self.naming {
            Naming::New => files::rename_new(&self.unfinished, &self.target),
            Naming::Replacing => replace("rename"),
            Naming::ReplacingCache => replace("rename_cache"),
        };
        named.map_err(|source| problem("naming", source))?;
        self.done = true;
        if self.naming == Naming::ReplacingCache {
            return Ok(());
        }
        let folder =
            self.target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::sync_directory(folder)
            .map_err(|source| Error::io("syncing the directory of", &self.target, source))
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if !self.done && !self.kept {
            let _ = faults::point("unlink").and_then(|()| fs::remove_file(&self.unfinished));
        }
    }
}

struct LocalReader {
    file: File,
    path: PathBuf,
    size: u64,
}

impl ObjectReader for LocalReader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        // An offset that no file can have is a wrong call to the kernel, not an end.
        let beyond = offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size);
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let inside = if beyond { Err(ended()) } else { faults::point("pread") };
        inside.and_then(|()| self.file.read_exact_at(buffer, offset)).map_err(|source| {
            let error = if source.kind() == io::ErrorKind::UnexpectedEof {
                Error::damaged("the file is cut short").path(&self.path)
            } else {
                Error::io("reading", &self.path, source)
            };
            error.at(offset, buffer.len() as u64)
        })
    }

    fn display(&self) -> PathBuf {
        self.path.clone()
    }
}
