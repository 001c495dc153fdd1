//! The table of certificates: TLS reads it at every handshake; `acme`, the local CA and the file
//! watcher write it. Swapped whole, so that readers take no lock.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::lazy::{self, LazyKey};
use crate::clock::Timestamp;
use crate::config::{HostPattern, Hostname};
use crate::fault::Fault;
use crate::store::Store;
use crate::tls::tickets::{Secret, TicketKeys};

/// A certificate that may be served.
#[derive(Debug)]
pub struct Certificate {
    /// The names in it.
    pub names: Vec<HostPattern>,
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Where it comes from; of two for one name the one with the lower origin is served.
    pub origin: Origin,
    /// Its id of RFC 9773, section 4.1; none without an authority key identifier.
    pub id: Option<Box<str>>,
    /// Its key, when that has not been held against the leaf yet.
    lazy: Option<Arc<LazyKey>>,
}

/// Where a certificate comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The operator's files.
    File,
    /// A CA, by ACME.
    Acme,
    /// The local CA.
    Local,
}

/// Why a certificate cannot be served. Reads after the name of its file or item.
#[derive(Debug)]
pub enum CertificateError {
    /// The PEM text has no certificate.
    NoCertificate,
    /// The PEM text is broken.
    Pem(&'static str, rustls_pki_types::pem::Error),
    /// The leaf cannot be read.
    Leaf(String),
    /// The leaf has no name that could be asked for.
    NoName,
    /// Key and leaf do not belong together, or the key cannot be used.
    Key(rustls::Error),
}

impl Certificate {
    /// Whether its key is RSA.
    pub fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }

    /// Reads a PEM chain (leaf first) and key, checks that they belong together and takes names and
    /// validity from the leaf.
    ///
    /// # Errors
    /// Says what is wrong, for a person.
    pub fn from_pem(chain: &[u8], key: &[u8], origin: Origin) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|cause| CertificateError::Pem("certificate", cause))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|cause| CertificateError::Pem("private key", cause))?;
        Self::from_der(chain, key, origin)
    }

    /// As [`Certificate::from_pem`], from DER.
    ///
    /// # Errors
    /// Says what is wrong, for a person.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        origin: Origin,
    ) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|cause| CertificateError::Leaf(cause.to_string()))?;
        let names = names(&parsed)?;
        let not_before = Timestamp(parsed.validity().not_before.timestamp());
        let not_after = Timestamp(parsed.validity().not_after.timestamp());
        let id = id(&parsed);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(CertificateError::Key)?;
        Ok(Self { names, key: Arc::new(key), not_before, not_after, origin, id, lazy: None })
    }

    /// As [`Certificate::from_pem`], for what this gateway has stored: the key is read at its first
    /// use, and [`Certificate::is_sound`] says whether it can be.
    ///
    /// # Errors
    /// Says what is wrong, for a person.
    pub fn from_stored(pem: &[u8], origin: Origin) -> Result<Self, CertificateError> {
        Self::from_both(pem, pem, origin)
    }

    /// As [`Certificate::from_pem`], of files of the operator's. The key was held against the leaf, but
    /// what was read of it is not kept before it is used.
    ///
    /// # Errors
    /// Says what is wrong, for a person.
    pub fn from_files(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let made = Self::from_both(chain, key, Origin::File)?;
        match made.is_sound() {
            true => Ok(made),
            // This one knows what is wrong.
            false => Self::from_pem(chain, key, Origin::File),
        }
    }

    fn from_both(pem: &[u8], key: &[u8], origin: Origin) -> Result<Self, CertificateError> {
        let text = std::str::from_utf8(pem).ok();
        let Some(chain) = text.and_then(lazy::chain) else {
            return Self::from_pem(pem, key, origin);
        };
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|cause| CertificateError::Pem("private key", cause))?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|cause| CertificateError::Leaf(cause.to_string()))?;
        let names = names(&parsed)?;
        let not_before = Timestamp(parsed.validity().not_before.timestamp());
        let not_after = Timestamp(parsed.validity().not_after.timestamp());
        let id = id(&parsed);
        let public = parsed.public_key();
        let algorithm = match public.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.10045.2.1" => SignatureAlgorithm::ECDSA,
            "1.2.840.113549.1.1.1" => SignatureAlgorithm::RSA,
            // Others are rare and may as well be read.
            _ => return Self::from_der(chain, key, origin),
        };
        let lazy = Arc::new(LazyKey::new(key, algorithm, public.raw));
        let signer: Arc<dyn SigningKey> = Arc::<LazyKey>::clone(&lazy);
        let key = Arc::new(CertifiedKey::new(chain, signer));
        Ok(Self { names, key, not_before, not_after, origin, id, lazy: Some(lazy) })
    }

    /// Whether key and leaf belong together. Takes some time when that has not been seen yet.
    pub fn is_sound(&self) -> bool {
        self.lazy.as_ref().is_none_or(|key| key.is_sound())
    }
}

