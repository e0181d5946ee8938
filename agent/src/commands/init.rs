//! `blkdelta init`

use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::format::repository_config::RepositoryConfig;
use blkdelta_core::repository::keys::SlotOptions;
use blkdelta_core::repository::{InitOptions, Repository};
use blkdelta_core::storage;

use crate::cli::{FormatArgs, InitArgs};
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;
use crate::secret;

/// What a repository has that copies are to fit in.
fn like(config: &RepositoryConfig) -> InitOptions {
    InitOptions {
        digest: config.digest,
        block_size: config.block_size,
        grain_size: config.grain_size,
        compression: config.compression,
    }
}

/// What the format flags say.
pub fn options(format: &FormatArgs) -> InitOptions {
    InitOptions {
        digest: format.digest,
        block_size: format.block_size,
        grain_size: format.grain_size,
        compression: format.compression,
    }
}

pub fn run(context: &Context, args: InitArgs) -> Result<Exit> {
    let path = args.directory.map_or_else(|| context.repo_path(), Ok)?;
    let options = match &args.like {
        Some(other) => like(&Repository::configuration(&*storage::at(other)?)?),
        None => options(&args.format),
    };
    let repository = match (args.encrypt, Secret::from_environment()?) {
        (true, secret) => {
            let secret = secret.map_or_else(secret::ask_new, Ok)?;
            Repository::init_encrypted(storage::at(&path)?, options, &secret, &SlotOptions::default())?
        }
        (false, None) => Repository::init_at(&path, options)?,
        (false, Some(_)) => {
            return Err(Error::new(ErrorKind::WrongUse, "a passphrase or key is given, but not --encrypt")
                .hint("add --encrypt, or unset what names the passphrase or key"));
        }
    };
    let config = repository.config();
    if context.json {
        report::json(config)?;
    } else {
        report::line(&format!("made repository {} in {}", config.repository_id, path.display()))?;
    }
    Ok(Exit::Done)
}
