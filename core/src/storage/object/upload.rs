//! An object on its way up: in parts, a few at a time, so that memory stays bounded and nothing is kept on disk.
//!
//! ```text
//! parts     1..1000    8 MiB         8 GiB      4 at once on their way
//!        1001..2000   16 MiB        23 GiB      2
//!        2001..4000   32 MiB        86 GiB      one at a time from here on
//!        4001..6000   64 MiB       211 GiB
//!        6001..7500  128 MiB       398 GiB
//!        7501..9000  512 MiB       1.1 TiB
//!        9001..10000   4 GiB         5 TiB
//! ```
//! Trade-off: stores take 10,000 parts, and how large a delta becomes is known at its end only, so parts grow with it and
//! with them the memory, only beyond 86 GiB past what a backup is meant to use. `part-size` in the URL fixes it.
//! What a killed run leaves is no object, but its parts are kept (and paid for) until they are aborted: a note tells others of
//! the upload (`unfinished.rs`). Were it wrong, parts would stay until a rule of the bucket removes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Attributes, PutMode, PutMultipartOptions, PutOptions, PutPayload};

use super::refusal::Failure;
use super::remote::{Remote, on_the_way, take, take_within};
use super::unfinished::{END_PATIENCE, KeptNote, Part, ids};
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;
use crate::storage::{Durable, ObjectWriter};

const MIB: u64 = 1 << 20;
/// Number of parts up to which each size goes.
const STEPS: [(usize, u64); 7] = [
    (1000, 8 * MIB),
    (2000, 16 * MIB),
    (4000, 32 * MIB),
    (6000, 64 * MIB),
    (7500, 128 * MIB),
    (9000, 512 * MIB),
    (10_000, 4096 * MIB),
];
/// Bytes on their way at once; at least one part.
const ON_THEIR_WAY: u64 = 32 * MIB;

type Sent = Receiver<std::result::Result<PartId, Failure>>;

/// Writes one object.
pub struct Upload {
    remote: Arc<Remote>,
    name: String,
    key: Path,
    attributes: Attributes,
    part_size: Option<u64>,
    buffer: Vec<u8>,
    /// The store's id of the upload, once there is more than one part.
    id: Option<String>,
    note: Option<KeptNote>,
    done: Vec<Part>,
    /// Parts on their way, with their lengths.
    sent: VecDeque<(u64, Sent)>,
    written: u64,
    finished: bool,
    /// It stays if it is never finished: somebody may go on from it.
    kept: bool,
}

impl Upload {
    /// Begins; nothing is sent yet.
    pub fn begin(
        remote: Arc<Remote>,
        name: &str,
        attributes: Attributes,
        part_size: Option<u64>,
    ) -> Result<Self> {
        let key = remote.key(name)?;
        Ok(Self {
            remote,
            name: name.to_owned(),
            key,
            attributes,
            part_size,
            buffer: Vec::new(),
            id: None,
            note: None,
            done: Vec::new(),
            sent: VecDeque::new(),
            written: 0,
            finished: false,
            kept: false,
        })
    }

    fn error(&self, what: &str, failure: Failure) -> Error {
        let error = failure.error(what, &self.remote.display(&self.name));
        if what == "writing" { error.at(self.written, 0) } else { error }
    }

    /// Bytes of the part that is filled now.
    fn part_len(&self) -> u64 {
        self.part_size.unwrap_or_else(|| part_len(self.done.len() + self.sent.len()))
    }

