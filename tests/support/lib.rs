//! What the tests share: scratch folders, seeded content, a model of a volume, the engine and the command as helpers.
//!
//! ```text
//! Volume (model.rs)   an image file, and a plain array of bytes that is always what the file must hold
//! expect.rs           from two such arrays: the changed ranges and counts that blkdelta must report
//! Engine (engine.rs)  a repository with its local state, used through the library
//! Command (binary.rs) the built `blkdelta` as a user runs it
//! ```
//! The model knows nothing of blocks that are read, hints or deltas; if both sides were wrong in the same way, a test would
//! have to be wrong on plain slices.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a helper of tests that cannot go on must end the test

pub mod binary;
pub mod content;
pub mod counting;
pub mod engine;
pub mod expect;
pub mod model;
pub mod scratch;
pub mod strategies;
