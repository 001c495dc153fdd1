//! From a QUIC connection to its requests: HTTP/3 (RFC 9114). h3 decodes and encodes; what it would
//! let through ([`section`]), hold in memory ([`gate`]) or leave open ([`quic`]) is seen to here.

pub mod body;
pub mod gate;
pub mod quic;
pub mod section;

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::body::Body;
use self::quic::{Fate, Quic, Writer};
use super::body::ResponseBody;
use super::exchange::{self, Connection};
use super::headers;
use super::hints::Hints;
use super::incoming::Incoming;
use super::tunnel::Client;
use crate::bounds::{Pace, Reason};
use crate::config::Limits;
use crate::h1::Upgraded;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Served,
    /// The client did not want the answer any more.
    Cancelled,
}

/// Serves a connection until it ends: by the client, by a limit, or by `drain` turning true.
pub async fn connection(
    quic: quinn::Connection,
    connection: Rc<Connection>,
    limits: Limits,
    mut drain: watch::Receiver<bool>,
) {
    let adapter = Quic::new(quic.clone(), limits.request_head_bytes_max);
    let last = adapter.last();
    let mut builder = h3::server::builder();
    builder
        .max_field_section_size(limits.request_head_bytes_max as u64)
        .enable_extended_connect(true)
        .send_grease(false);
    let built = tokio::time::timeout(limits.handshake, builder.build(adapter)).await;
    let Ok(Ok(mut h3)) = built else { return };
    let mut requests = JoinSet::new();
    let mut idle = pin!(tokio::time::sleep(limits.keepalive));
    let mut drained = pin!(async move { drain.wait_for(|&drain| drain).await.is_ok() });
    let (mut is_ending, mut served, mut cancelled) = (false, 0u64, 0u64);
    loop {
        let asks_to_end = tokio::select! {
            biased;
            _ = &mut drained, if !is_ending => true,
            Some(ended) = requests.join_next(), if !requests.is_empty() => {
                if requests.is_empty() {
                    idle.as_mut().reset(Instant::now() + limits.keepalive);
                }
                match ended {
                    Ok(Ended::Cancelled) => cancelled += 1,
                    _ => served += 1,
                }
                if cancelled > CANCELLED_MAX && cancelled > served {
                    let code = Code::H3_EXCESSIVE_LOAD.value();
                    let code = quinn::VarInt::from_u64(code).unwrap_or_default();
                    quic.close(code, b"too many cancelled requests");
                }
                false
            }
            () = &mut idle, if requests.is_empty() && !is_ending => true,
            accepted = h3.accept() => {
                let fate = last.borrow_mut().take();
                match (accepted, fate) {
                    (Ok(Some(resolver)), Some(fate)) if !is_ending => {
                        let (connection, limits) = (Rc::clone(&connection), limits.clone());
                        requests.spawn_local(request(resolver, fate, connection, limits));
                    }
                    // It came after the GOAWAY: the client knows that nothing was done about it.
                    (Ok(Some(resolver)), Some(fate)) => {
                        fate.or_else(Code::H3_REQUEST_REJECTED);
                        drop(resolver);
                    }
                    (Ok(_), _) => break,
                    (Err(cause), _) => {
                        tracing::debug!(%cause, "connection ended");
                        break;
                    }
                }
                false
            }
        };
        if asks_to_end {
            is_ending = true;
            // h3 names the request accepted last; what is not served begins one after it.
            let _ = h3.shutdown(1).await;
        }
        if is_ending && requests.is_empty() {
            // What the client sent before it saw the GOAWAY is on its way.
            tokio::time::sleep((quic.rtt() * 2).min(LAST_WORDS)).await;
            break;
        }
    }
}

