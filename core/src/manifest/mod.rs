//! Manifests as files: the working form on local disk, the stored form in a repository.

pub mod stored;
pub mod working;
