//! `verify --sample`: a share of what is stored is proven on each run, what was proven longest ago first, so that so many
//! runs as shares make a whole prove everything.
//!
//! The unit is an index segment of a delta with the frames it points to (some 30 blocks of a full backup, a thousand of a
//! sparse one). Each is read once, whatever number of backups needs it: the cost goes with what is stored, not with the
//! number of backups. What it proves: the segment by its checksum, each frame by its checksum, each grain in it by its
//! digest. What only `--data` proves: that all grains of a backup together give its root.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use super::coverage::{Coverage, Record};
use super::{Place, Spot, Verifying};
use crate::backup_id::BackupRecord;
use crate::cancel::CancelToken;
use crate::delta::reader::DeltaReader;
use crate::digest::BlockHasher;
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::HEADER_LEN;
use crate::format::index::{GrainsEntry, IndexEntry, SegmentLine};
use crate::geometry::to_usize;
use crate::operations::failure::Failure;
use crate::operations::healing;
use crate::progress::Progress;
use crate::sys::host;
use crate::units::parse_size;

/// Frames that a thread holds: an entry begins in the last frame of the one before it.
const FRAMES_HELD: usize = 4;

/// How much a run proves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// This part of all, from 0 to 1.
    Share(f64),
    /// So many stored bytes.
    Bytes(u64),
}

impl Sample {
    fn of(self, total: u64) -> u64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
        match self {
            Self::Share(share) => (total as f64 * share).ceil() as u64, // a share between 0 and 1
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl FromStr for Sample {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::WrongUse, format!("'{text}' is not a size of a sample"))
                .hint("write a share such as 5%, or stored bytes such as 20GiB")
        };
        match text.strip_suffix('%') {
            Some(number) => match number.parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self::Share(percent / 100.0)),
                _ => Err(wrong()),
            },
            None => parse_size(text).ok().filter(|bytes| *bytes > 0).map(Self::Bytes).ok_or_else(wrong),
        }
    }
}

/// What this run's sample was.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sampled {
    /// Stored bytes that were read and looked at.
    pub bytes: u64,
    /// Frames among them.
    pub frames: u64,
    /// Segments of indexes, each with its frames.
    pub segments: u64,
}

/// A delta that samples are taken of.
struct Sampling<'a> {
    record: &'a BackupRecord,
    delta: Arc<DeltaReader>,
    lines: Vec<SegmentLine>,
    /// For each segment when it was proven.
    proven: Vec<Option<i64>>,
}

/// A segment with its frames.
#[derive(Debug, Clone, Copy)]
struct Unit {
    delta: usize,
    segment: usize,
    bytes: u64,
    proven: Option<i64>,
}

