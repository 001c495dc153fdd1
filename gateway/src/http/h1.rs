//! HTTP/1.1 towards clients (RFC 9112): one task per connection, one request at a time, no task and no
//! channel between the connection and the exchange. A connection that waits holds no buffer.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use super::answer::{ExchangeError, LastOfConnection};
use super::body::ResponseBody;
use super::exchange::{self, Connection};
use super::headers;
use super::hints::Hints;
use super::incoming::Incoming;
use super::plain;
use super::tunnel::Client;
use crate::bounds::{Pace, Reason, Share};
use crate::config::{Limits, Scheme};
use crate::h1::body::{Broken, Reader, Writer};
use crate::h1::head::{self, Bounds, Framing, HeadError, RequestHead};
use crate::h1::{self, Duplex, Upgraded};

/// Serves a connection until it ends: by the client, by a limit, or by `drain` turning true.
pub async fn serve(
    stream: Box<dyn Duplex>,
    connection: Rc<Connection>,
    limits: Rc<Limits>,
    drain: watch::Receiver<bool>,
) {
    let mut changes = drain.clone();
    let mut server = Server {
        line: Rc::new(RefCell::new(Line {
            stream,
            input: BytesMut::new(),
            reader: Reader::new(Framing::Empty),
            interim: b"",
            hints: BytesMut::new(),
        })),
        hints: Hints::default(),
        watchdog: Box::pin(tokio::time::sleep(look(&limits))),
        share: connection.worker.shared.memory.share(),
        connection,
        drained: Box::pin(async move {
            let _ = changes.wait_for(|&drain| drain).await;
        }),
        drain,
        is_listening: false,
        limits,
        is_draining: false,
        out: Vec::new(),
    };
    loop {
        let is_going_on = match server.next().await {
            // In a box, so that a connection that waits is not as large as an exchange.
            Next::Request(head) => Box::pin(server.exchange(head)).await,
            Next::Refuse(error) => {
                server.refuse(&error).await;
                false
            }
            Next::End => {
                server.close(false).await;
                false
            }
        };
        if !is_going_on {
            return;
        }
    }
}

/// The stream and what was read of it. The connection and the body of its request take turns at it.
struct Line {
    stream: Box<dyn Duplex>,
    input: BytesMut,
    /// The body of the present request.
    reader: Reader,
    /// What is left to write of `100 Continue`, before the body is first read.
    interim: &'static [u8],
    /// What is left to write of other interim responses. Comes before `interim` unless a part of that
    /// has gone out.
    hints: BytesMut,
}

impl Line {
    /// Writes interim responses, whole ones after each other.
    fn poll_hints(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hints.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if (1..CONTINUE.len()).contains(&self.interim.len()) {
            ready!(self.poll_continue(cx))?;
        }
        while !self.hints.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.hints))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.hints.advance(bytes),
            }
        }
        self.hints = BytesMut::new();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes `100 Continue`.
    fn poll_continue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, self.interim))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.interim = self.interim.get(bytes..).unwrap_or_default(),
            }
        }
        // What is not flushed now is with the next read.
        let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
        Poll::Ready(Ok(()))
    }
}

impl Line {
    /// Whether the client has gone away. What comes after the body is the next request, or the end; some
    /// of it is read, since the end of a connection can be seen in no other way.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        while self.reader.has_ended() && self.input.len() < READ_AHEAD_BYTES {
            if self.stream.poll_readable(cx).is_pending() {
                return false;
            }
            match h1::poll_read(&mut self.stream, &mut self.input, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return false,
            }
        }
        false
    }
}

struct Server {
    line: Rc<RefCell<Line>>,
    connection: Rc<Connection>,
    limits: Rc<Limits>,
    /// Where exchanges put interim responses.
    hints: Hints,
    /// One timer for all waits: it is looked at when it fires and moved only then.
    watchdog: Pin<Box<Sleep>>,
    drain: watch::Receiver<bool>,
    /// Wakes the task when `drain` turns true, once it was polled.
    drained: Pin<Box<dyn Future<Output = ()>>>,
    is_listening: bool,
    is_draining: bool,
    /// Empty between messages.
    out: Vec<u8>,
    /// What this connection holds for a side that is slow.
    share: Share,
}

