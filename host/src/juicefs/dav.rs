//! What a worker is asked, in the dialect of WebDAV that the JuiceFS client speaks. The only file that knows it.
//!
//! The client answers with the same codes whether something is so or could not be found out: 404 to a GET and 405 to a MKCOL may
//! also mean that the metadata engine did not answer, and 403 to a MOVE means nearly anything. Only `PROPFIND` tells the two
//! apart, so every answer that a decision could rest on and that may be one of these is checked with it. What is still not clear
//! is an error, never a guess.
//!
//! A request that was not answered in time may still be carried out, when nobody reckons with it any more. So a worker that does not
//! answer is ended, and what it has not done by then it never does (decisions/0028).
//!
//! Requests for one path at the same time are refused by the client with 423, which is gone in a moment, and a listing fails when
//! something goes away in its midst: both are asked again.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, StatusCode, http};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use roxmltree::{Document, Node};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::complaint::Complaints;
use super::{JuiceFsError, locked};

/// The largest file that is read or written here, in bytes: files are records.
pub const LARGEST_FILE: usize = 1 << 20;
/// The largest listing, in bytes of XML: about 240 000 entries.
const LARGEST_LISTING: usize = 64 << 20;
/// The longest that a listing may take for as long as more of it comes: the client looks up every name, some thousands in a second.
const LONGEST_LISTING: Duration = Duration::from_secs(600);
/// The largest of the other answers, which are a sentence.
const LARGEST_SENTENCE: usize = 64 << 10;
/// The longest name of a file or directory in JuiceFS, in bytes. The worker makes longer ones, which no mount can open.
const LONGEST_NAME: usize = 255;
/// The first wait before a request is sent again that met another one for its path; each further one is twice as long.
const LOCKED_WAIT: Duration = Duration::from_millis(2);
/// The longest of these waits.
const LONGEST_LOCKED_WAIT: Duration = Duration::from_millis(50);
/// How often a directory is listed until the listing is whole, and the first wait between two; each further one is twice as long.
const LISTING_TRIES: u32 = 5;
const LISTING_WAIT: Duration = Duration::from_millis(5);
/// How long the root may be looked at for, by which a worker that hangs is told from one that lists much.
const LOOK: Duration = Duration::from_secs(2);
/// How long the end of a worker that hangs is waited for. It comes at once, as nothing keeps a process from being killed for long.
const END: Duration = Duration::from_secs(5);
/// Connections that are kept for the next requests, and for how long.
const KEPT_CONNECTIONS: usize = 16;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Everything but the characters that RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const DAV: &str = "DAV:";
/// Asks for the kind alone: for some of what a worker says by default it opens the files.
const KIND: &str = r#"<propfind xmlns="DAV:"><prop><resourcetype/></prop></propfind>"#;

/// Why something is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{component}` can't be a name in a file system: {reason}")]
pub struct PathError {
    component: String,
    reason: &'static str,
}

impl From<PathError> for JuiceFsError {
    fn from(error: PathError) -> JuiceFsError {
        JuiceFsError::Refused(error.to_string())
    }
}

/// A path from the root of a file system, as checked names. An encoded `..` would be resolved by the worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<String>);

impl Path {
    /// The path of these names; of none, the root.
    pub fn of<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Path, PathError> {
        names.into_iter().try_fold(Path::default(), |path, name| path.join(name))
    }

    /// The path of something in this directory.
    pub fn join(mut self, name: impl Into<String>) -> Result<Path, PathError> {
        let component = name.into();
        let reason = match component.as_str() {
            "" => "it is empty",
            "." | ".." => "it means a directory",
            // What has a line break in its name can be made, and not be found again.
            name if name.contains(|character: char| character == '/' || character.is_control()) => {
                "it has a slash or a control character"
            }
            name if name.len() > LONGEST_NAME => "it has more than 255 bytes",
            _ => {
                self.0.push(component);
                return Ok(self);
            }
        };
        Err(PathError { component, reason })
    }

