//! `backup`: one volume, or several whose snapshots are taken at one moment.
#![allow(unsafe_code)] // functions that C calls

use std::ffi::c_char;
use std::path::PathBuf;

use blkdelta_core::consistency::{Consistency, Hooks, MysqlOptions, PostgresOptions};
use blkdelta_core::error::Result;
use blkdelta_core::operations::backup::{
    BackupOptions as CoreOptions, BackupReport, Group, KeepSnapshot, WantedKind, backup_group,
};
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::merge::{MergeOptions, MergeReport, Shortening, shorten};
use blkdelta_core::repository::Repository;
use blkdelta_core::snapshot::Wanted;
use blkdelta_core::units::parse_duration;
use serde::Serialize;

use crate::error::{Status, wrong_use};
use crate::guard::{Caller, enter};
use crate::handle;
use crate::init::RepositoryHandle;
use crate::options::extensible;
use crate::run::{Run, RunOptions, Work};
use crate::scan::ReadOptions;
use crate::summary::{Place, Summary};

/// One volume of a backup; the names are those of the command's flags. Only `source` must be set.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct BackupOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Block device, image file, or "zfs:POOL/VOL".
    pub source: *const c_char,
    /// Name of the volume (UTF-8); NULL: HOST/NAME.
    pub volume: *const c_char,
    /// "auto" (as NULL), "full", "incremental" or "differential".
    pub kind: *const c_char,
    /// Build on this backup instead of the newest; leaves no choice of kind.
    pub parent: *const c_char,
    /// "none", "lz4", "zstd" or "zstd:LEVEL"; NULL: the repository's.
    pub compression: *const c_char,
    /// Labels (UTF-8).
    pub tags: *const *const c_char,
    /// How many they are.
    pub tag_count: usize,
    /// How the source is read; NULL: as usual.
    pub read: *const ReadOptions,
    /// Which layer takes a snapshot: "auto" (as NULL), "lvm", "zfs" or "none".
    pub snapshot: *const c_char,
    /// Room for a thick snapshot: bytes such as "20GiB" or a share such as "10%" (as NULL).
    pub snapshot_size: *const c_char,
    /// Whether the snapshot stays: "auto" (as NULL), "always" or "never".
    pub keep_snapshot: *const c_char,
    /// Afterwards merge the oldest backups of the chain into a new full, if it is longer than so many; 0: not.
    pub max_chain: u32,
    /// Zero.
    pub reserved: [u8; 60],
}

extensible!(BackupOptions, "blkdelta_backup_options");

/// What is done around the snapshots, so that what they hold is consistent; the names are those of the command's flags.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ConsistencyOptions {
    /// sizeof of this struct.
    pub struct_size: usize,
    /// Run this (with sh) before anything is frozen.
    pub before_snapshot: *const c_char,
    /// Run this after the snapshots were taken, also when that failed.
    pub after_snapshot: *const c_char,
    /// Mount points and folders of control groups to freeze.
    pub freeze: *const *const c_char,
    /// How many they are.
    pub freeze_count: usize,
    /// How long writers may be held back, such as "30s" (as NULL).
    pub freeze_timeout: *const c_char,
    /// A libpq connection string; "" is the local server, NULL none.
    pub postgresql: *const c_char,
    /// File of options for the client of MySQL or MariaDB; "" is the usual, NULL none.
    pub mysql: *const c_char,
    /// Zero.
    pub reserved: [u8; 64],
}

extensible!(ConsistencyOptions, "blkdelta_consistency_options");

