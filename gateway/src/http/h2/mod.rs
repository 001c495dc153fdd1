//! HTTP/2 towards clients (RFC 9113): one task per connection, which reads frames, runs the exchanges of its
//! streams and writes what they have ready in one go. The protocol itself is [`crate::h2`]; here are the
//! exchanges, their bodies, and the time. A connection that waits holds no buffer.

pub mod body;
mod pipe;
mod ready;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, DATE, EXPECT, HeaderMap};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use self::body::{ClientBody, Inflow};
use self::pipe::{Pipe, Tunnel};
use self::ready::{Bell, Ready};
use super::answer::ExchangeError;
use super::body::ResponseBody;
use super::exchange::{self, Connection};
use super::headers;
use super::hints::Hints;
use super::incoming::Incoming;
use super::tunnel::Client;
use crate::bounds::{Pace, Reason, Share};
use crate::config::Limits;
use crate::h1::{self, Duplex, Upgraded};
use crate::h2::conn::{self, Bounds, Conn, Event};
use crate::h2::{Code, Fatal, hpack};

/// Serves a connection until it ends: by the client, by a limit, or by `drain` turning true.
pub async fn serve(
    stream: Box<dyn Duplex>,
    connection: Rc<Connection>,
    limits: Rc<Limits>,
    drain: watch::Receiver<bool>,
) {
    let mut server = Server::new(stream, connection, limits, drain);
    let end = std::future::poll_fn(|cx| server.poll(cx)).await;
    // Whoever waits for something of an exchange learns now that it is over.
    for key in 0..server.slots.len() {
        server.forget(key);
    }
    match end {
        End::Gone => {}
        End::Slow => server.note(Reason::SlowResponse),
        End::Broken(Fatal { code: Code::ENHANCE_YOUR_CALM, .. }) => {
            server.note(Reason::Flood);
            // It learns why, if it listens; nobody waits for that.
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = server.poll_output(&mut cx);
        }
        End::Broken(_) | End::Orderly => {
            let _ = tokio::time::timeout(LAST_WORDS, server.close()).await;
        }
    }
}

/// How a connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client is not there any more.
    Gone,
    /// Everything was said.
    Orderly,
    /// The client takes too little of what is there for it.
    Slow,
    /// A rule was broken.
    Broken(Fatal),
}

/// How far the end has come that is ours to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// The client was told, and shall say that it knows.
    Announced(Instant),
    /// It was told which requests are served.
    Said,
}

struct Server {
    stream: Box<dyn Duplex>,
    input: BytesMut,
    conn: Conn,
    /// How much of what the connection has to send is sent.
    written: usize,
    /// By the keys of their streams.
    slots: Vec<Slot>,
    /// Streams whose bodies may have something to send, in turn.
    senders: VecDeque<usize>,
    /// Streams that were opened and not run yet.
    fresh: Vec<usize>,
    woken: Vec<usize>,
    ready: Arc<Ready>,
    is_running: Rc<Cell<bool>>,
    connection: Rc<Connection>,
    limits: Rc<Limits>,
    /// What this connection holds for a side that is slow.
    share: Share,
    /// Bytes of bodies that wait in slots.
    waiting: usize,
    /// How slowly the client takes what the connection sends, whichever stream it is of.
    pace: Pace,
    moved: u64,
    /// Whether large pieces come.
    is_uploading: bool,
    has_left: bool,
    drain: watch::Receiver<bool>,
    drained: Pin<Box<dyn Future<Output = ()>>>,
    is_woken_by_drain: bool,
    ending: Ending,
    /// One timer for all waits: it is looked at when it fires and moved only then.
    watchdog: Pin<Box<Sleep>>,
    idle_since: Instant,
    head_since: Option<Instant>,
}

/// What belongs to one stream. It stays for the next under its key.
struct Slot {
    bell: Bell,
    hints: Hints,
    work: Work,
    inflow: Option<Rc<Inflow>>,
    /// For a request that may leave HTTP.
    tunnel: Option<(ClientBody, oneshot::Sender<Upgraded>)>,
    is_head: bool,
    /// Whether it is among the senders.
    is_listed: bool,
    /// Whether it waits for the client to open the stream's window.
    is_blocked: bool,
    pace: Pace,
    moved: u64,
}

