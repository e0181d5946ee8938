//! Locks in an object store: an object that says who holds the lock and until when.
//!
//! It is created if absent, and from then on only replaced by compare-and-swap: by its holder, who renews it in time and
//! gives it back at the end, or by the next one when it is over or its holder's process is gone. So of several that want it
//! one gets it, and a holder whose renewal fails knows that it was taken.
//!
//! Trade-off: a lease can end while its holder stands still (a paused process, a dead network), and between a check and what
//! follows it there is always a moment. So a lock of this kind only keeps hosts out of each other's way; what must not go
//! wrong is guarded by puts that must be the first, and by tombstones. The ends are times of the hosts' clocks: one that is
//! wrong by more than the lease takes locks too early, which costs the other host its run, and no data.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use object_store::path::Path as Key;
use object_store::{PutMode, PutOptions, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refusal::{Failure, Meaning};
use super::remote::{Remote, seconds_from};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{LockGuard, Unlocked};
use crate::sys::host;

/// How long a lock holds without renewal, unless BLKDELTA_LEASE says otherwise.
const LEASE: Duration = Duration::from_secs(300);
/// How often somebody who is faster is given way to.
const TRIES: u32 = 5;
/// The end of a run does not wait longer for a store that is gone.
const GIVE_BACK_PATIENCE: Duration = Duration::from_secs(3);
/// Longest lock object that is read.
const LEN_MAX: usize = 64 << 10;

/// The object's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ticket {
    /// Version of this layout.
    lease: u32,
    /// Whose it is: random, new with every lock that is taken.
    token: String,
    /// End, unless it is renewed.
    until: Timestamp,
    /// Whether it was given back.
    released: bool,
    /// Who holds it, for people: host, process, boot.
    holder: Value,
}

impl Ticket {
    fn new(note: &str, lease: Duration) -> Result<Self> {
        let random = host::random_bytes::<16>()?;
        let holder = serde_json::from_str(note).unwrap_or_else(|_| Value::String(note.to_owned()));
        let token = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { lease: 1, token, until: after(lease), released: false, holder })
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Why nobody holds it any more.
    fn why_dead(&self) -> Option<String> {
        let field = |name: &str| self.holder.get(name).and_then(Value::as_str).unwrap_or_default();
        let same = |name: &str, ours: &str| !ours.is_empty() && field(name) == ours;
        let pid = self.holder.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
        if self.released {
            return Some("it was given back".into());
        }
        if self.until < Timestamp::now() {
            return Some(format!("its lease ended at {}", self.until));
        }
        if !same("host", &host::hostname()) {
            return None;
        }
        if !same("boot_id", &host::boot_id()) {
            return Some("its host has started anew since".into());
        }
        let gone = pid.is_some_and(|pid| !host::process_lives(pid));
        (gone && same("pid_namespace", &host::pid_namespace())).then(|| "its process is gone".into())
    }
}

fn after(lease: Duration) -> Timestamp {
    let lease = SignedDuration::try_from(lease).unwrap_or(SignedDuration::MAX);
    Timestamp::now().saturating_add(lease).unwrap_or(Timestamp::MAX)
}

/// Takes a lock.
pub fn lock(remote: &Arc<Remote>, name: &str, note: &str) -> Result<Box<dyn LockGuard>> {
    let length = seconds_from("BLKDELTA_LEASE", LEASE)?;
    let place = Place::new(remote, name)?;
    for _ in 0..TRIES {
        let ticket = Ticket::new(note, length)?;
        let ends = Instant::now() + length;
        if let Some(version) = place.put_new(&ticket)? {
            return Ok(Box::new(Lease::hold(place, ticket, version, ends, length)));
        }
        let Some((found, version)) = place.read()? else { continue };
        let Some(why) = found.why_dead() else { return Err(place.locked(&found)) };
        tracing::debug!(lock = name, holder = %found.holder, why, "taking over a lock");
        if let Some(version) = place.replace(&ticket, &version, place.remote.patience())? {
            return Ok(Box::new(Lease::hold(place, ticket, version, ends, length)));
        }
    }
    Err(Error::new(ErrorKind::Locked, "others take the lock again and again").path(place.path))
}

