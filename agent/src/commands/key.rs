//! `blkdelta key`

use std::path::Path;

use blkdelta_core::crypto::secret::Secret;
use blkdelta_core::error::Result;
use blkdelta_core::format::key_slot::SlotFacts;
use blkdelta_core::repository::Repository;
use blkdelta_core::repository::keys::{self, SlotOptions};

use crate::cli::{KeyArgs, KeyVerb, NewKeyArgs};
use crate::context::Context;
use crate::exit_code::Exit;
use crate::report;
use crate::secret;

pub fn run(context: &Context, args: &KeyArgs) -> Result<Exit> {
    match &args.what {
        KeyVerb::List => list(context),
        KeyVerb::Add(new) => put(context, &context.repository()?, new, "added", Repository::add_key),
        KeyVerb::Passwd(new) => {
            put(context, &context.repository()?, new, "changed to", Repository::change_key)
        }
        KeyVerb::Rotate(new) => {
            put(context, &context.repository()?, new, "rotated to", Repository::rotate_key)
        }
        KeyVerb::Import(import) => {
            let exported = Secret::from_key_file(&import.file)?;
            let repository = Repository::open_with(context.storage()?, &exported)?;
            put(context, &repository, &import.new, "added", Repository::add_key)
        }
        KeyVerb::Remove(which) => remove(context, &which.id),
        KeyVerb::Export(to) => export(context, to.file.as_deref()),
    }
}

fn list(context: &Context) -> Result<Exit> {
    let found = keys::list(&*context.storage()?)?;
    for error in &found.damaged {
        tracing::warn!(error = error.full_text(), "a key cannot be read");
    }
    if context.json {
        report::json(&found.keys)?;
    } else {
        found.keys.iter().try_for_each(|key| report::line(&row(key)))?;
    }
    Ok(if found.damaged.is_empty() { Exit::Done } else { Exit::Doubtful })
}

fn row(key: &SlotFacts) -> String {
    let (id, made) = (key.key_id.to_string(), key.created_at.to_string());
    format!("{id:.12}  {made:.19}Z  {:<10}  {}  {}", key.kind.name(), key.host, key.note)
}

fn put(
    context: &Context,
    repository: &Repository,
    new: &NewKeyArgs,
    done: &str,
    put: impl Fn(&Repository, &Secret, &SlotOptions) -> Result<SlotFacts>,
) -> Result<Exit> {
    let options = SlotOptions { note: new.note.clone(), ..SlotOptions::default() };
    let key = put(repository, &secret::new_key(new)?, &options)?;
    if context.json {
        report::json(&key)?;
    } else {
        report::line(&format!("{done} key {} ({})", key.key_id, key.kind.name()))?;
    }
    Ok(Exit::Done)
}

fn remove(context: &Context, id: &str) -> Result<Exit> {
    let id = context.repository()?.remove_key(id)?;
    if context.json {
        report::json(&serde_json::json!({ "key_id": id }))?;
    } else {
        report::line(&format!("removed key {id}; who has a copy of it can still use it: see `key rotate`"))?;
    }
    Ok(Exit::Done)
}

fn export(context: &Context, file: Option<&Path>) -> Result<Exit> {
    let repository = context.repository()?;
    if let Some(path) = file {
        repository.export_key_to(path)?;
        match context.json {
            true => report::json(&serde_json::json!({ "file": path }))?,
            false => report::line(&format!("wrote the key to {}", path.display()))?,
        }
        return Ok(Exit::Done);
    }
    let text = repository.export_key()?;
    match context.json {
        true => report::json(&serde_json::json!({ "key": *text }))?,
        false => report::line(text.trim_end())?,
    }
    Ok(Exit::Done)
}
