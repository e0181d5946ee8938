//! Keyword arguments of the verbs: many, with the names and forms of the command's flags, taken apart here.
//!
//! The verbs declare their signatures as text, for `help()` and the stubs, and take what they are given as a dict; so a
//! name that only the text has would be refused here. `mypy.stubtest` compares text and stubs, and a test hands over
//! every argument.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use blkdelta_core::error::Error;
use blkdelta_core::hint::proof::Proof;
use blkdelta_core::operations::hinting::HintChoice;
use blkdelta_core::units;
use jiff::Timestamp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::{
    Borrowed, Bound, FromPyObject, FromPyObjectOwned, Py, PyAny, PyAnyMethods, PyDictMethods, PyErr,
    PyListMethods, PyResult, PyStringMethods, PyTypeMethods, Python,
};
use pyo3::types::PyDict;

use crate::error::{OrRaise, wrong_use};
use crate::progress::{CancelToken, Watch};

/// What was given by name and not yet taken.
pub struct Options<'py>(Option<Bound<'py, PyDict>>);

impl<'py> Options<'py> {
    /// The keyword arguments of a call.
    pub fn new(given: Option<&Bound<'py, PyDict>>) -> PyResult<Self> {
        Ok(Self(given.map(PyDictMethods::copy).transpose()?))
    }

    /// Takes one; `None` and absent are the same.
    fn value(&self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(given) = &self.0 else { return Ok(None) };
        let value = given.get_item(name)?;
        if value.is_some() {
            given.del_item(name)?;
        }
        Ok(value.filter(|value| !value.is_none()))
    }

    /// Takes one that PyO3 can convert.
    pub fn take<T: FromPyObjectOwned<'py>>(&self, name: &str) -> PyResult<Option<T>> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        value.extract().map(Some).map_err(|error: T::Error| named(name, error.into()))
    }

    /// Takes a flag.
    pub fn flag(&self, name: &str) -> PyResult<bool> {
        Ok(self.take(name)?.unwrap_or(false))
    }

    /// Takes a text that the core reads.
    pub fn parse<T: FromStr<Err = Error>>(&self, name: &str) -> PyResult<Option<T>> {
        self.take::<String>(name)?.map(|text| text.parse().or_raise()).transpose()
    }

    /// Takes one of a few words.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> PyResult<Option<T>> {
        let Some(text) = self.take::<String>(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let wrong = || wrong_use(format!("{name}='{text}'"), &format!("write one of {}", all.join(", ")));
        found.map(Some).ok_or_else(wrong)
    }

    /// Takes bytes that fit into 32 bits.
    pub fn size_u32(&self, name: &str) -> PyResult<Option<u32>> {
        let Some(Size(bytes)) = self.take(name)? else { return Ok(None) };
        let too_large = |_| wrong_use(format!("{name}: {bytes} bytes are too large"), "write 64MiB or less");
        u32::try_from(bytes).map(Some).map_err(too_large)
    }

    /// Takes how hints are proven.
    pub fn proof(&self) -> PyResult<Proof> {
        let usual = Proof::default();
        Ok(Proof {
            sample: self.parse("hint_sample")?.unwrap_or(usual.sample),
            rolling_runs: self.take("rescan_every")?.unwrap_or(usual.rolling_runs),
        })
    }

    /// Takes where hints come from.
    pub fn hints(&self) -> PyResult<HintChoice> {
        let path: Option<PathBuf> = self.take("hints")?;
        Ok(path.map_or(HintChoice::Auto, |path| match path.to_str() {
            Some("auto") => HintChoice::Auto,
            Some("off") => HintChoice::Off,
            _ => HintChoice::File(path),
        }))
    }

    /// Takes who watches the call.
    pub fn watch(&self) -> PyResult<Watch> {
        let cancel: Option<Py<CancelToken>> = self.take("cancel")?;
        Ok(Watch::new(self.take("progress")?, cancel.as_ref().map(Py::get)))
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> PyResult<()> {
        match self.0.and_then(|left| left.keys().get_item(0).ok()) {
            Some(name) => Err(PyTypeError::new_err(format!("unexpected keyword argument '{name}'"))),
            None => Ok(()),
        }
    }
}

/// A wrong type says for which argument.
fn named(name: &str, error: PyErr) -> PyErr {
    Python::attach(|py| {
        if error.is_instance_of::<PyTypeError>(py) {
            return PyTypeError::new_err(format!("{name}: {}", error.value(py)));
        }
        error
    })
}

/// Bytes: an int or a text such as `4MiB`.
pub struct Size(pub u64);

impl<'py> FromPyObject<'_, 'py> for Size {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        number_or_text(&value, units::parse_size).map(Self)
    }
}

/// Bytes a second: an int or a text such as `50MiB/s`.
pub struct Rate(pub NonZeroU64);

impl<'py> FromPyObject<'_, 'py> for Rate {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        number_or_text(&value, units::parse_rate).map(Self)
    }
}

/// A number is read as its digits are, so that the same numbers are refused for the same reasons.
fn number_or_text<T>(
    value: &Bound<'_, PyAny>,
    parse: impl FnOnce(&str) -> blkdelta_core::error::Result<T>,
) -> PyResult<T> {
    if value.is_instance_of::<pyo3::types::PyBool>()
        || !(value.is_instance_of::<pyo3::types::PyInt>() || value.is_instance_of::<pyo3::types::PyString>())
    {
        return Err(PyTypeError::new_err(format!("an int or a str, not {}", value.get_type().name()?)));
    }
    parse(value.str()?.to_str()?).or_raise()
}

/// A time span: seconds, a `timedelta`, or a text such as `30s`.
pub struct Span(pub Duration);

impl<'py> FromPyObject<'_, 'py> for Span {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = value.extract::<String>() {
            return units::parse_duration(&text).or_raise().map(Self);
        }
        if let Ok(seconds) = value.extract::<f64>() {
            let wrong = |_| wrong_use(format!("{seconds} seconds"), "write a number above 0");
            return Duration::try_from_secs_f64(seconds).map(Self).map_err(wrong);
        }
        value.extract().map(Self)
    }
}

/// A moment: a `datetime` (a naive one is local time, as everywhere in Python) or RFC 3339 text.
pub struct Moment(pub Timestamp);

impl<'py> FromPyObject<'_, 'py> for Moment {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let text: String = match value.extract() {
            Ok(text) => text,
            Err(_) => value.call_method0("astimezone")?.call_method0("isoformat")?.extract()?,
        };
        let wrong = |_| wrong_use(format!("'{text}' is not a time"), "give a datetime, or RFC 3339 text");
        text.parse().map(Self).map_err(wrong)
    }
}

/// A backup: its id (or its beginning, `latest`, `latest~1`), or something that has one, such as a `Backup`.
pub struct BackupName(pub String);

impl<'py> FromPyObject<'_, 'py> for BackupName {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.getattr_opt("id")? {
            Some(id) => id.extract().map(Self),
            None => value.extract().map(Self),
        }
    }
}
