//! Change tracking without a repository: a manifest of generation 1, a scan of a later one with manifest and delta, and
//! a copy of generation 1 to apply the delta to.

use std::fs;
use std::path::PathBuf;

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::Result;
use blkdelta_core::operations::apply::{ApplyReport, apply};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::scan::{ScanOptions, ScanReport, scan};
use blkdelta_core::progress::Progress;
use blkdelta_core::storage::ObjectWriter;
use blkdelta_core::storage::local::FileReplacer;

use super::lab::{Lab, format, image};

/// A scan that can be run again and again.
pub struct Scanning {
    lab: Lab,
    generation: u32,
}

impl Scanning {
    /// Of this generation against the first.
    pub fn new(generation: u32) -> Self {
        let scanning = Self { lab: Lab::new(), generation };
        let mut options = ScanOptions::new(scanning.lab.path("image"));
        options.gentleness = Gentleness::full_speed();
        options.format = format();
        options.write_manifest = Some(scanning.parent());
        scan(&options, None, &mut |_| Ok(()), &mut || Ok(()), &Progress::new(), &CancelToken::new()).unwrap();
        scanning.lab.write_image(generation);
        scanning
    }

    /// The manifest of generation 1.
    pub fn parent(&self) -> PathBuf {
        self.lab.path("first.manifest")
    }

    /// What the delta is applied to.
    pub fn target(&self) -> PathBuf {
        self.lab.path("target")
    }

    /// Runs the scan.
    pub fn run(&self) -> Result<ScanReport> {
        let mut options = ScanOptions::new(self.lab.path("image"));
        options.gentleness = Gentleness::full_speed();
        options.manifest = Some(self.parent());
        options.write_manifest = Some(self.lab.path("next.manifest"));
        let path = self.lab.path("next.delta");
        let mut out = || FileReplacer::begin(&path).map(|out| Box::new(out) as Box<dyn ObjectWriter>);
        let (progress, cancel) = (Progress::new(), CancelToken::new());
        scan(&options, Some(&mut out), &mut |_| Ok(()), &mut || Ok(()), &progress, &cancel)
    }

    /// Removes what a scan writes.
    pub fn forget_results(&self) {
        for name in ["next.manifest", "next.delta"] {
            let _ = fs::remove_file(self.lab.path(name));
        }
    }

    /// Names of files that have no name of their own yet.
    pub fn unfinished(&self) -> Vec<String> {
        let entries = fs::read_dir(self.lab.path("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".unfinished")).collect()
    }

    /// Makes the target generation 1 again.
    pub fn write_target(&self) {
        fs::write(self.target(), &*image(1)).unwrap();
    }

    /// Applies the delta to the target.
    pub fn apply(&self) -> Result<ApplyReport> {
        apply(&self.lab.path("next.delta"), &self.target(), false, &Progress::new(), &CancelToken::new())
    }

    /// The delta makes the scanned generation of the first.
    pub fn assert_applies(&self, context: &str) {
        self.write_target();
        self.apply().unwrap_or_else(|error| panic!("{context}: {error:?}"));
        assert!(fs::read(self.target()).unwrap() == *image(self.generation), "{context}");
    }
}