    /// Its names.
    pub fn components(&self) -> &[String] {
        &self.0
    }

    /// The directory that it is in; none for the root.
    pub(super) fn parent(&self) -> Option<Path> {
        let (_, parent) = self.0.split_last()?;
        Some(Path(parent.to_vec()))
    }

    fn encoded(&self) -> String {
        let mut path = String::new();
        for name in &self.0 {
            path.push('/');
            path.extend(utf8_percent_encode(name, ENCODED));
        }
        if path.is_empty() { "/".into() } else { path }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

/// What making a directory came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was made by this call: of several calls at once, one is told so.
    Made,
    /// There is such a directory.
    Existed,
    /// It was not made: the directory that it is to be in is not there.
    NoParent,
}

/// What moving came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is at its new place.
    Moved,
    /// Something is at the new place, whether or not the source is there.
    Taken,
    /// Neither the source nor anything at the new place is there.
    Missing,
}

/// What removing for a while came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing is there.
    Done,
    /// It takes longer. The client goes on with it, also unasked, for as long as it runs.
    GoesOn,
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory, or a link to one.
    Directory,
    /// Anything else.
    File,
}

/// How far down a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What is in it.
    One,
    /// Everything below it.
    Infinity,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From the directory that was listed.
    pub path: Path,
    /// What it is.
    pub kind: Kind,
}

/// The client of one worker.
///
/// A call that fails with [`JuiceFsError::Unavailable`] may have happened, or may still happen.
#[derive(Debug)]
pub struct Worker {
    file_system: String,
    http: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    authorization: HeaderValue,
    call_timeout: Duration,
    last_used: Mutex<Instant>,
    complaints: Arc<Complaints>,
    ending: Arc<Ending>,
}

/// How whoever asks a worker has it ended when it hangs.
#[derive(Debug, Default)]
pub(super) struct Ending {
    wanted: Notify,
    ended: watch::Sender<bool>,
}

impl Ending {
    /// Waits until somebody wants it.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Notes that the process is gone.
    pub(super) fn ended(&self) {
        self.ended.send_replace(true);
    }

    /// Has it ended, and waits until it is.
    async fn end(&self) {
        self.wanted.notify_one();
        let _ = timeout(END, self.ended.subscribe().wait_for(|ended| *ended)).await;
    }
}

struct Answer {
    status: StatusCode,
    body: Bytes,
    /// When it was asked for.
    asked: Instant,
}

/// Why there is no answer.
enum Unanswered {
    /// Nothing listens there.
    Gone,
    /// The connection was closed before the answer was whole.
    Cut,
    /// The answer has more bytes than this.
    TooLarge(usize),
    /// There was none in time.
    Late,
}

/// What came of looking: all there is, or why it can't be all.
enum Found {
    Whole(Option<Listing>),
    Broken(&'static str),
}

impl Worker {
    pub(super) fn new(
        file_system: &str,
        address: SocketAddr,
        (user, password): (&str, &str),
        timeout: Duration,
        complaints: Arc<Complaints>,
    ) -> Worker {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT_FOR)
            .pool_max_idle_per_host(KEPT_CONNECTIONS)
            .build(connector);
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        let mut authorization =
            HeaderValue::from_maybe_shared(format!("Basic {credentials}")).expect("base64 can be in a header");
        // The `Debug` form of a request leaves it out then.
        authorization.set_sensitive(true);
        let last_used = Mutex::new(Instant::now());
        let ending = Arc::default();
        let file_system = file_system.into();
        Worker { file_system, http, address, authorization, call_timeout: timeout, last_used, complaints, ending }
    }

    /// Makes a directory, if the one that it is in is there.
    pub async fn make_directory(&self, path: &Path) -> Result<Made, JuiceFsError> {
        let answer = self.ask(path, self.request("MKCOL", path), Bytes::new(), LARGEST_SENTENCE).await?;
        match answer.status.as_u16() {
            201 => Ok(Made::Made),
            409 => Ok(Made::NoParent),
            405 => match self.kind(path).await? {
                Some(Kind::Directory) => Ok(Made::Existed),
                Some(Kind::File) => Err(file_there(path, path)),
                None => match path.parent() {
                    Some(above) if self.kind(&above).await? == Some(Kind::File) => Err(file_there(path, &above)),
                    _ => Err(self.unclear("make the directory", path, &answer).await),
                },
            },
            _ => Err(self.unclear("make the directory", path, &answer).await),
        }
    }

