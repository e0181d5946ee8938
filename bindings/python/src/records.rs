//! Reports and records of the core as objects of Python: their JSON, read by the dataclasses of `_records.py`.

use blkdelta_core::error::Error;
use pyo3::prelude::{Bound, PyAny, PyAnyMethods, PyResult, Python};
use serde::Serialize;

use crate::error::OrRaise;

/// `report` as an object of the class with this name.
pub fn record<'py>(py: Python<'py>, class: &str, report: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(report).map_err(|source| Error::io("writing JSON", "", source.into()));
    py.import("blkdelta._records")?.getattr(class)?.call_method1("_of_json", (text.or_raise()?,))
}
