//! Flags on how a source is read: liveness, hints, snapshots.

use std::path::PathBuf;
use std::time::Duration;

use blkdelta_core::hint::proof::{Proof, SampleSize};
use blkdelta_core::operations::DEFAULT_QUEUE_DEPTH;
use blkdelta_core::operations::backup::KeepSnapshot;
use blkdelta_core::operations::hinting::HintChoice;
use blkdelta_core::snapshot::{CowSize, Wanted};
use blkdelta_core::units;
use clap::{Args, ValueEnum};

/// How the source is read.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Reads in flight at most; fewer where more bring nothing.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_QUEUE_DEPTH, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub queue_depth: u32,
    /// Read a source that others may write to; the image may be smeared.
    #[arg(long)]
    pub allow_live: bool,
    /// Accept another volume under this name or manifest.
    #[arg(long)]
    pub new_identity: bool,
    /// Where to learn what may have changed. auto: from the storage layer (the snapshot that the newest backup left, holes
    /// of files); off: read every block; FILE: a map of changes since the newest backup.
    #[arg(long, value_name = "auto|off|FILE", default_value = "auto")]
    pub hints: HintChoice,
    /// How many of the blocks that a hint calls unchanged are read all the same: a number, a share such as 2%, or auto.
    #[arg(long, value_name = "N|P%|auto", default_value = "auto")]
    pub hint_sample: SampleSize,
    /// Read every block at least once in so many backups, whatever hints say; 0: never.
    #[arg(long, value_name = "N", default_value_t = Proof::default().rolling_runs)]
    pub rescan_every: u32,
}

impl ReadArgs {
    /// How hints are proven.
    pub fn proof(&self) -> Proof {
        Proof { sample: self.hint_sample, rolling_runs: self.rescan_every }
    }
}

/// Which layer takes a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SnapshotArg {
    /// Whichever the source stands on.
    Auto,
    /// LVM.
    Lvm,
    /// ZFS.
    Zfs,
    /// None: the source is read as it is.
    None,
}

impl From<SnapshotArg> for Wanted {
    fn from(arg: SnapshotArg) -> Self {
        match arg {
            SnapshotArg::Auto => Self::Auto,
            SnapshotArg::Lvm => Self::Lvm,
            SnapshotArg::Zfs => Self::Zfs,
            SnapshotArg::None => Self::None,
        }
    }
}

/// Whether a snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeepArg {
    /// Of thin volumes and zvols.
    Auto,
    /// Of thick volumes too, which slows their first writes down.
    Always,
    /// Never.
    Never,
}

impl From<KeepArg> for KeepSnapshot {
    fn from(arg: KeepArg) -> Self {
        match arg {
            KeepArg::Auto => Self::Auto,
            KeepArg::Always => Self::Always,
            KeepArg::Never => Self::Never,
        }
    }
}

/// The snapshot that is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Snapshot")]
pub struct SnapshotArgs {
    /// Take a snapshot and read that: auto where the source is a logical volume or a zvol.
    #[arg(long, value_enum, default_value_t = SnapshotArg::Auto)]
    pub snapshot: SnapshotArg,
    /// Room for changes of the origin while a thick snapshot exists: bytes, or a share of the volume.
    #[arg(long, value_name = "SIZE|P%", default_value = "10%")]
    pub snapshot_size: CowSize,
    /// Let the snapshot stay, so that the next backup can ask what changed since.
    #[arg(long, value_enum, default_value_t = KeepArg::Auto)]
    pub keep_snapshot: KeepArg,
}

/// What is done around the snapshots.
#[derive(Debug, Args)]
#[command(next_help_heading = "Consistency")]
pub struct ConsistencyArgs {
    /// Run this (with sh) before anything is frozen; if it fails, nothing is backed up.
    #[arg(long, value_name = "CMD")]
    pub before_snapshot: Option<String>,
    /// Run this after the snapshots were taken, also when that failed.
    #[arg(long, value_name = "CMD")]
    pub after_snapshot: Option<String>,
    /// Freeze the file system that is mounted here, or all processes of the control group with this folder, while the
    /// snapshots are taken; several times.
    #[arg(long, value_name = "MOUNTPOINT|CGROUP")]
    pub freeze: Vec<PathBuf>,
    /// How long writers may be held back.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub freeze_timeout: Duration,
    /// Ask this PostgreSQL (a libpq connection string; the local server unless given) for a checkpoint, or with several
    /// volumes for backup mode, and keep its position in the record.
    #[arg(long, value_name = "CONNINFO", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub postgresql: Option<String>,
    /// Lock this MySQL or MariaDB (a file of options for its client) while the snapshots are taken, and keep its position.
    #[arg(long, value_name = "DEFAULTS_FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub mysql: Option<PathBuf>,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|error| error.full_text())
}
