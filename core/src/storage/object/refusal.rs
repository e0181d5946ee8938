//! What went wrong with a request, and whether trying it again makes sense.
//!
//! The client library keeps the status of an answer to itself, so the connector below stands between it and the network:
//! each answer that is an error becomes a [`Refusal`], which is found again at the bottom of the library's error.

use std::error::Error as StdError;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

use crate::error::{Error, ErrorKind};

/// Longest piece of a server's words that is shown.
const MESSAGE_MAX: usize = 300;

/// An answer that is an error.
#[derive(Debug)]
pub struct Refusal {
    status: u16,
    code: String,
    message: String,
}

impl Refusal {
    fn new(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let code = element(&text, "Code").unwrap_or_default();
        let message = element(&text, "Message").unwrap_or_default();
        Self { status, code: short(&code), message: short(&message) }
    }
}

fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0.trim().to_owned())
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect()
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        for text in [&self.code, &self.message] {
            if !text.is_empty() {
                write!(f, " {text}")?;
            }
        }
        Ok(())
    }
}

impl StdError for Refusal {}

/// Makes clients whose errors can be told apart, and which give up on silence where it means something: between two pieces
/// of an answer. A request that carries bytes, or makes the store move some, is silent while the line or the store works,
/// so the time it may take is for its caller to say, who knows the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Connector {
    /// A server that stops in the middle of an answer is given up after this.
    pub silence: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let patient = options.clone().with_timeout_disabled().with_read_timeout_disabled();
        let watchful = patient.clone().with_read_timeout(self.silence);
        let client = |options| ReqwestConnector::default().connect(&options);
        Ok(HttpClient::new(Telling { fetching: client(watchful)?, changing: client(patient)? }))
    }
}

#[derive(Debug)]
struct Telling {
    fetching: HttpClient,
    changing: HttpClient,
}

impl HttpService for Telling {
    // Written out, as the trait's macro would write it: one dependency less.
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let fetches = ["GET", "HEAD"].contains(&request.method().as_str());
            let client = if fetches { &self.fetching } else { &self.changing };
            let response = client.execute(request).await?;
            let status = response.status();
            if !status.is_client_error() && !status.is_server_error() {
                return Ok(response);
            }
            let body = response.into_body().bytes().await.unwrap_or_default();
            Err(HttpError::new(HttpErrorKind::Unknown, Refusal::new(status.as_u16(), &body)))
        })
    }
}

/// What a failure means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The object is not there.
    Missing,
    /// The condition of a put does not hold: the name is taken, or the object is another by now.
    Condition,
    /// The asked range is not there: the object is empty.
    Range,
    /// Not allowed.
    Denied,
    /// No room.
    Full,
    /// The object is in an archive and has to be brought back first.
    Archived,
    /// Refused for good.
    Final,
    /// The server did not do it and may do it later.
    Busy,
    /// Nobody knows whether the server did it.
    Unclear,
}

/// A failed request.
#[derive(Debug)]
pub struct Failure {
    /// What it means.
    pub meaning: Meaning,
    /// Why, in one line.
    pub text: String,
}

