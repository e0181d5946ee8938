//! The digest's own rate on all cores, from memory: what a scan could reach if reading cost nothing.
//!
//! Prints one JSON line. Each thread digests its own blocks, larger together than the caches, for a fixed time.

use std::time::{Duration, Instant};

use blkdelta_benches::volume_bytes;
use blkdelta_core::digest::{BlockHasher, DigestKind};
use blkdelta_core::geometry::Geometry;

const BLOCK: usize = 4 << 20;
const BLOCKS: usize = 24;
const TIME: Duration = Duration::from_millis(700);

#[allow(clippy::print_stdout, clippy::cast_precision_loss)] // a program that prints a rate
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let digest: DigestKind = std::env::args().nth(1).unwrap_or_else(|| "blake3".into()).parse()?;
    let geometry = Geometry::new((BLOCK * BLOCKS) as u64, 4 << 20, 8192)?;
    let threads = blkdelta_core::sys::host::cores();
    let hashed: usize = std::thread::scope(|scope| {
        let work = || {
            let bytes = volume_bytes(BLOCK * BLOCKS);
            let (mut hasher, mut grains, mut count) = (BlockHasher::new(digest, geometry), Vec::new(), 0);
            let begun = Instant::now();
            for block in bytes.chunks(BLOCK).cycle() {
                std::hint::black_box(hasher.hash(block, &mut grains));
                count += BLOCK;
                if begun.elapsed() >= TIME {
                    break;
                }
            }
            count
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
    });
    let rate = hashed as f64 / TIME.as_secs_f64();
    let line = serde_json::json!({"digest": digest.name(), "grain_size": 8192, "threads": threads, "bytes_per_s": rate});
    println!("{line}");
    Ok(())
}
