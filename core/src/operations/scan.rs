//! `scan`: change tracking without a repository. Compares a source with a manifest file, lists what changed, and may
//! write the new manifest and a delta.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::ChangedRange;
use super::change::Tell;
use super::delta_pipe::DeltaOutput;
use super::gentleness::Gentleness;
use super::hinting::{BaselineState, HintChoice, Hinting, Situation};
use super::plan::Skipping;
use super::taking_over::Extras;
use super::tracking::{DEFAULT_QUEUE_DEPTH, Tracked, Tracking};
use crate::backup_id::{HintReport, Statistics, VolumeIdentity};
use crate::cancel::CancelToken;
use crate::digest::{DigestKind, RootDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::{DeltaHeader, DeltaParent};
use crate::format::manifest::{Form, ManifestHeader};
use crate::geometry::Geometry;
use crate::hint::proof::Proof;
use crate::manifest::working::{self, WorkingManifest};
use crate::progress::Progress;
use crate::reader::Method;
use crate::repository::InitOptions;
use crate::snapshot;
use crate::source::{self, Source};
use crate::storage::ObjectWriter;
use crate::throttle::governor::{Throttle, ThrottleReport};

/// Options of a scan.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Device or image file.
    pub source: PathBuf,
    /// What to compare with; without it everything that is not zero is listed.
    pub manifest: Option<PathBuf>,
    /// Where to write the manifest of what was read; may be the same file.
    pub write_manifest: Option<PathBuf>,
    /// Digest, sizes and compression when there is no manifest to take them from.
    pub format: InitOptions,
    /// Read a source that others may write to.
    pub allow_live: bool,
    /// Accept a manifest of another volume.
    pub new_identity: bool,
    /// Where hints come from.
    pub hints: HintChoice,
    /// How hints are proven.
    pub proof: Proof,
    /// Reads in flight at most.
    pub queue_depth: u32,
    /// How gently; the default listens to whoever else uses the device.
    pub gentleness: Gentleness,
}

impl ScanOptions {
    /// The usual options for this source.
    #[must_use]
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            manifest: None,
            write_manifest: None,
            format: InitOptions::default(),
            allow_live: false,
            new_identity: false,
            hints: HintChoice::Auto,
            proof: Proof::default(),
            queue_depth: DEFAULT_QUEUE_DEPTH,
            gentleness: Gentleness::default(),
        }
    }
}

/// What a scan found; the ranges were handed on one by one.
#[derive(Debug, Clone, Serialize)]
pub struct ScanReport {
    /// Path that was read.
    pub source: String,
    /// Which volume it is.
    pub identity: VolumeIdentity,
    /// Bytes of the volume.
    pub size_bytes: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a grain.
    pub grain_size: u32,
    /// Which digest.
    pub digest: DigestKind,
    /// Root of what was read.
    pub root: RootDigest,
    /// Root of the manifest that it was compared with.
    pub parent_root: Option<RootDigest>,
    /// Which hint was used.
    pub hint: HintReport,
    /// What was counted.
    #[serde(flatten)]
    pub statistics: Statistics,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// What the limits did.
    pub throttle: ThrottleReport,
    /// A hint was proven wrong; the volume was then read in full.
    pub alarm: Option<String>,
}

/// Makes the object that a delta is written to; asked again when the scan has to start again.
pub type DeltaTarget<'a> = &'a mut dyn FnMut() -> Result<Box<dyn ObjectWriter>>;

/// Who is told what a scan finds, in volume order.
pub(super) struct Findings<'a> {
    /// What changed.
    pub tell: Tell<'a>,
    /// A hint was proven wrong: all is told again.
    pub on_restart: &'a mut dyn FnMut() -> Result<()>,
    /// All was told; an error keeps the older manifest in its place.
    pub on_all_told: &'a mut dyn FnMut() -> Result<()>,
}

