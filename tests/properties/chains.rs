//! Chains of backups.

use blkdelta_core::backup_id::{BackupKind, BackupRecord};
use blkdelta_core::error::ErrorKind;
use blkdelta_core::operations::backup::WantedKind;
use blkdelta_core::operations::gentleness::Gentleness;
use blkdelta_core::operations::reading::BackupReader;
use blkdelta_core::operations::restore::RestoreOptions;
use blkdelta_core::repository::InitOptions;
use proptest::option::weighted;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use support::content::{Random, random_bytes};
use support::engine::{Engine, cut_of, small};
use support::expect::{Cut, changes, contents};
use support::model::{Change, Volume};
use support::scratch::{assert_same_bytes, read, write};
use support::strategies::{cases, change, format, volume_size};

use super::{assert_counts, index};

/// What happens to the local state before a backup.
#[derive(Debug, Clone)]
enum StateEvent {
    Kept,
    Lost,
    CutShort(u64),
    Flipped(u64),
    /// An older one is put back, as from a backup of the host.
    Stale(u64),
}

/// Which backup is asked for; the number picks an older one.
#[derive(Debug, Clone)]
enum Wish {
    Auto,
    Full,
    Incremental,
    Differential,
    Since(u64),
}

/// One round of a story.
#[derive(Debug, Clone)]
struct Step {
    changes: Vec<Change>,
    state: StateEvent,
    wish: Wish,
    /// Afterwards all but the newest so many, and what those need, are removed.
    prune: Option<u32>,
    /// Picks what else is looked at.
    pick: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![
        5 => Just(StateEvent::Kept),
        1 => Just(StateEvent::Lost),
        1 => any::<u64>().prop_map(StateEvent::CutShort),
        1 => any::<u64>().prop_map(StateEvent::Flipped),
        1 => any::<u64>().prop_map(StateEvent::Stale),
    ];
    let wish = prop_oneof![
        4 => Just(Wish::Auto),
        1 => Just(Wish::Full),
        1 => Just(Wish::Incremental),
        2 => Just(Wish::Differential),
        2 => any::<u64>().prop_map(Wish::Since),
    ];
    (proptest::collection::vec(change(), 0..4), state, wish, weighted(0.3, 1..4u32), any::<u64>())
        .prop_map(|(changes, state, wish, prune, pick)| Step { changes, state, wish, prune, pick })
}

/// A backup, and all that was true when it was made.
struct Saved {
    record: BackupRecord,
    bytes: Vec<u8>,
}

/// The local state as it was after a backup, which may have been removed since.
struct State {
    bytes: Vec<u8>,
    is_sound: bool,
}

struct Story {
    engine: Engine,
    volume: Volume,
    cut: Cut,
    saved: Vec<Saved>,
    states: Vec<State>,
    /// False once a byte of the local state was flipped: blocks may then be stored whole, never too little.
    state_is_sound: bool,
}

impl Story {
    fn new(options: InitOptions, size: u64, seed: u64) -> Self {
        let engine = Engine::new(options);
        let volume = Volume::seeded(engine.scratch.path("image"), seed, size);
        Self {
            engine,
            volume,
            cut: cut_of(&options),
            saved: Vec::new(),
            states: Vec::new(),
            state_is_sound: true,
        }
    }

    fn run(&mut self, step: &Step) {
        step.changes.iter().for_each(|change| self.volume.apply(change));
        self.hurt_state(&step.state);
        self.back_up(&step.wish);
        if let Some(keep) = step.prune {
            self.prune(keep);
        }
        let report = self.engine.verify(false);
        assert!(report.ok, "{:?}", report.problems);
        for saved in &self.saved {
            let found = self.engine.stream(&saved.record, None).expect("a restore into a stream");
            assert_same_bytes(&found, &saved.bytes, &format!("backup {} as a stream", saved.record.sequence));
        }
        let mut random = Random::new(step.pick);
        self.restore_to_files(&mut random);
        self.restore_a_range(&mut random);
        self.read_here_and_there(&mut random);
        self.compare_two(&mut random);
        if random.below(3) == 0 {
            self.merge(&mut random);
        }
    }

