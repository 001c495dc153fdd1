//! The connection that the exchange in hand came over: facts the gateway has established itself.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::connection as host;

/// The client's IP address in text form.
pub fn client_address() -> String {
    host::client_address()
}

/// The client's port, or 0 when it is not known.
pub fn client_port() -> u16 {
    host::client_port()
}

/// The protocol of the request, such as `HTTP/2`.
pub fn http_version() -> String {
    host::http_version()
}

/// The name the client asked for in its ClientHello, in lower case.
pub fn tls_server_name() -> Option<String> {
    host::tls_server_name()
}

/// `TLSv1.2` or `TLSv1.3`; none over plain HTTP.
pub fn tls_version() -> Option<String> {
    host::tls_version()
}

/// The cipher suite by its IANA name; none over plain HTTP.
pub fn tls_cipher_suite() -> Option<String> {
    host::tls_cipher_suite()
}

/// The key exchange group by its IANA name; none over plain HTTP or when not known.
pub fn tls_group() -> Option<String> {
    host::tls_group()
}

/// The application protocol of the handshake, such as `h2`; none over plain HTTP or when the client
/// offered none.
pub fn tls_alpn() -> Option<String> {
    host::tls_alpn()
}

/// Whether the TLS session was resumed.
pub fn tls_is_resumed() -> bool {
    host::tls_is_resumed()
}

/// The JA4 fingerprint of the client's ClientHello; none over plain HTTP.
pub fn tls_ja4() -> Option<String> {
    host::tls_ja4()
}

/// The subject of the client's certificate; none without one, or where the site asks for none.
pub fn tls_client_subject() -> Option<String> {
    host::tls_client_subject()
}

/// The issuer of the client's certificate.
pub fn tls_client_issuer() -> Option<String> {
    host::tls_client_issuer()
}

/// The serial number of the client's certificate in hexadecimal digits.
pub fn tls_client_serial() -> Option<String> {
    host::tls_client_serial()
}

/// The SHA-256 of the client's certificate in hexadecimal digits.
pub fn tls_client_sha256() -> Option<String> {
    host::tls_client_sha256()
}

/// The names in the client's certificate, such as `dns:device.example`; empty without one.
pub fn tls_client_names() -> Vec<String> {
    host::tls_client_names()
}
