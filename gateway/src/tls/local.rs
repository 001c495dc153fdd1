//! The local CA: signs certificates for `localhost` and private names that no public CA would sign.
//! Its root is made on first use and kept in the store; leaves live a week and are renewed at half
//! their life by the same machine.
//!
//! The root carries no name constraints: they cannot express names of a single label (`nas`), which
//! are the most common private names. Its key never leaves the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
    SanType, SerialNumber,
};
use rustls_pki_types::PrivateKeyDer;
use time::OffsetDateTime;

use super::certs::{Certificate, CertificateError, Certs, Origin};
use crate::clock::Timestamp;
use crate::config::{HostPattern, Hostname, LocalDomain};
use crate::fault::Fault;
use crate::store::{Store, StoreError};

/// The local CA.
pub struct LocalCa {
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// What the root is limited to; empty: nothing.
    limits: Vec<LocalDomain>,
    /// What is published, by slot.
    published: Mutex<BTreeMap<String, Arc<Certificate>>>,
}

/// A certificate for somebody else's key.
#[derive(Debug)]
pub struct Signed {
    /// Leaf and root.
    pub pem: String,
    /// Its serial number.
    pub serial: SerialNumber,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Why the local CA cannot be used.
#[derive(Debug)]
pub enum LocalCaError {
    /// The store refused.
    Store(StoreError),
    /// A certificate could not be made.
    Make(rcgen::Error),
    /// A certificate that was made cannot be served.
    Unusable(CertificateError),
    /// The root is limited to other names.
    Outside(HostPattern),
}

impl LocalCa {
    /// Takes the root from the store, or makes one that is limited to `limits` and this machine (name
    /// constraints, RFC 5280, section 4.2.1.10). A root that cannot be read is set aside.
    ///
    /// # Errors
    /// When the store refuses or no root can be made.
    pub fn open(store: &Store, limits: &[LocalDomain]) -> Result<Arc<Self>, LocalCaError> {
        if let Some(pem) = store.read(ROOT).map_err(LocalCaError::Store)? {
            match Self::from_pem(&String::from_utf8_lossy(&pem), limits) {
                Ok(known) => {
                    if is_limited(&known.root_pem) == limits.is_empty() {
                        tracing::warn!(
                            "`certificates.local-domains` holds for a new root: to have one, take \
                             back `witgate trust` everywhere and remove {ROOT} from the store"
                        );
                    }
                    return Ok(Arc::new(known));
                }
                Err(cause) => {
                    store.set_aside(ROOT, &cause.to_string()).map_err(LocalCaError::Store)?;
                }
            }
        }
        let pem = store.read_or(ROOT, || {
            let pem = make_root(limits).map_err(LocalCaError::Make)?;
            tracing::info!(
                "made a root for the local CA; `witgate trust` makes this machine trust it"
            );
            Ok::<_, LocalCaError>(pem.into_bytes())
        })?;
        let pem = String::from_utf8_lossy(&pem);
        Self::from_pem(&pem, limits).map(Arc::new).map_err(LocalCaError::Make)
    }

    fn from_pem(pem: &str, limits: &[LocalDomain]) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pem(pem.get(pem.find(BEGIN_KEY).unwrap_or(0)..).unwrap_or(pem))?;
        let end = pem.find(END_CERTIFICATE).map_or(pem.len(), |at| at + END_CERTIFICATE.len());
        let start = pem.find(BEGIN_CERTIFICATE).unwrap_or(0);
        let root_pem = format!("{}\n", pem.get(start..end).unwrap_or_default());
        let issuer = Issuer::from_ca_cert_pem(&root_pem, key)?;
        let limits = limits.to_vec();
        Ok(Self { root_pem, issuer, limits, published: Mutex::default() })
    }

    /// The root certificate, PEM, without its key.
    pub fn root_pem(&self) -> String {
        self.root_pem.clone()
    }

    /// Whether it signs a name at all.
    pub fn signs(&self, name: &HostPattern) -> bool {
        let is_allowed = self.limits.iter().any(|limit| limit.has(name));
        self.limits.is_empty() || name.is_this_machine() || is_allowed
    }

    /// Whether it signs a name for somebody else than this gateway: one that no public CA would sign,
    /// or that `certificates.local-domains` has.
    pub fn signs_for_others(&self, name: &HostPattern) -> bool {
        // `*.com` is below a single label too, and means names of others.
        let is_private = || match name {
            HostPattern::Wildcard(base) => {
                Hostname::parse(&format!("x.{base}")).is_ok_and(|below| below.is_private())
            }
            HostPattern::Exact(name) if name.ip().is_none() => {
                let suffix = psl::suffix(name.as_str().as_bytes());
                name.is_private() && !suffix.is_some_and(|suffix| suffix.is_known())
            }
            name => name.is_private(),
        };
        self.signs(name) && (!self.limits.is_empty() || is_private())
    }

