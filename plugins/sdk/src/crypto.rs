//! Keyed checks that the gateway makes, so that no key has to enter the plugin: for JSON Web Tokens,
//! signed URLs and cookies.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::crypto as host;

/// The HMAC of `data` under the secret called `secret` in the plugin's stanza, which needs
/// `grants: {hmac: [NAME]}` there. `algorithm` is `sha256`, `sha384` or `sha512`.
///
/// # Errors
/// `unknown-algorithm`, `unknown-secret` or `denied`.
pub fn hmac(algorithm: &str, secret: &str, data: &[u8]) -> Result<Vec<u8>, String> {
    host::hmac(algorithm, secret, data)
}

/// Whether `code` is that HMAC, compared in constant time.
///
/// # Errors
/// As [`hmac`].
pub fn verify_hmac(
    algorithm: &str,
    secret: &str,
    data: &[u8],
    code: &[u8],
) -> Result<bool, String> {
    host::verify_hmac(algorithm, secret, data, code)
}

/// Whether `signature` is one of `data` under a public key. `algorithm` is a name of JSON Web
/// Algorithms, such as `RS256`, `ES256` or `EdDSA`; `wit/crypto.wit` has the form of each key.
///
/// # Errors
/// `unknown-algorithm` or `bad-key`.
pub fn verify_signature(
    algorithm: &str,
    public_key: &[u8],
    data: &[u8],
    signature: &[u8],
) -> Result<bool, String> {
    host::verify_signature(algorithm, public_key, data, signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_test_stands_in_for_the_gateway() {
        testing::with_hmac(|algorithm, secret, data| match (algorithm, secret) {
            ("sha256", "key") => Ok(data.iter().rev().copied().collect()),
            _ => Err("unknown-secret".into()),
        });
        assert_eq!(hmac("sha256", "key", b"ab").unwrap(), b"ba");
        assert_eq!(verify_hmac("sha256", "key", b"ab", b"ba"), Ok(true));
        assert_eq!(verify_hmac("sha256", "key", b"ab", b"ab"), Ok(false));
        assert_eq!(hmac("sha256", "none", b""), Err("unknown-secret".into()));
        testing::with_signatures(|algorithm, _, _, _| algorithm == "RS256");
        assert_eq!(verify_signature("RS256", b"", b"", b""), Ok(true));
    }
}
