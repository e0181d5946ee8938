//! What samples have proven so far: for each delta, runs of index segments (with all that they point to) and when.
//!
//! Kept in the local state, one note a volume. Lost, it starts over, which is said by its beginning (`since`). A delta is
//! known by the digest of its bytes, so what a merge wrote anew counts as not proven yet.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::local_state::notes::{self, Note};
use crate::repository::Repository;

const KIND: &str = "coverage";
const VERSION: u32 = 1;

/// How much of what is stored has been proven by samples.
#[derive(Debug, Clone, Serialize)]
pub struct Coverage {
    /// Bytes of frames and indexes that are stored.
    pub bytes_total: u64,
    /// Bytes of these that samples have proven.
    pub bytes_proven: u64,
    /// Their share, from 0 to 1.
    pub share: f64,
    /// Since when samples are recorded here.
    pub since: Timestamp,
    /// When the proof that is oldest by now was made; absent while something was never proven.
    pub oldest: Option<Timestamp>,
}

/// Neighbouring segments that were proven at one time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Run {
    first: u64,
    last: u64,
    /// Seconds since 1970.
    at: i64,
}

/// One volume's record.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    since: Timestamp,
    /// By the digest of the delta.
    deltas: BTreeMap<String, Vec<Run>>,
}

impl Record {
    /// What is recorded below `state`; a new one when there is nothing, or no state.
    pub fn load(state: Option<&Path>, repository: &Repository, volume: &str) -> Result<Self> {
        let note = state.map(|state| Note::new(state, repository, volume, KIND)).transpose()?;
        let held: Option<Self> = note.filter(|note| note.path().exists()).and_then(|note| note.read());
        let new = || Self { version: VERSION, since: Timestamp::now(), deltas: BTreeMap::new() };
        Ok(held.filter(|held| held.version == VERSION).unwrap_or_else(new))
    }

    pub fn save(&self, state: &Path, repository: &Repository, volume: &str) -> Result<()> {
        notes::folder(state, repository)?;
        Note::new(state, repository, volume, KIND)?.write(self)
    }

    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// When a segment of this delta was proven last.
    pub fn proven(&self, delta: &str, segment: u64) -> Option<i64> {
        let runs = self.deltas.get(delta)?;
        runs.iter().find(|run| (run.first..=run.last).contains(&segment)).map(|run| run.at)
    }

    /// Replaces what is known of a delta: for each of its segments when it was proven.
    pub fn set(&mut self, delta: &str, segments: &[Option<i64>]) {
        let mut runs: Vec<Run> = Vec::new();
        for (segment, at) in (0..).zip(segments) {
            let Some(at) = *at else { continue };
            match runs.last_mut() {
                Some(run) if run.last + 1 == segment && run.at == at => run.last = segment,
                _ => runs.push(Run { first: segment, last: segment, at }),
            }
        }
        self.deltas.insert(delta.to_owned(), runs);
    }

    /// Forgets deltas that are gone.
    pub fn keep_only(&mut self, is_there: impl Fn(&str) -> bool) {
        self.deltas.retain(|delta, _| is_there(delta));
    }
}
