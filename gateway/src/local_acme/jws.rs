//! Signed requests (RFC 7515; RFC 8555, section 6.2): read, and held against a key.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

use super::problem::Problem;

/// A request whose signature has not been looked at.
pub struct Unverified {
    /// Who says to have signed it, and what for.
    pub header: Header,
    signed: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// The protected header.
#[derive(Debug, Clone, Deserialize)]
pub struct Header {
    alg: String,
    /// The URL of the account that signs.
    pub kid: Option<String>,
    /// The key that signs, when there is no account yet.
    pub jwk: Option<Value>,
    /// The nonce; none in the inner one of a change of keys.
    pub nonce: Option<String>,
    /// Where it is sent.
    pub url: String,
}

#[derive(Deserialize)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
}

/// A public key (RFC 7517), in the form that its thumbprint is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    jwk: Value,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl Unverified {
    /// Reads the flattened form.
    ///
    /// # Errors
    /// When it is not that.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let odd = |_| Problem::malformed("the request is no JSON web signature");
        let parts: Flattened =
            serde_json::from_slice(body).map_err(|_| odd(base64::DecodeError::InvalidPadding))?;
        let read = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(odd);
        let header = serde_json::from_slice(&read(&parts.protected)?)
            .map_err(|cause| Problem::malformed(format!("the protected header: {cause}")))?;
        Ok(Self {
            header,
            payload: read(&parts.payload)?,
            signature: read(&parts.signature)?,
            signed: format!("{}.{}", parts.protected, parts.payload),
        })
    }

    /// The payload, when this key has signed it.
    ///
    /// # Errors
    /// When it has not.
    pub fn verified(self, key: &PublicKey) -> Result<Vec<u8>, Problem> {
        if self.header.alg != key.algorithm() {
            let detail = format!("this key signs with {}", key.algorithm());
            return Err(Problem::new("badSignatureAlgorithm", detail));
        }
        let (text, signature) = (self.signed.as_bytes(), &self.signature);
        let verified = match &key.kind {
            Kind::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text, signature)
            }
            Kind::P384(point) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(text, signature)
            }
            Kind::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(text, signature),
            Kind::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, text, signature)
            }
        };
        match verified {
            Ok(()) => Ok(self.payload),
            Err(_) => Err(Problem::malformed("the signature is not that of this key")),
        }
    }
}

impl PublicKey {
    /// Reads a key of a kind that can sign requests.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_jwk(jwk: &Value) -> Result<Self, Problem> {
        Self::read(jwk).ok_or_else(|| {
            let detail = "keys of accounts are P-256, P-384, Ed25519, or RSA of 2048 bits and more";
            Problem::new("badPublicKey", detail)
        })
    }

    fn read(jwk: &Value) -> Option<Self> {
        let text = |member: &str| jwk.get(member)?.as_str();
        let bytes = |member: &str| URL_SAFE_NO_PAD.decode(text(member)?).ok();
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
        };
        let kind = match (text("kty")?, text("crv")) {
            ("EC", Some("P-256")) => Kind::P256(point(32)?),
            ("EC", Some("P-384")) => Kind::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Kind::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            ("RSA", _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                ((256..=1024).contains(&n.len()) && (1..=8).contains(&e.len()))
                    .then_some(Kind::Rsa { n, e })?
            }
            _ => return None,
        };
        // Nothing but the members of RFC 7638, section 3.2, in their order.
        let jwk = match &kind {
            Kind::P256(_) | Kind::P384(_) => {
                json!({"crv": text("crv")?, "kty": "EC", "x": text("x")?, "y": text("y")?})
            }
            Kind::Ed25519(_) => json!({"crv": "Ed25519", "kty": "OKP", "x": text("x")?}),
            Kind::Rsa { .. } => json!({"e": text("e")?, "kty": "RSA", "n": text("n")?}),
        };
        Some(Self { jwk, kind })
    }

    /// The key as JSON.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// RFC 7638, base64url.
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.jwk.to_string().as_bytes()))
    }

    /// Whether it is the key of a certificate, as that writes it (RFC 5280, section 4.1.2.7).
    pub fn is_in(&self, subject_public_key: &[u8]) -> bool {
        match &self.kind {
            Kind::P256(point) | Kind::P384(point) | Kind::Ed25519(point) => {
                point == subject_public_key
            }
            Kind::Rsa { n, e } => {
                let bare = |number: &[u8]| {
                    let zeros = number.iter().take_while(|byte| **byte == 0).count();
                    number.get(zeros..).unwrap_or_default().to_vec()
                };
                RSAPublicKey::from_der(subject_public_key).is_ok_and(|(_, key)| {
                    bare(key.modulus) == bare(n) && bare(key.exponent) == bare(e)
                })
            }
        }
    }

    /// The algorithm's name (RFC 7518, section 3.1; RFC 8037).
    fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::P256(_) => "ES256",
            Kind::P384(_) => "ES384",
            Kind::Ed25519(_) => "EdDSA",
            Kind::Rsa { .. } => "RS256",
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa;
    use aws_lc_rs::signature::EcdsaKeyPair;

    use super::*;
    use crate::acme::jose::AccountKey;

    #[test]
    fn keys_of_every_kind_are_believed_and_no_other() {
        let p384 = &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
        let keys = [
            AccountKey::from_der(&AccountKey::generate().unwrap()).unwrap(),
            AccountKey::P384(EcdsaKeyPair::generate(p384).unwrap()),
            AccountKey::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap()),
        ];
        let public = keys.each_ref().map(|key| PublicKey::from_jwk(&key.jwk()).unwrap());
        for (at, key) in keys.iter().enumerate() {
            let signed = key.sign(json!({"jwk": key.jwk(), "nonce": "n", "url": "u"}), b"text");
            for (other, public) in public.iter().enumerate() {
                let payload = Unverified::parse(&signed).unwrap().verified(public);
                assert_eq!(payload.ok(), (at == other).then(|| b"text".to_vec()));
            }
            let mut spoiled: Value = serde_json::from_slice(&signed).unwrap();
            spoiled["payload"] = "dGV4dHM".into();
            let spoiled = Unverified::parse(spoiled.to_string().as_bytes()).unwrap();
            assert!(spoiled.verified(&public[at]).is_err());
        }
    }

    /// RFC 7638, section 3.1.
    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tS\
                 oc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65\
                 YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyr\
                 dkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK\
                 nqDKgw";
        let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        let key = PublicKey::from_jwk(&jwk).unwrap();
        assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn odd_keys_and_requests_are_refused() {
        for jwk in [
            json!({}),
            json!({"kty": "oct", "k": "AA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            json!([1]),
        ] {
            assert!(PublicKey::from_jwk(&jwk).is_err(), "{jwk}");
        }
        for body in ["", "{}", r#"{"protected":"*","payload":"","signature":""}"#, "[]"] {
            assert!(Unverified::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
