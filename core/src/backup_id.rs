//! What a backup is called and what its record says.
//!
//! A record is the commit point: a backup exists exactly when its record does. It names its parent by root and sequence,
//! never by wall time (clocks jump), and carries the digests of its delta and manifest.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::{DigestKind, RootDigest, from_hex, to_hex};
use crate::error::{Error, ErrorKind, Result};

/// Number of a backup inside its volume, from 1; what orders a chain.
pub type Sequence = u32;

/// Random name of a backup, 16 bytes, written as 32 hexadecimal digits; any unique prefix will do on a command line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId([u8; 16]);

impl BackupId {
    /// From random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupId({self})")
    }
}

impl FromStr for BackupId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        from_hex(text)
            .map(Self)
            .ok_or_else(|| Error::new(ErrorKind::WrongUse, format!("'{text}' is not a backup id")))
    }
}

impl Serialize for BackupId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which volume this is, whatever path it is reached by: `file:...`, `lvm:...`, `loop:...`, `device:...`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeIdentity(String);

impl VolumeIdentity {
    /// Longest identity in the formats, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Checks length and characters: the formats hold 256 bytes of printable text.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.is_empty() || text.len() > Self::MAX_LEN || text.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorKind::WrongUse,
                format!("'{}' cannot be an identity", text.escape_debug()),
            ));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a backup relates to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// Holds everything.
    Full,
    /// What changed since its parent.
    Incremental,
    /// What changed since the last full.
    Differential,
}

impl BackupKind {
    /// Its name in flags and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Differential => "differential",
        }
    }
}

/// The parent of a backup, as its child names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentLink {
    /// The parent's id, for people; what binds is root and sequence.
    pub backup_id: BackupId,
    /// The parent's sequence.
    pub sequence: Sequence,
    /// The parent's root.
    pub root: RootDigest,
}

/// Which hint was used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintReport {
    /// `none`, `holes`, `lvm-thin`, `lvm-thick`, `zfs`, or the form of a map file.
    pub kind: String,
    /// Why this one, in words.
    pub reason: String,
    /// Blocks that the hint called unchanged and that were read all the same, picked at the edges and by chance.
    pub sampled_blocks: u64,
    /// Blocks that were read because it was their turn in the rolling scan.
    #[serde(default)]
    pub rolling_blocks: u64,
    /// In how many runs the rolling scan passes over the volume; 0: there is none.
    #[serde(default)]
    pub rolling_runs: u32,
}

/// The snapshot that a backup was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRecord {
    /// `lvm-thick`, `lvm-thin` or `zfs`.
    pub kind: String,
    /// `VG/LV` or `POOL/VOL@SNAP`.
    pub name: String,
    /// What is never given twice: the snapshot's LV UUID or ZFS guid.
    pub uuid: String,
    /// What must still be the same when it serves as baseline: the thin id and its pool, the layout of a thick origin.
    pub generation: String,
    /// Whether it was left in place as the baseline of the next hint.
    pub kept: bool,
}

/// Where the databases on a volume stood at the moment of its snapshot; what recovery to a later point begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabasePosition {
    /// PostgreSQL, when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresPosition>,
    /// MySQL or MariaDB, when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlPosition>,
}

/// A place in the write-ahead log of a PostgreSQL cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresPosition {
    /// Without `backup_label`: the snapshot holds at least everything up to here. With it: where backup mode ended; a
    /// restored cluster needs the log from the label's start up to here.
    pub lsn: String,
    /// The timeline it is on.
    pub timeline: u32,
    /// Which cluster: what every file of its log begins with.
    pub system_identifier: String,
    /// The file `backup_label` that has to be put into the restored data directory (snapshots of several volumes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_label: Option<String>,
    /// The file `tablespace_map` that has to be put beside it, if there are tablespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace_map: Option<String>,
}

/// A place in the binary log of a MySQL or MariaDB server; nothing of it is there when the server keeps no binary log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MysqlPosition {
    /// File of the binary log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Byte in that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Transactions that have been executed, as the server writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
}

/// A file of a backup as its record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Name inside the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of all its bytes, in hexadecimal digits.
    pub blake3: String,
}

/// What a run counted. All sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Blocks of the volume.
    pub blocks_total: u64,
    /// Blocks that differ from the parent; in a full all that are not zero.
    pub blocks_changed: u64,
    /// Grains that differ from the parent; in a full all that are not zero.
    pub grains_changed: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes believed unchanged without having been read, on a hint.
    pub bytes_carried: u64,
    /// Bytes of the changed grains, before compression.
    pub bytes_changed: u64,
    /// Bytes that the repository (or the delta file) grew by.
    pub bytes_stored: u64,
    /// Wall time in seconds.
    pub duration_s: f64,
    /// Part of it spent waiting for limits, in seconds.
    pub throttled_s: f64,
}

