//! The heads of an exchange, as routes, plugins and upstreams see them: already checked, with one
//! authority and one target, whatever the protocol version they came in.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Scheme;
use crate::proxy::Via;
use crate::tls::TlsFacts;

/// A request's head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The id of the exchange.
    pub id: Arc<str>,
    /// The method.
    pub method: http::Method,
    /// How the client reached the gateway.
    pub scheme: Scheme,
    /// Host in lower case, and the port when the client sent one.
    pub authority: String,
    /// Path and query as sent.
    pub target: http::uri::PathAndQuery,
    /// The version that the client speaks.
    pub version: http::Version,
    /// All fields but `host`.
    pub headers: http::HeaderMap,
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status code.
    pub status: http::StatusCode,
    /// All fields.
    pub headers: http::HeaderMap,
    /// Who made it.
    pub source: ResponseSource,
}

/// Who made a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseSource {
    /// An upstream server.
    Upstream,
    /// A plugin's decision.
    Plugin,
    /// The gateway: an error, a redirect, a fixed response.
    Gateway,
}

/// What is known about the connection of an exchange.
#[derive(Debug, Clone)]
pub struct ConnectionFacts {
    /// The client: the peer, or whom a trusted proxy vouched for (then with port 0).
    pub client: SocketAddr,
    /// The handshake's facts, on https listeners.
    pub tls: Option<Arc<TlsFacts>>,
    /// The balancer that it came through, when that said so in a PROXY header.
    pub via: Option<Arc<Via>>,
}
