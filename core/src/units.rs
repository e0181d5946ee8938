//! Sizes, rates and times as people write them: `4MiB`, `512`, `8 KiB`; `50MiB/s`; `5ms`. Binary units only; what is
//! ambiguous (`MB`) is refused, and so is what would never end or never begin (a rate or a time of 0).

use std::num::NonZeroU64;
use std::time::Duration;

use jiff::Span;

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

/// Bytes per second from a text such as `50MiB/s`; `50MiB` and `4096` are per second too.
pub fn parse_rate(text: &str) -> Result<NonZeroU64> {
    let bytes = parse_size(text.strip_suffix("/s").unwrap_or(text).trim_end()).map_err(|_| {
        Error::new(ErrorKind::WrongUse, format!("'{text}' is not a rate"))
            .hint("write a number and KiB/s, MiB/s or GiB/s, such as 50MiB/s")
    })?;
    NonZeroU64::new(bytes).ok_or_else(|| {
        Error::new(ErrorKind::WrongUse, format!("a limit of 0 would never end: '{text}'"))
            .hint("leave the flag out, or write off where hours are given")
    })
}

/// The same for people: `50.0 MiB/s`.
#[must_use]
pub fn format_rate(bytes_per_second: u64) -> String {
    format!("{}/s", format_size(bytes_per_second))
}

/// The same without loss, as [`parse_rate`] reads it back: `50MiB/s`, `1000B/s`.
#[must_use]
pub fn exact_rate(bytes_per_second: u64) -> String {
    let whole = |unit: u64| bytes_per_second >= unit && bytes_per_second.is_multiple_of(unit);
    let (name, unit) = UNITS.iter().rev().find(|(_, unit)| whole(*unit)).unwrap_or(&UNITS[0]);
    format!("{}{name}/s", bytes_per_second / unit)
}

/// A time from a text such as `5ms`, `250us` or `2s`: whole numbers only, and not 0.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = |message: String| {
        Error::new(ErrorKind::WrongUse, message)
            .hint("write a whole number and us, ms or s, such as 5ms (1500ms for one and a half seconds)")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: Option<u64> = text[..digits].parse().ok();
    let time = match (number, text[digits..].trim_start()) {
        (Some(number), "us") => Duration::from_micros(number),
        (Some(number), "ms") => Duration::from_millis(number),
        (Some(number), "s") => Duration::from_secs(number),
        _ => return Err(wrong(format!("'{text}' is not a time"))),
    };
    if time.is_zero() { Err(wrong(format!("a time of 0 makes no sense: '{text}'"))) } else { Ok(time) }
}

/// A stretch of the calendar from a text such as `24h`, `30d`, `6w`, `3mo` or `1y 6mo`: not 0, and forward.
pub fn parse_span(text: &str) -> Result<Span> {
    let wrong = || {
        Error::new(ErrorKind::WrongUse, format!("'{text}' is not a stretch of time"))
            .hint("write a number and h, d, w, mo or y, such as 24h, 30d or 1y 6mo")
    };
    let span: Span = text.parse().map_err(|source: jiff::Error| wrong().because(source))?;
    if span.is_positive() { Ok(span) } else { Err(wrong()) }
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

    #[test]
    fn rates_are_read_exactly_or_refused() {
        for (text, bytes, exact) in [
            ("50MiB/s", 50 << 20, "50MiB/s"),
            ("512KiB/s", 512 << 10, "512KiB/s"),
            ("50MiB", 50 << 20, "50MiB/s"),
            ("50 MiB /s", 50 << 20, "50MiB/s"),
            ("1000", 1000, "1000B/s"),
            ("1024/s", 1024, "1KiB/s"),
            ("18446744073709551615", u64::MAX, "18446744073709551615B/s"),
        ] {
            assert_eq!(parse_rate(text).unwrap().get(), bytes, "{text}");
            assert_eq!(exact_rate(bytes), exact);
            assert_eq!(parse_rate(exact).unwrap().get(), bytes);
        }
        for wrong in ["", "/s", "50MB/s", "-1MiB/s", "1.5MiB", "1MiB/h", "1MiB/s/s", "9999999999TiB/s"] {
            let error = parse_rate(wrong).unwrap_err();
            assert!(error.to_string().contains("not a rate"), "{wrong}: {error}");
            assert!(error.next_step().is_some());
        }
        for zero in ["0", "0KiB", "0MiB/s"] {
            let error = parse_rate(zero).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongUse);
            assert!(error.to_string().contains("a limit of 0 would never end"), "{error}");
        }
        assert_eq!(format_rate(50 << 20), "50.0 MiB/s");
        assert_eq!(format_rate(999), "999 B/s");
        assert_eq!(exact_rate(0), "0B/s");
    }

    #[test]
    fn times_are_read_exactly_or_refused() {
        assert_eq!(parse_duration("5ms").unwrap(), Duration::from_millis(5));
        assert_eq!(parse_duration("250us").unwrap(), Duration::from_micros(250));
        assert_eq!(parse_duration("2 s").unwrap(), Duration::from_secs(2));
        for wrong in ["", "5", "ms", "0ms", "1.5s", "-1s", "5 min", "99999999999999999999s"] {
            let error = parse_duration(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongUse, "{wrong}");
            assert!(error.next_step().is_some(), "{wrong}");
        }
    }

    #[test]
    fn stretches_of_the_calendar_are_read_or_refused() {
        assert_eq!(parse_span("30d").unwrap().get_days(), 30);
        assert_eq!(parse_span("24h").unwrap().get_hours(), 24);
        let long = parse_span("1y 6mo").unwrap();
        assert_eq!((long.get_years(), long.get_months()), (1, 6));
        for wrong in ["", "30", "0d", "-1d", "1d ago", "yesterday", "99999999999y"] {
            assert_eq!(parse_span(wrong).unwrap_err().kind(), ErrorKind::WrongUse, "{wrong}");
        }
    }
}
