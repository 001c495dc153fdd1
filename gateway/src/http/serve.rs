//! From a connection to its requests: HTTP/1.1 goes to [`h1`], HTTP/2 is driven here, with every wait
//! bounded by one watchdog per connection instead of timers per request.

use std::cell::Cell;
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

use super::LocalExecutor;
use super::exchange::{self, Connection};
use super::incoming::Incoming;
use super::tunnel::Client;
use super::{h1, plain};
use crate::config::{Limits, Scheme};

/// Serves a connection until it ends: by the client, by a limit, or by `drain` turning true.
pub async fn connection<S>(
    stream: S,
    is_h2: bool,
    connection: Rc<Connection>,
    limits: Limits,
    drain: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    if !is_h2 {
        return h1::serve(Box::new(stream), connection, limits, drain).await;
    }
    let pulse = Rc::new(Pulse::new());
    let io = TokioIo::new(Tracked::new(stream, Rc::clone(&pulse)));
    let at_work = Rc::clone(&pulse);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let tunnel = request.extensions_mut().remove::<OnUpgrade>().map(Client::Hyper);
        let request = request.map(Incoming::Hyper);
        let (connection, pulse) = (Rc::clone(&connection), Rc::clone(&at_work));
        pulse.begin();
        async move {
            let _at_work = AtWork(pulse);
            let response = match connection.scheme {
                // hyper has no way to send interim responses over HTTP/2.
                Scheme::Https => exchange::serve(&connection, request, tunnel, None).await,
                Scheme::Http => plain::serve(&connection, request, tunnel, None).await,
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let served = h2(&limits).serve_connection(io, service);
    watched(served, Graceful::h2, &pulse, &limits, drain).await;
}

fn h2(limits: &Limits) -> hyper::server::conn::http2::Builder<LocalExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
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
    served: F,
    graceful: fn(Pin<&mut F>),
    pulse: &Pulse,
    limits: &Limits,
    mut drain: watch::Receiver<bool>,
) where
    F: Future<Output = hyper::Result<()>>,
{
    let mut served = pin!(served);
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
    fn h2<I, S>(c: Pin<&mut hyper::server::conn::http2::Connection<I, S, LocalExecutor>>)
    where
        S: hyper::service::HttpService<hyper::body::Incoming>,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        I: hyper::rt::Read + hyper::rt::Write + Unpin,
        S::ResBody: hyper::body::Body + 'static,
        <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        LocalExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, S::ResBody>,
    {
        c.graceful_shutdown();
    }
}

/// What a connection is doing, written by its stream and its service, read by its watchdog.
struct Pulse {
    epoch: Instant,
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
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            open: Cell::new(0),
            idle_since_ms: Cell::new(0),
            head_since_ms: Cell::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn has_read(&self) {
        if self.open.get() == 0 && self.head_since_ms.get() == 0 {
            self.head_since_ms.set(self.now_ms() + 1);
        }
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
        if buffer.filled().len() > before {
            self.pulse.has_read();
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
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
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
