//! A program that is kept running and talked to over its standard input: a database client that holds a lock, a guardian.
//!
//! Each thing said is followed by something that makes the program print a line of our choice; all lines before it are
//! the answer. The program ends when its input closes, and so also when this process is killed: what it holds for us
//! (a lock, a backup mode) goes with it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Command, kill, text_of, wait};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// How often a wait for an answer looks at the cancel token.
const LOOK: Duration = Duration::from_millis(50);
/// How long a program may take to end once its input is closed.
const FAREWELL: Duration = Duration::from_secs(10);
/// How much of its messages goes into an error.
const MESSAGE_MAX: usize = 500;

/// A running program. Dropping it closes its input and ends it.
pub struct Session {
    command: Command,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    messages: Option<JoinHandle<String>>,
}

impl Session {
    pub(super) fn new(command: Command, mut child: Child) -> Self {
        let (sender, lines) = channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        std::thread::spawn(move || {
            let Some(out) = out else { return };
            let mut lines = BufReader::new(out).split(b'\n');
            while let Some(Ok(line)) = lines.next() {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { command, child, input, lines, messages: Some(std::thread::spawn(move || text_of(err))) }
    }

    /// Says `text` and gives the lines that come before the line `mark`. An error when the program ends before that,
    /// takes longer than `patience`, or the token is cancelled.
    pub fn ask(
        &mut self,
        text: &str,
        mark: &str,
        patience: Duration,
        cancel: &CancelToken,
    ) -> Result<Vec<String>> {
        if let Some(input) = &mut self.input {
            // A program that has ended is found out below, where it can say why.
            let _ = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        }
        let (end, mut answer) = (Instant::now() + patience, Vec::new());
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) if line == mark => return Ok(answer),
                Ok(line) => answer.push(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= end => {
                    let text = format!("{} has not answered for {} s", self.name(), patience.as_secs());
                    return Err(Error::new(ErrorKind::Io, text).hint(self.by_hand()));
                }
                Err(RecvTimeoutError::Timeout) => cancel.check()?,
            }
        }
    }

    /// Says a last word, closes its input, and waits until it has ended well.
    pub fn end(mut self, last: &str) -> Result<()> {
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(last.as_bytes());
        }
        let status = wait(&mut self.child, FAREWELL).map_err(|source| self.command.problem(source))?;
        if status.is_some_and(|status| status.success()) { Ok(()) } else { Err(self.ended()) }
    }

    fn name(&self) -> String {
        self.command.program.display().to_string()
    }

    fn by_hand(&self) -> String {
        format!("try it by hand: {:?}", self.command.inner)
    }

    /// Why it has ended, in its own words.
    fn ended(&mut self) -> Error {
        self.input = None;
        let status = wait(&mut self.child, FAREWELL).ok().flatten();
        let how = status.map_or_else(|| "it had to be killed".to_owned(), |status| status.to_string());
        let messages = self.messages.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let words: Vec<&str> = messages.split_whitespace().collect();
        let said: String = words.join(" ").chars().take(MESSAGE_MAX).collect();
        Error::new(ErrorKind::Io, format!("{} has ended ({how}): {said}", self.name())).hint(self.by_hand())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.input = None;
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(&self.child);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(400);

    fn shell(script: &str) -> Session {
        Command::new("sh").args(["-c", script]).session().unwrap()
    }

    #[test]
    fn questions_are_answered_one_by_one() {
        let cancel = CancelToken::new();
        let mut session = shell("while read word; do echo \"$word 1\"; echo \"$word 2\"; echo .; done");
        for word in ["a", "b"] {
            let answer = session.ask(&format!("{word}\n"), ".", SOON, &cancel).unwrap();
            assert_eq!(answer, [format!("{word} 1"), format!("{word} 2")]);
        }
        session.end("").unwrap();
    }

    #[test]
    fn a_program_that_ends_tells_why() {
        let cancel = CancelToken::new();
        let mut session = shell("read word; echo half an answer; echo 'no such role' >&2; exit 3");
        let error = session.ask("a\n", ".", SOON, &cancel).unwrap_err();
        assert!(error.to_string().contains("no such role") && error.next_step().is_some(), "{error}");
        let error = session.ask("b\n", ".", SOON, &cancel).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
        assert!(shell("cat; exit 4").end("last").is_err());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let cancel = CancelToken::new();
        let mut session = shell("sleep 600");
        let error = session.ask("", ".", Duration::from_millis(100), &cancel).unwrap_err();
        assert!(error.to_string().contains("has not answered"), "{error}");
        cancel.cancel();
        let error = session.ask("", ".", SOON, &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}
