//! Manifests as files: the working form on local disk, the stored form in a repository.

pub mod stored;
pub mod working;

use crate::digest::{BLOCKS_PER_PAGE, RootBuilder, RootDigest, is_zero};
use crate::error::Result;
use crate::format::manifest::{ENTRY_LEN, ManifestHeader, TableEntry};
use crate::geometry::to_usize;

/// The root that a block table gives; `page` returns the bytes of the table page with this number.
pub fn table_root(header: &ManifestHeader, page: impl Fn(u64) -> Result<Vec<u8>>) -> Result<RootDigest> {
    let geometry = &header.geometry;
    let mut root = RootBuilder::new(header.digest, geometry);
    for number in 0..ManifestHeader::page_count(geometry) {
        let here = (geometry.block_count() - number * BLOCKS_PER_PAGE).min(BLOCKS_PER_PAGE);
        let bytes = page(number)?;
        if is_zero(&bytes) {
            root.push_zeros(here);
            continue;
        }
        for entry in bytes.chunks(ENTRY_LEN).take(to_usize(here)) {
            root.push(TableEntry::decode(entry)?.digest);
        }
    }
    root.finish()
}
