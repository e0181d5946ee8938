//! Being gentle to whoever else uses the device: limits, a schedule, and a loop that listens to others' latency.
//!
//! [`Limits`] is what the user wants; a [`governor::Governor`] keeps it while a run goes on, and the stages ask its
//! [`governor::Throttle`] before each request. The pure parts ([`token_bucket`], [`schedule`], [`latency`]) have the
//! clock and the readings passed in.

mod account;
pub mod governor;
pub mod latency;
pub mod listener;
mod observer;
pub mod schedule;
mod shared;
pub mod state;
pub mod token_bucket;

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::units::parse_duration;
use schedule::Window;

/// A rate that a run reaches whatever others do, unless chosen otherwise.
pub const DEFAULT_MIN_RATE: NonZeroU64 = NonZeroU64::new(1 << 20).unwrap();

/// What may be changed while a run goes on. Rates in bytes or requests a second; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes a second read from the volume.
    pub bwlimit: Option<NonZeroU64>,
    /// Requests a second on the volume.
    pub iops_limit: Option<NonZeroU64>,
    /// Bytes a second stored, or written to a restore's target.
    pub write_limit: Option<NonZeroU64>,
    /// Takes the place of `bwlimit` at these times.
    pub limit_at: Vec<Window>,
    /// How much slower others may become.
    pub latency_target: LatencyTarget,
    /// Bytes a second that the latency target leaves in any case.
    pub min_rate: NonZeroU64,
}

impl Default for Limits {
    /// Gentle: no fixed limit, the latency target `auto`.
    fn default() -> Self {
        Self { latency_target: LatencyTarget::Auto, ..Self::none() }
    }
}

impl Limits {
    /// Full speed.
    #[must_use]
    pub fn none() -> Self {
        Self {
            bwlimit: None,
            iops_limit: None,
            write_limit: None,
            limit_at: Vec::new(),
            latency_target: LatencyTarget::Off,
            min_rate: DEFAULT_MIN_RATE,
        }
    }
}

/// The value of `--latency-target`: `auto`, `off` or a time such as `5ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LatencyTarget {
    /// Nearly what others have without us.
    #[default]
    Auto,
    /// At most this mean latency of others' requests.
    Time(Duration),
    /// Do not listen.
    Off,
}

impl LatencyTarget {
    /// For the loop; `None` when it is off.
    #[must_use]
    pub fn wanted(self) -> Option<latency::Target> {
        match self {
            Self::Auto => Some(latency::Target::Auto),
            Self::Time(time) => Some(latency::Target::Time(time)),
            Self::Off => None,
        }
    }
}

impl FromStr for LatencyTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            time => parse_duration(time).map(Self::Time).map_err(|error| {
                Error::new(ErrorKind::WrongUse, format!("'{text}' is no latency target"))
                    .because(error)
                    .hint("write auto, off or a time such as 5ms")
            }),
        }
    }
}

impl TryFrom<String> for LatencyTarget {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LatencyTarget> for String {
    fn from(target: LatencyTarget) -> Self {
        match target {
            LatencyTarget::Auto => "auto".into(),
            LatencyTarget::Off => "off".into(),
            LatencyTarget::Time(time) => format!("{}us", time.as_micros()),
        }
    }
}

#[allow(clippy::cast_precision_loss)] // counts and rates, far below 2^52
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}
