//! What every verb needs: the repository, the state folder, the cancel token that signals set.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::Repository;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Cli;

/// Shared by the verbs.
pub struct Context {
    repo: Option<PathBuf>,
    /// JSON wanted.
    pub json: bool,
    /// No progress wanted.
    pub quiet: bool,
    /// Counters of the running work.
    pub progress: Progress,
    /// Set by SIGINT and SIGTERM.
    pub cancel: CancelToken,
    terminated: Arc<AtomicBool>,
}

impl Context {
    /// Takes the global flags and starts listening to signals. A second signal ends the process at once.
    pub fn new(cli: &Cli) -> Result<Self> {
        let (cancelled, terminated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let problem = |source| Error::io("listening to signals", "", source);
        for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&cancelled))
                .map_err(problem)?;
            signal_hook::flag::register(signal, Arc::clone(&cancelled)).map_err(problem)?;
        }
        signal_hook::flag::register(SIGTERM, Arc::clone(&terminated)).map_err(problem)?;
        Ok(Self {
            repo: cli.repo.clone(),
            json: cli.json,
            quiet: cli.quiet,
            progress: Progress::new(),
            cancel: CancelToken::from_flag(cancelled),
            terminated,
        })
    }

    /// Whether SIGTERM came.
    pub fn was_terminated(&self) -> bool {
        self.terminated.load(Ordering::Relaxed)
    }

    /// The directory named by --repo or BLKDELTA_REPO.
    pub fn repo_path(&self) -> Result<PathBuf> {
        self.repo.clone().ok_or_else(|| {
            Error::new(ErrorKind::WrongUse, "no repository is named")
                .hint("use --repo DIR or set BLKDELTA_REPO")
        })
    }

    /// The opened repository.
    pub fn repository(&self) -> Result<Repository> {
        Repository::open_local(&self.repo_path()?)
    }
}
