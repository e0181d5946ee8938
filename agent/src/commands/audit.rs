//! `blkdelta audit`

use blkdelta_core::error::Result;
use blkdelta_core::operations::audit::{AuditReport, audit};
use blkdelta_core::repository::audit::{AuditEntry, AuditEvent, AuditOutcome};

use crate::cli::AuditArgs;
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;

pub fn run(context: &Context, args: &AuditArgs) -> Result<Exit> {
    let repository = context.repository()?;
    if args.accept {
        repository.accept_rollback()?;
        repository.audit(
            &AuditEvent::new("audit", AuditOutcome::Done).detail("taken as it is, whatever was seen"),
        )?;
    }
    let mut done = audit(&repository, args.check)?;
    let older = args.last.map_or(0, |last| done.entries.len().saturating_sub(last));
    done.entries.drain(..older);
    if context.json {
        report::json(&done)?;
    } else {
        show(&done, args.check)?;
    }
    if done.ok {
        return Ok(Exit::Done);
    }
    report::hint("`blkdelta list` shows what is there; `blkdelta verify --data` proves what can be restored");
    Ok(Exit::Damaged)
}

fn show(report: &AuditReport, checked: bool) -> Result<()> {
    report.entries.iter().try_for_each(|entry| report::line(&row(entry)))?;
    report.problems.iter().try_for_each(|problem| report::line(&format!("WRONG: {problem}")))?;
    let Some(head) = &report.head else { return report::line("the audit log is empty") };
    let proven = match (checked, report.ok) {
        (false, true) => "",
        (true, true) => "; the chain is whole and agrees with the backups",
        (_, false) => "; it is NOT whole",
    };
    report::line(&format!("{} entries; head {} {}{proven}", head.number, head.number, head.digest))
}

fn row(entry: &AuditEntry) -> String {
    let outcome = match entry.outcome {
        AuditOutcome::Begun => "begun",
        AuditOutcome::Done => "done",
        AuditOutcome::Failed => "FAILED",
    };
    let ids: Vec<String> = entry.backups.iter().map(|id| format!("{:.12}", id.to_string())).collect();
    let parts = [entry.volume.clone().unwrap_or_default(), ids.join(" "), entry.detail.clone()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let (number, time) = (entry.number, entry.time.to_string());
    format!(
        "{number:>6}  {time:.19}Z  {}@{}  {} {outcome}  {}",
        entry.user,
        entry.host,
        entry.verb,
        parts.join("  ")
    )
}
