//! What the kernel of this machine really does with our groups. It needs root; each test that moves its process runs in
//! a process of its own, because the other tests' threads and children would be moved along.

use std::env;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::time::Instant;

use super::*;
use crate::sys::host;
use crate::sys::loop_for_tests::{LoopDevice, aligned, skipped};

/// Whether this is the process for that test; in the harness it is started and judged.
fn in_a_process_of_its_own(test: &str) -> bool {
    const MARK: &str = "BLKDELTA_CGROUP_TEST";
    if env::var_os(MARK).is_some() {
        return true;
    }
    if !host::is_root() {
        skipped(test, "only root may make cgroups");
        return false;
    }
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let program = env::current_exe().unwrap();
    let output =
        Command::new(program).args(["--exact", &name, "--nocapture"]).env(MARK, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    let _ = io::Write::write_all(&mut io::stderr(), errors.as_bytes());
    print!("{text}");
    false
}

fn own_groups() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap()
}

/// The same where there is no limit: of up to ten rounds one that nobody else made slow.
fn seconds_without_limit(file: &fs::File) -> f64 {
    (0..10).map(|_| seconds_for_4_mib(file)).find(|seconds| *seconds < 0.7).unwrap_or(f64::INFINITY)
}

/// Reads 4 MiB past the page cache; returns the seconds it took.
fn seconds_for_4_mib(file: &fs::File) -> f64 {
    let mut memory = Vec::new();
    let buffer = aligned(&mut memory, 64 << 10);
    let start = Instant::now();
    for index in 0..64 {
        file.read_exact_at(buffer, index * (64 << 10)).unwrap();
    }
    start.elapsed().as_secs_f64()
}

#[test]
fn reads_are_limited_inside_and_free_after() {
    let test = "reads_are_limited_inside_and_free_after";
    if !in_a_process_of_its_own(test) {
        return;
    }
    let Some(device) = LoopDevice::new(test, 8 << 20) else { return };
    let before = own_groups();
    let file = device.open_direct();

    // This thread is there before the group, and still reads when the group goes.
    static READ: AtomicU64 = AtomicU64::new(0);
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let (stopped, moving) = (stop.clone(), device.open_direct());
    let (begin, begun) = mpsc::channel::<()>();
    let reader = thread::spawn(move || {
        let mut memory = Vec::new();
        let buffer = aligned(&mut memory, 64 << 10);
        begun.recv().unwrap();
        while !stopped.load(Ordering::Relaxed) {
            moving.read_exact_at(buffer, 0).unwrap();
            READ.fetch_add(64 << 10, Ordering::Relaxed);
        }
    });

    let free = seconds_without_limit(&file);
    let limits = IoLimits { read_bps: Some(4 << 20), weight: Some(50), ..IoLimits::default() };
    let group = match limit_io(&[device.number], &limits) {
        Ok(group) => group,
        Err(why_not) => {
            skipped(test, &why_not.to_string());
            begin.send(()).unwrap();
            stop.store(true, Ordering::Relaxed);
            return reader.join().unwrap();
        }
    };
    println!("{}", group.describe());
    assert!(limit_io(&[device.number], &limits).unwrap_err().to_string().contains("already"));
    let limited = seconds_for_4_mib(&file);
    let start = Instant::now();
    let mut dd = Command::new("dd");
    dd.args(["of=/dev/null", "bs=64k", "count=64", "iflag=direct", "status=none"]);
    assert!(dd.arg(format!("if={}", device.path.display())).status().unwrap().success());
    let child = start.elapsed().as_secs_f64();

    READ.store(0, Ordering::Relaxed);
    let start = Instant::now();
    begin.send(()).unwrap();
    thread::sleep(Duration::from_millis(1500));
    let thread_rate = READ.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    let folder = group.folder().to_path_buf();
    assert!(folder.exists());
    let start = Instant::now();
    drop(group);
    let dropping = start.elapsed();
    assert!(!folder.exists());
    assert_eq!(own_groups(), before);
    let free_again = seconds_without_limit(&file);
    stop.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    println!(
        "4 MiB at 4 MiB/s: free {free:.4} s, limited {limited:.3} s, child {child:.3} s, after {free_again:.4} s; \
         thread from before {:.2} MiB/s; dropped in {dropping:?}",
        thread_rate / f64::from(1 << 20)
    );
    assert!(limited > 0.8 && child > 0.8, "{limited} s, {child} s for what should take a second");
    assert!(thread_rate < 6.0 * f64::from(1 << 20), "{thread_rate} bytes/s");
    assert!(free < 0.7 && free_again < 0.7, "{free} s, {free_again} s without a limit");
}

