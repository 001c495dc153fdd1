//! Certificates over ACME (RFC 8555): which name needs what and when, orders, challenges, and the
//! store of it all. The only room that names instant-acme.

mod dns;
#[cfg(test)]
mod fake_dns;
mod propagation;
pub mod solve;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{AcmeIssuer, Challenge, HostPattern, Propagation};
use crate::store::Store;
use crate::tls::certs::Certs;
use solve::dns01::DnsSolver;
use solve::http01::Tokens;

/// What the configuration in force wants: given by each new generation.
#[derive(Clone)]
pub struct Wants {
    /// Certificates to have.
    pub certificates: Vec<Want>,
    /// The e-mail address for accounts.
    pub contact: Option<String>,
    /// Solvers by plugin name.
    pub solvers: BTreeMap<String, Arc<dyn DnsSolver>>,
    /// DNS servers to ask, instead of the system's.
    pub resolvers: Vec<std::net::SocketAddr>,
    /// How to wait for DNS-01 records.
    pub propagation: Propagation,
    /// What `Challenge::Auto` may use: whether an https listener and an http listener exist.
    pub has_https: bool,
    /// See `has_https`.
    pub has_http: bool,
}

/// One certificate to have.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// The names in it: one host, or a name and its wildcard.
    pub hosts: Vec<HostPattern>,
    /// CAs in the order in which they are tried.
    pub issuers: Vec<AcmeIssuer>,
    /// How control is proved.
    pub challenge: Challenge,
}

/// The state of one wanted certificate, for the log, the status and `witgate certs`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CertificateStatus {
    /// Its names.
    pub hosts: Vec<String>,
    /// What it waits for or what it has, in words for a person.
    pub state: String,
    /// End of validity of what is served now, in seconds since 1970.
    pub not_after: Option<i64>,
    /// When something is next done about it, in seconds since 1970.
    pub next_at: Option<i64>,
    /// The last failure: issuer, RFC 8555 problem type and detail.
    pub last_error: Option<String>,
}

/// The task that keeps certificates.
pub struct Acme {}

impl Acme {
    /// Loads what the store has, publishes it, cleans up what a crash left behind, and starts the
    /// task on the current tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(
        _store: Arc<Store>,
        _certs: Arc<Certs>,
        _tokens: Arc<Tokens>,
    ) -> Result<Self, crate::store::StoreError> {
        unimplemented!("owner: acme")
    }

    /// Sets what is wanted from now on. Never triggers an order by itself: a name that waits for a
    /// retry goes on waiting.
    pub fn want(&self, _wants: Wants) {
        unimplemented!("owner: acme")
    }

    /// The state of each wanted certificate.
    pub fn status(&self) -> Vec<CertificateStatus> {
        unimplemented!("owner: acme")
    }
}
