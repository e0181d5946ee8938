//! `config.json` of a repository: what is fixed when it is made. And the compression that frames use.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup_id::BackupId;
use crate::digest::DigestKind;
use crate::error::{Error, ErrorKind, Result};
use crate::geometry::Geometry;

/// How a frame's payload is coded, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    None,
    /// An LZ4 block.
    Lz4,
    /// A Zstandard frame.
    Zstd,
}

impl Codec {
    /// Its number in the format.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec with this number.
    pub fn from_code(code: u8) -> Result<Self> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("compression {code}"))),
        }
    }
}

/// What the user chose: `none`, `lz4`, `zstd` or `zstd:LEVEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Store as it is.
    None,
    /// Fast.
    Lz4,
    /// Zstandard at this level, 1 to 19.
    Zstd(i32),
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::WrongUse, format!("unknown compression '{text}'"))
                .hint("use none, lz4, zstd or zstd:LEVEL with a level from 1 to 19")
        };
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "lz4" => Ok(Self::Lz4),
            None if text == "zstd" => Ok(Self::default()),
            Some(("zstd", level)) => {
                let level = level.parse().ok().filter(|level| (1..=19).contains(level));
                level.map(Self::Zstd).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl Serialize for Compression {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The repository's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// Version of the repository's layout.
    pub format_version: u32,
    /// Random name of the repository; local state is kept by it.
    pub repository_id: BackupId,
    /// When it was made.
    pub created_at: Timestamp,
    /// Which digest.
    pub digest: DigestKind,
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a grain.
    pub grain_size: u32,
    /// How frames are compressed unless a run says otherwise.
    pub compression: Compression,
    /// How objects are sealed; `None` when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// How an encrypted repository's objects are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encryption {
    /// AES-256-GCM in units of 64 KiB.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}

impl RepositoryConfig {
    /// The newest layout that this version reads: that of encrypted repositories.
    pub const FORMAT_VERSION: u32 = Self::ENCRYPTED;
    /// The layout of repositories in clear.
    pub const IN_CLEAR: u32 = 1;
    /// The same with all objects sealed but the configuration, the keys and locks.
    pub const ENCRYPTED: u32 = 2;

    /// Checks what a file claims.
    pub fn check(&self) -> Result<()> {
        let version = if self.encryption.is_some() { Self::ENCRYPTED } else { Self::IN_CLEAR };
        if self.format_version != version {
            let text = format!("format {} does not fit the encryption it names", self.format_version);
            return Err(Error::damaged(text));
        }
        self.check_digest()?;
        Geometry::new(0, self.block_size, self.grain_size).map(|_| ())
    }

    /// Refuses a digest that encryption would not go with.
    pub fn check_digest(&self) -> Result<()> {
        if self.encryption.is_some() && self.digest == DigestKind::Xxh3 {
            let text =
                "xxh3 is no digest for an encrypted repository: who writes the volume could hide changes";
            return Err(Error::new(ErrorKind::WrongUse, text).hint("use blake3, or sha256"));
        }
        Ok(())
    }

    /// The version a configuration claims, read before the rest, so that a newer one is told apart from damage.
    pub fn version_of(bytes: &[u8]) -> Option<u64> {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        value.get("record")?.get("format_version")?.as_u64()
    }
}
