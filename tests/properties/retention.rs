//! Which backups stay, against a model that asks each question anew for each backup, with a calendar of its own.

use blkdelta_core::backup_id::{BackupId, BackupKind, BackupRecord, ParentLink};
use blkdelta_core::digest::RootDigest;
use blkdelta_core::error::ErrorKind;
use blkdelta_core::format::record;
use blkdelta_core::retention::{Candidate, Policy, plan};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};
use proptest::option::weighted;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use support::strategies::cases;

/// 2024-02-28T12:00:00Z: the stories go over a leap day and a turn of the year.
const START: i64 = 1_709_121_600;
const HOUR: i64 = 3600;
const VOLUMES: [&str; 2] = ["a", "b"];
const TAGS: [&str; 3] = ["x", "y", "pin"];

/// A backup as a story tells it.
#[derive(Debug, Clone)]
struct Told {
    volume: usize,
    /// Which earlier backup of the volume it builds on; none: a full.
    parent: Option<usize>,
    /// Its link does not fit any more.
    orphan: bool,
    /// Seconds since the backup before; a clock that is set back makes it negative.
    step: i64,
    duration: i64,
    complete: bool,
    damaged: bool,
    untouchable: bool,
    group: Option<u8>,
    tags: Vec<usize>,
}

fn told() -> impl Strategy<Value = Told> {
    let step = prop_oneof![
        4 => 0..3 * HOUR,
        4 => 0..3 * 24 * HOUR,
        2 => 0..70 * 24 * HOUR,
        1 => -200 * 24 * HOUR..0,
    ];
    let rare = || proptest::bool::weighted(0.1);
    let tags = proptest::collection::vec(0..TAGS.len(), 0..2).prop_map(|mut tags| {
        tags.dedup();
        tags
    });
    let tags = (rare(), tags).prop_map(|(tagged, tags)| if tagged { tags } else { Vec::new() });
    let whole = (proptest::bool::weighted(0.85), rare(), rare());
    ((0..2usize, weighted(0.7, 0..4usize), rare(), step, 0..HOUR), whole, weighted(0.2, 0..4u8), tags)
        .prop_map(
            |((volume, parent, orphan, step, duration), (complete, damaged, untouchable), group, tags)| {
                Told { volume, parent, orphan, step, duration, complete, damaged, untouchable, group, tags }
            },
        )
}

/// Rules in plain numbers.
#[derive(Debug, Clone)]
struct Rules {
    last: u32,
    /// Hours, days, weeks, months, years.
    periods: [u32; 5],
    within_hours: Option<i32>,
    tag: Option<usize>,
    min_age_hours: Option<i32>,
    offset_minutes: i32,
    /// After the newest backup.
    now: i64,
}

fn rules() -> impl Strategy<Value = Rules> {
    let count = || prop_oneof![2 => 0..1u32, 1 => 1..4u32];
    let periods = [count(), count(), count(), count(), count()];
    let hours = || weighted(0.2, 1..3000i32);
    (count(), periods, hours(), weighted(0.2, 0..2usize), hours(), -14 * 60..14 * 60i32, 0..400 * HOUR)
        .prop_map(|(last, periods, within_hours, tag, min_age_hours, offset_minutes, now)| Rules {
            last,
            periods,
            within_hours,
            tag,
            min_age_hours,
            offset_minutes,
            now,
        })
}

impl Rules {
    fn policy(&self) -> Policy {
        let [hourly, daily, weekly, monthly, yearly] = self.periods;
        let offset = Offset::from_seconds(self.offset_minutes * 60).expect("an offset");
        Policy {
            last: self.last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within: self.within_hours.map(|hours| Span::new().hours(hours)),
            tags: self.tag.map(|tag| TAGS[tag].to_owned()).into_iter().collect(),
            min_age: self.min_age_hours.map(|hours| Span::new().hours(hours)),
            time_zone: TimeZone::fixed(offset),
        }
    }