type Exchange = Pin<Box<dyn Future<Output = Response<ResponseBody>>>>;

/// What a stream is at.
enum Work {
    Nothing,
    Exchange(Exchange),
    Body {
        source: Source,
        /// What was taken of it and not sent.
        piece: Bytes,
    },
    /// A tunnel whose other direction goes on.
    Tail,
}

enum Source {
    Response(ResponseBody),
    Pipe(Rc<Pipe>),
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        match self {
            Self::Response(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|next| next.map(|frame| frame.map_err(|cause| cause.to_string()))),
            Self::Pipe(pipe) => pipe
                .poll(cx)
                .map(|next| next.map(|data| data.map(Frame::data).map_err(|c| c.to_string()))),
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Response(body) => body.is_end_stream(),
            Self::Pipe(_) => false,
        }
    }
}

/// What came of a turn of a sender.
enum Turn {
    /// It has more.
    Again,
    /// Somebody will wake it, or it has ended.
    Over,
    /// The window of the connection is closed.
    Closed,
}

impl Server {
    fn new(
        stream: Box<dyn Duplex>,
        connection: Rc<Connection>,
        limits: Rc<Limits>,
        drain: watch::Receiver<bool>,
    ) -> Self {
        let bounds = Bounds {
            head_bytes_max: limits.request_head_bytes_max,
            fields_max: limits.request_fields_max,
            streams_max: limits.streams_max as usize,
        };
        let mut draining = drain.clone();
        let now = Instant::now();
        Self {
            stream,
            input: BytesMut::new(),
            conn: Conn::new(bounds),
            written: 0,
            slots: Vec::new(),
            senders: VecDeque::new(),
            fresh: Vec::new(),
            woken: Vec::new(),
            ready: Arc::default(),
            is_running: Rc::default(),
            share: connection.worker.shared.memory.share(),
            waiting: 0,
            pace: pace(&limits),
            moved: 0,
            is_uploading: false,
            has_left: false,
            drain,
            drained: Box::pin(async move {
                let _ = draining.wait_for(|&drain| drain).await;
            }),
            is_woken_by_drain: false,
            ending: Ending::No,
            watchdog: Box::pin(tokio::time::sleep(look(&limits))),
            idle_since: now,
            head_since: Some(now),
            connection,
            limits,
        }
    }

