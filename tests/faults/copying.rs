//! A repository whose backups are copied into another one that has the first of them already.

use std::fs;

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::Result;
use blkdelta_core::operations::copy::{CopyOptions, CopyReport, copy};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::Repository;

use super::lab::{Files, Lab, collect, format, image, restored};

/// Backups 1 to 3 are a chain, the generation of each is its sequence; 3 has a tag that was given later.
pub struct Copying {
    pub lab: Lab,
    saved: Files,
}

/// Copies everything.
pub fn copy_all(from: &Repository, to: &Repository) -> Result<CopyReport> {
    let options = CopyOptions {
        chosen: Vec::new(),
        volume: None,
        read_back: false,
        dry_run: false,
        gentleness: Gentleness::full_speed(),
    };
    copy(from, to, &options, &Progress::new(), &CancelToken::new())
}

impl Copying {
    pub fn new() -> Self {
        let lab = Lab::with_backups(1);
        Repository::init_local(&lab.path("copies"), format()).unwrap();
        let mut copying = Self { lab, saved: Files::new() };
        copying.copy().unwrap();
        for generation in 2..=3 {
            copying.lab.write_image(generation);
            copying.lab.backup().unwrap();
        }
        let newest = copying.lab.records().pop().unwrap();
        copying.lab.repository().unwrap().change_tags(&newest, &["pin".to_owned()], &[]).unwrap();
        collect(&copying.lab.path("copies"), "copies".as_ref(), &mut copying.saved);
        copying
    }

    pub fn put_back(&self) {
        fs::remove_dir_all(self.lab.path("copies")).unwrap();
        for (name, bytes) in &self.saved {
            let path = self.lab.path("").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn copies(&self) -> Result<Repository> {
        Repository::open_local(&self.lab.path("copies"))
    }

    pub fn copy(&self) -> Result<CopyReport> {
        copy_all(&self.lab.repository()?, &self.copies()?)
    }

    /// How many copies there are; each is whole, and has what belongs to it.
    pub fn assert_whole(&self, context: &str) -> usize {
        let copies = self.copies().unwrap();
        let catalog = copies.catalog(None).unwrap();
        assert!(catalog.damaged.is_empty() && catalog.damaged_tags.is_empty(), "{context}");
        for record in &catalog.records {
            assert!(restored(&copies, record) == *image(record.sequence), "{context}: {}", record.sequence);
            assert_eq!(record.is_pinned(), record.sequence == 3, "{context}: {}", record.sequence);
        }
        catalog.records.len()
    }

    /// A repeated copy brings the rest, and nothing is left over.
    pub fn assert_can_be_ended(&self, context: &str) {
        let report = self.copy().unwrap_or_else(|error| panic!("{context}: repeating fails: {error:?}"));
        assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
        assert_eq!(self.assert_whole(context), 3, "{context}");
        let _ = self.copies().unwrap().publisher(super::lab::VOLUME).unwrap();
        let mut files = Files::new();
        collect(&self.lab.path("copies/volumes"), "".as_ref(), &mut files);
        let names: Vec<_> = files.keys().filter(|name| !name.ends_with("lock")).collect();
        assert_eq!(names.len(), 3 * 3 + 1, "{context}: {names:?}");
    }
}
