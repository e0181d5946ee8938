//! What a backup builds on, and its state read through that chain.

use std::path::Path;
use std::sync::Arc;

use super::Repository;
use super::catalog::Catalog;
use super::layout::VolumeLayout;
use crate::backup_id::{BackupRecord, Sequence};
use crate::delta::reader::DeltaReader;
use crate::digest::{BLOCKS_PER_PAGE, BlockDigest, RootDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ENTRY_LEN, ManifestHeader, PAGE_LEN, TableEntry};
use crate::geometry::{BlockIndex, Geometry, to_usize};
use crate::manifest::stored::StoredManifest;
use crate::manifest::table_root;

/// A backup with all it needs, newest first, the full last.
#[derive(Debug, Clone)]
pub struct Chain {
    records: Vec<BackupRecord>,
}

impl Chain {
    /// The backup itself.
    #[must_use]
    pub fn tip(&self) -> &BackupRecord {
        &self.records[0]
    }

    /// All records, newest first.
    #[must_use]
    pub fn records(&self) -> &[BackupRecord] {
        &self.records
    }
}

impl Repository {
    /// The chain of a backup. A missing or different parent is damage, with its place.
    pub fn chain(&self, tip: &BackupRecord) -> Result<Chain> {
        let catalog = self.catalog(Some(&tip.volume))?;
        let mut records = vec![tip.clone()];
        while let Some(link) = records.last().and_then(|record| record.parent) {
            let child = records.last().map_or(0, |record| record.sequence);
            let parent = catalog.records.iter().find(|record| record.sequence == link.sequence);
            let parent = parent.filter(|parent| parent.root == link.root && parent.sequence < child);
            let parent =
                parent.ok_or_else(|| self.without_parent(&tip.volume, child, link.sequence, &catalog));
            records.push(parent?.clone());
        }
        Ok(Chain { records })
    }

    /// Why a backup's parent cannot be had: what a newer version wrote is there, and no damage.
    fn without_parent(&self, volume: &str, child: Sequence, parent: Sequence, catalog: &Catalog) -> Error {
        let needs = format!("backup {child} needs {parent} of '{volume}'");
        let record = VolumeLayout::new(volume).map(|layout| layout.record(parent, 0)).unwrap_or_default();
        let path = self.storage().display(&record);
        let any_revision = path.with_extension("").to_string_lossy().into_owned() + ".";
        let newer = catalog.damaged.iter().any(|error| {
            let of = error.error_path().map(Path::to_string_lossy).unwrap_or_default();
            error.kind() == ErrorKind::Unsupported && of.starts_with(&any_revision)
        });
        match newer {
            true => Error::new(ErrorKind::Unsupported, format!("{needs}, which a newer blkdelta wrote")),
            false => Error::damaged(format!("{needs}, which is not there")),
        }
        .path(path)
    }

    /// Opens the delta of a backup and proves that it is the one the record names.
    pub fn delta(&self, record: &BackupRecord) -> Result<Arc<DeltaReader>> {
        let object = self.storage().open(&record.delta.name).map_err(missing_part)?;
        let (path, size) = (object.display(), object.size());
        if size != record.delta.size {
            let text = format!("the delta has {size} bytes, its record says {}", record.delta.size);
            return Err(Error::damaged(text).path(path).at(size.min(record.delta.size), 0));
        }
        let reader = DeltaReader::open(object)?;
        let header = reader.header();
        let parent = header.parent.map(|parent| (parent.sequence, parent.root));
        let belongs = header.sequence == record.sequence
            && header.geometry.volume_size() == record.size_bytes
            && (header.geometry.block_size(), header.geometry.grain_size())
                == (record.block_size, record.grain_size)
            && header.digest == record.digest
            && parent == record.parent.map(|link| (link.sequence, link.root))
            && reader.trailer().root == record.root;
        if !belongs {
            return Err(Error::damaged("the delta is not the one its record names").path(path));
        }
        Ok(Arc::new(reader))
    }

    /// Opens the stored manifest of a backup and proves that it is the one the record names.
    pub fn manifest(&self, record: &BackupRecord) -> Result<StoredManifest> {
        let object = self.storage().open(&record.manifest.name).map_err(missing_part)?;
        let (path, size) = (object.display(), object.size());
        let manifest = StoredManifest::open(object)?;
        let header = manifest.header();
        let parent = record.parent.map_or((0, RootDigest::NONE), |link| (link.sequence, link.root));
        let belongs = header.sequence == record.sequence
            && size == record.manifest.size
            && header.root == record.root
            && header.geometry.volume_size() == record.size_bytes
            && (header.geometry.block_size(), header.geometry.grain_size())
                == (record.block_size, record.grain_size)
            && header.digest == record.digest
            && manifest.is_full() == record.parent.is_none()
            && (header.parent_sequence, header.parent_root) == parent;
        if !belongs {
            return Err(Error::damaged("the manifest is not the one its record names").path(path));
        }
        Ok(manifest)
    }

