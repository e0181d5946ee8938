//! The `blkdelta` command: reads the command line, runs one verb, reports, ends with the contract's exit code.

mod cli;
mod commands;
mod context;
mod exit_code;
mod gentleness;
mod logging;
mod progress_bar;
mod ranges;
mod report;
mod secret;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};
use context::Context;
use exit_code::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.verbose, cli.quiet);
    let context = match Context::new(&cli) {
        Ok(context) => context,
        Err(error) => {
            report::error(&error);
            return Exit::Failed.into();
        }
    };
    let result = match cli.verb {
        Verb::Init(args) => commands::init::run(&context, args),
        Verb::Backup(args) => commands::backup::run(&context, &args),
        Verb::Scan(args) => commands::scan::run(&context, args),
        Verb::List(args) => commands::list::run(&context, &args),
        Verb::Show(args) => commands::show::run(&context, &args),
        Verb::Diff(args) => commands::diff::run(&context, &args),
        Verb::Restore(args) => commands::restore::run(&context, args),
        Verb::Verify(args) => commands::verify::run(&context, args),
        Verb::Merge(args) => commands::merge::run(&context, args),
        Verb::Audit(args) => commands::audit::run(&context, &args),
        Verb::Copy(args) => commands::copy::run(&context, args),
        Verb::Apply(args) => commands::apply::run(&context, &args),
        Verb::Unlock(args) => commands::unlock::run(&context, &args),
        Verb::Cleanup(args) => commands::cleanup::run(&context, &args),
        Verb::Prune(args) => commands::prune::run(&context, &args),
        Verb::Tag(args) => commands::tag::run(&context, &args),
        Verb::Key(args) => commands::key::run(&context, &args),
        Verb::Limits(args) => commands::limits::run(&context, args),
    };
    let exit = result.unwrap_or_else(|error| {
        report::error(&error);
        Exit::of(&error, context.was_terminated())
    });
    exit.into()
}
