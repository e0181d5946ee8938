//! `apply`: a delta from `scan` onto the image it was taken against, refusing any other.
//!
//! The whole target is read first: every block that the delta changes must be the old one, already the new one, or one
//! whose writing was begun; and with the old digests put back the root must be the parent's. So applying can be repeated after a crash, and a wrong
//! target is refused before its first byte is written. Afterwards the target is read again and the new root proven.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::digests::read_digests;
use crate::cancel::CancelToken;
use crate::delta::reader::{DeltaReader, IndexCursor};
use crate::digest::{BlockDigest, BlockHasher, RootBuilder, RootDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::format::delta::DeltaParent;
use crate::format::index::{GrainsEntry, IndexEntry};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::progress::Progress;
use crate::sink::overlay::OverlaySink;
use crate::sink::{Sink, Target};
use crate::source::{self, Source};
use crate::storage::Storage;
use crate::storage::local::LocalStorage;
use crate::sys::block_device;
use crate::sys::buffer_pool::{BufferPool, PooledBuffer};
use crate::sys::{faults, files};
use crate::throttle::governor::{Governor, Throttle};

/// What applying a delta did.
#[derive(Debug, Clone, Serialize)]
pub struct ApplyReport {
    /// The target.
    pub target: String,
    /// Bytes of the volume now.
    pub size_bytes: u64,
    /// Root of the volume now, proven by reading it.
    pub root: RootDigest,
    /// Bytes written.
    pub bytes_written: u64,
    /// The target was the new state already.
    pub already_applied: bool,
    /// Wall time in seconds.
    pub duration_s: f64,
}

/// Applies a delta file to a target.
pub fn apply(
    delta: &Path,
    target: &Path,
    force: bool,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<ApplyReport> {
    let begun = Instant::now();
    let delta = open_delta(delta)?;
    let geometry = delta.header().geometry;
    let report = |bytes_written, already_applied| ApplyReport {
        target: target.display().to_string(),
        size_bytes: geometry.volume_size(),
        root: delta.trailer().root,
        bytes_written,
        already_applied,
        duration_s: begun.elapsed().as_secs_f64(),
    };
    delta.prove_bytes(|_| cancel.check())?;
    let governor = Governor::none();
    let job = Job { throttle: governor.throttle(), delta: &delta, geometry, target, progress, cancel };
    if let Some(parent) = delta.header().parent {
        let source = source::open(target, true, None)?;
        if source.size() == geometry.volume_size() && job.root_now(&*source)? == delta.trailer().root {
            return Ok(report(0, true));
        }
        job.prove_parent(&*source, parent)?;
    }
    let written = job.write(force)?;
    let source = source::open(target, true, None)?;
    if job.root_now(&*source)? != delta.trailer().root {
        return Err(Error::damaged("after applying, the target does not have the delta's root").path(target));
    }
    Ok(report(written, false))
}

fn open_delta(path: &Path) -> Result<Arc<DeltaReader>> {
    let name =
        path.to_str().ok_or_else(|| Error::new(ErrorKind::WrongUse, "the path is not text").path(path))?;
    DeltaReader::open(LocalStorage::new("").open(name)?).map(Arc::new)
}

struct Job<'a> {
    throttle: &'a Throttle,
    delta: &'a Arc<DeltaReader>,
    geometry: Geometry,
    target: &'a Path,
    progress: &'a Progress,
    cancel: &'a CancelToken,
}

impl Job<'_> {
    fn root_now(&self, source: &dyn Source) -> Result<RootDigest> {
        let digest = self.delta.header().digest;
        if source.size() < self.geometry.volume_size() {
            return Err(self.wrong_parent("it is smaller than the volume"));
        }
        Ok(read_digests(
            source,
            self.geometry,
            digest,
            self.throttle,
            self.progress,
            self.cancel,
            &mut |_, _, _| Ok(()),
        )?
        .root)
    }

    fn wrong_parent(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::WrongParent,
            format!("the target is not what the delta was taken against: {why}"),
        )
        .path(self.target)
        .hint("apply it to a copy of the state that the scan's manifest described; nothing was written")
    }

    /// Reads all of the target as the parent's volume.
    fn prove_parent(&self, source: &dyn Source, parent: DeltaParent) -> Result<()> {
        let digest = self.delta.header().digest;
        let before = self.geometry.resized(parent.size)?;
        // A file has the parent's size; or the new, larger one, when applying was interrupted. A device may be longer.
        let file = block_device::number_of(self.target).ok().flatten().is_none();
        let fits = [parent.size, parent.size.max(self.geometry.volume_size())].contains(&source.size());
        if source.size() < parent.size || (file && !fits) {
            return Err(self.wrong_parent(&format!(
                "it has {} bytes, the parent {}",
                source.size(),
                parent.size
            )));
        }
        let mut cursor = self.delta.cursor();
        let mut root = RootBuilder::new(digest, &before);
        read_digests(
            source,
            before,
            digest,
            self.throttle,
            self.progress,
            self.cancel,
            &mut |first, count, found| {
                for index in first..first + count {
                    root.push(self.parent_digest(source, &before, &mut cursor, index, found)?);
                }
                Ok(())
            },
        )?;
        if root.finish()? != parent.root {
            return Err(self.wrong_parent("their roots differ"));
        }
        Ok(())
    }

    /// The digest that the parent had at this block, if what is there now fits the delta.
    fn parent_digest(
        &self,
        source: &dyn Source,
        before: &Geometry,
        cursor: &mut IndexCursor,
        index: BlockIndex,
        found: BlockDigest,
    ) -> Result<BlockDigest> {
        let Some(entry) = cursor.seek(index)? else { return Ok(found) };
        let (old, new) = match entry {
            IndexEntry::ZeroRange { .. } => return Ok(found),
            IndexEntry::Grains(entry) => (entry.old, entry.new),
            IndexEntry::Zero { old, .. } => (*old, BlockDigest::ZERO),
        };
        if old == BlockDigest::UNKNOWN || found.same(&old) {
            return Ok(found);
        }
        let len = self.geometry.block_len(index);
        let now = if before.block_len(index) == len { found } else { self.digest_at(source, index, len)? };
        if now.same(&new) || self.half_written(source, entry, len, new)? {
            return Ok(old);
        }
        Err(self
            .wrong_parent("a block is neither the old nor the new one")
            .at(before.block_offset(index), u64::from(len)))
    }

    fn digest_at(&self, source: &dyn Source, index: BlockIndex, len: u32) -> Result<BlockDigest> {
        let block = self.block_at(source, index, len)?;
        Ok(block.map_or(BlockDigest::UNKNOWN, |bytes| self.digest_of(&bytes)))
    }

    fn digest_of(&self, bytes: &[u8]) -> BlockDigest {
        BlockHasher::new(self.delta.header().digest, self.geometry).hash(bytes, &mut Vec::new())
    }

    /// The bytes of a block; `None` when the target ends before it.
    fn block_at(&self, source: &dyn Source, index: BlockIndex, len: u32) -> Result<Option<PooledBuffer>> {
        let offset = self.geometry.block_offset(index);
        if source.size() < offset + u64::from(len) {
            return Ok(None);
        }
        let pool = BufferPool::new(1, to_usize(u64::from(self.geometry.block_size())))?;
        let Some(mut buffer) = pool.try_take() else { return Ok(None) };
        let len = to_usize(u64::from(len));
        source.file().read_block(&mut buffer, offset, len)?;
        buffer.set_len(len);
        Ok(Some(buffer))
    }

    /// Whether an earlier run died while it wrote this block: some of the delta's grains are there, and with all of them
    /// the block is the new one. Without this a block torn by a crash could never be finished nor taken back.
    fn half_written(
        &self,
        source: &dyn Source,
        entry: &IndexEntry,
        len: u32,
        new: BlockDigest,
    ) -> Result<bool> {
        let (index, _) = entry.span();
        let Some(bytes) = self.block_at(source, index, len)? else { return Ok(false) };
        let overlay = OverlaySink::new(bytes, self.geometry.block_offset(index), self.geometry.grain_size());
        self.write_entry(&overlay, entry)?;
        let (bytes, begun) = overlay.into_block();
        Ok(begun && self.digest_of(&bytes).same(&new))
    }

    fn write(&self, force: bool) -> Result<u64> {
        let full = self.delta.header().parent.is_none();
        let size = self.geometry.volume_size();
        let device = block_device::number_of(self.target).ok().flatten().is_some();
        let longer = if device {
            0
        } else {
            std::fs::metadata(self.target).map(|metadata| metadata.len()).unwrap_or(0)
        };
        let target = Target {
            path: PathBuf::from(self.target),
            // A file keeps its old tail until all is written: applying can then be repeated after a crash.
            size: size.max(if full { 0 } else { longer }),
            force: force || !full,
            in_place: !full,
            partial: false,
            ours: false,
            repository: None,
            identity: None,
        };
        let sink = super::restore::open_sink(&target)?;
        let mut cursor = self.delta.cursor();
        let mut written = 0;
        while let Some(entry) = cursor.next_entry()? {
            self.cancel.check()?;
            written += self.write_entry(&*sink, &entry)?;
        }
        sink.finish()?;
        drop(sink);
        if !device {
            let file = OpenOptions::new().write(true).open(self.target);
            let cut = file.and_then(|file| {
                faults::point("ftruncate").and_then(|()| file.set_len(size))?;
                files::sync(&file)
            });
            cut.map_err(|source| Error::io("setting the size of", self.target, source))?;
        }
        Ok(written)
    }

    fn write_entry(&self, sink: &dyn Sink, entry: &IndexEntry) -> Result<u64> {
        let (first, count) = entry.span();
        let offset = self.geometry.block_offset(first);
        let IndexEntry::Grains(entry) = entry else {
            let len = self.geometry.span_len(first, count);
            sink.put_zeros(offset, len)?;
            return Ok(len);
        };
        let grain_at = |grain| self.geometry.grain_range(grain, entry.len);
        for grain in entry.zero.iter() {
            sink.put_zeros(offset + grain_at(grain).start as u64, grain_at(grain).len() as u64)?;
        }
        let zeros: u64 = entry.zero.iter().map(|grain| grain_at(grain).len() as u64).sum();
        Ok(zeros + self.write_pieces(sink, entry, offset)?)
    }

    fn write_pieces(&self, sink: &dyn Sink, entry: &GrainsEntry, offset: u64) -> Result<u64> {
        let mut grains = entry.stored.iter();
        let mut written = 0;
        for piece in &entry.pieces {
            let frame = self.delta.frame(piece.frame)?;
            let mut at = to_usize(u64::from(piece.raw_offset));
            for grain in grains.by_ref().take(to_usize(u64::from(piece.grains))) {
                let range = self.geometry.grain_range(grain, entry.len);
                let bytes = frame.get(at..at + range.len());
                let bytes = bytes
                    .ok_or_else(|| Error::damaged("a frame is shorter than its grains").at(piece.frame, 0))?;
                sink.put(offset + range.start as u64, bytes)?;
                written += bytes.len() as u64;
                at += range.len();
            }
        }
        Ok(written)
    }
}
