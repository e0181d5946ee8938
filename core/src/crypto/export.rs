//! The key of a repository as text for the safe: short enough to be printed and typed, with a checksum against typing.
//!
//! ```text
//! blkdelta-key 1
//! repository 32 hex digits
//! config 64 hex digits                 BLAKE3 of config.json
//! key 32 hex digits 64 hex digits      name and secret; one line for each master key, oldest first
//! checksum 16 hex digits
//! ```
//! Digits may be grouped by blanks; empty lines and lines that begin with `#` are passed over. Whoever has the text can
//! read and write the repository: it is as secret as all its volumes together.

use zeroize::Zeroizing;

use super::master_keys::{KEY_ID_LEN, KEY_LEN, MasterKey, MasterKeys};
use crate::backup_id::BackupId;
use crate::digest::{from_hex, to_hex};
use crate::error::{Error, ErrorKind, Result};

const TITLE: &str = "blkdelta-key";
const GROUP: usize = 8;
const CHECKSUM_LEN: usize = 8;

/// What opens a repository without any passphrase.
#[derive(Clone)]
pub struct ExportedKey {
    /// The repository.
    pub repository: BackupId,
    /// BLAKE3 of its configuration.
    pub config: [u8; 32],
    /// Its keys.
    pub keys: MasterKeys,
}

impl ExportedKey {
    /// Whether a text claims to be one.
    #[must_use]
    pub fn is_one(text: &[u8]) -> bool {
        std::str::from_utf8(text)
            .is_ok_and(|text| lines(text).next().is_some_and(|line| line.starts_with(TITLE)))
    }

    /// As text.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(format!(
            "# The key of a blkdelta repository. Whoever has it can read every backup there: keep it in a safe.\n\
             # Typed into a file again, it opens the repository when all passphrases are lost:\n\
             #   blkdelta key import FILE            adds a new passphrase\n\
             #   BLKDELTA_KEY_FILE=FILE blkdelta restore ...\n\
             {TITLE} 1\nrepository {}\nconfig {}\n",
            grouped(self.repository.as_bytes()).as_str(),
            grouped(&self.config).as_str(),
        ));
        for key in self.keys.iter() {
            text.push_str(&Zeroizing::new(format!("key {} {}\n", key.id, grouped(&*key.key).as_str())));
        }
        text.push_str(&format!("checksum {}\n", grouped(&self.checksum()).as_str()));
        text
    }

    fn checksum(&self) -> [u8; CHECKSUM_LEN] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"blkdelta.export.1");
        hasher.update(self.repository.as_bytes()).update(&self.config).update(&self.keys.encode());
        let mut checksum = [0; CHECKSUM_LEN];
        checksum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_LEN]);
        checksum
    }

    /// Reads such a text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = lines(text);
        match lines.next().and_then(|line| line.strip_prefix(TITLE)).map(str::trim) {
            Some("1") => {}
            Some(version) => {
                let text = format!("an exported key of version '{version}'");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            None => return Err(wrong("this is no exported key")),
        }
        let (mut repository, mut config, mut keys, mut checksum) = (None, None, Vec::new(), None);
        for line in lines {
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let digits: Zeroizing<String> = Zeroizing::new(rest.split_whitespace().collect());
            match word {
                "repository" => repository = from_hex(&digits).map(BackupId::from_bytes),
                "config" => config = from_hex(&digits),
                "key" => keys.push(
                    key(&digits).ok_or_else(|| wrong("a key line of an exported key has wrong digits"))?,
                ),
                "checksum" => checksum = from_hex(&digits),
                _ => return Err(wrong("an exported key has a line that nobody knows")),
            }
        }
        let keys = MasterKeys::new(keys);
        let (Some(repository), Some(config), Some(keys)) = (repository, config, keys) else {
            return Err(wrong("lines of an exported key are missing or have wrong digits"));
        };
        let found = Self { repository, config, keys };
        if checksum != Some(found.checksum()) {
            return Err(wrong("the lines of an exported key do not match their checksum"));
        }
        Ok(found)
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn key(digits: &str) -> Option<MasterKey> {
    let (id, key) = digits.split_at_checked(2 * KEY_ID_LEN)?;
    let key = Zeroizing::new(from_hex::<KEY_LEN>(key)?);
    Some(MasterKey { id: BackupId::from_bytes(from_hex(id)?), key })
}

/// Digits in groups, which eyes do not lose.
fn grouped(bytes: &[u8]) -> Zeroizing<String> {
    let digits = Zeroizing::new(to_hex(bytes));
    let mut text = Zeroizing::new(String::with_capacity(2 * digits.len()));
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % GROUP == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn wrong(text: &str) -> Error {
    Error::new(ErrorKind::WrongKey, text).hint("compare it with what was printed, line by line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_and_every_wrong_digit_is_found() {
        let keys = MasterKeys::new_random().unwrap().rotated().unwrap();
        let exported = ExportedKey { repository: BackupId::from_bytes([9; 16]), config: [3; 32], keys };
        let text = exported.to_text();
        assert!(ExportedKey::is_one(text.as_bytes()) && text.lines().all(|line| line.len() <= 110));
        let typed = text.replace(' ', "   ").replace('\n', "\r\n\n");
        for text in [text.as_str(), &typed] {
            let back = ExportedKey::parse(text).unwrap();
            assert_eq!((back.repository, back.config), (exported.repository, exported.config));
            assert_eq!(back.keys.encode(), exported.keys.encode());
        }
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for (at, line) in lines.iter().enumerate() {
            let flip = |c| if c == '1' { '2' } else { '1' };
            for (place, digit) in line.char_indices().filter(|(_, c)| c.is_ascii_hexdigit()) {
                let mut typed = lines.join("\n");
                let start: usize = lines[..at].iter().map(|line| line.len() + 1).sum();
                typed.replace_range(start + place..=start + place, &flip(digit).to_string());
                assert!(ExportedKey::parse(&typed).is_err(), "line {at}, digit {place}");
            }
            let without: Vec<&str> =
                lines.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, l)| *l).collect();
            assert!(ExportedKey::parse(&without.join("\n")).is_err(), "without line {at}");
        }
    }
}
