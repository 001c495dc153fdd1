//! HTTP-01 (RFC 8555, section 8.3): the answers that `http` gives on port 80.

use std::sync::Arc;

/// Tokens that are being validated.
#[derive(Debug, Default)]
pub struct Tokens {}

impl Tokens {
    /// The key authorization for a token, when there is such a challenge.
    pub fn answer(&self, _token: &str) -> Option<Arc<str>> {
        unimplemented!("owner: acme")
    }
}