    /// Some neighbours of a chain become one; what others build on stays, and all that is left is what it was.
    fn merge(&mut self, random: &mut Random) {
        let last = self.pick(random).record.clone();
        let mut run = vec![last.clone()];
        while let Some(parent) = run.last().and_then(|child| self.parent_of(child)) {
            run.push(parent.record.clone());
        }
        run.truncate(2 + index(random.number(), run.len()));
        let first = run.last().cloned().filter(|first| first.parent.is_some() || random.below(2) == 0);
        let merged = self.engine.merge(&last, first.as_ref());
        if run.len() == 1 {
            assert_eq!(merged.expect_err("one alone").kind(), ErrorKind::WrongUse);
            return;
        }
        let report = merged.expect("a merge");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        let gone = |saved: &Saved| report.removed.contains(&saved.record.backup_id);
        for record in &run[1..] {
            let needed = |saved: &Saved| {
                self.parent_of(&saved.record).is_some_and(|parent| parent.record == *record) && !gone(saved)
            };
            assert_eq!(
                self.saved.iter().any(needed),
                !report.removed.contains(&record.backup_id),
                "{report:?}"
            );
            let found = self.engine.repository.resolve(&record.backup_id.to_string(), None, None);
            assert_eq!(found.is_err(), report.removed.contains(&record.backup_id));
        }
        let below = self.parent_of(&report.record).map_or(&[][..], |below| &below.bytes);
        let bytes = &self.saved.iter().find(|saved| saved.record == last).expect("the last one").bytes;
        let counted = match report.record.parent {
            Some(_) => changes(below, bytes, self.cut),
            None => contents(bytes, self.cut),
        };
        assert_counts(&report.record.statistics, &counted, false);
        let found = self.engine.repository.resolve(&last.backup_id.to_string(), None, None);
        assert_eq!(found.expect("its old id"), report.record);
        self.saved.retain(|saved| saved.record == last || !gone(saved));
        self.saved.iter_mut().filter(|saved| saved.record == last).for_each(|saved| {
            saved.record = report.record.clone();
        });
        for saved in &self.saved {
            let found = self.engine.stream(&saved.record, None).expect("a restore after a merge");
            assert_same_bytes(
                &found,
                &saved.bytes,
                &format!("backup {} after a merge", saved.record.sequence),
            );
        }
        assert!(self.engine.verify(true).ok, "{:?}", self.engine.verify(true).problems);
        assert_eq!(self.engine.records().len(), self.saved.len());
    }

    /// What a backup builds on, by what binds: sequence and root. Its id may be older than a merge.
    fn parent_of(&self, child: &BackupRecord) -> Option<&Saved> {
        let link = child.parent?;
        let binds = |saved: &&Saved| (saved.record.sequence, saved.record.root) == (link.sequence, link.root);
        Some(self.saved.iter().find(binds).expect("a parent that is there"))
    }

    fn hurt_state(&mut self, event: &StateEvent) {
        let path = self.engine.state_file();
        let Some(newest) = self.states.last() else { return };
        let mut state = newest.bytes.clone();
        match event {
            StateEvent::Kept => return,
            StateEvent::Lost => return std::fs::remove_file(path).expect("removing the state"),
            StateEvent::CutShort(at) => state.truncate(index(*at, state.len())),
            StateEvent::Flipped(at) => {
                let at = index(*at, state.len());
                state[at] ^= 0x10;
                self.state_is_sound = false;
            }
            StateEvent::Stale(at) => {
                let old = &self.states[index(*at, self.states.len())];
                state.clone_from(&old.bytes);
                self.state_is_sound = old.is_sound;
            }
        }
        write(&path, &state);
    }

    fn back_up(&mut self, wish: &Wish) {
        let parent = self.expected_parent(wish);
        let kind = match (wish, self.saved.last()) {
            (Wish::Full, _) | (_, None) => WantedKind::Full,
            (Wish::Auto, _) => WantedKind::Auto,
            (Wish::Incremental, _) => WantedKind::Incremental,
            (Wish::Differential, _) => WantedKind::Differential,
            (Wish::Since(_), _) => WantedKind::Since(parent.expect("a parent").record.backup_id.to_string()),
        };
        let record = self.engine.backup(self.volume.path(), kind).expect("a backup").record;
        assert_eq!(record.parent, parent.map(|saved| saved.record.link()));
        assert_eq!(record.kind == BackupKind::Full, parent.is_none());
        let on_newest = parent.is_some_and(|parent| parent.record.sequence + 1 == record.sequence);
        let state_is_sound = self.state_is_sound || !on_newest;
        let counted = match parent {
            Some(parent) => changes(&parent.bytes, self.volume.bytes(), self.cut),
            None => contents(self.volume.bytes(), self.cut),
        };
        assert_counts(&record.statistics, &counted, state_is_sound);
        self.state_is_sound = state_is_sound;
        self.states.push(State { bytes: read(&self.engine.state_file()), is_sound: state_is_sound });
        self.saved.push(Saved { record, bytes: self.volume.bytes().to_vec() });
    }

