//! A volume as a plain array of bytes beside the image file that the engine reads, and what may happen to both.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use blkdelta_core::sys::files::punch_hole;

use crate::content::{random_bytes, volume_bytes};
use crate::scratch::no_descriptor_leaks;

/// Something that happens to a volume between two backups. Places are taken modulo the volume's size.
#[derive(Debug, Clone)]
pub enum Change {
    /// Random bytes at any place.
    Write {
        /// Where.
        at: u64,
        /// How many bytes.
        len: u64,
        /// Of the bytes.
        seed: u64,
    },
    /// Zeros are written.
    WriteZeros {
        /// Where.
        at: u64,
        /// How many bytes.
        len: u64,
    },
    /// A hole is punched: what a discard does to an image file.
    Punch {
        /// Where.
        at: u64,
        /// How many bytes.
        len: u64,
    },
    /// A whole aligned unit becomes zero, by writing or by punching.
    ZeroUnit {
        /// Which unit.
        number: u64,
        /// Bytes of the unit.
        size: u64,
        /// Punch instead of writing.
        punch: bool,
    },
    /// The end moves out; the new tail is a hole.
    Grow(u64),
    /// The end moves in.
    Shrink(u64),
    /// The volume gets the size that it was made with.
    OldSize,
    /// Nothing, but the file is touched.
    Touch,
}

/// An image file and what it must hold.
pub struct Volume {
    bytes: Vec<u8>,
    path: PathBuf,
    made_with: u64,
}

impl Volume {
    /// Makes the file. Pages of zeros are left as holes.
    #[must_use]
    pub fn new(path: PathBuf, bytes: Vec<u8>) -> Self {
        let gate = no_descriptor_leaks();
        let file = File::create(&path).expect("making an image");
        file.set_len(bytes.len() as u64).expect("sizing an image");
        for (page, offset) in bytes.chunks(4096).zip((0..).step_by(4096)) {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, offset).expect("writing an image");
            }
        }
        drop((file, gate));
        Self { made_with: bytes.len() as u64, bytes, path }
    }

    /// One of this size with content of this seed.
    #[must_use]
    pub fn seeded(path: PathBuf, seed: u64, size: u64) -> Self {
        Self::new(path, volume_bytes(seed, usize::try_from(size).expect("a small volume")))
    }

    /// The image.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the image must hold.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the volume.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Lets a change happen to image and model.
    pub fn apply(&mut self, change: &Change) {
        let size = self.size();
        match change {
            Change::Write { at, len, seed } => {
                let (start, end) = self.place(*at, *len);
                self.write(start, &random_bytes(*seed, end - start));
            }
            Change::WriteZeros { at, len } => {
                let (start, end) = self.place(*at, *len);
                self.write(start, &vec![0; end - start]);
            }
            Change::Punch { at, len } => self.punch(*at, *len),
            Change::ZeroUnit { number, size: unit, punch } => {
                let at = number % size.div_ceil(*unit).max(1) * unit;
                let (len, punch) = (*unit, *punch);
                self.apply(&if punch { Change::Punch { at, len } } else { Change::WriteZeros { at, len } });
            }
            Change::Grow(by) => self.resize(size + by),
            Change::Shrink(by) => self.resize(size.saturating_sub(*by)),
            Change::OldSize => self.resize(self.made_with),
            Change::Touch => self.write(0, &[]),
        }
    }

    fn place(&self, at: u64, len: u64) -> (usize, usize) {
        let start = at % self.size().max(1);
        let end = (start + len).min(self.size());
        (
            usize::try_from(start.min(end)).expect("a small volume"),
            usize::try_from(end).expect("a small volume"),
        )
    }

    /// Writes bytes at a place inside the volume.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.with_file(|file| file.write_all_at(bytes, at as u64));
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn punch(&mut self, at: u64, len: u64) {
        let (start, end) = self.place(at, len);
        if start < end {
            self.with_file(|file| punch_hole(file, start as u64..end as u64));
            self.bytes[start..end].fill(0);
        }
    }

    fn resize(&mut self, size: u64) {
        self.with_file(|file| file.set_len(size));
        self.bytes.resize(usize::try_from(size).expect("a small volume"), 0);
    }

    fn with_file(&self, work: impl FnOnce(&File) -> std::io::Result<()>) {
        let _gate = no_descriptor_leaks();
        let file = OpenOptions::new().write(true).open(&self.path).expect("opening an image");
        work(&file).expect("changing an image");
    }
}
