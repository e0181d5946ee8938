//! Log lines to a callback of the caller.
//!
//! There is one receiver for the whole process, because log lines come from the threads of all runs. A non-zero return cancels
//! all work that goes on, for programs that want warnings to be failures. Trade-off: the receiver is called on whichever
//! thread has something to say, while a lock is held; so it must not call the library.
#![allow(unsafe_code)] // a callback of C

use std::ffi::{c_char, c_int, c_void};
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, Once, PoisonError, RwLock};

use blkdelta_core::cancel::CancelToken;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::error::{Status, c_text, wrong_use};
use crate::guard::enter;

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// Something failed.
    Error = 1,
    /// Something should be looked at.
    Warn = 2,
    /// What is being done.
    Info = 3,
    /// How it is being done.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// Called for each log line, from any thread, also from several at once. `level` is a blkdelta_log_level; `text` is
/// one line and valid during the call. A non-zero return cancels all work of this process that goes on. Must not call the
/// library, throw or longjmp.
pub type LogCallback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: c_int, text: *const c_char) -> c_int>;

struct Receiver {
    callback: unsafe extern "C" fn(*mut c_void, c_int, *const c_char) -> c_int,
    user: AtomicPtr<c_void>,
    level: c_int,
}

static RECEIVER: RwLock<Option<Receiver>> = RwLock::new(None);
static STOP: Mutex<Option<CancelToken>> = Mutex::new(None);
static SUBSCRIBED: Once = Once::new();

/// The token that is set when the receiver asks for an end of all that goes on now.
pub fn stop() -> CancelToken {
    STOP.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().clone()
}

/// Sets who receives log lines of this process, up to `level` (a blkdelta_log_level); NULL ends it. When this
/// returns, the receiver before is not called any more.
///
/// `user` is handed to the callback as it is and has to live until another receiver is set. Any thread, but never from
/// a callback.
#[unsafe(no_mangle)]
pub extern "C" fn blkdelta_log_set(callback: LogCallback, user: *mut c_void, level: c_int) -> Status {
    let work = |_: &crate::guard::Caller| {
        if callback.is_some() && !(LogLevel::Error as c_int..=LogLevel::Trace as c_int).contains(&level) {
            return Err(wrong_use(format!("{level} is no log level")));
        }
        // A second subscriber cannot be there: this library has its own copy of the crate.
        SUBSCRIBED.call_once(|| drop(tracing::subscriber::set_global_default(Lines)));
        let receiver = callback.map(|callback| Receiver { callback, user: AtomicPtr::new(user), level });
        *RECEIVER.write().unwrap_or_else(PoisonError::into_inner) = receiver;
        tracing::callsite::rebuild_interest_cache();
        Ok(Status::Ok)
    };
    // SAFETY: no pointer is followed.
    unsafe { enter(work) }
}

struct Lines;

fn number(level: Level) -> c_int {
    let level = match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        _ => LogLevel::Trace,
    };
    level as c_int
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let receiver = RECEIVER.read().unwrap_or_else(PoisonError::into_inner);
        receiver.as_ref().is_some_and(|receiver| number(*metadata.level()) <= receiver.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = c_text(line.message + &line.fields);
        let receiver = RECEIVER.read().unwrap_or_else(PoisonError::into_inner);
        let Some(receiver) = receiver.as_ref() else { return };
        let (user, level) = (receiver.user.load(Ordering::Relaxed), number(*event.metadata().level()));
        // SAFETY: the caller gave this function until another is set, which waits for the lock that is held here.
        if unsafe { (receiver.callback)(user, level, text.as_ptr()) } != 0 {
            let all = STOP.lock().unwrap_or_else(PoisonError::into_inner).take();
            all.unwrap_or_default().cancel();
        }
    }

    // The library has events only.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message, and its fields as ` name=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
