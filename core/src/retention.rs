//! Retention: which backups stay. A pure function of records, rules and the time; `prune --dry-run` prints what it returns.
//!
//! ```text
//! rules (each volume by itself, newest first) -> safety (newest, last good, pins, young ones) -> chains and groups whole
//! ```
//! The order of backups is their sequence, never a clock. A clock that was set back can put a backup into a wrong hour or
//! day, and so make one too many stay; it never makes a newer backup look older than its parent.

mod period;

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Serialize;

use crate::backup_id::{BackupId, BackupKind, BackupRecord, Sequence};
use crate::error::{Error, ErrorKind, Result};
use period::Period;

/// What is kept. Rules add up; a number of 0 is no rule.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The newest so many.
    pub last: u32,
    /// The newest of each hour, for the newest so many hours that have a backup.
    pub hourly: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for weeks (ISO 8601: from Monday).
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// The same for years.
    pub yearly: u32,
    /// All that were taken within this time before now.
    pub within: Option<Span>,
    /// All that have one of these tags.
    pub tags: Vec<String>,
    /// No backup that was finished within this time before now is removed.
    pub min_age: Option<Span>,
    /// Where hours and days begin.
    pub time_zone: TimeZone,
}

impl Default for Policy {
    /// No rule, in the host's time zone.
    fn default() -> Self {
        Self {
            last: 0,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            within: None,
            tags: Vec::new(),
            min_age: None,
            time_zone: TimeZone::system(),
        }
    }
}

impl Policy {
    fn periods(&self) -> [(Period, u32); 5] {
        [
            (Period::Hour, self.hourly),
            (Period::Day, self.daily),
            (Period::Week, self.weekly),
            (Period::Month, self.monthly),
            (Period::Year, self.yearly),
        ]
    }

    fn has_a_rule(&self) -> bool {
        let counted = self.last > 0 || self.periods().iter().any(|(_, count)| *count > 0);
        counted || self.within.is_some() || !self.tags.is_empty()
    }

    /// The moment that lies `span` before `now`.
    fn cut(&self, now: Timestamp, span: Option<Span>) -> Result<Option<Timestamp>> {
        let Some(span) = span else { return Ok(None) };
        let cut = now.to_zoned(self.time_zone.clone()).checked_sub(span).map_err(|source| {
            Error::new(ErrorKind::WrongUse, format!("{span:#} before now is before all times"))
                .because(source)
        })?;
        Ok(Some(cut.timestamp()))
    }
}

/// The zone of a name such as `Europe/Berlin`, or of a POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
pub fn parse_time_zone(text: &str) -> Result<TimeZone> {
    TimeZone::get(text).or_else(|_| TimeZone::posix(text)).map_err(|source| {
        Error::new(ErrorKind::WrongUse, format!("'{text}' is not a time zone of this host"))
            .because(source)
            .hint("write a name such as Europe/Berlin (package tzdata), UTC, or a POSIX rule")
    })
}

/// A backup to decide on.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its record with its present tags.
    pub record: BackupRecord,
    /// Why it cannot be restored, if so.
    pub damage: Option<String>,
    /// Why it must stay whatever the rules say.
    pub untouchable: Option<String>,
}

/// What happens to a backup, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Which.
    pub backup_id: BackupId,
    /// Its volume.
    pub volume: String,
    /// Its number inside the volume.
    pub sequence: Sequence,
    /// Full, incremental or differential.
    pub kind: BackupKind,
    /// The moment whose state it holds.
    pub taken_at: Timestamp,
    /// Bytes that it takes in the repository.
    pub bytes_stored: u64,
    /// Whether it stays.
    pub keep: bool,
    /// Why.
    pub reasons: Vec<String>,
}

/// One decision for each backup, by volume and sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// All of them.
    pub decisions: Vec<Decision>,
}

impl PrunePlan {
    /// Those that go, every child before its parent.
    pub fn removed(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().rev().filter(|decision| !decision.keep)
    }
}