/// Backs volumes up: full the first time, then what changed. With several volumes the snapshots of all are taken at one
/// moment, before the first is read.
///
/// `volumes`: an array of `count` pointers, one for each volume. `consistency`: NULL when nothing is to be done around the
/// snapshots. `run`: NULL for the defaults. `summary`: the numbers of the last volume; NULL: not wanted. `json`: receives
/// the report of one volume as `blkdelta backup --json`, or an array of reports (`--group`) when `count` is larger than 1;
/// freed with blkdelta_string_free(); NULL: not wanted. With several volumes each is committed by itself: when the
/// call fails after some were, `json` tells those, and is NULL otherwise. BLKDELTA_STATUS_DOUBTFUL: a hint was proven
/// wrong, and the volume was read in full. Any thread; returns when all is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn blkdelta_backup(
    repository: *const RepositoryHandle,
    volumes: *const *const BackupOptions,
    count: usize,
    consistency: *const ConsistencyOptions,
    run: *const RunOptions,
    summary: *mut Summary,
    json: *mut *mut c_char,
) -> Status {
    let work = |caller: &Caller| {
        caller.give(json, std::ptr::null_mut());
        let place = caller.summary(summary)?;
        let repository = handle::object(repository)?;
        let mut run = Run::new(caller, run)?;
        let running = run.begin(Gentleness::default())?;
        let (group, max_chains) = group(caller, (volumes, count), consistency, &run, &running.gentleness)?;
        let mut all = Vec::with_capacity(count);
        let done = perform(&mut run, &repository, &group, &max_chains, &mut all);
        tell(caller, &all, count, &place, json)?;
        done?;
        let alarm = all.iter().any(|told| told.report.alarm.is_some());
        Ok(if alarm { Status::Doubtful } else { Status::Ok })
    };
    // SAFETY: the caller keeps what the header demands of these arguments.
    unsafe { enter(work) }
}

/// A backup, and the merge that bounded its chain.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    report: BackupReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    merged: Option<MergeReport>,
}

fn perform(
    run: &mut Run,
    repository: &Repository,
    group: &Group,
    max_chains: &[Option<usize>],
    all: &mut Vec<Told>,
) -> Result<()> {
    let work = |work: &Work<()>| {
        let done = backup_group(repository, group, &work.progress, &work.cancel, &mut |report| {
            all.push(Told { report, merged: None });
            Ok(())
        });
        // What was committed before a later volume failed is bounded too.
        done.and(bound(work, repository, &group.volumes, max_chains, all))
    };
    run.perform(work, |()| true)
}

fn bound(
    work: &Work<()>,
    repository: &Repository,
    volumes: &[CoreOptions],
    max_chains: &[Option<usize>],
    all: &mut [Told],
) -> Result<()> {
    let committed = all.iter().zip(volumes).zip(max_chains).enumerate();
    let chains = committed.filter_map(|(place, ((told, backup), longest))| {
        let options = MergeOptions {
            last: told.report.record.clone(),
            first: None,
            compression: backup.compression,
            gentleness: backup.gentleness.clone(),
            state: backup.state.clone(),
        };
        longest.map(|longest| (place, Shortening::new(options, longest)))
    });
    let (places, mut chains): (Vec<_>, Vec<_>) = chains.unzip();
    let done = shorten(repository, &mut chains, &work.progress, &work.cancel);
    for (place, chain) in places.into_iter().zip(chains) {
        all[place].merged = chain.merged;
    }
    done
}

fn tell(caller: &Caller, all: &[Told], count: usize, place: &Place, json: *mut *mut c_char) -> Result<()> {
    match all {
        [] => return Ok(()),
        [only] if count == 1 => caller.give_json(json, only)?,
        several => caller.give_json(json, several)?,
    }
    if let Some(Told { report, .. }) = all.last() {
        let alarm = u32::from(report.alarm.is_some());
        caller.give_summary(place, Summary { alarm, ..Summary::of_record(&report.record) });
    }
    Ok(())
}

fn group(
    caller: &Caller,
    (volumes, count): (*const *const BackupOptions, usize),
    consistency: *const ConsistencyOptions,
    run: &Run,
    gentleness: &Gentleness,
) -> Result<(Group, Vec<Option<usize>>)> {
    let volumes = caller.array("volumes", volumes, count)?;
    if volumes.is_empty() {
        return Err(wrong_use("no volume is named"));
    }
    let volumes = volumes.iter().map(|options| volume(caller, *options, run, gentleness));
    let (volumes, max_chains): (Vec<_>, _) = volumes.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let sources: Vec<PathBuf> = volumes.iter().map(|volume| volume.source.clone()).collect();
    Ok((Group { volumes, consistency: around(caller, consistency, &sources)? }, max_chains))
}