/// RFC 9773, section 4.1.
fn id(leaf: &x509_parser::certificate::X509Certificate<'_>) -> Option<Box<str>> {
    let mut extensions = leaf.extensions().iter();
    let key = extensions.find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref(),
        _ => None,
    })?;
    let (key, serial) = (URL_SAFE_NO_PAD.encode(key.0), URL_SAFE_NO_PAD.encode(leaf.raw_serial()));
    Some(format!("{key}.{serial}").into())
}

fn names(
    leaf: &x509_parser::certificate::X509Certificate<'_>,
) -> Result<Vec<HostPattern>, CertificateError> {
    let found = leaf
        .subject_alternative_name()
        .map_err(|cause| CertificateError::Leaf(cause.to_string()))?;
    let found = found.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let names = found.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => {
            HostPattern::parse(name).ok().filter(|name| *name != HostPattern::Any)
        }
        GeneralName::IPAddress(bytes) => {
            let ip: IpAddr = match *bytes {
                [a, b, c, d] => [*a, *b, *c, *d].into(),
                other => <[u8; 16]>::try_from(other).ok()?.into(),
            };
            HostPattern::parse(&ip.to_string()).ok()
        }
        _ => None,
    });
    let names: Vec<HostPattern> = names.collect();
    if names.is_empty() { Err(CertificateError::NoName) } else { Ok(names) }
}

/// The table.
#[derive(Debug, Default)]
pub struct Certs {
    table: ArcSwap<Table>,
    challenges: ArcSwap<HashMap<Box<str>, Arc<CertifiedKey>>>,
    /// Set when several gateways share a store: the CA may knock at any of them.
    shared: OnceLock<Arc<Store>>,
    /// What the table is made from. Only writers take it.
    slots: Mutex<Slots>,
    process: Process,
}

/// What handshakes need beside certificates, the same as long as this process and those that take over
/// from it live.
#[derive(Debug)]
struct Process {
    secret: Secret,
    tickets: Arc<TicketKeys>,
}

impl Process {
    fn new(secret: Secret, tickets: Option<(Secret, u64)>) -> Self {
        let (own, epoch) = match tickets {
            Some((own, epoch)) => (own, Some(epoch)),
            None => (secret.derive(&[b"tickets"]), None),
        };
        Self { secret, tickets: TicketKeys::new(own, epoch) }
    }
}

impl Default for Process {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "without randomness there is no TLS")]
        Self::new(Secret::random().expect("the system gives randomness"), None)
    }
}

#[derive(Debug, Default)]
struct Slots {
    certificates: HashMap<String, Arc<Certificate>>,
    default: Option<Hostname>,
}

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<Box<str>, Choice>,
    wildcard: HashMap<Box<str>, Choice>,
    default: Option<Choice>,
}

/// The certificates of one name: the best, and the best of another kind of key for clients that
/// cannot use it.
#[derive(Debug, Clone)]
struct Choice {
    best: Arc<Certificate>,
    other: Option<Arc<Certificate>>,
}

impl Choice {
    fn new(first: &Arc<Certificate>) -> Self {
        Self { best: Arc::clone(first), other: None }
    }

    fn add(&mut self, certificate: &Arc<Certificate>) {
        let is_same_kind = certificate.is_rsa() == self.best.is_rsa();
        if is_better(certificate, &self.best) {
            let before = std::mem::replace(&mut self.best, Arc::clone(certificate));
            if !is_same_kind {
                self.other = Some(before);
            }
        } else if !is_same_kind
            && self.other.as_ref().is_none_or(|known| is_better(certificate, known))
        {
            self.other = Some(Arc::clone(certificate));
        }
    }

