//! Names of the objects of a repository.
//!
//! ```text
//! config.json
//! keys/ID.json                                   of an encrypted repository: its key, wrapped by one passphrase
//! keys/lock                                      held while keys change
//! volumes/NAME/lock                              held by a run that writes
//! volumes/NAME/records/0000000001.json           a backup, by sequence
//! volumes/NAME/records/0000000001.0000000001.json  the same state, written anew by a merge: its revision
//! volumes/NAME/deltas/0000000001-ID.delta
//! volumes/NAME/manifests/0000000001-ID.manifest
//! volumes/NAME/tags/0000000001-0000000001.json   tags changed later, by sequence and generation
//! volumes/NAME/tags/lock                         held while tags change
//! volumes/NAME/tombstones/0000000001-ID.json     a backup that is about to be removed, where locks can be lost
//! ```
//! NAME is the volume's name with every byte but letters, digits, `-`, `_` and `.` as `%XX`.

use std::fmt::Write as _;

use crate::backup_id::{BackupId, Sequence};
use crate::error::{Error, ErrorKind, Result};

/// The configuration.
pub const CONFIG: &str = "config.json";
/// Folder of the key slots of an encrypted repository.
pub const KEYS: &str = "keys";
/// Folder of all volumes.
pub const VOLUMES: &str = "volumes";

/// Longest volume name in bytes: encoded, it must fit a file name.
const VOLUME_NAME_MAX: usize = 80;

/// Whether an object of an encrypted repository stays in clear: what is needed to open it, and locks.
#[must_use]
pub fn is_clear(name: &str) -> bool {
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    name == CONFIG || folder == KEYS || file == "lock"
}

/// Checks a volume's name and encodes it as a folder name.
pub fn encode_volume(name: &str) -> Result<String> {
    if name.is_empty() || name.len() > VOLUME_NAME_MAX || name.chars().any(char::is_control) {
        return Err(Error::new(
            ErrorKind::WrongUse,
            format!("'{}' cannot be a volume's name", name.escape_debug()),
        )
        .hint(format!("use 1 to {VOLUME_NAME_MAX} bytes without control characters")));
    }
    let mut encoded = String::new();
    for byte in name.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_')
            || (byte == b'.' && !encoded.is_empty());
        if plain {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Ok(encoded)
}

/// The name behind a folder; `None` for a folder that is not ours.
#[must_use]
pub fn decode_volume(folder: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = folder.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    let name = String::from_utf8(bytes).ok()?;
    (encode_volume(&name).ok()? == folder).then_some(name)
}

/// The folders and objects of one volume.
#[derive(Debug, Clone)]
pub struct VolumeLayout {
    folder: String,
}

impl VolumeLayout {
    /// Of the volume with this name.
    pub fn new(volume: &str) -> Result<Self> {
        Ok(Self { folder: format!("{VOLUMES}/{}", encode_volume(volume)?) })
    }

    /// The lock.
    #[must_use]
    pub fn lock(&self) -> String {
        format!("{}/lock", self.folder)
    }

    /// Folder of the records.
    #[must_use]
    pub fn records(&self) -> String {
        format!("{}/records", self.folder)
    }

    /// Folder of the deltas.
    #[must_use]
    pub fn deltas(&self) -> String {
        format!("{}/deltas", self.folder)
    }

    /// Folder of the manifests.
    #[must_use]
    pub fn manifests(&self) -> String {
        format!("{}/manifests", self.folder)
    }

    /// Folder of the tags that were changed later.
    #[must_use]
    pub fn tags(&self) -> String {
        format!("{}/tags", self.folder)
    }

    /// The lock of these tags.
    #[must_use]
    pub fn tags_lock(&self) -> String {
        format!("{}/lock", self.tags())
    }

    /// A generation of a backup's tags.
    #[must_use]
    pub fn tags_of(&self, sequence: Sequence, generation: u32) -> String {
        format!("{}/{sequence:010}-{generation:010}.json", self.tags())
    }

    /// Folder of the tombstones.
    #[must_use]
    pub fn tombstones(&self) -> String {
        format!("{}/tombstones", self.folder)
    }

    /// The tombstone of a backup.
    #[must_use]
    pub fn tombstone(&self, sequence: Sequence, id: BackupId) -> String {
        format!("{}/{sequence:010}-{id}.json", self.tombstones())
    }

    /// The record of a sequence; that of a merge has its revision in its name.
    #[must_use]
    pub fn record(&self, sequence: Sequence, revision: u32) -> String {
        match revision {
            0 => format!("{}/{sequence:010}.json", self.records()),
            _ => format!("{}/{sequence:010}.{revision:010}.json", self.records()),
        }
    }

    /// The delta of a backup.
    #[must_use]
    pub fn delta(&self, sequence: Sequence, id: BackupId) -> String {
        format!("{}/{sequence:010}-{id}.delta", self.deltas())
    }

    /// The manifest of a backup.
    #[must_use]
    pub fn manifest(&self, sequence: Sequence, id: BackupId) -> String {
        format!("{}/{sequence:010}-{id}.manifest", self.manifests())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["db", "host/db", "..", ".x", "größe 1", "a%2Fb"] {
            let folder = encode_volume(name).unwrap();
            assert!(!folder.contains('/') && !folder.starts_with('.'), "{folder}");
            assert_eq!(decode_volume(&folder).as_deref(), Some(name));
        }
        assert!(encode_volume("").is_err() && encode_volume("a\nb").is_err());
        assert_eq!(decode_volume("%2"), None);
        assert_eq!(decode_volume("a b"), None);
    }
}
