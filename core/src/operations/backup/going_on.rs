//! What a run takes over from before it: the blocks that an interrupted run has passed, and the damage that is to be
//! healed.

use std::cell::Cell;

use super::attempt::{Attempt, Parent, Warnings};
use super::resuming::{self, Left, Marks};
use crate::error::{ErrorKind, Result};
use crate::geometry::BlockIndex;
use crate::hint::block_set::BlockSet;
use crate::operations::damage::{Place, hurt};
use crate::operations::healing;
use crate::operations::taking_over::{Checkpoints, Extras};

/// What a run takes over.
pub struct GoingOn {
    left: Option<Left>,
    marks: Marks,
    /// The first pass goes on; a second one, after a hint that lied, begins anew.
    passes: Cell<u32>,
    pub damaged: Option<BlockSet>,
    places: Vec<Place>,
}

impl GoingOn {
    /// The offset at which the run went on, if it did.
    pub fn resumed_at(&self) -> Option<BlockIndex> {
        self.taken().map(Left::next)
    }

    fn taken(&self) -> Option<&Left> {
        let sound = |left: &&Left| self.passes.get() < 2 || left.read_all;
        self.left.as_ref().filter(sound)
    }

    /// Whether all that was taken over was read, not passed on a hint.
    pub fn read_all(&self) -> bool {
        self.taken().is_none_or(|left| left.read_all)
    }
}

impl Attempt<'_> {
    /// Looks what there is to go on from, and to heal.
    pub fn go_on(&mut self, parent: Option<&Parent>, warnings: &mut Warnings) -> Result<GoingOn> {
        let marks = Marks::new(self.prepared.note.clone());
        let left = self.look_for_left(parent, &marks, warnings)?;
        if let Some(left) = &left {
            // What is read now is the state of that time.
            self.taken.taken_at = left.taken_at;
        }
        let (damaged, places) = self.look_for_damage(parent, warnings);
        Ok(GoingOn { left, marks, passes: Cell::new(0), damaged, places })
    }

    fn look_for_left(
        &self,
        parent: Option<&Parent>,
        marks: &Marks,
        warnings: &mut Warnings,
    ) -> Result<Option<Left>> {
        let (prepared, mark) = (&self.prepared, self.taken.mark.as_ref());
        let wanted = prepared.options.resume;
        if wanted && mark.is_none() && self.taken.snapshot.is_none() {
            return Err(resuming::refused(prepared));
        }
        let Some(found) = &prepared.checkpoint else {
            if wanted {
                warnings.add("there is no interrupted backup to go on from; everything was read");
            }
            return Ok(None);
        };
        match resuming::look(prepared, found, mark, &self.delta_header(parent)?)? {
            Ok(left) => Ok(Some(left)),
            Err(reason) => {
                if wanted {
                    warnings.add(format!("the interrupted backup was not resumed: {reason}"));
                }
                tracing::info!(reason, "the interrupted backup is not resumed; what it left is removed");
                marks.clear(prepared);
                Ok(None)
            }
        }
    }

    /// Blocks of the parent whose stored bytes were found damaged. Without them nothing is lost but the healing.
    fn look_for_damage(
        &self,
        parent: Option<&Parent>,
        warnings: &mut Warnings,
    ) -> (Option<BlockSet>, Vec<Place>) {
        let (prepared, mut places) = (&self.prepared, Vec::new());
        let mut find = || -> Result<Option<BlockSet>> {
            let (state, repository) = (&prepared.options.state, prepared.repository);
            places = healing::noted_places(state, repository, &prepared.volume)?;
            let Some(parent) = parent.filter(|_| !places.is_empty()) else { return Ok(None) };
            let geometry = self.geometry()?;
            let mut damaged = BlockSet::none(geometry.block_count());
            for range in hurt(repository, &parent.record, &places)? {
                let last = geometry.block_of(range.offset + range.length.max(1) - 1);
                damaged.insert(geometry.block_of(range.offset)..last + 1);
            }
            Ok(Some(damaged))
        };
        match find() {
            Ok(damaged) => (damaged, places),
            Err(error) => {
                warnings
                    .add(format!("damage that is noted is not healed by this run ({})", error.full_text()));
                (None, Vec::new())
            }
        }
    }

    /// For the next pass, which writes this delta.
    pub fn extras<'g>(&self, going_on: &'g GoingOn, delta: &str, reads_all: bool) -> Extras<'g> {
        going_on.passes.set(going_on.passes.get() + 1);
        let checkpoints = self.taken.mark.as_ref().map(|mark| {
            let read_all = reads_all && going_on.read_all();
            going_on.marks.begin(&self.prepared, mark, self.taken.taken_at, delta, read_all);
            &going_on.marks as &dyn Checkpoints
        });
        let taken_over = going_on.taken().map(Left::taken_over);
        Extras { damaged: going_on.damaged.as_ref(), taken_over, checkpoints }
    }

    /// The run has failed: only what was interrupted can be resumed.
    pub fn give_up(&self, going_on: &GoingOn, kind: ErrorKind) {
        if kind != ErrorKind::Cancelled {
            self.clear(going_on);
        }
    }

    /// What was left, and what was taken over of it, is of no use to anybody.
    fn clear(&self, going_on: &GoingOn) {
        let prepared = &self.prepared;
        going_on.marks.clear(prepared);
        if let Some(left) = &going_on.left {
            prepared.publisher.discard_taken_over(&left.delta, prepared.sequence, prepared.id);
        }
    }

    /// The backup is committed: nobody goes on any more, and what was damaged is stored again.
    pub fn settle(&self, going_on: &GoingOn, warnings: &mut Warnings) {
        let (prepared, repository) = (&self.prepared, self.prepared.repository);
        self.clear(going_on);
        let healed = |place: &Place| going_on.places.contains(place);
        let state = &prepared.options.state;
        if let Err(error) = healing::note(state, repository, &prepared.volume, &[], &healed) {
            warnings.add(format!("the note of healed damage stays ({})", error.full_text()));
        }
    }
}
