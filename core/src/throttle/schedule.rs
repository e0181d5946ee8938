//! Limits by hours: `mon-fri 09:00-18:00=50MiB/s`, `22:00-06:00=off`, with a time zone at the end if it is not the
//! system's.
//!
//! Windows are compared with the clock on the wall (civil time). On the days when clocks change, a window is therefore
//! as long as the wall clock makes it: 01:00-04:00 lasts two hours in spring and four in autumn, and one that lies in
//! the skipped hour is left out that day. A time belongs to at most one window: overlaps are refused, not ranked, since
//! which of two limits somebody meant cannot be guessed. For the same reason all windows of a schedule are in one zone;
//! across zones, whether two windows overlap would change with the season.
//!
//! What goes wrong if the system's zone cannot be found out: windows without a zone are then in UTC.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::units::{exact_rate, parse_rate};

/// Monday first, as everywhere in this file.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u16 = 24 * 60;
const OFF: &str = "off";
const FORM: &str = "write it such as 'mon-fri 09:00-18:00=50MiB/s' or '22:00-06:00=off', \
                    with a time zone such as Europe/Berlin at the end if it is not the system's";

/// Some hours of some days, and the limit that holds then. The end is not part of it. One that goes over midnight
/// belongs to the day on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    days: [bool; 7],
    /// Minutes after midnight, below [`DAY_MINUTES`].
    begin: u16,
    /// Minutes after midnight, 1 to [`DAY_MINUTES`]; before `begin` it is on the next day.
    end: u16,
    /// Bytes per second; `None` is no limit.
    rate: Option<NonZeroU64>,
    /// `None` is the system's, whatever that is when it is asked for.
    zone: Option<TimeZone>,
}

impl Window {
    /// Whether this minute of this day (0 is Monday) is inside.
    fn covers(&self, day: usize, minute: u16) -> bool {
        let today = self.days[day];
        let yesterday = self.days[(day + 6) % 7];
        if self.begin < self.end {
            today && (self.begin..self.end).contains(&minute)
        } else {
            (today && minute >= self.begin) || (yesterday && minute < self.end)
        }
    }
}

impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (when, limit) = text.split_once('=').ok_or_else(|| {
            Error::new(ErrorKind::WrongUse, format!("'{text}' is not a limit with hours")).hint(FORM)
        })?;
        let (days, hours) = match when.trim().rsplit_once(char::is_whitespace) {
            Some((days, hours)) => (parse_days(days.trim_end())?, hours),
            None => ([true; 7], when.trim()),
        };
        let (begin, end) = parse_hours(hours)?;
        let (rate, zone) = parse_limit(limit.trim())?;
        Ok(Self { days, begin, end, rate, zone })
    }
}

