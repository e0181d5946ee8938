//! The envelope of small JSON files (backup records, the repository's configuration): one line that carries a BLAKE3 of
//! the document inside, so that a flipped byte is told apart from a decision.
//!
//! ```text
//! {"blkdelta":1,"blake3":"<64 hex digits>","record":<document>}\n
//! ```
//! The digest covers the document's exact bytes. The envelope has no freedom: it is taken apart by position.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::to_hex;
use crate::error::{Error, ErrorKind, Result};

const START: &str = r#"{"blkdelta":1,"blake3":""#;
const MIDDLE: &str = r#"","record":"#;
const END: &str = "}\n";
/// Longest document that is read, in bytes.
pub const MAX_LEN: u64 = 1 << 20;

/// Wraps a document.
pub fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>> {
    let text = serde_json::to_string(document)
        .map_err(|source| Error::new(ErrorKind::Io, "writing a record as JSON").because(source))?;
    let digest = to_hex(blake3::hash(text.as_bytes()).as_bytes());
    Ok(format!("{START}{digest}{MIDDLE}{text}{END}").into_bytes())
}

/// Unwraps a document whose digest matches.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let document = checked(bytes).ok_or_else(|| match envelope_version(bytes) {
        Some(version) if version > 1 => {
            Error::new(ErrorKind::Unsupported, format!("a record in an envelope of version {version}"))
        }
        _ => Error::damaged("a record does not match its digest"),
    })?;
    serde_json::from_str(document).map_err(|source| {
        Error::new(ErrorKind::Unsupported, "a record that this version cannot read").because(source)
    })
}

/// The version an envelope claims, so that a newer one is told apart from damage.
fn envelope_version(bytes: &[u8]) -> Option<u64> {
    let text = bytes.strip_prefix(br#"{"blkdelta":"#)?;
    let digits = text.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn checked(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.strip_prefix(START)?.strip_suffix(END)?;
    let (digest, rest) = text.split_at_checked(64)?;
    let document = rest.strip_prefix(MIDDLE)?;
    (to_hex(blake3::hash(document.as_bytes()).as_bytes()) == digest).then_some(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flip_or_cut_is_found() {
        let bytes = encode(&serde_json::json!({"a": 1, "b": "text"})).unwrap();
        assert_eq!(decode::<serde_json::Value>(&bytes).unwrap()["b"], "text");
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(decode::<serde_json::Value>(&flipped).is_err(), "byte {at}");
            assert!(decode::<serde_json::Value>(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
