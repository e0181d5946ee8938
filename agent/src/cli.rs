//! The command line: structs only, no logic. Names and flags are a contract.

mod copies;
mod key;
mod limits;
mod reading;
mod retention;

use std::path::PathBuf;

use blkdelta_core::digest::DigestKind;
use blkdelta_core::format::repository_config::Compression;
use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::operations::verify::sample::Sample;
use blkdelta_core::units;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

pub use copies::{AuditArgs, CopyArgs};
pub use key::{KeyArgs, KeyVerb, NewKeyArgs};
pub use limits::{GentleArgs, LimitArgs, LimitsArgs, LimitsSetArgs, LimitsVerb};
pub use reading::{ConsistencyArgs, ReadArgs, SnapshotArgs};
pub use retention::{PruneArgs, TagArgs};

/// Changed-block tracking and incremental backup of raw volumes.
///
/// Exit codes: 0 done; 1 failed; 2 wrong use; 3 done, but something could not be read or proven; 10 no such repository;
/// 11 locked by another; 12 wrong key; 14 verify found damage; 130 and 143 interrupted.
#[derive(Debug, Parser)]
#[command(name = "blkdelta", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// Directory of the repository, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX.
    #[arg(short, long, global = true, env = "BLKDELTA_REPO", value_name = "DIR|URL")]
    pub repo: Option<PathBuf>,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long, global = true)]
    pub json: bool,
    /// More log lines on standard error (-v, -vv, -vvv); BLKDELTA_LOG sets filters such as `blkdelta_core=debug`.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// No progress and no warnings on standard error.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a repository.
    Init(InitArgs),
    /// Back a volume up: full the first time, then what changed.
    Backup(BackupArgs),
    /// Track changes without a repository: what changed since a manifest.
    Scan(ScanArgs),
    /// List backups.
    #[command(visible_alias = "snapshots")]
    List(ListArgs),
    /// Show one backup.
    #[command(visible_alias = "info")]
    Show(ShowArgs),
    /// List the changed ranges between two backups of a volume.
    Diff(DiffArgs),
    /// Restore a backup to a device, a file or standard output.
    Restore(RestoreArgs),
    /// Check what is stored.
    Verify(VerifyArgs),
    /// Merge backups of a chain into one, inside the repository, without the volume.
    Merge(MergeArgs),
    /// Copy backups into another repository, byte for byte, proven; what is there already stays as it is.
    Copy(CopyArgs),
    /// Put a delta from `scan` onto the image it was taken against.
    Apply(ApplyArgs),
    /// Remove backups that no rule keeps; chains stay whole.
    Prune(PruneArgs),
    /// Show who did what, and prove that nothing of it is gone.
    Audit(AuditArgs),
    /// Give a backup tags, or take some away; the tag 'pin' keeps it for ever.
    Tag(TagArgs),
    /// The keys of an encrypted repository.
    Key(KeyArgs),
    /// Show or change the limits of work that is running.
    Limits(LimitsArgs),
    /// Remove what interrupted backups left: unfinished files, snapshots.
    Cleanup(CleanupArgs),
    /// Remove locks whose holders are dead.
    Unlock(UnlockArgs),
}

fn size_u32(text: &str) -> Result<u32, String> {
    let bytes = units::parse_size(text).map_err(|error| error.full_text())?;
    u32::try_from(bytes).map_err(|_| format!("'{text}' is too large"))
}

/// How volumes are cut, digested and compressed.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// Digest: blake3, sha256 or xxh3 (least CPU, not safe against somebody who writes the volume on purpose).
    #[arg(long, value_name = "KIND", default_value = "blake3")]
    pub digest: DigestKind,
    /// Unit of reading, 64KiB to 64MiB.
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = size_u32)]
    pub block_size: u32,
    /// Unit of change, 4KiB to 64KiB.
    #[arg(long, value_name = "SIZE", default_value = "8KiB", value_parser = size_u32)]
    pub grain_size: u32,
    /// Compression: none, lz4, zstd or zstd:LEVEL.
    #[arg(long, value_name = "HOW", default_value = "zstd:1")]
    pub compression: Compression,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory or URL of the repository (instead of --repo).
    pub directory: Option<PathBuf>,
    #[command(flatten)]
    pub format: FormatArgs,
    /// Take digest, block size, grain size and compression from this repository, so that backups can be copied.
    #[arg(long, value_name = "REPO", conflicts_with_all = ["digest", "block_size", "grain_size", "compression"])]
    pub like: Option<PathBuf>,
    /// Encrypt all that is stored. The passphrase comes from BLKDELTA_PASSWORD_FILE or BLKDELTA_PASSWORD_COMMAND, or a key
    /// file from BLKDELTA_KEY_FILE; else it is asked for.
    #[arg(long)]
    pub encrypt: bool,
}

/// Kinds of backup that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Full the first time, else incremental.
    Auto,
    /// Everything.
    Full,
    /// What changed since the newest backup.
    Incremental,
    /// What changed since the last full.
    Differential,
}