impl Verifying<'_> {
    /// Proves a sample of what these backups have stored.
    pub(super) fn sample(&mut self, sample: Sample, records: &[BackupRecord]) -> Result<(Sampled, Coverage)> {
        let mut volumes: BTreeMap<&str, Record> = BTreeMap::new();
        for record in records {
            if !volumes.contains_key(record.volume.as_str()) {
                let held = Record::load(self.options.state.as_deref(), self.repository, &record.volume)?;
                volumes.insert(&record.volume, held);
            }
        }
        let mut deltas = self.open_all(records, &volumes);
        let units = units_of(&deltas);
        let total = units.iter().map(|unit| unit.bytes).sum();
        let chosen = choose(units, sample.of(total));
        self.progress.begin(chosen.iter().map(|unit| unit.bytes).sum());
        let noted = self.noted(volumes.keys())?;
        let checked = check_all(&deltas, &chosen, &noted, self.progress, self.cancel);
        let now = Timestamp::now().as_second();
        for number in &checked.sound {
            let unit = chosen[*number];
            deltas[unit.delta].proven[unit.segment] = Some(now);
        }
        self.record_coverage(&deltas, &mut volumes)?;
        if let Some(error) = checked.ended {
            return Err(error);
        }
        self.sound_places.extend(checked.sound_places);
        let bytes = checked.sound.iter().chain(&checked.damaged).map(|number| chosen[*number].bytes).sum();
        self.places.extend(
            checked.places.into_iter().map(|(delta, place)| (deltas[delta].record.volume.clone(), place)),
        );
        let sampled = Sampled { bytes, frames: checked.frames, segments: chosen.len() as u64 };
        let since = volumes.values().map(Record::since).min().unwrap_or_else(Timestamp::now);
        Ok((sampled, coverage(&deltas, total, since)))
    }

    /// Places that earlier runs found damaged: they may be sound again, put back from a copy.
    fn noted<'v>(&self, volumes: impl Iterator<Item = &'v &'v str>) -> Result<BTreeSet<(String, Spot)>> {
        let mut noted = BTreeSet::new();
        let Some(state) = &self.options.state else { return Ok(noted) };
        for volume in volumes {
            let places = healing::noted_places(state, self.repository, volume)?;
            noted.extend(places.into_iter().map(|place| (place.delta, place.spot)));
        }
        Ok(noted)
    }

    /// What cannot be opened has been told by the check of its structure.
    fn open_all<'r>(
        &self,
        records: &'r [BackupRecord],
        volumes: &BTreeMap<&str, Record>,
    ) -> Vec<Sampling<'r>> {
        let open = |record: &'r BackupRecord| {
            let delta = self.repository.delta(record).ok()?;
            let lines = delta.segments().ok()?;
            let held = volumes.get(record.volume.as_str())?;
            let proven = (0..lines.len() as u64).map(|segment| held.proven(&record.delta.blake3, segment));
            Some(Sampling { record, delta, proven: proven.collect(), lines })
        };
        records.iter().filter_map(open).collect()
    }

    fn record_coverage(
        &mut self,
        deltas: &[Sampling<'_>],
        volumes: &mut BTreeMap<&str, Record>,
    ) -> Result<()> {
        let Some(state) = &self.options.state else { return Ok(()) };
        for (volume, record) in volumes {
            for delta in deltas.iter().filter(|delta| delta.record.volume == **volume) {
                record.set(&delta.record.delta.blake3, &delta.proven);
            }
            let catalog = self.repository.catalog(Some(volume))?;
            let there: BTreeSet<&str> =
                catalog.records.iter().map(|record| record.delta.blake3.as_str()).collect();
            if catalog.damaged.is_empty() {
                record.keep_only(|delta| there.contains(delta));
            }
            if let Err(error) = record.save(state, self.repository, volume) {
                self.warnings.push(format!(
                    "what was proven could not be recorded, so it will be proven again ({})",
                    error.full_text()
                ));
            }
        }
        Ok(())
    }
}

fn units_of(deltas: &[Sampling<'_>]) -> Vec<Unit> {
    let mut units = Vec::new();
    for (number, delta) in deltas.iter().enumerate() {
        let mut start = HEADER_LEN as u64;
        for (segment, line) in delta.lines.iter().enumerate() {
            let end = line.offset.saturating_add(u64::from(line.len));
            let bytes = end.saturating_sub(start);
            units.push(Unit { delta: number, segment, bytes, proven: delta.proven[segment] });
            start = end;
        }
    }
    units
}

/// Those whose last proof is oldest, until they hold as many bytes as are wanted, at least one; in the order of the files.
fn choose(mut units: Vec<Unit>, wanted: u64) -> Vec<Unit> {
    units.sort_by_key(|unit| unit.proven);
    let mut sum = 0_u64;
    let enough = units.iter().position(|unit| {
        sum = sum.saturating_add(unit.bytes);
        sum >= wanted
    });
    units.truncate(enough.map_or(units.len(), |last| last + 1));
    units.sort_by_key(|unit| (unit.delta, unit.segment));
    units
}

#[allow(clippy::cast_precision_loss)] // a share for people
fn coverage(deltas: &[Sampling<'_>], bytes_total: u64, since: Timestamp) -> Coverage {
    let units = units_of(deltas);
    let bytes_proven = units.iter().filter(|unit| unit.proven.is_some()).map(|unit| unit.bytes).sum();
    let all = units.iter().map(|unit| unit.proven).collect::<Option<Vec<_>>>();
    let oldest = all.and_then(|all| all.into_iter().min()).and_then(|at| Timestamp::from_second(at).ok());
    let share = if bytes_total == 0 { 1.0 } else { bytes_proven as f64 / bytes_total as f64 };
    Coverage { bytes_total, bytes_proven, share, since, oldest }
}

/// What the check of the chosen units gave; numbers are positions among them.
#[derive(Default)]
struct Checked {
    sound: Vec<usize>,
    damaged: Vec<usize>,
    /// Each with the position of its delta.
    places: BTreeSet<(usize, Place)>,
    sound_places: BTreeSet<(String, Spot)>,
    frames: u64,
    /// An error that is no damage, or that it was interrupted.
    ended: Option<Error>,
}

fn check_all(
    deltas: &[Sampling<'_>],
    chosen: &[Unit],
    noted: &BTreeSet<(String, Spot)>,
    progress: &Progress,
    cancel: &CancelToken,
) -> Checked {
    let (next, checked, failure) = (AtomicUsize::new(0), Mutex::new(Checked::default()), Failure::default());
    std::thread::scope(|scope| {
        for _ in 0..host::cores().min(chosen.len()) {
            let (next, checked, failure) = (&next, &checked, &failure);
            scope.spawn(move || {
                failure.guard(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(unit) = chosen.get(number) else { return Ok(()) };
                        failure.stop.check()?;
                        let mut check = Check::new(&deltas[unit.delta]);
                        check.segment(unit.segment, cancel)?;
                        progress.add_done(unit.bytes);
                        let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
                        checked.frames += check.seen.len() as u64 - 1;
                        if check.places.is_empty() {
                            checked.sound.push(number);
                            let name = &check.sampling.record.delta.name;
                            let of_note = noted
                                .iter()
                                .filter(|(delta, spot)| delta == name && check.seen.contains(spot));
                            checked.sound_places.extend(of_note.cloned());
                        } else {
                            checked.damaged.push(number);
                        }
                        checked.places.extend(check.places.into_iter().map(|place| (unit.delta, place)));
                    }
                });
            });
        }
    });
    let checked = checked.into_inner().unwrap_or_else(PoisonError::into_inner);
    Checked { ended: failure.into_result().err(), ..checked }
}

/// The check of one unit.
struct Check<'a> {
    sampling: &'a Sampling<'a>,
    hasher: BlockHasher,
    held: VecDeque<(u64, Vec<u8>)>,
    places: BTreeSet<Place>,
    /// The segment and its frames.
    seen: BTreeSet<Spot>,
}

