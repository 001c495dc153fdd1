//! Connections to one server: kept between requests, given out by [`Server::send`], returned by
//! [`Lease`] when the response's body has ended.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Body;
use hyper::client::conn::http2;
use hyper::{Request, Response};

use super::connect::{TlsClient, connect, dial};
use super::h1::{Conn, OnInterim, Slot};
use super::{Server, UpstreamError};
use crate::config::{self, ProxyVersion};
use crate::h1::Duplex;
use crate::http::incoming::Incoming;
use crate::proxy::{self, Ends, Origin};

/// A connection that takes requests.
pub(super) enum Sender<B> {
    /// One request at a time.
    H1(Conn),
    /// Many at once.
    H2(http2::SendRequest<B>),
}

/// The connections of one server on one worker.
pub(super) struct Pool<B> {
    server: config::Server,
    tls: Option<TlsClient>,
    keepalive: Duration,
    /// The most recently used one is last and is taken first, so that the rest can grow old.
    idle: RefCell<Vec<(Conn, Instant)>>,
    shared: RefCell<Option<http2::SendRequest<B>>>,
    /// Where it is, when its name is followed.
    pub(super) addresses: Vec<IpAddr>,
    /// Where servers are told of the client: the connections of each.
    private: RefCell<HashMap<Ends, Private<B>>>,
    /// The header that tells them.
    proxy: Option<ProxyVersion>,
    /// Held while a shared connection is being opened, so that a burst opens but one.
    opening: tokio::sync::Mutex<()>,
}

/// The connections to a server that are one client's.
struct Private<B> {
    idle: Vec<(Conn, Instant)>,
    shared: Option<(http2::SendRequest<B>, Instant)>,
}

/// Holds the place of a request at its server until the response has ended.
pub struct Lease<B> {
    server: Rc<Server<B>>,
    /// Its place among those that `circuit` allows.
    permit: Option<super::Permit>,
    /// Where an HTTP/1.1 connection comes back to when its response has ended.
    slot: Slot,
    /// Whose connection it is, where it is not everybody's.
    ends: Option<Ends>,
}

/// A response's head has come.
pub struct Sent<B> {
    /// The response; its body is still on its way.
    pub response: Response<Incoming>,
    /// To be kept as long as the body, then ended by [`Lease::finish`].
    pub lease: Lease<B>,
}

/// No response came.
pub struct SendError<B> {
    /// Why.
    pub cause: UpstreamError,
    /// The request, when nothing of it was sent: it may go to another server.
    pub unsent: Option<Box<Request<B>>>,
}

