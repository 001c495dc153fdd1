//! Keys of accounts and what is signed with them (RFC 7515, RFC 7518, RFC 8555, section 6.2). Orders
//! are signed by instant-acme, which knows P-256 alone; accounts that come from elsewhere may have
//! another kind of key, which signs its own replacement.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

/// The private key of an account.
pub enum AccountKey {
    /// ES256: what this gateway makes, and the only kind that orders can be signed with.
    P256(EcdsaKeyPair),
    /// ES384.
    P384(EcdsaKeyPair),
    /// RS256.
    Rsa(rsa::KeyPair),
}

impl AccountKey {
    /// A new P-256 key, PKCS#8; none when the machine gives no randomness.
    pub fn generate() -> Option<Vec<u8>> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).ok()?;
        Some(made.as_ref().to_vec())
    }

    /// Reads DER: PKCS#8, SEC 1 or PKCS#1.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let ec = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_der(algorithm, der).ok()
        };
        ec(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map(Self::P256)
            .or_else(|| ec(&ECDSA_P384_SHA384_FIXED_SIGNING).map(Self::P384))
            .or_else(|| {
                let key = rsa::KeyPair::from_pkcs8(der).or_else(|_| rsa::KeyPair::from_der(der));
                key.ok().map(Self::Rsa)
            })
    }

    /// Reads a private JSON web key (RFC 7517).
    pub fn from_jwk(text: &[u8]) -> Option<Self> {
        let jwk: Jwk = serde_json::from_slice(text).ok()?;
        let part = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
        let curve = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let components = rsa::KeyPairComponents {
                    public_key: rsa::PublicKeyComponents { n: part(&jwk.n)?, e: part(&jwk.e)? },
                    d: part(&jwk.d)?,
                    p: part(&jwk.p)?,
                    q: part(&jwk.q)?,
                    dP: part(&jwk.dp)?,
                    dQ: part(&jwk.dq)?,
                    qInv: part(&jwk.qi)?,
                };
                return rsa::KeyPair::from_components(&components).ok().map(Self::Rsa);
            }
            ("EC", Some("P-256")) => &ECDSA_P256_SHA256_FIXED_SIGNING,
            ("EC", Some("P-384")) => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => return None,
        };
        let point = [vec![4], part(&jwk.x)?, part(&jwk.y)?].concat();
        let key =
            EcdsaKeyPair::from_private_key_and_public_key(curve, &part(&jwk.d)?, &point).ok()?;
        Some(if jwk.crv.as_deref() == Some("P-256") { Self::P256(key) } else { Self::P384(key) })
    }

    /// PKCS#8.
    pub fn pkcs8(&self) -> Option<Vec<u8>> {
        match self {
            Self::P256(key) | Self::P384(key) => Some(key.to_pkcs8v1().ok()?.as_ref().to_vec()),
            Self::Rsa(key) => {
                let der: Pkcs8V1Der<'static> = key.as_der().ok()?;
                Some(der.as_ref().to_vec())
            }
        }
    }

    /// Whether orders can be signed with it.
    pub fn is_usual(&self) -> bool {
        matches!(self, Self::P256(_))
    }

    /// What kind it is, for a person.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::Rsa(_) => "RSA",
        }
    }

    /// The public key (RFC 7518, section 6), its members in the order of RFC 7638.
    pub fn jwk(&self) -> serde_json::Value {
        let point = |key: &EcdsaKeyPair| {
            // An uncompressed point: 4, then both coordinates (SEC 1, section 2.3.3).
            let point = key.public_key().as_ref();
            let both = point.get(1..).unwrap_or_default();
            let (x, y) = both.split_at_checked(both.len() / 2).unwrap_or_default();
            (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
        };
        match self {
            Self::P256(key) => {
                let (x, y) = point(key);
                json!({"crv": "P-256", "kty": "EC", "x": x, "y": y})
            }
            Self::P384(key) => {
                let (x, y) = point(key);
                json!({"crv": "P-384", "kty": "EC", "x": x, "y": y})
            }
            Self::Rsa(key) => {
                let der = key.public_key().as_ref();
                let parts = RSAPublicKey::from_der(der).map(|(_, key)| (key.modulus, key.exponent));
                let (n, e) = parts.unwrap_or_default();
                let bare = |number: &[u8]| {
                    let zeros = number.iter().take_while(|byte| **byte == 0).count();
                    URL_SAFE_NO_PAD.encode(number.get(zeros..).unwrap_or_default())
                };
                json!({"e": bare(e), "kty": "RSA", "n": bare(n)})
            }
        }
    }

    /// The algorithm's name (RFC 7518, section 3.1).
    fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Rsa(_) => "RS256",
        }
    }

    /// A JSON web signature by this key; `header` lacks nothing but `alg`. Empty payloads stand for
    /// requests that only read (RFC 8555, section 6.3).
    pub fn sign(&self, mut header: serde_json::Value, payload: &[u8]) -> Vec<u8> {
        if let Some(fields) = header.as_object_mut() {
            fields.insert("alg".to_owned(), self.algorithm().into());
        }
        flattened(&header, payload, |text| match self {
            Self::P256(key) | Self::P384(key) => {
                let signed = key.sign(&SystemRandom::new(), text);
                signed.map(|signature| signature.as_ref().to_vec()).unwrap_or_default()
            }
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let random = SystemRandom::new();
                match key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature) {
                    Ok(()) => signature,
                    Err(_) => Vec::new(),
                }
            }
        })
    }
}

/// A private key as JSON (RFC 7518, section 6), of any kind.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
    n: Option<String>,
    e: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
}

/// A JSON web signature in the flattened form (RFC 7515, section 7.2.2).
pub fn flattened(
    header: &serde_json::Value,
    payload: &[u8],
    signature: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let protected = URL_SAFE_NO_PAD.encode(header.to_string());
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let signature = signature(format!("{protected}.{payload}").as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(signature);
    let signed = json!({"protected": protected, "payload": payload, "signature": signature});
    signed.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_kind_come_back_from_pkcs8_as_they_were() {
        let p256 = AccountKey::from_der(&AccountKey::generate().unwrap()).unwrap();
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        for key in [p256, AccountKey::P384(p384), AccountKey::Rsa(rsa)] {
            let again = AccountKey::from_der(&key.pkcs8().unwrap()).unwrap();
            assert_eq!(again.jwk(), key.jwk());
            assert_eq!(again.kind(), key.kind());
            let signed = key.sign(json!({"kid": "x"}), b"payload");
            let signed: serde_json::Value = serde_json::from_slice(&signed).unwrap();
            assert!(signed["signature"].as_str().unwrap().len() > 80);
        }
    }

    /// RFC 7515, appendices A.2 and A.3.
    #[test]
    fn private_keys_in_json_are_read() {
        let ec = br#"{"kty":"EC","crv":"P-256",
            "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            "d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
        let key = AccountKey::from_jwk(ec).unwrap();
        assert_eq!(key.jwk()["x"], "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        assert!(key.is_usual());
        assert!(AccountKey::from_jwk(b"{\"kty\":\"oct\"}").is_none());
        assert!(AccountKey::from_der(b"nonsense").is_none());
    }
}
