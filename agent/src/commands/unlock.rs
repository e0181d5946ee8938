//! `blkdelta unlock`

use blkdelta_core::error::Result;
use blkdelta_core::operations::unlock::{UnlockedVolume, unlock};

use crate::cli::UnlockArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

/// A lock that stays is told by the exit code of locked volumes.
pub fn run(context: &Context, args: &UnlockArgs) -> Result<Exit> {
    let repository = context.repository()?;
    let done = unlock(&repository, args.volume.as_deref(), args.force)?;
    if context.json {
        report::json(&done)?;
    } else {
        done.iter().try_for_each(|lock| report::line(&text(lock)))?;
    }
    let held = done.iter().any(|lock| lock.state == "held");
    if held {
        report::hint(
            "wait for the runs that hold them, or end those; `--force` removes a lock in an object store all the same",
        );
    }
    Ok(if held { Exit::Locked } else { Exit::Done })
}

fn text(lock: &UnlockedVolume) -> String {
    let (volume, state) = (&lock.volume, lock.state);
    let whose = if lock.lock == "tags" { "lock of the tags" } else { "lock" };
    match (&lock.holder, &lock.why) {
        (Some(holder), Some(why)) => format!("'{volume}': {whose} {state}: {why} (of {holder})"),
        _ => format!("'{volume}': {whose} {state}"),
    }
}