    fn note(&self, reason: Reason) {
        let Connection { worker, facts, .. } = &*self.connection;
        worker.notices.note(reason, Some(facts.client.ip()));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.conn.out.capacity() == 0 {
            self.conn.out = SPARE.take();
        }
        self.look_at_drain(cx);
        let mut turns = 0;
        loop {
            turns += 1;
            let has_more = match self.poll_input(cx) {
                Poll::Ready(Ok(has_more)) => has_more,
                Poll::Ready(Err(fatal)) => {
                    tracing::debug!(cause = %fatal, "connection ended");
                    self.conn.end(fatal.code);
                    return Poll::Ready(End::Broken(fatal));
                }
                Poll::Pending => return Poll::Ready(End::Gone),
            };
            self.run_ready();
            self.send_bodies();
            let is_blocked = match self.poll_output(cx) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Pending => true,
            };
            if self.is_over() && !is_blocked {
                return Poll::Ready(End::Orderly);
            }
            let can_send = !self.senders.is_empty() && self.conn.is_window_open();
            if has_more || can_send && !is_blocked {
                if turns < TURNS_MAX {
                    continue;
                }
                cx.waker().wake_by_ref();
            }
            match self.watch(cx, is_blocked) {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                Poll::Ready(None) => continue,
                // A stream that wakes itself lets all others of the thread come first.
                Poll::Pending if self.ready.wait(cx) => cx.waker().wake_by_ref(),
                Poll::Pending => {}
            }
            self.rest();
            return Poll::Pending;
        }
    }

    /// Before a wait: lets go of what it does not need.
    fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.is_uploading &= self.conn.open() > 0;
        }
        if self.conn.out.is_empty() {
            let out = std::mem::take(&mut self.conn.out);
            SPARE.with_borrow_mut(|spare| {
                if (spare.capacity()..=SPARE_BYTES_MAX).contains(&out.capacity()) {
                    *spare = out;
                }
            });
        }
        if self.conn.open() == 0 && self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            self.senders = VecDeque::new();
            self.fresh = Vec::new();
            self.woken = Vec::new();
            self.ready.shrink();
            self.conn.shrink();
        }
        let unsent = self.conn.out.len() - self.written;
        self.share.set(self.conn.held() + self.input.len() + unsent + self.waiting);
    }

    fn is_over(&self) -> bool {
        let is_last = self.ending == Ending::Said || self.has_left;
        is_last && self.conn.open() == 0 && self.conn.out.len() == self.written
    }

    fn look_at_drain(&mut self, cx: &mut Context<'_>) {
        if self.ending != Ending::No {
            return;
        }
        // It is polled once, to be woken by it; from then on a look at the value is enough.
        let is_drained = match self.is_woken_by_drain {
            true => self.drain.has_changed().unwrap_or(true),
            false => self.drained.as_mut().poll(cx).is_ready(),
        };
        self.is_woken_by_drain = true;
        if is_drained {
            self.announce();
        }
    }

    fn announce(&mut self) {
        if self.ending == Ending::No {
            self.conn.announce_end();
            self.ending = Ending::Announced(Instant::now());
        }
    }

    /// Reads what there is; whether there may be more. `Pending`: nothing will ever come.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fatal>> {
        let (mut has_read, mut has_more) = (false, true);
        for _ in 0..READS_AT_ONCE {
            // Answers to frames must not gather while the client takes none.
            if self.conn.out.len() - self.written > OUT_BYTES_MAX {
                has_more = false;
                break;
            }
            let read = if self.is_uploading || self.conn.missing(&self.input) >= DIRECT_BYTES {
                if self.input.capacity() - self.input.len() < READ_BYTES_MIN {
                    self.input.reserve(READ_BYTES);
                }
                pin!(self.stream.read_buf(&mut self.input)).poll(cx)
            } else {
                h1::poll_read(&mut self.stream, &mut self.input, cx)
            };
            match read {
                Poll::Pending => {
                    has_more = false;
                    break;
                }
                Poll::Ready(Ok(bytes)) if bytes > 0 => has_read = true,
                Poll::Ready(_) => return Poll::Pending,
            }
            loop {
                match self.conn.take(&mut self.input, Instant::now) {
                    Ok(Some(event)) => self.handle(event),
                    Ok(None) => break,
                    Err(fatal) => return Poll::Ready(Err(fatal)),
                }
            }
        }
        if has_read {
            self.head_since = match self.conn.awaits_head(&self.input) {
                true => self.head_since.or_else(|| Some(Instant::now())),
                false => None,
            };
        }
        Poll::Ready(Ok(has_more))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { key, request, is_last } => self.begin(key, *request, is_last),
            Event::TooLarge { key } => {
                let response =
                    exchange::refuse_unread(&self.connection, &ExchangeError::HeadTooLarge);
                self.slot(key).is_head = false;
                self.respond(key, response);
            }
            Event::Data { key, data, is_last } => {
                self.is_uploading = data.len() >= DIRECT_BYTES;
                let bytes = data.len();
                let inflow = self.slots.get(key).and_then(|slot| slot.inflow.as_ref());
                let is_wanted = inflow.is_some_and(|inflow| inflow.put(data, is_last));
                if !is_wanted {
                    self.conn.release(None, bytes);
                }
                self.run_tail(key);
            }
            Event::Trailers { key, fields } => {
                if let Some(inflow) = self.slots.get(key).and_then(|slot| slot.inflow.as_ref()) {
                    inflow.put_trailers(fields);
                }
                self.run_tail(key);
            }
            Event::Gone { key } => self.forget(key),
            Event::Opened(Some(key)) => self.unblock(key),
            Event::Opened(None) => (0..self.slots.len()).for_each(|key| self.unblock(key)),
            Event::EndSeen => {
                if matches!(self.ending, Ending::Announced(_)) {
                    self.say_end();
                }
            }
            Event::Leaving => self.has_left = true,
        }
    }

    fn say_end(&mut self) {
        self.conn.end(Code::NO_ERROR);
        self.ending = Ending::Said;
    }

    /// The slot of a stream that was opened.
    #[expect(clippy::expect_used, reason = "slots are made up to the key")]
    fn slot(&mut self, key: usize) -> &mut Slot {
        while self.slots.len() <= key {
            self.slots.push(Slot {
                bell: Bell::new(&self.ready, self.slots.len()),
                hints: Hints::default(),
                work: Work::Nothing,
                inflow: None,
                tunnel: None,
                is_head: false,
                is_listed: false,
                is_blocked: false,
                pace: pace(&self.limits),
                moved: 0,
            });
        }
        self.slots.get_mut(key).expect("it was made above")
    }

    /// Begins the exchange of a request. It runs once all frames that came along have been looked at, so
    /// that one which is reset at once costs nobody else anything.
    fn begin(&mut self, key: usize, request: conn::Request, is_last: bool) {
        let conn::Request { method, target, protocol, fields, length } = request;
        let connection = Rc::clone(&self.connection);
        let is_running = Rc::clone(&self.is_running);
        let slot = self.slot(key);
        slot.is_head = method == Method::HEAD;
        let mut incoming = Incoming::Empty;
        let mut client = None;
        if !is_last {
            let expects = fields.get(EXPECT).is_some_and(headers::is_continue);
            let waker = slot.bell.waker().clone();
            let inflow = Inflow::new(waker, is_running, length, expects);
            slot.inflow = Some(Rc::clone(&inflow));
            let body = ClientBody::new(inflow);
            // What follows a CONNECT is no body.
            if protocol.is_some() {
                let (sender, receiver) = oneshot::channel();
                slot.tunnel = Some((body, sender));
                client = Some(Client::new(receiver));
            } else {
                incoming = Incoming::H2(body);
            }
        }
        let mut request = Request::new(incoming);
        *request.method_mut() = method;
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        if let Some(is_websocket) = protocol {
            let name = if is_websocket { "websocket" } else { "another" };
            request.extensions_mut().insert(hyper::ext::Protocol::from_static(name));
        }
        let hints = slot.hints.clone();
        slot.work = Work::Exchange(Box::pin(async move {
            exchange::serve(&connection, request, client, Some(hints)).await
        }));
        self.fresh.push(key);
    }

    /// Runs the streams that were opened or woken.
    fn run_ready(&mut self) {
        let mut keys = std::mem::take(&mut self.woken);
        self.ready.take(&mut keys);
        for key in keys.drain(..) {
            if let Some(slot) = self.slots.get(key) {
                slot.bell.answer();
                self.run(key);
            }
        }
        self.woken = keys;
        let mut keys = std::mem::take(&mut self.fresh);
        for key in keys.drain(..) {
            self.run(key);
        }
        self.fresh = keys;
    }

    fn run(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match &mut slot.work {
            Work::Nothing => {}
            Work::Exchange(exchange) => {
                self.is_running.set(true);
                let polled = exchange.as_mut().poll(&mut Context::from_waker(slot.bell.waker()));
                self.is_running.set(false);
                for hint in slot.hints.take() {
                    self.conn.write_head(key, false, |out| {
                        hpack::write_status(out, hint.status());
                        write_fields(out, hint.headers());
                    });
                }
                self.collect(key);
                if let Poll::Ready(response) = polled {
                    self.respond(key, response);
                }
            }
            Work::Body { .. } => {
                self.collect(key);
                self.list(key);
            }
            Work::Tail => {
                self.collect(key);
                self.run_tail(key);
            }
        }
    }

    /// Tells the client of what an exchange has taken of its body.
    fn collect(&mut self, key: usize) {
        let Some(inflow) = self.slots.get(key).and_then(|slot| slot.inflow.as_ref()) else {
            return;
        };
        let (taken, is_to_go_on) = (inflow.take_taken(), inflow.take_continue());
        self.conn.release(Some(key), taken);
        if is_to_go_on {
            let status = StatusCode::CONTINUE;
            self.conn.write_head(key, false, |out| hpack::write_status(out, status));
        }
    }

    /// Ends a tunnel whose other direction has ended, too.
    fn run_tail(&mut self, key: usize) {
        let Some(slot) = self.slots.get(key) else { return };
        let is_unwanted = slot.inflow.as_ref().is_none_or(|inflow| inflow.is_unwanted());
        if matches!(slot.work, Work::Tail) && (is_unwanted || !self.conn.is_receiving(key)) {
            self.finish(key);
        }
    }

    /// Sends a response's head, and has its body sent.
    fn respond(&mut self, key: usize, response: Response<ResponseBody>) {
        let (parts, body) = response.into_parts();
        let status = parts.status;
        let Some(slot) = self.slots.get_mut(key) else { return };
        let tunnel = slot.tunnel.take().filter(|_| status == StatusCode::OK);
        let tunnel = tunnel.filter(|(_, opened)| !opened.is_closed());
        let has_none = slot.is_head || matches!(status.as_u16(), 204 | 304);
        let is_last = tunnel.is_none() && (has_none || body.is_end_stream());
        let length = body.size_hint().exact().filter(|_| !has_none && tunnel.is_none());
        self.conn.write_head(key, is_last, |out| {
            hpack::write_status(out, status);
            let written = write_fields(out, &parts.headers);
            if !written.has_date {
                hpack::write_field(out, "date", headers::date().as_bytes());
            }
            if let Some(length) = length
                && !written.has_length
            {
                let mut digits = [0; 20];
                hpack::write_field(out, "content-length", decimal(length, &mut digits));
            }
        });
        if is_last {
            drop(if has_none { body.completed() } else { body });
            return self.finish(key);
        }
        let source = match tunnel {
            None => Source::Response(body),
            Some((body, opened)) => {
                let (tunnel, pipe) = Tunnel::new(body, slot.bell.waker().clone());
                let upgraded = Upgraded { stream: Box::new(tunnel), read: BytesMut::new() };
                let _ = opened.send(upgraded);
                Source::Pipe(pipe)
            }
        };
        slot.work = Work::Body { source, piece: Bytes::new() };
        slot.pace = pace(&self.limits);
        slot.moved = 0;
        self.list(key);
    }

    fn list(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && !std::mem::replace(&mut slot.is_listed, true)
        {
            self.senders.push_back(key);
        }
    }

    fn unblock(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && std::mem::take(&mut slot.is_blocked)
        {
            self.list(key);
        }
    }

    /// Takes from each body in turn at most a frame, until the client's window is closed or there is
    /// enough for one write.
    fn send_bodies(&mut self) {
        while self.conn.out.len() - self.written < OUT_BYTES {
            let Some(key) = self.senders.pop_front() else { return };
            if let Some(slot) = self.slots.get_mut(key) {
                slot.is_listed = false;
            }
            match self.send_piece(key) {
                Turn::Again => self.list(key),
                Turn::Over => {}
                Turn::Closed => {
                    if let Some(slot) = self.slots.get_mut(key) {
                        slot.is_listed = true;
                    }
                    return self.senders.push_front(key);
                }
            }
        }
    }

    fn send_piece(&mut self, key: usize) -> Turn {
        let Some(slot) = self.slots.get_mut(key) else { return Turn::Over };
        let Work::Body { source, piece } = &mut slot.work else { return Turn::Over };
        while piece.is_empty() {
            self.is_running.set(true);
            let polled = source.poll(&mut Context::from_waker(slot.bell.waker()));
            self.is_running.set(false);
            match polled {
                Poll::Pending => {
                    slot.pace.rest(Instant::now);
                    self.collect(key);
                    return Turn::Over;
                }
                Poll::Ready(None) => {
                    self.conn.write_data(key, b"", true);
                    self.end_body(key);
                    return Turn::Over;
                }
                Poll::Ready(Some(Err(cause))) => {
                    tracing::debug!(%cause, "a response broke off");
                    self.conn.reset(key, Code::INTERNAL);
                    self.forget(key);
                    return Turn::Over;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.waiting += data.len();
                        *piece = data;
                        if piece.is_empty() && source.has_ended() {
                            break;
                        }
                    }
                    Err(frame) => {
                        let fields = frame.into_trailers().unwrap_or_default();
                        self.conn.write_head(key, true, |out| {
                            write_fields(out, &fields);
                        });
                        self.end_body(key);
                        return Turn::Over;
                    }
                },
            }
        }
        let room = self.conn.sendable(key);
        if room == 0 && !piece.is_empty() {
            if !self.conn.is_window_open() {
                return Turn::Closed;
            }
            slot.is_blocked = true;
            return Turn::Over;
        }
        let bytes = room.min(piece.len());
        let is_last = bytes == piece.len() && source.has_ended();
        self.conn.write_data(key, piece.split_at(bytes).0, is_last);
        self.waiting -= bytes;
        slot.moved += bytes as u64;
        piece.advance(bytes);
        if piece.is_empty() {
            // Lets go of the buffer it is part of.
            *piece = Bytes::new();
        }
        self.collect(key);
        if is_last {
            self.end_body(key);
            return Turn::Over;
        }
        Turn::Again
    }

    /// The response has gone to its end.
    fn end_body(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let is_pipe = matches!(&slot.work, Work::Body { source: Source::Pipe(_), .. });
        if is_pipe && self.conn.is_receiving(key) {
            slot.work = Work::Tail;
            self.run_tail(key);
        } else {
            self.finish(key);
        }
    }

    fn finish(&mut self, key: usize) {
        self.conn.finish(key);
        self.forget(key);
    }

    /// Drops what belongs to a stream that has ended.
    fn forget(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let work = std::mem::replace(&mut slot.work, Work::Nothing);
        if let Work::Body { source, piece } = &work {
            self.waiting -= piece.len();
            if let Source::Pipe(pipe) = source {
                pipe.close();
            }
        }
        slot.tunnel = None;
        slot.is_blocked = false;
        slot.hints.reset();
        if let Some(inflow) = slot.inflow.take() {
            let left = inflow.close();
            self.conn.release(None, left);
        }
        drop(work);
        if self.conn.open() == 0 {
            self.idle_since = Instant::now();
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.conn.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => {
                    self.written += bytes;
                    self.moved += bytes as u64;
                }
            }
        }
        self.conn.out.clear();
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Bounds all waits. `Ready(None)`: there is something to do.
    fn watch(&mut self, cx: &mut Context<'_>, is_blocked: bool) -> Poll<Option<End>> {
        loop {
            let mut wait = look(&self.limits);
            if is_blocked || self.waiting > 0 {
                let now = Instant::now();
                match self.watch_responses(now, is_blocked) {
                    Poll::Ready(end) => return Poll::Ready(end),
                    Poll::Pending if is_blocked => wait = wait.min(self.pace.left(now)),
                    Poll::Pending => {}
                }
                for slot in &mut self.slots {
                    if !is_blocked && is_waiting(slot) {
                        wait = wait.min(slot.pace.left(now));
                    }
                }
            }
            if !is_blocked {
                let moved = std::mem::take(&mut self.moved);
                self.pace.moved(moved, Instant::now);
            }
            ready!(self.watchdog.as_mut().poll(cx));
            match self.watch_idle() {
                Ok(left) => wait = wait.min(left),
                Err(end) => return Poll::Ready(end),
            }
            let wait = wait.max(SHORTEST_LOOK);
            self.watchdog.as_mut().reset(tokio::time::Instant::now() + wait);
        }
    }

    /// How slowly the client takes what is there for it: on the connection as a whole, where that does
    /// not move on; else on each stream whose window it keeps closed.
    fn watch_responses(&mut self, now: Instant, is_blocked: bool) -> Poll<Option<End>> {
        if is_blocked {
            let moved = std::mem::take(&mut self.moved);
            if moved > 0 {
                self.pace.moved(moved, || now);
            }
            if self.pace.left(now).is_zero() {
                return Poll::Ready(Some(End::Slow));
            }
        }
        let mut slow = None;
        for (key, slot) in self.slots.iter_mut().enumerate() {
            if !is_waiting(slot) {
                continue;
            }
            if is_blocked {
                slot.pace.rest(|| now);
                continue;
            }
            let moved = std::mem::take(&mut slot.moved);
            if moved > 0 {
                slot.pace.moved(moved, || now);
            }
            if slot.pace.left(now).is_zero() {
                slow = Some(key);
            }
        }
        let Some(key) = slow else { return Poll::Pending };
        self.note(Reason::SlowResponse);
        self.conn.reset(key, Code::CANCEL);
        self.forget(key);
        Poll::Ready(None)
    }

    /// The waits for a head and for the next request: how much longer, or what becomes of it.
    fn watch_idle(&mut self) -> Result<Duration, Option<End>> {
        let now = Instant::now();
        let left = |since: Instant, limit: Duration| {
            limit.checked_sub(now.saturating_duration_since(since)).filter(|left| !left.is_zero())
        };
        let mut wait = Duration::MAX;
        if let Ending::Announced(since) = self.ending {
            match left(since, PATIENCE) {
                Some(left) => wait = wait.min(left),
                None => {
                    self.say_end();
                    return Err(None);
                }
            }
        }
        if self.conn.open() > 0 {
            return Ok(wait);
        }
        if let Some(since) = self.head_since {
            match left(since, self.limits.request_head) {
                Some(left) => wait = wait.min(left),
                None => {
                    self.conn.end(Code::NO_ERROR);
                    return Err(Some(End::Orderly));
                }
            }
        }
        match left(self.idle_since, self.limits.keepalive) {
            Some(left) => Ok(wait.min(left)),
            None if self.ending == Ending::No => {
                self.announce();
                Err(None)
            }
            None => Ok(wait),
        }
    }

    /// Ends the connection in order. It keeps reading for a moment, since closing on unread bytes would
    /// reset the connection and take from the client what it has not read (RFC 9112, section 9.6).
    async fn close(&mut self) {
        if std::future::poll_fn(|cx| self.poll_output(cx)).await.is_err() {
            return;
        }
        let stream = &mut self.stream;
        if std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            self.input.clear();
            let read = std::future::poll_fn(|cx| h1::poll_read(stream, &mut self.input, cx));
            match read.await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => left = left.saturating_sub(bytes),
            }
        }
    }
}

