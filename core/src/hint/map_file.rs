//! To be written.

use std::path::Path;

use super::ChangeMap;
use crate::error::{Error, ErrorKind, Result};

/// What a map says of what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its form.
    pub form: &'static str,
    /// Root of the state that it was made against.
    pub parent_root: Option<String>,
    /// Bytes of the volume.
    pub volume_size: Option<u64>,
}

/// Reads a map.
pub fn read(path: &Path, _map: &mut ChangeMap) -> Result<Binding> {
    Err(Error::new(ErrorKind::Unsupported, "not yet").path(path))
}