    /// Makes a directory and those above it that are missing: from the last one upwards until one is there, since those above it are
    /// as a rule.
    pub async fn make_directories(&self, path: &Path) -> Result<Made, JuiceFsError> {
        let names = path.components();
        let mut depth = names.len();
        // Up to the root and down again is enough, unless somebody removes what was just made.
        for _ in 0..=2 * names.len() {
            match self.make_directory(&Path(names[..depth].to_vec())).await? {
                Made::NoParent => depth = depth.saturating_sub(1),
                made if depth == names.len() => return Ok(made),
                _ => depth += 1,
            }
        }
        Err(JuiceFsError::Unavailable(format!("{path} can't be made: the directories above it are being removed")))
    }

    /// Writes a file whole. One that was there is replaced, but not at once: a reader may meet it empty.
    pub async fn write(&self, path: &Path, content: Vec<u8>) -> Result<(), JuiceFsError> {
        if content.len() > LARGEST_FILE {
            return Err(too_large(path, LARGEST_FILE));
        }
        let answer = self.ask(path, self.request("PUT", path), content.into(), LARGEST_SENTENCE).await?;
        match answer.status.as_u16() {
            201 | 204 => Ok(()),
            409 => Err(no_parent("written", path)),
            _ => Err(self.unclear("write", path, &answer).await),
        }
    }

