//! TLS towards clients: the ClientHello and what to do with it, certificates by name, tickets, the
//! local CA; and the roots that the gateway trusts when it is a client itself.

pub mod accept;
pub mod certs;
pub mod files;
pub mod hello;
pub mod local;
pub mod roots;
pub mod stream;

/// What a finished handshake established.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}
