//! Lists of ranges inside a JSON object, each element put into the map as it is read; and the values that such maps are
//! made of, written as JSON's own or as text.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};

use crate::hint::ChangeMap;
use crate::hint::map_file::add;

/// The only block size that EBS has.
pub(super) const EBS_BLOCK_SIZE: u64 = 512 << 10;

/// An element that stands for a range of bytes.
pub(super) trait Element: for<'de> Deserialize<'de> {
    fn span(&self) -> Option<(u64, u64)>;
}

/// Our own: `{"offset": 0, "length": 8192, "kind": "data"}`. Both kinds are changes.
#[derive(Deserialize)]
pub(super) struct ByteRange {
    offset: Number,
    length: Number,
    #[serde(rename = "kind")]
    _kind: Option<Kind>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Data,
    Zero,
}

impl Element for ByteRange {
    fn span(&self) -> Option<(u64, u64)> {
        Some((self.offset.0, self.length.0))
    }
}

/// Of EBS: `{"BlockIndex": 7, ...}`; the tokens only say which snapshot has the block.
#[derive(Deserialize)]
pub(super) struct EbsBlock {
    #[serde(rename = "BlockIndex")]
    index: Number,
}

impl Element for EbsBlock {
    fn span(&self) -> Option<(u64, u64)> {
        Some((self.index.0.checked_mul(EBS_BLOCK_SIZE)?, EBS_BLOCK_SIZE))
    }
}

/// Of CSI. Writers of protobuf's JSON leave out a number that is 0, which only the offset can be.
#[derive(Deserialize)]
pub(super) struct MetadataRange {
    #[serde(default, alias = "byteOffset")]
    byte_offset: Number,
    #[serde(alias = "sizeBytes")]
    size_bytes: Number,
}

impl Element for MetadataRange {
    fn span(&self) -> Option<(u64, u64)> {
        Some((self.byte_offset.0, self.size_bytes.0))
    }
}

/// A list of such elements, on its way into a map.
pub(super) struct List<'a, T> {
    map: &'a mut ChangeMap,
    element: PhantomData<T>,
}

impl<'a, T> List<'a, T> {
    pub(super) fn new(map: &'a mut ChangeMap) -> Self {
        Self { map, element: PhantomData }
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for List<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for List<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ranges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element::<T>()? {
            let span = element.span().ok_or_else(|| A::Error::custom("a number too large for an offset"))?;
            add(self.map, span.0, span.1).map_err(A::Error::custom)?;
        }
        Ok(())
    }

    /// Some writers say null for a list without elements.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A number, or a text with its decimal digits.
#[derive(Clone, Copy, Default)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of 64 bits")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Number, E> {
        value.parse().map(Number).map_err(|_| E::invalid_value(Unexpected::Str(value), &self))
    }
}
