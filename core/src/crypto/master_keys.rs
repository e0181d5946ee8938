//! The keys that all others come from: random, one for each time the repository's key was changed. The newest seals; the
//! older ones open what was sealed before.

use zeroize::Zeroizing;

use crate::backup_id::BackupId;
use crate::error::{Error, Result};
use crate::sys::host::random_bytes;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Bytes of a key's name.
pub const KEY_ID_LEN: usize = 16;
const ENTRY_LEN: usize = KEY_ID_LEN + KEY_LEN;
/// Most keys of a repository: it may be rotated so often.
pub const KEYS_MAX: usize = 64;

/// One of them.
#[derive(Clone)]
pub struct MasterKey {
    /// Its random name, which sealed objects tell in clear.
    pub id: BackupId,
    /// The secret.
    pub key: Zeroizing<[u8; KEY_LEN]>,
}

impl MasterKey {
    fn new_random() -> Result<Self> {
        Ok(Self { id: BackupId::from_bytes(random_bytes()?), key: Zeroizing::new(random_bytes()?) })
    }
}

/// All of a repository, oldest first; never none.
#[derive(Clone)]
pub struct MasterKeys(Vec<MasterKey>);

impl MasterKeys {
    /// Of a new repository.
    pub fn new_random() -> Result<Self> {
        Ok(Self(vec![MasterKey::new_random()?]))
    }

    /// Those of a list that is not empty and names none twice.
    pub fn new(keys: Vec<MasterKey>) -> Option<Self> {
        let twice = |at: usize| keys[..at].iter().any(|key| key.id == keys[at].id);
        let sound = (1..=KEYS_MAX).contains(&keys.len()) && !(0..keys.len()).any(twice);
        sound.then_some(Self(keys))
    }

    /// With a new one, which seals from now on.
    pub fn rotated(&self) -> Result<Self> {
        let mut keys = self.0.clone();
        keys.push(MasterKey::new_random()?);
        Self::new(keys).ok_or_else(|| {
            Error::new(crate::error::ErrorKind::WrongUse, format!("a repository has at most {KEYS_MAX} keys"))
                .hint("copy it into a new repository")
        })
    }

    /// The one that seals.
    #[must_use]
    pub fn newest(&self) -> &MasterKey {
        &self.0[self.0.len() - 1]
    }

    /// The one with this name.
    #[must_use]
    pub fn find(&self, id: BackupId) -> Option<&MasterKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &MasterKey> {
        self.0.iter()
    }

    /// Name and secret of each, one behind the other.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.0.len() * ENTRY_LEN));
        for key in &self.0 {
            bytes.extend_from_slice(key.id.as_bytes());
            bytes.extend_from_slice(&*key.key);
        }
        bytes
    }

    /// What [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
        let keys = entries.iter().map(|entry| {
            let (mut id, mut key) = ([0; KEY_ID_LEN], Zeroizing::new([0; KEY_LEN]));
            id.copy_from_slice(&entry[..KEY_ID_LEN]);
            key.copy_from_slice(&entry[KEY_ID_LEN..]);
            MasterKey { id: BackupId::from_bytes(id), key }
        });
        let keys = Self::new(keys.collect()).filter(|_| rest.is_empty());
        keys.ok_or_else(|| Error::damaged("the keys in a key slot are not a list of keys"))
    }
}