    /// The first that a client with these signature schemes can use; the best when it can use none.
    fn for_client(&self, schemes: &[SignatureScheme]) -> &Arc<Certificate> {
        let can_use =
            |certificate: &Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        match &self.other {
            Some(other) if !can_use(&self.best) && can_use(other) => other,
            _ => &self.best,
        }
    }
}

impl Certs {
    /// An empty table of a process that takes over: the secret of the one before, and what its tickets
    /// were made with.
    pub fn inherit(secret: Secret, tickets: (Secret, u64)) -> Self {
        Self { process: Process::new(secret, Some(tickets)), ..Self::default() }
    }

    /// What secrets of the process are derived from that are neither stored nor configured.
    pub fn process(&self) -> &Secret {
        &self.process.secret
    }

    /// The keys of session tickets.
    pub fn tickets(&self) -> &Arc<TicketKeys> {
        &self.process.tickets
    }

    /// Puts certificates in, each under a slot of its own choosing (`acme/app.example.com`,
    /// `file/path`), in place of what the slot held. One swap for all of them.
    pub fn publish(&self, certificates: Vec<(String, Arc<Certificate>)>) {
        self.change(|slots| slots.certificates.extend(certificates));
    }

    /// Takes the certificates of these slots out.
    pub fn withdraw(&self, slots: &[String]) {
        self.change(|known| {
            for slot in slots {
                known.certificates.remove(slot);
            }
        });
    }

    /// Sets the name whose certificate is served when no other fits.
    pub fn set_default(&self, name: Option<Hostname>) {
        self.change(|slots| slots.default = name);
    }

    /// The certificate for a server name in lower case:
    ///
    /// 1. one that has exactly this name,
    /// 2. one that has a wildcard over its first label,
    /// 3. that of the configured default name, also when the client sends no name.
    ///
    /// Of several for one name: files before ACME before the local CA, then ECDSA before RSA, then the
    /// one that is valid for longer.
    pub fn find(&self, server_name: Option<&str>) -> Option<Arc<Certificate>> {
        let table = self.table.load();
        let found = server_name.and_then(|name| table.find(name)).or(table.default.as_ref());
        found.map(|choice| Arc::clone(&choice.best))
    }

    /// As [`Certs::find`], for a client that knows these signature schemes: of several certificates
    /// from the same origin the one with ECDSA, unless the client can use RSA alone.
    pub fn find_for_client(
        &self,
        server_name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<Certificate>> {
        let table = self.table.load();
        let found = server_name.and_then(|name| table.find(name)).or(table.default.as_ref());
        found.map(|choice| Arc::clone(choice.for_client(schemes)))
    }

    /// As [`Certs::find`]; a client that sends no name because it came to an IP address (RFC 6066
    /// knows no server name for those) gets the certificate of that address.
    pub fn find_for(&self, server_name: Option<&str>, local: IpAddr) -> Option<Arc<Certificate>> {
        if server_name.is_none() {
            let table = self.table.load();
            if let Some(found) = table.exact.get(local.to_string().as_str()) {
                return Some(Arc::clone(&found.best));
            }
        }
        self.find(server_name)
    }

    /// All slots with their certificates, for the status.
    pub fn all(&self) -> Vec<(String, Arc<Certificate>)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let all = slots.certificates.iter().map(|(slot, c)| (slot.clone(), Arc::clone(c)));
        let mut all: Vec<_> = all.collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// Answers validations also for the other gateways on this store, and lets them answer for this
    /// one.
    pub fn share(&self, store: &Arc<Store>) {
        let _ = self.shared.set(Arc::clone(store));
    }

    /// Puts a TLS-ALPN-01 certificate (RFC 8737) in for `name`; `pem` is the same with its key.
    pub fn publish_challenge(&self, name: &Hostname, key: Arc<CertifiedKey>, pem: &str) {
        if let Some(store) = self.shared.get()
            && let Err(cause) = store.write(&challenge_item(name.as_str()), pem.as_bytes())
        {
            tracing::warn!("other gateways cannot answer for this one: {cause}");
        }
        self.challenges.rcu(|known| {
            let mut next = HashMap::clone(known);
            next.insert(name.as_str().into(), Arc::clone(&key));
            next
        });
    }

    /// Takes it out.
    pub fn withdraw_challenge(&self, name: &Hostname) {
        self.challenges.rcu(|known| {
            let mut next = HashMap::clone(known);
            next.remove(name.as_str());
            next
        });
        if let Some(store) = self.shared.get() {
            let _ = store.remove(&challenge_item(name.as_str()));
        }
    }

    /// The TLS-ALPN-01 certificate for `name`. Reads a small file when the store is shared and the
    /// validation not of this gateway.
    pub fn find_challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if let Some(own) = self.challenges.load().get(name) {
            return Some(Arc::clone(own));
        }
        let pem = self.shared.get()?.read(&challenge_item(name)).ok().flatten()?;
        // Not checked as others are: its critical extension (RFC 8737, section 3) is for the CA alone.
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().ok()?;
        let key = PrivateKeyDer::from_pem_slice(&pem).ok()?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok()?;
        Some(Arc::new(CertifiedKey::new(chain, signer)))
    }

