//! Active health checks: a task per server on the control runtime writes, workers read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, JoinSet};

use super::TlsClient;
use super::connect::tcp;
use super::resolve::{Names, Resolved};
use crate::config::{self, HealthCheck, Server};
use crate::proxy;

/// Which servers of an upstream are up. Ends its checks when the last owner lets go.
#[derive(Debug)]
pub struct Health {
    up: Arc<[AtomicBool]>,
    tasks: Vec<JoinHandle<()>>,
}

impl Health {
    /// All servers up, nothing checked.
    pub fn unchecked(servers: usize) -> Arc<Self> {
        let up = (0..servers).map(|_| AtomicBool::new(true)).collect();
        Arc::new(Self { up, tasks: Vec::new() })
    }

    /// Starts checks on the current runtime when the upstream asks for them. Servers count as up
    /// until a check says otherwise.
    /// `was_up` tells what is known of a server already.
    pub fn start(
        name: &str,
        upstream: &config::Upstream,
        tls: Option<&TlsClient>,
        names: &Names,
        was_up: impl Fn(&Server) -> bool,
    ) -> Arc<Self> {
        let Some(health) = &upstream.health else {
            return Self::unchecked(upstream.servers.len());
        };
        // Nobody's connection but the gateway's own.
        let preface = upstream.proxy_protocol.map(|version| proxy::write(version, None, None));
        let preface: Arc<[u8]> = preface.unwrap_or_default().into();
        let up: Arc<[AtomicBool]> =
            upstream.servers.iter().map(|server| AtomicBool::new(was_up(server))).collect();
        let tasks = upstream.servers.iter().enumerate().map(|(index, server)| {
            let watched = Watched {
                name: name.to_owned(),
                server: server.clone(),
                tls: tls.cloned(),
                health: health.clone(),
                preface: Arc::clone(&preface),
            };
            tokio::spawn(watch(
                Arc::new(watched),
                names.of(server).cloned(),
                Arc::clone(&up),
                index,
            ))
        });
        let tasks = tasks.collect();
        Arc::new(Self { up, tasks })
    }

