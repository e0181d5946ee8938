//! throw-away
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::expect_used
)]
use blkdelta_core::backup_id::SnapshotRecord;
use blkdelta_core::geometry::Geometry;
use blkdelta_core::hint::ChangeMap;
use blkdelta_core::snapshot::{self, CowSize, Wanted};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

fn load(path: &str) -> Option<SnapshotRecord> {
    if path == "-" {
        return None;
    }
    Some(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

fn fail(e: blkdelta_core::error::Error) -> ! {
    println!("ERROR {:?}: {} HINT: {}", e.kind(), e.full_text(), e.next_step().unwrap_or("NONE"));
    std::process::exit(1)
}

fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let a: Vec<&str> = a.iter().map(String::as_str).collect();
    match a.as_slice() {
        ["origin", source] => match snapshot::origin(Path::new(source), Wanted::Auto) {
            Ok(Some(o)) => println!("origin {} {:?}", o.device().display(), o.identity()),
            Ok(None) => println!("origin none"),
            Err(e) => fail(e),
        },
        ["brought", source] => match snapshot::brought(Path::new(source)) {
            Ok(b) => println!("{b:?}"),
            Err(e) => fail(e),
        },
        ["sweep", prefix, keep] => match snapshot::sweep(prefix, load(keep).as_ref()) {
            Ok(names) => println!("swept {names:?}"),
            Err(e) => fail(e),
        },
        // take SOURCE NAME BASELINE RECORD-OUT DUMP BLOCKSIZE MODE(keep|drop|die|wait)
        ["take", source, name, baseline, out, dump, block, mode] => {
            let begun = Instant::now();
            let o = snapshot::origin(Path::new(source), Wanted::Zfs).unwrap_or_else(|e| fail(e)).unwrap();
            let mut s = o.take(name, CowSize::default()).unwrap_or_else(|e| fail(e));
            eprintln!("taken in {:?} {} {:?}", begun.elapsed(), s.device().display(), s.record());
            let mut f = std::fs::File::open(s.device()).unwrap();
            use std::io::{Seek, SeekFrom};
            let size = f.seek(SeekFrom::End(0)).unwrap();
            f.seek(SeekFrom::Start(0)).unwrap();
            if let Some(baseline) = load(baseline) {
                let mut map = ChangeMap::new(Geometry::new(size, block.parse().unwrap(), 4096).unwrap());
                let begun = Instant::now();
                match s.changes_since(&baseline, &mut map).unwrap_or_else(|e| fail(e)) {
                    Ok(()) => {
                        let n = map.geometry().block_count();
                        let all: Vec<String> =
                            (0..n).filter(|i| map.changed().contains(*i)).map(|i| i.to_string()).collect();
                        println!("CHANGED {}", all.join(" "));
                    }
                    Err(no) => println!("NOHINT {}", no.0),
                }
                eprintln!("changes_since {:?}", begun.elapsed());
            }
            if *dump != "-" {
                let mut d = std::fs::File::create(dump).unwrap();
                std::io::copy(&mut f, &mut d).unwrap();
            }
            drop(f);
            if *mode == "wait" {
                println!("WAITING");
                std::io::stdout().flush().unwrap();
                let mut x = String::new();
                std::io::stdin().read_to_string(&mut x).unwrap();
            }
            let begun = Instant::now();
            match s.check() {
                Ok(()) => println!("CHECK ok {:?}", begun.elapsed()),
                Err(e) => println!(
                    "CHECK {:?} {} HINT: {}",
                    e.kind(),
                    e.full_text(),
                    e.next_step().unwrap_or("NONE")
                ),
            }
            if *mode == "die" {
                unsafe_die();
            }
            if *mode == "keep" || *mode == "keepdie" {
                s.keep().unwrap_or_else(|e| fail(e));
            }
            std::fs::write(out, serde_json::to_string(s.record()).unwrap()).unwrap();
            if *mode == "keepdie" {
                unsafe_die();
            }
            let begun = Instant::now();
            drop(s);
            eprintln!("dropped in {:?}", begun.elapsed());
        }
        _ => panic!("usage"),
    }
}

fn unsafe_die() -> ! {
    std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status().unwrap();
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
