//! HTTP/1.1 towards a server (RFC 9112). A connection is a plain value: the exchange that has it writes
//! and reads it, its response's body takes it along, and it comes back when the body has ended.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use crate::h1::body::{Broken, Reader, WriteError, Writer};
use crate::h1::head::{self, Bounds, Framing, HeadError};
use crate::h1::{self, Duplex, Upgraded};
use crate::http::incoming::Incoming;

/// A connection to a server, between two requests.
pub(super) struct Conn {
    stream: Box<dyn Duplex>,
    input: BytesMut,
}

/// Where a connection is put when its response has ended in order.
pub(super) type Slot = Rc<Cell<Option<Conn>>>;

/// Gets interim responses: their status and fields.
pub(super) type OnInterim<'a> = &'a dyn Fn(StatusCode, HeaderMap);

/// Why no response came.
#[derive(Debug)]
pub enum NoResponse {
    /// Writing the request or reading the response failed.
    Stream(io::Error),
    /// The server closed the connection before it answered.
    Closed,
    /// What came is no response.
    Malformed(HeadError),
    /// The request's body broke off, or was not as long as said.
    Body,
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "the connection failed",
            Self::Closed => "the connection was closed before a response",
            Self::Malformed(_) => "the response is malformed",
            Self::Body => "the body of the request broke off",
        })
    }
}

impl std::error::Error for NoResponse {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stream(cause) => Some(cause),
            Self::Malformed(cause) => Some(cause),
            Self::Closed | Self::Body => None,
        }
    }
}

impl Conn {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// Whether the server has neither closed the connection nor said anything unasked.
    pub(super) fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if self.stream.poll_readable(&mut cx).is_pending() {
            return true;
        }
        h1::poll_read(&mut self.stream, &mut self.input, &mut cx).is_pending()
    }

    /// Sends a request and waits for the response's head. The connection goes into `slot` once the
    /// response has ended, if it can take another request. With `expect: 100-continue` the body waits
    /// for the server's word, but not for ever (RFC 9110, section 10.1.1).
    ///
    /// # Errors
    /// When no response came. The request comes back when the connection was closed before anything
    /// came, and sending it again cannot do it twice.
    pub(super) async fn send<B>(
        mut self,
        request: Request<B>,
        slot: &Slot,
        on_interim: OnInterim<'_>,
    ) -> Result<Response<Incoming>, (NoResponse, Option<Box<Request<B>>>)>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let (parts, body) = request.into_parts();
        let framing = framing(&parts.method, &body);
        let expects = parts.headers.contains_key(EXPECT) && framing != Framing::Empty;
        let mut patience = expects.then(|| Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
        let mut body = Gated { body, is_open: !expects };
        let mut out = Vec::with_capacity(HEAD_BYTES_USUAL);
        write_head(&mut out, &parts, framing);
        let mut writer = Writer::new(out, framing, true);
        let mut upload = Upload::Going;
        let mut scanned = 0;
        let head = std::future::poll_fn(|cx| {
            loop {
                if let Some(timer) = &mut patience
                    && timer.as_mut().poll(cx).is_ready()
                {
                    (body.is_open, patience) = (true, None);
                }
                if upload.is_going() {
                    match writer.poll(&mut self.stream, &mut body, cx) {
                        Poll::Pending => {}
                        Poll::Ready(Ok(())) => upload = Upload::Done,
                        Poll::Ready(Err(WriteError::Body(_) | WriteError::Length)) => {
                            return Poll::Ready(Err(NoResponse::Body));
                        }
                        // It may have answered before it closed.
                        Poll::Ready(Err(WriteError::Stream(cause))) => {
                            upload = Upload::Failed(cause)
                        }
                    }
                }
                let is_told = loop {
                    let taken =
                        head::take_response(&mut self.input, &mut scanned, BOUNDS, &parts.method);
                    match taken.map_err(NoResponse::Malformed) {
                        Err(cause) => return Poll::Ready(Err(cause)),
                        Ok(Some(head)) if head.status == StatusCode::CONTINUE => {
                            if !body.is_open {
                                break true;
                            }
                            continue;
                        }
                        Ok(Some(head)) if is_interim(head.status) => {
                            on_interim(head.status, head.fields);
                            continue;
                        }
                        Ok(Some(head)) => return Poll::Ready(Ok(head)),
                        Ok(None) => {}
                    }
                    match h1::poll_read(&mut self.stream, &mut self.input, cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(bytes)) if bytes > 0 => {}
                        Poll::Ready(read) => {
                            let failed = upload.take_failure().or(read.err());
                            return Poll::Ready(Err(
                                failed.map_or(NoResponse::Closed, NoResponse::Stream)
                            ));
                        }
                    }
                };
                (body.is_open, patience) = (is_told, None);
            }
        });
        let head = match head.await {
            Ok(head) => head,
            Err(cause) => {
                let is_untouched = framing == Framing::Empty && self.input.is_empty();
                let is_unsent = matches!(cause, NoResponse::Closed | NoResponse::Stream(_))
                    && is_untouched
                    && parts.method.is_idempotent();
                let back = is_unsent.then(|| Box::new(Request::from_parts(parts, body.body)));
                return Err((cause, back));
            }
        };
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.fields;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = Upgraded { stream: self.stream, read: self.input };
            return Ok(response.map(|()| Incoming::Upgraded(Box::new(upgraded))));
        }
        if !body.is_open {
            // The server has answered without the body, and nobody can know what it takes for it now.
            upload = Upload::Failed(io::ErrorKind::Interrupted.into());
        }
        let rest: Option<Box<dyn Rest>> = match upload {
            Upload::Going => Some(Box::new((writer, body.body))),
            Upload::Done => None,
            // Nobody reads the rest.
            Upload::Failed(_) => None,
        };
        let is_reusable = head.is_persistent && matches!(upload, Upload::Going | Upload::Done);
        let mut body = ServerBody {
            conn: Some(self),
            reader: Reader::new(head.framing),
            rest,
            slot: is_reusable.then(|| Rc::clone(slot)),
        };
        if body.reader.has_ended() {
            body.give_back();
            return Ok(response.map(|()| Incoming::Empty));
        }
        Ok(response.map(|()| Incoming::Server(Box::new(body))))
    }
}