impl<'a> Check<'a> {
    fn new(sampling: &'a Sampling<'a>) -> Self {
        let header = sampling.delta.header();
        let hasher = BlockHasher::new(header.digest, header.geometry);
        Self { sampling, hasher, held: VecDeque::new(), places: BTreeSet::new(), seen: BTreeSet::new() }
    }

    fn segment(&mut self, segment: usize, cancel: &CancelToken) -> Result<()> {
        let line = self.sampling.lines[segment];
        self.seen.insert(Spot::Index(line.first, line.last));
        let entries = match self.sampling.delta.entries(&line) {
            Err(error) if error.is_damage() => {
                self.damaged(Spot::Index(line.first, line.last), &error);
                return Ok(());
            }
            other => other?,
        };
        for entry in entries {
            cancel.check()?;
            if let IndexEntry::Grains(entry) = entry {
                self.grains(&entry)?;
            }
        }
        Ok(())
    }

    fn grains(&mut self, entry: &GrainsEntry) -> Result<()> {
        let geometry = self.sampling.delta.header().geometry;
        let mut stored = entry.stored.iter().zip(&entry.digests);
        let mut digests = Vec::new();
        for piece in &entry.pieces {
            let (mut len, mut expected) = (0, Vec::new());
            for (grain, digest) in stored.by_ref().take(to_usize(u64::from(piece.grains))) {
                len += geometry.grain_range(grain, entry.len).len();
                expected.push(*digest);
            }
            let Some(frame) = self.frame(piece.frame)? else { continue };
            let start = to_usize(u64::from(piece.raw_offset));
            let proven = match frame.get(start..start + len) {
                Some(bytes) => {
                    self.hasher.hash(bytes, &mut digests);
                    digests == expected
                }
                None => false,
            };
            if !proven {
                let error = Error::damaged("stored bytes do not match their digest");
                let path = self.sampling.delta.object().display();
                self.damaged(Spot::Frame(piece.frame), &error.path(path).at(piece.frame, 0));
            }
            self.hold(piece.frame, frame);
        }
        Ok(())
    }

    /// A frame's bytes, taken out of those that are held; `None` when it is damaged.
    fn frame(&mut self, offset: u64) -> Result<Option<Vec<u8>>> {
        if let Some(place) = self.held.iter().position(|(held, _)| *held == offset) {
            return Ok(self.held.remove(place).map(|(_, frame)| frame));
        }
        let known = |place: &Place| place.spot == Spot::Frame(offset);
        if self.places.iter().any(known) {
            return Ok(None);
        }
        self.seen.insert(Spot::Frame(offset));
        match self.sampling.delta.frame(offset) {
            Err(error) if error.is_damage() => {
                self.damaged(Spot::Frame(offset), &error);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    fn hold(&mut self, offset: u64, frame: Vec<u8>) {
        if self.held.len() >= FRAMES_HELD {
            self.held.pop_front();
        }
        self.held.push_back((offset, frame));
    }

    fn damaged(&mut self, spot: Spot, error: &Error) {
        let delta = self.sampling.record.delta.name.clone();
        if !self.places.iter().any(|place| place.spot == spot) {
            self.places.insert(Place { delta, spot, what: error.full_text() });
        }
    }
}
