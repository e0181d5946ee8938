//! How much time tasks of this machine have lost waiting for I/O, as the kernel's pressure stall information (PSI)
//! tells.
//!
//! It counts all devices and all tasks together, our own readers too: a backup that only waits for its disk raises it.
//! So it can say that the machine suffers, not because of whom; queues tell that (see `queue_stats`). Kernels without
//! PSI, or booted with `psi=0`, have none.

use std::fs;
use std::time::Duration;

use super::faults;

/// Time since boot in which tasks stood still for want of I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoPressure {
    /// At least one task waited for I/O.
    pub some: Duration,
    /// All tasks that had anything to do waited for I/O.
    pub full: Duration,
}

/// The I/O pressure of the machine until now; `None` where the kernel tells none.
#[must_use]
pub fn io_pressure() -> Option<IoPressure> {
    faults::point("read_pressure").ok()?;
    parse(&fs::read_to_string("/proc/pressure/io").ok()?)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`, and the same with `full`; totals in microseconds.
fn parse(text: &str) -> Option<IoPressure> {
    let total = |kind: &str| {
        let mut words = text.lines().map(str::split_ascii_whitespace).find_map(|mut line| {
            let same = line.next() == Some(kind);
            same.then_some(line)
        })?;
        let micros = words.find_map(|word| word.strip_prefix("total="))?;
        micros.parse().ok().map(Duration::from_micros)
    };
    Some(IoPressure { some: total("some")?, full: total("full")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read() {
        let text = "some avg10=36.07 avg60=22.01 avg300=13.69 total=1171198440\n\
                    full avg10=28.57 avg60=18.65 avg300=11.28 total=662091450\n";
        let pressure = parse(text).unwrap();
        assert_eq!(pressure.some, Duration::from_micros(1_171_198_440));
        assert_eq!(pressure.full, Duration::from_micros(662_091_450));
        for wrong in ["", "some total=5", "some total=x\nfull total=1", "full avg10=0.00\nsome total=5"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn some_is_never_less_than_full() {
        if let Some(pressure) = io_pressure() {
            assert!(pressure.some >= pressure.full);
        }
    }
}