    fn has_one(&self) -> bool {
        self.last > 0 || self.periods != [0; 5] || self.within_hours.is_some() || self.tag.is_some()
    }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

/// Records of a story, and the time of the newest.
fn candidates(story: &[Told]) -> (Vec<Candidate>, i64) {
    let golden = include_bytes!("../golden/v2/whole-record.json");
    let whole: BackupRecord = record::decode(golden).expect("the golden record");
    let (mut made, mut clock, mut latest) = (Vec::<Candidate>::new(), START, START);
    for (number, told) in (1u8..).zip(story) {
        clock += told.step;
        latest = latest.max(clock + told.duration);
        let mut record = whole.clone();
        record.backup_id = BackupId::from_bytes([number; 16]);
        record.volume = VOLUMES[told.volume].to_owned();
        record.root = RootDigest([number; 32]);
        record.taken_at = time(clock);
        record.finished_at = time(clock + told.duration);
        record.complete = told.complete;
        record.group = told.group.map(|group| BackupId::from_bytes([group; 16]));
        record.tags = told.tags.iter().map(|tag| TAGS[*tag].to_owned()).collect();
        let before: Vec<&BackupRecord> =
            made.iter().map(|other| &other.record).filter(|other| other.volume == record.volume).collect();
        record.sequence = before.last().map_or(1, |newest| newest.sequence + 1);
        let parent = told.parent.and_then(|pick| before.iter().rev().nth(pick));
        record.parent = parent.map(|parent| ParentLink {
            root: if told.orphan { RootDigest([0; 32]) } else { parent.root },
            ..parent.link()
        });
        record.kind = if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full };
        made.push(Candidate {
            record,
            damage: told.damaged.then(|| "damaged".into()),
            untouchable: told.untouchable.then(|| "untouchable".into()),
        });
    }
    (made, latest)
}

/// The questions, each answered by looking at everything.
struct Model<'a> {
    all: &'a [Candidate],
    rules: &'a Rules,
    now: i64,
}

impl Model<'_> {
    fn parent<'b>(&'b self, of: &Candidate) -> Option<&'b Candidate> {
        let link = of.record.parent?;
        self.all.iter().find(|other| {
            other.record.volume == of.record.volume
                && (other.record.sequence, other.record.root) == (link.sequence, link.root)
        })
    }

    fn is_good(&self, of: &Candidate) -> bool {
        let mut at = of;
        loop {
            if at.damage.is_some() {
                return false;
            }
            match (at.record.parent, self.parent(at)) {
                (None, _) => return of.record.complete,
                (Some(_), None) => return false,
                (Some(_), Some(parent)) => at = parent,
            }
        }
    }

    /// Good backups of the same volume with greater numbers.
    fn newer<'b>(&'b self, than: &'b Candidate) -> impl Iterator<Item = &'b Candidate> {
        let is_newer = move |other: &&Candidate| {
            other.record.volume == than.record.volume && other.record.sequence > than.record.sequence
        };
        self.all.iter().filter(is_newer).filter(|other| self.is_good(other))
    }

    fn is_kept_by_rule(&self, of: &Candidate) -> bool {
        let taken_at = of.record.taken_at.as_second();
        let by_count = self.is_good(of)
            && (self.newer(of).count() < self.rules.last as usize || self.is_kept_by_a_period(of));
        let within =
            self.rules.within_hours.is_some_and(|hours| taken_at > self.now - i64::from(hours) * HOUR);
        let tagged = self.rules.tag.is_some_and(|tag| of.record.tags.iter().any(|own| own == TAGS[tag]));
        by_count || within || tagged
    }

    fn is_kept_by_a_period(&self, of: &Candidate) -> bool {
        (0..5).any(|kind| {
            let period = |of: &Candidate| {
                period(kind, of.record.taken_at.as_second() + i64::from(self.rules.offset_minutes) * 60)
            };
            let mut newer: Vec<i64> = self.newer(of).map(period).collect();
            newer.sort_unstable();
            newer.dedup();
            !newer.contains(&period(of)) && newer.len() < self.rules.periods[kind] as usize
        })
    }

    fn must_stay(&self, of: &Candidate) -> bool {
        let newest = !self.all.iter().any(|other| {
            other.record.volume == of.record.volume && other.record.sequence > of.record.sequence
        });
        let last_good = self.is_good(of) && self.newer(of).next().is_none();
        let pinned = of.record.tags.iter().any(|tag| tag == "pin");
        let finished_at = of.record.finished_at.as_second();
        let young =
            self.rules.min_age_hours.is_some_and(|hours| finished_at > self.now - i64::from(hours) * HOUR);
        newest || last_good || pinned || young || of.untouchable.is_some()
    }

    /// Which stay; none when the rules must be refused.
    fn kept(&self) -> Option<Vec<bool>> {
        let mut kept: Vec<bool> =
            self.all.iter().map(|one| self.is_kept_by_rule(one) || self.must_stay(one)).collect();
        for _ in 0..self.all.len() {
            for (at, one) in self.all.iter().enumerate() {
                let wants = |other: &Candidate| {
                    let parent = self
                        .parent(other)
                        .is_some_and(|parent| parent.record.backup_id == one.record.backup_id);
                    parent || (other.record.group.is_some() && other.record.group == one.record.group)
                };
                kept[at] =
                    kept[at] || (0..self.all.len()).any(|other| kept[other] && wants(&self.all[other]));
            }
        }
        let empty = |volume: &str| {
            !self.all.iter().any(|one| one.record.volume == volume && self.is_kept_by_rule(one))
        };
        let loses =
            |volume: &str| (0..self.all.len()).any(|at| !kept[at] && self.all[at].record.volume == volume);
        let refused = VOLUMES.iter().any(|volume| empty(volume) && loses(volume));
        (self.rules.has_one() && !refused).then_some(kept)
    }
}