impl<B> Server<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends a request over a kept or a new connection and waits for the response's head. The target
    /// is in origin form with a `host` field; for HTTP/2 it is made absolute here. `origin` is the
    /// client's connection, for servers that are told of it; `on_interim` gets interim responses.
    ///
    /// The caller bounds the wait for the response; the wait for a connection is bounded here.
    ///
    /// # Errors
    /// When there is no connection or no response. A request that was not sent comes back.
    pub async fn send(
        self: &Rc<Self>,
        mut request: Request<B>,
        origin: Option<&Origin>,
        on_interim: OnInterim<'_>,
    ) -> Result<Sent<B>, Box<SendError<B>>> {
        let origin = origin.filter(|_| self.pool.proxy.is_some());
        let mut is_retry = false;
        loop {
            let lease = Lease::new(self, origin.map(|origin| origin.ends));
            let (sender, is_fresh) = match self.sender(is_retry, origin).await {
                Ok(found) => found,
                Err(cause) => {
                    self.fail();
                    return Err(Box::new(SendError { cause, unsent: Some(Box::new(request)) }));
                }
            };
            let start = Instant::now();
            let outcome = match sender {
                Sender::H1(h1) => h1
                    .send(request, &lease.slot, on_interim)
                    .await
                    .map_err(|(cause, back)| (cause.into(), back)),
                Sender::H2(mut h2) => {
                    // hyper neither waits for 100 nor tells of other interim responses here.
                    request.headers_mut().remove(http::header::EXPECT);
                    let is_tls = matches!(self.address, config::Server::Https(_));
                    let sent = Box::pin(h2.try_send_request(absolute(request, is_tls))).await;
                    sent.map(|response| response.map(Incoming::Hyper)).map_err(|mut failed| {
                        let back = failed.take_message().map(|back| Box::new(relative(back)));
                        (failed.into_error().into(), back)
                    })
                }
            };
            match outcome {
                Ok(response) => {
                    self.observe(start.elapsed());
                    return Ok(Sent { response, lease });
                }
                // A kept connection that the server closed in the meantime: once more.
                Err((_, Some(back))) if !is_fresh => {
                    request = *back;
                    is_retry = true;
                }
                Err((cause, unsent)) => {
                    let cause = UpstreamError::Protocol(Arc::clone(&self.label), cause);
                    return Err(Box::new(SendError { cause, unsent }));
                }
            }
        }
    }

    /// A connection and whether it is new.
    async fn sender(
        &self,
        must_be_fresh: bool,
        origin: Option<&Origin>,
    ) -> Result<(Sender<B>, bool), UpstreamError> {
        let ends = origin.map(|origin| origin.ends);
        if !must_be_fresh && let Some(kept) = self.pool.take(ends) {
            return Ok((kept, false));
        }
        let opening = match self.address {
            config::Server::H2c(_) if ends.is_none() => Some(self.pool.opening.lock().await),
            _ => None,
        };
        if opening.is_some()
            && let Some(kept) = self.pool.take(ends)
        {
            return Ok((kept, must_be_fresh));
        }
        let (preface, addresses) = (self.preface(origin), self.pool.addresses.as_slice());
        let tls = self.pool.tls.as_ref();
        // In a box: connecting is rare, and its future is several times as large as all the rest.
        let attempt = Box::pin(connect(&self.address, tls, &self.label, addresses, &preface));
        let sender = tokio::time::timeout(self.connect_timeout, attempt)
            .await
            .map_err(|_| UpstreamError::ConnectTimeout(Arc::clone(&self.label)))??;
        if let Sender::H2(h2) = &sender {
            let shared = h2.clone();
            match ends {
                None => *self.pool.shared.borrow_mut() = Some(shared),
                Some(ends) => {
                    let mut private = self.pool.private.borrow_mut();
                    private.entry(ends).or_default().shared = Some((shared, Instant::now()));
                }
            }
        }
        Ok((sender, true))
    }

    /// A connection of its own for bytes of any kind, and a place that lasts as long as it is held.
    ///
    /// # Errors
    /// When there is no connection in time.
    pub async fn dial(
        self: &Rc<Self>,
        origin: &Origin,
    ) -> Result<(Box<dyn Duplex>, Lease<B>), UpstreamError> {
        let lease = Lease::new(self, None);
        let preface = self.preface(Some(origin));
        let dialed = dial(&self.address, &self.pool.addresses, &preface);
        let start = Instant::now();
        let dialed = match tokio::time::timeout(self.connect_timeout, dialed).await {
            Ok(dialed) => {
                dialed.map_err(|cause| UpstreamError::Connect(Arc::clone(&self.label), cause))
            }
            Err(_) => Err(UpstreamError::ConnectTimeout(Arc::clone(&self.label))),
        };
        match dialed {
            Ok(stream) => {
                self.observe(start.elapsed());
                Ok((stream, lease))
            }
            Err(cause) => {
                self.fail();
                Err(cause)
            }
        }
    }

    /// What a connection begins with.
    fn preface(&self, origin: Option<&Origin>) -> Vec<u8> {
        let Some(version) = self.pool.proxy else { return Vec::new() };
        let ends = origin.map(|origin| origin.ends);
        proxy::write(version, ends, origin.and_then(|origin| origin.authority.as_deref()))
    }
}

impl<B> Default for Private<B> {
    fn default() -> Self {
        Self { idle: Vec::new(), shared: None }
    }
}