    fn prune(&mut self, keep: u32) {
        let report = self.engine.prune(keep).expect("a prune");
        let mut needed: Vec<u32> =
            self.saved.iter().rev().take(keep as usize).map(|saved| saved.record.sequence).collect();
        for saved in self.saved.iter().rev() {
            if let Some(link) = saved.record.parent.filter(|_| needed.contains(&saved.record.sequence)) {
                needed.push(link.sequence);
            }
        }
        self.saved.retain(|saved| needed.contains(&saved.record.sequence));
        assert_eq!(report.kept, self.saved.len() as u64);
        let left: Vec<BackupRecord> = self.saved.iter().map(|saved| saved.record.clone()).collect();
        assert_eq!(self.engine.records(), left);
    }

    /// The backup that the next one must build on, by the meaning of the words alone.
    fn expected_parent(&self, wish: &Wish) -> Option<&Saved> {
        let newest = self.saved.last()?;
        match wish {
            Wish::Full => None,
            Wish::Auto | Wish::Incremental => Some(newest),
            Wish::Since(pick) => self.saved.get(index(*pick, self.saved.len())),
            Wish::Differential => {
                let mut at = newest;
                while let Some(link) = at.record.parent {
                    at = self.saved.iter().find(|saved| saved.record.sequence == link.sequence)?;
                }
                Some(at)
            }
        }
    }

    fn pick(&self, random: &mut Random) -> &Saved {
        &self.saved[index(random.number(), self.saved.len())]
    }

    /// To a new file, then in place over the state of another backup.
    fn restore_to_files(&self, random: &mut Random) {
        let (saved, other) = (self.pick(random), self.pick(random));
        let target = self.engine.scratch.path("target");
        let read_back = random.below(2) == 0;
        let options = RestoreOptions {
            read_back,
            gentleness: Gentleness::full_speed(),
            ..RestoreOptions::new(&target)
        };
        let report = self.engine.restore(&saved.record, &options).expect("a restore to a new file");
        assert!(report.root_proven && report.read_back == read_back);
        assert_same_bytes(&read(&target), &saved.bytes, "a new file");

        write(&target, &other.bytes);
        // What is longer may be another volume's image: it is cut only when forced.
        let longer = other.bytes.len() > saved.bytes.len();
        if longer {
            let refused = self.engine.restore_to(&saved.record, &target, true).expect_err("a longer target");
            assert_eq!(refused.kind(), ErrorKind::Refused);
            assert_same_bytes(&read(&target), &other.bytes, "a refused target");
        }
        let options = RestoreOptions {
            in_place: true,
            force: longer,
            gentleness: Gentleness::full_speed(),
            ..RestoreOptions::new(&target)
        };
        let report = self.engine.restore(&saved.record, &options).expect("a restore in place");
        assert!(report.root_proven);
        assert_same_bytes(&read(&target), &saved.bytes, "in place");
        let again = self.engine.restore_to(&saved.record, &target, true).expect("a second restore in place");
        assert_eq!(again.bytes_written, 0, "what is right already is not written again");
        std::fs::remove_file(&target).expect("removing the target");
    }

    fn read_here_and_there(&self, random: &mut Random) {
        let saved = &self.saved[index(random.number(), self.saved.len())];
        let reader = BackupReader::open(&self.engine.repository, &saved.record).expect("an open backup");
        assert_eq!(reader.size(), saved.bytes.len() as u64);
        for _ in 0..6 {
            let start = index(random.number(), saved.bytes.len() + 1);
            let end = start + index(random.number(), saved.bytes.len() - start + 1);
            let mut found = vec![0xee; end - start];
            reader.read_at(start as u64, &mut found).expect("a read");
            assert_same_bytes(&found, &saved.bytes[start..end], "a read here and there");
        }
        let error = reader.read_at(reader.size(), &mut [0]).expect_err("beyond the end");
        assert_eq!(error.kind(), ErrorKind::WrongUse);
    }

