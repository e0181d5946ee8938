//! One object store: its client, the threads that wait for it, and how often a request is tried again.
//!
//! Every request is made to be safe to repeat, so one rule holds for all: whatever may pass (a broken connection, silence,
//! 5xx, 429, a conflict of two puts) is tried again with growing pauses until the patience ends. Whoever repeats a put that
//! must be the first learns whether an earlier try may have succeeded, and looks before he takes his own success for
//! another's. The library's own retries are switched off: they would hide just that.
//!
//! Futures run on the runtime's threads and callers wait on a channel, so that the storage can be used from any thread,
//! inside another runtime too.

use std::env;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpConnector};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, PutOptions, PutPayload, UpdateVersion};
use tokio::runtime::Runtime;

use super::refusal::{Connector, Failure, Meaning};
use super::url::Url;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::host;
use crate::units;

/// Longest silence in an answer, where the patience is not shorter.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a request is tried again, unless BLKDELTA_PATIENCE says otherwise.
const PATIENCE: Duration = Duration::from_secs(180);
/// The same before the store has answered for the first time: a wrong address is told soon.
const FIRST_PATIENCE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An answer is waited for this long, and longer by what [`on_the_way`] and [`put_together`] say of its bytes.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes per second that one request must get at least: a line of 3 Mbit/s carries the parts that go up at once.
const SLOWEST: u64 = 128 << 10;
/// The same of a store that makes an object of its parts, and the longest time for it: Amazon speaks of minutes.
const SLOWEST_STORE: u64 = 8 << 20;
const LONGEST_PUTTING_TOGETHER: u64 = 600;
const THREADS: usize = 2;

/// The clients of one store; all are the same one.
pub struct Clients {
    /// Whole objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Uploads in parts.
    pub uploads: Arc<dyn MultipartStore>,
    /// For what the library has no call for.
    pub s3: Option<S3>,
}

/// What it takes to make a signed request.
pub struct S3 {
    /// Signs.
    pub store: Arc<AmazonS3>,
    connector: Connector,
    client: OnceLock<HttpClient>,
}

impl S3 {
    /// Requests that this store signs go out by this connector.
    pub fn new(store: Arc<AmazonS3>, connector: Connector) -> Self {
        Self { store, connector, client: OnceLock::new() }
    }

    /// Sends; made when it is first asked for, as that reads the host's certificates.
    pub fn client(&self) -> object_store::Result<&HttpClient> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.connector.connect(&ClientOptions::new().with_allow_http(true))?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// An object store with a prefix.
pub struct Remote {
    clients: Clients,
    runtime: Option<Runtime>,
    prefix: String,
    root: String,
    patience: Duration,
    answered: AtomicBool,
    /// Conditions are looked after, not asked of the store.
    pub single_writer: bool,
}

/// What became of a request after all tries.
pub struct Tried<T> {
    /// The last answer.
    pub result: std::result::Result<T, Failure>,
    /// Whether an earlier try may have been carried out.
    pub doubtful: bool,
}

impl Remote {
    /// The store behind a URL.
    pub fn new(clients: Clients, url: &Url, patience: Duration) -> Result<Arc<Self>> {
        let root = url.root();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("object-store")
            .enable_all()
            .build()
            .map_err(|source| Error::io("starting threads for", &root, source))?;
        Ok(Arc::new(Self {
            clients,
            runtime: Some(runtime),
            prefix: url.prefix.clone(),
            root,
            patience,
            answered: AtomicBool::new(false),
            single_writer: url.single_writer,
        }))
    }

    /// The clients.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// How long a request is tried again.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The key of an object or folder.
    pub fn key(&self, name: &str) -> Result<Path> {
        let full = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(full).map_err(|source| {
            Error::new(ErrorKind::WrongUse, "not a name for an object")
                .path(self.display(name))
                .because(source)
        })
    }

    /// What people see.
    pub fn display(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}{name}", self.root))
    }

