//! Freezing a mounted file system: no write reaches it, and its state on the device is a clean one, until it is thawed.
//!
//! A frozen file system stops everybody who writes to it, also after the freezing process has died. So nobody calls this
//! without somebody else standing by who will thaw it; see `consistency::freeze`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::faults;

mod ioctl {
    nix::ioctl_readwrite!(freeze, b'X', 119, libc::c_int);
    nix::ioctl_readwrite!(thaw, b'X', 120, libc::c_int);
}

/// Writes dirty data out while others still may write, which shortens the freeze that follows.
pub fn flush(root: &File) -> io::Result<()> {
    faults::point("syncfs")?;
    Ok(nix::unistd::syncfs(root)?)
}

/// Freezes the file system of an open directory; `EBUSY` when it is frozen already.
pub fn freeze(root: &File) -> io::Result<()> {
    faults::point("freeze")?;
    let mut unused = 0;
    // SAFETY: FIFREEZE takes a pointer to an int and neither reads nor writes it; the pointer is to a live int.
    unsafe { ioctl::freeze(root.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}

/// Thaws it; `EINVAL` when it is not frozen.
pub fn thaw(root: &File) -> io::Result<()> {
    faults::point("thaw")?;
    let mut unused = 0;
    // SAFETY: FITHAW takes a pointer to an int and neither reads nor writes it; the pointer is to a live int.
    unsafe { ioctl::thaw(root.as_raw_fd(), &raw mut unused) }?;
    Ok(())
}
