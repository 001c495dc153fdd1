//! From a ClientHello to what is done with it. Pure: no await, no clock, no IO.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::Front;
use super::certs::{Certificate, Certs};
use super::fingerprint::{Offered, Transport};
use crate::proxy::Via;

/// What a ClientHello says, as far as it decides.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'a> {
    /// The server name, in lower case.
    pub server_name: Option<&'a str>,
    /// Whether it offers nothing but `acme-tls/1` (RFC 8737, section 3).
    pub is_acme: bool,
    /// The address it came to.
    pub local: IpAddr,
    /// What the site of the server name asks.
    pub front: &'a Front,
}

/// A ClientHello as a plugin sees it.
#[derive(Debug, Clone)]
pub struct HelloFacts {
    /// How it came.
    pub transport: Transport,
    /// The server name, in lower case.
    pub server_name: Option<Box<str>>,
    /// What it offers.
    pub offered: Offered,
    /// Its JA4 fingerprint.
    pub ja4: String,
    /// The handshake message.
    pub message: Vec<u8>,
    /// Who sent it, as far as is known.
    pub client: SocketAddr,
    /// The address that it came to.
    pub local: SocketAddr,
    /// The balancer that it came through.
    pub via: Option<Arc<Via>>,
}

/// What a plugin decides about a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HelloVerdict {
    /// Nothing: go on.
    Continue,
    /// To this upstream, unopened.
    PassThrough(Arc<str>),
    /// As if this server name had been asked for.
    TerminateAs(Box<str>),
    /// No, with this alert.
    Refuse(u8),
}

/// What is asked of a handshake once its ClientHello is known.
#[derive(Debug, Clone)]
pub enum Wish {
    /// What the site of its server name asks.
    Site(Front),
    /// To be made as if this server name had been asked for, under what its site asks.
    As(Box<str>, Front),
    /// Not to be made.
    Refuse(Refusal),
}

impl Wish {
    /// The same, with the handshake's secrets going there.
    pub fn logged_to(self, key_log: Option<Arc<dyn rustls::KeyLog>>) -> Self {
        match self {
            Self::Site(front) => Self::Site(Front { key_log, ..front }),
            Self::As(name, front) => Self::As(name, Front { key_log, ..front }),
            Self::Refuse(refusal) => Self::Refuse(refusal),
        }
    }
}

/// What is done with a ClientHello.
#[derive(Debug)]
pub enum HelloDecision {
    /// Pass the connection to this upstream, unopened.
    PassThrough(Arc<str>),
    /// Terminate with this certificate.
    Serve(Arc<Certificate>),
    /// Answer a CA's validation.
    Challenge(Arc<CertifiedKey>),
    /// Refuse with this alert.
    Refuse(Refusal),
}

/// Why a ClientHello is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No certificate has this name.
    UnknownName,
    /// No server name, and no default certificate.
    NoName,
    /// A CA's validation that nobody asked for.
    NoChallenge,
    /// A plugin said so, with this alert.
    Plugin(u8),
    /// The plugin that is asked failed.
    PluginFailed,
    /// A plugin wants a certificate that is not there.
    NoCertificate,
}

impl Refusal {
    /// The alert (RFC 8446, section 6.2; RFC 6066, section 3).
    pub fn alert(self) -> u8 {
        match self {
            Self::UnknownName | Self::NoName => UNRECOGNIZED_NAME,
            Self::NoChallenge => NO_APPLICATION_PROTOCOL,
            Self::Plugin(alert) => alert,
            Self::PluginFailed | Self::NoCertificate => INTERNAL_ERROR,
        }
    }
}

/// Decides about a ClientHello.
pub fn decide(hello: Hello<'_>, certs: &Certs) -> HelloDecision {
    // Before anything else: nothing here has a key for it, validations of a CA included.
    if let Some(upstream) = &hello.front.passthrough {
        return HelloDecision::PassThrough(Arc::clone(upstream));
    }
    if hello.is_acme {
        let challenge = hello.server_name.and_then(|name| certs.find_challenge(name));
        return match challenge {
            Some(key) => HelloDecision::Challenge(key),
            None => HelloDecision::Refuse(Refusal::NoChallenge),
        };
    }
    match (certs.find_for(hello.server_name, hello.local), hello.server_name) {
        (Some(certificate), _) => HelloDecision::Serve(certificate),
        (None, Some(_)) => HelloDecision::Refuse(Refusal::UnknownName),
        (None, None) => HelloDecision::Refuse(Refusal::NoName),
    }
}

/// The number of an alert by its name or number (RFC 8446, section 6; registry "TLS Alerts").
pub fn alert(name: &str) -> u8 {
    match name {
        "handshake_failure" => 40,
        "access_denied" => ACCESS_DENIED,
        "protocol_version" => 70,
        "insufficient_security" => 71,
        "internal_error" => INTERNAL_ERROR,
        "user_canceled" => 90,
        "unrecognized_name" => UNRECOGNIZED_NAME,
        "no_application_protocol" => NO_APPLICATION_PROTOCOL,
        // 0 would be a proper end (close_notify).
        other => other.parse().ok().filter(|number| *number > 0).unwrap_or(ACCESS_DENIED),
    }
}

const ACCESS_DENIED: u8 = 49;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;
const NO_APPLICATION_PROTOCOL: u8 = 120;