impl<B: Body + 'static> Pool<B> {
    pub(super) fn new(
        server: config::Server,
        tls: Option<TlsClient>,
        keepalive: Duration,
        proxy: Option<ProxyVersion>,
        addresses: Vec<IpAddr>,
    ) -> Self {
        Self {
            addresses,
            private: RefCell::default(),
            proxy,
            server,
            tls,
            keepalive,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    fn take(&self, ends: Option<Ends>) -> Option<Sender<B>> {
        if let Some(ends) = ends {
            return self.private.borrow_mut().get_mut(&ends)?.take();
        }
        if !matches!(self.server, config::Server::Http(_) | config::Server::Unix(_)) {
            let mut shared = self.shared.borrow_mut();
            match shared.as_ref() {
                Some(h2) if !h2.is_closed() => return Some(Sender::H2(h2.clone())),
                _ => *shared = None,
            }
        }
        loop {
            let (mut kept, _) = self.idle.borrow_mut().pop()?;
            if kept.is_usable() {
                return Some(Sender::H1(kept));
            }
        }
    }

    pub(super) fn sweep(&self) {
        let keepalive = self.keepalive;
        let is_good =
            |(conn, since): &mut (Conn, Instant)| since.elapsed() < keepalive && conn.is_usable();
        self.idle.borrow_mut().retain_mut(is_good);
        self.private.borrow_mut().retain(|_, private| {
            private.idle.retain_mut(is_good);
            private.shared.take_if(|(h2, used)| h2.is_closed() || used.elapsed() >= keepalive);
            !private.idle.is_empty() || private.shared.is_some()
        });
    }
}

impl<B> Private<B> {
    fn take(&mut self) -> Option<Sender<B>> {
        self.shared.take_if(|(h2, _)| h2.is_closed());
        if let Some((h2, used)) = &mut self.shared {
            *used = Instant::now();
            return Some(Sender::H2(h2.clone()));
        }
        loop {
            let (mut kept, _) = self.idle.pop()?;
            if kept.is_usable() {
                return Some(Sender::H1(kept));
            }
        }
    }
}

impl<B> Lease<B> {
    fn new(server: &Rc<Server<B>>, ends: Option<Ends>) -> Self {
        server.open.set(server.open.get() + 1);
        Self { server: Rc::clone(server), permit: None, slot: Slot::default(), ends }
    }

    /// Has it hold a place as long as itself.
    pub fn hold(&mut self, permit: Option<super::Permit>) {
        self.permit = permit;
    }

    /// Ends the request in order: its connection is kept for the next one.
    pub fn finish(self) {
        let Some(conn) = self.slot.take() else { return };
        let pool = &self.server.pool;
        let kept = (conn, Instant::now());
        match self.ends {
            None => pool.idle.borrow_mut().push(kept),
            Some(ends) => pool.private.borrow_mut().entry(ends).or_default().idle.push(kept),
        }
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        self.server.open.set(self.server.open.get().saturating_sub(1));
    }
}

/// HTTP/2 wants `:scheme` and `:authority`: the `host` field moves into the target.
fn absolute<B>(mut request: Request<B>, is_tls: bool) -> Request<B> {
    let host = request.headers_mut().remove(http::header::HOST);
    if let Some(host) = host {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        let scheme = if is_tls { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
        parts.scheme = Some(scheme);
        parts.authority =
            http::uri::Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())).ok();
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    *request.version_mut() = http::Version::HTTP_2;
    request
}

/// The reverse of [`absolute`], for a request that came back unsent.
fn relative<B>(mut request: Request<B>) -> Request<B> {
    let host = request.uri().authority().map(|a| a.as_str().to_owned());
    if let Some(host) = host {
        if let Ok(value) = http::HeaderValue::from_str(&host) {
            request.headers_mut().insert(http::header::HOST, value);
        }
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map(http::Uri::from).unwrap_or_default();
        *request.version_mut() = http::Version::HTTP_11;
    }
    request
}