    /// Signs a new certificate for these names, with a new key.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue(&self, names: &[HostPattern]) -> Result<Certificate, LocalCaError> {
        let key = KeyPair::generate().map_err(LocalCaError::Make)?;
        let params = self.params(names)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(LocalCaError::Make)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Certificate::from_der(vec![leaf.der().clone()], key, Origin::Local)
            .map_err(LocalCaError::Unusable)
    }

    /// Signs a new certificate for these names and somebody else's key.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn sign(
        &self,
        names: &[HostPattern],
        key: &impl PublicKeyData,
    ) -> Result<Signed, LocalCaError> {
        let params = self.params(names)?;
        let leaf = params.signed_by(key, &self.issuer).map_err(LocalCaError::Make)?;
        Ok(Signed {
            pem: format!("{}{}", leaf.pem(), self.root_pem),
            serial: params.serial_number.unwrap_or_else(|| SerialNumber::from(0)),
            not_before: Timestamp(params.not_before.unix_timestamp()),
            not_after: Timestamp(params.not_after.unix_timestamp()),
        })
    }

    fn params(&self, names: &[HostPattern]) -> Result<CertificateParams, LocalCaError> {
        if let Some(name) = names.iter().find(|name| !self.signs(name)) {
            return Err(LocalCaError::Outside(name.clone()));
        }
        let mut params = CertificateParams::default();
        let first = names.first().map(ToString::to_string).unwrap_or_default();
        params.distinguished_name.push(DnType::CommonName, first);
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + LEAF_LIFETIME;
        params.subject_alt_names = names.iter().map(san).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Left alone it would come from the key, and be the same again when that is used again.
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial)
            .map_err(|_| LocalCaError::Make(rcgen::Error::RingUnspecified))?;
        // A positive number that fills its bytes.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x3f | 0x40;
        }
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok(params)
    }

    /// Sees to it that exactly these sets of names have a certificate in `certs`, each with at least
    /// half its life left. Cheap when there is nothing to do; called by every new generation and now
    /// and then.
    pub fn ensure(&self, certs: &Certs, wanted: &[Vec<HostPattern>]) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        let mut fresh = Vec::new();
        let mut slots = BTreeSet::new();
        for names in wanted {
            let slot = slot(names);
            let is_good = published.get(&slot).is_some_and(|known| {
                known.names == *names && now.until(known.not_after) > LEAF_LIFETIME / 2
            });
            if !is_good {
                match self.issue(names) {
                    Ok(made) => {
                        let made = Arc::new(made);
                        published.insert(slot.clone(), Arc::clone(&made));
                        fresh.push((slot.clone(), made));
                    }
                    Err(cause) => tracing::error!(%cause, names = slot, "no local certificate"),
                }
            }
            slots.insert(slot);
        }
        let gone: Vec<String> =
            published.keys().filter(|slot| !slots.contains(*slot)).cloned().collect();
        for slot in &gone {
            published.remove(slot);
        }
        if !fresh.is_empty() {
            certs.publish(fresh);
        }
        if !gone.is_empty() {
            certs.withdraw(&gone);
        }
    }
}

fn slot(names: &[HostPattern]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    format!("local/{}", names.join(","))
}

fn san(name: &HostPattern) -> Result<SanType, LocalCaError> {
    let dns = |text: String| text.try_into().map(SanType::DnsName).map_err(LocalCaError::Make);
    match name {
        HostPattern::Exact(name) => match Hostname::ip(name) {
            Some(ip) => Ok(SanType::IpAddress(ip)),
            None => dns(name.to_string()),
        },
        HostPattern::Wildcard(_) | HostPattern::Any => dns(name.to_string()),
    }
}

/// Whether a root has name constraints.
fn is_limited(root_pem: &str) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(root_pem.as_bytes()) else { return false };
    let parsed = pem.parse_x509();
    parsed.is_ok_and(|root| matches!(root.name_constraints(), Ok(Some(_))))
}

fn constraints(limits: &[LocalDomain]) -> NameConstraints {
    let network = |network: &IpNet| match network {
        IpNet::V4(net) => CidrSubnet::V4(net.network().octets(), net.netmask().octets()),
        IpNet::V6(net) => CidrSubnet::V6(net.network().octets(), net.netmask().octets()),
    };
    let loopback = [
        CidrSubnet::V4([127, 0, 0, 0], [255, 0, 0, 0]),
        CidrSubnet::V6(std::net::Ipv6Addr::LOCALHOST.octets(), [255; 16]),
    ];
    let own = loopback.into_iter().map(GeneralSubtree::IpAddress);
    let own = own.chain([GeneralSubtree::DnsName("localhost".to_owned())]);
    let others = limits.iter().map(|limit| match limit {
        LocalDomain::Name(name) => GeneralSubtree::DnsName(name.to_string()),
        LocalDomain::Network(net) => GeneralSubtree::IpAddress(network(net)),
    });
    NameConstraints {
        permitted_subtrees: own.chain(others).collect(),
        excluded_subtrees: Vec::new(),
    }
}

fn make_root(limits: &[LocalDomain]) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    params.distinguished_name.push(DnType::CommonName, format!("Witgate local root {host}"));
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + ROOT_LIFETIME;
    if !limits.is_empty() {
        params.name_constraints = Some(constraints(limits));
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key)?;
    Ok(format!("{}{}", root.pem(), key.serialize_pem()))
}

