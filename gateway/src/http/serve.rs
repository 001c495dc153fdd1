//! From a connection to its requests: HTTP/1.1 goes to [`h1`], HTTP/2 is driven here, with every wait
//! bounded by one watchdog per connection instead of timers per request.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::exchange::{self, Connection};
use super::frames::Meter;
use super::incoming::Incoming;
use super::stream::{self, FlowBody, StreamExecutor};
use super::tunnel::Client;
use super::{h1, plain};
use crate::bounds::{Reason, Share};
use crate::config::{Limits, Scheme};
use crate::h1::Duplex;

/// Serves a connection in a task of its own until it ends: by the client, by a limit, or by `drain`
/// turning true. `place` is held until then.
pub fn spawn<S>(
    stream: S,
    is_h2: bool,
    connection: Rc<Connection>,
    limits: Rc<Limits>,
    drain: watch::Receiver<bool>,
    place: impl Sized + 'static,
) where
    S: Duplex + 'static,
{
    // Two tasks instead of one with a branch, which would be as large as the larger of them; and what
    // is large goes into boxes, since a future that takes a value and moves it holds its room twice.
    if is_h2 {
        let served = h2(stream, connection, limits, drain);
        tokio::task::spawn_local(async move {
            let _place = place;
            served.await;
        });
    } else {
        let stream = Box::new(stream);
        tokio::task::spawn_local(async move {
            let _place = place;
            h1::serve(stream, connection, limits, drain).await;
        });
    }
}

fn h2<S>(
    stream: S,
    connection: Rc<Connection>,
    limits: Rc<Limits>,
    drain: watch::Receiver<bool>,
) -> impl Future<Output = ()> + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let client = connection.facts.client.ip();
    let worker = Rc::clone(&connection.worker);
    let pulse = Rc::new(Pulse::new(worker.shared.memory.share()));
    let executor = StreamExecutor::new(Rc::clone(&connection), Rc::clone(&pulse), &limits);
    let io = TokioIo::new(Tracked::new(stream, Rc::clone(&pulse)));
    let at_work = Rc::clone(&pulse);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let tunnel = request.extensions_mut().remove::<OnUpgrade>().map(Client::Hyper);
        let request = request.map(Incoming::Hyper);
        let (connection, pulse) = (Rc::clone(&connection), Rc::clone(&at_work));
        pulse.begin();
        // In a box: hyper moves it many times before it is first polled.
        Box::pin(async move {
            let _at_work = AtWork(Rc::clone(&pulse));
            let flow = stream::flow();
            let response = match connection.scheme {
                // hyper has no way to send interim responses over HTTP/2.
                Scheme::Https => exchange::serve(&connection, request, tunnel, None).await,
                Scheme::Http => plain::serve(&connection, request, tunnel, None).await,
            };
            pulse.meter.borrow_mut().answered();
            Ok::<_, std::convert::Infallible>(response.map(|body| FlowBody::new(body, flow, pulse)))
        })
    });
    let served = Box::pin(h2_builder(&limits, executor).serve_connection(io, service));
    let watched = watched(served, Graceful::h2, Rc::clone(&pulse), limits, drain);
    async move {
        watched.await;
        if pulse.is_flooded.get() {
            worker.notices.note(Reason::Flood, Some(client));
        }
    }
}

fn h2_builder(
    limits: &Limits,
    executor: StreamExecutor,
) -> hyper::server::conn::http2::Builder<StreamExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(executor);
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.request_head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(H2_SEND_BUFFER_BYTES);
    builder
}

