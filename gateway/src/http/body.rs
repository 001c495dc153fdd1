//! Bodies on their way through: streamed piece by piece, with waits and sizes bounded, and the
//! access-log record written when the last piece has gone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::files::FileBody;
use super::incoming::{Incoming, StreamError};
use super::tapped::{Pieces, Tapped};
use crate::bounds::{Pace, Share};
use crate::config::policies::Coding;
use crate::fault::Fault;
use crate::plugin::Tap;
use crate::policy::Encoder;
use crate::telemetry::{Counters, Ending, Record};
use crate::upstream::Lease;

/// Why a body broke off.
#[derive(Debug)]
pub enum BodyError {
    /// The other side of the stream failed.
    Stream(StreamError),
    /// No piece came in time, or pieces came too slowly.
    Idle,
    /// More bytes than allowed.
    TooLarge,
    /// A file could not be read to its end.
    File(io::Error),
    /// The encoder failed.
    Encoder(io::Error),
    /// A plugin that sees or changes it failed: its name, and what happened.
    Plugin(String, String),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "the body broke off",
            Self::Idle => "no piece of the body came in time",
            Self::TooLarge => "the body is larger than allowed",
            Self::File(_) => "the file cannot be read to its end",
            Self::Encoder(_) => "the body cannot be compressed",
            Self::Plugin(..) => "a plugin failed in the middle of the body",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stream(cause) => Some(cause),
            Self::File(cause) | Self::Encoder(cause) => Some(cause),
            Self::Idle | Self::TooLarge | Self::Plugin(..) => None,
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
    /// Whether the response has begun: from then on the body may be one side of a conversation.
    pub is_answered: Cell<bool>,
    /// How long both sides of a conversation may be silent: set once this may be one.
    pub talk: Cell<Option<Duration>>,
    /// Whether no more of the body comes: what is left is an ordinary response.
    pub is_over: Cell<bool>,
    /// When either side of a conversation last moved.
    moved: Cell<Option<Instant>>,
    /// Why it broke off.
    pub failure: Cell<Option<&'static str>>,
    /// The plugin that broke it off, and what happened to it.
    pub plugin: RefCell<Option<(String, String)>>,
}

impl Progress {
    /// That of a request without a body.
    pub fn over() -> Rc<Self> {
        Rc::new(Self { is_over: Cell::new(true), ..Self::default() })
    }

    /// The longest silence of both sides, while this is a conversation.
    fn talk(&self) -> Option<Duration> {
        self.talk.get().filter(|_| !self.is_over.get())
    }
}

/// A request's body on its way to an upstream.
pub enum RequestBody {
    /// None.
    Empty,
    /// All of it.
    Whole(Option<Bytes>),
    /// What was read for a plugin, then the rest.
    Stream(Box<StreamedBody>),
    /// What filters make of it on its way.
    Tapped(Box<TappedBody>),
}

/// The parts of a request body that a filter sees.
pub struct TappedBody {
    tapped: Tapped<RequestBody>,
    /// What was read of it for another plugin.
    held: VecDeque<Frame<Bytes>>,
    progress: Rc<Progress>,
    copy: Option<Copy>,
}

/// The parts of a streamed request body.
pub struct StreamedBody {
    held: VecDeque<Frame<Bytes>>,
    /// What that takes, each frame's own place included.
    held_bytes: usize,
    incoming: Incoming,
    left: Option<u64>,
    idle: Idle,
    progress: Rc<Progress>,
    /// What is held.
    share: Share,
    copy: Option<Copy>,
}

/// What of a body has gone by, for another use.
struct Copy {
    pieces: Vec<Bytes>,
    /// How much more may come.
    left: usize,
    /// What has come.
    share: Share,
    whole: oneshot::Sender<Copied>,
}

/// The copy of a whole body, counted among what waits in memory as long as it is kept.
pub struct Copied {
    /// The body.
    pub bytes: Bytes,
    /// Its place in the count.
    pub share: Share,
}

