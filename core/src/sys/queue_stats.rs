//! The queues that reads of a source pass, from the source's own device down to the disks, and what they do right now.
//!
//! A device stack is followed: a partition to its disk, LVM and md to their members, a loop device to the device of its
//! file. Each queue has counters since boot (`stat`) and the requests that are on their way (`inflight`). They tell a
//! throttle how the foreign traffic fares without asking the database; in exchange they do not say whose a request is.
//!
//! Re-reading costs a few microseconds: the two files stay open and are read anew from their start. What is not found
//! is left out without an error (a file on tmpfs, ZFS, NFS or an overlay has no queue): a throttle that finds no queue
//! has to fall back to the latency of its own reads. If the kernel's sector were not 512 bytes here, as its
//! documentation promises for every device, rates would be wrong by that factor.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use super::block_device::{self, DeviceNumber};
use super::{faults, mounts};

/// The unit of the kernel's statistics, whatever the device's own sector is.
const SECTOR: u64 = 512;

/// Seventeen numbers of at most twenty digits and a blank each are 357 bytes.
const TEXT_MAX: usize = 512;

/// Numbers of `stat` that every kernel has; those for discards came with 4.18, those for flushes with 5.5.
const FIELDS_MIN: usize = 11;

/// A device with a queue of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The kernel's name, such as `vda` or `dm-0`.
    pub name: String,
    /// The device.
    pub number: DeviceNumber,
    /// The longest request it sends down, in bytes; longer reads are cut, and those whose memory is scattered over many
    /// pages even earlier (`queue/max_segments`). 0 when the kernel does not tell.
    pub max_request_len: u64,
    /// Whether it is said to be a spinning disk.
    pub rotational: bool,
    /// Nothing below it has a queue: this is where requests wait for hardware.
    pub is_leaf: bool,
}

/// What a queue has done since boot. Times are sums over requests, so many at once make more than the clock shows. What
/// a cgroup's limit holds back waits before the queue and is in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Completed reads; requests that were merged count once.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// From issue to completion, in whole milliseconds of the kernel.
    pub read_time: Duration,
    /// Completed writes. An fsync that has nothing left to write adds one of no bytes, whose time is that of its flush.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// From issue to completion.
    pub write_time: Duration,
    /// Requests on their way now. Linux 6.18 counts those that wait in the scheduler too, against its documentation.
    pub in_flight: u64,
    /// Time with at least one request on its way; full use of a disk that serves many at once may look like 100 %
    /// early.
    pub busy: Duration,
    /// Completed discards; 0 on kernels before 4.18.
    pub discards: u64,
    /// From issue to completion.
    pub discard_time: Duration,
    /// Completed flushes of the device's cache: what a database's fsync ends in. 0 on kernels before 5.5.
    pub flushes: u64,
    /// From issue to completion.
    pub flush_time: Duration,
}

/// The open statistics of a queue. It stays readable when other threads read it too.
#[derive(Debug)]
pub struct QueueWatch {
    stat: File,
    inflight: File,
}

/// The queues under a block device or a regular file, the source's own first. Empty where nothing is known.
///
/// A partition shares the queue of its disk, so the disk stands for it.
#[must_use]
pub fn queues_under(path: &Path) -> Vec<Queue> {
    let mut found = devices_of(path);
    let mut next = 0;
    while let Some(number) = found.get(next).copied() {
        next += 1;
        for lower in below(number) {
            // Members can be shared, and a loop device may lie on a file system on itself.
            if !found.contains(&lower) {
                found.push(lower);
            }
        }
    }
    found.into_iter().filter_map(Queue::of).collect()
}

