//! What every verb needs: the repository, the state folder, the cancel token that signals set.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::local_state;
use blkdelta_core::progress::Progress;
use blkdelta_core::repository::Repository;
use blkdelta_core::repository::catalog::Catalog;
use blkdelta_core::storage::{self, Storage};
use blkdelta_core::sys::terminal;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Cli;
use crate::secret;

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

    /// The directory or URL named by --repo or BLKDELTA_REPO.
    pub fn repo_path(&self) -> Result<PathBuf> {
        self.repo.clone().ok_or_else(|| {
            Error::new(ErrorKind::WrongUse, "no repository is named")
                .hint("use --repo DIR|URL or set BLKDELTA_REPO")
        })
    }

    /// What the repository is stored in.
    pub fn storage(&self) -> Result<Arc<dyn Storage>> {
        storage::at(self.repo_path()?)
    }

    /// The opened repository; an encrypted one by what the environment names, or by the passphrase that is asked for.
    pub fn repository(&self) -> Result<Repository> {
        open(self.storage()?, Secret::from_environment()?)
    }

    /// The opened repository, for reading from it: whoever reads is warned if it went back.
    pub fn repository_to_read(&self, volume: Option<&str>) -> Result<Repository> {
        let repository = self.repository()?;
        // Reading goes on whatever is found, and also where nothing can be found out.
        warn_of(repository.rollbacks(volume).unwrap_or_else(|error| vec![error]));
        Ok(repository)
    }

    /// The backups of one volume or of all, with the same warning.
    pub fn catalog(&self, volume: Option<&str>) -> Result<Catalog> {
        let repository = self.repository()?;
        match repository.catalog_and_rollbacks(volume) {
            Ok((catalog, rollbacks)) => {
                warn_of(rollbacks);
                Ok(catalog)
            }
            Err(error) => {
                warn_of(vec![error]);
                repository.catalog(volume)
            }
        }
    }

    /// The opened repository that copies go to. It may have a key of its own.
    pub fn repository_of_copies(&self, path: &Path) -> Result<Repository> {
        let storage = storage::at(path)?;
        let secret = match Secret::from_environment_of_copies()? {
            None if Repository::configuration(&*storage)?.encryption.is_some() => Secret::from_environment()?,
            own => own,
        };
        open(storage, secret)
    }
}

fn warn_of(rollbacks: Vec<Error>) {
    for rollback in rollbacks {
        tracing::warn!("{}", rollback.full_text());
        if let Some(hint) = rollback.next_step() {
            tracing::warn!("HINT: {hint}");
        }
    }
}

fn open(storage: Arc<dyn Storage>, secret: Option<Secret>) -> Result<Repository> {
    let repository = match secret {
        Some(secret) => Repository::open_with(storage, &secret)?,
        None => match Repository::open(Arc::clone(&storage)) {
            Err(error) if error.kind() == ErrorKind::WrongKey && terminal::somebody_is_there() => {
                Repository::open_with(storage, &secret::ask()?)?
            }
            opened => opened?,
        },
    };
    // Without a folder for local state nothing is remembered.
    Ok(local_state::default_folder().map_or(repository.clone(), |state| repository.remembering(&state)))
}
