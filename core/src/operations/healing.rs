//! Healing: what verify or a restore found damaged is noted, and the next backup of the volume stores again what the
//! source still has of it.
//!
//! The note tells places in deltas, not blocks: which blocks of the newest backup need them is looked up in the indexes
//! when they are to be healed. So a note never says too little after merges and later backups, and it is empty as soon as
//! the newest backup needs none of its places any more.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::damage::Place;
use crate::error::{Error, Result};
use crate::local_state::notes::{self, Note};
use crate::repository::Repository;

const KIND: &str = "damage";
const VERSION: u32 = 1;
/// Places beyond these are not noted: a repository that is damaged so widely needs a new full backup.
const PLACES_MAX: usize = 100_000;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    version: u32,
    places: Vec<Place>,
}

/// Adds damaged places of a volume to what is noted, and takes those away that are sound now.
///
/// # Errors
/// Of writing the note.
pub(super) fn note(
    state: &Path,
    repository: &Repository,
    volume: &str,
    damaged: &[Place],
    sound: &dyn Fn(&Place) -> bool,
) -> Result<()> {
    let note = Note::new(state, repository, volume, KIND)?;
    let before = noted(&note);
    let same = |a: &Place, b: &Place| (&a.delta, a.spot) == (&b.delta, b.spot);
    let mut places: Vec<Place> = before.iter().filter(|place| !sound(place)).cloned().collect();
    for place in damaged {
        if !places.iter().any(|held| same(held, place)) && places.len() < PLACES_MAX {
            places.push(place.clone());
        }
    }
    if places == before {
        return Ok(());
    }
    if places.is_empty() {
        return note.remove();
    }
    notes::folder(state, repository)?;
    note.write(&Noted { version: VERSION, places })
}

/// Places of a volume that are noted.
///
/// # Errors
/// `WrongUse` for a volume that cannot be.
pub(super) fn noted_places(state: &Path, repository: &Repository, volume: &str) -> Result<Vec<Place>> {
    Ok(noted(&Note::new(state, repository, volume, KIND)?))
}

fn noted(note: &Note) -> Vec<Place> {
    if !note.path().exists() {
        return Vec::new();
    }
    note.read::<Noted>()
        .filter(|noted| noted.version == VERSION)
        .map(|noted| noted.places)
        .unwrap_or_default()
}

/// For a report: the work is done, the note is not.
pub(super) fn not_noted(error: &Error) -> String {
    format!("the damage could not be noted, so the next backup will not heal it ({})", error.full_text())
}