impl Copy {
    /// Copies what goes by into `slot`, until it is too much. With `is_last` the copy is whole.
    fn note(slot: &mut Option<Self>, next: Option<&Frame<Bytes>>, is_last: bool) {
        let Some(copy) = slot else { return };
        if let Some(data) = next.and_then(Frame::data_ref) {
            match copy.left.checked_sub(data.len()) {
                Some(left) => copy.left = left,
                None => return *slot = None,
            }
            copy.pieces.push(data.clone());
            copy.share.set(copy.pieces.iter().map(Bytes::len).sum());
        }
        if (next.is_none() || is_last)
            && let Some(Copy { pieces, whole, share, .. }) = slot.take()
        {
            let _ = whole.send(Copied { bytes: pieces.concat().into(), share });
        }
    }
}

impl RequestBody {
    /// Wraps what the client sends. `bytes_max` is inclusive.
    pub fn new(
        incoming: Incoming,
        bytes_max: Option<u64>,
        pace: Pace,
        progress: Rc<Progress>,
        share: Share,
    ) -> Self {
        if incoming.is_end_stream() {
            progress.is_over.set(true);
            return Self::Empty;
        }
        Self::Stream(Box::new(StreamedBody {
            held: VecDeque::new(),
            held_bytes: 0,
            incoming,
            left: bytes_max,
            idle: Idle::new(pace),
            progress,
            share,
            copy: None,
        }))
    }

    /// A copy of the body, when all of it has gone by; it never comes when the body is longer than
    /// `bytes_max` (inclusive) or breaks off. `None` when there is no body.
    pub fn copied(&mut self, bytes_max: usize, share: Share) -> Option<oneshot::Receiver<Copied>> {
        let copy = match self {
            Self::Stream(body) => &mut body.copy,
            Self::Tapped(body) => &mut body.copy,
            Self::Empty | Self::Whole(_) => return None,
        };
        let (whole, receiver) = oneshot::channel();
        *copy = Some(Copy { pieces: Vec::new(), left: bytes_max, share, whole });
        Some(receiver)
    }

    /// Puts another bound (inclusive) in the place of the first one, before anything is read.
    ///
    /// # Errors
    /// When the body is known to be larger.
    pub fn limit(&mut self, bytes_max: Option<u64>) -> Result<(), BodyError> {
        let Self::Stream(body) = self else { return Ok(()) };
        body.left = bytes_max;
        match bytes_max.is_some_and(|max| body.incoming.size_hint().lower() > max) {
            true => Err(BodyError::TooLarge),
            false => Ok(()),
        }
    }

    /// Reads until `bytes_max` bytes are there or the body ends, keeps what was read for the
    /// upstream, and returns a copy of it (at most `bytes_max` bytes) and whether it is the whole.
    ///
    /// # Errors
    /// When the body breaks off before that.
    pub async fn prefix(&mut self, bytes_max: usize) -> Result<(Vec<u8>, bool), BodyError> {
        let mut prefix = Vec::new();
        let mut is_whole = matches!(self, Self::Empty | Self::Whole(_));
        while !is_whole && prefix.len() < bytes_max {
            let next = std::future::poll_fn(|cx| match self {
                Self::Stream(body) => body.poll_incoming(cx),
                Self::Tapped(body) => body.poll_tapped(cx),
                Self::Empty | Self::Whole(_) => Poll::Ready(None),
            });
            let Some(frame) = next.await.transpose()? else {
                is_whole = true;
                break;
            };
            let has_ended = match self {
                Self::Stream(body) => body.incoming.is_end_stream(),
                Self::Tapped(body) => body.tapped.is_end_stream(),
                Self::Empty | Self::Whole(_) => true,
            };
            if let Some(data) = frame.data_ref() {
                let room = bytes_max - prefix.len();
                prefix.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                is_whole = data.len() <= room && has_ended;
            }
            self.hold(frame);
        }
        Ok((prefix, is_whole))
    }