enum Next {
    Request(Box<RequestHead>),
    Refuse(ExchangeError),
    End,
}

impl Server {
    /// Waits for the next request's head.
    async fn next(&mut self) -> Next {
        let bounds = Bounds {
            bytes_max: self.limits.request_head_bytes_max,
            fields_max: self.limits.request_fields_max,
        };
        let idle_since = Instant::now();
        let mut head_since = None;
        let mut scanned = 0;
        std::future::poll_fn(|cx| {
            let line = &mut *self.line.borrow_mut();
            loop {
                if !line.input.is_empty() {
                    head_since.get_or_insert_with(Instant::now);
                    match head::take_request(&mut line.input, &mut scanned, bounds) {
                        Ok(Some(head)) => return Poll::Ready(Next::Request(Box::new(head))),
                        Ok(None) => {}
                        Err(cause) => return Poll::Ready(Next::Refuse(refusal(cause))),
                    }
                }
                // The waker of a task stays the same: one poll is enough for all waits.
                if !self.is_listening {
                    self.is_listening = true;
                    self.is_draining = self.drained.as_mut().poll(cx).is_ready();
                }
                if !self.is_draining && self.drain.has_changed().unwrap_or(true) {
                    self.is_draining = *self.drain.borrow();
                }
                if line.input.is_empty() {
                    if self.is_draining {
                        return Poll::Ready(Next::End);
                    }
                    // A connection that waits holds no buffer.
                    line.input = BytesMut::new();
                    self.out = Vec::new();
                }
                self.share.set(line.input.len());
                if line.stream.poll_readable(cx).is_ready() {
                    match h1::poll_read(&mut line.stream, &mut line.input, cx) {
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                        Poll::Ready(Ok(_)) => continue,
                        Poll::Pending => {}
                    }
                }
                let (since, limit) = match head_since {
                    Some(since) => (since, self.limits.request_head),
                    None => (idle_since, self.limits.keepalive),
                };
                ready!(watch(&mut self.watchdog, cx, since, limit, &self.limits));
                return Poll::Ready(match head_since {
                    Some(_) => Next::Refuse(ExchangeError::HeadStalled),
                    None => Next::End,
                });
            }
        })
        .await
    }

