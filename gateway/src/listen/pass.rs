//! Connections that are not opened: the server name leads to an upstream, and bytes go both ways as they
//! are. No key of the gateway is touched.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Caller;
use crate::fault::{Fault, describe};
use crate::h1::Duplex;
use crate::http::body::RequestBody;
use crate::proxy::{Ends, Origin};
use crate::telemetry::{Ending, Record};
use crate::upstream::{Lease, Miss, UpstreamError};
use crate::worker::Worker;

/// A connection of which the ClientHello was read.
pub(super) struct Passage<IO> {
    pub io: IO,
    pub read: Vec<u8>,
    pub server_name: Option<String>,
    pub upstream: Arc<str>,
}

/// Passes a connection through until either side ends, or both are silent for too long.
pub(super) async fn through<IO>(worker: &Rc<Worker>, caller: Caller, mut passage: Passage<IO>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let view = worker.view();
    let name = passage.server_name.as_deref();
    let mut record = Record::blank(Rc::clone(&worker.access), Arc::clone(&worker.counters));
    record.format = view.generation.config.log.access;
    record.sinks = view.generation.sinks();
    record.id = worker.ids.next();
    record.client = caller.client.ip();
    record.scheme = "tls";
    record.authority = name.unwrap_or_default().to_owned();
    record.via.clone_from(&caller.via);
    record.passed = Some(0);
    let origin = Origin {
        ends: Ends { source: caller.client, destination: caller.local },
        authority: name.map(Box::from),
    };
    let idle = view.upstream(&passage.upstream).map(|upstream| upstream.timeouts.idle);
    // Not with the generation in hand: the connection may stay for days.
    let connected = connect(worker, &passage.upstream, &origin, &mut record).await;
    drop(view);
    let (server, lease) = match connected {
        Ok(connected) => connected,
        Err(cause) => {
            // internal_error (RFC 8446, section 6.2): the client learns that it is not its fault.
            let _ = passage.io.write_all(&[21, 3, 3, 0, 2, 2, 80]).await;
            let _ = passage.io.shutdown().await;
            record.failure = Some((Fault::Upstream, describe(&cause)));
            return record.write(Ending::Complete);
        }
    };
    let counts = Counts::default();
    let joined = join(passage.io, server, &passage.read, idle.unwrap_or(Duration::MAX), &counts);
    let ended = joined.await;
    drop(lease);
    record.passed = Some(counts.from_client.get());
    record.bytes_sent = counts.to_client.get();
    if let Err(cause) = ended {
        let fault =
            if cause.kind() == io::ErrorKind::TimedOut { Fault::Client } else { Fault::Upstream };
        record.failure = Some((fault, cause.to_string()));
    }
    record.write(Ending::Complete);
}

type Connected = (Box<dyn Duplex>, Lease<RequestBody>);

/// Connects to a server of the upstream, to another one where that fails.
async fn connect(
    worker: &Worker,
    upstream: &str,
    origin: &Origin,
    record: &mut Record,
) -> Result<Connected, UpstreamError> {
    let view = worker.view();
    let nobody = || {
        let cause = io::Error::other("it has no server");
        UpstreamError::Connect(Arc::from(upstream), cause)
    };
    let upstream = view.upstream(upstream).ok_or_else(nobody)?;
    let key = upstream.key(&HeaderMap::new(), origin.ends.source.ip());
    let mut tried = Vec::new();
    let mut place = upstream.place(&tried, &key).await?;
    loop {
        let Some((server, permit)) = place else { return Err(nobody()) };
        record.upstream = Some((Arc::clone(&upstream.name), Arc::clone(&server.label)));
        match server.dial(origin).await {
            Ok((stream, mut lease)) => {
                upstream.note(&server, Some(http::StatusCode::OK));
                lease.hold(permit);
                return Ok((stream, lease));
            }
            Err(cause) => {
                upstream.note(&server, None);
                drop(permit);
                tried.push(Arc::clone(&server.label));
                if !upstream.may_retry(Miss::of(&cause), tried.len()) {
                    return Err(cause);
                }
                place = upstream.place(&tried, &key).await.ok().flatten();
                if place.is_none() {
                    return Err(cause);
                }
            }
        }
    }
}

/// Bytes that went, and when the last did.
#[derive(Default)]
struct Counts {
    from_client: Cell<u64>,
    to_client: Cell<u64>,
    last: Cell<Option<Instant>>,
}

/// Copies both ways, each until its end.
async fn join<IO>(
    client: IO,
    mut server: Box<dyn Duplex>,
    read: &[u8],
    idle: Duration,
    counts: &Counts,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    counts.last.set(Some(Instant::now()));
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let copied = async {
        server.write_all(read).await?;
        counts.from_client.set(read.len() as u64);
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let inward = copy(&mut from_client, &mut to_server, &counts.from_client, &counts.last);
        let outward = copy(&mut from_server, &mut to_client, &counts.to_client, &counts.last);
        tokio::try_join!(inward, outward).map(drop)
    };
    let silence = async {
        loop {
            let quiet = counts.last.get().map_or(Duration::ZERO, |last| last.elapsed());
            match idle.checked_sub(quiet).filter(|left| !left.is_zero()) {
                Some(left) => tokio::time::sleep(left).await,
                None => return,
            }
        }
    };
    tokio::select! {
        outcome = copied => outcome,
        () = silence => {
            let text = "nothing was said for as long as timeouts.idle allows";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

async fn copy<R, W>(
    from: &mut R,
    to: &mut W,
    bytes: &Cell<u64>,
    last: &Cell<Option<Instant>>,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n = from.read(&mut buffer).await?;
        let Some(piece) = buffer.get(..n).filter(|piece| !piece.is_empty()) else {
            return to.shutdown().await;
        };
        last.set(Some(Instant::now()));
        to.write_all(piece).await?;
        bytes.set(bytes.get() + n as u64);
        last.set(Some(Instant::now()));
    }
}

const BUFFER_BYTES: usize = 16 * 1024;
