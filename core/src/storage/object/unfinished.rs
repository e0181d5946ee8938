//! What is told of an upload in parts until it is whole: a note beside the object, by which others can end the upload.
//!
//! ```text
//! upload begins -> note without parts -> parts -> note of those that are done -> ... -> object whole -> note goes
//! killed:  removing the note   -> the upload is aborted first, so its parts do not stay
//!          opening by the note -> the upload is completed with the parts of the note, so they can be read
//! ```
//! Trade-off: parts cannot be read before they are an object, so opening makes one under the name that the whole one would
//! have. No record names it, so it does not count, and what removes leftovers removes it too.
//! If it is wrong: a note may be old, or of an upload that ended long ago, and is never believed. Nothing is completed over
//! an object, and none is removed by its note: that may be a backup whose note could not be removed.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{GetRange, ObjectStoreExt, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::refusal::{Failure, Meaning};
use super::remote::{Remote, on_the_way, take, take_within};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Durable, UNFINISHED, unfinished_ending};

const VERSION: u32 = 1;
/// Longest note that is read: 10,000 parts with ids of 400 bytes.
const LEN_MAX: u64 = 5 << 20;
/// A note holds all parts, so one of many is written anew only when they have become more by this share.
const GROWTH: usize = 32;
/// How long whoever tells of parts waits for the note to be there; else it is looked for the next time.
const WAIT: Duration = Duration::from_millis(100);
/// What ends an upload does not wait longer for the store.
pub const END_PATIENCE: Duration = Duration::from_secs(5);

/// The note's content.
#[derive(Serialize, Deserialize)]
struct Note {
    version: u32,
    /// The store's id of the upload.
    upload: String,
    /// The first parts, without a gap.
    parts: Vec<Part>,
}

/// A part that is there.
#[derive(Clone, Serialize, Deserialize)]
pub struct Part {
    /// The store's id of it.
    pub id: String,
    /// Bytes.
    pub len: u64,
}

/// For the store.
pub fn ids(parts: &[Part]) -> Vec<PartId> {
    parts.iter().map(|part| PartId { content_id: part.id.clone() }).collect()
}

type Put = Receiver<std::result::Result<(), Failure>>;

/// The note of an upload that goes on, kept by its writer.
pub struct KeptNote {
    remote: Arc<Remote>,
    name: String,
    key: Path,
    upload: String,
    told: Told,
    /// A newer one on its way.
    on_its_way: Option<(Told, Put)>,
}

/// What a note tells.
#[derive(Clone, Copy, Default)]
struct Told {
    parts: usize,
    len: u64,
}

impl KeptNote {
    /// Puts the first one. Without it nobody else can end the upload, but it goes on all the same.
    pub fn begin(remote: &Arc<Remote>, object: &str, upload: &str) -> Option<Self> {
        let name = format!("{object}{}", unfinished_ending());
        let key = remote.key(&name).ok()?;
        let (remote, upload) = (Arc::clone(remote), upload.to_owned());
        let note = Self { remote, name, key, upload, told: Told::default(), on_its_way: None };
        match take(&note.put(&[])) {
            Ok(()) => Some(note),
            Err(failure) => {
                tracing::debug!(?failure, name = note.name, "an upload goes on without a note");
                None
            }
        }
    }

    fn put(&self, parts: &[Part]) -> Put {
        let note = Note { version: VERSION, upload: self.upload.clone(), parts: parts.to_vec() };
        let payload = PutPayload::from(serde_json::to_vec(&note).unwrap_or_default());
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        self.remote.start(async move {
            let request = || remote.clients().objects.put_opts(&key, payload.clone(), PutOptions::default());
            remote.tried(on_the_way(payload.content_length() as u64), request).await.result.map(drop)
        })
    }

    /// Tells of these parts, all from the first on; returns what the note that is there tells, if that is anything.
    pub fn tell(&mut self, parts: &[Part]) -> Option<Durable> {
        self.look(Duration::ZERO);
        if self.on_its_way.is_none() && parts.len() > self.told.parts + self.told.parts / GROWTH {
            let told = Told { parts: parts.len(), len: parts.iter().map(|part| part.len).sum() };
            self.on_its_way = Some((told, self.put(parts)));
            self.look(WAIT);
        }
        let name = self.name.rsplit('/').next().unwrap_or_default();
        (self.told.len > 0).then(|| Durable { name: name.to_owned(), len: self.told.len })
    }

    fn look(&mut self, patience: Duration) {
        let Some((told, put)) = &self.on_its_way else { return };
        match take_within(put, patience) {
            None => return,
            Some(Ok(())) => self.told = *told,
            Some(Err(failure)) => tracing::debug!(?failure, "the note of an upload was not renewed"),
        }
        self.on_its_way = None;
    }

    /// The upload has ended. A note that stays is removed by whoever removes leftovers.
    pub fn remove(mut self) {
        // One that arrives later would stay.
        self.look(END_PATIENCE);
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        let removed = self.remote.wait(async move {
            let request = || remote.clients().objects.delete(&key);
            remote.tried_for(END_PATIENCE, Duration::ZERO, request).await.result
        });
        match removed {
            Err(failure) if failure.meaning != Meaning::Missing => {
                tracing::debug!(?failure, name = self.name, "the note of an upload that has ended stays");
            }
            _ => {}
        }
    }
}

