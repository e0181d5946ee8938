//! To be written.

use std::io::BufRead;

use super::ChangeMap;
use crate::error::{Error, ErrorKind, Result};

/// To be written.
pub fn parse(_xml: impl BufRead, _map: &mut ChangeMap) -> Result<()> {
    Err(Error::new(ErrorKind::Unsupported, "the output of thin_delta cannot be read yet"))
}
