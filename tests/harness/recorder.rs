//! A server that keeps every request exactly as it came, and takes nothing that is not plain: one length
//! or chunks, lines that end with CR and LF, names and values without surprises, nothing that belongs to
//! the connection before. What is not plain is kept as a complaint.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::port;

/// The server.
pub struct Recorder {
    /// Where it listens.
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

/// What it saw.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Requests, in the order in which their heads came.
    pub requests: Vec<Recorded>,
    /// What was not plain.
    pub complaints: Vec<String>,
}

/// A request.
#[derive(Debug, Default, Clone)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// The target.
    pub target: String,
    /// All fields, names as they came.
    pub fields: Vec<(String, String)>,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
    /// Whether all of it came.
    pub is_whole: bool,
}

impl Recorder {
    /// Starts it.
    pub async fn start() -> Self {
        let port = port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let mut line = Line { stream, input: Vec::new(), seen: shared };
                    if let Err(complaint) = line.serve().await {
                        line.with(|seen| seen.complaints.push(complaint));
                    }
                });
            }
        });
        Self { port, seen, task }
    }

    /// What it saw so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Line {
    stream: TcpStream,
    input: Vec<u8>,
    seen: Arc<Mutex<Seen>>,
}

impl Line {
    fn with<T>(&self, note: impl FnOnce(&mut Seen) -> T) -> T {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests until the connection ends between two of them, or in one.
    async fn serve(&mut self) -> Result<(), String> {
        loop {
            let Some(head) = self.until(b"\r\n\r\n").await else { return Ok(()) };
            let (request, framing) = read_head(&head)?;
            let is_head = request.method == "HEAD";
            let index = self.with(|seen| {
                seen.requests.push(request);
                seen.requests.len() - 1
            });
            let whole = match framing {
                None => true,
                Some(Framing::Length(length)) => self.body(index, length).await,
                Some(Framing::Chunked) => self.chunks(index).await?,
            };
            self.with(|seen| seen.requests[index].is_whole = whole);
            if !whole {
                return Ok(());
            }
            let body = if is_head { "" } else { "ok" };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{body}");
            if self.stream.write_all(answer.as_bytes()).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.input).await, Ok(bytes) if bytes > 0)
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|w| w == end) {
                return Some(self.input.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads `length` bytes of a body; whether all came.
    async fn body(&mut self, index: usize, length: usize) -> bool {
        while self.input.len() < length {
            if !self.more().await {
                return false;
            }
        }
        let piece: Vec<u8> = self.input.drain(..length).collect();
        self.with(|seen| seen.requests[index].body.extend(piece));
        true
    }

    async fn chunks(&mut self, index: usize) -> Result<bool, String> {
        loop {
            let Some(line) = self.until(b"\r\n").await else { return Ok(false) };
            let text = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let is_plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            let size = usize::from_str_radix(&text, 16).ok().filter(|_| is_plain);
            let size = size.ok_or_else(|| format!("a chunk of size {text:?}"))?;
            if size == 0 {
                break;
            }
            if !self.body(index, size).await {
                return Ok(false);
            }
            match self.until(b"\r\n").await {
                None => return Ok(false),
                Some(end) if end == b"\r\n" => {}
                Some(end) => return Err(format!("a chunk with {end:?} after it")),
            }
        }
        loop {
            let Some(line) = self.until(b"\r\n").await else { return Ok(false) };
            if line == b"\r\n" {
                return Ok(true);
            }
            let field = read_field(&line)?;
            if matches!(field.0.as_str(), "content-length" | "transfer-encoding" | "host") {
                return Err(format!("{} in the trailers", field.0));
            }
            self.with(|seen| seen.requests[index].trailers.push(field));
        }
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

fn read_head(head: &[u8]) -> Result<(Recorded, Option<Framing>), String> {
    let text = &head[..head.len() - 2];
    let mut lines = text.split_inclusive(|b| *b == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let words: Vec<&str> = first.trim_end_matches("\r\n").split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(format!("the first line {first:?}"));
    };
    let is_method = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    let is_target = (target.starts_with('/') || target == "*")
        && target.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'#');
    if !is_method || !is_target {
        return Err(format!("the first line {first:?}"));
    }
    let fields = lines.map(read_field).collect::<Result<Vec<_>, _>>()?;
    let values = |name: &str| {
        fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
    };
    if values("host").len() != 1 {
        return Err(format!("{first:?} with the hosts {:?}", values("host")));
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        if !values(name).is_empty() {
            return Err(format!("{first:?} with {name}"));
        }
    }
    let framing = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => None,
        ([length], []) => Some(Framing::Length(length.parse().map_err(|_| format!("{first:?}"))?)),
        ([], ["chunked"]) => Some(Framing::Chunked),
        both => return Err(format!("{first:?} with {both:?}")),
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok((Recorded { method, target, fields, ..Recorded::default() }, framing))
}

fn read_field(line: &[u8]) -> Result<(String, String), String> {
    let complaint = || format!("the line {:?}", String::from_utf8_lossy(line));
    let line_text = line.strip_suffix(b"\r\n").ok_or_else(complaint)?;
    let colon = line_text.iter().position(|b| *b == b':').ok_or_else(complaint)?;
    let (name, value) = (&line_text[..colon], &line_text[colon + 1..]);
    let is_name = !name.is_empty()
        && name.iter().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(b)
        });
    let is_value = value.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
    if !is_name || !is_value {
        return Err(complaint());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok((text(name), text(value)))
}
