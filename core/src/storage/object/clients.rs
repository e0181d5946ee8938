//! The clients of a store, made from its URL, the environment and the shared files of the AWS tools.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientConfigKey, RetryConfig};

use super::credentials::Profile;
use super::refusal::Connector;
use super::remote::{Clients, S3};
use super::url::{Scheme, Url};
use crate::error::{Error, ErrorKind, Result};

/// What the environment may name, and what it is called in the shared files.
const SHARED: [(AmazonS3ConfigKey, &str); 5] = [
    (AmazonS3ConfigKey::AccessKeyId, "aws_access_key_id"),
    (AmazonS3ConfigKey::SecretAccessKey, "aws_secret_access_key"),
    (AmazonS3ConfigKey::Token, "aws_session_token"),
    (AmazonS3ConfigKey::Region, "region"),
    (AmazonS3ConfigKey::Endpoint, "endpoint_url"),
];

/// The clients of the store behind a URL.
pub fn clients(url: &Url, connector: Connector) -> Result<Clients> {
    let made = match url.scheme {
        Scheme::S3 => s3(url, connector),
        Scheme::Google => google(url, connector),
        Scheme::Azure => azure(url, connector),
    };
    made.map_err(|source| {
        Error::new(ErrorKind::WrongUse, "the object store cannot be used")
            .path(url.root())
            .hint("check the variables of the environment: docs/OBJECT_STORAGE.md names them")
            .because(source)
    })
}

/// Requests are tried again by us alone.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn s3(url: &Url, connector: Connector) -> object_store::Result<Clients> {
    let mut builder = AmazonS3Builder::from_env();
    let profile = Profile::read();
    let own_keys = builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId).is_some();
    for (key, name) in SHARED {
        // Half of a pair of keys from here and half from there would be neither.
        let of_the_pair = name.starts_with("aws_") && own_keys;
        if let (None, false, Some(value)) = (builder.get_config_value(&key), of_the_pair, profile.get(name)) {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    if builder.get_config_value(&AmazonS3ConfigKey::Checksum).is_none() {
        // Buckets with object lock demand one; it costs little, as the signature has the same digest.
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    let store = builder
        .with_bucket_name(&url.bucket)
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_http_connector(connector)
        .build()?;
    let store = Arc::new(store);
    Ok(Clients {
        objects: Arc::clone(&store) as _,
        uploads: Arc::clone(&store) as _,
        s3: Some(S3::new(store, connector)),
    })
}

fn google(url: &Url, connector: Connector) -> object_store::Result<Clients> {
    let builder =
        GoogleCloudStorageBuilder::from_env().with_bucket_name(&url.bucket).with_retry(no_retries());
    let store = Arc::new(builder.with_http_connector(connector).build()?);
    Ok(Clients { objects: Arc::clone(&store) as _, uploads: store, s3: None })
}

fn azure(url: &Url, connector: Connector) -> object_store::Result<Clients> {
    let builder = MicrosoftAzureBuilder::from_env().with_container_name(&url.bucket).with_retry(no_retries());
    let store = Arc::new(builder.with_http_connector(connector).build()?);
    Ok(Clients { objects: Arc::clone(&store) as _, uploads: store, s3: None })
}
