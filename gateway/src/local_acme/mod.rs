//! An ACME server (RFC 8555) before the local CA, so that other tools on this machine get their
//! certificates from it as from any other CA. Off unless `certificates.local-acme` is there. It signs
//! no more than the local CA does, and nothing without proof of control; what it remembers is in the
//! store.
//!
//! Called by `gateway`. No client, upstream or plugin is known here.

mod api;
mod check;
mod jws;
mod problem;
mod records;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::acme::dns::{Patience, Resolvers};
use crate::clock::Timestamp;
use crate::config::{HostPattern, LocalAcme, Resolver};
use crate::fault::Fault;
use crate::store::Store;
use crate::tls::certs::Certificate;
use crate::tls::local::LocalCa;
use api::{Desk, Reply};
use check::Look;
use problem::Problem;

/// The server; stops when dropped.
pub struct Server {
    address: SocketAddr,
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

/// Why it does not serve.
#[derive(Debug)]
pub enum LocalAcmeError {
    /// The address cannot be had.
    Listen(SocketAddr, std::io::Error),
    /// TLS cannot be prepared.
    Tls(rustls::Error),
}

impl Server {
    /// Serves on the current tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(
        settings: &LocalAcme,
        resolvers: &[Resolver],
        local: Arc<LocalCa>,
        store: Arc<Store>,
    ) -> Result<Self, LocalAcmeError> {
        let address = settings.listen;
        let fail = |cause| LocalAcmeError::Listen(address, cause);
        let listener = std::net::TcpListener::bind(address).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let listener = TcpListener::from_std(listener).map_err(fail)?;
        let own =
            Arc::new(Own { names: names(address.ip(), &local), local, current: Mutex::default() });
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(LocalAcmeError::Tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Own>::clone(&own));
        let tls = TlsAcceptor::from(Arc::new(tls));
        let desk = Desk::new(Arc::clone(&own.local), store, look(settings, resolvers));
        let desk = Arc::new(desk);
        let (names, at) = (own.names.clone(), Arc::clone(&desk));
        let task = tokio::spawn(async move { serve(&listener, &tls, &at, names.into()).await });
        tracing::info!(
            directory = format!("https://{address}/directory"),
            "the local CA serves ACME"
        );
        Ok(Self { address, desk, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes in what a reload has changed, but for the address.
    pub fn reconfigure(&self, settings: &LocalAcme, resolvers: &[Resolver]) {
        let mut known = self.desk.look.lock().unwrap_or_else(PoisonError::into_inner);
        *known = look(settings, resolvers);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn look(settings: &LocalAcme, resolvers: &[Resolver]) -> Look {
    Look {
        settings: settings.clone(),
        resolvers: Resolvers::new(resolvers.to_vec(), Patience::default()),
        has_resolvers: !resolvers.is_empty(),
    }
}

/// What clients may call it.
fn names(ip: IpAddr, local: &LocalCa) -> Vec<HostPattern> {
    let own = (!ip.is_unspecified()).then(|| ip.to_string());
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let mut all: Vec<HostPattern> = Vec::new();
    for name in names.into_iter().chain(own) {
        if let Ok(name) = HostPattern::parse(&name)
            && !all.contains(&name)
            && local.signs(&name)
        {
            all.push(name);
        }
    }
    all
}

async fn serve(
    listener: &TcpListener,
    tls: &TlsAcceptor,
    desk: &Arc<Desk>,
    names: Arc<[HostPattern]>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(cause) => {
                // Such as no file descriptors: it passes, and must not spin.
                tracing::warn!(%cause, "the local ACME server cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, desk, names) = (tls.clone(), Arc::clone(desk), Arc::clone(&names));
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_TIME, connection(stream, &tls, &desk, &names))
                .await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, tls: &TlsAcceptor, desk: &Arc<Desk>, names: &[HostPattern]) {
    let accepted = tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await;
    let Ok(Ok(stream)) = accepted else { return };
    let service = service_fn(|request| async move {
        Ok::<_, Infallible>(response(desk, answer(desk, names, request).await))
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    desk: &Arc<Desk>,
    names: &[HostPattern],
    request: Request<Incoming>,
) -> Result<Reply, Problem> {
    let base = base(request.headers(), names)?;
    let path = request.uri().path().to_owned();
    let path: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match *request.method() {
        // RFC 8555, section 7.2, gives a nonce to HEAD with 200 and to GET with 204.
        Method::HEAD => Ok(Reply { status: StatusCode::OK, ..desk.get(&base, &path)? }),
        Method::GET => desk.get(&base, &path),
        Method::POST => {
            let kind = request.headers().get(header::CONTENT_TYPE);
            // It also keeps web pages from making a browser send anything here.
            if kind.is_none_or(|kind| kind != "application/jose+json") {
                return Err(Problem::malformed("the content type has to be application/jose+json"));
            }
            let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
            let odd = |_| Problem::malformed("the request is too large, or broke off");
            let body = tokio::time::timeout(HEAD_TIME, body).await.map_err(odd)?;
            let body =
                body.map_err(|_| Problem::malformed("the request is too large, or broke off"))?;
            desk.post(&base, &path, &body.to_bytes())
        }
        _ => Err(Problem::malformed("it is asked by GET and POST")),
    }
}

/// The server's URL, as the client calls it, which has to be one of its names.
fn base(headers: &HeaderMap, names: &[HostPattern]) -> Result<String, Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => bare,
        _ => host,
    };
    let bare = bare.trim_matches(['[', ']']);
    match names.iter().any(|name| name.to_string() == bare) {
        true => Ok(format!("https://{host}")),
        false => Err(Problem::malformed("the local CA has no such name; call it localhost")),
    }
}

fn response(desk: &Desk, answered: Result<Reply, Problem>) -> Response<Full<Bytes>> {
    let reply = answered.unwrap_or_else(|problem| Reply::of(&problem));
    let mut response = Response::new(Full::default());
    *response.status_mut() = reply.status;
    let mut put = |name: header::HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(name, value);
        }
    };
    put(header::CACHE_CONTROL, "no-store".to_owned());
    if let Some(nonce) = reply.has_nonce.then(|| desk.nonce()).flatten() {
        put(header::HeaderName::from_static("replay-nonce"), nonce);
    }
    if let Some(location) = reply.location {
        put(header::LOCATION, location);
    }
    if let Some(up) = reply.up {
        put(header::LINK, format!("<{up}>;rel=\"up\""));
    }
    if let Some(wait) = reply.retry_after {
        put(header::RETRY_AFTER, wait.as_secs().to_string());
    }
    if let Some((kind, body)) = reply.body {
        put(header::CONTENT_TYPE, kind.to_owned());
        *response.body_mut() = Full::from(body);
    }
    response
}

/// The server's own certificate, from the CA that it serves.
struct Own {
    names: Vec<HostPattern>,
    local: Arc<LocalCa>,
    current: Mutex<Option<Arc<Certificate>>>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        let is_good = |one: &Arc<Certificate>| {
            let life = one.not_before.until(one.not_after);
            now.until(one.not_after) > life / 2 && one.not_before <= now
        };
        if !current.as_ref().is_some_and(is_good) {
            match self.local.issue(&self.names) {
                Ok(made) => *current = Some(Arc::new(made)),
                Err(cause) => tracing::error!(%cause, "the local ACME server has no certificate"),
            }
        }
        current.as_ref().map(|one| Arc::clone(&one.key))
    }
}

impl LocalAcmeError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Listen(..) => Fault::Operator,
            Self::Tls(_) => Fault::Internal,
        }
    }
}

impl fmt::Display for LocalAcmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, _) => write!(
                f,
                "the local CA cannot serve ACME on {address}; give `certificates.local-acme` \
                 another `listen`"
            ),
            Self::Tls(_) => f.write_str("the local CA cannot serve ACME over TLS"),
        }
    }
}

impl std::error::Error for LocalAcmeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen(_, cause) => Some(cause),
            Self::Tls(cause) => Some(cause),
        }
    }
}

const CONNECTIONS_MAX: usize = 64;
const CONNECTION_TIME: Duration = Duration::from_secs(120);
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
const HEAD_TIME: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