/// Scans. Ranges go to `on_range` in volume order; when a hint is proven wrong the scan starts again, after
/// `on_range` was told by `on_restart`.
pub fn scan(
    options: &ScanOptions,
    delta: Option<DeltaTarget<'_>>,
    on_range: &mut dyn FnMut(ChangedRange) -> Result<()>,
    on_restart: &mut dyn FnMut() -> Result<()>,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<ScanReport> {
    let mut findings = Findings { tell: Tell::Ranges(on_range), on_restart, on_all_told: &mut || Ok(()) };
    scan_telling(options, delta, &mut findings, progress, cancel)
}

/// The same for any receiver.
pub(super) fn scan_telling(
    options: &ScanOptions,
    mut delta: Option<DeltaTarget<'_>>,
    findings: &mut Findings<'_>,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<ScanReport> {
    let begun = Instant::now();
    let brought = snapshot::brought(&options.source)?;
    let device = brought.as_ref().map_or(&options.source, |brought| &brought.device);
    let identity = brought.as_ref().map(|brought| brought.identity.clone());
    let source = source::open(device, options.allow_live, identity)?;
    let parent = options.manifest.as_deref().map(WorkingManifest::open).transpose()?;
    check_parent(options, &*source, parent.as_ref())?;
    let (digest, geometry) = cut(options, &*source, parent.as_ref())?;
    let governor = options.gentleness.start(
        Some(&options.source),
        options.write_manifest.as_deref(),
        false,
        progress,
    )?;
    let pass = Pass {
        options,
        throttle: governor.throttle(),
        source: &*source,
        parent: parent.as_ref(),
        digest,
        geometry,
        progress,
        cancel,
    };
    let mut warnings = Vec::new();
    let mut hinting = Hinting::choose(&options.hints, options.proof, pass.situation())?;
    let _cleanup = options.write_manifest.as_deref().map(|path| Cleanup(unfinished(path)));
    let mut runs = 0;
    let (tracked, next, alarm) = hinting.track(|skipping, _| {
        runs += 1;
        if runs > 1 {
            (findings.on_restart)()?;
        }
        pass.run(skipping, &mut delta, &mut findings.tell)
    })?;
    (findings.on_all_told)()?;
    if let Some(next) = next {
        pass.keep(next, hinting.reads_all(), tracked.root)?;
    }
    if let Method::Pread(why) = &tracked.method {
        warnings.push(why.clone());
    }
    let hint = hinting.report(&tracked);
    let mut statistics = tracked.statistics;
    statistics.bytes_stored = tracked.delta.map_or(0, |delta| delta.size);
    let throttle = governor.report();
    statistics.throttled_s = throttle.throttled_s;
    warnings.extend(throttle.warnings.iter().cloned());
    statistics.duration_s = begun.elapsed().as_secs_f64();
    Ok(ScanReport {
        source: options.source.display().to_string(),
        identity: source.identity().clone(),
        size_bytes: geometry.volume_size(),
        block_size: geometry.block_size(),
        grain_size: geometry.grain_size(),
        digest,
        root: tracked.root,
        parent_root: parent.as_ref().map(|parent| parent.header().root),
        hint,
        statistics,
        warnings,
        throttle,
        alarm,
    })
}

fn check_parent(options: &ScanOptions, source: &dyn Source, parent: Option<&WorkingManifest>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    if parent.header().identity != *source.identity() && !options.new_identity {
        let text =
            format!("the manifest is of {}, the source is {}", parent.header().identity, source.identity());
        return Err(Error::new(ErrorKind::IdentityMismatch, text)
            .path(parent.path())
            .hint("check the path; --new-identity compares them all the same"));
    }
    Ok(())
}

fn cut(
    options: &ScanOptions,
    source: &dyn Source,
    parent: Option<&WorkingManifest>,
) -> Result<(DigestKind, Geometry)> {
    match parent.map(WorkingManifest::header) {
        Some(header) => Ok((header.digest, header.geometry.resized(source.size())?)),
        None => {
            let format = &options.format;
            Ok((format.digest, Geometry::new(source.size(), format.block_size, format.grain_size)?))
        }
    }
}

struct Pass<'a> {
    throttle: &'a Throttle,
    options: &'a ScanOptions,
    source: &'a dyn Source,
    parent: Option<&'a WorkingManifest>,
    digest: DigestKind,
    geometry: Geometry,
    progress: &'a Progress,
    cancel: &'a CancelToken,
}

