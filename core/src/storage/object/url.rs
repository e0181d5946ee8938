//! The URL of a repository in an object store: `SCHEME://BUCKET/PREFIX?option=value&...`.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::units;

/// Smallest part that stores take (but for the last of an upload).
const PART_MIN: u64 = 5 << 20;
/// Largest part that stores take.
const PART_MAX: u64 = 5 << 30;
const DAY: u64 = 24 * 60 * 60;

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Amazon S3 and what speaks its language.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// How object lock keeps what a backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// `GOVERNANCE` or `COMPLIANCE`.
    pub mode: &'static str,
    /// For how long, from the newest backup that needs it.
    pub period: Duration,
}

/// A URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Which store.
    pub scheme: Scheme,
    /// Bucket or container.
    pub bucket: String,
    /// What all names begin with, without `/` at its ends.
    pub prefix: String,
    /// Class of deltas; the bucket's own when absent.
    pub storage_class: Option<String>,
    /// Retention that is extended by each backup.
    pub object_lock: Option<ObjectLock>,
    /// Bytes of every part of an upload but the last; they grow with the object when absent.
    pub part_size: Option<u64>,
    /// The user vouches that one host alone writes here: the store does not keep conditions.
    pub single_writer: bool,
}

impl Url {
    /// Takes a URL apart.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: String| {
            Error::new(ErrorKind::WrongUse, what)
                .path(text)
                .hint("write s3://BUCKET/PREFIX, and options as ?storage-class=CLASS&part-size=SIZE")
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" => Scheme::Azure,
            other => return Err(wrong(format!("unknown kind of object store '{other}'"))),
        };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        if bucket.is_empty() || bucket.contains(|c: char| c.is_whitespace() || c == '@' || c == ':') {
            return Err(wrong(format!("'{bucket}' is not the name of a bucket")));
        }
        if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong(format!("'{prefix}' cannot be a prefix")));
        }
        let mut url = Self {
            scheme,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            storage_class: None,
            object_lock: None,
            part_size: None,
            single_writer: false,
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            url.set(key, value).map_err(&wrong)?;
        }
        Ok(url)
    }

    fn set(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        match key {
            // The client library begins no upload in parts with a class there.
            "storage-class" if self.scheme == Scheme::Azure => {
                return Err("storage-class is not for az://: set the access tier of the account".to_owned());
            }
            "storage-class" if !value.is_empty() => self.storage_class = Some(value.to_owned()),
            "object-lock" if self.scheme == Scheme::S3 => {
                self.object_lock = Some(object_lock(value).ok_or_else(|| {
                    format!("object-lock={value} is neither compliance:DAYS nor governance:DAYS (such as compliance:30d)")
                })?);
            }
            "object-lock" => return Err("object-lock is for s3:// alone".to_owned()),
            "part-size" => {
                let size = units::parse_size(value).map_err(|error| error.full_text())?;
                if !(PART_MIN..=PART_MAX).contains(&size) {
                    return Err(format!("a part of {value}: it must be 5MiB to 5GiB"));
                }
                self.part_size = Some(size);
            }
            "single-writer" if value == "yes" => self.single_writer = true,
            _ => return Err(format!("unknown option '{key}={value}'")),
        }
        Ok(())
    }

    /// The URL without its options, with `/` at its end.
    #[must_use]
    pub fn root(&self) -> String {
        let scheme = match self.scheme {
            Scheme::S3 => "s3",
            Scheme::Google => "gs",
            Scheme::Azure => "az",
        };
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{scheme}://{}/{}{slash}", self.bucket, self.prefix)
    }
}

/// `compliance:30d`.
fn object_lock(text: &str) -> Option<ObjectLock> {
    let (mode, period) = text.split_once(':')?;
    let mode = match mode {
        "compliance" => "COMPLIANCE",
        "governance" => "GOVERNANCE",
        _ => return None,
    };
    let days: u64 = period.strip_suffix('d')?.parse().ok().filter(|days| (1..=36_500).contains(days))?;
    Some(ObjectLock { mode, period: Duration::from_secs(days * DAY) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url =
            Url::parse("s3://b/a/b/?storage-class=STANDARD_IA&object-lock=compliance:30d&part-size=64MiB");
        let url = url.unwrap();
        assert_eq!(
            (url.bucket.as_str(), url.prefix.as_str(), url.root().as_str()),
            ("b", "a/b", "s3://b/a/b/")
        );
        assert_eq!(url.storage_class.as_deref(), Some("STANDARD_IA"));
        assert_eq!(url.object_lock.unwrap().period, Duration::from_secs(30 * DAY));
        assert_eq!(url.part_size, Some(64 << 20));
        assert_eq!(Url::parse("gs://bucket").unwrap().root(), "gs://bucket/");
    }

    #[test]
    fn wrong_urls_are_refused() {
        for text in [
            "s3://",
            "s3:///prefix",
            "s3://user:key@bucket/x",
            "s3://b/a//b",
            "s3://b/a/../b",
            "s3://b/x?storage-clas=IA",
            "s3://b/x?object-lock=30d",
            "s3://b/x?object-lock=compliance:0d",
            "s3://b/x?part-size=1MiB",
            "az://b/x?object-lock=compliance:30d",
            "az://b/x?storage-class=Cool",
        ] {
            assert_eq!(Url::parse(text).unwrap_err().kind(), ErrorKind::WrongUse, "{text}");
        }
    }
}