/// Makes an object of the parts that a note tells of, so that they can be read.
pub fn complete(remote: &Arc<Remote>, unfinished: &str, name: &str) -> Result<()> {
    let gone = |why: &str| {
        let error = Error::new(ErrorKind::NotFound, "what was uploaded of it is gone");
        Err(error.path(remote.display(name)).because(why))
    };
    let note = if object_of(unfinished) == Some(name) { read(remote, unfinished)? } else { None };
    let Some(note) = note else { return gone("there is no note of the upload") };
    let len = note.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.len));
    let Some(len) = len.filter(|len| *len > 0) else { return gone("its note tells of no part") };
    let (task, key, parts) = (Arc::clone(remote), remote.key(name)?, ids(&note.parts));
    let completed = remote.wait(async move {
        match task.complete(&key, &note.upload, parts, len).await {
            // Refused: the upload is over. By an earlier try of just this?
            Err(failure) if !failure.passes() => match task.size(&key).await {
                Ok(size) if size == len => Ok(()),
                Err(network) if network.passes() => Err(network),
                _ => Err(Failure::told(Meaning::Missing, failure.text)),
            },
            other => other,
        }
    });
    match completed {
        Err(failure) if failure.meaning == Meaning::Missing => gone(&failure.text),
        other => other.map_err(|failure| failure.error("completing an upload", &remote.display(name))),
    }
}

/// Aborts the upload that a note is of, if it has not ended.
pub fn abort(remote: &Arc<Remote>, unfinished: &str) -> Result<()> {
    let (Some(name), Some(note)) = (object_of(unfinished), read(remote, unfinished)?) else { return Ok(()) };
    let (task, key) = (Arc::clone(remote), remote.key(name)?);
    let aborted = remote.wait(async move {
        let request = || task.clients().uploads.abort_multipart(&key, &note.upload);
        task.tried(Duration::ZERO, request).await.result
    });
    match aborted {
        Err(failure) if failure.passes() => {
            Err(failure.error("aborting an upload", &remote.display(unfinished)))
        }
        // Stores say in many ways that an upload is over.
        Err(failure) => {
            tracing::debug!(?failure, unfinished, "an upload was not aborted, most often as it is over");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The object that a note is beside of.
fn object_of(unfinished: &str) -> Option<&str> {
    unfinished.strip_suffix(UNFINISHED)?.rsplit_once('.').map(|(name, _)| name)
}

/// A note; `None` when there is none, or none that can be read.
fn read(remote: &Arc<Remote>, unfinished: &str) -> Result<Option<Note>> {
    let (task, key) = (Arc::clone(remote), remote.key(unfinished)?);
    let got = remote.wait(async move { task.get(&key, Some(GetRange::Bounded(0..LEN_MAX))).await });
    match got {
        Ok((bytes, _, _)) => {
            let note: Option<Note> = serde_json::from_slice(&bytes).ok();
            Ok(note.filter(|note| note.version == VERSION))
        }
        Err(failure) if matches!(failure.meaning, Meaning::Missing | Meaning::Range) => Ok(None),
        Err(failure) => Err(failure.error("reading", &remote.display(unfinished))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Storage, read_small};

    const PARTS: usize = 2 * (8 << 20);

    /// An upload of two parts and a byte, durable as far as it can be; the name of its note.
    fn upload(storage: &dyn Storage) -> (Box<dyn crate::storage::ObjectWriter>, String) {
        let mut writer = storage.create("f/a.delta").unwrap();
        writer.write(&vec![7; PARTS + 1]).unwrap();
        loop {
            let durable = writer.make_durable().unwrap();
            if let Some(durable) = durable.filter(|durable| durable.len == PARTS as u64) {
                return (writer, format!("f/{}", durable.name));
            }
        }
    }

    #[test]
    fn a_note_is_what_the_format_says() {
        let storage = super::super::in_memory()();
        let (writer, name) = upload(&*storage);
        let note = String::from_utf8(read_small(&*storage, &name, LEN_MAX).unwrap()).unwrap();
        let (head, parts) = note.split_once(r#","parts":"#).unwrap();
        assert!(head.starts_with(r#"{"version":1,"upload":""#), "{note}");
        assert_eq!(parts, r#"[{"id":"","len":8388608},{"id":"","len":8388608}]}"#);
        assert_eq!(object_of(&name), Some("f/a.delta"));
        drop(writer);
    }

    #[test]
    fn a_note_that_outlived_its_upload_hurts_nobody() {
        let storage = super::super::in_memory()();
        let (writer, name) = upload(&*storage);
        let note = read_small(&*storage, &name, LEN_MAX).unwrap();
        writer.finish().unwrap();
        storage.put_new(&name, &note).unwrap();
        let opened = storage.open_unfinished(&name, "f/a.delta").map(|object| object.size());
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotFound);
        storage.remove(&name).unwrap();
        assert_eq!(storage.list("f").unwrap(), ["a.delta"]);
        assert_eq!(storage.open("f/a.delta").unwrap().size(), PARTS as u64 + 1);
    }

    #[test]
    fn a_note_that_cannot_be_read_goes() {
        let storage = super::super::in_memory()();
        for bad in [&b"{"[..], br#"{"version":2,"upload":"1","parts":[]}"#] {
            storage.put_new("f/a.0.unfinished", bad).unwrap();
            let opened = storage.open_unfinished("f/a.0.unfinished", "f/a").map(|object| object.size());
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotFound);
            storage.remove("f/a.0.unfinished").unwrap();
        }
        assert!(storage.list("f").unwrap().is_empty());
    }
}