impl Failure {
    /// Of an error of the library. Each of its layers repeats the one below, so only the lowest is told.
    pub fn of(error: &object_store::Error) -> Self {
        let mut lowest: &(dyn StdError + 'static) = error;
        while let Some(cause) = lowest.source() {
            lowest = cause;
        }
        Self { meaning: meaning(error), text: lowest.to_string() }
    }

    /// A failure without an error of the library.
    pub fn told(meaning: Meaning, text: impl Into<String>) -> Self {
        Self { meaning, text: text.into() }
    }

    /// A failure of our own making.
    pub fn own(text: &str) -> Self {
        Self::told(Meaning::Final, text)
    }

    /// Whether the same request may succeed later.
    pub fn passes(&self) -> bool {
        matches!(self.meaning, Meaning::Busy | Meaning::Unclear)
    }

    /// As an error of the operation `what` on `path`.
    pub fn error(self, what: &str, path: &Path) -> Error {
        let (kind, hint) = match self.meaning {
            Meaning::Missing => (ErrorKind::NotFound, "check the bucket, the prefix and the endpoint"),
            Meaning::Condition => {
                (ErrorKind::AlreadyExists, "another has written it; look at `blkdelta list`")
            }
            Meaning::Denied => (
                ErrorKind::Io,
                "check the credentials (AWS_ACCESS_KEY_ID, ~/.aws/credentials, ...) and what they may do there",
            ),
            Meaning::Full => (ErrorKind::NoSpace, "make room there, or raise the quota, and run it again"),
            Meaning::Archived => {
                (ErrorKind::Io, "bring the object back from the archive first, then run it again")
            }
            Meaning::Range | Meaning::Final => (ErrorKind::Io, "see the cause above"),
            Meaning::Busy | Meaning::Unclear => (
                ErrorKind::Io,
                "check the endpoint, the network and the store's free room, and run it again; BLKDELTA_PATIENCE waits longer",
            ),
        };
        let error = Error::new(kind, what).path(path).hint(hint).because(self.text);
        if self.meaning == Meaning::Unclear { error.outcome_unknown() } else { error }
    }
}

fn meaning(error: &object_store::Error) -> Meaning {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    let mut broken = false;
    while let Some(inner) = cause {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return of_answer(refusal);
        }
        broken |= inner.is::<HttpError>();
        cause = inner.source();
    }
    match error {
        _ if broken => Meaning::Unclear,
        object_store::Error::NotFound { .. } => Meaning::Missing,
        object_store::Error::AlreadyExists { .. }
        | object_store::Error::Precondition { .. }
        | object_store::Error::NotModified { .. } => Meaning::Condition,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Meaning::Denied
        }
        // An upload may be completed with an error inside an answer that looks well.
        other if ["InternalError", "SlowDown"].iter().any(|code| other.to_string().contains(code)) => {
            Meaning::Unclear
        }
        _ => Meaning::Final,
    }
}

fn of_answer(refusal: &Refusal) -> Meaning {
    match (refusal.status, refusal.code.as_str()) {
        (404, _) => Meaning::Missing,
        (412 | 304, _) | (409, "BlobAlreadyExists") => Meaning::Condition,
        (416, _) => Meaning::Range,
        (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull" | "StorageFull") => Meaning::Full,
        (_, "InvalidObjectState" | "BlobArchived") => Meaning::Archived,
        // Two requests for one name at once: neither has been done.
        (409 | 429, _) => Meaning::Busy,
        // The bytes did not arrive whole, or too slowly.
        (400, "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch") => {
            Meaning::Busy
        }
        (408, _) | (500..=599, _) => Meaning::Unclear,
        (401 | 403, _) => Meaning::Denied,
        _ => Meaning::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_meaning() {
        let body = b"<Error><Code>QuotaExceeded</Code><Message>a\x01b</Message></Error>";
        let refusal = Refusal::new(403, body);
        assert_eq!(of_answer(&refusal), Meaning::Full);
        assert_eq!(refusal.to_string(), "the server answered 403 QuotaExceeded ab");
        for (status, meaning) in [(404, Meaning::Missing), (412, Meaning::Condition), (503, Meaning::Unclear)]
        {
            assert_eq!(of_answer(&Refusal::new(status, b"")), meaning);
        }
        assert_eq!(of_answer(&Refusal::new(409, b"<Code>ConditionalRequestConflict</Code>")), Meaning::Busy);
        assert_eq!(of_answer(&Refusal::new(409, b"<Code>BlobAlreadyExists</Code>")), Meaning::Condition);
    }

    #[test]
    fn the_answer_is_found_below_the_error() {
        let http = HttpError::new(HttpErrorKind::Unknown, Refusal::new(503, b""));
        let error = object_store::Error::Generic { store: "S3", source: Box::new(http) };
        assert!(Failure::of(&error).passes());
        let http = HttpError::new(HttpErrorKind::Unknown, Refusal::new(400, b"<Code>InvalidArgument</Code>"));
        let failure = Failure::of(&object_store::Error::Generic { store: "S3", source: Box::new(http) });
        assert!(!failure.passes());
        assert_eq!(failure.text, "the server answered 400 InvalidArgument");
    }
}
