//! Hours, days, weeks, months and years of a time zone.

use jiff::Zoned;

/// A stretch of the calendar that keeps one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// Of one offset from UTC: the hour that comes twice when summer time ends is two.
    Hour,
    /// Midnight to midnight, 23 to 25 hours.
    Day,
    /// ISO 8601, from Monday.
    Week,
    /// Of the calendar.
    Month,
    /// Of the calendar.
    Year,
}

impl Period {
    /// The rule's name, as in its flag.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// The name of the one in which a moment lies; no two have the same.
    pub fn of(self, moment: &Zoned) -> String {
        let format = match self {
            Self::Hour => "%Y-%m-%d %H:00 %:z",
            Self::Day => "%Y-%m-%d",
            Self::Week => "%G-W%V",
            Self::Month => "%Y-%m",
            Self::Year => "%Y",
        };
        moment.strftime(format).to_string()
    }
}