    /// Whether the server at this index is up.
    pub fn is_up(&self, index: usize) -> bool {
        self.up.get(index).is_none_or(|up| up.load(Ordering::Relaxed))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A server and how it is checked.
struct Watched {
    name: String,
    server: Server,
    tls: Option<TlsClient>,
    health: config::Health,
    preface: Arc<[u8]>,
}

impl Watched {
    /// One check, of one address when the server has several.
    async fn look(&self, addresses: &[IpAddr]) -> Result<(), String> {
        let check =
            check(&self.server, addresses, self.tls.as_ref(), &self.health.check, &self.preface);
        match tokio::time::timeout(self.health.timeout, check).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Whether the server counts as up after this outcome; `run` is how many in a row spoke against
    /// what is held of it.
    fn judge(
        &self,
        (is_up, run): (bool, &mut u32),
        outcome: Result<(), String>,
        pin: Option<IpAddr>,
    ) -> bool {
        let Self { name, server, health, .. } = self;
        *run = if outcome.is_ok() == is_up { 0 } else { *run + 1 };
        let enough = if is_up { health.unhealthy_after } else { health.healthy_after };
        if *run < enough {
            return is_up;
        }
        *run = 0;
        let address = pin.map(|ip| ip.to_string());
        match outcome {
            Ok(()) => {
                tracing::info!(upstream = name, %server, address, "server is healthy again");
            }
            Err(cause) => {
                tracing::warn!(upstream = name, %server, address, cause, "server is taken out");
            }
        }
        !is_up
    }
}

async fn watch(
    watched: Arc<Watched>,
    resolved: Option<Arc<Resolved>>,
    up: Arc<[AtomicBool]>,
    index: usize,
) {
    let mut run = 0u32;
    let mut runs: HashMap<IpAddr, u32> = HashMap::new();
    loop {
        let seats = resolved.as_ref().map(|resolved| resolved.seats()).unwrap_or_default();
        if seats.is_empty() {
            let Some(flag) = up.get(index) else { return };
            let outcome = watched.look(&[]).await;
            let is_up = flag.load(Ordering::Relaxed);
            flag.store(watched.judge((is_up, &mut run), outcome, None), Ordering::Relaxed);
        } else {
            runs.retain(|ip, _| seats.iter().any(|seat| seat.ip == *ip));
            // All at once: one that hangs holds up no other.
            let mut looks = JoinSet::new();
            for seat in seats.iter().map(Arc::clone) {
                let watched = Arc::clone(&watched);
                looks.spawn(async move { (watched.look(&seat.addresses()).await, seat) });
            }
            while let Some(looked) = looks.join_next().await {
                let Ok((outcome, seat)) = looked else { continue };
                let run = runs.entry(seat.ip).or_default();
                seat.set_up(watched.judge((seat.is_up(), run), outcome, Some(seat.ip)));
            }
        }
        tokio::time::sleep(watched.health.interval).await;
    }
}

async fn check(
    server: &Server,
    addresses: &[IpAddr],
    tls: Option<&TlsClient>,
    check: &HealthCheck,
    preface: &[u8],
) -> Result<(), String> {
    let text = |cause: std::io::Error| cause.to_string();
    match server {
        Server::Http(authority) => {
            let stream = tcp(authority, addresses, preface).await.map_err(text)?;
            ask(stream, authority, "http", false, check).await
        }
        Server::H2c(authority) => {
            let stream = tcp(authority, addresses, preface).await.map_err(text)?;
            ask(stream, authority, "http", true, check).await
        }
        Server::Unix(socket) => {
            let host = config::Authority { host: "localhost".into(), port: 80 };
            let mut stream = UnixStream::connect(socket).await.map_err(text)?;
            stream.write_all(preface).await.map_err(text)?;
            ask(stream, &host, "http", false, check).await
        }
        Server::Https(authority) => {
            let stream = tcp(authority, addresses, preface).await.map_err(text)?;
            let Some(tls) = tls else { return Ok(()) };
            let name = tls.server_name.as_ref().map_or(authority.host.as_str(), |n| n.as_str());
            let name = rustls_pki_types::ServerName::try_from(name.to_owned())
                .map_err(|cause| cause.to_string())?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector.connect(name, stream).await.map_err(text)?;
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            ask(stream, authority, "https", is_h2, check).await
        }
        Server::Tcp(authority) => tcp(authority, addresses, preface).await.map(drop).map_err(text),
        Server::Echo => Ok(()),
    }
}

async fn ask<S>(
    stream: S,
    authority: &config::Authority,
    scheme: &str,
    is_h2: bool,
    check: &HealthCheck,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match check {
        // The connection is there, TLS included.
        HealthCheck::Tcp => Ok(()),
        HealthCheck::Http(path) => {
            let target = if is_h2 { format!("{scheme}://{authority}{path}") } else { path.clone() };
            let mut request = hyper::Request::get(target)
                .header(http::header::USER_AGENT, AGENT)
                .body(Full::<Bytes>::default())
                .map_err(|cause| cause.to_string())?;
            if !is_h2 && let Ok(host) = http::HeaderValue::from_str(&authority.to_string()) {
                request.headers_mut().insert(http::header::HOST, host);
            }
            let (response, _connection) = exchange(stream, is_h2, request).await?;
            match response.status() {
                status if status.is_success() || status.is_redirection() => Ok(()),
                status => Err(format!("answered {status}")),
            }
        }
        HealthCheck::Grpc(_) if !is_h2 => Err("does not speak HTTP/2, which gRPC needs".to_owned()),
        HealthCheck::Grpc(service) => {
            let target = format!("{scheme}://{authority}/grpc.health.v1.Health/Check");
            let request = hyper::Request::post(target)
                .header(http::header::USER_AGENT, AGENT)
                .header(http::header::CONTENT_TYPE, "application/grpc")
                .header(http::header::TE, "trailers")
                .body(Full::from(grpc_question(service)))
                .map_err(|cause| cause.to_string())?;
            let (response, _connection) = exchange(stream, true, request).await?;
            let (head, body) = response.into_parts();
            if head.status != http::StatusCode::OK {
                return Err(format!("answered {}", head.status));
            }
            let body = Limited::new(body, GRPC_BYTES_MAX).collect().await;
            let body = body.map_err(|cause| cause.to_string())?;
            // An error alone has its status in the head ("trailers-only").
            let status = |fields: &http::HeaderMap| {
                fields
                    .get("grpc-status")
                    .map(|s| String::from_utf8_lossy(s.as_bytes()).into_owned())
            };
            let code = body.trailers().and_then(status).or_else(|| status(&head.headers));
            match code.as_deref() {
                Some("0") => grpc_answer(&body.to_bytes()),
                Some("5") => Err("does not know this service".to_owned()),
                Some("12") => Err("has no health service (grpc.health.v1)".to_owned()),
                Some(code) => Err(format!("answered gRPC status {code}")),
                None => Err("answered without a gRPC status".to_owned()),
            }
        }
    }
}

/// Sends one request. The connection ends with what is returned.
async fn exchange<S>(
    stream: S,
    is_h2: bool,
    request: hyper::Request<Full<Bytes>>,
) -> Result<(hyper::Response<Incoming>, Connection), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    use hyper::client::conn::{http1, http2};
    let text = |cause: hyper::Error| cause.to_string();
    let io = TokioIo::new(stream);
    if is_h2 {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.map_err(text)?;
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        Ok((sender.send_request(request).await.map_err(text)?, connection))
    } else {
        let (mut sender, connection) = http1::handshake(io).await.map_err(text)?;
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
        Ok((sender.send_request(request).await.map_err(text)?, connection))
    }
}

/// The task of a connection; ends it when dropped.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A gRPC message that holds `HealthCheckRequest { service = 1: service }`.
fn grpc_question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        push_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// Reads `HealthCheckResponse { status = 1: enum }`; 1 is serving.
fn grpc_answer(frame: &[u8]) -> Result<(), String> {
    match frame {
        [0, _, _, _, _, 0x08, 1, ..] => Ok(()),
        [0, _, _, _, _, 0x08, 2, ..] => Err("says NOT_SERVING".to_owned()),
        [0, _, _, _, _, 0x08, 3, ..] => Err("says SERVICE_UNKNOWN".to_owned()),
        _ => Err("says nothing about its health".to_owned()),
    }
}

fn push_varint(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

const AGENT: &str = "witgate-health";
const GRPC_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_framed() {
        assert_eq!(&grpc_question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&grpc_question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "s".repeat(300);
        let framed = grpc_question(&long);
        assert_eq!(&framed[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(framed.len(), 308);
        assert_eq!(grpc_answer(b"\0\0\0\0\x02\x08\x01"), Ok(()));
        for other in [&b""[..], b"\0\0\0\0\0", b"\0\0\0\0\x02\x08\x02", b"\0\0\0\0\x02\x08\x03"] {
            assert!(grpc_answer(other).is_err());
        }
    }
}