/// The ways through version 2 are the same for every controller: the test takes one that is free on this machine.
#[test]
fn version_2_below_and_beside() {
    let test = "version_2_below_and_beside";
    if !in_a_process_of_its_own(test) {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = match own::version_2(&own_groups(), &mounts) {
        Ok(own) => own,
        Err(reason) => return skipped(test, &reason),
    };
    let offered = fs::read_to_string(own.folder.join("cgroup.controllers")).unwrap_or_default();
    let Some(controller) = offered.split_ascii_whitespace().next() else {
        return skipped(test, "version 2 has no controller here");
    };
    if own.folder != own.top || own.top.join("cgroup.events").exists() {
        return skipped(test, "it wants to begin in the topmost cgroup of the machine");
    }
    let divided = own.top.join("cgroup.subtree_control");
    let before = (own_groups(), fs::read_to_string(&divided).unwrap());
    let in_group = |folder: &Path| {
        let path = folder.strip_prefix(&own.top).unwrap().display().to_string();
        own_groups().lines().any(|line| line == format!("0::/{path}"))
    };

    let mut place = v2::settle(&own, controller).unwrap();
    assert_eq!(place.folder.parent(), Some(&*own.top));
    assert!(in_group(&place.folder));
    place.leave();
    assert!(!place.folder.exists() && own_groups() == before.0);

    let unit = own.top.join(format!("unit-of-{}", process::id()));
    fs::create_dir(&unit).unwrap();
    write(&unit.join("cgroup.procs"), "0").unwrap();
    let inner = own::version_2(&own_groups(), &mounts).unwrap();
    assert_eq!(inner.folder, unit);

    let mut place = v2::settle(&inner, controller).unwrap();
    assert_eq!(place.folder.parent(), Some(&*unit), "alone: below");
    assert!(in_group(&place.folder) && processes(&unit).is_empty());
    assert!(place.folder.join("cgroup.controllers").metadata().is_ok());
    // A program that we started and that outlives the group comes back with us.
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    place.leave();
    assert!(!place.folder.exists() && in_group(&unit));
    assert_eq!(processes(&unit).len(), 2);
    assert_eq!(fs::read_to_string(unit.join("cgroup.subtree_control")).unwrap().trim(), "");

    let mut place = v2::settle(&inner, controller).unwrap();
    assert_eq!(place.folder.parent(), Some(&*own.top), "not alone: beside");
    assert!(in_group(&place.folder));
    place.leave();
    assert!(!place.folder.exists() && in_group(&unit));

    let cut = own::Own { top: unit.clone(), folder: unit.clone() };
    assert!(v2::settle(&cut, controller).unwrap_err().contains("other processes live in"));
    child.kill().unwrap();
    child.wait().unwrap();
    write(&own.top.join("cgroup.procs"), "0").unwrap();
    fs::remove_dir(&unit).unwrap();
    if !before.1.split_ascii_whitespace().any(|word| word == controller) {
        write(&divided, &format!("-{controller}")).unwrap();
    }
    assert_eq!((own_groups(), fs::read_to_string(&divided).unwrap()), before);
}

#[test]
fn groups_of_dead_runs_are_removed_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    // Numbers of processes end below 2^22.
    let (dead, living) = ("blkdelta-4194999-2", format!("{PREFIX}{}", process::id()));
    for name in [dead, &living, "blkdelta-notes", "other-4194999"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    sweep(folder.path());
    assert!(!folder.path().join(dead).exists());
    for name in [&living, "blkdelta-notes", "other-4194999"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    // The own number is taken: the next name is.
    let place = Place::create(folder.path(), folder.path()).unwrap();
    assert_eq!(place.folder, folder.path().join(format!("{living}-2")));
}

#[test]
fn nonsense_is_refused_before_anything_is_made() {
    let disk = libc::makedev(8, 0);
    let limits = |read_bps, weight| IoLimits { read_bps, weight, ..IoLimits::default() };
    for (devices, limits) in [
        (&[][..], limits(Some(1), None)),
        (&[disk], limits(None, None)),
        (&[disk], limits(Some(0), None)),
        (&[disk], limits(None, Some(0))),
        (&[disk], limits(None, Some(10_001))),
    ] {
        let why_not = limit_io(devices, &limits).unwrap_err();
        assert_eq!(why_not.reasons.len(), 1, "{why_not}");
    }
    assert!(!HELD.load(Ordering::Acquire));
}

#[test]
fn it_is_told_in_words() {
    let limits = IoLimits { read_bps: Some(100 << 20), read_iops: Some(500), ..IoLimits::default() };
    let words = describe(
        Path::new("/sys/fs/cgroup/blkdelta-1"),
        2,
        &[libc::makedev(0, 77)],
        &limits,
        vec!["weight 50".into()],
    );
    let told = "cgroup v2 /sys/fs/cgroup/blkdelta-1: on 0:77: reads 100.0 MiB/s, 500 reads/s, weight 50";
    assert_eq!(words, told);
}
