//! Certificates that tests make for themselves, and a look into those that peers show.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate authority of a test.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate as PEM.
    pub pem: String,
}

/// A certificate with its key, as PEM.
pub struct Pair {
    /// The chain, leaf first, without the root.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Ca {
    /// A new authority.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a root").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Signs a certificate for names and addresses.
    pub fn sign(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "witgate e2e");
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A list, as PEM, that revokes a certificate.
    pub fn revoke(&self, pair: &Pair) -> String {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate.as_bytes()).expect("PEM");
        let serial = pem.parse_x509().expect("a certificate").raw_serial().to_vec();
        let now = time::OffsetDateTime::now_utc();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::HOUR,
            next_update: now + time::Duration::HOUR,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// DNS names, sorted.
    pub names: Vec<String>,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number in hex.
    pub serial: String,
    /// End of validity, in seconds since 1970.
    pub not_after: i64,
}

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Panics
    /// When it is none.
    pub fn read(der: &[u8]) -> Self {
        let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
        let mut names = Vec::new();
        if let Ok(Some(san)) = certificate.subject_alternative_name() {
            for name in &san.value.general_names {
                if let GeneralName::DNSName(name) = name {
                    names.push((*name).to_owned());
                }
            }
        }
        names.sort();
        Self {
            names,
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            not_after: certificate.validity().not_after.timestamp(),
        }
    }
}