    fn change(&self, change: impl FnOnce(&mut Slots)) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut slots);
        self.table.store(Arc::new(Table::new(&slots)));
    }
}

fn challenge_item(name: &str) -> String {
    format!("acme/answers/tls/{name}")
}

impl Table {
    fn new(slots: &Slots) -> Self {
        let mut table = Self::default();
        table.exact.reserve(slots.certificates.len());
        for certificate in slots.certificates.values() {
            for name in &certificate.names {
                let (map, base) = match name {
                    HostPattern::Exact(name) => (&mut table.exact, name.as_str()),
                    HostPattern::Wildcard(name) => (&mut table.wildcard, name.as_str()),
                    // No certificate says so.
                    HostPattern::Any => continue,
                };
                match map.get_mut(base) {
                    Some(known) => known.add(certificate),
                    None => {
                        map.insert(base.into(), Choice::new(certificate));
                    }
                }
            }
        }
        table.default = slots.default.as_ref().and_then(|n| table.find(n.as_str())).cloned();
        table
    }

    fn find(&self, name: &str) -> Option<&Choice> {
        self.exact.get(name).or_else(|| {
            let (label, rest) = name.split_once('.')?;
            if label.is_empty() { None } else { self.wildcard.get(rest) }
        })
    }
}

/// Whether `one` goes before `other`: by origin, then ECDSA before RSA, then by its end.
fn is_better(one: &Certificate, other: &Certificate) -> bool {
    let rank = |c: &Certificate| (c.origin, c.is_rsa(), std::cmp::Reverse(c.not_after));
    rank(one) < rank(other)
}

impl CertificateError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        Fault::Operator
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("holds no PEM certificate"),
            Self::Pem(what, cause) => write!(f, "holds no readable {what}: {cause}"),
            Self::Leaf(cause) => write!(f, "has a certificate that cannot be read: {cause}"),
            Self::NoName => f.write_str("has a certificate without any subject alternative name"),
            Self::Key(rustls::Error::InconsistentKeys(_)) => f.write_str(
                "has a private key that does not belong to the certificate; the first certificate \
                 of the chain must be the one for this key",
            ),
            Self::Key(cause) => write!(f, "has a private key that cannot be used: {cause}"),
        }
    }
}