    /// Starts a future on the threads; its result comes out of the channel.
    pub fn start<T, F>(&self, future: F) -> mpsc::Receiver<std::result::Result<T, Failure>>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                let _ = sender.send(future.await);
            });
        }
        receiver
    }

    /// Runs a future and waits for it.
    pub fn wait<T, F>(&self, future: F) -> std::result::Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Failure>> + Send + 'static,
    {
        take(&self.start(future))
    }

    /// Makes a request until it succeeds, fails for good, or the patience ends. Bytes that are on their way, or that the
    /// store has to move, take time that is not silence: each try is given it, and so are all of them together.
    pub async fn tried<T, M, F>(&self, bytes_take: Duration, request: M) -> Tried<T>
    where
        M: Fn() -> F + Send,
        F: Future<Output = object_store::Result<T>> + Send,
    {
        let first = if self.answered.load(Ordering::Relaxed) { self.patience } else { FIRST_PATIENCE };
        self.tried_for(first.min(self.patience), bytes_take, request).await
    }

    /// The same with a patience of its own.
    pub async fn tried_for<T, M, F>(&self, patience: Duration, bytes_take: Duration, request: M) -> Tried<T>
    where
        M: Fn() -> F + Send,
        F: Future<Output = object_store::Result<T>> + Send,
    {
        let (begun, mut pause, mut doubtful) = (Instant::now(), FIRST_PAUSE, false);
        let limit = ANSWER.min(patience.max(Duration::from_secs(1))) + bytes_take;
        let patience = patience + bytes_take;
        loop {
            let failure = match tokio::time::timeout(limit, request()).await {
                Ok(Ok(value)) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Tried { result: Ok(value), doubtful };
                }
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => {
                    Failure::told(Meaning::Unclear, format!("no answer in {} seconds", limit.as_secs()))
                }
            };
            doubtful |= failure.meaning == Meaning::Unclear;
            if !failure.passes() || begun.elapsed() + pause > patience {
                return Tried { result: Err(failure), doubtful };
            }
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(?failure, pause_ms, "a request is tried again");
            // Not all at the same moment.
            tokio::time::sleep(pause / 2 + Duration::from_millis(host::random_below(pause_ms))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Bytes of an object, the object's size, and its version for a later replacement.
    pub async fn get(
        &self,
        key: &Path,
        range: Option<GetRange>,
    ) -> std::result::Result<(Vec<u8>, u64, UpdateVersion), Failure> {
        let expected = match &range {
            Some(GetRange::Bounded(range)) => range.end.saturating_sub(range.start),
            _ => 0,
        };
        let request = || async {
            let options = GetOptions { range: range.clone(), ..GetOptions::default() };
            let answer = self.clients.objects.get_opts(key, options).await?;
            let meta = answer.meta.clone();
            Ok((answer.bytes().await?, meta))
        };
        let (bytes, meta) = self.tried(on_the_way(expected), request).await.result?;
        let version = UpdateVersion { e_tag: meta.e_tag, version: meta.version };
        Ok((bytes.into(), meta.size, version))
    }

    /// Size of an object.
    pub async fn size(&self, key: &Path) -> std::result::Result<u64, Failure> {
        let request = || async {
            let options = GetOptions { head: true, ..GetOptions::default() };
            Ok(self.clients.objects.get_opts(key, options).await?.meta.size)
        };
        self.tried(Duration::ZERO, request).await.result
    }

    /// Puts an object that must be new. If nobody knows whether a try succeeded, what is there is compared: our own
    /// success is never told as another's.
    pub async fn put_new(
        &self,
        key: &Path,
        bytes: Vec<u8>,
        options: PutOptions,
    ) -> std::result::Result<(), Failure> {
        if self.single_writer {
            match self.size(key).await {
                Ok(_) => return Err(Failure::told(Meaning::Condition, "the name is taken")),
                Err(failure) if failure.meaning == Meaning::Missing => {}
                Err(failure) => return Err(failure),
            }
        }
        let payload = PutPayload::from(bytes);
        let request = || self.clients.objects.put_opts(key, payload.clone(), options.clone());
        let tried = self.tried(on_the_way(payload.content_length() as u64), request).await;
        match tried.result {
            Ok(_) => Ok(()),
            Err(failure) if tried.doubtful && self.holds(key, &payload).await => {
                tracing::debug!(?failure, "the object was put by a try whose answer was lost");
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Completes an upload whose name must be new. Names of large objects carry a random id, so looking before is enough; and
    /// after a lost answer the object with all its bytes is ours.
    pub async fn complete(
        &self,
        key: &Path,
        upload: &String,
        parts: Vec<PartId>,
        len: u64,
    ) -> std::result::Result<(), Failure> {
        match self.size(key).await {
            Ok(_) => return Err(Failure::told(Meaning::Condition, "the name is taken")),
            Err(failure) if failure.meaning == Meaning::Missing => {}
            Err(failure) => return Err(failure),
        }
        let request = || self.clients.uploads.complete_multipart(key, upload, parts.clone());
        let tried = self.tried(put_together(len), request).await;
        match tried.result {
            Ok(_) => Ok(()),
            Err(_) if tried.doubtful && self.size(key).await.is_ok_and(|size| size == len) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn holds(&self, key: &Path, payload: &PutPayload) -> bool {
        match self.get(key, None).await {
            Ok((bytes, _, _)) => payload.iter().flatten().eq(bytes.iter()),
            Err(_) => false,
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How long the bytes of a request take at most.
pub fn on_the_way(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST)
}

/// How long a store takes at most to make one object of parts with so many bytes, in which it may say nothing at all.
pub fn put_together(bytes: u64) -> Duration {
    Duration::from_secs((bytes / SLOWEST_STORE).min(LONGEST_PUTTING_TOGETHER))
}

/// Connects as the patience allows.
pub fn connector(patience: Duration) -> Connector {
    Connector { silence: SILENCE.min(patience.max(Duration::from_secs(1))) }
}

/// What the environment says of the patience.
pub fn patience() -> Result<Duration> {
    seconds_from("BLKDELTA_PATIENCE", PATIENCE)
}

/// Waits for what [`Remote::start`] started.
pub fn take<T>(
    receiver: &mpsc::Receiver<std::result::Result<T, Failure>>,
) -> std::result::Result<T, Failure> {
    receiver.recv().unwrap_or_else(|_| Err(Failure::own("a thread of the object store ended")))
}

/// The same for what should have come by then; `None` when it has not.
pub fn take_within<T>(
    receiver: &mpsc::Receiver<std::result::Result<T, Failure>>,
    patience: Duration,
) -> Option<std::result::Result<T, Failure>> {
    match receiver.recv_timeout(patience) {
        Ok(result) => Some(result),
        Err(mpsc::RecvTimeoutError::Timeout) => None,
        Err(mpsc::RecvTimeoutError::Disconnected) => Some(take(receiver)),
    }
}

/// A time from the environment.
pub fn seconds_from(variable: &str, usual: Duration) -> Result<Duration> {
    match env::var(variable) {
        Ok(text) => units::parse_duration(&text)
            .map_err(|error| error.hint(format!("{variable} is a time such as 90s"))),
        Err(_) => Ok(usual),
    }
}
