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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    fn of(period: Period, time: &str) -> String {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        period.of(&time.parse::<Timestamp>().unwrap().to_zoned(berlin))
    }

    #[test]
    fn the_hour_that_comes_twice_is_two() {
        let [summer, winter] =
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"].map(|time| of(Period::Hour, time));
        assert_eq!(
            (summer.as_str(), winter.as_str()),
            ("2026-10-25 02:00 +02:00", "2026-10-25 02:00 +01:00")
        );
        assert_eq!(of(Period::Day, "2026-10-24T22:00:00Z"), "2026-10-25", "25 hours from here");
        assert_eq!(of(Period::Day, "2026-10-25T22:59:59Z"), "2026-10-25");
        assert_eq!(of(Period::Day, "2026-10-25T23:00:00Z"), "2026-10-26");
    }

    #[test]
    fn weeks_begin_on_monday_and_belong_to_the_year_of_their_thursday() {
        assert_eq!(of(Period::Week, "2026-12-27T22:59:59Z"), "2026-W52", "Sunday");
        assert_eq!(of(Period::Week, "2026-12-27T23:00:00Z"), "2026-W53", "Monday");
        assert_eq!(of(Period::Week, "2027-01-03T22:00:00Z"), "2026-W53", "Sunday");
        assert_eq!(of(Period::Month, "2027-01-03T22:00:00Z"), "2027-01");
        assert_eq!(of(Period::Year, "2026-12-31T23:00:00Z"), "2027");
    }
}
