//! What makes a hundred thousand certificates cheap to have: private keys that are read at their first
//! handshake, and issuers' certificates that are there once however many leaves they signed. For what the
//! gateway has stored itself; what comes from elsewhere is read and checked at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::digest::{Digest, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A private key that is read when it is first used.
pub struct LazyKey {
    der: PrivateKeyDer<'static>,
    algorithm: SignatureAlgorithm,
    /// Of the public key that it has to belong to, as the leaf has it.
    public: Digest,
    read: OnceLock<Option<Arc<dyn SigningKey>>>,
}

impl LazyKey {
    /// For the leaf whose `SubjectPublicKeyInfo` this is.
    pub fn new(
        der: PrivateKeyDer<'static>,
        algorithm: SignatureAlgorithm,
        public_key_info: &[u8],
    ) -> Self {
        Self { der, algorithm, public: digest(&SHA256, public_key_info), read: OnceLock::new() }
    }

    /// Whether it can be used, and belongs to its leaf. What is read for that is not kept.
    pub fn is_sound(&self) -> bool {
        match self.read.get() {
            Some(read) => read.is_some(),
            None => self.open().is_some(),
        }
    }

    fn open(&self) -> Option<Arc<dyn SigningKey>> {
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.der).ok()?;
        let public = key.public_key()?;
        (digest(&SHA256, &public).as_ref() == self.public.as_ref()).then_some(key)
    }
}

impl SigningKey for LazyKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.read.get_or_init(|| self.open()).as_ref()?.choose_scheme(offered)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

impl fmt::Debug for LazyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The certificates in a PEM text, the leaf first; none when one cannot be read. Those behind the leaf
/// are shared.
pub fn chain(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::with_capacity(2);
    let mut rest = pem;
    while let Some((_, begun)) = rest.split_once(BEGIN) {
        let (text, after) = begun.split_once(END)?;
        chain.push(match chain.is_empty() {
            true => CertificateDer::from(decode(text)?),
            false => shared(text)?,
        });
        rest = after;
    }
    (!chain.is_empty()).then_some(chain)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let bare: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let mut der = STANDARD.decode(bare).ok()?;
    der.shrink_to_fit();
    Some(der)
}

/// The certificate of a PEM text, once for all. What is shared stays as long as the process; there are
/// as many as CAs have issuers, and beyond a bound each has its own.
fn shared(text: &str) -> Option<CertificateDer<'static>> {
    static KNOWN: Mutex<Option<HashMap<Box<str>, &'static [u8]>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(der) = known.get(text) {
        return Some(CertificateDer::from(*der));
    }
    let der = decode(text)?;
    if known.len() >= SHARED_MAX {
        return Some(CertificateDer::from(der));
    }
    let der: &'static [u8] = Box::leak(der.into_boxed_slice());
    known.insert(text.into(), der);
    Some(CertificateDer::from(der))
}

/// What `make` makes of each, by all cores, in the same order.
pub fn on_all_cores<T: Sync, U: Send>(items: &[T], make: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(SHARE_MIN);
    if share >= items.len() {
        return items.iter().map(make).collect();
    }
    let make = &make;
    std::thread::scope(|scope| {
        let parts = items.chunks(share);
        let threads = parts
            .map(|part| (part, scope.spawn(move || part.iter().map(make).collect::<Vec<U>>())));
        let threads: Vec<_> = threads.collect();
        let mut made = Vec::with_capacity(items.len());
        for (part, thread) in threads {
            // A thread that broke has made nothing.
            made.extend(thread.join().unwrap_or_else(|_| part.iter().map(make).collect()));
        }
        made
    })
}

/// Fewer are not worth a thread.
const SHARE_MIN: usize = 64;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const SHARED_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use rustls::sign::CertifiedKey;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn chains_are_read_as_by_others_and_issuers_are_there_once() {
        let pem = |name: &str| {
            rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap().cert.pem()
        };
        let issuer = pem("issuer.example");
        let texts = [pem("a.example"), pem("b.example")].map(|leaf| format!("{leaf}\n{issuer}"));
        let chains = texts.each_ref().map(|text| chain(text).unwrap());
        for (text, chain) in texts.iter().zip(&chains) {
            let other: Vec<_> =
                CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap();
            assert_eq!(*chain, other);
        }
        assert_eq!(chains[0][1].as_ptr(), chains[1][1].as_ptr());
        assert_ne!(chains[0][0].as_ptr(), chains[1][0].as_ptr());
        for broken in ["", "-----BEGIN CERTIFICATE-----", &texts[0].replace("MII", "M*I")] {
            assert!(chain(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn all_cores_make_what_one_would() {
        for count in [0, 1, 63, 64, 65, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let made = on_all_cores(&items, |item| item * 2);
            assert_eq!(made, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_key_is_read_at_its_first_use_and_no_other_is_taken() {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(made.cert.der()).unwrap();
        let lazy = |der: Vec<u8>| {
            let der = PrivateKeyDer::Pkcs8(der.into());
            LazyKey::new(der, SignatureAlgorithm::ECDSA, leaf.public_key().raw)
        };
        let good = lazy(made.signing_key.serialize_der());
        assert!(good.is_sound() && good.read.get().is_none());
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let certified = CertifiedKey::new(vec![made.cert.der().clone()], Arc::new(good));
        assert!(certified.key.choose_scheme(&schemes).is_some());
        for der in [other.signing_key.serialize_der(), b"nonsense".to_vec()] {
            let bad = lazy(der);
            assert!(!bad.is_sound() && bad.choose_scheme(&schemes).is_none());
        }
        assert!(!format!("{certified:?}").contains("der"));
    }
}
