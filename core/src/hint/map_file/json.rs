//! The maps that are JSON: our own, and those of rbd, nbdinfo, EBS and CSI.
//!
//! One pass with serde's visitors: an object is read key by key, the ranges of a list go into the map one by one, and
//! what the object was is decided at its end by the keys that it had. So a document may be longer than memory.
//! Keys that are not known are passed over; a list under a name that is not known is therefore no map, and refused.

mod object;
mod ranges;

use std::io::BufRead;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Binding, cut_short, unreadable, wrong};
use crate::error::{Error, Result};
use crate::hint::ChangeMap;
use object::Object;

/// A result inside serde's visitors, which add the line and column.
type Checked<T> = std::result::Result<T, String>;

pub(super) fn parse(reader: impl BufRead, map: &mut ChangeMap) -> Result<Binding> {
    let mut input = serde_json::Deserializer::from_reader(reader);
    let mut told = Told::default();
    loop {
        Document { map, told: &mut told, inside_list: false }.deserialize(&mut input).map_err(problem)?;
        if input.end().is_ok() {
            return told.binding();
        }
        if !matches!(told.form, None | Some(Form::Ebs | Form::Csi)) {
            return Err(wrong("a second JSON document follows the change map"));
        }
    }
}

fn problem(error: serde_json::Error) -> Error {
    if error.is_io() {
        return unreadable(error.into());
    }
    if error.is_eof() {
        return cut_short("the JSON text ends too early").because(error);
    }
    wrong("the change map is wrong").because(error)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Ranges,
    RbdDiff,
    DirtyBitmap,
    Ebs,
    Csi,
}

/// What all documents up to now have told.
#[derive(Default)]
struct Told {
    form: Option<Form>,
    binding: Binding,
    /// The last page of EBS named a next one.
    more_follows: bool,
    /// How far a dirty bitmap has told of every byte.
    end: u64,
}

impl Told {
    fn binding(mut self) -> Result<Binding> {
        if self.more_follows {
            return Err(cut_short("its last page has a NextToken")
                .hint("ask for the next page until no NextToken comes, and append each page to the file"));
        }
        self.binding.form = match self.form {
            None => "empty list",
            Some(Form::Ranges) => "ranges",
            Some(Form::RbdDiff) => "rbd diff",
            Some(Form::DirtyBitmap) => "dirty bitmap",
            Some(Form::Ebs) => "EBS",
            Some(Form::Csi) => "CSI",
        };
        if self.form == Some(Form::DirtyBitmap) {
            self.binding.volume_size = Some(self.end);
        }
        Ok(self.binding)
    }

    fn is(&mut self, form: Form) -> Checked<()> {
        match self.form.replace(form) {
            Some(before) if before != form => Err("two forms of change maps in one".into()),
            _ => Ok(()),
        }
    }

    fn size(&mut self, size: Option<u64>) -> Checked<()> {
        let before = self.binding.volume_size;
        if before.is_some() && size.is_some() && before != size {
            return Err("its parts are of volumes of different sizes".into());
        }
        self.binding.volume_size = size.or(before);
        Ok(())
    }
}

/// One JSON document, or one object of the list that is the document.
struct Document<'a> {
    map: &'a mut ChangeMap,
    told: &'a mut Told,
    inside_list: bool,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> std::result::Result<(), D::Error> {
        if self.inside_list { input.deserialize_map(self) } else { input.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a change map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<(), A::Error> {
        let mut object = Object::default();
        while let Some(key) = access.next_key()? {
            object.take(key, &mut access, self.map)?;
        }
        object.finish(self.told, self.map, self.inside_list).map_err(A::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        loop {
            let element = Document { map: &mut *self.map, told: &mut *self.told, inside_list: true };
            if list.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }
}
