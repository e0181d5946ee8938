//! One file from repository to repository: read by one thread, written by another, its digest made on the way.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Copying;
use crate::backup_id::StoredFile;
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::to_usize;
use crate::repository::chain::missing_part;
use crate::storage::{ObjectReader, ObjectWriter};

/// Bytes that go from thread to thread at once, and how many such pieces may wait.
const PIECE: usize = 1 << 20;
const WAITING: usize = 4;

impl Copying<'_> {
    /// Copies a file unless it is there whole. It gets its name there only if its digest is that of its record.
    pub(super) fn file(&mut self, file: &StoredFile) -> Result<()> {
        if self.is_whole_there(file)? {
            self.report.bytes_found += file.size;
            self.progress.add_done(file.size);
            return Ok(());
        }
        let object = self.from.storage().open(&file.name).map_err(missing_part)?;
        if object.size() != file.size {
            let text = format!("the file has {} bytes, its record says {}", object.size(), file.size);
            return Err(Error::damaged(text).path(object.display()));
        }
        let out = self.to.storage().create(&file.name)?;
        self.pass(file, &object, out)?;
        self.report.bytes_copied += file.size;
        if self.options.read_back && !self.is_whole_there(file)? {
            let text = "what was read back there is not what was written";
            return Err(Error::new(ErrorKind::Io, text)
                .path(self.to.storage().display(&file.name))
                .hint("the storage there loses or changes data: look at it before copying again"));
        }
        Ok(())
    }

    fn pass(
        &self,
        file: &StoredFile,
        object: &Arc<dyn ObjectReader>,
        mut out: Box<dyn ObjectWriter>,
    ) -> Result<()> {
        let (to, pieces) = sync_channel(WAITING);
        let (read, written) = std::thread::scope(|scope| {
            let (throttle, cancel) = (self.throttle, self.cancel);
            let reading = scope.spawn(move || {
                throttle.enter_thread();
                read_all(object, cancel, &to)
            });
            let written = self.write_all(&pieces, &mut *out);
            drop(pieces); // a failed writer ends the reader
            let gone = || Error::new(ErrorKind::Io, "the reading thread ended early");
            (reading.join().unwrap_or_else(|_| Err(gone())), written)
        });
        written?;
        if read? != file.blake3 {
            return Err(Error::damaged("the file is not the one its record names").path(object.display()));
        }
        out.finish()
    }

    fn write_all(&self, pieces: &Receiver<Vec<u8>>, out: &mut dyn ObjectWriter) -> Result<()> {
        for piece in pieces {
            out.write(&piece)?;
            self.progress.add_done(piece.len() as u64);
            self.progress.add_changed(piece.len() as u64);
        }
        Ok(())
    }

    /// Whether an interrupted copy left the file there. One that is different is of no use to anybody: no record names it.
    fn is_whole_there(&self, file: &StoredFile) -> Result<bool> {
        let object = match self.to.storage().open(&file.name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let mut digest = blake3::Hasher::new();
        let whole = object.size() == file.size
            && for_each_piece(&object, self.cancel, |piece| {
                digest.update(&piece);
                Ok(true)
            })?
            && digest.finalize().to_hex().as_str() == file.blake3;
        if !whole {
            drop(object);
            self.to.storage().remove(&file.name)?;
        }
        Ok(whole)
    }
}

/// Reads all and hands it on; returns the digest.
fn read_all(
    object: &Arc<dyn ObjectReader>,
    cancel: &CancelToken,
    to: &SyncSender<Vec<u8>>,
) -> Result<String> {
    let mut digest = blake3::Hasher::new();
    for_each_piece(object, cancel, |piece| {
        digest.update(&piece);
        Ok(to.send(piece).is_ok())
    })?;
    Ok(digest.finalize().to_hex().to_string())
}

/// Tells whether `take` wanted all pieces.
fn for_each_piece(
    object: &Arc<dyn ObjectReader>,
    cancel: &CancelToken,
    mut take: impl FnMut(Vec<u8>) -> Result<bool>,
) -> Result<bool> {
    let mut at = 0;
    while at < object.size() {
        cancel.check()?;
        let mut piece = vec![0; to_usize((object.size() - at).min(PIECE as u64))];
        object.read_exact_at(&mut piece, at)?;
        at += piece.len() as u64;
        if !take(piece)? {
            return Ok(false);
        }
    }
    Ok(true)
}
