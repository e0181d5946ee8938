//! Where a repository is, as people write it: a directory, or the URL of an object store.
//!
//! Only a text with `://` is a URL; anything else is a path, so that no directory changes its meaning. A path that looks
//! like a URL (a folder named `s3:`) can still be reached as `./s3:/...`.

use std::path::Path;
use std::sync::Arc;

use super::Storage;
use super::local::LocalStorage;
use crate::error::{Error, ErrorKind, Result};

/// Opens the storage at a location: a directory, `file://DIRECTORY`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
/// `az://CONTAINER/PREFIX`. Nothing is read or made yet.
pub fn at(location: impl AsRef<Path>) -> Result<Arc<dyn Storage>> {
    let path = location.as_ref();
    match path.to_str().and_then(|text| Some((text, text.split_once("://")?))) {
        None => Ok(Arc::new(LocalStorage::new(path))),
        Some((_, ("file", folder))) => Ok(Arc::new(LocalStorage::new(folder))),
        Some((url, (scheme, _))) => remote(url, scheme),
    }
}

/// Whether a location, or the path of an object for people, is on another machine.
#[must_use]
pub fn is_url(location: &Path) -> bool {
    location.to_str().is_some_and(|text| text.contains("://"))
}

fn remote(url: &str, scheme: &str) -> Result<Arc<dyn Storage>> {
    match scheme {
        #[cfg(feature = "object-storage")]
        "s3" | "gs" | "az" => super::object::open(url),
        #[cfg(not(feature = "object-storage"))]
        "s3" | "gs" | "az" => {
            Err(Error::new(ErrorKind::Unsupported, format!("built without object storage: {url}"))
                .hint("build it with the feature object-storage"))
        }
        _ => Err(Error::new(ErrorKind::WrongUse, format!("unknown kind of storage '{scheme}://'"))
            .hint("use a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_a_path() {
        for (location, shown) in
            [("repo", "repo/x"), ("a:b/c", "a:b/c/x"), ("file:///srv/repo", "/srv/repo/x")]
        {
            let storage = at(location).unwrap();
            assert_eq!(storage.display("x").to_str(), Some(shown));
            assert!(!is_url(&storage.display("x")));
        }
    }

    #[test]
    fn an_unknown_scheme_is_wrong_use() {
        let error = at("sftp://host/repo").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::WrongUse);
        assert!(error.next_step().unwrap().contains("s3://"));
    }
}