/// Whether something of its response is there and cannot go out.
fn is_waiting(slot: &Slot) -> bool {
    matches!(&slot.work, Work::Body { source: Source::Response(_), piece } if !piece.is_empty())
}

fn pace(limits: &Limits) -> Pace {
    Pace::new(limits.response_rate_min, limits.rate_grace, limits.response_idle)
}

/// The timer is set to look at least this often, so that a shorter wait that begins later is seen.
fn look(limits: &Limits) -> Duration {
    let least = limits.response_idle.min(limits.rate_grace);
    limits.request_head.min(limits.keepalive).min(least)
}

/// Which of the fields that every response should have are there.
#[derive(Default)]
struct Written {
    has_date: bool,
    has_length: bool,
}

/// All fields but those that no message of HTTP/2 has (RFC 9113, section 8.2.2).
fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) -> Written {
    let mut written = Written::default();
    for (name, value) in fields {
        match name.as_str() {
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => {
                continue;
            }
            name => hpack::write_field(out, name, value.as_bytes()),
        }
        written.has_date |= *name == DATE;
        written.has_length |= *name == CONTENT_LENGTH;
    }
    written
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for (at, place) in digits.iter_mut().enumerate().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        start = at;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

thread_local! {
    /// The buffer of whoever runs next on this thread.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// About what one write takes: four TLS records.
const OUT_BYTES: usize = 64 * 1024;
/// Nothing more is read while so much waits.
const OUT_BYTES_MAX: usize = 256 * 1024;
const SPARE_BYTES_MAX: usize = 512 * 1024;
/// How often a connection may go on before all others of its thread come first.
const TURNS_MAX: usize = 16;
/// How many reads come before what they brought is served.
const READS_AT_ONCE: usize = 8;
/// From here on, a read goes into a buffer that becomes the body's.
const DIRECT_BYTES: usize = 4 * 1024;
const READ_BYTES_MIN: usize = 16 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// Slots that a quiet connection keeps.
const SLOTS_KEPT: usize = 2;
const LINGER_BYTES_MAX: usize = 1 << 20;
const SHORTEST_LOOK: Duration = Duration::from_millis(10);
/// How long a client may take to say that it knows of the end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection that ends may take over it.
const LAST_WORDS: Duration = Duration::from_secs(2);