impl Queue {
    fn of(number: DeviceNumber) -> Option<Self> {
        let folder = block_device::sysfs(number);
        let partition = folder.join("partition").exists();
        if partition || !folder.join("stat").exists() {
            return None;
        }
        let name = fs::canonicalize(&folder).ok()?.file_name()?.to_str()?.to_owned();
        let max_kib = block_device::attribute(number, "queue/max_sectors_kb");
        let max_kib: u64 = max_kib.and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Self {
            name,
            number,
            max_request_len: max_kib.saturating_mul(1024),
            rotational: block_device::attribute(number, "queue/rotational").as_deref() == Some("1"),
            is_leaf: !below(number).into_iter().any(|lower| block_device::sysfs(lower).join("stat").exists()),
        })
    }

    /// The I/O scheduler at work now; `None` where requests are not scheduled (most device-mapper and md devices).
    #[must_use]
    pub fn scheduler(&self) -> Option<String> {
        bracketed(&block_device::attribute(self.number, "queue/scheduler")?)
    }

    /// Whether the scheduler at work heeds I/O priorities: bfq does, mq-deadline by class only, others do not.
    #[must_use]
    pub fn honours_priority(&self) -> bool {
        matches!(self.scheduler().as_deref(), Some("bfq" | "mq-deadline"))
    }

    /// Opens its statistics.
    pub fn watch(&self) -> io::Result<QueueWatch> {
        let open = |name: &str| {
            faults::point("open_queue_stat")?;
            File::open(block_device::sysfs(self.number).join(name))
        };
        Ok(QueueWatch { stat: open("stat")?, inflight: open("inflight")? })
    }
}

impl QueueWatch {
    /// The counters now.
    pub fn counters(&self) -> io::Result<Counters> {
        let mut buffer = [0; TEXT_MAX];
        parse_stat(read_anew(&self.stat, &mut buffer)?)
    }

    /// Reads and writes that the device driver has and did not complete yet. What waits in the scheduler is
    /// not among them.
    pub fn in_flight(&self) -> io::Result<(u32, u32)> {
        let mut buffer = [0; TEXT_MAX];
        parse_inflight(read_anew(&self.inflight, &mut buffer)?)
    }
}

/// sysfs makes the text when it is read at offset 0: every call sees the present.
fn read_anew<'a>(file: &File, buffer: &'a mut [u8; TEXT_MAX]) -> io::Result<&'a str> {
    faults::point("read_queue_stat")?;
    let got = file.read_at(buffer, 0)?;
    buffer.get(..got).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or_else(|| strange("not text"))
}

fn strange(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("these are no statistics of a block device: {text}"))
}

/// The fields of the kernel's Documentation/block/stat.rst; sectors and milliseconds.
fn parse_stat(text: &str) -> io::Result<Counters> {
    let mut fields = [0u64; 17];
    let mut count = 0;
    for (field, word) in fields.iter_mut().zip(text.split_ascii_whitespace()) {
        *field = word.parse().map_err(|_| strange(text))?;
        count += 1;
    }
    if count < FIELDS_MIN {
        return Err(strange(text));
    }
    let [reads, _, read_sectors, read_ms, writes, _, write_sectors, write_ms, in_flight, busy_ms, ..] =
        fields;
    let [.., discards, _, _, discard_ms, flushes, flush_ms] = fields;
    let bytes = |sectors: u64| sectors.checked_mul(SECTOR).ok_or_else(|| strange(text));
    Ok(Counters {
        reads,
        read_bytes: bytes(read_sectors)?,
        read_time: Duration::from_millis(read_ms),
        writes,
        write_bytes: bytes(write_sectors)?,
        write_time: Duration::from_millis(write_ms),
        in_flight,
        busy: Duration::from_millis(busy_ms),
        discards,
        discard_time: Duration::from_millis(discard_ms),
        flushes,
        flush_time: Duration::from_millis(flush_ms),
    })
}

fn parse_inflight(text: &str) -> io::Result<(u32, u32)> {
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(reads)), Some(Ok(writes))) => Ok((reads, writes)),
        _ => Err(strange(text)),
    }
}