/// Decides. Refused is a policy without a rule, and one whose rules keep no backup of a volume that would lose some.
pub fn plan(candidates: &[Candidate], policy: &Policy, now: Timestamp) -> Result<PrunePlan> {
    if !policy.has_a_rule() {
        return Err(Error::new(ErrorKind::WrongUse, "no rule says what to keep")
            .hint("give at least one of --keep-last, --keep-daily, --keep-within, --keep-tag, ..."));
    }
    let mut planning = Planning::new(candidates);
    planning.apply_rules(policy, now)?;
    let by_rule = planning.volumes_with_kept();
    planning.keep_what_must_stay(policy, now)?;
    planning.keep_chains_and_groups_whole();
    planning.refuse_rules_that_match_nothing(&by_rule)?;
    Ok(planning.finish())
}

/// Candidates in order of volume and sequence, each with the reasons that were found to keep it.
struct Planning<'a> {
    candidates: Vec<&'a Candidate>,
    places: BTreeMap<(&'a str, Sequence), usize>,
    groups: BTreeMap<BackupId, Vec<usize>>,
    good: Vec<bool>,
    reasons: Vec<Vec<String>>,
}

impl<'a> Planning<'a> {
    fn new(candidates: &'a [Candidate]) -> Self {
        let mut candidates: Vec<&Candidate> = candidates.iter().collect();
        candidates.sort_by_key(|candidate| (&candidate.record.volume, candidate.record.sequence));
        let (mut places, mut groups) = (BTreeMap::new(), BTreeMap::<_, Vec<usize>>::new());
        for (at, candidate) in candidates.iter().enumerate() {
            places.insert((candidate.record.volume.as_str(), candidate.record.sequence), at);
            if let Some(group) = candidate.record.group {
                groups.entry(group).or_default().push(at);
            }
        }
        let reasons = vec![Vec::new(); candidates.len()];
        let mut planning = Self { candidates, places, groups, good: Vec::new(), reasons };
        planning.good = planning.find_good();
        planning
    }

    /// A backup is good when it is complete and nothing of its chain is damaged.
    fn find_good(&self) -> Vec<bool> {
        let mut sound: Vec<bool> = Vec::with_capacity(self.candidates.len());
        for (at, candidate) in self.candidates.iter().enumerate() {
            // Parents come first.
            let parent = self.parent(at).is_some_and(|parent| sound.get(parent) == Some(&true));
            sound.push(candidate.damage.is_none() && (candidate.record.parent.is_none() || parent));
        }
        sound.iter().zip(&self.candidates).map(|(sound, at)| *sound && at.record.complete).collect()
    }

    fn parent(&self, at: usize) -> Option<usize> {
        let record = &self.candidates[at].record;
        let link = record.parent?;
        let parent = *self.places.get(&(record.volume.as_str(), link.sequence))?;
        (self.candidates[parent].record.root == link.root && parent < at).then_some(parent)
    }

    fn keep(&mut self, at: usize, reason: impl Into<String>) {
        self.reasons[at].push(reason.into());
    }

    fn is_kept(&self, at: usize) -> bool {
        !self.reasons[at].is_empty()
    }

    /// Places of each volume, newest first.
    fn volumes(&self) -> Vec<Vec<usize>> {
        let mut volumes = BTreeMap::<&str, Vec<usize>>::new();
        for ((volume, _), at) in self.places.iter().rev() {
            volumes.entry(volume).or_default().push(*at);
        }
        volumes.into_values().collect()
    }

    fn apply_rules(&mut self, policy: &Policy, now: Timestamp) -> Result<()> {
        for volume in self.volumes() {
            let good: Vec<usize> = volume.into_iter().filter(|at| self.good[*at]).collect();
            for (number, at) in (1..=policy.last).zip(&good) {
                self.keep(*at, format!("last {number}"));
            }
            for (period, count) in policy.periods() {
                self.apply_period(&good, period, count, &policy.time_zone);
            }
        }
        let cut = policy.cut(now, policy.within)?;
        for at in 0..self.candidates.len() {
            let record = &self.candidates[at].record;
            if let (Some(cut), Some(span)) = (cut, policy.within)
                && record.taken_at > cut
            {
                self.keep(at, format!("within {span:#}"));
            }
            for tag in record.tags.iter().filter(|tag| policy.tags.contains(tag)) {
                self.keep(at, format!("tag {tag}"));
            }
        }
        Ok(())
    }