/// The text it was read from, in one spelling: what it writes is read back as an equal window.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            write!(f, "{} ", days_text(&self.days))?;
        }
        write!(f, "{}-{}=", time_text(self.begin), time_text(self.end))?;
        match self.rate {
            Some(rate) => f.write_str(&exact_rate(rate.get()))?,
            None => f.write_str(OFF)?,
        }
        match self.zone.as_ref().and_then(TimeZone::iana_name) {
            Some(name) => write!(f, " {name}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Windows of which at most one applies at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule(Vec<Window>);

impl Schedule {
    /// Refuses windows that overlap, and windows of different zones (one without a zone beside one with).
    pub fn new(windows: Vec<Window>) -> Result<Self> {
        let refuse = |one: &Window, other: &Window, why: &str, hint: &str| {
            Err(Error::new(ErrorKind::WrongUse, format!("the limits '{one}' and '{other}' {why}")).hint(hint))
        };
        if let Some(pair) = windows.windows(2).find(|pair| pair[0].zone != pair[1].zone) {
            let hint = "write the same time zone at the end of every limit, or none at all for the system's";
            return refuse(&pair[0], &pair[1], "are in different time zones", hint);
        }
        // Every minute of a week, asked as `rate_at` asks: what passes here cannot be ambiguous there.
        for (day, name) in DAYS.iter().enumerate() {
            for minute in 0..DAY_MINUTES {
                let mut inside = windows.iter().filter(|window| window.covers(day, minute));
                if let (Some(one), Some(other)) = (inside.next(), inside.next()) {
                    let why = format!("overlap on {name} at {}", time_text(minute));
                    let hint = "let one end where the other begins: the end is not part of a window, \
                                and one over midnight belongs to the day on which it begins";
                    return refuse(one, other, &why, hint);
                }
            }
        }
        Ok(Self(windows))
    }

    /// What holds at `now`: `None` where no window applies (the limit without hours holds), `Some(None)` where a window
    /// lifts the limit, else bytes per second.
    #[must_use]
    pub fn rate_at(&self, now: Timestamp) -> Option<Option<NonZeroU64>> {
        let zone = self.0.first()?.zone.clone().unwrap_or_else(TimeZone::system);
        self.rate_when(zone.to_datetime(now))
    }

    fn rate_when(&self, wall: DateTime) -> Option<Option<NonZeroU64>> {
        let day = usize::from(wall.weekday().to_monday_zero_offset().unsigned_abs());
        let minute = u16::from(wall.hour().unsigned_abs()) * 60 + u16::from(wall.minute().unsigned_abs());
        self.0.iter().find(|window| window.covers(day, minute)).map(|window| window.rate)
    }
}

fn parse_days(text: &str) -> Result<[bool; 7]> {
    let day = |name: &str| {
        DAYS.iter().position(|day| day.eq_ignore_ascii_case(name)).ok_or_else(|| {
            Error::new(ErrorKind::WrongUse, format!("'{name}' is not a day of the week"))
                .hint("write mon, tue, wed, thu, fri, sat or sun, such as mon-fri or sat,sun")
        })
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut next, last) = (day(first)?, day(last)?);
        days[next] = true;
        // sat-mon goes over the end of the week.
        while next != last {
            next = (next + 1) % 7;
            days[next] = true;
        }
    }
    Ok(days)
}

fn parse_hours(text: &str) -> Result<(u16, u16)> {
    let wrong = |text: &str, what: &str, hint: &str| {
        Error::new(ErrorKind::WrongUse, format!("'{text}' {what}")).hint(hint)
    };
    let time = |text: &str| {
        let hint = "write hours and minutes from 00:00 to 24:00, such as 09:00";
        parse_time(text).ok_or_else(|| wrong(text, "is not a time of the day", hint))
    };
    let (begin, end) = text.split_once('-').ok_or_else(|| wrong(text, "is not a range of hours", FORM))?;
    let (begin, end) = (time(begin)?, time(end)?);
    if begin == end {
        return Err(wrong(text, "begins and ends at the same time", "write 00:00-24:00 for the whole day"));
    }
    if begin == DAY_MINUTES {
        return Err(wrong(text, "begins when the day is over", "let it begin at 00:00"));
    }
    // Until midnight is one thing, whichever way it is written.
    Ok((begin, if end == 0 { DAY_MINUTES } else { end }))
}

/// Minutes after midnight of `9:00`, `09:00` or `24:00`.
fn parse_time(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hour) || !digits(minute) || !(1..=2).contains(&hour.len()) || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
}

/// What stands after the `=`: a rate or `off`, and perhaps a zone.
fn parse_limit(text: &str) -> Result<(Option<NonZeroU64>, Option<TimeZone>)> {
    let rate = |text: &str| {
        if text.eq_ignore_ascii_case(OFF) { Ok(None) } else { parse_rate(text).map(Some) }
    };
    // A rate may have a space before its unit, so what follows the last space is a zone only if the whole is no rate.
    match (rate(text), text.rsplit_once(char::is_whitespace)) {
        (Ok(rate), _) => Ok((rate, None)),
        (Err(error), None) => Err(error),
        (Err(_), Some((limit, name))) => Ok((rate(limit.trim_end())?, Some(parse_zone(name)?))),
    }
}

