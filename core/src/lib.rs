//! Changed-block tracking and backup of raw volumes, in user space.
//!
//! ```text
//! source -> reader -> hasher -> comparer -> encoder -> delta writer -> repository        backup, scan
//! repository -> delta reader -> decoder -> sink (device, file, pipe)                     restore
//! repository -> delta readers -> decoder -> roots                                        verify
//! ```
//!
//! [`flow`] has the messages between the stages: read it first. [`operations`] has the verbs and is the only place that
//! wires stages together. `docs/ARCHITECTURE.md` draws the whole, `docs/FORMAT.md` specifies every stored byte.
//!
//! ```
//! # fn main() -> blkdelta_core::error::Result<()> {
//! use blkdelta_core::cancel::CancelToken;
//! use blkdelta_core::operations::{backup, restore};
//! use blkdelta_core::progress::Progress;
//! use blkdelta_core::repository::{InitOptions, Repository};
//!
//! let dir = tempfile::tempdir().unwrap();
//! let image = dir.path().join("volume.img");
//! std::fs::write(&image, vec![7; 1 << 20]).unwrap();
//!
//! let repository = Repository::init_local(&dir.path().join("repo"), InitOptions::default())?;
//! let options = backup::BackupOptions::new(&image, dir.path().join("state"));
//! let (progress, cancel) = (Progress::new(), CancelToken::new());
//! let made = backup::backup(&repository, &options, &progress, &cancel)?;
//!
//! let target = dir.path().join("restored.img");
//! let wanted = restore::RestoreOptions::new(&target);
//! let back = restore::restore(&repository, &made.record, &wanted, &progress, &cancel)?;
//! assert!(back.root_proven);
//! assert_eq!(std::fs::read(&target).unwrap(), std::fs::read(&image).unwrap());
//! # Ok(())
//! # }
//! ```

pub mod backup_id;
pub mod cancel;
pub mod comparer;
pub mod consistency;
pub mod crypto;
pub mod delta;
pub mod digest;
pub mod encoder;
pub mod error;
pub mod flow;
pub mod format;
pub mod geometry;
pub mod grain_set;
pub mod hasher;
pub mod hint;
pub mod local_state;
pub mod manifest;
pub mod operations;
pub mod progress;
pub mod reader;
pub mod repository;
pub mod retention;
pub mod sink;
pub mod snapshot;
pub mod source;
pub mod storage;
pub mod sys;
pub mod throttle;
pub mod units;