    /// Sends the buffer, when there is room for it on the way.
    fn send(&mut self) -> Result<()> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.create()?,
        };
        let number = self.done.len() + self.sent.len();
        let bytes = std::mem::take(&mut self.buffer);
        let room = usize::try_from(ON_THEIR_WAY / (bytes.len() as u64).max(1)).unwrap_or(1).max(1);
        while self.sent.len() >= room {
            self.take_one()?;
        }
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        let (len, payload) = (bytes.len() as u64, PutPayload::from(bytes));
        let sent = self.remote.start(async move {
            let request = || remote.clients().uploads.put_part(&key, &id, number, payload.clone());
            remote.tried(on_the_way(len), request).await.result
        });
        self.sent.push_back((len, sent));
        Ok(())
    }

    fn create(&mut self) -> Result<String> {
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        let options =
            PutMultipartOptions { attributes: self.attributes.clone(), ..PutMultipartOptions::default() };
        let created = self.remote.wait(async move {
            let request = || remote.clients().uploads.create_multipart_opts(&key, options.clone());
            remote.tried(Duration::ZERO, request).await.result
        });
        let id = created.map_err(|failure| self.error("beginning an upload", failure))?;
        self.id = Some(id.clone());
        self.note = KeptNote::begin(&self.remote, &self.name, &id);
        Ok(id)
    }

    /// Waits for the oldest part.
    fn take_one(&mut self) -> Result<()> {
        match self.sent.pop_front() {
            Some((len, sent)) => self.arrived(len, take(&sent)),
            None => Ok(()),
        }
    }

    /// Takes those that have been answered, without a gap.
    fn take_answered(&mut self) -> Result<()> {
        while let Some((len, sent)) = self.sent.front()
            && let Some(answer) = take_within(sent, Duration::ZERO)
        {
            let len = *len;
            self.sent.pop_front();
            self.arrived(len, answer)?;
        }
        Ok(())
    }

    fn arrived(&mut self, len: u64, answer: std::result::Result<PartId, Failure>) -> Result<()> {
        let part = answer.map_err(|failure| self.error("writing", failure))?;
        self.done.push(Part { id: part.content_id, len });
        Ok(())
    }

    fn finish_small(&mut self) -> Result<()> {
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        let bytes = std::mem::take(&mut self.buffer);
        let options = PutOptions {
            mode: PutMode::Create,
            attributes: self.attributes.clone(),
            ..PutOptions::default()
        };
        let put = self.remote.wait(async move { remote.put_new(&key, bytes, options).await });
        put.map_err(|failure| self.error("writing", failure))
    }

    fn finish_parts(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        while !self.sent.is_empty() {
            self.take_one()?;
        }
        let (remote, key, written) = (Arc::clone(&self.remote), self.key.clone(), self.written);
        let (id, parts) = (self.id.clone().unwrap_or_default(), ids(&self.done));
        let completed = self.remote.wait(async move { remote.complete(&key, &id, parts, written).await });
        completed.map_err(|failure| self.error("finishing an upload", failure))?;
        self.note.take().into_iter().for_each(KeptNote::remove);
        Ok(())
    }

    fn abort(&mut self) {
        let Some(id) = self.id.take() else { return };
        // A part that arrives after the abort, ours or another's, would stay.
        let end = Instant::now() + END_PATIENCE;
        for (_, sent) in self.sent.drain(..) {
            let _ = sent.recv_timeout(end.saturating_duration_since(Instant::now()));
        }
        if self.kept {
            return;
        }
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        let aborted = self.remote.wait(async move {
            let request = || remote.clients().uploads.abort_multipart(&key, &id);
            remote.tried_for(END_PATIENCE, Duration::ZERO, request).await.result
        });
        match aborted {
            Ok(()) => self.note.take().into_iter().for_each(KeptNote::remove),
            Err(failure) => {
                let error = self.error("aborting an upload", failure);
                tracing::warn!(%error, "parts of an unfinished upload stay until the next run removes them");
            }
        }
    }
}

/// Bytes of the part with this number, from 0.
fn part_len(number: usize) -> u64 {
    STEPS.iter().find(|(end, _)| number < *end).map_or(STEPS[STEPS.len() - 1].1, |(_, len)| *len)
}

impl ObjectWriter for Upload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let part_len = to_usize(self.part_len());
            self.buffer.try_reserve_exact(part_len.saturating_sub(self.buffer.len())).map_err(|source| {
                let error = Error::new(ErrorKind::Io, format!("no memory for a part of {part_len} bytes"));
                error.path(self.remote.display(&self.name)).because(source)
            })?;
            let room = part_len.saturating_sub(self.buffer.len());
            let (now, later) = left.split_at(room.min(left.len()));
            self.buffer.extend_from_slice(now);
            self.written += now.len() as u64;
            left = later;
            if self.buffer.len() >= part_len {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Does not wait for parts that are on their way.
    fn make_durable(&mut self) -> Result<Option<Durable>> {
        self.take_answered()?;
        let durable = self.note.as_mut().and_then(|note| note.tell(&self.done));
        self.kept |= durable.is_some();
        Ok(durable)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.id.is_none() { self.finish_small() } else { self.finish_parts() }?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            self.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_five_tebibytes() {
        let sizes: Vec<u64> = (0..10_000).map(part_len).collect();
        assert!(sizes.iter().sum::<u64>() >= 5 << 40);
        assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1]) && sizes[9_999] <= 5 << 30);
    }
}
