//! Where this process's own control groups are in the file system: `/proc/self/cgroup` laid over the mounts.
//!
//! Inside a container both are cut to what it may see. What does not fit together there is a reason, never a guess: a
//! limit that lands in a stranger's group would slow down the stranger.

use std::path::{Path, PathBuf};

/// The own group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own {
    /// The topmost group that can be seen.
    pub(super) top: PathBuf,
    /// The group that this process is in.
    pub(super) folder: PathBuf,
}

/// The own group of version 2; `groups` is the text of `/proc/self/cgroup`, `mounts` that of `/proc/self/mountinfo`.
pub(super) fn version_2(groups: &str, mounts: &str) -> Result<Own, String> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"));
    find(path, mounts, "cgroup v2", |kind, _| kind == "cgroup2")
}

/// The own group of version 1's block I/O controller.
pub(super) fn version_1(groups: &str, mounts: &str) -> Result<Own, String> {
    let path = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        has_word(controllers, "blkio").then_some(path)
    });
    find(path, mounts, "the blkio controller of cgroup v1", |kind, options| {
        kind == "cgroup" && has_word(options, "blkio")
    })
}

fn has_word(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word)
}

fn find(
    path: Option<&str>,
    mounts: &str,
    what: &str,
    wanted: impl Fn(&str, &str) -> bool,
) -> Result<Own, String> {
    let path = path.ok_or_else(|| format!("{what} is not there on this machine"))?;
    let mut seen = false;
    for line in mounts.lines() {
        // `31 23 0:28 /root /point rw - cgroup2 cgroup2 rw,nsdelegate` (proc(5)).
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        if !wanted(kind, options) {
            continue;
        }
        seen = true;
        let top = PathBuf::from(unescape(point));
        if let Ok(below) = Path::new(path).strip_prefix(unescape(root))
            && !below.starts_with("..")
        {
            let folder = if below.as_os_str().is_empty() { top.clone() } else { top.join(below) };
            return Ok(Own { top, folder });
        }
    }
    Err(if seen {
        format!("{what} is mounted, but this process's own group {path} cannot be seen there (a container?)")
    } else {
        format!("{what} is not mounted here")
    })
}

/// mountinfo writes blanks, tabs, line ends and backslashes as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    // The backslash last: names of units contain texts such as `\x2d`, which must not be read twice.
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "23 27 0:22 / /sys rw,relatime - sysfs sysfs rw\n\
        38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:7 - cgroup cgroup rw,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn own(top: &str, folder: &str) -> Own {
        Own { top: top.into(), folder: folder.into() }
    }

    #[test]
    fn both_versions_side_by_side() {
        let groups = "9:name=systemd:/\n7:net_cls,blkio:/jobs/a:b\n8:pids:/\n0::/\n";
        assert_eq!(
            version_2(groups, MOUNTS).unwrap(),
            own("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified")
        );
        assert_eq!(
            version_1(groups, MOUNTS).unwrap(),
            own("/sys/fs/cgroup/blkio", "/sys/fs/cgroup/blkio/jobs/a:b")
        );
    }

    #[test]
    fn systemd_and_containers() {
        let systemd = r"27 23 0:24 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let found = version_2("0::/system.slice/system-x\\x2dy.slice/a.service\n", systemd).unwrap();
        assert_eq!(found.folder, Path::new(r"/sys/fs/cgroup/system.slice/system-x\x2dy.slice/a.service"));
        let docker = r"27 23 0:24 /docker/a\134x2d /sys/fs/cgroup ro - cgroup cgroup rw,blkio";
        let found = version_1("4:blkio:/docker/a\\x2d/sub\n", docker).unwrap();
        assert_eq!(found, own("/sys/fs/cgroup", "/sys/fs/cgroup/sub"));
    }

    #[test]
    fn what_does_not_fit_is_a_sentence() {
        let docker = "27 23 0:24 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw";
        assert!(version_2("0::/other\n", docker).unwrap_err().contains("/other cannot be seen"));
        let cut = "27 23 0:24 / /sys/fs/cgroup ro - cgroup2 cgroup rw";
        assert!(version_2("0::/../beside\n", cut).unwrap_err().contains("cannot be seen"));
        assert!(version_1("7:blkio:/\n", cut).unwrap_err().contains("is not mounted"));
        assert!(version_1("0::/\n", MOUNTS).unwrap_err().contains("is not there"));
        assert!(version_2("", "").is_err());
    }
}
