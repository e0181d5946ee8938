//! A file into a bucket by the storage's own client alone, in parts: `plain_upload FILE BUCKET KEY [PART_MIB [AT_ONCE]]`.
//!
//! What an upload costs when nothing is tracked, digested or compressed. Server and keys come from the environment, as for
//! our command, and so does the checksum: the client sends one of each part, as buckets with object lock demand. Parts are
//! read while others are on their way, each into its own memory, so nothing is copied that need not be.

use std::fs::File;
use std::io::Read;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::{ObjectStoreExt, WriteMultipart};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, bucket, key, rest @ ..] = &arguments[..] else {
        return Err("plain_upload FILE BUCKET KEY [PART_MIB [AT_ONCE]]".into());
    };
    let number = |place: usize, usual| rest.get(place).map_or(Ok(usual), |text| text.parse::<usize>());
    let (part_len, at_once) = (number(0, 8)? << 20, number(1, 4)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(upload(File::open(file)?, bucket, key, part_len, at_once))
}

async fn upload(file: File, bucket: &str, key: &str, part_len: usize, at_once: usize) -> Outcome {
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_allow_http(true)
        .with_checksum_algorithm(Checksum::SHA256)
        .build()?;
    let begun = store.put_multipart(&object_store::path::Path::parse(key)?).await?;
    let mut parts = WriteMultipart::new_with_chunk_size(begun, part_len);
    loop {
        let mut part = Vec::with_capacity(part_len);
        let read = (&file).take(part_len as u64).read_to_end(&mut part)?;
        if read == 0 {
            break;
        }
        parts.wait_for_capacity(at_once).await?;
        parts.put(part.into());
    }
    parts.finish().await?;
    Ok(())
}