    /// One request and its response; whether the connection takes another.
    async fn exchange(&mut self, head: Box<RequestHead>) -> bool {
        let RequestHead { method, target, version, fields, framing, is_persistent } = *head;
        let incoming = self.incoming(&fields, version, framing);
        let reply = Reply {
            is_head: method == Method::HEAD,
            version,
            is_persistent,
            has_trailers: fields.get(TE).is_some_and(wants_trailers),
        };
        let (to_tunnel, tunnel) = match fields.contains_key(UPGRADE) {
            true => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(Client::new(receiver)))
            }
            false => (None, None),
        };
        let mut request = Request::new(incoming);
        *request.method_mut() = method;
        *request.uri_mut() = target;
        *request.version_mut() = version;
        *request.headers_mut() = fields;
        self.hints.reset();
        // Older clients do not know them (RFC 9110, section 15.2).
        let hints = (version == Version::HTTP_11).then(|| self.hints.clone());
        let Some(response) = self.run(request, tunnel, hints).await else { return false };
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        match self.respond(response, reply).await {
            Ok(_) if is_upgrade => {
                let mut line = self.line.borrow_mut();
                let stream = std::mem::replace(&mut line.stream, Box::new(tokio::io::empty()));
                let read = std::mem::take(&mut line.input);
                if let Some(to_tunnel) = to_tunnel {
                    let _ = to_tunnel.send(Upgraded { stream, read });
                }
                false
            }
            Ok(true) if self.skip_body().await => true,
            Ok(_) => {
                self.close(true).await;
                false
            }
            // Closed in the middle, so that nobody takes what came for the whole.
            Err(()) => false,
        }
    }

    fn incoming(&self, fields: &HeaderMap, version: Version, framing: Framing) -> Incoming {
        let mut line = self.line.borrow_mut();
        line.reader = Reader::new(framing);
        line.interim = b"";
        if line.reader.has_ended() {
            return Incoming::Empty;
        }
        let expects = fields.get(EXPECT).is_some_and(headers::is_continue);
        if version == Version::HTTP_11 && expects {
            line.interim = CONTINUE;
        }
        Incoming::Client(ClientBody(Rc::clone(&self.line)))
    }

    /// Runs the exchange to its response. `None` when the client has gone away in the meantime.
    async fn run(
        &mut self,
        request: Request<Incoming>,
        tunnel: Option<Client>,
        hints: Option<Hints>,
    ) -> Option<Response<ResponseBody>> {
        let connection = Rc::clone(&self.connection);
        match connection.scheme {
            Scheme::Https => {
                self.drive(pin!(exchange::serve(&connection, request, tunnel, hints))).await
            }
            Scheme::Http => {
                self.drive(pin!(plain::serve(&connection, request, tunnel, hints))).await
            }
        }
    }

    async fn drive(
        &self,
        mut exchange: Pin<&mut impl Future<Output = Response<ResponseBody>>>,
    ) -> Option<Response<ResponseBody>> {
        std::future::poll_fn(|cx| {
            let polled = exchange.as_mut().poll(cx);
            let line = &mut *self.line.borrow_mut();
            for hint in self.hints.take() {
                write_hint(&mut line.hints, &hint);
            }
            if let Poll::Ready(response) = polled {
                return Poll::Ready(Some(response));
            }
            if let Poll::Ready(Err(_)) = line.poll_hints(cx) {
                return Poll::Ready(None);
            }
            if line.is_gone(cx) {
                return Poll::Ready(None);
            }
            self.share.set(line.input.len());
            Poll::Pending
        })
        .await
    }

    /// Writes a response. `Ok` says whether the connection may go on, `Err` that it broke off.
    async fn respond(
        &mut self,
        response: Response<ResponseBody>,
        reply: Reply,
    ) -> Result<bool, ()> {
        let (parts, mut body) = response.into_parts();
        let status = parts.status;
        let is_empty = reply.is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = body.size_hint().exact();
        let framing = match length {
            _ if is_empty => Framing::Empty,
            Some(length) => Framing::Length(length),
            None if reply.version == Version::HTTP_11 => Framing::Chunked,
            None => Framing::Close,
        };
        // A client makes another connection once this one ends.
        let is_persistent = reply.is_persistent
            && framing != Framing::Close
            && parts.extensions.get::<LastOfConnection>().is_none()
            && !self.is_ending()
            && self.is_body_skippable();
        let mut out = std::mem::take(&mut self.out);
        // For a usual head and the body that is copied behind it.
        out.reserve(MESSAGE_BYTES_USUAL);
        out.extend_from_slice(self.interim_rest());
        out.extend_from_slice(&std::mem::take(&mut self.line.borrow_mut().hints));
        head::write_status(&mut out, status);
        write_fields(&mut out, &parts.headers, status);
        match framing {
            // What a GET would have had (RFC 9110, section 8.6); 204 and 1xx must not say it.
            Framing::Empty if reply.is_head || status == StatusCode::NOT_MODIFIED => {
                match (parts.headers.get(CONTENT_LENGTH), length) {
                    (Some(length), _) => {
                        head::write_field(&mut out, "content-length", length.as_bytes());
                    }
                    (None, Some(length)) if length > 0 => {
                        head::write_framing(&mut out, Framing::Length(length));
                    }
                    _ => {}
                }
            }
            framing => head::write_framing(&mut out, framing),
        }
        if status != StatusCode::SWITCHING_PROTOCOLS {
            match (is_persistent, reply.version) {
                (false, _) => out.extend_from_slice(b"connection: close\r\n"),
                (true, Version::HTTP_10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
                _ => {}
            }
        }
        out.extend_from_slice(b"\r\n");
        if is_empty {
            body = body.completed();
        }
        let writer = Writer::new(out, framing, reply.has_trailers);
        self.write(writer, &mut body).await.map(|()| is_persistent)
    }

    async fn write(&mut self, mut writer: Writer, body: &mut ResponseBody) -> Result<(), ()> {
        let mut stream = LineWriter(Rc::clone(&self.line));
        let mut total = 0;
        let Limits { response_rate_min, rate_grace, response_idle, .. } = *self.limits;
        let mut pace = Pace::new(response_rate_min, rate_grace, response_idle);
        let outcome = std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = writer.poll(&mut stream, body, cx) {
                return Poll::Ready(outcome.map_err(|cause| {
                    tracing::debug!(?cause, "a response broke off");
                }));
            }
            self.share.set(writer.waiting());
            let now = Instant::now();
            if total != writer.total() {
                pace.moved(writer.total() - total, || now);
                total = writer.total();
            }
            if !writer.is_blocked() {
                pace.rest(|| now);
                // An event stream may be silent for long after its client has gone.
                if self.line.borrow_mut().is_gone(cx) {
                    return Poll::Ready(Err(()));
                }
                return Poll::Pending;
            }
            let left = pace.left(now);
            ready!(watch(&mut self.watchdog, cx, now, left, &self.limits));
            let client = Some(self.connection.facts.client.ip());
            self.connection.worker.notices.note(Reason::SlowResponse, client);
            Poll::Ready(Err(()))
        })
        .await;
        self.out = writer.into_buffer();
        outcome
    }

    /// Answers what is no request, and ends the connection.
    async fn refuse(&mut self, error: &ExchangeError) {
        let response = exchange::refuse_unread(&self.connection, error);
        let reply = Reply {
            is_head: false,
            version: Version::HTTP_11,
            is_persistent: false,
            has_trailers: false,
        };
        if self.respond(response, reply).await.is_ok() {
            self.close(true).await;
        }
    }

    fn is_ending(&mut self) -> bool {
        // One atomic load, nearly always.
        if !self.is_draining && self.drain.has_changed().unwrap_or(true) {
            self.is_draining = *self.drain.borrow();
        }
        self.is_draining || self.connection.worker.is_leaving.get()
    }

    /// What is left of `100 Continue`, when a part of it has gone out. None of it follows a response.
    fn interim_rest(&self) -> &'static [u8] {
        let rest = std::mem::take(&mut self.line.borrow_mut().interim);
        if rest.len() < CONTINUE.len() { rest } else { b"" }
    }

    /// Whether the rest of the request's body is not worth a new connection. A client that was not told
    /// to go on may or may not send its body, so that nothing can be read after it.
    fn is_body_skippable(&self) -> bool {
        let line = self.line.borrow();
        let was_told = line.interim.is_empty();
        let left = line.reader.size_hint().exact();
        line.reader.has_ended() || was_told && left.is_some_and(|left| left <= SKIP_BYTES_MAX)
    }

    /// Reads what is left of the request's body; whether the connection may go on.
    async fn skip_body(&mut self) -> bool {
        let line = &self.line;
        let skip = std::future::poll_fn(|cx| {
            let line = &mut *line.borrow_mut();
            loop {
                match ready!(line.reader.poll_frame(&mut line.stream, &mut line.input, cx)) {
                    None => return Poll::Ready(true),
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return Poll::Ready(false),
                }
            }
        });
        if self.line.borrow().reader.has_ended() {
            return true;
        }
        tokio::time::timeout(LAST_WORDS, skip).await.unwrap_or(false)
    }

    /// Ends the connection in order. `is_lingering` keeps reading for a moment, since closing on unread
    /// bytes would reset the connection and take the response from the client (RFC 9112, section 9.6).
    async fn close(&mut self, is_lingering: bool) {
        let line = &self.line;
        let close = async {
            let mut writer = LineWriter(Rc::clone(line));
            if std::future::poll_fn(|cx| Pin::new(&mut writer).poll_shutdown(cx)).await.is_err() {
                return;
            }
            let mut left = LINGER_BYTES_MAX;
            while is_lingering && left > 0 {
                let read = std::future::poll_fn(|cx| {
                    let line = &mut *line.borrow_mut();
                    line.input.clear();
                    h1::poll_read(&mut line.stream, &mut line.input, cx)
                });
                match read.await {
                    Ok(0) | Err(_) => return,
                    Ok(bytes) => left = left.saturating_sub(bytes),
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, close).await;
    }
}

/// What a response depends on of its request.
#[derive(Clone, Copy)]
struct Reply {
    is_head: bool,
    version: Version,
    is_persistent: bool,
    has_trailers: bool,
}

/// Waits until `limit` has passed since `since`, by a timer that may fire earlier.
fn watch(
    watchdog: &mut Pin<Box<Sleep>>,
    cx: &mut Context<'_>,
    since: Instant,
    limit: Duration,
    limits: &Limits,
) -> Poll<()> {
    let look = look(limits);
    loop {
        ready!(watchdog.as_mut().poll(cx));
        let Some(left) = limit.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else {
            watchdog.as_mut().reset(tokio::time::Instant::now() + look);
            return Poll::Ready(());
        };
        watchdog.as_mut().reset(tokio::time::Instant::now() + left.min(look));
    }
}

/// The timer is set to look at least this often, so that a shorter wait that begins later is seen.
fn look(limits: &Limits) -> Duration {
    let least = limits.response_idle.min(limits.rate_grace);
    limits.request_head.min(limits.keepalive).min(least)
}

fn refusal(cause: HeadError) -> ExchangeError {
    match cause {
        HeadError::Malformed(what) => ExchangeError::BadRequest(what),
        HeadError::TooLarge => ExchangeError::HeadTooLarge,
        HeadError::Version => ExchangeError::Version,
        HeadError::Coding => ExchangeError::Coding,
    }
}

fn wants_trailers(te: &HeaderValue) -> bool {
    let mut codings = te.as_bytes().split(|&b| b == b',');
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// An interim response whole, unless the client does not take those before it.
fn write_hint(out: &mut BytesMut, hint: &Response<()>) {
    if out.len() > HINTS_BYTES_MAX {
        return;
    }
    let mut text = Vec::new();
    head::write_status(&mut text, hint.status());
    head::write_fields(&mut text, hint.headers());
    text.extend_from_slice(b"\r\n");
    out.extend_from_slice(&text);
}

/// All fields but those that this connection has its own of.
fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap, status: StatusCode) {
    let mut has_date = false;
    for (name, value) in fields {
        if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
            continue;
        }
        if *name == CONNECTION && status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        has_date |= *name == DATE;
        head::write_field(out, name.as_str(), value.as_bytes());
    }
    if !has_date && !status.is_informational() {
        head::write_field(out, "date", headers::date().as_bytes());
    }
}

