//! The digests of what stands somewhere: a pass that compares with nothing and stores nothing.

use super::change::Tell;
use super::collector::OnDigest;
use super::plan::Skipping;
use super::taking_over::Extras;
use super::tracking::{DEFAULT_QUEUE_DEPTH, Tracked, Tracking};
use crate::cancel::CancelToken;
use crate::digest::DigestKind;
use crate::error::Result;
use crate::geometry::Geometry;
use crate::progress::Progress;
use crate::source::Source;
use crate::throttle::governor::Throttle;

/// Reads a file or device as far as `geometry` reaches and tells every block's digest; for proving what stands there.
pub fn read_digests(
    source: &dyn Source,
    geometry: Geometry,
    digest: DigestKind,
    throttle: &Throttle,
    progress: &Progress,
    cancel: &CancelToken,
    on_digest: OnDigest<'_>,
) -> Result<Tracked> {
    Tracking {
        source,
        geometry,
        digest,
        parent: None,
        next: None,
        spool: None,
        delta: None,
        sequence: 1,
        queue_depth: DEFAULT_QUEUE_DEPTH,
        skipping: Skipping::Nothing,
        throttle,
        cancel,
        progress,
        tell: Tell::Ranges(&mut |_| Ok(())),
        on_digest: Some(on_digest),
        extras: Extras::default(),
    }
    .run()
}
