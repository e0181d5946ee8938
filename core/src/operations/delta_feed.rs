//! From the collector to the delta: changed blocks are gathered into frames, each section of the volume by itself, and
//! entries go on in volume order.
//!
//! Sections number their frames far apart, so that one need not know how many those before it will have. If a section had
//! more frames than numbers two frames would get one, which the delta's writer refuses.

use std::collections::BTreeMap;

use crossbeam::channel::{Receiver, Sender};

use super::failure::stopped;
use super::order::Sections;
use crate::encoder::Gatherer;
use crate::error::{Error, Result};
use crate::flow::{Compared, DeltaMessage, RawFrame, Verdict};
use crate::format::index::IndexEntry;
use crate::geometry::{BlockIndex, Geometry};

/// Numbers for frames that are taken over.
const NUMBERS_TAKEN_OVER: u64 = 1 << 40;
/// Numbers that each section has for its frames: far more than frames, and for as many sections as a volume can have.
const NUMBERS: u64 = 1 << 27;

fn first_number(section: u64) -> u64 {
    NUMBERS_TAKEN_OVER.saturating_add(section.saturating_mul(NUMBERS))
}

/// Where the delta's frames and entries go.
pub struct DeltaFeed {
    geometry: Geometry,
    sections: Sections,
    /// Of sections that have begun.
    gatherers: BTreeMap<u64, Gatherer>,
    frames: Sender<RawFrame>,
    messages: Sender<DeltaMessage>,
    /// Room of frames that were encoded.
    spare: Receiver<Vec<u8>>,
}

impl DeltaFeed {
    pub fn new(
        geometry: Geometry,
        frames: Sender<RawFrame>,
        messages: Sender<DeltaMessage>,
        spare: Receiver<Vec<u8>>,
    ) -> Self {
        let (sections, gatherers) = (Sections::new(geometry), BTreeMap::new());
        Self { geometry, sections, gatherers, frames, messages, spare }
    }

    /// Passes on what somebody else has made.
    pub fn send(&self, message: DeltaMessage) -> Result<()> {
        self.messages.send(message).map_err(|_| stopped())
    }

    /// Begins with this block, behind so many frames of somebody else's.
    pub fn begin(&self, first: BlockIndex, frames: u64) -> Result<()> {
        if frames >= NUMBERS_TAKEN_OVER {
            return Err(Error::damaged("the unfinished delta has more frames than any delta can have"));
        }
        self.send(DeltaMessage::NoFrames(frames..first_number(self.sections.of(first))))
    }

    /// Puts into frames what of this block is to be stored. Blocks come in the order of their section.
    pub fn gather(&mut self, block: &mut Compared) -> Result<()> {
        let Verdict::Changed(changed) = &mut block.verdict else { return Ok(()) };
        let section = self.sections.of(block.index);
        let gatherer = self
            .gatherers
            .entry(section)
            .or_insert_with(|| Gatherer::new(self.geometry, first_number(section), self.spare.clone()));
        gatherer.add(block.index, block.digest, changed);
        send_full(gatherer, &self.frames)
    }

    /// The next entry in volume order.
    pub fn entry(&self, entry: IndexEntry) -> Result<()> {
        self.send(DeltaMessage::Entry(entry))
    }

    /// Ends a section's open frame, so that no entry waits for it.
    fn close_open(&mut self, section: u64) -> Result<()> {
        let Some(gatherer) = self.gatherers.get_mut(&section) else { return Ok(()) };
        gatherer.close_open();
        send_full(gatherer, &self.frames)
    }

    /// These blocks, which lie in one section, have been gathered, and all before them.
    pub fn passed(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        let section = self.sections.of(first);
        if first + count < self.sections.end(section) {
            return Ok(());
        }
        self.close_open(section)?;
        let end = self.gatherers.remove(&section).map_or(first_number(section), |ended| ended.number());
        self.send(DeltaMessage::NoFrames(end..first_number(section + 1)))
    }

    /// All before block `next` has been told: nothing of it may wait for an open frame.
    pub fn mark(&mut self, next: BlockIndex) -> Result<()> {
        self.close_open(self.sections.of(next))?;
        self.send(DeltaMessage::Passed(next))
    }
}

fn send_full(gatherer: &mut Gatherer, frames: &Sender<RawFrame>) -> Result<()> {
    gatherer.take_full().try_for_each(|frame| frames.send(frame).map_err(|_| stopped()))
}

#[cfg(test)]
mod tests;