    /// The block table of a chain's tip.
    pub fn table(&self, chain: &Chain) -> Result<ChainTable> {
        let manifests = chain
            .records
            .iter()
            .map(|record| self.manifest(record).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let geometry = manifests[0].header().geometry;
        Ok(ChainTable { manifests, geometry, page: None })
    }

    /// All that reading a backup needs: the deltas of its chain, newest first, and its table, whose root is proven.
    pub fn open_whole(&self, record: &BackupRecord) -> Result<(Chain, Vec<Arc<DeltaReader>>, ChainTable)> {
        let opened = self.chain(record).and_then(|chain| {
            let (deltas, table) = (self.deltas(&chain)?, self.table(&chain)?);
            table.prove_root()?;
            Ok((chain, deltas, table))
        });
        self.unless_removed(record, opened)
    }

    /// The deltas of a chain, newest first.
    pub fn deltas(&self, chain: &Chain) -> Result<Vec<Arc<DeltaReader>>> {
        chain.records.iter().map(|record| self.delta(record)).collect()
    }
}

/// A file that a record names and that is not there is damage.
pub(crate) fn missing_part(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound { error.kind_is(ErrorKind::Damaged) } else { error }
}

impl Chain {
    /// The chain of the backup at this place in it.
    #[must_use]
    pub fn of(&self, place: usize) -> Self {
        Self { records: self.records[place..].to_vec() }
    }

    /// The names of its deltas, newest first.
    #[must_use]
    pub fn delta_names(&self) -> Vec<String> {
        self.records.iter().map(|record| record.delta.name.clone()).collect()
    }
}

/// The block table of a state, put together from the pages of a chain's manifests.
pub struct ChainTable {
    manifests: Vec<Arc<StoredManifest>>,
    geometry: Geometry,
    page: Option<(u64, Vec<u8>)>,
}

impl ChainTable {
    /// How the volume is cut.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The table of an older state: the one that the chain's manifests from this place on give.
    #[must_use]
    pub fn of(&self, state: usize) -> Self {
        let manifests = self.manifests[state..].to_vec();
        Self { geometry: manifests[0].header().geometry, manifests, page: None }
    }

    /// The newest manifest's header.
    #[must_use]
    pub fn header(&self) -> &ManifestHeader {
        self.manifests[0].header()
    }

    /// A page's bytes: the newest manifest that holds it decides, and nothing is inherited through one whose volume
    /// ended before that page.
    pub fn page(&self, page: u64) -> Result<Vec<u8>> {
        for manifest in &self.manifests {
            if page >= ManifestHeader::page_count(&manifest.header().geometry) {
                break;
            }
            if let Some(bytes) = manifest.page(page)? {
                return Ok(bytes);
            }
        }
        Ok(vec![0; PAGE_LEN])
    }

    /// A block's entry; cheap when blocks are asked for in order.
    pub fn entry(&mut self, index: BlockIndex) -> Result<TableEntry> {
        let number = index / BLOCKS_PER_PAGE;
        let bytes = match self.page.take() {
            Some((held, bytes)) if held == number => bytes,
            _ => self.page(number)?,
        };
        let at = to_usize(index % BLOCKS_PER_PAGE) * ENTRY_LEN;
        let entry = TableEntry::decode(&bytes[at..at + ENTRY_LEN]);
        self.page = Some((number, bytes));
        entry
    }

    /// Proves that the table gives the root that its header names.
    pub fn prove_root(&self) -> Result<()> {
        if table_root(self.header(), |number| self.page(number))? != self.header().root {
            return Err(Error::damaged("the tables of the chain do not give the backup's root"));
        }
        Ok(())
    }

    /// Whether block `index` differs between two tables of the same cut.
    pub fn differs(&mut self, other: &mut Self, index: BlockIndex) -> Result<bool> {
        if self.geometry.block_len(index) != other.geometry.block_len(index) {
            return Ok(true);
        }
        let (ours, theirs): (BlockDigest, BlockDigest) =
            (self.entry(index)?.digest, other.entry(index)?.digest);
        Ok(!ours.same(&theirs))
    }
}
