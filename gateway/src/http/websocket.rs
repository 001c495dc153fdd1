//! WebSocket: asked for by an upgrade over HTTP/1.1 (RFC 6455) or by an extended CONNECT over HTTP/2
//! (RFC 8441) or HTTP/3 (RFC 9220), always passed on as an upgrade over HTTP/1.1.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode};
use hyper::ext::Protocol;

use super::tunnel::Client;

/// A client's wish for a WebSocket.
pub struct Wish {
    /// The client's side of it, once it is granted.
    pub client: Client,
    over: Over,
}

enum Over {
    H1,
    /// With the key that we made up for the upstream, since HTTP/2 has none.
    H2(String),
}

impl Wish {
    /// Takes the wish out of a request, which then is an ordinary GET. Other upgrades and other
    /// protocols of CONNECT are not taken. `client` is the way to the connection itself.
    pub fn take(parts: &mut http::request::Parts, client: Option<Client>) -> Option<Self> {
        let client = client?;
        if is_upgrade(&parts.method, &parts.headers) {
            return Some(Self { client, over: Over::H1 });
        }
        let protocol = parts.extensions.remove::<Protocol>()?;
        if parts.method != Method::CONNECT || protocol.as_str() != "websocket" {
            return None;
        }
        let mut random = [0u8; 16];
        rand::fill(&mut random).ok()?;
        parts.method = Method::GET;
        Some(Self { client, over: Over::H2(STANDARD.encode(random)) })
    }

    /// Asks the upstream for the same, in the fields of a request.
    pub fn ask(&self, fields: &mut HeaderMap) {
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Over::H2(key) = &self.over {
            if let Ok(key) = HeaderValue::from_str(key) {
                fields.insert(SEC_WEBSOCKET_KEY, key);
            }
            let version = HeaderValue::from_static("13");
            fields.entry(SEC_WEBSOCKET_VERSION).or_insert(version);
        }
    }

    /// Whether an upstream's 101 grants this wish.
    pub fn is_granted(&self, fields: &HeaderMap) -> bool {
        let is_websocket =
            fields.get(UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
        is_websocket
            && match &self.over {
                // The client checks the answer to its own key.
                Over::H1 => true,
                Over::H2(key) => {
                    fields.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|a| *a == accept(key))
                }
            }
    }

    /// Turns the fields of the upstream's 101 into those for the client; returns its status.
    pub fn grant(&self, fields: &mut HeaderMap) -> StatusCode {
        match self.over {
            Over::H1 => {
                fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
                StatusCode::SWITCHING_PROTOCOLS
            }
            Over::H2(_) => {
                fields.remove(SEC_WEBSOCKET_ACCEPT);
                StatusCode::OK
            }
        }
    }
}

fn is_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::GET
        && headers.get(UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && has_token(headers, CONNECTION, "upgrade")
}

fn has_token(headers: &HeaderMap, name: HeaderName, want: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(|token| token.trim().eq_ignore_ascii_case(want))
    })
}

/// `sec-websocket-accept` for a key (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_websocket_is_an_upgrade() {
        let ask = |protocol: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
            fields.insert(UPGRADE, protocol.parse().unwrap());
            fields
        };
        assert!(is_upgrade(&Method::GET, &ask("WebSocket")));
        assert!(!is_upgrade(&Method::GET, &ask("h2c")));
        assert!(!is_upgrade(&Method::POST, &ask("websocket")));
        let mut without = ask("websocket");
        without.remove(CONNECTION);
        assert!(!is_upgrade(&Method::GET, &without));
    }

    #[test]
    fn the_accept_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
