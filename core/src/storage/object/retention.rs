//! Object lock: the retention of what a backup needs is extended, object by object.
//!
//! The client library has no call for this, but it signs URLs, so the request is made here. A retention in compliance mode
//! can only become longer; when the store refuses, what it holds now is read, and a later end than ours is fine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use object_store::client::HttpRequest;
use object_store::path::Path as Key;
use object_store::signer::{SignedUrlOptions, Signer};
use sha2::{Digest, Sha256};

use super::refusal::{Failure, Meaning};
use super::remote::Remote;
use super::url::ObjectLock;
use crate::error::{Error, Result};

/// How long a signed URL can be used.
const SIGNED_FOR: Duration = Duration::from_secs(900);

/// Extends the retention of these objects, from now on.
pub fn extend(remote: &Arc<Remote>, lock: ObjectLock, names: &[&str]) -> Result<()> {
    let until = Timestamp::now().checked_add(lock.period).unwrap_or(Timestamp::MAX);
    let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for name in names {
        let (key, path) = (remote.key(name)?, remote.display(name));
        let (task, until) = (Arc::clone(remote), until.clone());
        let done = remote.wait(async move { extend_one(&task, &key, lock.mode, &until).await });
        done.map_err(|failure| problem(failure, &path))?;
    }
    Ok(())
}

fn problem(failure: Failure, path: &Path) -> Error {
    failure.error("extending the retention of", path).hint(
        "the bucket needs object lock, and the credentials s3:PutObjectRetention and s3:GetObjectRetention",
    )
}

async fn extend_one(remote: &Remote, key: &Key, mode: &str, until: &str) -> std::result::Result<(), Failure> {
    let body = format!(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode>\
         <RetainUntilDate>{until}</RetainUntilDate></Retention>"
    );
    match request(remote, key, "PUT", &body).await {
        Err(failure) if failure.meaning == Meaning::Denied => match request(remote, key, "GET", "").await {
            Ok(answer) if retained_until(&answer).is_some_and(|held| held.as_str() >= until) => Ok(()),
            _ => Err(failure),
        },
        other => other.map(drop),
    }
}

/// The date in an answer, cut to seconds so that two of them can be compared as texts.
fn retained_until(xml: &str) -> Option<String> {
    let (_, rest) = xml.split_once("<RetainUntilDate>")?;
    Some(format!("{}Z", rest.get(..19)?))
}

async fn request(
    remote: &Remote,
    key: &Key,
    method: &str,
    body: &str,
) -> std::result::Result<String, Failure> {
    let Some(s3) = &remote.clients().s3 else { return Err(Failure::own("not an S3 store")) };
    let generic = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
        store: "S3",
        source,
    };
    let client = s3.client().map_err(|error| Failure::of(&error))?;
    let attempt = || async {
        let parsed = method.parse().map_err(|_| generic("a wrong method".into()))?;
        let signing = SignedUrlOptions::new().with_query([("retention", "")]);
        let url = s3.store.signed_url_opts(parsed, key, SIGNED_FOR, &signing).await?;
        let mut request = HttpRequest::new(body.to_owned().into());
        *request.method_mut() = method.parse().map_err(|_| generic("a wrong method".into()))?;
        *request.uri_mut() = url.as_str().parse().map_err(|_| generic("a wrong URL".into()))?;
        if !body.is_empty() {
            let value = checksum(body).parse().map_err(|_| generic("a wrong header".into()))?;
            request.headers_mut().insert("x-amz-checksum-sha256", value);
        }
        let answer = client.execute(request).await.map_err(|error| generic(error.into()))?;
        let bytes = answer.into_body().bytes().await.map_err(|error| generic(error.into()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    remote.tried(Duration::ZERO, attempt).await.result
}

/// SHA-256 in base64, which the store wants with a retention.
fn checksum(body: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_retention_is_found() {
        let xml = "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-12-01T10:20:30.123Z</RetainUntilDate></Retention>";
        assert_eq!(retained_until(xml).as_deref(), Some("2026-12-01T10:20:30Z"));
        assert_eq!(retained_until("<x/>"), None);
    }
}