    /// Reads until `bytes_max` bytes are there, the body ends, or there is no room for more, and keeps
    /// what was read for the upstream.
    ///
    /// # Errors
    /// When the body breaks off before that.
    pub async fn read_ahead(
        &mut self,
        bytes_max: usize,
        has_room: impl Fn() -> bool,
    ) -> Result<(), BodyError> {
        let Self::Stream(body) = self else { return Ok(()) };
        while body.held_bytes < bytes_max && !body.incoming.is_end_stream() && has_room() {
            let next = std::future::poll_fn(|cx| body.poll_incoming(cx)).await;
            let Some(frame) = next.transpose()? else { break };
            body.hold(frame);
        }
        Ok(())
    }

    /// Keeps a piece that was read before its time.
    fn hold(&mut self, frame: Frame<Bytes>) {
        match self {
            Self::Stream(body) => body.hold(frame),
            Self::Tapped(body) => body.held.push_back(frame),
            Self::Empty | Self::Whole(_) => {}
        }
    }

    /// Lets a filter see or change the body, after those before it. `is_optional` says whether it may
    /// be left out when it fails.
    pub fn tap(
        &mut self,
        tap: Tap,
        is_optional: bool,
        counters: std::sync::Arc<Counters>,
        progress: &Rc<Progress>,
    ) {
        let inner = std::mem::replace(self, Self::Empty);
        *self = Self::Tapped(Box::new(TappedBody {
            tapped: Tapped::new(inner, tap, is_optional, counters),
            held: VecDeque::new(),
            progress: Rc::clone(progress),
            copy: None,
        }));
    }
}

impl StreamedBody {
    /// Keeps a frame for later.
    fn hold(&mut self, frame: Frame<Bytes>) {
        self.held_bytes += taken_by(&frame);
        self.held.push_back(frame);
        self.share.set(self.held_bytes);
    }

    /// The next frame that was kept.
    fn take_held(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.held.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(taken_by(&frame));
        self.share.set(self.held_bytes);
        Some(frame)
    }

    /// The length of the body, when it is known.
    fn length(&self) -> Option<u64> {
        let rest = match self.incoming.is_end_stream() {
            true => 0,
            false => self.incoming.size_hint().exact()?,
        };
        let mut held = 0;
        for frame in &self.held {
            // What has trailers is written so that it can have them.
            held += frame.data_ref()?.len() as u64;
        }
        Some(held + rest)
    }

