//! From a ClientHello to what is done with it. Pure: no await, no clock, no IO.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::Front;
use super::certs::{Certificate, Certs};

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
}

impl Refusal {
    /// The alert (RFC 8446, section 6.2; RFC 6066, section 3).
    pub fn alert(self) -> u8 {
        match self {
            Self::UnknownName | Self::NoName => UNRECOGNIZED_NAME,
            Self::NoChallenge => NO_APPLICATION_PROTOCOL,
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

const UNRECOGNIZED_NAME: u8 = 112;
const NO_APPLICATION_PROTOCOL: u8 = 120;
