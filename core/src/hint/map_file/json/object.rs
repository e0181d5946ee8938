//! One object of a JSON map: reading its keys, and telling by them which tool it comes from.

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess};
use serde_json::Value;

use super::ranges::{ByteRange, EBS_BLOCK_SIZE, EbsBlock, List, MetadataRange, Number};
use super::{Checked, Form, Told};
use crate::hint::ChangeMap;
use crate::hint::map_file::add;

/// The largest EBS volume has 64 TiB; a larger number than this is bytes, as older answers have them.
const EBS_GIB_MAX: u64 = 64 << 10;

/// Keys of an object, at the top or in the list at the top.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier)]
pub(super) enum Key {
    #[serde(rename = "ranges")]
    Ranges,
    #[serde(rename = "parent_root")]
    ParentRoot,
    #[serde(rename = "root")]
    Root,
    #[serde(rename = "from")]
    From,
    #[serde(rename = "size_bytes")]
    SizeBytes,
    #[serde(rename = "offset")]
    Offset,
    #[serde(rename = "length")]
    Length,
    #[serde(rename = "exists")]
    Exists,
    #[serde(rename = "type")]
    Type,
    #[serde(rename = "description")]
    Description,
    ChangedBlocks,
    BlockSize,
    VolumeSize,
    NextToken,
    #[serde(rename = "block_metadata", alias = "blockMetadata")]
    BlockMetadata,
    #[serde(rename = "volume_capacity_bytes", alias = "volumeCapacityBytes")]
    VolumeCapacity,
    #[serde(other)]
    Other,
}

/// What one object has said; its lists have gone into the map already.
#[derive(Default)]
pub(super) struct Object {
    ranges: bool,
    /// Outer `None`: not said; inner `None`: compared with nothing.
    parent_root: Option<Option<String>>,
    root: Option<String>,
    from: Option<String>,
    size_bytes: Option<Number>,
    offset: Option<Number>,
    length: Option<Number>,
    exists: Option<Value>,
    type_: Option<Number>,
    description: Option<String>,
    changed_blocks: bool,
    block_size: Option<Number>,
    volume_size: Option<Number>,
    next_token: Option<String>,
    block_metadata: bool,
    volume_capacity: Option<Number>,
}

impl Object {
    /// Reads the value of one key.
    pub(super) fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: Key,
        access: &mut A,
        map: &mut ChangeMap,
    ) -> Result<(), A::Error> {
        match key {
            Key::Ranges => {
                access.next_value_seed(List::<ByteRange>::new(map))?;
                self.ranges = true;
            }
            Key::ChangedBlocks => {
                access.next_value_seed(List::<EbsBlock>::new(map))?;
                self.changed_blocks = true;
            }
            Key::BlockMetadata => {
                access.next_value_seed(List::<MetadataRange>::new(map))?;
                self.block_metadata = true;
            }
            Key::ParentRoot => self.parent_root = Some(access.next_value()?),
            Key::Root => self.root = access.next_value()?,
            Key::From => self.from = access.next_value()?,
            Key::SizeBytes => self.size_bytes = access.next_value()?,
            Key::Offset => self.offset = access.next_value()?,
            Key::Length => self.length = access.next_value()?,
            Key::Exists => self.exists = access.next_value()?,
            Key::Type => self.type_ = access.next_value()?,
            Key::Description => self.description = access.next_value()?,
            Key::BlockSize => self.block_size = access.next_value()?,
            Key::VolumeSize => self.volume_size = access.next_value()?,
            Key::NextToken => self.next_token = access.next_value()?,
            Key::VolumeCapacity => self.volume_capacity = access.next_value()?,
            Key::Other => drop(access.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }

    /// Decides what it was, and adds it to what was told before.
    pub(super) fn finish(self, told: &mut Told, map: &mut ChangeMap, inside_list: bool) -> Checked<()> {
        if self.ranges && !inside_list {
            self.finish_ranges(told)
        } else if self.changed_blocks {
            self.finish_ebs(told)
        } else if self.block_metadata || self.volume_capacity.is_some() {
            told.is(Form::Csi)?;
            told.size(self.volume_capacity.map(|size| size.0))
        } else if inside_list && let (Some(offset), Some(length)) = (self.offset, self.length) {
            self.finish_listed(offset.0, length.0, told, map)
        } else {
            Err("an object that no known change map has".into())
        }
    }

    fn finish_ranges(self, told: &mut Told) -> Checked<()> {
        told.is(Form::Ranges)?;
        if self.parent_root == Some(None) {
            return Err(
                "it comes from a scan without --manifest and lists what holds data, not what changed".into(),
            );
        }
        told.binding.parent_root = self.parent_root.flatten();
        told.binding.root = self.root;
        told.binding.parent_backup = self.from;
        told.size(self.size_bytes.map(|size| size.0))
    }

    fn finish_ebs(self, told: &mut Told) -> Checked<()> {
        told.is(Form::Ebs)?;
        let block_size = self.block_size.map(|size| size.0);
        if block_size != Some(EBS_BLOCK_SIZE) {
            return Err(format!("a page of EBS has to name a BlockSize of {EBS_BLOCK_SIZE}"));
        }
        told.more_follows = self.next_token.is_some_and(|token| !token.is_empty());
        let bytes = |size: u64| if size <= EBS_GIB_MAX { size << 30 } else { size };
        told.size(self.volume_size.map(|size| bytes(size.0)))
    }

    /// A range in the list at the top: rbd lists changes only, nbdinfo every range of the volume.
    fn finish_listed(&self, offset: u64, length: u64, told: &mut Told, map: &mut ChangeMap) -> Checked<()> {
        if let Some(exists) = &self.exists {
            told.is(Form::RbdDiff)?;
            if !exists.is_boolean() && !matches!(exists.as_str(), Some("true" | "false")) {
                return Err(format!("'exists' is {exists}"));
            }
            return add(map, offset, length).map(drop);
        }
        if self.type_.is_none() {
            return Err("a range with neither 'exists' (rbd) nor 'type' (nbdinfo)".into());
        }
        told.is(Form::DirtyBitmap)?;
        if offset != told.end {
            return Err(format!("a gap or an overlap: the range before it ended at {}", told.end));
        }
        let changed = if self.is_dirty()? { length } else { 0 };
        told.end = offset.checked_add(length).ok_or("a range ends beyond what 64 bits can count")?;
        add(map, offset, changed).map(drop)
    }

    fn is_dirty(&self) -> Checked<bool> {
        match self.description.as_deref() {
            Some("dirty") => Ok(true),
            Some("clean") => Ok(false),
            other => Err(format!(
                "'{}' says what is allocated, not what changed: take the map of a dirty bitmap \
                 (nbdinfo --map=qemu:dirty-bitmap:NAME --json)",
                other.unwrap_or("a type without a description")
            )),
        }
    }
}
