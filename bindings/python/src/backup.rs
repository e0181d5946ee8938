//! `backup`: of one volume, and of several whose snapshots are taken together.

use std::path::PathBuf;

use blkdelta_core::consistency::{Consistency, Hooks, MysqlOptions, PostgresOptions};
use blkdelta_core::operations::DEFAULT_QUEUE_DEPTH;
use blkdelta_core::operations::backup::{BackupOptions, Group, KeepSnapshot, WantedKind, backup_group};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::snapshot::Wanted;
use pyo3::prelude::{Bound, PyAny, PyAnyMethods, PyResult, Python, pymethods};
use pyo3::types::{PyDict, PyString};

use crate::error::wrong_use;
use crate::limits;
use crate::merge::{Told, bound, max_chain};
use crate::options::{BackupName, Options, Span};
use crate::records::record;
use crate::repository::Repository;

const KINDS: [(&str, &str); 4] =
    [("auto", "auto"), ("full", "full"), ("incremental", "incremental"), ("differential", "differential")];
const SNAPSHOTS: [(&str, Wanted); 4] =
    [("auto", Wanted::Auto), ("lvm", Wanted::Lvm), ("zfs", Wanted::Zfs), ("none", Wanted::None)];
const KEEPING: [(&str, KeepSnapshot); 3] =
    [("auto", KeepSnapshot::Auto), ("always", KeepSnapshot::Always), ("never", KeepSnapshot::Never)];

#[pymethods]
impl Repository {
    /// Backs a volume up: full the first time, then what changed.
    ///
    /// `source` is a block device, an image file or `"zfs:POOL/VOL"`. All other arguments have the names, forms and
    /// defaults of the command's flags:
    ///
    /// - `volume`: its name, HOST/NAME unless given; `kind`: auto, full, incremental or differential; `parent`: build on
    ///   this backup instead of the newest; `tags`: labels; `compression`: instead of the repository's; `max_chain`:
    ///   afterwards merge the oldest backups of a chain that is longer than so many.
    /// - `resume`: go on where an interrupted backup of the same unchanged source was.
    /// - `allow_live`: read a source that others may write to; `new_identity`: accept another volume under this name;
    ///   `queue_depth`: reads in flight at most.
    /// - `hints`: auto, off, or a file with a map of changes; `hint_sample`, `rescan_every`: how hints are proven.
    /// - `snapshot`: auto, lvm, zfs or none; `snapshot_size`: bytes or a share such as "15%"; `keep_snapshot`: auto,
    ///   always or never.
    /// - `before_snapshot`, `after_snapshot`: shell commands; `freeze`: mount points or folders of control groups;
    ///   `freeze_timeout`: seconds, a timedelta or a text such as "30s"; `postgresql`: a libpq connection string, "" is
    ///   the local server; `mysql`: a file of client options, "" for the usual ones.
    /// - `bwlimit`, `write_limit`, `min_rate`: bytes a second, an int or "50MiB/s"; `iops_limit`: requests a second;
    ///   `latency_target`: auto, off or a time such as "5ms"; `limit_at`: windows such as "22:00-06:00=off";
    ///   `full_speed`, `ionice`, `nice`, `cgroup`.
    /// - `progress`: a function that is given a `Progress`; `cancel`: a `CancelToken`.
    ///
    /// Raises `RefusedError` for a source that others write to, `LockedError` when another run has the volume,
    /// `IdentityMismatchError` (a `ValueError`) when it is not the same volume as before, `UnreadableError` and other
    /// `OSError`s of the device. Nothing is committed then.
    ///
    /// >>> backup = repo.backup("db.img", volume="db", bwlimit="500MiB/s")
    /// >>> backup.kind, backup.bytes_changed
    /// ('incremental', 0)
    #[pyo3(
        signature = (source, **options),
        text_signature = "($self, source, *, volume=None, kind='auto', parent=None, tags=(), compression=None, \
            resume=False, max_chain=None, allow_live=False, new_identity=False, queue_depth=None, hints='auto', hint_sample='auto', \
            rescan_every=None, snapshot='auto', snapshot_size='10%', keep_snapshot='auto', before_snapshot=None, \
            after_snapshot=None, freeze=(), freeze_timeout='30s', postgresql=None, mysql=None, latency_target=None, \
            bwlimit=None, iops_limit=None, write_limit=None, limit_at=(), min_rate=None, full_speed=False, \
            ionice=None, nice=None, cgroup=False, progress=None, cancel=None)"
    )]
    fn backup<'py>(
        &self,
        py: Python<'py>,
        source: PathBuf,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = Options::new(options)?;
        let volume = options.take("volume")?;
        let reports = self.run_backup(py, vec![(source, volume)], options)?;
        let only = reports.into_iter().next();
        only.ok_or_else(|| wrong_use("no volume was backed up", "name one"))
    }

    /// Backs several volumes up whose snapshots are taken together, and gives a list of their reports.
    ///
    /// `sources` are as in `backup`; `volumes` are their names, one for each, unless left out; all other arguments are
    /// those of `backup` and hold for each volume.
    ///
    /// Raises what `backup` raises. The first failure ends the rest; those that were committed stay, and stand in the
    /// exception's `committed`.
    ///
    /// >>> [backup.volume for backup in repo.backup_group(["db.img", "log.img"], volumes=["db", "log"])]
    /// ['db', 'log']
    #[pyo3(
        signature = (sources, **options),
        text_signature = "($self, sources, *, volumes=None, kind='auto', tags=(), compression=None, \
            resume=False, max_chain=None, allow_live=False, new_identity=False, queue_depth=None, hints='auto', hint_sample='auto', \
            rescan_every=None, snapshot='auto', snapshot_size='10%', keep_snapshot='auto', before_snapshot=None, \
            after_snapshot=None, freeze=(), freeze_timeout='30s', postgresql=None, mysql=None, latency_target=None, \
            bwlimit=None, iops_limit=None, write_limit=None, limit_at=(), min_rate=None, full_speed=False, \
            ionice=None, nice=None, cgroup=False, progress=None, cancel=None)"
    )]
    fn backup_group<'py>(
        &self,
        py: Python<'py>,
        sources: Vec<PathBuf>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let options = Options::new(options)?;
        let names: Option<Vec<String>> = options.take("volumes")?;
        if names.as_ref().is_some_and(|names| names.len() != sources.len()) {
            return Err(wrong_use("volumes must be as many as sources", "leave it out, or name all volumes"));
        }
        let names = names.unwrap_or_default().into_iter().map(Some).chain(std::iter::repeat(None));
        self.run_backup(py, sources.into_iter().zip(names).collect(), options)
    }
}

