//! Flags on copies in other repositories, and on the audit log.

use std::path::PathBuf;

use clap::Args;

use super::GentleArgs;

/// Arguments of `copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Backups, with what they build on; all unless given.
    pub ids: Vec<String>,
    /// The repository that gets them.
    #[arg(long, value_name = "DIR|URL")]
    pub to: PathBuf,
    /// Only this volume.
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Read each file again there and prove that it is what was written.
    #[arg(long)]
    pub read_back: bool,
    /// Only say what would be copied.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub gentle: GentleArgs,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Prove that no entry is gone or was changed, and that the log, the backups and what this host has seen agree.
    #[arg(long)]
    pub check: bool,
    /// Show only the newest N entries.
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Take the repository as it is, although this host has seen a newer state of it, or another one.
    #[arg(long)]
    pub accept: bool,
}