impl std::error::Error for CertificateError {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn certificate(names: &[&str], origin: Origin) -> Arc<Certificate> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Arc::new(Certificate::from_pem(chain.as_bytes(), key.as_bytes(), origin).unwrap())
    }

    #[test]
    fn exact_then_wildcard_then_default() {
        let certs = Certs::default();
        let exact = certificate(&["a.example.com"], Origin::Acme);
        let wildcard = certificate(&["*.example.com"], Origin::File);
        let other = certificate(&["other.example.net"], Origin::File);
        certs.publish(vec![
            ("1".into(), Arc::clone(&exact)),
            ("2".into(), Arc::clone(&wildcard)),
            ("3".into(), Arc::clone(&other)),
        ]);
        let found = |name| certs.find(name).map(|c| c.names.clone());
        assert_eq!(found(Some("a.example.com")), Some(exact.names.clone()));
        assert_eq!(found(Some("b.example.com")), Some(wildcard.names.clone()));
        assert_eq!(found(Some("c.b.example.com")), None);
        assert_eq!(found(None), None);
        certs.set_default(Some(Hostname::parse("other.example.net").unwrap()));
        assert_eq!(found(Some("c.b.example.com")), Some(other.names.clone()));
        assert_eq!(found(None), Some(other.names.clone()));
        certs.withdraw(&["3".into()]);
        assert_eq!(found(None), None);
    }

    #[test]
    fn files_win_over_acme_and_acme_over_local() {
        let certs = Certs::default();
        for origin in [Origin::Local, Origin::File, Origin::Acme] {
            let made = certificate(&["a.example.com"], origin);
            certs.publish(vec![(format!("{origin:?}"), made)]);
        }
        assert_eq!(certs.find(Some("a.example.com")).unwrap().origin, Origin::File);
        certs.withdraw(&["File".into()]);
        assert_eq!(certs.find(Some("a.example.com")).unwrap().origin, Origin::Acme);
    }

    #[test]
    fn an_address_needs_no_server_name() {
        let certs = Certs::default();
        certs.publish(vec![("1".into(), certificate(&["127.0.0.1"], Origin::Local))]);
        assert!(certs.find_for(None, "127.0.0.1".parse().unwrap()).is_some());
        assert!(certs.find_for(None, "127.0.0.2".parse().unwrap()).is_none());
    }

    #[test]
    fn a_pair_that_does_not_belong_together_is_refused() {
        let one = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let two = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let (chain, key) = (one.cert.pem(), two.signing_key.serialize_pem());
        let pair = |chain: &str, key: &str| {
            Certificate::from_pem(chain.as_bytes(), key.as_bytes(), Origin::File)
                .map(drop)
                .map_err(|e| e.to_string())
        };
        assert!(pair(&chain, &key).unwrap_err().contains("does not belong to the certificate"));
        assert!(pair(&key, &chain).unwrap_err().contains("holds no"));
        assert!(pair("", &key).unwrap_err().contains("holds no PEM certificate"));
        assert!(pair(&chain, "nonsense").unwrap_err().contains("private key"));
    }

    #[test]
    fn what_was_stored_is_the_same_when_its_key_is_read_later() {
        let ca = rcgen::KeyPair::generate().unwrap();
        let of_ca = rcgen::CertificateParams::default();
        let issuer = rcgen::Issuer::from_params(&of_ca, &ca);
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        for key in [rcgen::KeyPair::generate().unwrap(), rsa] {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
            params.use_authority_key_identifier_extension = true;
            let leaf = params.signed_by(&key, &issuer).unwrap();
            let pem = format!("{}{}{}", key.serialize_pem(), leaf.pem(), leaf.pem());
            let later = Certificate::from_stored(pem.as_bytes(), Origin::Acme).unwrap();
            let now = Certificate::from_pem(pem.as_bytes(), pem.as_bytes(), Origin::Acme).unwrap();
            assert_eq!((&later.names, later.not_after), (&now.names, now.not_after));
            assert_eq!((&later.id, later.is_rsa()), (&now.id, now.is_rsa()));
            assert_eq!(later.key.cert, now.key.cert);
            assert!(later.is_sound() && later.id.is_some());
            // Another key is noticed.
            let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
            let pem = format!("{other}{}", leaf.pem());
            assert!(!Certificate::from_stored(pem.as_bytes(), Origin::Acme).unwrap().is_sound());
        }
        assert!(Certificate::from_stored(b"nonsense", Origin::Acme).is_err());
    }

    #[test]
    fn a_hundred_thousand_names_are_one_lookup() {
        let certs = Certs::default();
        let one = certificate(&["x.example"], Origin::File);
        let many = (0..100_000).map(|n| {
            let name = HostPattern::parse(&format!("h{n}.example.com")).unwrap();
            let same = Certificate {
                names: vec![name],
                key: Arc::clone(&one.key),
                not_before: one.not_before,
                not_after: one.not_after,
                origin: Origin::File,
                id: None,
                lazy: None,
            };
            (format!("file/{n}"), Arc::new(same))
        });
        certs.publish(many.collect());
        for name in ["h0.example.com", "h99999.example.com"] {
            assert_eq!(certs.find(Some(name)).unwrap().names[0].to_string(), name);
        }
        assert!(certs.find(Some("h100000.example.com")).is_none());
    }
}
