//! What can stand in the place of the network, so that a solver meets a provider that is not there:
//! `crate::conformance` has one. All that is decided about a request is decided as ever.

use std::future::Future;
use std::pin::Pin;

use crate::config::credential::Session;

/// A request of a solver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireRequest {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer to one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WireAnswer {
    /// The status.
    pub status: u16,
    /// The fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What [`Wire::answer`] returns.
pub type WireFuture<'a> = Pin<Box<dyn Future<Output = WireAnswer> + Send + 'a>>;

/// Answers the requests of a solver.
pub trait Wire: Send + Sync {
    /// The answer to a request: as the plugin wrote it, with placeholders, and as it would be sent,
    /// with secrets and signatures.
    fn answer(&self, written: WireRequest, sent: WireRequest) -> WireFuture<'_>;

    /// The answer of a token endpoint.
    fn token(&self, session: &Session) -> WireAnswer;

    /// Takes note of what goes into the plugin's memory.
    fn handed_over(&self, answer: &WireAnswer);
}
