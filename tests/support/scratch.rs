//! A folder that is removed at the end of a test, and files in it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A folder for one test; gone when it is dropped.
pub struct Scratch(tempfile::TempDir);

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// A new, empty folder below the system's folder for temporary files.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a scratch folder"))
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file in it with these bytes.
    #[allow(clippy::must_use_candidate)] // the file is there, whoever knows its name needs no path
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        write(&path, bytes);
        path
    }
}

/// Held while a file of ours is open for writing, and while a child process is started.
///
/// Between fork and exec a child holds every descriptor of this process. If it held an image open for writing at the
/// moment when another test's backup looks, that image would be refused as live, and the test would fail for nothing.
pub fn no_descriptor_leaks() -> MutexGuard<'static, ()> {
    static GATE: Mutex<()> = Mutex::new(());
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: &[u8]) {
    let _gate = no_descriptor_leaks();
    std::fs::write(path, bytes).expect("writing a scratch file");
}

/// Reads a whole file.
#[must_use]
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("reading a scratch file")
}

/// All regular files below a folder, sorted.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("listing a folder") {
            let path = entry.expect("listing a folder").path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Copies a folder with all in it.
pub fn copy_folder(from: &Path, to: &Path) {
    for path in files_below(from) {
        let target = to.join(path.strip_prefix(from).expect("a path below the folder"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("making a folder");
        write(&target, &read(&path));
    }
}

/// Fails with the first place where two byte strings differ; the bytes themselves would fill the screen.
pub fn assert_same_bytes(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    let at = found.iter().zip(expected).position(|(left, right)| left != right);
    let at = at.unwrap_or(found.len().min(expected.len()));
    panic!(
        "{what}: {} bytes instead of {}, first difference at offset {at}: {:?} instead of {:?}",
        found.len(),
        expected.len(),
        found.get(at),
        expected.get(at)
    );
}