/// A number that two moments share exactly when they lie in one hour, day, week, month or year. Days are counted, and the
/// calendar is walked year by year.
fn period(kind: usize, local_seconds: i64) -> i64 {
    let days = local_seconds.div_euclid(24 * HOUR);
    match kind {
        0 => local_seconds.div_euclid(HOUR),
        1 => days,
        // 1970-01-01 was a Thursday.
        2 => (days + 3).div_euclid(7),
        3 => month_and_year(days).0,
        _ => month_and_year(days).1,
    }
}

fn month_and_year(mut days: i64) -> (i64, i64) {
    let mut year = 1970;
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year * 12 + i64::try_from(month).expect("a month"), year)
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn the_plan_is_what_the_model_says(
        story in proptest::collection::vec(told(), 0..18),
        rules in rules(),
        turn in any::<usize>(),
    ) {
        let (mut all, latest) = candidates(&story);
        let now = latest + rules.now;
        let kept = Model { all: &all, rules: &rules, now }.kept();
        let expected = kept.map(|kept| {
            let mut ids: Vec<BackupId> =
                all.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(one, _)| one.record.backup_id).collect();
            ids.sort();
            ids
        });
        // The order in which they are given has no meaning.
        let turn = turn % all.len().max(1);
        all.rotate_left(turn);
        let planned = plan(&all, &rules.policy(), time(now));
        let found = match &planned {
            Ok(plan) => {
                let kept = plan.decisions.iter().filter(|decision| decision.keep);
                let mut ids: Vec<BackupId> = kept.map(|decision| decision.backup_id).collect();
                ids.sort();
                Some(ids)
            }
            Err(error) => {
                assert!([ErrorKind::WrongUse, ErrorKind::Refused].contains(&error.kind()), "{error:?}");
                None
            }
        };
        assert_eq!(found, expected);
        if let Ok(plan) = planned {
            assert_eq!(plan.decisions.len(), all.len());
            assert!(plan.decisions.iter().all(|decision| !decision.reasons.is_empty()));
            assert_children_go_first(&all, &plan);
        }
    }
}

/// Stopped after any removal, every backup that is left still has its parent, unless it had none before.
fn assert_children_go_first(all: &[Candidate], plan: &blkdelta_core::retention::PrunePlan) {
    let mut left: Vec<&BackupRecord> = all.iter().map(|one| &one.record).collect();
    let broken = |left: &[&BackupRecord]| {
        let has_parent = |of: &BackupRecord| {
            let fits =
                |link: ParentLink| left.iter().any(|other| other.volume == of.volume && other.link() == link);
            of.parent.is_none_or(fits)
        };
        left.iter().filter(|record| !has_parent(record)).map(|record| record.backup_id).collect::<Vec<_>>()
    };
    let before = broken(&left);
    for decision in plan.removed() {
        left.retain(|record| record.backup_id != decision.backup_id);
        assert!(broken(&left).iter().all(|id| before.contains(id)), "a chain was broken");
    }
}
