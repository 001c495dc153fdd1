//! Files of a folder as responses: one hop off the worker to open a file and to read its beginning;
//! what is larger is read ahead of the client, a piece at a time. No name leads out of the folder: the
//! kernel resolves it below the root (`openat2`), so that not even a link that is swapped meanwhile
//! does.

mod conditional;
mod media;
pub(crate) mod path;

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderValue, LAST_MODIFIED, LOCATION, VARY,
};
use http::{Method, StatusCode};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use self::conditional::{Answer, Representation};
use super::answer::ExchangeError;
use super::body::ResponseBody;
use super::head::{RequestHead, ResponseHead, ResponseSource};
use crate::config::policies::Coding;
use crate::config::{Files, Symlinks};
use crate::policy::ranked;

/// The response to a request for a file.
///
/// # Errors
/// When the method is not GET or HEAD, no such file is there, or the machine fails.
pub async fn answer(
    files: &Arc<Files>,
    head: &RequestHead,
) -> Result<(ResponseHead, ResponseBody), ExchangeError> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(ExchangeError::MethodOfFile);
    }
    let place = path::name(head.target.path(), files.shows_hidden);
    let Some((name, is_folder)) = place else { return Err(ExchangeError::NoFile) };
    let wanted = Wanted {
        codings: ranked(&files.precompressed, &head.headers),
        fields: head.headers.clone(),
        is_get: head.method == Method::GET,
        files: Arc::clone(files),
        name,
        is_folder,
    };
    let task = tokio::task::spawn_blocking(move || reply(&wanted));
    let reply = task.await.map_err(|_| ExchangeError::Internal("reading a file broke off"))?;
    let source = ResponseSource::Gateway;
    match reply.map_err(ExchangeError::File)? {
        None => Err(ExchangeError::NoFile),
        Some(Reply::Folder) => {
            let query = head.target.query().map(|q| format!("?{q}")).unwrap_or_default();
            // Relative, so that a prefix that was taken off the path does not matter. A path of two
            // slashes, which would name another host, is no file's and does not come here.
            let last = head.target.path().rsplit('/').next().unwrap_or_default();
            let place = HeaderValue::from_str(&format!("./{last}/{query}"))
                .map_err(|_| ExchangeError::NoFile)?;
            let headers = HeaderMap::from_iter([(LOCATION, place)]);
            let status = StatusCode::PERMANENT_REDIRECT;
            Ok((ResponseHead { status, headers, source }, ResponseBody::full(Bytes::new())))
        }
        Some(Reply::File(status, headers, first, rest)) => {
            let body = match rest {
                None => ResponseBody::full(first),
                Some(rest) => ResponseBody::file(FileBody::new(first, rest)),
            };
            Ok((ResponseHead { status, headers, source }, body))
        }
    }
}

/// What is asked for, as the thread that reads files needs it.
struct Wanted {
    files: Arc<Files>,
    name: String,
    is_folder: bool,
    is_get: bool,
    fields: HeaderMap,
    /// Codings that may be served from files of their own, best first.
    codings: Vec<Coding>,
}

enum Reply {
    /// A folder that was asked for without its final slash.
    Folder,
    /// Status, fields, the beginning of the body and the file with what follows.
    File(StatusCode, HeaderMap, Bytes, Option<Rest>),
}

/// The rest of a file's body.
struct Rest {
    file: Arc<File>,
    range: Range<u64>,
}

/// An open file and what is known about it.
struct Opened {
    file: File,
    length: u64,
    modified: SystemTime,
    tag: String,
}

/// Opens, decides and reads the beginning. `None` when there is no such file.
fn reply(wanted: &Wanted) -> io::Result<Option<Reply>> {
    let files = &wanted.files;
    let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = File::from(rustix::fs::open(&files.root, root, Mode::empty())?);
    let mut name = wanted.name.clone();
    let mut found = match wanted.is_folder {
        true => None,
        false => open(&root, files, &name)?,
    };
    if matches!(found, Some(Found::Folder)) {
        let index = files.index.as_ref().map(|index| open(&root, files, &below(&name, index)));
        if matches!(index.transpose()?, Some(Some(Found::File(_)))) {
            return Ok(Some(Reply::Folder));
        }
        found = None;
    }
    if wanted.is_folder
        && let Some(index) = &files.index
    {
        name = below(&name, index);
        found = open(&root, files, &name)?;
    }
    if !matches!(found, Some(Found::File(_)))
        && let Some(fallback) = &files.fallback
    {
        name.clone_from(fallback);
        found = open(&root, files, &name)?;
    }
    let Some(Found::File(mut opened)) = found else { return Ok(None) };
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media::of(&name)));
    if !files.precompressed.is_empty() {
        fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    for coding in &wanted.codings {
        if let Some(Found::File(variant)) =
            open(&root, files, &format!("{name}.{}", coding.file_end()))?
        {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            opened = variant;
            break;
        }
    }
    respond(wanted, opened, fields).map(Some)
}