fn parse_zone(name: &str) -> Result<TimeZone> {
    let unknown = || {
        Error::new(ErrorKind::WrongUse, format!("'{name}' is not a time zone that this system knows"))
            .hint("after the limit (such as 50MiB/s) may stand a zone such as Europe/Berlin or UTC")
    };
    let zone = TimeZone::get(name).map_err(|error| unknown().because(error))?;
    // Without its name it could not be written down again.
    if zone.iana_name().is_none() { Err(unknown()) } else { Ok(zone) }
}

fn time_text(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

fn days_text(days: &[bool; 7]) -> String {
    let (mut parts, mut day) = (Vec::new(), 0);
    while day < days.len() {
        let length = days[day..].iter().take_while(|on| **on).count();
        match &DAYS[day..day + length] {
            [first, _, .., last] if length > 2 => parts.push(format!("{first}-{last}")),
            few => parts.extend(few.iter().map(|name| (*name).to_owned())),
        }
        day += length.max(1);
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn window(text: &str) -> Window {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    fn schedule(texts: &[&str]) -> Result<Schedule> {
        Schedule::new(texts.iter().map(|text| window(text)).collect())
    }

    /// MiB per second at a time in UTC; 0 is a lifted limit, `None` no window.
    fn at(schedule: &Schedule, time: &str) -> Option<u64> {
        let rate = schedule.rate_at(time.parse().unwrap())?;
        Some(rate.map_or(0, |rate| rate.get() / MIB))
    }

    /// The same for times on the wall, for windows without a zone.
    fn assert_rates(schedule: &Schedule, rates: &[(&str, Option<u64>)]) {
        for (time, rate) in rates {
            let found = schedule.rate_when(time.parse().unwrap());
            assert_eq!(found.map(|rate| rate.map_or(0, |rate| rate.get() / MIB)), *rate, "{time}");
        }
    }

    #[test]
    fn windows_are_written_as_they_are_read() {
        for text in [
            "09:00-18:00=50MiB/s",
            "22:00-06:00=off",
            "mon-fri 09:00-18:00=50MiB/s",
            "sat,sun 00:00-24:00=200MiB/s",
            "mon-wed,fri,sun 12:30-12:31=1GiB/s UTC",
            "tue 09:00-18:00=1000B/s Europe/Berlin",
            "22:00-06:00=off America/Argentina/Buenos_Aires",
        ] {
            assert_eq!(window(text).to_string(), text);
            let json = serde_json::to_string(&window(text)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Window>(&json).unwrap(), window(text));
        }
        for (text, written) in [
            (" 9:00-18:00 = 50 MiB/s ", "09:00-18:00=50MiB/s"),
            ("Mon-Sun 09:00-00:00=OFF", "09:00-24:00=off"),
            ("sat-mon 00:00-24:00=1024KiB", "mon,sat,sun 00:00-24:00=1MiB/s"),
            ("fri,sat,sun  00:00-24:00=2000  europe/berlin", "fri-sun 00:00-24:00=2000B/s Europe/Berlin"),
        ] {
            assert_eq!(window(text).to_string(), written);
            assert_eq!(window(text), window(written));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_next_step() {
        for (text, says) in [
            ("", "not a limit with hours"),
            ("09:00-18:00", "not a limit with hours"),
            ("09:00=1MiB/s", "not a range of hours"),
            ("25:00-26:00=1MiB/s", "'25:00' is not a time"),
            ("09:60-18:00=1MiB/s", "'09:60' is not a time"),
            ("9-18=1MiB/s", "'9' is not a time"),
            ("+9:00-18:00=1MiB/s", "'+9:00' is not a time"),
            ("09:00-18:00-20:00=1MiB/s", "'18:00-20:00' is not a time"),
            ("09:00-09:00=1MiB/s", "same time"),
            ("00:00-00:00=1MiB/s", "same time"),
            ("24:00-06:00=1MiB/s", "the day is over"),
            ("montag 09:00-18:00=1MiB/s", "'montag' is not a day"),
            ("mon, 09:00-18:00=1MiB/s", "'' is not a day"),
            ("mon-tue-wed 09:00-18:00=1MiB/s", "'tue-wed' is not a day"),
            ("09:00 - 18:00=1MiB/s", "not a day"),
            ("09:00-18:00=0", "limit of 0"),
            ("09:00-18:00=0MiB/s Europe/Berlin", "limit of 0"),
            ("09:00-18:00=-1MiB/s", "not a rate"),
            ("09:00-18:00=fast", "not a rate"),
            ("09:00-18:00=", "not a rate"),
            ("09:00-18:00=1MiB/s Europe/Atlantis", "'Europe/Atlantis' is not a time zone"),
            ("09:00-18:00=off Etc/Unknown", "'Etc/Unknown' is not a time zone"),
            ("09:00-18:00=50 MB/s", "'MB/s' is not a time zone"),
        ] {
            let error = text.parse::<Window>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongUse, "{text}");
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert!(error.next_step().is_some(), "{text}");
        }
        assert!(serde_json::from_str::<Window>("\"09:00-09:00=off\"").is_err());
    }

    #[test]
    fn the_begin_is_inside_and_the_end_is_not() {
        let schedule = schedule(&["09:00-18:00=50MiB/s", "18:00-18:01=off", "22:00-06:00=7MiB/s"]).unwrap();
        let rates = [
            ("2026-03-02T08:59:59.999", None),
            ("2026-03-02T09:00:00", Some(50)),
            ("2026-03-02T17:59:59.999", Some(50)),
            ("2026-03-02T18:00:00", Some(0)),
            ("2026-03-02T18:01:00", None),
            ("2026-03-02T21:59:59", None),
            ("2026-03-02T22:00:00", Some(7)),
            ("2026-03-03T00:00:00", Some(7)),
            ("2026-03-03T05:59:59", Some(7)),
            ("2026-03-03T06:00:00", None),
        ];
        assert_rates(&schedule, &rates);
        assert_eq!(Schedule::default().rate_at(Timestamp::UNIX_EPOCH), None);
        // In the system's zone, whichever that is: a window of the whole day always applies.
        let always = Schedule::new(vec![window("00:00-24:00=off")]).unwrap();
        assert_eq!(always.rate_at(Timestamp::now()), Some(None));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let schedule = schedule(&["fri,sun 22:00-06:00=7MiB/s", "sat 06:00-24:00=off"]).unwrap();
        let rates = [
            ("2026-03-06T05:00:00", None), // Friday morning belongs to Thursday
            ("2026-03-06T22:00:00", Some(7)),
            ("2026-03-07T05:59:00", Some(7)),
            ("2026-03-07T06:00:00", Some(0)),
            ("2026-03-07T23:59:59", Some(0)),
            ("2026-03-08T00:00:00", None),
            ("2026-03-08T22:00:00", Some(7)),
            ("2026-03-09T05:59:00", Some(7)), // Monday: over the end of the week
            ("2026-03-09T22:00:00", None),
        ];
        assert_rates(&schedule, &rates);
    }

    #[test]
    fn overlapping_windows_are_refused() {
        for (texts, says) in [
            (&["09:00-18:00=1MiB/s", "17:59-20:00=2MiB/s"][..], "overlap on mon at 17:59"),
            (&["22:00-06:00=off", "05:59-07:00=1MiB/s"], "overlap on mon at 05:59"),
            (&["22:00-06:00=off", "23:00-01:00=1MiB/s"], "overlap on mon at 00:00"),
            (&["sun 22:00-06:00=off", "mon 00:00-24:00=1MiB/s"], "overlap on mon at 00:00"),
            (&["mon-fri 09:00-18:00=off", "sat 00:00-24:00=off", "fri 12:00-13:00=off"], "fri at 12:00"),
            (&["09:00-18:00=off", "09:00-18:00=off"], "overlap"),
            (&["09:00-10:00=off Europe/Berlin", "11:00-12:00=off Europe/Paris"], "different time zones"),
            (&["09:00-10:00=off", "11:00-12:00=off", "13:00-14:00=off UTC"], "different time zones"),
        ] {
            let error = schedule(texts).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongUse);
            assert!(error.to_string().contains(says), "{texts:?}: {error}");
            assert!(error.next_step().is_some());
        }
        for texts in [
            &["09:00-18:00=1MiB/s", "18:00-09:00=2MiB/s"][..],
            &["mon-fri 09:00-18:00=off", "sat,sun 00:00-24:00=off", "mon-thu 18:00-24:00=1MiB/s"],
            &["sun 22:00-06:00=off", "mon 06:00-24:00=1MiB/s"],
            &["09:00-10:00=off Europe/Berlin", "11:00-12:00=off europe/berlin"],
        ] {
            assert!(schedule(texts).is_ok(), "{texts:?}");
        }
    }

    #[test]
    fn a_named_zone_decides_what_the_hours_mean() {
        let berlin = schedule(&["mon-fri 09:00-18:00=50MiB/s Europe/Berlin"]).unwrap();
        assert_eq!(at(&berlin, "2026-01-12T07:59:59Z"), None);
        assert_eq!(at(&berlin, "2026-01-12T08:00:00Z"), Some(50)); // winter: an hour ahead
        assert_eq!(at(&berlin, "2026-07-13T07:00:00Z"), Some(50)); // summer: two
        assert_eq!(at(&berlin, "2026-07-13T16:00:00Z"), None);
        let midnight = schedule(&["mon 00:00-24:00=1MiB/s Europe/Berlin"]).unwrap();
        assert_eq!(at(&midnight, "2026-01-11T23:00:00Z"), Some(1)); // still Sunday in UTC
        assert_eq!(at(&midnight, "2026-01-12T23:00:00Z"), None);
    }

    /// On 2026-03-29 Berlin goes from 02:00 to 03:00 (at 01:00 UTC), on 2026-10-25 from 03:00 back to 02:00 (also).
    #[test]
    fn windows_follow_the_wall_when_clocks_change() {
        let minutes = |text: &str, day: &str| {
            let schedule = schedule(&[text]).unwrap();
            let start: Timestamp = format!("{day}T12:00:00Z").parse().unwrap();
            (0..24 * 60)
                .filter(|minute| {
                    schedule.rate_at(start + jiff::SignedDuration::from_mins(*minute)) == Some(None)
                })
                .count()
        };
        for (text, spring, ordinary, autumn) in [
            ("01:00-04:00=off Europe/Berlin", 120, 180, 240),
            ("02:00-03:00=off Europe/Berlin", 0, 60, 120),
            ("02:30-02:45=off Europe/Berlin", 0, 15, 30),
            ("22:00-06:00=off Europe/Berlin", 420, 480, 540),
            ("sat 22:00-06:00=off Europe/Berlin", 420, 0, 540),
            ("sun 22:00-06:00=off Europe/Berlin", 0, 0, 0),
        ] {
            assert_eq!(minutes(text, "2026-03-28"), spring, "{text} in spring");
            assert_eq!(minutes(text, "2026-05-05"), ordinary, "{text} on an ordinary day");
            assert_eq!(minutes(text, "2026-10-24"), autumn, "{text} in autumn");
        }
        let berlin = schedule(&["02:00-03:00=9MiB/s Europe/Berlin"]).unwrap();
        assert_eq!(at(&berlin, "2026-03-29T00:59:59Z"), None);
        assert_eq!(at(&berlin, "2026-03-29T01:00:00Z"), None);
        assert_eq!(at(&berlin, "2026-10-25T00:00:00Z"), Some(9));
        assert_eq!(at(&berlin, "2026-10-25T01:59:59Z"), Some(9));
        assert_eq!(at(&berlin, "2026-10-25T02:00:00Z"), None);
    }
}