/// Removes a lock whose holder is dead; a living one's with `force`.
pub fn unlock(remote: &Arc<Remote>, name: &str, force: bool) -> Result<Unlocked> {
    let place = Place::new(remote, name)?;
    let Some((found, version)) = place.read()? else { return Ok(Unlocked::Free) };
    if found.released {
        return Ok(Unlocked::Free);
    }
    let holder = found.holder.to_string();
    let why = match found.why_dead() {
        Some(why) => why,
        None if force => "by force".to_owned(),
        None => return Ok(Unlocked::Held { holder, why: format!("its lease ends at {}", found.until) }),
    };
    let given_back = Ticket { released: true, ..found };
    match place.replace(&given_back, &version, place.remote.patience())? {
        Some(_) => Ok(Unlocked::Removed { holder, why }),
        None => Ok(Unlocked::Held { holder, why: "it was renewed, or taken by another, just now".into() }),
    }
}

/// A lock's object.
#[derive(Clone)]
struct Place {
    remote: Arc<Remote>,
    key: Key,
    path: PathBuf,
}

impl Place {
    fn new(remote: &Arc<Remote>, name: &str) -> Result<Self> {
        Ok(Self { remote: Arc::clone(remote), key: remote.key(name)?, path: remote.display(name) })
    }

    /// Puts the first ticket; `None` when there is one already.
    fn put_new(&self, ticket: &Ticket) -> Result<Option<UpdateVersion>> {
        let (remote, key, bytes) = (Arc::clone(&self.remote), self.key.clone(), ticket.bytes());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.remote.wait(async move { remote.put_new(&key, bytes, options).await });
        match put {
            Ok(()) => {
                Ok(self.read()?.filter(|(found, _)| found.token == ticket.token).map(|(_, version)| version))
            }
            Err(failure) if failure.meaning == Meaning::Condition => Ok(None),
            Err(failure) => Err(failure.error("locking", &self.path)),
        }
    }

    /// The ticket that is there, if any.
    fn read(&self) -> Result<Option<(Ticket, UpdateVersion)>> {
        let (remote, key) = (Arc::clone(&self.remote), self.key.clone());
        match self.remote.wait(async move { remote.get(&key, None).await }) {
            Ok((bytes, _, version)) => Ok(Some((decode(&bytes, &self.path)?, version))),
            Err(failure) if failure.meaning == Meaning::Missing => Ok(None),
            Err(failure) => Err(failure.error("reading a lock", &self.path)),
        }
    }

    /// Puts a ticket in the place of the one with this version; `None` when that is not there any more.
    fn replace(
        &self,
        ticket: &Ticket,
        old: &UpdateVersion,
        patience: Duration,
    ) -> Result<Option<UpdateVersion>> {
        let refused = match self.swap(ticket, old, patience) {
            Ok(version) => return Ok(Some(version)),
            Err(failure) if failure.meaning == Meaning::Condition || failure.passes() => failure,
            Err(failure) => return Err(failure.error("renewing a lock", &self.path)),
        };
        // A try whose answer was lost may have succeeded.
        match self.read()? {
            Some((found, version)) if found == *ticket => Ok(Some(version)),
            _ if refused.meaning == Meaning::Condition => Ok(None),
            _ => Err(refused.error("renewing a lock", &self.path)),
        }
    }

    /// Some stores want the tag as they gave it, some without its quotes; neither fits another object.
    fn swap(
        &self,
        ticket: &Ticket,
        old: &UpdateVersion,
        patience: Duration,
    ) -> std::result::Result<UpdateVersion, Failure> {
        let bare = old.e_tag.as_ref().map(|tag| tag.trim_matches('"').to_owned());
        match self.swap_tagged(ticket, old.clone(), patience) {
            Err(failure) if failure.meaning == Meaning::Condition && bare != old.e_tag => {
                self.swap_tagged(ticket, UpdateVersion { e_tag: bare, ..old.clone() }, patience)
            }
            other => other,
        }
    }

    fn swap_tagged(
        &self,
        ticket: &Ticket,
        old: UpdateVersion,
        patience: Duration,
    ) -> std::result::Result<UpdateVersion, Failure> {
        let (remote, key, payload) =
            (Arc::clone(&self.remote), self.key.clone(), PutPayload::from(ticket.bytes()));
        let mode = if remote.single_writer { PutMode::Overwrite } else { PutMode::Update(old) };
        let options = PutOptions { mode, ..PutOptions::default() };
        self.remote.wait(async move {
            let request = || remote.clients().objects.put_opts(&key, payload.clone(), options.clone());
            let put = remote.tried_for(patience, Duration::ZERO, request).await.result?;
            Ok(UpdateVersion { e_tag: put.e_tag, version: put.version })
        })
    }

