//! The ClientHello in hand, who sent it, and what becomes of the connection. Numbers are those of the
//! IANA registries "TLS Parameters". All of it is what a client claims: it can imitate another.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::hello as host;
use crate::host::hello_decision as decision;

/// How it came: `tcp` or `quic`.
pub fn transport() -> String {
    host::transport()
}

/// The server name that the client asks for, in lower case.
pub fn server_name() -> Option<String> {
    host::server_name()
}

/// The application protocols that it offers, such as `h2`.
pub fn alpn() -> Vec<String> {
    host::alpn()
}

/// The versions that it offers, such as `TLSv1.3`.
pub fn versions() -> Vec<String> {
    host::versions()
}

/// The cipher suites that it offers.
pub fn cipher_suites() -> Vec<u16> {
    host::cipher_suites()
}

/// The key exchange groups that it knows.
pub fn groups() -> Vec<u16> {
    host::groups()
}

/// The signature schemes that it knows.
pub fn signature_schemes() -> Vec<u16> {
    host::signature_schemes()
}

/// The types of all extensions that it sends.
pub fn extensions() -> Vec<u16> {
    host::extensions()
}

/// Its JA4 fingerprint.
pub fn ja4() -> String {
    host::ja4()
}

/// The whole ClientHello, a handshake message.
pub fn message() -> Vec<u8> {
    host::message()
}

/// The client's IP address in text form.
pub fn client_address() -> String {
    host::client_address()
}

/// The client's port, or 0 when it is not known.
pub fn client_port() -> u16 {
    host::client_port()
}

/// The address that the client connected to.
pub fn local_address() -> String {
    host::local_address()
}

/// The port that the client connected to.
pub fn local_port() -> u16 {
    host::local_port()
}

/// What a trusted balancer said: `peer`, `authority`, `unique-id`, `tls-version`, `tls-common-name`.
pub fn proxy(key: &str) -> Option<String> {
    host::proxy(key)
}

/// Passes the connection, unopened, to an upstream by its name in `gateway.yaml`; an unknown name
/// traps.
pub fn pass_through(upstream: &str) {
    decision::pass_through(upstream);
}

/// Terminates it as if the client had asked for this server name.
pub fn terminate_as(name: &str) {
    decision::terminate_as(name);
}

/// Refuses it with an alert, such as `access_denied`.
pub fn refuse(alert: &str) {
    decision::refuse(alert);
}