    /// Copies what goes by.
    fn observe(&mut self, next: Option<&Frame<Bytes>>) {
        let is_last = self.held.is_empty() && self.incoming.is_end_stream();
        Copy::note(&mut self.copy, next, is_last);
    }

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
        if self.progress.is_answered.get() {
            self.idle.pace.free();
        }
        if let Some(idle) = self.progress.talk() {
            self.idle.pace.stretch(idle);
            self.idle.hear(&self.progress);
        }
        let bytes = bytes_of(&polled);
        match self.idle.watch(cx, polled, bytes) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => fail(&self.progress, "idle", BodyError::Idle),
            Poll::Ready(Some(None)) => Poll::Ready(None),
            Poll::Ready(Some(Some(Err(cause)))) => {
                fail(&self.progress, "client", BodyError::Stream(cause))
            }
            Poll::Ready(Some(Some(Ok(frame)))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let now = Some(Instant::now());
                self.progress.last.set(now);
                self.progress.moved.set(now);
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

impl Drop for StreamedBody {
    fn drop(&mut self) {
        self.progress.is_over.set(true);
        self.progress.moved.set(Some(Instant::now()));
    }
}

impl TappedBody {
    fn poll_tapped(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = ready!(self.tapped.poll(cx));
        if let Some(Err(BodyError::Plugin(name, cause))) = &next {
            self.progress.failure.set(Some("plugin"));
            *self.progress.plugin.borrow_mut() = Some((name.clone(), cause.clone()));
        }
        Poll::Ready(next)
    }
}

impl Pieces for RequestBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(self).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(self)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(self)
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
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => {
                let next = match body.take_held() {
                    Some(frame) => Some(Ok(frame)),
                    None => ready!(body.poll_incoming(cx)),
                };
                match &next {
                    Some(Err(_)) => body.copy = None,
                    Some(Ok(frame)) => body.observe(Some(frame)),
                    None => body.observe(None),
                }
                Poll::Ready(next)
            }
            Self::Tapped(body) => {
                let next = match body.held.pop_front() {
                    Some(frame) => Some(Ok(frame)),
                    None => ready!(body.poll_tapped(cx)),
                };
                let is_last = body.held.is_empty() && body.tapped.is_end_stream();
                match &next {
                    Some(Err(_)) => body.copy = None,
                    Some(Ok(frame)) => Copy::note(&mut body.copy, Some(frame), is_last),
                    None => Copy::note(&mut body.copy, None, is_last),
                }
                Poll::Ready(next)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(body) => body.held.is_empty() && body.incoming.is_end_stream(),
            Self::Tapped(body) => body.held.is_empty() && body.tapped.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Stream(body) if body.held.is_empty() => body.incoming.size_hint(),
            Self::Stream(body) => {
                body.length().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Tapped(body) if body.held.is_empty() => body.tapped.size_hint(),
            Self::Tapped(_) => SizeHint::default(),
        }
    }
}

/// What a frame that is kept takes of memory, about: a body of many small ones is no way around a bound.
fn taken_by(frame: &Frame<Bytes>) -> usize {
    FRAME_BYTES + frame.data_ref().map_or(0, Bytes::len)
}

const FRAME_BYTES: usize = 128;

/// A response's body on its way to the client.
pub struct ResponseBody {
    source: Source,
    record: Option<Box<Record>>,
}

enum Source {
    Full(Option<Bytes>),
    Upstream(Box<Upstream>),
    File(Box<FileBody>),
    Compressed(Box<Compressed>),
    Tapped(Box<Tapped<Source>>),
}

/// A body that is compressed on its way. What is there leaves whenever there is nothing more to wait
/// for, so that an event stream is as prompt as without.
struct Compressed {
    inner: Source,
    /// Taken at the end.
    encoder: Option<Encoder>,
    /// What is still to be taken in of the last piece.
    piece: Bytes,
    /// Whether something was taken in since the last flush.
    is_dirty: bool,
    trailers: Option<Frame<Bytes>>,
}

struct Upstream {
    incoming: Incoming,
    lease: Option<Lease<RequestBody>>,
    idle: Idle,
    /// The longest wait for a piece, when it is no conversation.
    idle_max: Duration,
    /// Of the request, whose other side this is.
    progress: Rc<Progress>,
    /// The first piece, when it was looked at.
    first: Option<Frame<Bytes>>,
}

impl Upstream {
    /// Has what is said on either side of a conversation count on both.
    fn talk(&mut self, is_silent: bool) {
        let progress = &self.progress;
        match (progress.talk(), is_silent) {
            (Some(_), false) => progress.moved.set(Some(Instant::now())),
            (None, false) => {}
            (talk, true) => {
                self.idle.pace.stretch(talk.unwrap_or(self.idle_max));
                // The end of a request counts for what is left, an ordinary response.
                self.idle.hear(progress);
            }
        }
    }
}

impl ResponseBody {
    /// A body that is all there.
    pub fn full(bytes: Bytes) -> Self {
        Self { source: Source::Full(Some(bytes).filter(|b| !b.is_empty())), record: None }
    }

    /// An upstream's body. `idle_max` is the longest wait between two pieces, unless the request still
    /// goes on as `progress` tells, and the two are a conversation.
    pub fn upstream(
        incoming: Incoming,
        lease: Lease<RequestBody>,
        idle_max: Duration,
        progress: Rc<Progress>,
    ) -> Self {
        let idle = Idle::new(Pace::new(None, idle_max, idle_max));
        let lease = Some(lease);
        let upstream = Upstream { incoming, lease, idle, idle_max, progress, first: None };
        Self { source: Source::Upstream(Box::new(upstream)), record: None }
    }

