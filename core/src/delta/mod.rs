//! Delta files: writing one front to back, reading one by its index, and reading a chain of them as one state.

pub mod compression;
pub mod merged;
pub mod passing;
pub mod prefix;
pub mod reader;
pub mod writer;