/// A request's body that waits until it may be sent.
struct Gated<B> {
    body: B,
    is_open: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Gated<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.is_open { Pin::new(&mut this.body).poll_frame(cx) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.is_open && self.body.is_end_stream()
    }
}

/// How the sending of a request goes.
enum Upload {
    Going,
    Done,
    Failed(io::Error),
}

impl Upload {
    fn is_going(&self) -> bool {
        matches!(self, Self::Going)
    }

    fn take_failure(&mut self) -> Option<io::Error> {
        match std::mem::replace(self, Self::Done) {
            Self::Failed(cause) => Some(cause),
            Self::Going | Self::Done => None,
        }
    }
}

/// What is left of a request when its response already comes.
trait Rest {
    /// Whether it waits; an end, good or bad, leaves nothing to do.
    fn poll(&mut self, stream: &mut dyn Duplex, cx: &mut Context<'_>) -> Poll<RestEnd>;
}

/// How the rest of a request ended.
enum RestEnd {
    Sent,
    /// The server takes no more of it.
    Unwanted,
    /// The body broke off.
    Broken,
}

impl<B: Body<Data = Bytes> + Unpin> Rest for (Writer, B) {
    fn poll(&mut self, mut stream: &mut dyn Duplex, cx: &mut Context<'_>) -> Poll<RestEnd> {
        let (writer, body) = self;
        writer.poll(&mut stream, body, cx).map(|outcome| match outcome {
            Ok(()) => RestEnd::Sent,
            Err(WriteError::Stream(_)) => RestEnd::Unwanted,
            Err(WriteError::Body(_) | WriteError::Length) => RestEnd::Broken,
        })
    }
}

/// The body of a response. It drives what is left of the request, too.
pub struct ServerBody {
    conn: Option<Conn>,
    reader: Reader,
    rest: Option<Box<dyn Rest>>,
    slot: Option<Slot>,
}

impl ServerBody {
    /// Puts the connection where the next request finds it, if it can take one.
    fn give_back(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        // Bytes beyond the response are nobody's, and a request that is still on its way would mix
        // with the next.
        if conn.input.is_empty()
            && self.rest.is_none()
            && let Some(slot) = self.slot.take()
        {
            conn.input = BytesMut::new();
            slot.set(Some(conn));
        }
    }
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let Some(conn) = &mut this.conn else { return Poll::Ready(None) };
        if let Some(rest) = &mut this.rest
            && let Poll::Ready(end) = rest.poll(&mut *conn.stream, cx)
        {
            this.rest = None;
            match end {
                RestEnd::Sent => {}
                RestEnd::Unwanted => this.slot = None,
                // The server would wait for what does not come, and its answer is to half a request.
                RestEnd::Broken => {
                    this.conn = None;
                    return Poll::Ready(Some(Err(Broken::Early)));
                }
            }
        }
        let polled = this.reader.poll_frame(&mut conn.stream, &mut conn.input, cx);
        if this.reader.has_ended() {
            this.give_back();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.reader.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.size_hint()
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// RFC 9112, section 6.2 and 6.3: a length when it is known. Methods that mean something by a body say
/// so even when it is empty.
fn framing<B: Body>(method: &Method, body: &B) -> Framing {
    let expects_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    match body.size_hint().exact() {
        Some(0) if expects_body => Framing::Length(0),
        Some(0) => Framing::Empty,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

fn write_head(out: &mut Vec<u8>, parts: &http::request::Parts, framing: Framing) {
    head::write_request_line(out, &parts.method, &parts.uri);
    let is_own = |name: &http::HeaderName| *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
    let fields: &HeaderMap = &parts.headers;
    for (name, value) in fields.iter().filter(|(name, _)| !is_own(name)) {
        head::write_field(out, name.as_str(), value.as_bytes());
    }
    head::write_framing(out, framing);
    out.extend_from_slice(b"\r\n");
}

/// How long a server may take to say that it wants a body.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
const HEAD_BYTES_USUAL: usize = 1024;
/// What a server's head may be.
const BOUNDS: Bounds = Bounds { bytes_max: 128 * 1024, fields_max: 1024 };