    /// The newest of each of the newest `count` periods. A period that comes up again (a clock was set back) has its one.
    fn apply_period(&mut self, newest_first: &[usize], period: Period, count: u32, time_zone: &TimeZone) {
        let mut seen = BTreeSet::new();
        for at in newest_first {
            if u32::try_from(seen.len()).is_ok_and(|seen| seen >= count) {
                return;
            }
            let taken_at = self.candidates[*at].record.taken_at.to_zoned(time_zone.clone());
            let name = period.of(&taken_at);
            if seen.insert(name.clone()) {
                self.keep(*at, format!("{} {name}", period.rule()));
            }
        }
    }

    fn volumes_with_kept(&self) -> BTreeSet<&'a str> {
        let kept = (0..self.candidates.len()).filter(|at| self.is_kept(*at));
        kept.map(|at| self.candidates[at].record.volume.as_str()).collect()
    }

    fn keep_what_must_stay(&mut self, policy: &Policy, now: Timestamp) -> Result<()> {
        for volume in self.volumes() {
            // The next backup builds on the newest, and no number may be given twice.
            let newest = volume.first().map(|at| (*at, "newest"));
            let good = volume.iter().find(|at| self.good[**at]).map(|at| (*at, "last good one"));
            for (at, reason) in newest.into_iter().chain(good) {
                self.keep(at, reason);
            }
        }
        let young = policy.cut(now, policy.min_age)?;
        for at in 0..self.candidates.len() {
            let candidate = self.candidates[at];
            if candidate.record.is_pinned() {
                self.keep(at, "pinned");
            }
            if let (Some(young), Some(span)) = (young, policy.min_age)
                && candidate.record.finished_at > young
            {
                self.keep(at, format!("younger than {span:#}"));
            }
            if let Some(why) = &candidate.untouchable {
                self.keep(at, why);
            }
        }
        Ok(())
    }

    fn keep_chains_and_groups_whole(&mut self) {
        let mut grown = true;
        while std::mem::take(&mut grown) {
            for at in (0..self.candidates.len()).rev() {
                if !self.is_kept(at) {
                    continue;
                }
                let record = &self.candidates[at].record;
                let name = format!("{} ({} {})", short(record.backup_id), record.volume, record.sequence);
                let parent = self.parent(at).map(|parent| (parent, format!("needed by {name}")));
                let mates = record.group.and_then(|group| self.groups.get(&group)).cloned();
                let mates =
                    mates.into_iter().flatten().map(|mate| (mate, format!("of one group with {name}")));
                for (other, reason) in parent.into_iter().chain(mates) {
                    if !self.is_kept(other) {
                        self.keep(other, reason);
                        grown = true;
                    }
                }
            }
        }
    }

    /// A rule that matches nothing, such as a mistyped tag, must not look like the wish to remove everything.
    fn refuse_rules_that_match_nothing(&self, by_rule: &BTreeSet<&str>) -> Result<()> {
        let goes = |at: &usize| !self.is_kept(*at);
        let volumes = (0..self.candidates.len()).filter(goes).map(|at| &self.candidates[at].record.volume);
        match volumes.into_iter().find(|volume| !by_rule.contains(volume.as_str())) {
            Some(volume) => {
                let text = format!("the rules match no good backup of '{volume}': nothing was removed");
                Err(Error::new(ErrorKind::Refused, text)
                    .hint("add --keep-last 1, check the tag or the time, or name the volumes one by one"))
            }
            None => Ok(()),
        }
    }

    fn finish(mut self) -> PrunePlan {
        let all = 0..self.candidates.len();
        let decide = |at: usize| {
            let (keep, candidate) = (self.is_kept(at), self.candidates[at]);
            let record = &candidate.record;
            let mut reasons = std::mem::take(&mut self.reasons[at]);
            if !keep {
                reasons.push(match &candidate.damage {
                    Some(damage) => format!("damaged: {damage}"),
                    None if !record.complete => "incomplete".into(),
                    None if !self.good[at] => "something it needs is damaged".into(),
                    None => "no rule keeps it".into(),
                });
            }
            Decision {
                backup_id: record.backup_id,
                volume: record.volume.clone(),
                sequence: record.sequence,
                kind: record.kind,
                taken_at: record.taken_at,
                bytes_stored: record.statistics.bytes_stored,
                keep,
                reasons,
            }
        };
        PrunePlan { decisions: all.map(decide).collect() }
    }
}

/// As much of an id as people need.
fn short(id: BackupId) -> String {
    id.to_string().chars().take(12).collect()
}
