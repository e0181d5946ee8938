//! The committed header is the one that the sources make.
//!
//! `BLKDELTA_BLESS=1 cargo test -p blkdelta-c` writes it anew.

use std::path::Path;

#[test]
fn the_committed_header_is_what_the_sources_make() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    let header = cbindgen::Builder::new().with_config(config).with_crate(folder).generate();
    header.unwrap().write(&mut made);
    let path = folder.join("include/blkdelta.h");
    if std::env::var_os("BLKDELTA_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == String::from_utf8(made).unwrap(),
        "include/blkdelta.h is out of date: run BLKDELTA_BLESS=1 cargo test -p blkdelta-c"
    );
}
