//! Limits: of a call that begins, and of calls that run.

use std::path::{Path, PathBuf};

use blkdelta_core::local_state;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::running::{self, Running};
use blkdelta_core::throttle::Limits;
use blkdelta_core::throttle::schedule::Window;
use pyo3::prelude::{Bound, PyAny, PyAnyMethods, PyResult, Python, pyfunction};
use pyo3::types::{PyDict, PyString};

use crate::error::{OrRaise, run_briefly, wrong_use};
use crate::options::{Options, Rate};
use crate::records::record;

/// The folder of local state: the one that is named, or the usual one.
pub fn state_folder(named: Option<PathBuf>) -> PyResult<PathBuf> {
    named.map_or_else(|| local_state::default_folder().or_raise(), Ok)
}

/// Takes the arguments on limits of a call that is gentle unless told otherwise.
pub fn begin(options: &Options<'_>, state: &Path) -> PyResult<Running> {
    let full_speed = options.flag("full_speed")?;
    begin_from(if full_speed { Gentleness::full_speed() } else { Gentleness::default() }, options, state)
}

/// The same for a call that somebody waits for.
pub fn begin_restore(options: &Options<'_>, state: &Path) -> PyResult<Running> {
    begin_from(Gentleness::full_speed(), options, state)
}

fn begin_from(mut gentleness: Gentleness, options: &Options<'_>, state: &Path) -> PyResult<Running> {
    named_limits(options)?.put_into(&mut gentleness.limits);
    gentleness.priority.io = options.parse("ionice")?.or(gentleness.priority.io);
    if let Some(nice) = options.take("nice")? {
        if !(-20..=19).contains(&nice) {
            return Err(wrong_use(format!("nice={nice}"), "write a number from -20 to 19"));
        }
        gentleness.priority.nice = Some(nice);
    }
    gentleness.priority.cgroup = options.flag("cgroup")?;
    Running::begin(state, gentleness).or_raise()
}

/// The limits that were named.
struct Named {
    latency_target: Option<blkdelta_core::throttle::LatencyTarget>,
    bwlimit: Option<Rate>,
    iops_limit: Option<std::num::NonZeroU64>,
    write_limit: Option<Rate>,
    limit_at: Option<Vec<Window>>,
    min_rate: Option<Rate>,
}

fn named_limits(options: &Options<'_>) -> PyResult<Named> {
    Ok(Named {
        latency_target: options.parse("latency_target")?,
        bwlimit: options.take("bwlimit")?,
        iops_limit: options.take("iops_limit")?,
        write_limit: options.take("write_limit")?,
        limit_at: windows(options)?,
        min_rate: options.take("min_rate")?,
    })
}

/// One window as a text, or several.
fn windows(options: &Options<'_>) -> PyResult<Option<Vec<Window>>> {
    let Some(value) = options.take::<Bound<'_, PyAny>>("limit_at")? else { return Ok(None) };
    let texts: Vec<String> =
        if value.is_instance_of::<PyString>() { vec![value.extract()?] } else { value.extract()? };
    let windows: Vec<Window> = texts.iter().map(|text| text.parse().or_raise()).collect::<PyResult<_>>()?;
    Ok(Some(windows).filter(|windows| !windows.is_empty()))
}

impl Named {
    fn put_into(&self, limits: &mut Limits) {
        let rate = |named: &Option<Rate>| named.as_ref().map(|rate| rate.0);
        limits.latency_target = self.latency_target.unwrap_or(limits.latency_target);
        limits.bwlimit = rate(&self.bwlimit).or(limits.bwlimit);
        limits.iops_limit = self.iops_limit.or(limits.iops_limit);
        limits.write_limit = rate(&self.write_limit).or(limits.write_limit);
        limits.min_rate = rate(&self.min_rate).unwrap_or(limits.min_rate);
        if let Some(windows) = &self.limit_at {
            limits.limit_at.clone_from(windows);
        }
    }
}

/// What `blkdelta.limits.show` does.
#[pyfunction]
#[pyo3(signature = (*, state = None))]
pub fn limits_show(py: Python<'_>, state: Option<PathBuf>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let state = state_folder(state)?;
    let found = run_briefly(py, || running::list(&state))?;
    found.iter().map(|work| record(py, "RunningWork", work)).collect()
}

/// What `blkdelta.limits.set` does.
#[pyfunction]
#[pyo3(signature = (*, state = None, pid = None, **limits))]
pub fn limits_set<'py>(
    py: Python<'py>,
    state: Option<PathBuf>,
    pid: Option<u32>,
    limits: Option<&Bound<'py, PyDict>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let options = Options::new(limits)?;
    let (named, full_speed) = (named_limits(&options)?, options.flag("full_speed")?);
    options.finish()?;
    let state = state_folder(state)?;
    let mut change = |limits: &mut Limits| {
        if full_speed {
            *limits = Limits::none();
        }
        named.put_into(limits);
        Ok(())
    };
    let changed = run_briefly(py, || running::change(&state, pid, &mut change))?;
    changed.iter().map(|work| record(py, "RunningWork", work)).collect()
}
