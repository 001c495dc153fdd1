//! HTTP-01 (RFC 8555, section 8.3): the answers that `http` gives on port 80.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::store::Store;

/// Tokens that are being validated.
#[derive(Debug, Default)]
pub struct Tokens {
    answers: RwLock<HashMap<String, Arc<str>>>,
    /// Set when several gateways share a store: the CA may knock at any of them.
    shared: OnceLock<Arc<Store>>,
}

/// A token that is answered until this is dropped.
pub struct Answered {
    tokens: Arc<Tokens>,
    token: String,
}

impl Tokens {
    /// Answers also for the other gateways on this store, and lets them answer for this one.
    pub fn share(&self, store: &Arc<Store>) {
        let _ = self.shared.set(Arc::clone(store));
    }

    /// The key authorization for a token, when there is such a challenge. Reads a small file when
    /// the store is shared and the token not of this gateway.
    pub fn answer(&self, token: &str) -> Option<Arc<str>> {
        let own = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = own.get(token) {
            return Some(Arc::clone(answer));
        }
        drop(own);
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if token.len() > TOKEN_BYTES_MAX || !token.bytes().all(is_token) {
            return None;
        }
        let known = self.shared.get()?.read(&item(token)).ok().flatten()?;
        Some(String::from_utf8(known).ok()?.into())
    }

    /// Answers `token` with `key_authorization` from now on.
    pub fn present(self: &Arc<Self>, token: &str, key_authorization: &str) -> Answered {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.insert(token.to_owned(), key_authorization.into());
        if let Some(store) = self.shared.get()
            && let Err(cause) = store.write(&item(token), key_authorization.as_bytes())
        {
            tracing::warn!("other gateways cannot answer for this one: {cause}");
        }
        Answered { tokens: Arc::clone(self), token: token.to_owned() }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut answers = self.tokens.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.remove(&self.token);
        if let Some(store) = self.tokens.shared.get() {
            let _ = store.remove(&item(&self.token));
        }
    }
}

fn item(token: &str) -> String {
    format!("acme/answers/http/{token}")
}

const TOKEN_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_as_long_as_it_is_held() {
        let tokens = Arc::new(Tokens::default());
        let held = tokens.present("t", "t.thumb");
        assert_eq!(tokens.answer("t").as_deref(), Some("t.thumb"));
        drop(held);
        assert_eq!(tokens.answer("t"), None);
    }
}