impl Pass<'_> {
    fn sequence(&self) -> u32 {
        self.parent.map_or(1, |parent| parent.header().sequence.saturating_add(1))
    }

    fn situation(&self) -> Situation<'_> {
        let parent = self.parent.map(WorkingManifest::header);
        Situation {
            source: self.source,
            geometry: self.geometry,
            new_identity: self.options.new_identity,
            parent: self.parent,
            baseline: None,
            baseline_state: parent.map(|parent| BaselineState {
                root: parent.root,
                size: parent.geometry.volume_size(),
                backup_id: None,
            }),
            snapshot: None,
            sequence: self.sequence(),
            damaged: None,
        }
    }

    fn header(&self, reads_all: bool, root: RootDigest) -> ManifestHeader {
        let parent = self.parent.map(WorkingManifest::header);
        ManifestHeader {
            form: Form::Working { unsettled: true },
            geometry: self.geometry,
            digest: self.digest,
            identity: self.source.identity().clone(),
            sequence: self.sequence(),
            parent_sequence: parent.map_or(0, |parent| parent.sequence),
            parent_root: parent.map_or(RootDigest::NONE, |parent| parent.root),
            scanned_sequence: if reads_all {
                self.sequence()
            } else {
                parent.map_or(0, |parent| parent.scanned_sequence)
            },
            root,
        }
    }

    fn run(
        &self,
        skipping: Skipping<'_>,
        delta: &mut Option<DeltaTarget<'_>>,
        tell: &mut Tell<'_>,
    ) -> Result<(Tracked, Option<WorkingManifest>)> {
        let next = match &self.options.write_manifest {
            Some(path) => {
                Some(WorkingManifest::create(&unfinished(path), self.header(false, RootDigest::NONE))?)
            }
            None => None,
        };
        let tracked = self.track(skipping, delta, next.as_ref(), tell)?;
        Ok((tracked, next))
    }

    fn track(
        &self,
        skipping: Skipping<'_>,
        delta: &mut Option<DeltaTarget<'_>>,
        next: Option<&WorkingManifest>,
        tell: &mut Tell<'_>,
    ) -> Result<Tracked> {
        let delta = match delta {
            Some(make) => Some(DeltaOutput {
                out: make()?,
                header: self.delta_header(),
                compression: self.options.format.compression,
            }),
            None => None,
        };
        Tracking {
            source: self.source,
            geometry: self.geometry,
            digest: self.digest,
            parent: self.parent,
            next,
            spool: None,
            delta,
            sequence: self.sequence(),
            queue_depth: self.options.queue_depth,
            skipping,
            throttle: self.throttle,
            cancel: self.cancel,
            progress: self.progress,
            tell: tell.again(),
            on_digest: None,
            extras: Extras::default(),
        }
        .run()
    }

    fn delta_header(&self) -> DeltaHeader {
        let parent = self.parent.map(WorkingManifest::header).map(|parent| DeltaParent {
            sequence: parent.sequence,
            root: parent.root,
            size: parent.geometry.volume_size(),
        });
        let identity = self.source.identity().clone();
        DeltaHeader {
            geometry: self.geometry,
            digest: self.digest,
            identity,
            sequence: self.sequence(),
            parent,
        }
    }

    /// Gives the new manifest its name; only now does it replace an older one.
    fn keep(&self, mut next: WorkingManifest, reads_all: bool, root: RootDigest) -> Result<()> {
        next.settle(self.header(reads_all, root))?;
        match &self.options.write_manifest {
            Some(path) => next.rename(path).map(drop),
            None => Ok(()),
        }
    }
}

/// Removes the unfinished manifest in the end, however that comes; one that was finished has another name.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Err(error) = working::remove(&self.0) {
            tracing::warn!(%error, "an unfinished manifest stays; the next scan replaces it");
        }
    }
}

fn unfinished(path: &std::path::Path) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(crate::storage::UNFINISHED);
    name.into()
}
