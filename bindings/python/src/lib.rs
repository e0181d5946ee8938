//! The native half of the Python module `blkdelta`: registration only.
//!
//! Each verb has its file, with the same name as in the core and in the command. A file takes Python's values apart
//! (`options`), runs the core in a thread of its own (`progress`), and turns its report into the classes of
//! `python/blkdelta/_records.py` (`records`), its error into those of `_errors.py` (`error`).
//! Those classes are Python's own, because an exception with two bases cannot be made here, and a frozen dataclass is
//! what Python people know. If they are renamed there, every call here fails: the tests run each.

mod apply;
mod backup;
mod block;
mod change;
mod cleanup;
mod copy;
mod diff;
mod error;
mod limits;
mod list;
mod merge;
mod options;
mod progress;
mod prune;
mod ranges;
mod reader;
mod records;
mod repository;
mod restore;
mod scan;
mod tag;
mod verify;

use pyo3::pymodule;

#[pymodule]
mod _blkdelta {
    /// Asking the installed package for it would take longer than all other imports.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use crate::apply::apply;
    #[pymodule_export]
    use crate::change::Change;
    #[pymodule_export]
    use crate::limits::{limits_set, limits_show};
    #[pymodule_export]
    use crate::progress::{CancelToken, Progress};
    #[pymodule_export]
    use crate::ranges::{ChangedRange, ChangedRanges};
    #[pymodule_export]
    use crate::reader::Reader;
    #[pymodule_export]
    use crate::repository::Repository;
    #[pymodule_export]
    use crate::scan::{Changes, scan, scan_ranges};
}