/// One saved point of one volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRecord {
    /// Version of this record's layout.
    pub schema_version: u32,
    /// Its name.
    pub backup_id: BackupId,
    /// Name of the volume.
    pub volume: String,
    /// What the volume is.
    pub identity: VolumeIdentity,
    /// Host that made it.
    pub host: String,
    /// Full, incremental or differential.
    pub kind: BackupKind,
    /// Its number inside the volume.
    pub sequence: Sequence,
    /// What it builds on; absent for a full.
    pub parent: Option<ParentLink>,
    /// Path that was read.
    pub source: String,
    /// The moment whose state it holds.
    pub taken_at: Timestamp,
    /// When it was complete.
    pub finished_at: Timestamp,
    /// Bytes of the volume.
    pub size_bytes: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a grain.
    pub grain_size: u32,
    /// Which digest.
    pub digest: DigestKind,
    /// Digest of the whole volume.
    pub root: RootDigest,
    /// The oldest sequence at which a block was last really read; absent when a block was never read (a hole).
    pub oldest_read: Option<Sequence>,
    /// Which hint was used.
    pub hint: HintReport,
    /// What was counted.
    #[serde(flatten)]
    pub statistics: Statistics,
    /// The snapshot that was read; absent when the source was read as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotRecord>,
    /// The backups whose state is of one moment: the id of the group's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<BackupId>,
    /// Where the databases on it stood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<DatabasePosition>,
    /// False when something could not be read.
    pub complete: bool,
    /// Labels given by the user.
    pub tags: Vec<String>,
    /// The changed grains.
    pub delta: StoredFile,
    /// The digests.
    pub manifest: StoredFile,
    /// What wrote it.
    pub tool_version: String,
    /// How often the record of this sequence was written anew by a merge; 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u32,
    /// The backups whose place it took, oldest first, from earlier merges too; that of its own sequence had the same state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<ReplacedBackup>,
    /// The head of the audit log when it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditHead>,
}

/// A backup that was merged into another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplacedBackup {
    /// Its id.
    pub backup_id: BackupId,
    /// Its number inside the volume.
    pub sequence: Sequence,
}

/// The newest entry of a repository's audit log at some moment; it stands for all entries up to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// Whose log: a record that was copied keeps the head of the repository that it was made in.
    pub repository_id: BackupId,
    /// The entry's number.
    pub number: u32,
    /// BLAKE3 of all its bytes, in hexadecimal digits.
    pub digest: String,
}

impl AuditHead {
    /// Of an entry's bytes.
    #[must_use]
    pub fn of(repository_id: BackupId, number: u32, bytes: &[u8]) -> Self {
        Self { repository_id, number, digest: to_hex(blake3::hash(bytes).as_bytes()) }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // what serde wants
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl BackupRecord {
    /// The newest layout that this version writes: with a head of the audit log.
    pub const SCHEMA_VERSION: u32 = 4;

    /// The oldest layout that has all of its keys, so that older versions can read what they know.
    #[must_use]
    pub fn lowest_schema(&self) -> u32 {
        match (&self.audit, self.revision) {
            (Some(_), _) => Self::SCHEMA_VERSION,
            (None, 0) => 2,
            (None, _) => 3,
        }
    }

    /// The tag of backups that are never removed.
    pub const PIN: &str = "pin";

    /// Whether it is never to be removed.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.tags.iter().any(|tag| tag == Self::PIN)
    }

    /// Whether the id that begins so is that of a backup whose state went when it was merged into this one.
    #[must_use]
    pub fn was_merged_from(&self, prefix: &str) -> bool {
        let gone = self.replaces.iter().filter(|replaced| replaced.sequence != self.sequence);
        gone.map(|replaced| replaced.backup_id).any(|id| id.to_string().starts_with(prefix))
    }

    /// Whether this is its id, or that of a backup with the same state whose place it took, or the beginning of one.
    #[must_use]
    pub fn answers_to(&self, prefix: &str) -> bool {
        let same_state = self.replaces.iter().filter(|replaced| replaced.sequence == self.sequence);
        same_state
            .map(|replaced| replaced.backup_id)
            .chain([self.backup_id])
            .any(|id| id.to_string().starts_with(prefix))
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> [&StoredFile; 2] {
        [&self.delta, &self.manifest]
    }

    /// Its id, and those of all backups that were merged into it.
    pub fn all_ids(&self) -> impl Iterator<Item = BackupId> {
        self.replaces.iter().map(|replaced| replaced.backup_id).chain([self.backup_id])
    }

    /// Whether both stand for one state of one number: the same backup, or merges of it.
    #[must_use]
    pub fn is_same_state(&self, other: &Self) -> bool {
        let names = |record: &Self| {
            let older = record.replaces.iter().filter(|replaced| replaced.sequence == record.sequence);
            older.map(|replaced| replaced.backup_id).chain([record.backup_id]).collect::<Vec<_>>()
        };
        (self.sequence, self.root) == (other.sequence, other.root)
            && names(self).iter().any(|id| names(other).contains(id))
    }

    /// The snapshot that it left as the baseline of the next hint.
    #[must_use]
    pub fn baseline(&self) -> Option<&SnapshotRecord> {
        self.snapshot.as_ref().filter(|snapshot| snapshot.kept)
    }

    /// How a child names this backup.
    #[must_use]
    pub fn link(&self) -> ParentLink {
        ParentLink { backup_id: self.backup_id, sequence: self.sequence, root: self.root }
    }
}