fn respond(wanted: &Wanted, opened: Opened, mut fields: HeaderMap) -> io::Result<Reply> {
    let Opened { file, length, modified, tag } = opened;
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        fields.insert(ETAG, value);
    }
    // A date of the future must not be sent (RFC 9110, section 8.8.2.1).
    if modified <= SystemTime::now()
        && let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(modified))
    {
        fields.insert(LAST_MODIFIED, value);
    }
    if let Some(control) = &wanted.files.cache_control
        && let Ok(value) = HeaderValue::from_str(control)
    {
        fields.insert(CACHE_CONTROL, value);
    }
    let what = Representation { tag, modified, length };
    let empty = |status, fields| Ok(Reply::File(status, fields, Bytes::new(), None));
    let content_range = |text: String, fields: &mut HeaderMap| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            fields.insert(CONTENT_RANGE, value);
        }
    };
    let (status, range) = match conditional::decide(&wanted.fields, wanted.is_get, &what) {
        Answer::NotModified => {
            fields.remove(CONTENT_TYPE);
            fields.remove(CONTENT_ENCODING);
            return empty(StatusCode::NOT_MODIFIED, fields);
        }
        Answer::Failed => return empty(StatusCode::PRECONDITION_FAILED, HeaderMap::new()),
        Answer::Unsatisfiable => {
            let mut fields = HeaderMap::new();
            content_range(format!("bytes */{length}"), &mut fields);
            return empty(StatusCode::RANGE_NOT_SATISFIABLE, fields);
        }
        Answer::Part(range) => {
            let (first, last) = (range.start, range.end - 1);
            content_range(format!("bytes {first}-{last}/{length}"), &mut fields);
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Answer::Whole => (StatusCode::OK, 0..length),
    };
    fields.insert(CONTENT_LENGTH, (range.end - range.start).into());
    if !wanted.is_get {
        return empty(status, fields);
    }
    let first = read(&file, &range)?;
    let rest = range.start + first.len() as u64..range.end;
    let rest = (!rest.is_empty()).then(|| Rest { file: Arc::new(file), range: rest });
    Ok(Reply::File(status, fields, first, rest))
}

enum Found {
    File(Opened),
    Folder,
}

/// Opens a name below the root. `None` when it is not there, leads out, or is neither file nor folder.
fn open(root: &File, files: &Files, name: &str) -> io::Result<Option<Found>> {
    // Without NONBLOCK a pipe in the folder would hold the thread.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if files.symlinks == Symlinks::Refuse {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    let name = if name.is_empty() { "." } else { name };
    let file = match rustix::fs::openat2(root, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NAMETOOLONG
            | Errno::NXIO
            | Errno::INVAL,
        ) => return Ok(None),
        Err(Errno::NOSYS) => {
            let why = "files are served on Linux 5.6 or newer, which can keep names below a folder";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        Err(error) => return Err(error.into()),
    };
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Ok(Some(Found::Folder));
    }
    if !meta.is_file() {
        return Ok(None);
    }
    let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
    let tag = format!("\"{seconds:x}.{nanos:x}-{:x}-{:x}\"", meta.len(), meta.ino());
    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Some(Found::File(Opened { file, length: meta.len(), modified, tag })))
}

fn below(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Reads the first piece of a range.
///
/// # Errors
/// Also when the file ends before the range does: it was cut meanwhile.
fn read(file: &File, range: &Range<u64>) -> io::Result<Bytes> {
    let wanted = usize::try_from(range.end - range.start).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
    let mut buffer = vec![0; wanted];
    file.read_exact_at(&mut buffer, range.start)?;
    Ok(buffer.into())
}

/// A file on its way to a client: the next piece is read while the one before it is sent.
pub struct FileBody {
    ready: Option<Bytes>,
    rest: Option<Rest>,
    reading: Option<JoinHandle<io::Result<(Bytes, Rest)>>>,
    left: u64,
}

impl FileBody {
    fn new(first: Bytes, rest: Rest) -> Self {
        let left = first.len() as u64 + (rest.range.end - rest.range.start);
        Self { ready: Some(first), rest: Some(rest), reading: None, left }
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece; `None` after the last one.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let piece = match self.ready.take() {
            Some(piece) => piece,
            None => {
                let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                match read.unwrap_or_else(|cause| Err(io::Error::other(cause))) {
                    Ok((piece, rest)) => {
                        self.rest = Some(rest);
                        piece
                    }
                    Err(cause) => return Poll::Ready(Some(Err(cause))),
                }
            }
        };
        self.left = self.left.saturating_sub(piece.len() as u64);
        if let Some(rest) = self.rest.take().filter(|rest| !rest.range.is_empty()) {
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let piece = read(&rest.file, &rest.range)?;
                let start = rest.range.start + piece.len() as u64;
                Ok((piece, Rest { range: start..rest.range.end, ..rest }))
            }));
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Large enough that a hop to another thread is worth it.
const PIECE_BYTES: usize = 128 << 10;
