//! HTTP-01 (RFC 8555, section 8.3): the answers that `http` gives on port 80.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Tokens that are being validated.
#[derive(Debug, Default)]
pub struct Tokens {
    answers: RwLock<HashMap<String, Arc<str>>>,
}

/// A token that is answered until this is dropped.
pub struct Answered {
    tokens: Arc<Tokens>,
    token: String,
}

impl Tokens {
    /// The key authorization for a token, when there is such a challenge.
    pub fn answer(&self, token: &str) -> Option<Arc<str>> {
        self.answers.read().unwrap_or_else(PoisonError::into_inner).get(token).map(Arc::clone)
    }

    /// Answers `token` with `key_authorization` from now on.
    pub fn present(self: &Arc<Self>, token: &str, key_authorization: &str) -> Answered {
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.insert(token.to_owned(), key_authorization.into());
        Answered { tokens: Arc::clone(self), token: token.to_owned() }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let mut answers = self.tokens.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.remove(&self.token);
    }
}

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