    /// Reads a file whole; none where there is none.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>, JuiceFsError> {
        let answer = self.ask(path, self.request("GET", path), Bytes::new(), LARGEST_FILE).await?;
        match answer.status.as_u16() {
            200 => Ok(Some(answer.body)),
            207 => Err(JuiceFsError::Refused(format!("{path} can't be read: it is a directory"))),
            404 if self.kind(path).await?.is_none() => Ok(None),
            _ => Err(self.unclear("read", path, &answer).await),
        }
    }

    /// What there is at a path; none where there is nothing.
    pub async fn kind(&self, path: &Path) -> Result<Option<Kind>, JuiceFsError> {
        let listing = self.find(path, "0").await?;
        Ok(listing.map(|listing| listing.kind))
    }

    /// What is in a directory, in no order; none where there is no directory. Names that no [`Path`] can have are left out.
    pub async fn list(&self, path: &Path, depth: Depth) -> Result<Option<Vec<Entry>>, JuiceFsError> {
        let depth = match depth {
            Depth::One => "1",
            Depth::Infinity => "infinity",
        };
        match self.find(path, depth).await? {
            Some(Listing { kind: Kind::File, .. }) => {
                Err(JuiceFsError::Refused(format!("{path} can't be listed: it is no directory")))
            }
            listing => Ok(listing.map(|listing| listing.entries)),
        }
    }

    /// Moves a file or directory with everything in it, in one step, if nothing is at the new place. Of several calls at once that
    /// move directories with something in them to one place, one succeeds: an empty one gives way to any other.
    pub async fn move_exclusive(&self, from: &Path, to: &Path) -> Result<Moved, JuiceFsError> {
        let destination = format!("http://{}{}", self.address, to.encoded());
        let request = self.request("MOVE", from).header("Destination", destination).header("Overwrite", "F");
        let answer = self.ask(from, request, Bytes::new(), LARGEST_SENTENCE).await?;
        match answer.status.as_u16() {
            201 => Ok(Moved::Moved),
            412 => Ok(Moved::Taken),
            403 if self.kind(to).await?.is_some() => Ok(Moved::Taken),
            403 if self.kind(from).await?.is_none() => Ok(Moved::Missing),
            403 => match to.parent() {
                Some(parent) if self.kind(&parent).await?.is_none() => Err(no_parent("moved to", to)),
                _ => Err(self.unclear("move", from, &answer).await),
            },
            _ => Err(self.unclear("move", from, &answer).await),
        }
    }

    /// Removes a file or a directory with everything in it; false where there is nothing.
    pub async fn remove(&self, path: &Path) -> Result<bool, JuiceFsError> {
        if path.components().is_empty() {
            return Err(root_stays());
        }
        let answer = self.ask(path, self.request("DELETE", path), Bytes::new(), LARGEST_SENTENCE).await?;
        self.removed(path, answer).await
    }

    /// Removes as [`remove`](Worker::remove) does, and waits for this long at most. The client does not stop when nobody waits any more:
    /// it refuses a second request for the same with 423 until it is done, so asking again is waiting on.
    pub async fn remove_for(&self, path: &Path, patience: Duration) -> Result<Removal, JuiceFsError> {
        if path.components().is_empty() {
            return Err(root_stays());
        }
        let (request, asked) = (whole(self.request("DELETE", path), Bytes::new())?, Instant::now());
        match self.send_for(request, LARGEST_SENTENCE, patience.min(self.call_timeout)).await {
            Ok(answer) => self.removed(path, answer).await.map(|_| Removal::Done),
            // An engine that does not answer is an error, as ever.
            Err(Unanswered::Late) => match self.kind(path).await? {
                Some(_) => Ok(Removal::GoesOn),
                None => Ok(Removal::Done),
            },
            Err(other) => Err(self.unanswered(path, &other, asked).await),
        }
    }

    async fn removed(&self, path: &Path, answer: Answer) -> Result<bool, JuiceFsError> {
        match answer.status.as_u16() {
            204 => Ok(true),
            404 => Ok(false),
            _ => Err(self.unclear("remove", path, &answer).await),
        }
    }

    /// Whether it answers and knows its password.
    pub(super) async fn answers(&self) -> bool {
        let root = Path::default();
        let Ok(request) = self.look(&root, "0") else { return false };
        let answer = self.send(request, LARGEST_LISTING).await;
        answer.is_ok_and(|answer| {
            answer.status == StatusCode::MULTI_STATUS && Listing::parse(&answer.body, &root).is_ok()
        })
    }

    /// How it is ended when it hangs.
    pub(super) fn ending(&self) -> Arc<Ending> {
        self.ending.clone()
    }

    /// Notes that it is in use.
    pub(super) fn touch(&self) {
        *locked(&self.last_used) = Instant::now();
    }

    /// When it was in use last.
    pub(super) fn last_used(&self) -> Instant {
        *locked(&self.last_used)
    }

    async fn find(&self, path: &Path, depth: &'static str) -> Result<Option<Listing>, JuiceFsError> {
        let (mut wait, asked) = (LISTING_WAIT, Instant::now());
        for _ in 1..LISTING_TRIES {
            if let Found::Whole(listing) = self.find_once(path, depth).await? {
                return Ok(listing);
            }
            sleep(wait).await;
            wait *= 2;
        }
        match self.find_once(path, depth).await? {
            Found::Whole(listing) => Ok(listing),
            Found::Broken(reason) => {
                let name = &self.file_system;
                let reason = self.complaints.since(asked).await.unwrap_or_else(|| reason.to_string());
                let sentence = format!("the file system `{name}` gave no whole listing of {path}: {reason}");
                Err(JuiceFsError::Unavailable(sentence))
            }
        }
    }

    async fn find_once(&self, path: &Path, depth: &'static str) -> Result<Found, JuiceFsError> {
        let (request, asked) = (self.look(path, depth)?, Instant::now());
        let patience = if depth == "0" { self.call_timeout } else { LONGEST_LISTING };
        let answer = match self.send_for(request, LARGEST_LISTING, patience).await {
            Ok(answer) => answer,
            // The request may have panicked in the client, which it does over some of what goes away in its midst.
            Err(Unanswered::Cut) => return Ok(Found::Broken("the connection was closed")),
            Err(other) => {
                if matches!(other, Unanswered::Late) && self.hangs().await {
                    self.ending.end().await;
                }
                return Err(self.unanswered(path, &other, asked).await);
            }
        };
        match answer.status.as_u16() {
            207 => {
                Ok(Listing::parse(&answer.body, path).map_or_else(Found::Broken, |listing| Found::Whole(Some(listing))))
            }
            404 => Ok(Found::Whole(None)),
            _ => Err(self.unclear("look at", path, &answer).await),
        }
    }

    /// Whether it is not only a long listing that takes long.
    async fn hangs(&self) -> bool {
        let Ok(request) = self.look(&Path::default(), "0") else { return false };
        matches!(self.send_for(request, LARGEST_LISTING, LOOK.min(self.call_timeout)).await, Err(Unanswered::Late))
    }

    fn look(&self, path: &Path, depth: &'static str) -> Result<Request<Full<Bytes>>, JuiceFsError> {
        let request = self.request("PROPFIND", path).header("Depth", depth);
        whole(request, Bytes::from_static(KIND.as_bytes()))
    }

    fn request(&self, method: &str, path: &Path) -> http::request::Builder {
        let uri = format!("http://{}{}", self.address, path.encoded());
        Request::builder().method(method).uri(uri).header(AUTHORIZATION, &self.authorization)
    }

    /// Sends a request about a path and reads the whole answer.
    async fn ask(
        &self,
        path: &Path,
        request: http::request::Builder,
        body: Bytes,
        largest: usize,
    ) -> Result<Answer, JuiceFsError> {
        let (request, asked) = (whole(request, body)?, Instant::now());
        match self.send(request, largest).await {
            Ok(answer) => Ok(answer),
            Err(unanswered) => {
                if matches!(unanswered, Unanswered::Late) {
                    self.ending.end().await;
                }
                Err(self.unanswered(path, &unanswered, asked).await)
            }
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>, largest: usize) -> Result<Answer, Unanswered> {
        self.send_for(request, largest, self.call_timeout).await
    }

    /// Sends a request, again where it met another one for its path.
    async fn send_for(
        &self,
        request: Request<Full<Bytes>>,
        largest: usize,
        patience: Duration,
    ) -> Result<Answer, Unanswered> {
        let unmet = async {
            let mut wait = LOCKED_WAIT;
            loop {
                let answer = self.exchange(request.clone(), largest).await?;
                if answer.status != StatusCode::LOCKED {
                    return Ok(answer);
                }
                sleep(wait).await;
                wait = (2 * wait).min(LONGEST_LOCKED_WAIT);
            }
        };
        self.touch();
        let answer = timeout(patience, unmet).await;
        self.touch();
        answer.unwrap_or(Err(Unanswered::Late))
    }

    /// One request and its answer. Between two pieces of it no more time may pass than one call has.
    async fn exchange(&self, request: Request<Full<Bytes>>, largest: usize) -> Result<Answer, Unanswered> {
        let (asked, patience) = (Instant::now(), self.call_timeout);
        let late = |_| Unanswered::Late;
        let answer = timeout(patience, self.http.request(request)).await.map_err(late)?;
        let answer = answer.map_err(|error| if error.is_connect() { Unanswered::Gone } else { Unanswered::Cut })?;
        let (status, mut bytes) = (answer.status(), BytesMut::new());
        let mut body = Limited::new(answer.into_body(), largest);
        while let Some(frame) = timeout(patience, body.frame()).await.map_err(late)? {
            match frame {
                Ok(frame) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
                Err(error) if error.is::<LengthLimitError>() => return Err(Unanswered::TooLarge(largest)),
                Err(_) => return Err(Unanswered::Cut),
            }
        }
        Ok(Answer { status, body: bytes.freeze(), asked })
    }

    async fn unanswered(&self, path: &Path, unanswered: &Unanswered, asked: Instant) -> JuiceFsError {
        let (name, timeout) = (&self.file_system, self.call_timeout);
        let sentence = match unanswered {
            Unanswered::TooLarge(largest) => return too_large(path, *largest),
            Unanswered::Gone => format!("the worker of `{name}` is not there any more"),
            Unanswered::Cut => format!("the worker of `{name}` went away before it answered"),
            Unanswered::Late => format!("the worker of `{name}` did not answer within {timeout:?}"),
        };
        JuiceFsError::Unavailable(match self.complaints.since(asked).await {
            Some(complaint) => format!("{sentence}: {complaint}"),
            None => sentence,
        })
    }

    async fn unclear(&self, what: &str, path: &Path, answer: &Answer) -> JuiceFsError {
        let (name, status) = (&self.file_system, answer.status.as_u16());
        JuiceFsError::Unavailable(match self.complaints.since(answer.asked).await {
            Some(complaint) => format!("the file system `{name}` could not {what} {path}: {complaint}"),
            None => format!(
                "the file system `{name}` could not {what} {path} (the JuiceFS client answered {status}): its metadata engine or its \
                 storage may be out of order"
            ),
        })
    }
}