/// The body of the request that a connection is at.
pub struct ClientBody(Rc<RefCell<Line>>);

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let line = &mut *self.0.borrow_mut();
        // The client waits for this word only as long as it has sent nothing (RFC 9110, 10.1.1).
        if line.input.is_empty() {
            if !line.interim.is_empty() {
                let written = ready!(line.poll_hints(cx));
                if let Err(cause) = written {
                    return Poll::Ready(Some(Err(Broken::Stream(cause))));
                }
                if let Err(cause) = ready!(line.poll_continue(cx)) {
                    return Poll::Ready(Some(Err(Broken::Stream(cause))));
                }
            }
        } else {
            line.interim = b"";
        }
        line.reader.poll_frame(&mut line.stream, &mut line.input, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().reader.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().reader.size_hint()
    }
}

/// The writing side of a line. It borrows for one call at a time, since the body of a response may read
/// the body of its request from the same line.
struct LineWriter(Rc<RefCell<Line>>);

impl AsyncWrite for LineWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(cx)
    }
}

const HINTS_BYTES_MAX: usize = 16 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const MESSAGE_BYTES_USUAL: usize = 2 * 1024;
/// How much of the next requests is read while one is served.
const READ_AHEAD_BYTES: usize = 16 * 1024;
/// How much of a body that nobody wanted is read to keep the connection.
const SKIP_BYTES_MAX: u64 = 64 * 1024;
const LINGER_BYTES_MAX: usize = 1 << 20;
/// How long a connection that ends may take over it.
const LAST_WORDS: Duration = Duration::from_secs(2);