/// Drives `served`; asks it to end when `drain` turns true, drops it when a limit is passed.
async fn watched<F>(
    mut served: Pin<Box<F>>,
    graceful: fn(Pin<&mut F>),
    pulse: Rc<Pulse>,
    limits: Rc<Limits>,
    mut drain: watch::Receiver<bool>,
) where
    F: Future<Output = hyper::Result<()>>,
{
    let limits = &limits;
    let mut watchdog = pin!(tokio::time::sleep(pulse.next_look(limits)));
    let mut drained = pin!(async move { drain.wait_for(|&drain| drain).await.is_ok() });
    let mut is_ending = false;
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = served.as_mut().poll(cx) {
                if let Err(cause) = outcome {
                    tracing::debug!(%cause, "connection ended");
                }
                return Poll::Ready(());
            }
            if !is_ending && drained.as_mut().poll(cx).is_ready() {
                is_ending = true;
                graceful(served.as_mut());
                continue;
            }
            if watchdog.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match pulse.verdict(limits) {
                Verdict::Wait(wait) => {
                    watchdog.as_mut().reset(tokio::time::Instant::now() + wait);
                }
                Verdict::Idle if !is_ending => {
                    is_ending = true;
                    graceful(served.as_mut());
                    watchdog.as_mut().reset(tokio::time::Instant::now() + LAST_WORDS);
                }
                Verdict::Idle | Verdict::Stalled => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// How a connection is asked to end.
struct Graceful;

impl Graceful {
    fn h2<I, S>(c: Pin<&mut hyper::server::conn::http2::Connection<I, S, StreamExecutor>>)
    where
        S: hyper::service::HttpService<hyper::body::Incoming>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        I: hyper::rt::Read + hyper::rt::Write + Unpin,
        S::ResBody: hyper::body::Body + 'static,
        <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        StreamExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, S::ResBody>,
    {
        c.graceful_shutdown();
    }
}

/// What a connection is doing, written by its stream and its service, read by its watchdog.
pub(super) struct Pulse {
    epoch: Instant,
    meter: RefCell<Meter>,
    is_flooded: Cell<bool>,
    /// Bytes of responses that hyper has taken, and bytes that the client has; both since nothing was
    /// open.
    handed: Cell<u64>,
    sent: Cell<u64>,
    /// Bytes that the client has, of all time.
    written: Cell<u64>,
    share: Share,
    open: Cell<u32>,
    /// Milliseconds since `epoch` when the last exchange ended.
    idle_since_ms: Cell<u64>,
    /// Milliseconds since `epoch` when a head began to come, plus one; 0 for none.
    head_since_ms: Cell<u64>,
}

enum Verdict {
    Wait(Duration),
    Idle,
    Stalled,
}

impl Pulse {
    fn new(share: Share) -> Self {
        Self {
            epoch: Instant::now(),
            meter: RefCell::default(),
            is_flooded: Cell::new(false),
            handed: Cell::new(0),
            sent: Cell::new(0),
            written: Cell::new(0),
            share,
            open: Cell::new(0),
            idle_since_ms: Cell::new(0),
            head_since_ms: Cell::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes that the client has taken so far.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Notes bytes of a response that wait for the client from now on.
    pub(super) fn hand(&self, bytes: usize) {
        self.handed.set(self.handed.get() + bytes as u64);
        self.count_waiting();
    }

    fn has_written(&self, bytes: usize) {
        self.meter.borrow_mut().sent(bytes);
        self.written.set(self.written.get() + bytes as u64);
        self.sent.set(self.sent.get() + bytes as u64);
        self.count_waiting();
    }

    fn count_waiting(&self) {
        let waiting = self.handed.get().saturating_sub(self.sent.get());
        self.share.set(usize::try_from(waiting).unwrap_or(usize::MAX));
    }

    /// Notes what was read; whether it is bearable.
    fn has_read(&self, bytes: &[u8]) -> bool {
        if self.open.get() == 0 && self.head_since_ms.get() == 0 {
            self.head_since_ms.set(self.now_ms() + 1);
        }
        let is_bearable = self.meter.borrow_mut().read(bytes, Instant::now);
        if !is_bearable {
            self.is_flooded.set(true);
        }
        is_bearable
    }

    fn begin(&self) {
        self.head_since_ms.set(0);
        self.open.set(self.open.get() + 1);
    }

    fn end(&self) {
        let open = self.open.get().saturating_sub(1);
        self.open.set(open);
        if open == 0 {
            self.idle_since_ms.set(self.now_ms());
            // What frames took beside the bodies would add up.
            let waiting = self.handed.get().saturating_sub(self.sent.get());
            self.handed.set(waiting);
            self.sent.set(0);
        }
    }

    fn next_look(&self, limits: &Limits) -> Duration {
        limits.request_head.min(limits.keepalive)
    }

    fn verdict(&self, limits: &Limits) -> Verdict {
        if self.open.get() > 0 {
            return Verdict::Wait(self.next_look(limits));
        }
        let left = |since_ms: u64, limit: Duration| {
            limit.checked_sub(Duration::from_millis(self.now_ms().saturating_sub(since_ms)))
        };
        let head = self.head_since_ms.get();
        let idle = left(self.idle_since_ms.get(), limits.keepalive);
        let head = if head == 0 { idle } else { left(head - 1, limits.request_head) };
        match (head, idle) {
            (Some(wait), Some(also)) if !wait.is_zero() => {
                Verdict::Wait(wait.min(also).max(SHORTEST_LOOK).min(self.next_look(limits)))
            }
            (_, None) => Verdict::Idle,
            _ => Verdict::Stalled,
        }
    }
}

/// Ends an exchange in the pulse, whichever way its future goes.
struct AtWork(Rc<Pulse>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The client's stream. Tells the pulse about reads, collects what is written and flushes once per turn of the run queue, so that the answers of several streams leave in one TLS
/// record and one system call.
struct Tracked<S> {
    stream: S,
    pulse: Rc<Pulse>,
    gathered: Vec<u8>,
    written: usize,
    has_yielded: bool,
}

impl<S: AsyncWrite + Unpin> Tracked<S> {
    fn new(stream: S, pulse: Rc<Pulse>) -> Self {
        let gathered = Vec::new();
        Self { stream, pulse, gathered, written: 0, has_yielded: false }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.gathered.get(self.written..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.pulse.has_written(n);
        }
        self.written = 0;
        // A quiet connection holds no buffer.
        if self.gathered.capacity() > GATHERED_KEEP_BYTES {
            self.gathered = Vec::new();
        } else {
            self.gathered.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if !fresh.is_empty() && !self.pulse.has_read(fresh) {
            return Poll::Ready(Err(io::Error::other("a flood of frames")));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.gathered.len() + bytes.len() > GATHERED_BYTES_MAX {
            ready!(self.poll_drain(cx))?;
        }
        if bytes.len() > GATHERED_BYTES_MAX {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
            self.pulse.has_written(n);
            return Poll::Ready(Ok(n));
        }
        self.has_yielded = false;
        self.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.gathered.is_empty() && !self.has_yielded {
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const H2_SEND_BUFFER_BYTES: usize = 256 * 1024;
const GATHERED_BYTES_MAX: usize = 32 * 1024;
const GATHERED_KEEP_BYTES: usize = 4 * 1024;
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
/// How long a connection that was asked to end may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);
