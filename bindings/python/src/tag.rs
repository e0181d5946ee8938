//! `tag`: labels of a backup that is there.

use pyo3::prelude::{PyResult, Python, pymethods};

use crate::error::run_briefly;
use crate::options::BackupName;
use crate::repository::Repository;

#[pymethods]
impl Repository {
    /// Gives a backup tags and takes some away; tells what it has then.
    ///
    /// Raises `NotFoundError` (a `FileNotFoundError`), and `WrongUseError` (a `ValueError`) for a text that is no tag.
    ///
    /// >>> repo.tag("latest", volume="db", add=["before upgrade"])
    /// ['before upgrade']
    #[pyo3(
        signature = (id, *, add = Vec::new(), remove = Vec::new(), volume = None),
        text_signature = "($self, id, *, add=(), remove=(), volume=None)"
    )]
    #[allow(clippy::needless_pass_by_value)] // as Python hands them over
    fn tag(
        &self,
        py: Python<'_>,
        id: BackupName,
        add: Vec<String>,
        remove: Vec<String>,
        volume: Option<&str>,
    ) -> PyResult<Vec<String>> {
        let core = self.core()?;
        run_briefly(py, || core.change_tags(&core.resolve(&id.0, volume, None)?, &add, &remove))
    }
}