fn volume(
    caller: &Caller,
    options: *const BackupOptions,
    run: &Run,
    gentleness: &Gentleness,
) -> Result<(CoreOptions, Option<usize>)> {
    let options = caller.options(options)?;
    let max_chain = usize::try_from(options.max_chain).ok().filter(|longest| *longest > 0);
    let read = ReadOptions::checked(caller, options.read)?;
    let usual = CoreOptions::new(caller.path("source", options.source)?, run.state());
    let volume = CoreOptions {
        volume: caller.optional_name("volume", options.volume)?.map(str::to_owned),
        kind: kind(caller, &options)?,
        allow_live: read.allow_live,
        new_identity: read.new_identity,
        snapshot: snapshot(caller, options.snapshot)?,
        snapshot_size: caller.parsed("snapshot_size", options.snapshot_size)?.unwrap_or(usual.snapshot_size),
        keep_snapshot: keep_snapshot(caller, options.keep_snapshot)?,
        hints: read.hints,
        proof: read.proof,
        queue_depth: read.queue_depth,
        gentleness: gentleness.clone(),
        compression: caller.parsed("compression", options.compression)?,
        tags: caller.names("tags", options.tags, options.tag_count)?,
        ..usual
    };
    Ok((volume, max_chain))
}

fn kind(caller: &Caller, options: &BackupOptions) -> Result<WantedKind> {
    let kind = caller.optional_name("kind", options.kind)?;
    if let Some(parent) = caller.optional_name("parent", options.parent)? {
        return match kind {
            None => Ok(WantedKind::Since(parent.to_owned())),
            Some(_) => Err(wrong_use("both kind and parent are set")),
        };
    }
    match kind {
        None | Some("auto") => Ok(WantedKind::Auto),
        Some("full") => Ok(WantedKind::Full),
        Some("incremental") => Ok(WantedKind::Incremental),
        Some("differential") => Ok(WantedKind::Differential),
        Some(other) => Err(wrong_use(format!("'{other}' is no kind of backup"))),
    }
}

fn snapshot(caller: &Caller, layer: *const c_char) -> Result<Wanted> {
    match caller.optional_name("snapshot", layer)? {
        None | Some("auto") => Ok(Wanted::Auto),
        Some("lvm") => Ok(Wanted::Lvm),
        Some("zfs") => Ok(Wanted::Zfs),
        Some("none") => Ok(Wanted::None),
        Some(other) => Err(wrong_use(format!("'{other}' takes no snapshots"))),
    }
}

fn keep_snapshot(caller: &Caller, keep: *const c_char) -> Result<KeepSnapshot> {
    match caller.optional_name("keep_snapshot", keep)? {
        None | Some("auto") => Ok(KeepSnapshot::Auto),
        Some("always") => Ok(KeepSnapshot::Always),
        Some("never") => Ok(KeepSnapshot::Never),
        Some(other) => Err(wrong_use(format!("keep_snapshot cannot be '{other}'"))),
    }
}

fn around(caller: &Caller, options: *const ConsistencyOptions, sources: &[PathBuf]) -> Result<Consistency> {
    let options = caller.options(options)?;
    let command = |what: &str, text| Ok(caller.optional_name(what, text)?.map(str::to_owned));
    let sources: Vec<_> = sources.iter().map(|source| source.display().to_string()).collect();
    let hooks = Hooks {
        before: command("before_snapshot", options.before_snapshot)?,
        after: command("after_snapshot", options.after_snapshot)?,
        environment: vec![("BLKDELTA_SOURCES".into(), sources.join("\n"))],
    };
    let freeze = caller.array("freeze", options.freeze, options.freeze_count)?;
    let mysql = caller
        .optional_path(options.mysql)
        .map(|file| MysqlOptions { defaults_file: Some(file).filter(|file| !file.as_os_str().is_empty()) });
    let timeout = caller.optional_name("freeze_timeout", options.freeze_timeout)?.map(parse_duration);
    Ok(Consistency {
        hooks,
        freeze: freeze.iter().map(|point| caller.path("freeze", *point)).collect::<Result<_>>()?,
        postgres: caller
            .optional_name("postgresql", options.postgresql)?
            .map(PostgresOptions::new)
            .transpose()?,
        mysql,
        timeout: timeout.transpose()?.unwrap_or(Consistency::default().timeout),
    })
}
