//! Flags on which backups stay.

use blkdelta_core::retention::{Policy, parse_time_zone};
use blkdelta_core::units;
use clap::Args;
use jiff::Span;
use jiff::tz::TimeZone;

/// Arguments of `prune`. Rules add up, and hold for each volume by itself.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Keep the newest N.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub keep_last: Option<u32>,
    /// Keep the newest of each hour, for the newest N hours that have a backup.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub keep_hourly: Option<u32>,
    /// The same for days.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub keep_daily: Option<u32>,
    /// The same for weeks, from Monday.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub keep_weekly: Option<u32>,
    /// The same for months.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub keep_monthly: Option<u32>,
    /// The same for years.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub keep_yearly: Option<u32>,
    /// Keep all that were taken in this time before now, such as 24h, 30d or 1y6mo.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub keep_within: Option<Span>,
    /// Keep all with this tag; may be given several times.
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
    /// Remove nothing that was finished in this time before now.
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub min_age: Option<Span>,
    /// Where hours and days begin: a name such as Europe/Berlin, or UTC; the host's unless given.
    #[arg(long, value_name = "ZONE", value_parser = time_zone)]
    pub time_zone: Option<TimeZone>,
    /// Only this volume.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Only say what would go, and why.
    #[arg(long)]
    pub dry_run: bool,
}

impl PruneArgs {
    /// For the library.
    pub fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last.unwrap_or(0),
            hourly: self.keep_hourly.unwrap_or(0),
            daily: self.keep_daily.unwrap_or(0),
            weekly: self.keep_weekly.unwrap_or(0),
            monthly: self.keep_monthly.unwrap_or(0),
            yearly: self.keep_yearly.unwrap_or(0),
            within: self.keep_within,
            tags: self.keep_tag.clone(),
            min_age: self.min_age,
            time_zone: self.time_zone.clone().unwrap_or_else(TimeZone::system),
        }
    }
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn span(text: &str) -> Result<Span, String> {
    units::parse_span(text).map_err(|error| error.full_text())
}

fn time_zone(text: &str) -> Result<TimeZone, String> {
    parse_time_zone(text).map_err(|error| error.full_text())
}

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// Beginning of an id, latest or latest~N.
    pub id: String,
    /// Give it this tag; may be given several times.
    #[arg(long, value_name = "TAG", required_unless_present = "remove")]
    pub add: Vec<String>,
    /// Take this tag away; may be given several times.
    #[arg(long, value_name = "TAG")]
    pub remove: Vec<String>,
    /// Volume that latest is of.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
}