/// Serves one request.
async fn request(
    resolver: RequestResolver<Quic, Bytes>,
    fate: Rc<Fate>,
    connection: Rc<Connection>,
    limits: Limits,
) -> Ended {
    let stopped = fate.stopped();
    let mut resolve = pin!(resolver.resolve_request());
    let resolved = tokio::time::timeout(limits.request_head, &mut resolve).await;
    let (request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        // h3 has answered 431.
        Ok(Err(StreamError::HeaderTooBig { .. })) => return Ended::Served,
        Ok(Err(cause)) => {
            tracing::debug!(%cause, "no request");
            fate.or_else(Code::H3_REQUEST_INCOMPLETE);
            return Ended::Cancelled;
        }
        Err(_) => {
            fate.or_else(Code::H3_REQUEST_INCOMPLETE);
            return Ended::Cancelled;
        }
    };
    fate.or_else(Code::H3_INTERNAL_ERROR);
    let (mut to_client, from_client) = stream.split();
    let body = Body::new(from_client, request.headers());
    let (Ok(mut body), true) = (body, is_well_formed(&request)) else {
        fate.or_else(Code::H3_MESSAGE_ERROR);
        return Ended::Served;
    };
    let serve = async {
        if request.headers().len() > limits.request_fields_max {
            let mut refusal = Response::new(());
            *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            to_client.send_response(refusal).await?;
            return to_client.finish().await;
        }
        let begin = body.begin(request.method());
        let begun = tokio::time::timeout(limits.request_head, begin).await;
        if !matches!(begun, Ok(Ok(()))) {
            fate.or_else(Code::H3_MESSAGE_ERROR);
            return Ok(());
        }
        if is_websocket(&request) {
            return websocket(&connection, request, body, to_client).await;
        }
        let is_head = request.method() == Method::HEAD;
        let request = request.map(|()| Incoming::H3(Box::new(body)));
        let hints = Hints::default();
        let mut exchange = pin!(exchange::serve(&connection, request, None, Some(hints.clone())));
        let response = loop {
            // What the exchange puts in is there when its poll returns.
            let next = std::future::poll_fn(|cx| {
                let polled = exchange.as_mut().poll(cx);
                let told = hints.take();
                match polled {
                    _ if !told.is_empty() => Poll::Ready((told, polled)),
                    Poll::Ready(_) => Poll::Ready((told, polled)),
                    Poll::Pending => Poll::Pending,
                }
            });
            let (told, polled) = next.await;
            for hint in told {
                to_client.send_response(hint).await?;
            }
            if let Poll::Ready(response) = polled {
                break response;
            }
        };
        let pace = Pace::new(limits.response_rate_min, limits.rate_grace, limits.response_idle);
        answer(&mut to_client, response, is_head, Some((pace, &connection))).await
    };
    let Some(mut stopped) = stopped else { return Ended::Served };
    tokio::select! {
        biased;
        _ = &mut stopped => return Ended::Cancelled,
        outcome = serve => if let Err(cause) = outcome {
            tracing::debug!(%cause, "a response broke off");
            return Ended::Cancelled;
        },
    }
    // Closing the connection would take away what has not arrived.
    let _ = tokio::time::timeout(limits.request_body_idle, stopped).await;
    Ended::Served
}

/// Whether a request asks for a WebSocket (RFC 9220), by the name that [`section`] gave it.
fn is_websocket(request: &Request<()>) -> bool {
    request.extensions().get() == Some(&h3::ext::Protocol::CONNECT_UDP)
}

/// Serves a request for a WebSocket, and carries what is said on it afterwards.
async fn websocket(
    connection: &Connection,
    request: Request<()>,
    mut from_client: Body,
    mut to_client: RequestStream<Writer, Bytes>,
) -> Result<(), StreamError> {
    let (opened, client) = tokio::sync::oneshot::channel();
    let mut request = request.map(|()| Incoming::Empty);
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let response = exchange::serve(connection, request, Some(Client::new(client)), None).await;
    if response.status() != StatusCode::OK || opened.is_closed() {
        return answer(&mut to_client, response, false, None).await;
    }
    let (mut head, _) = response.into_parts();
    complete(&mut head.headers, None);
    to_client.send_response(Response::from_parts(head, ())).await?;
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    if opened.send(Upgraded { stream: Box::new(far), read: BytesMut::new() }).is_err() {
        return Ok(());
    }
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let inward = async {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut from_client).poll_frame(cx));
            let Some(frame) = frame.await else { break };
            let Ok(Ok(data)) = frame.map(Frame::into_data) else { break };
            if near_write.write_all(&data).await.is_err() {
                break;
            }
        }
        let _ = near_write.shutdown().await;
    };
    let outward = async {
        let mut buffer = BytesMut::with_capacity(PIPE_BYTES);
        while near_read.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
            to_client.send_data(buffer.split().freeze()).await?;
            buffer.reserve(PIPE_BYTES);
        }
        to_client.finish().await
    };
    let ((), outcome) = tokio::join!(inward, outward);
    outcome
}

