//! `around [options] -- COMMAND...`: runs a command where a backup takes its snapshot, with the options that a backup has
//! for consistency; then prints the position of the databases as JSON.
//!
//! For `tests/storage/consistency`, which needs snapshots that hang, fail, or show how things stand at their moment.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::{Command, ExitCode};

use blkdelta_core::cancel::CancelToken;
use blkdelta_core::consistency::{Consistency, MysqlOptions, PostgresOptions};
use blkdelta_core::error::{Error, ErrorKind, Result};
use blkdelta_core::units::parse_duration;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}\nHINT: {}", error.full_text(), error.next_step().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut consistency = Consistency::default();
    let mut volumes = 1;
    let mut words = std::env::args().skip(1);
    for word in words.by_ref().take_while(|word| word != "--") {
        let (name, value) = word.split_once('=').unwrap_or((&word, ""));
        match name {
            "--before-snapshot" => consistency.hooks.before = Some(value.into()),
            "--after-snapshot" => consistency.hooks.after = Some(value.into()),
            "--freeze" => consistency.freeze.push(value.into()),
            "--freeze-timeout" => consistency.timeout = parse_duration(value)?,
            "--postgresql" => consistency.postgres = Some(PostgresOptions::new(value)?),
            "--mysql" => {
                let defaults_file = Some(value).filter(|value| !value.is_empty()).map(Into::into);
                consistency.mysql = Some(MysqlOptions { defaults_file });
            }
            "--volumes" => volumes = value.parse().map_err(|_| wrong("--volumes=NUMBER"))?,
            _ => return Err(wrong(&format!("not an option: {name}"))),
        }
    }
    let command: Vec<String> = words.collect();
    let (program, arguments) = command.split_first().ok_or_else(|| wrong("no command"))?;
    let take = || {
        let status = Command::new(program).args(arguments).status();
        let status = status.map_err(|source| Error::io("running", program, source))?;
        if status.success() { Ok(()) } else { Err(wrong("the snapshot failed")) }
    };
    let ((), around) = consistency.around(volumes, &CancelToken::new(), take)?;
    for warning in around.warnings {
        eprintln!("WARNING: {warning}");
    }
    println!("{}", serde_json::json!(around.position));
    Ok(())
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::WrongUse, what).hint("see the head of this program")
}
