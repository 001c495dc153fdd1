//! Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, Mac as _};
use serde_json::{Map, Value};
use sha2::Sha256;

/// The claims of a token, once its signature has been found good.
pub fn verify(token: &str, key: &[u8]) -> Result<Map<String, Value>, &'static str> {
    const MALFORMED: &str = "malformed-token";
    let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
    let (header, claims) = signed.split_once('.').ok_or(MALFORMED)?;
    let json = |part: &str| -> Option<Map<String, Value>> {
        serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
    };
    let header = json(header).ok_or(MALFORMED)?;
    // The token does not get to choose how it is checked: there is no `none` here.
    if header.get("alg").and_then(Value::as_str) != Some("HS256") {
        return Err("unsupported-algorithm");
    }
    let signature = BASE64.decode(signature).map_err(|_| MALFORMED)?;
    // Takes the same time whatever differs.
    mac(signed, key).verify_slice(&signature).map_err(|_| "bad-signature")?;
    json(claims).ok_or(MALFORMED)
}

/// A token with these claims.
#[cfg(test)]
pub fn sign(claims: &Value, key: &[u8]) -> String {
    let header = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", BASE64.encode(claims.to_string()));
    let signature = BASE64.encode(mac(&signed, key).finalize().into_bytes());
    format!("{signed}.{signature}")
}

fn mac(signed: &str, key: &[u8]) -> Hmac<Sha256> {
    let mac: Hmac<Sha256> = hmac::Mac::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(signed)
}
