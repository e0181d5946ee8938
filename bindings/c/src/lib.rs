//! The C library: `include/blkdelta.h` is made from these files, and its contract is written here and in `docs/C.md`.
//!
//! - Every function that can fail returns a [`error::Status`]: 0 is done, a positive one is done with a doubt that the
//!   caller should look at, a negative one is a failure, and then nothing was handed out.
//! - Handles are numbers that look like pointers and are never followed, so that a freed or foreign one is told as such.
//! - Strings that are handed out belong to the caller (`blkdelta_string_free`); all else belongs to the library.
//! - Callbacks run on the thread that made the call, between its begin and its end; log lines are the only exception.
//! - No panic crosses the border: it becomes [`error::Status::Internal`].
//!
//! One verb is one file, as in the core and in the command. Trade-off: this layer knows nothing that the core does not; what it
//! adds is the checking of what C hands over. If a caller breaks the contract in a way that cannot be told (a pointer to
//! freed memory, a string without end), the process may crash, as with any C library.

mod apply;
mod backup;
mod changes;
mod cleanup;
mod copy;
mod diff;
mod error;
mod guard;
mod handle;
mod init;
mod limits;
mod list;
mod log;
mod merge;
mod options;
mod prune;
mod reading;
mod restore;
mod run;
mod scan;
mod show;
mod summary;
mod tag;
mod verify;
mod version;