    /// Looks at the first piece of an upstream's body, if it is there already.
    ///
    /// # Errors
    /// When the body is broken from its first byte on.
    pub async fn begin(&mut self) -> Result<(), BodyError> {
        let Source::Upstream(upstream) = &mut self.source else { return Ok(()) };
        if upstream.incoming.is_end_stream() {
            return Ok(());
        }
        let first = std::future::poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut upstream.incoming).poll_frame(cx) {
                Poll::Ready(first) => first,
                // It is not waited for: some servers send a head long before the first piece.
                Poll::Pending => None,
            })
        });
        upstream.first = first.await.transpose().map_err(BodyError::Stream)?;
        Ok(())
    }

    /// A file.
    pub fn file(file: FileBody) -> Self {
        Self { source: Source::File(Box::new(file)), record: None }
    }

    /// The same body in a content coding.
    ///
    /// # Errors
    /// When there is no memory for the encoder.
    pub fn compressed(mut self, coding: Coding) -> io::Result<Self> {
        let compressed = Compressed {
            encoder: Some(Encoder::new(coding)?),
            inner: std::mem::replace(&mut self.source, Source::Full(None)),
            piece: Bytes::new(),
            is_dirty: false,
            trailers: None,
        };
        self.source = Source::Compressed(Box::new(compressed));
        Ok(self)
    }

    /// The same body as a filter sees or changes it. `is_optional` says whether the filter may be left
    /// out when it fails.
    pub fn tapped(
        mut self,
        tap: Tap,
        is_optional: bool,
        counters: std::sync::Arc<Counters>,
    ) -> Self {
        let inner = std::mem::replace(&mut self.source, Source::Full(None));
        self.source = Source::Tapped(Box::new(Tapped::new(inner, tap, is_optional, counters)));
        self
    }

    /// Has the access-log record written when this body has ended.
    pub fn recorded(mut self, record: Box<Record>) -> Self {
        self.record = Some(record);
        self
    }

    /// The body of a response that has none for the client, since it was asked by HEAD or its status
    /// says so: nothing more is to come.
    pub fn completed(mut self) -> Self {
        if !matches!(self.source, Source::Upstream(_)) {
            self.source.end(Ending::Client);
            self.source = Source::Full(None);
        }
        self
    }

    fn end(&mut self, ending: Ending) {
        self.source.end(ending);
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
        let next = ready!(this.source.poll(cx));
        match &next {
            None => this.end(Ending::Complete),
            Some(Err(BodyError::Plugin(name, cause))) => {
                if let Some(record) = &mut this.record {
                    let text = format!("plugin {name} failed in the body: {cause}");
                    record.failure = Some((Fault::Plugin, text));
                }
                this.end(Ending::Upstream);
            }
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
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl Pieces for Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match self {
            Self::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Self::Upstream(upstream) if upstream.first.is_some() => upstream.first.take().map(Ok),
            Self::Upstream(upstream) => {
                let polled = Pin::new(&mut upstream.incoming).poll_frame(cx);
                upstream.talk(polled.is_pending());
                match ready!(upstream.idle.watch(cx, polled, 0)) {
                    None => Some(Err(BodyError::Idle)),
                    Some(next) => next.map(|frame| frame.map_err(BodyError::Stream)),
                }
            }
            Self::File(file) => {
                let piece = ready!(file.poll(cx));
                piece.map(|piece| piece.map(Frame::data).map_err(BodyError::File))
            }
            Self::Compressed(compressed) => ready!(compressed.poll(cx)),
            Self::Tapped(tapped) => ready!(tapped.poll(cx)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(upstream) => {
                upstream.first.is_none() && upstream.incoming.is_end_stream()
            }
            Self::File(file) => file.left() == 0,
            Self::Compressed(c) => c.encoder.is_none() && c.trailers.is_none(),
            Self::Tapped(tapped) => tapped.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Upstream(upstream) => {
                let held = upstream.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
                let rest = upstream.incoming.size_hint();
                match rest.exact() {
                    Some(rest) => SizeHint::with_exact(rest + held as u64),
                    None => rest,
                }
            }
            Self::File(file) => SizeHint::with_exact(file.left()),
            Self::Compressed(_) => SizeHint::default(),
            Self::Tapped(tapped) => tapped.size_hint(),
        }
    }
}

impl Source {
    /// Gives an upstream's connection back, when its response was read to the end.
    fn end(&mut self, ending: Ending) {
        match self {
            Self::Upstream(upstream) => {
                if let Some(lease) = upstream.lease.take()
                    && ending == Ending::Complete
                {
                    lease.finish();
                }
            }
            Self::Compressed(compressed) => compressed.inner.end(ending),
            Self::Tapped(tapped) => tapped.inner.end(ending),
            Self::Full(_) | Self::File(_) => {}
        }
    }
}

impl Compressed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let outcome = ready!(self.step(cx));
        if outcome.is_err() {
            self.encoder = None;
        }
        Poll::Ready(outcome.transpose())
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        let data = |bytes: Vec<u8>| Poll::Ready(Ok(Some(Frame::data(Bytes::from(bytes)))));
        for _ in 0..STEPS_MAX {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(Ok(self.trailers.take()));
            };
            if !self.piece.is_empty() {
                let step = self.piece.split_to(self.piece.len().min(STEP_BYTES));
                encoder.write(&step).map_err(BodyError::Encoder)?;
                self.is_dirty = true;
            } else {
                match self.inner.poll(cx) {
                    Poll::Ready(Some(frame)) => match frame?.into_data() {
                        Ok(bytes) => self.piece = bytes,
                        Err(trailers) => self.trailers = Some(trailers),
                    },
                    Poll::Ready(None) => {
                        let rest = self.encoder.take().map(Encoder::finish).transpose();
                        let rest = rest.map_err(BodyError::Encoder)?.unwrap_or_default();
                        if !rest.is_empty() {
                            return data(rest);
                        }
                        continue;
                    }
                    Poll::Pending if !self.is_dirty => return Poll::Pending,
                    Poll::Pending => {
                        encoder.flush().map_err(BodyError::Encoder)?;
                        self.is_dirty = false;
                        if encoder.ready() > 0 {
                            return data(encoder.take());
                        }
                        return Poll::Pending;
                    }
                }
            }
            if encoder.ready() >= STEP_BYTES {
                return data(encoder.take());
            }
        }
        // Others of this worker come first now.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What an encoder takes in at once, and about what it gives.
