//! Signatures of components: Ed25519 (RFC 8032) over the digest of the file without them. They lie in
//! a custom section, so that a signed component is one file like any other.

use std::io::Cursor;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::section;

/// Why a component could not be signed.
#[derive(Debug)]
pub enum SignError {
    /// The file is not a component, or cut.
    Component(std::io::Error),
    /// The key file holds no Ed25519 key in PKCS #8.
    Key,
}

impl std::fmt::Display for SignError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Component(_) => f.write_str("the component cannot be read"),
            Self::Key => f.write_str(
                "the key file holds no Ed25519 key in PEM; make one with `openssl genpkey -algorithm \
                 ed25519 -out key.pem`",
            ),
        }
    }
}

impl std::error::Error for SignError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Component(cause) => Some(cause),
            Self::Key => None,
        }
    }
}

/// Signs a component with the key in a PEM file, beside signatures that it has already. Returns the
/// signed component and the public key as it is written into `plugin-keys`.
///
/// # Errors
/// See [`SignError`].
pub fn sign(component: &[u8], key: &Path) -> Result<(Vec<u8>, String), SignError> {
    let pem = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|_| SignError::Key)?;
    // OpenSSL leaves the public key out, so there is nothing to check it against.
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pem.secret_pkcs8_der())
        .map_err(|_| SignError::Key)?;
    let message = message(component).map_err(SignError::Component)?;
    let mut all = signatures(component);
    let new = pair.sign(&message);
    if !all.as_chunks::<SIGNATURE_BYTES>().0.iter().any(|known| known == new.as_ref()) {
        all.extend_from_slice(new.as_ref());
    }
    let signed =
        section::put(component, section::SIGNATURES, &all).map_err(SignError::Component)?;
    Ok((signed, STANDARD.encode(pair.public_key())))
}

/// Whether a component carries a signature by one of `keys`.
pub(super) fn is_signed(component: &[u8], keys: &[[u8; 32]]) -> bool {
    let Ok(message) = message(component) else { return false };
    let all = signatures(component);
    let (signatures, _) = all.as_chunks::<SIGNATURE_BYTES>();
    keys.iter().any(|key| {
        let key = UnparsedPublicKey::new(&ED25519, key);
        signatures.iter().take(SIGNATURES_MAX).any(|it| key.verify(&message, it).is_ok())
    })
}

/// What is signed: a word that says what for, and the digest of the component without signatures.
fn message(component: &[u8]) -> std::io::Result<Vec<u8>> {
    let bare = section::without(component, section::SIGNATURES)?;
    let mut message = CONTEXT.to_vec();
    message.extend_from_slice(digest(&SHA256, &bare).as_ref());
    Ok(message)
}

fn signatures(component: &[u8]) -> Vec<u8> {
    let found = section::find(&mut Cursor::new(component), section::SIGNATURES);
    let mut all = found.ok().flatten().unwrap_or_default();
    all.truncate(all.len() / SIGNATURE_BYTES * SIGNATURE_BYTES);
    all
}

const CONTEXT: &[u8] = b"witgate component 1\n";
const SIGNATURE_BYTES: usize = 64;
/// Signatures that are tried, inclusive.
const SIGNATURES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm ed25519`.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    /// Its public half (RFC 8032, section 7.1, test 1).
    const PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn a_signature_holds_for_its_component_and_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pem");
        std::fs::write(&key, KEY).unwrap();
        let component = section::put(b"\0asm\x0d\0\x01\0", "name", b"x").unwrap();
        let (signed, public) = sign(&component, &key).unwrap();
        assert_eq!(public, PUBLIC);
        let mut mine = [0; 32];
        mine.copy_from_slice(&STANDARD.decode(&public).unwrap());
        assert!(is_signed(&signed, &[[7; 32], mine]));
        assert!(!is_signed(&signed, &[[7; 32]]) && !is_signed(&signed, &[]));
        assert!(!is_signed(&component, &[mine]));
        // The same once more changes nothing; anything else inside does.
        assert_eq!(sign(&signed, &key).unwrap().0, signed);
        let changed = section::put(&signed, "name", b"y").unwrap();
        assert!(!is_signed(&changed, &[mine]));
        let with_manifest = section::put(&signed, section::MANIFEST, b"name: a").unwrap();
        assert!(!is_signed(&with_manifest, &[mine]));

        assert!(matches!(sign(b"nonsense", &key), Err(SignError::Component(_))));
        std::fs::write(&key, "no key").unwrap();
        assert!(matches!(sign(&component, &key), Err(SignError::Key)));
    }
}