    /// A range into a stream, and into a file whose other bytes must stay.
    fn restore_a_range(&self, random: &mut Random) {
        let saved = self.pick(random);
        let size = saved.bytes.len() as u64;
        if size == 0 {
            return;
        }
        let start = random.below(size);
        let range = start..start + 1 + random.below(size - start);
        let bytes = index(range.start, usize::MAX)..index(range.end, usize::MAX);
        let found = self.engine.stream(&saved.record, Some(range.clone())).expect("a range into a stream");
        assert_same_bytes(&found, &saved.bytes[bytes.clone()], "a range as a stream");

        let mut expected = random_bytes(random.number(), saved.bytes.len());
        let target = self.engine.scratch.file("partial", &expected);
        expected[bytes.clone()].copy_from_slice(&saved.bytes[bytes]);
        let in_place = random.below(2) == 0;
        let options = RestoreOptions {
            range: Some(range.clone()),
            in_place,
            force: true,
            gentleness: Gentleness::full_speed(),
            ..RestoreOptions::new(&target)
        };
        let report = self.engine.restore(&saved.record, &options).expect("a range into a file");
        assert_eq!(report.root_proven, range == (0..size), "a part proves no root");
        assert_same_bytes(&read(&target), &expected, "a range in a file");
    }

    fn compare_two(&self, random: &mut Random) {
        let (from, to) = (self.pick(random), self.pick(random));
        let (report, ranges) = self.engine.diff(&from.record, &to.record).expect("a diff");
        let counted = (report.blocks_changed, report.grains_changed, report.bytes_changed);
        let expected = changes(&from.bytes, &to.bytes, self.cut);
        assert_eq!(ranges, expected.ranges);
        assert_eq!(counted, (expected.blocks, expected.grains, expected.bytes));
    }
}

proptest! {
    #![proptest_config(cases(20))]

    #[test]
    fn every_backup_restores_to_what_the_volume_was(
        options in format(),
        size in volume_size(),
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..7),
    ) {
        let mut story = Story::new(options, size, seed);
        steps.iter().for_each(|step| story.run(step));
        let report = story.engine.verify(true);
        assert!(report.ok && report.backups_checked == story.saved.len() as u64, "{:?}", report.problems);
    }
}

/// The same with a table of several pages (256 blocks each) of which most are empty: pages that are skipped, dropped at a
/// shrink and grown again are another path than single blocks.
#[test]
fn tables_of_several_pages_follow_shrinking_and_growing() {
    const BLOCK: u64 = 64 << 10;
    let mut story = Story::new(small(), 0, 1);
    let write = |block: u64| Change::Write { at: block * BLOCK + 100, len: 9000, seed: block };
    let rounds = [
        vec![Change::Grow(700 * BLOCK + 512), write(3), write(255), write(256), write(600)],
        vec![Change::Shrink(450 * BLOCK)],
        vec![Change::Grow(450 * BLOCK), write(40)],
        vec![Change::Shrink(445 * BLOCK + 512), Change::Punch { at: 0, len: 10 * BLOCK }],
        vec![Change::Grow(512 * BLOCK), write(512), write(700)],
        vec![Change::Touch],
    ];
    for (round, changes) in (0..).zip(rounds) {
        let wish = if round == 4 { Wish::Differential } else { Wish::Auto };
        let state = if round == 2 { StateEvent::Lost } else { StateEvent::Kept };
        story.run(&Step { changes, state, wish, prune: None, pick: round });
    }
    assert!(story.engine.verify(true).ok);
}

/// A state whose header is right and whose table has lost a page (a crash of the host, a bad sector) looks like one of an
/// empty volume. If it were believed, a block that is zero now would be called unchanged.
#[test]
fn a_local_state_that_lost_a_page_is_not_believed() {
    let mut story = Story::new(small(), 4 << 20, 5);
    let step = |changes, wish| Step { changes, state: StateEvent::Kept, wish, prune: None, pick: 0 };
    story.run(&step(Vec::new(), Wish::Auto));
    let path = story.engine.state_file();
    let mut state = read(&path);
    let header = blkdelta_core::format::manifest::HEADER_LEN;
    state[header..header + blkdelta_core::format::manifest::PAGE_LEN].fill(0);
    write(&path, &state);
    story.run(&step(vec![Change::ZeroUnit { number: 0, size: 1 << 20, punch: true }], Wish::Auto));
    assert!(story.engine.verify(true).ok);
}