    fn locked(&self, found: &Ticket) -> Error {
        let text = format!("the volume is locked by {} (lease until {})", found.holder, found.until);
        Error::new(ErrorKind::Locked, text).path(&self.path).hint(
            "wait until that run has ended; if it is dead, its lease ends by itself, or at once with `blkdelta unlock --force`",
        )
    }
}

fn decode(bytes: &[u8], path: &Path) -> Result<Ticket> {
    let ticket = (bytes.len() <= LEN_MAX).then(|| serde_json::from_slice::<Ticket>(bytes).ok()).flatten();
    ticket.filter(|ticket| ticket.lease == 1).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "a lock that this version cannot read")
            .path(path)
            .hint("use the version of blkdelta that made it; if nobody works there, remove this object")
    })
}

/// A held lock, renewed by a thread.
struct Lease {
    shared: Arc<Shared>,
    renewer: Option<JoinHandle<()>>,
}

struct Shared {
    place: Place,
    length: Duration,
    state: Mutex<State>,
    stop: Condvar,
}

struct State {
    ticket: Ticket,
    version: UpdateVersion,
    /// By our own clock, which cannot be set.
    ends: Instant,
    lost: Option<String>,
    stopped: bool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lease {
    fn hold(place: Place, ticket: Ticket, version: UpdateVersion, ends: Instant, length: Duration) -> Self {
        let state = Mutex::new(State { ticket, version, ends, lost: None, stopped: false });
        let shared = Arc::new(Shared { place, length, state, stop: Condvar::new() });
        let renewing = Arc::clone(&shared);
        let renewer =
            std::thread::Builder::new().name("lease".into()).spawn(move || renewing.renew_until_stopped());
        // Without the thread the lease ends, and the check before the commit renews it or tells.
        Self { shared, renewer: renewer.ok() }
    }
}

impl Shared {
    fn renew_until_stopped(&self) {
        let mut state = held(&self.state);
        while !state.stopped && state.lost.is_none() {
            let (guard, waited) =
                self.stop.wait_timeout(state, self.length / 3).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if waited.timed_out()
                && !state.stopped
                && let Err(error) = self.renew(&mut state)
            {
                tracing::warn!(%error, "the lock was not renewed");
            }
        }
    }

    fn renew(&self, state: &mut State) -> Result<()> {
        let ends = Instant::now() + self.length;
        let ticket = Ticket { until: after(self.length), ..state.ticket.clone() };
        match self.place.replace(&ticket, &state.version, self.length / 3)? {
            Some(version) => {
                (state.ticket, state.version, state.ends) = (ticket, version, ends);
                Ok(())
            }
            None => {
                let by = self.place.read().ok().flatten().map(|(found, _)| found.holder.to_string());
                state.lost = Some(by.unwrap_or_else(|| "another".into()));
                Ok(())
            }
        }
    }

    /// Renews a lease that is soon over, by comparing: if it succeeds, nobody else has had it in between.
    fn freshen(&self, state: &mut State) -> Result<()> {
        let is_fresh = state.ends.saturating_duration_since(Instant::now()) > self.length / 3
            && state.ticket.until > Timestamp::now();
        if state.lost.is_some() || is_fresh { Ok(()) } else { self.renew(state) }
    }

    fn lost(&self, state: &State) -> Result<()> {
        let Some(by) = &state.lost else { return Ok(()) };
        Err(Error::new(
            ErrorKind::Locked,
            format!("the lock was taken over by {by} while this run stood still"),
        )
        .path(&self.place.path)
        .hint("run it again; what the other has done stays"))
    }
}

impl LockGuard for Lease {
    fn check(&self) -> Result<()> {
        let mut state = held(&self.shared.state);
        self.shared.freshen(&mut state).map_err(|error| {
            error
                .kind_is(ErrorKind::Locked)
                .hint("whether the lock is still ours cannot be told: run it again")
        })?;
        self.shared.lost(&state)
    }

    fn is_lost(&self) -> bool {
        let mut state = held(&self.shared.state);
        self.shared.freshen(&mut state).is_ok() && state.lost.is_some()
    }

    fn can_be_lost(&self) -> bool {
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        held(&self.shared.state).stopped = true;
        self.shared.stop.notify_all();
        if let Some(renewer) = self.renewer.take() {
            let _ = renewer.join();
        }
        let state = held(&self.shared.state);
        if state.lost.is_none() {
            let given_back = Ticket { released: true, ..state.ticket.clone() };
            if let Err(failure) = self.shared.place.swap(&given_back, &state.version, GIVE_BACK_PATIENCE) {
                tracing::warn!(?failure, "the lock was not given back; it ends with its lease");
            }
        }
    }
}
