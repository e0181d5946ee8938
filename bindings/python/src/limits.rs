//! Limits: of a call that begins, and of calls that run.

use std::path::{Path, PathBuf};

use blkdelta_core::local_state;
use blkdelta_core::operations::gentleness::{Gentleness, Wishes};
use blkdelta_core::operations::running::{self, Running};
use blkdelta_core::throttle::Limits;
use blkdelta_core::throttle::schedule::Window;
use pyo3::prelude::{Bound, PyAny, PyAnyMethods, PyResult, Python, pyfunction};
use pyo3::types::{PyDict, PyString};

use crate::error::{OrRaise, run_briefly};
use crate::options::{Options, Rate};
use crate::records::record;

/// The folder of local state: the one that is named, or the usual one.
pub fn state_folder(named: Option<PathBuf>) -> PyResult<PathBuf> {
    named.map_or_else(|| local_state::default_folder().or_raise(), Ok)
}

/// Takes the arguments on limits of a call that is gentle unless told otherwise.
pub fn begin(options: &Options<'_>, state: &Path) -> PyResult<Running> {
    begin_from(Gentleness::default(), options, state)
}

/// The same for a call that somebody waits for.
pub fn begin_restore(options: &Options<'_>, state: &Path) -> PyResult<Running> {
    begin_from(Gentleness::full_speed(), options, state)
}

fn begin_from(usual: Gentleness, options: &Options<'_>, state: &Path) -> PyResult<Running> {
    let wishes = Wishes {
        ionice: options.parse("ionice")?,
        nice: options.take("nice")?,
        cgroup: options.flag("cgroup")?,
        ..wishes(options)?
    };
    Running::begin(state, wishes.gentleness(usual).or_raise()?).or_raise()
}

/// The arguments that a call which goes on can take too.
fn wishes(options: &Options<'_>) -> PyResult<Wishes> {
    let rate = |name: &str| PyResult::Ok(options.take::<Rate>(name)?.map(|rate| rate.0));
    Ok(Wishes {
        full_speed: options.flag("full_speed")?,
        latency_target: options.parse("latency_target")?,
        bwlimit: rate("bwlimit")?,
        iops_limit: options.take("iops_limit")?,
        write_limit: rate("write_limit")?,
        min_rate: rate("min_rate")?,
        limit_at: windows(options)?,
        ..Wishes::default()
    })
}

/// One window as a text, or several.
fn windows(options: &Options<'_>) -> PyResult<Vec<Window>> {
    let Some(value) = options.take::<Bound<'_, PyAny>>("limit_at")? else { return Ok(Vec::new()) };
    let texts: Vec<String> =
        if value.is_instance_of::<PyString>() { vec![value.extract()?] } else { value.extract()? };
    texts.iter().map(|text| text.parse().or_raise()).collect()
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
    let wishes = wishes(&options)?;
    options.finish()?;
    let state = state_folder(state)?;
    let mut change = |limits: &mut Limits| wishes.change_running(limits);
    let changed = run_briefly(py, || running::change(&state, pid, &mut change))?;
    changed.iter().map(|work| record(py, "RunningWork", work)).collect()
}
