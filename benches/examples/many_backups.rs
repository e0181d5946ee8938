//! Makes a repository look as if it had many backups, from the one of each volume that it has: `many_backups REPOSITORY COUNT`.
//!
//! Only records are made, for what lists them; their files are not there. They are spread evenly over the volumes, each one
//! the child of the one before. Written as plain files without syncing: 10,000 synced ones would take minutes.

use std::path::PathBuf;

use blkdelta_core::backup_id::{BackupId, BackupKind};
use blkdelta_core::format::record;
use blkdelta_core::repository::Repository;
use blkdelta_core::repository::layout::VolumeLayout;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder: PathBuf = arguments.next().ok_or("which repository?")?.into();
    let count: u32 = arguments.next().ok_or("how many backups?")?.parse()?;
    let first = Repository::open_local(&folder)?.catalog(None)?.records;
    let each = count / u32::try_from(first.len())?;
    for mut newest in first {
        let layout = VolumeLayout::new(&newest.volume)?;
        for sequence in newest.sequence + 1..=each {
            newest.parent = Some(newest.link());
            newest.kind = BackupKind::Incremental;
            newest.sequence = sequence;
            newest.backup_id = BackupId::from_bytes(blkdelta_core::sys::host::random_bytes()?);
            newest.delta.name = layout.delta(sequence, newest.backup_id);
            newest.manifest.name = layout.manifest(sequence, newest.backup_id);
            std::fs::write(folder.join(layout.record(sequence, 0)), record::encode(&newest)?)?;
        }
    }
    Ok(())
}
