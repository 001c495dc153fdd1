//! The cookie that keeps a client at its server. Its value is a keyed hash of the server, so that it
//! tells nothing about servers and nobody can make one up.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};

use crate::config;

/// The key of one gateway's cookies; kept in its store, so that they outlive it.
#[derive(Clone)]
pub struct StickyKey(hmac::Key);

impl StickyKey {
    /// Bytes for a new key.
    pub fn random() -> [u8; 32] {
        let mut bytes = [0; 32];
        // It only fails where the system has no randomness; TLS would not have started there.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        bytes
    }

    /// A key of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The value of the cookie for a server of an upstream.
    pub fn token(&self, upstream: &str, server: &str) -> String {
        let tag = hmac::sign(&self.0, format!("{upstream}\n{server}").as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref().get(..16).unwrap_or_default())
    }
}

/// The value of a cookie (RFC 6265, section 4.2.1); the first of its name.
pub fn cookie<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = fields.get_all(http::header::COOKIE).iter();
    let pairs = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// The field that sets the cookie: for the gateway alone, not for scripts, and only over TLS where the
/// client came over TLS.
pub fn set_cookie(sticky: &config::Sticky, token: &str, is_secure: bool) -> Option<HeaderValue> {
    let mut text = format!("{}={token}; Path=/; HttpOnly; SameSite=Lax", sticky.cookie);
    if is_secure {
        text.push_str("; Secure");
    }
    if let Some(age) = sticky.max_age {
        text.push_str(&format!("; Max-Age={}", age.as_secs()));
    }
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_among_others() {
        let mut fields = HeaderMap::new();
        fields.append("cookie", "a=1; session=x=y;witgate=t".parse().unwrap());
        fields.append("cookie", "late=2".parse().unwrap());
        for (name, value) in [
            ("a", Some("1")),
            ("session", Some("x=y")),
            ("witgate", Some("t")),
            ("late", Some("2")),
        ] {
            assert_eq!(cookie(&fields, name), value);
        }
        assert_eq!(cookie(&fields, "ession"), None);
    }

    #[test]
    fn tokens_depend_on_key_upstream_and_server() {
        let (one, other) = ("http://10.0.0.1:80", "http://10.0.0.1:81");
        let key = StickyKey::new(&[1; 32]);
        let token = key.token("web", one);
        assert_eq!(token, StickyKey::new(&[1; 32]).token("web", one));
        for other in [
            key.token("web", other),
            key.token("api", one),
            StickyKey::new(&[2; 32]).token("web", one),
        ] {
            assert_ne!(token, other);
        }
        assert!(token.len() == 22 && !token.contains("10"), "{token}");
    }

    #[test]
    fn the_cookie_is_not_for_scripts_and_not_for_plain_http() {
        let age = Some(std::time::Duration::from_secs(3600));
        let sticky = config::Sticky { cookie: "s".to_owned(), max_age: age };
        let text = set_cookie(&sticky, "t", true).unwrap();
        assert_eq!(text, "s=t; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600");
        assert_eq!(set_cookie(&sticky, "t", false).unwrap().to_str().unwrap().find("Secure"), None);
    }
}