/// `none [mq-deadline] kyber`: the word in brackets.
fn bracketed(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// The device itself, or those of the file system that a file lies on.
fn devices_of(path: &Path) -> Vec<DeviceNumber> {
    if let Ok(Some(number)) = block_device::number_of(path) {
        return vec![number];
    }
    let Ok(metadata) = fs::metadata(path) else { return Vec::new() };
    if libc::major(metadata.dev()) != 0 {
        return vec![metadata.dev()];
    }
    // btrfs gives each subvolume a number of its own that no device has: the mount names one of the real ones.
    let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
    let around = mounts::mounts().into_iter().filter(|mount| path.starts_with(&mount.point));
    let deepest = around.max_by_key(|mount| mount.point.components().count());
    deepest.map(|mount| members(mount.device)).unwrap_or_default()
}

/// All devices of the btrfs that this one belongs to, itself first; just itself when it belongs to none.
fn members(number: DeviceNumber) -> Vec<DeviceNumber> {
    let listed = |folder: &Path| -> Vec<DeviceNumber> {
        let entries = fs::read_dir(folder.join("devices")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| parse_number(&fs::read_to_string(entry.path().join("dev")).ok()?))
            .collect()
    };
    let pools = fs::read_dir("/sys/fs/btrfs").into_iter().flatten().flatten();
    let own = pools.map(|pool| listed(&pool.path())).find(|devices| devices.contains(&number));
    let others = own.unwrap_or_default().into_iter().filter(|other| *other != number);
    std::iter::once(number).chain(others).collect()
}

fn parse_number(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// All that a device stands on, and one step through a loop device; not itself.
fn below(number: DeviceNumber) -> Vec<DeviceNumber> {
    let mut found = block_device::standing_on(number);
    found.retain(|lower| *lower != number);
    if let Some(backing) = block_device::loop_backing(number) {
        // Of a deleted file the folder is still there, on the same file system.
        let there = backing.ancestors().take(2).find(|path| path.exists());
        found.extend(there.map(devices_of).unwrap_or_default().into_iter().filter(|lower| *lower != number));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sys::loop_for_tests::{LoopDevice, aligned, lies_on_a_device, skipped};

    #[test]
    fn fields_of_stat_are_where_the_documentation_says() {
        let text = "  397611     4108 248251376   644526  1496919  1147851 116491853   975771 \
                             3   352504  1713254 \
                      52        0 11141226       15   377294    92940\n";
        let counters = parse_stat(text).unwrap();
        assert_eq!((counters.reads, counters.read_bytes), (397_611, 248_251_376 * 512));
        assert_eq!(counters.read_time, Duration::from_millis(644_526));
        assert_eq!((counters.writes, counters.write_bytes), (1_496_919, 116_491_853 * 512));
        assert_eq!(counters.write_time, Duration::from_millis(975_771));
        assert_eq!((counters.in_flight, counters.busy), (3, Duration::from_millis(352_504)));
        assert_eq!((counters.discards, counters.discard_time), (52, Duration::from_millis(15)));
        assert_eq!((counters.flushes, counters.flush_time), (377_294, Duration::from_millis(92_940)));
    }

    #[test]
    fn old_kernels_have_fewer_fields_and_nonsense_is_an_error() {
        let old = parse_stat("1 2 3 4 5 6 7 8 9 10 11").unwrap();
        assert_eq!((old.reads, old.busy, old.discards, old.flushes), (1, Duration::from_millis(10), 0, 0));
        let middle = parse_stat("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15").unwrap();
        assert_eq!((middle.discards, middle.flushes), (12, 0));
        let newer = parse_stat("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19").unwrap();
        assert_eq!((newer.flushes, newer.flush_time), (16, Duration::from_millis(17)));
        for wrong in ["", "1 2 3", "1 2 3 4 5 6 7 8 9 10 x", "-1 2 3 4 5 6 7 8 9 10 11"] {
            assert!(parse_stat(wrong).is_err(), "{wrong}");
        }
        assert!(parse_stat("1 2 18446744073709551615 4 5 6 7 8 9 10 11").is_err());
        assert_eq!(parse_inflight("       4        1\n").unwrap(), (4, 1));
        assert!(
            parse_inflight("4").is_err() && parse_inflight("").is_err() && parse_inflight("a b").is_err()
        );
    }

    #[test]
    fn the_scheduler_is_the_word_in_brackets() {
        assert_eq!(bracketed("none [mq-deadline] kyber bfq").as_deref(), Some("mq-deadline"));
        assert_eq!(bracketed("[none]").as_deref(), Some("none"));
        assert_eq!(bracketed("none"), None);
    }

    #[test]
    fn what_has_no_device_has_no_queue() {
        for path in ["/proc/self/status", "/dev/null", "/no/such/file"] {
            assert_eq!(queues_under(Path::new(path)), [], "{path}");
        }
    }

    #[test]
    fn a_loop_device_leads_to_the_device_of_its_file() {
        let test = "a_loop_device_leads_to_the_device_of_its_file";
        let Some(device) = LoopDevice::new(test, 1 << 20) else { return };
        let queues = queues_under(&device.path);
        assert_eq!(queues[0].number, device.number);
        assert_eq!(Path::new("/dev").join(&queues[0].name), device.path);
        assert!(queues[0].max_request_len >= 4096);
        assert!(queues.last().unwrap().is_leaf);
        if lies_on_a_device(&device.backing) {
            assert!(!queues[0].is_leaf && queues.len() >= 2);
            assert_eq!(queues[1..], queues_under(&device.backing));
            let before = queues_under(&device.path);
            fs::remove_file(&device.backing).unwrap();
            assert_eq!(queues_under(&device.path), before, "the file is deleted, its device is not");
        } else {
            skipped(test, "the temporary folder lies on no device");
        }
    }

    /// What a throttle subtracts as its own must be exactly what the kernel counts.
    #[test]
    fn requests_are_counted_to_the_byte() {
        let test = "requests_are_counted_to_the_byte";
        let Some(device) = LoopDevice::new(test, 8 << 20) else { return };
        let queue = queues_under(&device.path).remove(0);
        let watch = queue.watch().unwrap();
        // The kernel and its helpers look at a new device, nobody knows when: of some tries one is without them.
        for _ in 0..20 {
            if exactly_counted(&device, &watch) {
                return;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        panic!("the kernel always counts more");
    }

    /// Reads and writes, which must be counted; whether nothing else was.
    fn exactly_counted(device: &LoopDevice, watch: &QueueWatch) -> bool {
        let (file, mut memory) = (device.open_direct(), Vec::new());
        let buffer = aligned(&mut memory, 64 << 10);
        let before = watch.counters().unwrap();
        for index in 0..100 {
            file.read_exact_at(buffer, index * (64 << 10)).unwrap();
        }
        for index in 0..7 {
            file.write_all_at(&buffer[..4096], index << 20).unwrap();
        }
        file.sync_all().unwrap();
        let after = watch.counters().unwrap();
        let read = (after.reads - before.reads, after.read_bytes - before.read_bytes);
        assert!(read.0 >= 100 && read.1 >= 100 * (64 << 10), "{read:?}");
        // The flush is in both: as a write of nothing, and as the flush that it made the device do.
        let written = (after.writes - before.writes, after.write_bytes - before.write_bytes);
        let flushes = after.flushes - before.flushes;
        assert!(written.0 >= 8 && written.1 >= 7 * 4096 && flushes >= 1, "{written:?}, {flushes}");
        assert!(after.read_time >= before.read_time && after.busy >= before.busy);
        let in_flight = (after.in_flight, watch.in_flight().unwrap());
        (read, written, flushes, in_flight) == ((100, 100 * (64 << 10)), (8, 7 * 4096), 1, (0, (0, 0)))
    }

    #[test]
    fn reading_the_statistics_is_cheap_enough_to_do_it_often() {
        const CALLS: u32 = 200;
        let test = "reading_the_statistics_is_cheap_enough_to_do_it_often";
        let Some(queue) = queues_under(&std::env::temp_dir()).into_iter().next() else {
            return skipped(test, "the temporary folder lies on no device");
        };
        let watch = queue.watch().unwrap();
        // Of ten rounds the quickest, in which nobody took the processor away.
        let round = |call: &dyn Fn() -> bool| {
            let start = Instant::now();
            assert!((0..CALLS).all(|_| call()));
            start.elapsed() / CALLS
        };
        let cost = |call: &dyn Fn() -> bool| (0..10).map(|_| round(call)).min().unwrap();
        let counters = cost(&|| watch.counters().is_ok());
        let in_flight = cost(&|| watch.in_flight().is_ok());
        println!("{}: counters {counters:?}, in_flight {in_flight:?}", queue.name);
        assert!(counters < Duration::from_millis(1) && in_flight < Duration::from_millis(1));
    }
}