impl From<StoreError> for LocalCaError {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

impl LocalCaError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(cause) => cause.fault(),
            Self::Outside(_) => Fault::Operator,
            Self::Make(_) | Self::Unusable(_) => Fault::Internal,
        }
    }
}

impl fmt::Display for LocalCaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(cause) => cause.fmt(f),
            Self::Make(cause) => write!(f, "the local CA cannot make a certificate: {cause}"),
            Self::Unusable(cause) => write!(f, "the local CA made a certificate that {cause}"),
            Self::Outside(name) => write!(
                f,
                "the local CA's root is limited to `certificates.local-domains`, and {name} is in \
                 none of them"
            ),
        }
    }
}

impl std::error::Error for LocalCaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(cause) => cause.source(),
            Self::Make(_) | Self::Unusable(_) | Self::Outside(_) => None,
        }
    }
}

/// Root certificate and key, one item, so that they cannot be torn apart.
const ROOT: &str = "local/root.pem";
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const BEGIN_KEY: &str = "-----BEGIN PRIVATE KEY-----";
const END_CERTIFICATE: &str = "-----END CERTIFICATE-----";
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const LEAF_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &[&str]) -> Vec<HostPattern> {
        text.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
    }

    #[test]
    fn the_root_is_kept_and_its_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let first = LocalCa::open(&store, &[]).unwrap().root_pem();
        let again = LocalCa::open(&store, &[]).unwrap().root_pem();
        assert_eq!(first, again);
        assert!(!first.contains("PRIVATE KEY"));
        store.write(ROOT, b"broken").unwrap();
        assert_ne!(LocalCa::open(&store, &[]).unwrap().root_pem(), first);
        assert_eq!(store.list("set-aside").unwrap().len(), 1);
    }

    #[test]
    fn leaves_verify_against_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalCa::open(&Store::open(folder.path()).unwrap(), &[]).unwrap();
        let certificate = local.issue(&names(&["localhost", "*.localhost", "127.0.0.1"])).unwrap();
        assert_eq!(certificate.names.len(), 3);
        let (_, pem) = x509_parser::pem::parse_x509_pem(local.root_pem().as_bytes()).unwrap();
        let root = pem.parse_x509().unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&certificate.key.cert[0]).unwrap();
        assert_eq!(leaf.issuer(), root.subject());
        let days = (certificate.not_after.0 - certificate.not_before.0) / 86400;
        assert_eq!(days, 7);
    }

    #[test]
    fn what_is_wanted_is_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalCa::open(&Store::open(folder.path()).unwrap(), &[]).unwrap();
        let certs = Certs::default();
        local.ensure(&certs, &[names(&["localhost"]), names(&["a.test"])]);
        let first = certs.find(Some("localhost")).unwrap();
        local.ensure(&certs, &[names(&["localhost"])]);
        assert!(Arc::ptr_eq(&first, &certs.find(Some("localhost")).unwrap()));
        assert!(certs.find(Some("a.test")).is_none());
    }

    #[test]
    fn a_root_with_limits_signs_nothing_else_and_nobody_believes_it_more() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let limits = [
            LocalDomain::Name(Hostname::parse("corp.example").unwrap()),
            LocalDomain::Network("10.1.0.0/16".parse().unwrap()),
        ];
        let local = LocalCa::open(&store, &limits).unwrap();
        assert!(is_limited(&local.root_pem()));
        let inside = [
            &["localhost", "a.localhost", "127.0.0.1", "::1"][..],
            &["corp.example", "*.corp.example", "a.b.corp.example"],
            &["10.1.2.3"],
        ];
        let outside = ["example.com", "xcorp.example", "10.2.0.1", "nas"];
        for name in outside {
            assert!(
                matches!(local.issue(&names(&[name])), Err(LocalCaError::Outside(_))),
                "{name}"
            );
        }
        // Whoever trusts the root believes it no more than that, even with its key in the wrong hands.
        let stolen = LocalCa { limits: Vec::new(), ..Arc::into_inner(local).unwrap() };
        for names_inside in inside {
            let made = stolen.issue(&names(names_inside)).unwrap();
            for name in names_inside.iter().map(|name| name.replace('*', "x")) {
                verify(&stolen, &made, &name).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
        for name in outside {
            let made = stolen.issue(&names(&[name])).unwrap();
            assert!(verify(&stolen, &made, name).is_err(), "{name} is believed");
        }
    }

    /// As a client does that trusts the root.
    fn verify(local: &LocalCa, made: &Certificate, name: &str) -> Result<(), rustls::Error> {
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls_pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        let root = rustls_pki_types::CertificateDer::from_pem_slice(local.root_pem.as_bytes());
        roots.add(root.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let now = rustls_pki_types::UnixTime::now();
        let leaf = made.key.cert.first().unwrap();
        verifier.build().unwrap().verify_server_cert(leaf, &[], &name, &[], now).map(drop)
    }
}
