//! What people and programs see: JSON on standard output, text for people, errors and hints on standard error.

use std::io::{self, Write};

use blkdelta_core::error::{Error, Result};
use blkdelta_core::units::format_size;
use serde::Serialize;

/// Writes to standard output; a closed pipe is an error like any other.
pub fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").map_err(|source| Error::io("writing", "standard output", source))
}

/// One JSON document.
pub fn json<T: Serialize>(document: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|source| Error::io("writing JSON", "standard output", source.into()))?;
    line(&text)
}

/// The error with its cause and the next step, on standard error.
pub fn error(error: &Error) {
    let _ = writeln!(io::stderr().lock(), "blkdelta: {}", error.full_text());
    if let Some(next_step) = error.next_step() {
        hint(next_step);
    }
}

/// The next step, on standard error.
pub fn hint(text: &str) {
    let _ = writeln!(io::stderr().lock(), "HINT: {text}");
}

/// `1.3 GiB in 2.0 s (650 MiB/s)`.
pub fn rate(bytes: u64, seconds: f64) -> String {
    #[allow(clippy::cast_precision_loss)] // for people
    let mib = bytes as f64 / f64::from(1 << 20) / seconds.max(0.001);
    format!("{} in {seconds:.1} s ({mib:.0} MiB/s)", format_size(bytes))
}
