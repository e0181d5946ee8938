//! Asking for a passphrase on the terminal, without showing what is typed.
//!
//! The terminal is read byte by byte and Ctrl-C arrives as a byte: with the usual handling of lines and signals our own
//! handlers would leave the question open, and an ended process would leave the terminal without echo.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::faults;
use crate::error::{Error, ErrorKind, Result};

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// Whether there is somebody to ask.
#[must_use]
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for one line.
pub fn ask_hidden(question: &str) -> Result<Zeroizing<Vec<u8>>> {
    let problem = |source| Error::io("asking on", "the terminal", source);
    let mut stderr = io::stderr().lock();
    let _quiet = Quiet::begin().map_err(problem)?;
    write!(stderr, "{question}: ").and_then(|()| stderr.flush()).map_err(problem)?;
    let line = read_line(&mut io::stdin().lock().by_ref(), problem);
    let _ = writeln!(stderr);
    line
}

fn read_line(from: &mut impl Read, problem: impl Fn(io::Error) -> Error) -> Result<Zeroizing<Vec<u8>>> {
    let cancelled = || Error::new(ErrorKind::Cancelled, "no passphrase was given");
    // With room for more than anybody types: a vector that moves would leave its bytes behind.
    let mut line = Zeroizing::new(Vec::with_capacity(4096));
    let mut byte = [0];
    loop {
        match faults::point("read").and_then(|()| from.read(&mut byte)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(problem(error)),
            Ok(0) => return Err(cancelled()),
            Ok(_) => {}
        }
        match byte[0] {
            b'\n' | b'\r' => return Ok(line),
            CTRL_C => return Err(cancelled()),
            CTRL_D if line.is_empty() => return Err(cancelled()),
            CTRL_U => line.clear(),
            BACKSPACE | DELETE => {
                // The bytes behind the first of a UTF-8 character begin with the bits 10.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            other => line.push(other),
        }
    }
}

/// The terminal without echo, until it is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut quiet = before.clone();
        quiet.local_flags -= LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_a_person_corrects_it() {
        let read = |typed: &[u8]| {
            read_line(&mut &*typed, |source| Error::io("reading", "", source)).map(|line| line.to_vec())
        };
        assert_eq!(read(b"abc\x7fd\nrest").unwrap(), b"abd");
        assert_eq!(read("aß\u{8}b\r".as_bytes()).unwrap(), b"ab");
        assert_eq!(read(b"\x7fwrong\x15right\n").unwrap(), b"right");
        for typed in [&b"abc\x03"[..], b"\x04", b"", b"abc"] {
            assert_eq!(read(typed).unwrap_err().kind(), ErrorKind::Cancelled);
        }
    }
}
