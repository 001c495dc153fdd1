//! Compact JSON Web Signatures with HMAC-SHA256 (RFC 7515, RFC 7518 section 3.2). The gateway checks
//! them: the key is a secret that stays there.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Map, Value};
use witgate_sdk::crypto;

/// The name of the secret that tokens are signed with.
pub const KEY: &str = "key";

/// The claims of a token, once its signature has been found good.
pub fn verify(token: &str) -> Result<Map<String, Value>, &'static str> {
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
    // `configure` has seen that the key is there.
    if crypto::verify_hmac("sha256", KEY, signed.as_bytes(), &signature) != Ok(true) {
        return Err("bad-signature");
    }
    json(claims).ok_or(MALFORMED)
}

/// A token with these claims.
#[cfg(test)]
pub fn sign(claims: &Value) -> String {
    let header = BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", BASE64.encode(claims.to_string()));
    let signature = BASE64.encode(hmac_sha256(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// What the gateway makes of the secret in tests.
#[cfg(test)]
pub fn hmac_sha256(data: &[u8]) -> Vec<u8> {
    use hmac::Mac as _;

    let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"a key of thirty-two bytes or more");
    mac.unwrap().chain_update(data).finalize().into_bytes().to_vec()
}
