//! The pull side of a scan: changed ranges with their bytes, one after the other, as fast as they are asked for.
//!
//! The pass runs in a thread of its own and is at most two blocks ahead of the receiver. Trade-off: one hand-over between
//! threads for each changed block, none for unchanged ones.
//!
//! What the receiver has not asked beyond is not settled: the new manifest gets its name only when more is asked for after
//! the last change. A receiver that fails on any change, also on the last one, is told the same again by the next scan.

use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, SendError, Sender, bounded};

use super::change::{Change, Tell};
use super::failure::stopped;
use super::scan::{Findings, ScanOptions, ScanReport, scan_telling};
use crate::cancel::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;

/// Blocks on their way to the receiver.
const AHEAD: usize = 2;
/// How long `next` waits between two looks.
const PATIENCE: Duration = Duration::from_secs(3600);

enum Message {
    Block(Vec<Change>),
    /// A hint was proven wrong: all is told again from the start.
    Restart,
    /// Nothing more comes; the pass waits for a word before it settles its manifest.
    AllTold,
}

/// What came within the time.
pub enum Waited {
    /// The next change.
    Change(Change),
    /// All were told, and the manifest is settled.
    End,
    /// Nothing yet.
    NotYet,
}

/// The changes of a volume. Dropped before the end, it cancels the pass, and nothing is settled.
pub struct Changes {
    messages: Option<Receiver<Message>>,
    taken: Option<Sender<()>>,
    ready: VecDeque<Change>,
    cancel: CancelToken,
    pass: Option<JoinHandle<Result<ScanReport>>>,
    report: Option<ScanReport>,
}

impl Changes {
    /// Starts a scan whose changes are told with their bytes. If a hint is proven wrong meanwhile, all changes are told
    /// again from the start of the volume, and the report has an alarm.
    ///
    /// # Errors
    /// When no thread can be started; what is wrong with the source or the manifest is told by [`Changes::next`].
    pub fn of_scan(options: ScanOptions, progress: &Progress, cancel: &CancelToken) -> Result<Self> {
        let (to, messages) = bounded(AHEAD);
        let (taken, was_taken) = bounded(1);
        let (progress, cancel) = (progress.clone(), cancel.child());
        let its_cancel = cancel.clone();
        let pass = std::thread::Builder::new()
            .name("scan".into())
            .spawn(move || run(&options, &to, &was_taken, &progress, &its_cancel))
            .map_err(|source| Error::io("starting a thread", "", source))?;
        let ready = VecDeque::new();
        Ok(Self {
            messages: Some(messages),
            taken: Some(taken),
            ready,
            cancel,
            pass: Some(pass),
            report: None,
        })
    }

    /// The next change, waiting for it; `None` when all were told and the new manifest, if one was wanted, is there.
    ///
    /// # Errors
    /// Those of a scan; after one of them, each further call is an error too.
    #[allow(clippy::should_implement_trait)] // an iterator could not end with an error once and then with nothing
    pub fn next(&mut self) -> Result<Option<Change>> {
        loop {
            match self.next_within(PATIENCE)? {
                Waited::Change(change) => return Ok(Some(change)),
                Waited::End => return Ok(None),
                Waited::NotYet => {}
            }
        }
    }

    /// The same, waiting at most so long.
    ///
    /// # Errors
    /// As for [`Changes::next`].
    pub fn next_within(&mut self, patience: Duration) -> Result<Waited> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(Waited::Change(change));
            }
            let Some(messages) = &self.messages else { return self.ended() };
            match messages.recv_timeout(patience) {
                Ok(Message::Block(changes)) => self.ready.extend(changes),
                Ok(Message::Restart) => {}
                Ok(Message::AllTold) => {
                    let _ = self.taken.take().map(|taken| taken.send(()));
                }
                Err(RecvTimeoutError::Timeout) => return Ok(Waited::NotYet),
                Err(RecvTimeoutError::Disconnected) => return self.end().map(|()| Waited::End),
            }
        }
    }

    /// What the scan did, once all was told.
    #[must_use]
    pub fn report(&self) -> Option<&ScanReport> {
        self.report.as_ref()
    }

    /// A failed scan never looks like one that found nothing more.
    fn ended(&self) -> Result<Waited> {
        match self.report {
            Some(_) => Ok(Waited::End),
            None => Err(Error::new(ErrorKind::Cancelled, "this scan has failed before it came to the end")),
        }
    }

    fn end(&mut self) -> Result<()> {
        self.messages = None;
        let Some(pass) = self.pass.take() else { return Ok(()) };
        let done = pass
            .join()
            .map_err(|_| Error::new(ErrorKind::Io, "the scan ended by a mistake in the program"))?;
        self.report = Some(done?);
        Ok(())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.ready.clear();
        // Now nothing that the pass may wait for is left: no room in the channel, no word.
        self.taken = None;
        let _ = self.end();
    }
}

fn run(
    options: &ScanOptions,
    to: &Sender<Message>,
    was_taken: &Receiver<()>,
    progress: &Progress,
    cancel: &CancelToken,
) -> Result<ScanReport> {
    let gone = |_: SendError<Message>| stopped();
    let mut findings = Findings {
        tell: Tell::Changes(&mut |changes| to.send(Message::Block(changes)).map_err(gone)),
        on_restart: &mut || to.send(Message::Restart).map_err(gone),
        on_all_told: &mut || {
            to.send(Message::AllTold).map_err(gone)?;
            was_taken.recv().map_err(|_| stopped())?;
            cancel.check()
        },
    };
    scan_telling(options, None, &mut findings, progress, cancel)
}
