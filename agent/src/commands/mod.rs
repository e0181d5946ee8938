//! One file per verb: flags in, library call, report out.

pub mod apply;
pub mod audit;
pub mod backup;
pub mod cleanup;
pub mod copy;
pub mod diff;
pub mod init;
pub mod key;
pub mod limits;
pub mod list;
pub mod merge;
pub mod prune;
pub mod restore;
pub mod scan;
pub mod show;
pub mod tag;
pub mod unlock;
pub mod verify;