fn file_there(path: &Path, file: &Path) -> JuiceFsError {
    JuiceFsError::Refused(format!("the directory {path} can't be made: {file} is a file"))
}

fn root_stays() -> JuiceFsError {
    JuiceFsError::Refused("the root of a file system is never removed".into())
}

fn no_parent(what: &str, path: &Path) -> JuiceFsError {
    JuiceFsError::Refused(format!("{path} can't be {what}: the directory that it is to be in does not exist"))
}

fn whole(request: http::request::Builder, body: Bytes) -> Result<Request<Full<Bytes>>, JuiceFsError> {
    // A path of names that are each short enough may still be too long for a request.
    request.body(Full::new(body)).map_err(|error| JuiceFsError::Refused(format!("no request can be made: {error}")))
}

fn too_large(path: &Path, largest: usize) -> JuiceFsError {
    JuiceFsError::Refused(format!("{path} or its listing has more than {} KiB", largest >> 10))
}

/// An answer to `PROPFIND`.
#[derive(Debug, PartialEq, Eq)]
struct Listing {
    /// Of what was asked for.
    kind: Kind,
    /// What is below it.
    entries: Vec<Entry>,
}

impl Listing {
    /// Strict: where the client fails in the middle of a listing it still closes the XML, and adds a word after its end.
    fn parse(body: &[u8], of: &Path) -> Result<Listing, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "it is no UTF-8")?;
        let document = Document::parse(text).map_err(|_| "it is cut short, or no XML")?;
        let root = document.root_element();
        if !root.has_tag_name((DAV, "multistatus")) {
            return Err("it is no multistatus");
        }
        let mut own = None;
        let mut entries = Vec::new();
        for response in root.children().filter(|node| node.has_tag_name((DAV, "response"))) {
            let child = |node: Node<'_, '_>| node.has_tag_name((DAV, "href"));
            let href = response.children().find(|node| child(*node)).and_then(|node| node.text());
            let href = href.ok_or("it has a line without a path")?;
            let is_directory = response.descendants().any(|node| node.has_tag_name((DAV, "collection")));
            let kind = if is_directory { Kind::Directory } else { Kind::File };
            let Some(path) = decode(href) else { continue };
            let below = path.0.strip_prefix(of.components()).ok_or("it has a line of another directory")?;
            match below {
                [] => own = Some(kind),
                names => entries.push(Entry { path: Path(names.to_vec()), kind }),
            }
        }
        Ok(Listing { kind: own.ok_or("it does not have the directory itself")?, entries })
    }
}

/// The path of a line; none where it has a name that no path can have, which is therefore not one of ours.
fn decode(href: &str) -> Option<Path> {
    let names = href.split('/').filter(|name| !name.is_empty());
    names
        .map(|name| percent_decode_str(name).decode_utf8().ok())
        .try_fold(Path::default(), |path, name| path.join(name?).ok())
}

#[cfg(test)]
mod tests;
