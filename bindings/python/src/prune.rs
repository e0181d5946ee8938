//! `prune`: which backups stay, and removing the others.

use blkdelta_core::operations::prune::{PruneOptions, prune};
use blkdelta_core::retention::{Policy, parse_time_zone};
use blkdelta_core::units::parse_span;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use pyo3::prelude::{Borrowed, Bound, FromPyObject, PyAny, PyAnyMethods, PyErr, PyResult, Python, pymethods};
use pyo3::types::PyDict;

use crate::error::{OrRaise, wrong_use};
use crate::options::Options;
use crate::records::record;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// Removes the backups that no rule keeps; what others build on stays.
    ///
    /// Rules add up and hold for each volume by itself: `keep_last` keeps the newest so many, `keep_hourly` to `keep_yearly` the
    /// newest of each hour to year for the newest so many that have one, `keep_within` all of this time before now
    /// ("24h", "30d", "1y6mo" or a timedelta), `keep_tag` all with one of these tags. `min_age` protects what is younger.
    /// Hours and days begin as in `time_zone`, a name such as "Europe/Berlin" or a ZoneInfo, the host's unless given.
    /// `dry_run` only tells what would go, and why.
    ///
    /// Raises `WrongUseError` (a `ValueError`) without a rule, `NotFoundError` for a volume that is not there. Volumes that
    /// are at work are left alone, and stand in the report's `problems`.
    ///
    /// >>> report = repo.prune(keep_last=7, keep_monthly=12, volume="db", dry_run=True)
    /// >>> report.kept, report.removed, report.backups[0].reasons
    /// (1, 0, (...))
    #[pyo3(
        signature = (**options),
        text_signature = "($self, *, volume=None, keep_last=None, keep_hourly=None, keep_daily=None, keep_weekly=None, \
            keep_monthly=None, keep_yearly=None, keep_within=None, keep_tag=(), min_age=None, time_zone=None, \
            dry_run=False, cancel=None)"
    )]
    fn prune<'py>(
        &self,
        py: Python<'py>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core()?;
        let options = Options::new(options)?;
        let pruning = PruneOptions {
            volume: options.take("volume")?,
            policy: policy(&options)?,
            dry_run: options.flag("dry_run")?,
        };
        let watch = options.watch()?;
        options.finish()?;
        let done = watch.run(py, |_, cancel| prune(&core, &pruning, Timestamp::now(), cancel))?;
        record(py, "PruneReport", &done)
    }
}

fn policy(options: &Options<'_>) -> PyResult<Policy> {
    let span = |name| Ok::<_, PyErr>(options.take::<Stretch>(name)?.map(|stretch| stretch.0));
    Ok(Policy {
        last: number(options, "keep_last")?,
        hourly: number(options, "keep_hourly")?,
        daily: number(options, "keep_daily")?,
        weekly: number(options, "keep_weekly")?,
        monthly: number(options, "keep_monthly")?,
        yearly: number(options, "keep_yearly")?,
        within: span("keep_within")?,
        tags: options.take("keep_tag")?.unwrap_or_default(),
        min_age: span("min_age")?,
        time_zone: match options.take::<Bound<'_, PyAny>>("time_zone")? {
            Some(zone) => parse_time_zone(zone.str()?.extract()?).or_raise()?,
            None => TimeZone::system(),
        },
    })
}

/// How many a rule keeps; a rule that keeps nothing is a mistake.
fn number(options: &Options<'_>, name: &str) -> PyResult<u32> {
    match options.take(name)? {
        Some(0) => Err(wrong_use(format!("{name}=0"), "write 1 or more, or leave it out")),
        number => Ok(number.unwrap_or(0)),
    }
}

/// A stretch of the calendar: a text such as `30d`, or a timedelta.
struct Stretch(Span);

impl<'py> FromPyObject<'_, 'py> for Stretch {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = value.extract::<String>() {
            return parse_span(&text).or_raise().map(Self);
        }
        let time: std::time::Duration = value.extract()?;
        let wrong = |_| wrong_use(format!("{} seconds are too long", time.as_secs()), "write such as 30d");
        Span::try_from(time).map(Self).map_err(wrong)
    }
}
