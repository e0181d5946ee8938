//! Sizes as people write them: `4MiB`, `512`, `8 KiB`. Binary units only; what is ambiguous (`MB`) is refused.

use crate::error::{Error, ErrorKind, Result};

const UNITS: [(&str, u64); 6] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("PiB", 1 << 50)];

/// Bytes from a text such as `4MiB` or `4096`.
pub fn parse_size(text: &str) -> Result<u64> {
    let wrong = || {
        Error::new(ErrorKind::WrongUse, format!("'{text}' is not a size"))
            .hint("write a number and KiB, MiB, GiB or TiB, such as 4MiB")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim_start() {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes).ok_or_else(wrong)?,
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// The same for people: `1.3 GiB`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let (name, unit) = UNITS.iter().rev().find(|(_, unit)| bytes >= *unit).unwrap_or(&UNITS[0]);
    if *unit == 1 {
        return format!("{bytes} B");
    }
    let whole = bytes / unit;
    let tenth = (bytes % unit) * 10 / unit;
    format!("{whole}.{tenth} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly_or_refused() {
        assert_eq!(parse_size("4MiB").unwrap(), 4 << 20);
        assert_eq!(parse_size("512").unwrap(), 512);
        assert_eq!(parse_size("8 KiB").unwrap(), 8192);
        for wrong in ["", "MiB", "4MB", "-1", "4 M", "99999999999TiB", "1.5GiB", "4KiB/s"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format_size(1536 << 20), "1.5 GiB");
        assert_eq!(format_size(7), "7 B");
    }
}