const STEP_BYTES: usize = 16 << 10;
/// A quarter of a MiB that shrinks to nothing is enough for one turn.
const STEPS_MAX: usize = 32;

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
    pace: Pace,
    sleep: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

/// The bytes of a piece that has come.
fn bytes_of<E>(polled: &Poll<Option<Result<Frame<Bytes>, E>>>) -> u64 {
    let Poll::Ready(Some(Ok(frame))) = polled else { return 0 };
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl Idle {
    fn new(pace: Pace) -> Self {
        Self { pace, sleep: None, is_waiting: false }
    }

    /// What the other side of a conversation says counts as well.
    fn hear(&mut self, progress: &Progress) {
        if let Some(moved) = progress.moved.get() {
            self.pace.heard(moved);
        }
    }

    /// Passes `polled` on, in which `bytes` came; `Ready(None)` when the wait has run out.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<T>, bytes: u64) -> Poll<Option<T>> {
        if let Poll::Ready(value) = polled {
            self.is_waiting = false;
            self.pace.moved(bytes, Instant::now);
            return Poll::Ready(Some(value));
        }
        loop {
            let left = self.pace.left(Instant::now());
            if self.is_waiting && left.is_zero() {
                return Poll::Ready(None);
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            if !self.is_waiting || sleep.is_elapsed() {
                self.is_waiting = true;
                sleep.as_mut().reset(tokio::time::Instant::now() + left);
            }
            ready!(sleep.as_mut().poll(cx));
        }
    }
}
