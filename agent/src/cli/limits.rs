//! Flags on how gently others are treated, and the `limits` verb.

use std::num::NonZeroU64;

use blkdelta_core::sys::io_priority::IoPriority;
use blkdelta_core::throttle::LatencyTarget;
use blkdelta_core::throttle::schedule::Window;
use blkdelta_core::units;
use clap::{Args, Subcommand};

fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    units::parse_rate(text).map_err(|error| error.full_text())
}

/// How gently others on the same device are treated.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// auto: hardly slow others on the device down (full speed when there is nobody); a time such as 5ms: keep their
    /// mean latency below it; off: do not listen.
    #[arg(long, value_name = "auto|TIME|off")]
    pub latency_target: Option<LatencyTarget>,
    /// Read at most so much a second, such as 50MiB/s.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub bwlimit: Option<NonZeroU64>,
    /// At most so many read requests a second.
    #[arg(long, value_name = "N")]
    pub iops_limit: Option<NonZeroU64>,
    /// Store or write at most so much a second.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub write_limit: Option<NonZeroU64>,
    /// Another --bwlimit at some hours, such as 'mon-fri 09:00-18:00=50MiB/s' or '22:00-06:00=off'; several times.
    #[arg(long, value_name = "WHEN=RATE")]
    pub limit_at: Vec<Window>,
    /// What --latency-target leaves in any case, so that a run ends.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub min_rate: Option<NonZeroU64>,
}

/// Limits and priorities of a run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct GentleArgs {
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Take no care of others: no latency target, the usual priority. Limits that are given still hold.
    #[arg(long, conflicts_with = "latency_target")]
    pub full_speed: bool,
    /// I/O priority: idle, best-effort:0 to 7, realtime:0 to 7; idle unless --full-speed.
    #[arg(long, value_name = "CLASS")]
    pub ionice: Option<IoPriority>,
    /// Niceness of the working threads, -20 to 19; 10 unless --full-speed.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    pub nice: Option<i32>,
    /// Let the kernel keep the fixed limits too: join a control group of our own for this run, if we may.
    #[arg(long)]
    pub cgroup: bool,
}

/// Arguments of `limits`.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    #[command(subcommand)]
    pub what: LimitsVerb,
}

/// What to do with the limits of running work.
#[derive(Debug, Subcommand)]
pub enum LimitsVerb {
    /// Show what runs and under which limits.
    Show,
    /// Change the limits that are named; the others stay.
    Set(LimitsSetArgs),
}

/// Arguments of `limits set`.
#[derive(Debug, Args)]
pub struct LimitsSetArgs {
    /// Only the run with this process number; all running ones unless given.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Take all limits away.
    #[arg(long, conflicts_with_all = ["latency_target", "bwlimit", "iops_limit", "write_limit", "limit_at"])]
    pub full_speed: bool,
}