/// Sends a response, no slower than at this pace. That to HEAD says of a length what it says itself.
async fn answer(
    client: &mut RequestStream<Writer, Bytes>,
    response: Response<ResponseBody>,
    is_head: bool,
    mut pace: Option<(Pace, &Connection)>,
) -> Result<(), StreamError> {
    let (parts, mut body) = response.into_parts();
    let mut head = Response::new(());
    *head.status_mut() = parts.status;
    *head.headers_mut() = parts.headers;
    let has_body = !matches!(parts.status.as_u16(), 204 | 304);
    complete(
        head.headers_mut(),
        (parts.status.as_u16() != 204 && !is_head).then(|| body.size_hint()),
    );
    client.send_response(head).await?;
    if is_head {
        // Not even where the server sent one.
        return client.finish().await;
    }
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else {
            // Dropped unfinished, the stream is reset. The body has told the log why.
            return Ok(());
        };
        if !has_body {
            continue;
        }
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                let bytes = data.len() as u64;
                let Some((pace, connection)) = &mut pace else {
                    client.send_data(data).await?;
                    continue;
                };
                // A large piece may take as long as its bytes may.
                pace.moved(bytes, std::time::Instant::now);
                let left = pace.left(std::time::Instant::now());
                match tokio::time::timeout(left, client.send_data(data)).await {
                    Ok(sent) => sent?,
                    Err(_) => {
                        let client = Some(connection.facts.client.ip());
                        connection.worker.notices.note(Reason::SlowResponse, client);
                        // Dropped unfinished, as above.
                        return Ok(());
                    }
                }
                pace.rest(std::time::Instant::now);
            }
            Err(other) => {
                if let Ok(trailers) = other.into_trailers() {
                    client.send_trailers(trailers).await?;
                }
            }
        }
    }
    client.finish().await
}

/// The fields that hyper sees to in other protocols.
fn complete(fields: &mut HeaderMap, body: Option<http_body::SizeHint>) {
    for name in OF_A_CONNECTION {
        fields.remove(name);
    }
    if let Some(length) = body.and_then(|body| body.exact()) {
        fields.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    fields.entry(DATE).or_insert_with(headers::date);
}

/// What h3 leaves to others: all pseudo-fields that a request needs, and no field that belongs to a
/// connection (RFC 9114, sections 4.2 and 4.3.1).
fn is_well_formed(request: &Request<()>) -> bool {
    let fields = request.headers();
    let has_target = request.uri().scheme().is_some() && request.uri().path_and_query().is_some();
    let has_hop = OF_A_CONNECTION.iter().any(|name| fields.contains_key(name));
    let is_trailers = |te: &HeaderValue| te.as_bytes().eq_ignore_ascii_case(b"trailers");
    let is_connect = request.method() == Method::CONNECT;
    let has_protocol = request.extensions().get::<h3::ext::Protocol>().is_some();
    (has_target || is_connect && !has_protocol)
        && (is_connect || !has_protocol)
        && !has_hop
        && fields.get_all(TE).iter().all(is_trailers)
}

/// Fields that no message of HTTP/3 has (RFC 9114, section 4.2).
const OF_A_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// Cancelled requests of one connection that are nobody's fault.
const CANCELLED_MAX: u64 = 200;
const PIPE_BYTES: usize = 16 * 1024;
const LAST_WORDS: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_connection_are_malformed() {
        let ask = |name: &'static str, value: &'static str| {
            Request::get("https://a/").header(name, value).body(()).unwrap()
        };
        assert!(is_well_formed(&ask("te", "trailers")));
        for (name, value) in [
            ("te", "gzip"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            ("upgrade", "h2c"),
        ] {
            assert!(!is_well_formed(&ask(name, value)), "{name}");
        }
        assert!(!is_well_formed(&Request::get("a").body(()).unwrap()), "no path, no scheme");
        assert!(is_well_formed(&Request::connect("a:1").body(()).unwrap()));
    }
}
