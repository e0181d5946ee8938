//! `keys/ID.json`: the repository's master keys, wrapped by one passphrase or key file.
//!
//! The wrapped keys are bound to the exact bytes of what the slot says of itself, which therefore stay as they were read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backup_id::BackupId;
use crate::digest::from_hex;
use crate::error::{Error, ErrorKind, Result};

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// A passphrase.
    Passphrase,
    /// The bytes of a file.
    KeyFile,
}

impl SecretKind {
    /// Its name in the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key-file",
        }
    }
}

/// What Argon2id costs: those who guess pay it for each guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

/// What a slot says of itself; all of it in clear, none of it can be changed unseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotFacts {
    /// Version of this layout.
    pub schema_version: u32,
    /// Random name of the slot, which is its object's too.
    pub key_id: BackupId,
    /// What opens it.
    pub kind: SecretKind,
    /// When it was made.
    pub created_at: Timestamp,
    /// Where it was made.
    pub host: String,
    /// For people.
    pub note: String,
    /// What Argon2id costs.
    pub argon2id: Cost,
    /// Salt of Argon2id, in hexadecimal digits.
    pub salt: String,
    /// What tells the right secret from a wrong one, in hexadecimal digits.
    pub check: String,
}

/// The whole slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySlot {
    /// [`SlotFacts`], byte for byte.
    pub slot: Box<RawValue>,
    /// The wrapped keys, in hexadecimal digits.
    pub wrapped: String,
}

impl KeySlot {
    /// The layout that this version writes.
    pub const SCHEMA_VERSION: u32 = 1;
    /// Longest wrapped keys in bytes.
    const WRAPPED_MAX: usize = 16 << 10;

    /// What it says of itself.
    pub fn facts(&self) -> Result<SlotFacts> {
        let text = self.slot.get();
        let version: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let version = version.get("schema_version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(Self::SCHEMA_VERSION)) {
            return Err(Error::new(ErrorKind::Unsupported, "a key slot of a newer version"));
        }
        serde_json::from_str(text).map_err(|source| {
            Error::new(ErrorKind::Unsupported, "a key slot that this version cannot read").because(source)
        })
    }

    /// The wrapped keys.
    pub fn wrapped(&self) -> Result<Vec<u8>> {
        let pairs = self.wrapped.as_bytes().chunks(2);
        let wrapped: Option<Vec<u8>> =
            pairs.map(|pair| from_hex::<1>(std::str::from_utf8(pair).ok()?).map(|[byte]| byte)).collect();
        wrapped
            .filter(|bytes| bytes.len() <= Self::WRAPPED_MAX)
            .ok_or_else(|| Error::damaged("the wrapped keys of a key slot are no digits"))
    }
}
