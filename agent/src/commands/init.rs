//! `blkdelta init`

use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::repository::{InitOptions, Repository};

use crate::cli::{FormatArgs, InitArgs};
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

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
    if args.encrypt {
        return Err(Error::new(ErrorKind::WrongUse, "encryption is not built yet")
            .hint("leave --encrypt out, and keep the repository on an encrypted file system"));
    }
    let path = args.directory.map_or_else(|| context.repo_path(), Ok)?;
    let repository = Repository::init_local(&path, options(&args.format))?;
    let config = repository.config();
    if context.json {
        report::json(config)?;
    } else {
        report::line(&format!("made repository {} in {}", config.repository_id, path.display()))?;
    }
    Ok(Exit::Done)
}