impl Repository {
    fn run_backup<'py>(
        &self,
        py: Python<'py>,
        sources: Vec<(PathBuf, Option<String>)>,
        options: Options<'py>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let core = self.core()?;
        let running = limits::begin(&options, &self.state)?;
        let common = self.common(&options, &running.gentleness)?;
        let consistency = consistency(&options, &sources)?;
        let longest = max_chain(&options)?;
        let watch = options.watch()?;
        options.finish()?;
        let of_volume = |(source, volume)| BackupOptions { source, volume, ..common.clone() };
        let group = Group { volumes: sources.into_iter().map(of_volume).collect(), consistency };
        let mut reports: Vec<Told> = Vec::new();
        let done = watch.run(py, |progress, cancel| {
            backup_group(&core, &group, progress, cancel, &mut |report| {
                reports.push(Told { report, merged: None });
                Ok(())
            })?;
            let Some(longest) = longest else { return Ok(()) };
            bound(&mut reports, &core, longest, &common, progress, cancel)
        });
        let reports = reports.iter().map(|told| record(py, "BackupReport", told));
        let reports = reports.collect::<PyResult<Vec<_>>>()?;
        if let Err(error) = &done {
            error.value(py).setattr("committed", reports.clone())?;
        }
        done.map(|()| reports)
    }

    fn common(&self, options: &Options<'_>, gentleness: &Gentleness) -> PyResult<BackupOptions> {
        let usual = BackupOptions::new("", &self.state);
        Ok(BackupOptions {
            kind: kind(options)?,
            allow_live: options.flag("allow_live")?,
            new_identity: options.flag("new_identity")?,
            snapshot: options.word("snapshot", &SNAPSHOTS)?.unwrap_or(usual.snapshot),
            snapshot_size: options.parse("snapshot_size")?.unwrap_or(usual.snapshot_size),
            keep_snapshot: options.word("keep_snapshot", &KEEPING)?.unwrap_or(usual.keep_snapshot),
            hints: options.hints()?,
            proof: options.proof()?,
            queue_depth: queue_depth(options)?,
            gentleness: gentleness.clone(),
            compression: options.parse("compression")?,
            resume: options.flag("resume")?,
            tags: options.take("tags")?.unwrap_or_default(),
            ..usual
        })
    }
}

/// Reads in flight at most.
pub fn queue_depth(options: &Options<'_>) -> PyResult<u32> {
    let depth = options.take("queue_depth")?.unwrap_or(DEFAULT_QUEUE_DEPTH);
    if (1..=256).contains(&depth) {
        return Ok(depth);
    }
    Err(wrong_use(format!("queue_depth={depth}"), "write a number from 1 to 256"))
}

fn kind(options: &Options<'_>) -> PyResult<WantedKind> {
    let kind = options.word("kind", &KINDS)?;
    let parent: Option<BackupName> = options.take("parent")?;
    match (parent, kind) {
        (Some(_), Some(kind)) if kind != "auto" => {
            Err(wrong_use("both kind and parent", "leave one of them out"))
        }
        (Some(parent), _) => Ok(WantedKind::Since(parent.0)),
        (None, Some("full")) => Ok(WantedKind::Full),
        (None, Some("incremental")) => Ok(WantedKind::Incremental),
        (None, Some("differential")) => Ok(WantedKind::Differential),
        (None, _) => Ok(WantedKind::Auto),
    }
}

fn consistency(options: &Options<'_>, sources: &[(PathBuf, Option<String>)]) -> PyResult<Consistency> {
    let sources: Vec<_> = sources.iter().map(|(source, _)| source.display().to_string()).collect();
    let usual = Consistency::default();
    let mysql: Option<PathBuf> = options.take("mysql")?;
    let postgres: Option<String> = options.take("postgresql")?;
    Ok(Consistency {
        hooks: Hooks {
            before: options.take("before_snapshot")?,
            after: options.take("after_snapshot")?,
            environment: vec![("BLKDELTA_SOURCES".into(), sources.join("\n"))],
        },
        freeze: frozen(options)?,
        postgres: postgres
            .map(PostgresOptions::new)
            .transpose()
            .map_err(|error| crate::error::raise(&error))?,
        mysql: mysql.map(|file| MysqlOptions {
            defaults_file: Some(file).filter(|file| !file.as_os_str().is_empty()),
        }),
        timeout: options.take::<Span>("freeze_timeout")?.map_or(usual.timeout, |span| span.0),
    })
}

/// One path, or several.
fn frozen(options: &Options<'_>) -> PyResult<Vec<PathBuf>> {
    let Some(value) = options.take::<Bound<'_, PyAny>>("freeze")? else { return Ok(Vec::new()) };
    if value.is_instance_of::<PyString>() || value.hasattr("__fspath__")? {
        return Ok(vec![value.extract()?]);
    }
    value.extract()
}
