//! Changed ranges on their way to standard output.
//!
//! A scan may find more ranges than memory should hold, and a JSON document that breaks off is no document. So ranges
//! wait in a file without a name until the work has succeeded.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};

use blkdelta_core::error::{Error, Result};
use blkdelta_core::operations::ChangedRange;
use serde::Serialize;

/// Ranges, one JSON object a line, in a spool file.
pub struct RangeSpool {
    file: BufWriter<File>,
}

impl RangeSpool {
    /// An empty spool in the folder for temporary files.
    pub fn new() -> Result<Self> {
        let file = tempfile::tempfile()
            .map_err(|source| Error::io("making a spool file in", std::env::temp_dir(), source))?;
        Ok(Self { file: BufWriter::new(file) })
    }

    /// Adds one.
    pub fn push(&mut self, range: ChangedRange) -> Result<()> {
        serde_json::to_writer(&mut self.file, &range)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|source| Error::io("writing", "a spool file", source))
    }

    /// Forgets all.
    pub fn clear(&mut self) -> Result<()> {
        *self = Self::new()?;
        Ok(())
    }

    /// Writes `totals` as a JSON object with the ranges as its last key.
    pub fn print_json<T: Serialize>(self, totals: &T) -> Result<()> {
        let problem = |source| Error::io("writing", "standard output", source);
        let text = serde_json::to_string(totals).map_err(|source| problem(source.into()))?;
        let open = text.strip_suffix('}').unwrap_or(&text);
        let mut out = BufWriter::new(std::io::stdout().lock());
        write!(out, "{open},\"ranges\":[").map_err(problem)?;
        let mut first = true;
        self.each(|line| {
            let comma = if first { "\n" } else { ",\n" };
            first = false;
            out.write_all(comma.as_bytes())?;
            out.write_all(line.as_bytes())
        })?;
        writeln!(out, "]}}").and_then(|()| out.flush()).map_err(problem)
    }

    /// Writes one line of text for each range.
    pub fn print_text(self) -> Result<()> {
        let mut out = BufWriter::new(std::io::stdout().lock());
        self.each(|line| {
            let range: serde_json::Value = serde_json::from_str(line)?;
            writeln!(
                out,
                "{} {} {}",
                range["offset"],
                range["length"],
                range["kind"].as_str().unwrap_or_default()
            )
        })?;
        out.flush().map_err(|source| Error::io("writing", "standard output", source))
    }

    fn each(self, mut use_line: impl FnMut(&str) -> std::io::Result<()>) -> Result<()> {
        let problem = |source| Error::io("reading", "a spool file", source);
        let mut file = self.file.into_inner().map_err(|error| problem(error.into_error()))?;
        file.rewind().map_err(problem)?;
        for line in BufReader::new(file).lines() {
            use_line(&line.map_err(problem)?)
                .map_err(|source| Error::io("writing", "standard output", source))?;
        }
        Ok(())
    }
}
