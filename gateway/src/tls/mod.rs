//! TLS towards clients: the ClientHello and what to do with it, certificates by name, tickets, the
//! local CA; and the roots that the gateway trusts when it is a client itself.

pub mod accept;
pub mod certs;
pub mod clients;
pub mod files;
pub mod fingerprint;
pub mod hello;
pub mod keylog;
pub mod lazy;
pub mod local;
pub mod quic;
pub mod roots;
pub mod stream;
pub mod tickets;

use std::net::IpAddr;
use std::sync::Arc;

use self::clients::{ClientAuth, ClientCertificate, Demand};
use crate::config::Hostname;
use crate::route::RouteTable;

/// What the site of a server name asks of a handshake.
#[derive(Debug, Clone, Default)]
pub struct Front {
    /// The upstream that gets its connections unopened.
    pub passthrough: Option<Arc<str>>,
    /// Certificates of clients.
    pub clients: Option<Arc<ClientAuth>>,
    /// Where the handshake's secrets go, when somebody looks at them.
    pub key_log: Option<Arc<dyn rustls::KeyLog>>,
}

/// What each site asks of handshakes. Shared by all workers, and not longer than handshakes need it.
#[derive(Debug, Default)]
pub struct Fronts {
    /// Hosts to sites.
    pub routes: Arc<RouteTable>,
    /// Of each site.
    pub of_sites: Vec<Front>,
    /// `certificates.default`.
    pub default: Option<Hostname>,
}

impl Fronts {
    /// What is asked of a handshake for this server name. A client that sends none is served as one
    /// that asks for the address it came to, or for the default.
    pub fn find(&self, server_name: Option<&str>, local: Option<IpAddr>) -> Front {
        let of = |name: &str| self.of_sites.get(self.routes.site(name)?);
        let found = match server_name {
            Some(name) => of(name),
            None => local
                .and_then(|ip| of(&ip.to_string()))
                .or_else(|| self.default.as_ref().and_then(|name| of(name.as_str()))),
        };
        found.cloned().unwrap_or_default()
    }
}

/// What a finished handshake established.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// The server name that the client asked for, lower case.
    pub server_name: Option<Box<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's IANA name.
    pub cipher_suite: &'static str,
    /// The key exchange group's IANA name.
    pub group: Option<&'static str>,
    /// The application protocol that was negotiated (RFC 7301).
    pub alpn: Option<&'static str>,
    /// Whether HTTP/2 was negotiated.
    pub is_h2: bool,
    /// Whether the session was resumed.
    pub is_resumed: bool,
    /// The client's JA4 fingerprint.
    pub ja4: Option<Box<str>>,
    /// Under which demand for a client's certificate it was made.
    pub demand: Option<Demand>,
    /// The client's certificate.
    pub client: Option<Arc<ClientCertificate>>,
}

impl TlsFacts {
    /// What a usual client establishes, for requests that nobody has sent.
    pub fn usual(server_name: Option<Box<str>>) -> Self {
        Self {
            server_name,
            version: "TLSv1.3",
            cipher_suite: "TLS_AES_128_GCM_SHA256",
            group: Some("X25519MLKEM768"),
            alpn: Some("h2"),
            is_h2: true,
            is_resumed: false,
            ja4: None,
            demand: None,
            client: None,
        }
    }
}