impl KindArg {
    /// For the library; a parent that is named decides.
    pub fn wanted(self, parent: Option<&str>) -> WantedKind {
        match (parent, self) {
            (Some(parent), _) => WantedKind::Since(parent.to_owned()),
            (None, Self::Auto) => WantedKind::Auto,
            (None, Self::Full) => WantedKind::Full,
            (None, Self::Incremental) => WantedKind::Incremental,
            (None, Self::Differential) => WantedKind::Differential,
        }
    }
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Block device, image file, or zfs:POOL/VOL; several with --group.
    #[arg(required = true)]
    pub source: Vec<PathBuf>,
    /// Take the snapshots of all sources at one moment, before the first is read.
    #[arg(long)]
    pub group: bool,
    /// Name of the volume; HOST/NAME unless given. With several sources one for each.
    #[arg(long, value_name = "NAME")]
    pub volume: Vec<String>,
    /// Which kind of backup.
    #[arg(long, value_enum, default_value_t = KindArg::Auto)]
    pub kind: KindArg,
    /// Build on this backup instead of the newest.
    #[arg(long, value_name = "ID", conflicts_with = "kind")]
    pub parent: Option<String>,
    /// Compression of this run instead of the repository's.
    #[arg(long, value_name = "HOW")]
    pub compression: Option<Compression>,
    /// Afterwards merge the oldest backups of the chain into a new full, if the chain is longer than N backups.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub max_chain: Option<u16>,
    /// Go on where an interrupted backup of the same unchanged image file or read-only device was. (Of a read-only snapshot
    /// it goes on without being asked.)
    #[arg(long)]
    pub resume: bool,
    /// A label; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub tag: Vec<String>,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
    #[command(flatten)]
    pub consistency: ConsistencyArgs,
    #[command(flatten)]
    pub gentle: GentleArgs,
}

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Block device or image file.
    pub source: PathBuf,
    /// Compare with this manifest.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Write the manifest of what was read; may be the same file.
    #[arg(long, value_name = "FILE")]
    pub write_manifest: Option<PathBuf>,
    /// Write what changed as a delta; '-' is standard output.
    #[arg(long, value_name = "FILE")]
    pub delta: Option<PathBuf>,
    #[command(flatten)]
    pub format: FormatArgs,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub gentle: GentleArgs,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this volume.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Beginning of an id, latest or latest~N.
    pub id: String,
    /// Volume that latest is of.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The older side.
    pub from: String,
    /// The newer side.
    pub to: String,
    /// Volume that latest is of.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Beginning of an id, latest or latest~N.
    pub id: String,
    /// Block device, file, or '-' for standard output.
    pub target: PathBuf,
    /// Volume that latest is of.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Only these bytes, at their own offset; into standard output only the bytes themselves.
    #[arg(long, value_name = "OFF+LEN")]
    pub range: Option<String>,
    /// Read the target and write only what differs.
    #[arg(long)]
    pub in_place: bool,
    /// Overwrite a target that holds something.
    #[arg(long)]
    pub force: bool,
    /// Read the target again afterwards and prove the root on it.
    #[arg(long)]
    pub read_back: bool,
    /// Restore what can be proven and list what is damaged, instead of failing; exit code 3. What is missing becomes zero,
    /// with --in-place what is there stays.
    #[arg(long)]
    pub skip_damaged: bool,
    /// Go on where an interrupted restore of this backup onto this target was.
    #[arg(long)]
    pub resume: bool,
    /// Of what was taken at this time or before (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    #[command(flatten)]
    pub gentle: GentleArgs,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Backups; all unless given.
    pub ids: Vec<String>,
    /// Only this volume.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Read every byte and prove each volume's root.
    #[arg(long)]
    pub data: bool,
    /// Read this share, or so many bytes, of what is stored, what was proven longest ago first: 20 runs of 5% prove every
    /// frame once.
    #[arg(long, value_name = "P%|SIZE", conflicts_with = "data")]
    pub sample: Option<Sample>,
    #[command(flatten)]
    pub gentle: GentleArgs,
}

/// Arguments of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// ID: this backup and all that it builds on become a full. A..B: the backups from A to B become one. The state of the
    /// last one stays, under its id too; those before it go, unless they are pinned, others build on them, or another volume
    /// has one of their group.
    #[arg(value_name = "ID|A..B")]
    pub run: String,
    /// Volume that latest is of.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Compression of what is encoded anew: none, lz4, zstd or zstd:LEVEL; the repository's unless given.
    #[arg(long, value_name = "HOW")]
    pub compression: Option<Compression>,
    #[command(flatten)]
    pub gentle: GentleArgs,
}

/// Arguments of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Only this volume.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
}

/// Arguments of `unlock`.
#[derive(Debug, Args)]
pub struct UnlockArgs {
    /// Only this volume.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Remove locks that may be alive too. If their holder does live, its run ends without a backup; nothing that is stored
    /// is lost. Locks in a directory end with their process and are never removed.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Delta file.
    pub delta: PathBuf,
    /// Device or file that holds the state it was taken against.
    pub target: PathBuf,
    /// Overwrite a target that holds something, when the delta is a full one.
    #[arg(long)]
    pub force: bool,
}
