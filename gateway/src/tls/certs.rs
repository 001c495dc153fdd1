//! The table of certificates: TLS reads it at every handshake; `acme`, the local CA and the file
//! watcher write it. Swapped whole, so that readers take no lock.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::clock::Timestamp;
use crate::config::{HostPattern, Hostname};

/// A certificate that may be served.
#[derive(Debug)]
pub struct Certificate {
    /// The names in it.
    pub names: Vec<HostPattern>,
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Where it comes from; of two for one name the one with the lower origin is served.
    pub origin: Origin,
}

/// Where a certificate comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The operator's files.
    File,
    /// A CA, by ACME.
    Acme,
    /// The local CA.
    Local,
}

/// The table.
#[derive(Debug, Default)]
pub struct Certs {}

impl Certificate {
    /// Reads a PEM chain (leaf first) and key, checks that they belong together and takes names and
    /// validity from the leaf.
    ///
    /// # Errors
    /// Says what is wrong, for a person.
    pub fn from_pem(_chain: &[u8], _key: &[u8], _origin: Origin) -> Result<Self, CertificateError> {
        unimplemented!("owner: tls")
    }
}

/// Why a certificate cannot be served.
#[derive(Debug)]
pub enum CertificateError {
    /// The PEM text has no certificate.
    NoCertificate,
}

impl Certs {
    /// Puts certificates in, each under a slot of its own choosing (`acme/app.example.com`,
    /// `file/path`), in place of what the slot held. One swap for all of them.
    pub fn publish(&self, _certificates: Vec<(String, Arc<Certificate>)>) {
        unimplemented!("owner: tls")
    }

    /// Takes the certificates of these slots out.
    pub fn withdraw(&self, _slots: &[String]) {
        unimplemented!("owner: tls")
    }

    /// The certificate for a server name: exact, then wildcard, then the default.
    pub fn find(&self, _server_name: Option<&str>) -> Option<Arc<Certificate>> {
        unimplemented!("owner: tls")
    }

    /// Sets the name whose certificate is served when no other fits.
    pub fn set_default(&self, _name: Option<Hostname>) {
        unimplemented!("owner: tls")
    }

    /// All slots with their certificates, for the status.
    pub fn all(&self) -> Vec<(String, Arc<Certificate>)> {
        unimplemented!("owner: tls")
    }

    /// Puts a TLS-ALPN-01 certificate (RFC 8737) in for `name`.
    pub fn publish_challenge(&self, _name: &Hostname, _key: Arc<CertifiedKey>) {
        unimplemented!("owner: tls")
    }

    /// Takes it out.
    pub fn withdraw_challenge(&self, _name: &Hostname) {
        unimplemented!("owner: tls")
    }

    /// The TLS-ALPN-01 certificate for `name`.
    pub fn find_challenge(&self, _name: &str) -> Option<Arc<CertifiedKey>> {
        unimplemented!("owner: tls")
    }
}
