//! Bodies on their way through: streamed piece by piece, with waits and sizes bounded, and the
//! access-log record written when the last piece has gone.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::incoming::{Incoming, StreamError};

use crate::telemetry::{Ending, Record};
use crate::upstream::Lease;

/// Why a body broke off.
#[derive(Debug)]
pub enum BodyError {
    /// The other side of the stream failed.
    Stream(StreamError),
    /// No piece came in time.
    Idle,
    /// More bytes than allowed.
    TooLarge,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "the body broke off",
            Self::Idle => "no piece of the body came in time",
            Self::TooLarge => "the body is larger than allowed",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stream(cause) => Some(cause),
            Self::Idle | Self::TooLarge => None,
        }
    }
}

/// How far a request's body has come; shared with the exchange that waits for the response.
#[derive(Debug, Default)]
pub struct Progress {
    /// When its last piece went by; `None` before the first.
    pub last: Cell<Option<Instant>>,
    /// Whether its next piece is waited for.
    pub is_awaited: Cell<bool>,
    /// Why it broke off.
    pub failure: Cell<Option<&'static str>>,
}

/// A request's body on its way to an upstream.
pub enum RequestBody {
    /// None.
    Empty,
    /// What was read for a plugin, then the rest.
    Stream(Box<StreamedBody>),
}

/// The parts of a streamed request body.
pub struct StreamedBody {
    held: VecDeque<Frame<Bytes>>,
    incoming: Incoming,
    left: Option<u64>,
    idle: Idle,
    progress: Rc<Progress>,
}

impl RequestBody {
    /// Wraps what the client sends. `bytes_max` is inclusive.
    pub fn new(
        incoming: Incoming,
        bytes_max: Option<u64>,
        idle: Duration,
        progress: Rc<Progress>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Stream(Box::new(StreamedBody {
            held: VecDeque::new(),
            incoming,
            left: bytes_max,
            idle: Idle::new(idle),
            progress,
        }))
    }

    /// Reads until `bytes_max` bytes are there or the body ends, keeps what was read for the
    /// upstream, and returns a copy of it (at most `bytes_max` bytes) and whether it is the whole.
    ///
    /// # Errors
    /// When the body breaks off before that.
    pub async fn prefix(&mut self, bytes_max: usize) -> Result<(Vec<u8>, bool), BodyError> {
        let mut prefix = Vec::new();
        let Self::Stream(body) = self else { return Ok((prefix, true)) };
        let mut is_whole = false;
        while prefix.len() < bytes_max {
            let next = std::future::poll_fn(|cx| body.poll_incoming(cx)).await;
            let Some(frame) = next.transpose()? else {
                is_whole = true;
                break;
            };
            if let Some(data) = frame.data_ref() {
                let room = bytes_max - prefix.len();
                prefix.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                is_whole = data.len() <= room && body.incoming.is_end_stream();
            }
            body.held.push_back(frame);
        }
        Ok((prefix, is_whole))
    }
}

impl StreamedBody {
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let fail = |progress: &Progress, why, error| {
            progress.failure.set(Some(why));
            Poll::Ready(Some(Err(error)))
        };
        self.progress.is_awaited.set(polled.is_pending());
        match self.idle.watch(cx, polled) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => fail(&self.progress, "idle", BodyError::Idle),
            Poll::Ready(Some(None)) => Poll::Ready(None),
            Poll::Ready(Some(Some(Err(cause)))) => {
                fail(&self.progress, "client", BodyError::Stream(cause))
            }
            Poll::Ready(Some(Some(Ok(frame)))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.progress.last.set(Some(Instant::now()));
                if let Some(left) = &mut self.left {
                    match left.checked_sub(bytes) {
                        Some(rest) => *left = rest,
                        None => return fail(&self.progress, "size", BodyError::TooLarge),
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => match body.held.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None => body.poll_incoming(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.held.is_empty() && body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) if body.held.is_empty() => body.incoming.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A response's body on its way to the client.
pub struct ResponseBody {
    source: Source,
    record: Option<Box<Record>>,
}

enum Source {
    Full(Option<Bytes>),
    Upstream(Box<Upstream>),
}

struct Upstream {
    incoming: Incoming,
    lease: Option<Lease<RequestBody>>,
    idle: Idle,
}

impl ResponseBody {
    /// A body that is all there.
    pub fn full(bytes: Bytes) -> Self {
        Self { source: Source::Full(Some(bytes).filter(|b| !b.is_empty())), record: None }
    }

    /// An upstream's body. `idle` is the longest wait between two pieces.
    pub fn upstream(incoming: Incoming, lease: Lease<RequestBody>, idle: Duration) -> Self {
        let upstream = Upstream { incoming, lease: Some(lease), idle: Idle::new(idle) };
        Self { source: Source::Upstream(Box::new(upstream)), record: None }
    }

    /// Has the access-log record written when this body has ended.
    pub fn recorded(mut self, record: Box<Record>) -> Self {
        self.record = Some(record);
        self
    }

    /// The body of a response that has none for the client, since it was asked by HEAD or its status
    /// says so: nothing more is to come.
    pub fn completed(mut self) -> Self {
        if matches!(self.source, Source::Full(_)) {
            self.source = Source::Full(None);
        }
        self
    }

    fn end(&mut self, ending: Ending) {
        if let Source::Upstream(upstream) = &mut self.source
            && let Some(lease) = upstream.lease.take()
            && ending == Ending::Complete
        {
            lease.finish();
        }
        if let Some(record) = self.record.take() {
            record.write(ending);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let next = match &mut this.source {
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(upstream) => {
                let polled = Pin::new(&mut upstream.incoming).poll_frame(cx);
                match ready!(upstream.idle.watch(cx, polled)) {
                    None => Some(Err(BodyError::Idle)),
                    Some(next) => next.map(|frame| frame.map_err(BodyError::Stream)),
                }
            }
        };
        match &next {
            None => this.end(Ending::Complete),
            Some(Err(_)) => this.end(Ending::Upstream),
            Some(Ok(frame)) => {
                if let Some(record) = &mut this.record
                    && let Some(data) = frame.data_ref()
                {
                    record.bytes_sent += data.len() as u64;
                }
                if this.is_end_stream() {
                    this.end(Ending::Complete);
                }
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream(upstream) => upstream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Source::Upstream(upstream) => upstream.incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper never polls a body that has ended before it began (HEAD, 204, 304).
        let ending = if self.is_end_stream() { Ending::Complete } else { Ending::Client };
        self.end(ending);
    }
}

/// Bounds the wait for each piece. The timer is only made at the first wait and then moved, since
/// most bodies are there at once.
struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, is_waiting: false }
    }

    /// Passes `polled` on; `Ready(None)` when the wait has run out.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<T>) -> Poll<Option<T>> {
        if let Poll::Ready(value) = polled {
            self.is_waiting = false;
            return Poll::Ready(Some(value));
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        if !self.is_waiting {
            self.is_waiting = true;
            sleep.as_mut().reset(tokio::time::Instant::now() + self.limit);
        }
        sleep.as_mut().poll(cx).map(|()| None)
    }
}
