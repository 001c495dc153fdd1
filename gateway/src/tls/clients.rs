//! Certificates of clients (mutual TLS): what a site asks for, and who a client then is.
//!
//! A handshake is made under what the site of its server name asks for, and remembers that. A site
//! that asks for certificates serves only requests whose handshake was made under the same demand, so
//! that neither another server name, nor an old ticket, nor a reload is a way around it. Each demand
//! has ticket keys of its own.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::RootCertStore;
use rustls::server::{ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::GeneralName;

use super::accept;
use super::certs::Certs;
use crate::clock::Timestamp;
use crate::config::{ClientCertificateMode, ClientCertificates};
use crate::fault::Fault;
use crate::hex;

/// Which demand a handshake was made under: of the mode and of every file of it.
pub type Demand = [u8; 32];

/// What a site asks of its clients, ready for handshakes.
pub struct ClientAuth {
    /// Tells it from every other.
    pub demand: Demand,
    /// Handshakes over TCP.
    pub(super) tcp: Arc<ServerConfig>,
    /// Handshakes over QUIC.
    pub(super) quic: accept::Quic,
}

/// Why `client-certificates` of a site cannot be used.
#[derive(Debug)]
pub enum ClientAuthError {
    /// A file cannot be read.
    Read(PathBuf, std::io::Error),
    /// A file is no PEM.
    Pem(PathBuf, rustls_pki_types::pem::Error),
    /// A file of roots holds none.
    NoRoot(PathBuf),
    /// A file of revocation lists holds none.
    NoList(PathBuf),
    /// The lists cannot be used.
    Verifier(VerifierBuilderError),
    /// TLS cannot be prepared.
    Tls(rustls::Error),
}

impl ClientAuth {
    /// Reads the files. What is the same as one of `known` is that one, so that tickets stay good.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn load<'k>(
        config: &ClientCertificates,
        certs: &Arc<Certs>,
        known: impl IntoIterator<Item = &'k Arc<Self>>,
    ) -> Result<Arc<Self>, ClientAuthError> {
        let mut hash = digest::Context::new(&digest::SHA256);
        let is_required = config.mode == ClientCertificateMode::Require;
        hash.update(&[u8::from(is_required)]);
        let mut read = |path: &Path| {
            let bytes = std::fs::read(path)
                .map_err(|cause| ClientAuthError::Read(path.to_owned(), cause))?;
            hash.update(&bytes.len().to_be_bytes());
            hash.update(&bytes);
            Ok(bytes)
        };
        let mut roots = RootCertStore::empty();
        for path in &config.roots {
            let before = roots.len();
            for root in CertificateDer::pem_slice_iter(&read(path)?) {
                let root = root.map_err(|cause| ClientAuthError::Pem(path.clone(), cause))?;
                let _ = roots.add_parsable_certificates([root]);
            }
            if roots.len() == before {
                return Err(ClientAuthError::NoRoot(path.clone()));
            }
        }
        let mut revoked = Vec::new();
        for path in &config.revoked {
            let before = revoked.len();
            for list in CertificateRevocationListDer::pem_slice_iter(&read(path)?) {
                let list = list.map_err(|cause| ClientAuthError::Pem(path.clone(), cause))?;
                revoked.push(list);
            }
            if revoked.len() == before {
                return Err(ClientAuthError::NoList(path.clone()));
            }
        }
        let mut demand = Demand::default();
        demand.copy_from_slice(hash.finish().as_ref());
        if let Some(known) = known.into_iter().find(|known| known.demand == demand) {
            return Ok(Arc::clone(known));
        }
        let provider = Arc::new(accept::provider());
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if !revoked.is_empty() {
            // As strict as others are: a list for every CA of the chain, none of them out of date.
            verifier = verifier.with_crls(revoked).enforce_revocation_expiration();
        }
        if !is_required {
            verifier = verifier.allow_unauthenticated();
        }
        let verifier = verifier.build().map_err(ClientAuthError::Verifier)?;
        let (tcp, quic) =
            accept::serving(certs, Some((&demand, &verifier))).map_err(ClientAuthError::Tls)?;
        Ok(Arc::new(Self { demand, tcp, quic }))
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").field("demand", &self.demand).finish_non_exhaustive()
    }
}

/// A client's certificate that was verified in a handshake.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The subject, such as `CN=device 7, O=Example`, in the order of the certificate.
    pub subject: String,
    /// The issuer, in the same form.
    pub issuer: String,
    /// The serial number in lower-case hexadecimal digits, without leading zeros.
    pub serial: String,
    /// The SHA-256 of the certificate in lower-case hexadecimal digits.
    pub sha256: String,
    /// The subject alternative names: `dns:`, `email:`, `uri:` or `ip:` and the name.
    pub names: Vec<String>,
    /// The end of its validity.
    pub not_after: Timestamp,
    chain: Vec<CertificateDer<'static>>,
    fields: OnceLock<[Option<HeaderValue>; 2]>,
}

impl ClientCertificate {
    /// The certificates that the client sent (DER), its own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Reads the leaf of a verified chain. `None` when there is none or it cannot be read, which a
    /// verifier has ruled out.
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: format!("{:x}", parsed.serial),
            sha256: hex::lower(digest::digest(&digest::SHA256, leaf).as_ref()),
            names: names.iter().filter_map(name).collect(),
            not_after: Timestamp(parsed.validity().not_after.timestamp()),
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            fields: OnceLock::new(),
        })
    }

    /// The values of `client-cert` and, where the client sent more than its own, of
    /// `client-cert-chain` (RFC 9440, section 2).
    pub fn fields(&self) -> &[Option<HeaderValue>; 2] {
        self.fields.get_or_init(|| {
            let item = |der: &CertificateDer<'_>| format!(":{}:", STANDARD.encode(der));
            let mut items = self.chain.iter().map(item);
            let leaf = items.next().and_then(|leaf| HeaderValue::try_from(leaf).ok());
            let rest: Vec<String> = items.collect();
            let rest = (!rest.is_empty()).then(|| rest.join(", "));
            [leaf, rest.and_then(|rest| HeaderValue::try_from(rest).ok())]
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("dns:{name}")),
        GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
        GeneralName::URI(name) => Some(format!("uri:{name}")),
        GeneralName::IPAddress(bytes) => {
            let ip: IpAddr = match *bytes {
                [a, b, c, d] => [*a, *b, *c, *d].into(),
                other => <[u8; 16]>::try_from(other).ok()?.into(),
            };
            Some(format!("ip:{ip}"))
        }
        _ => None,
    }
}

impl ClientAuthError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Tls(_) => Fault::Internal,
            _ => Fault::Operator,
        }
    }
}

impl fmt::Display for ClientAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, _) => write!(f, "cannot read {}", path.display()),
            Self::Pem(path, _) => write!(f, "cannot read PEM from {}", path.display()),
            Self::NoRoot(path) => write!(f, "{} holds no root certificate", path.display()),
            Self::NoList(path) => write!(
                f,
                "{} holds no revocation list; it has to begin with -----BEGIN X509 CRL-----",
                path.display()
            ),
            Self::Verifier(_) => f.write_str("a revocation list cannot be used"),
            Self::Tls(_) => f.write_str("cannot prepare TLS"),
        }
    }
}

impl std::error::Error for ClientAuthError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, cause) => Some(cause),
            Self::Pem(_, cause) => Some(cause),
            Self::Verifier(cause) => Some(cause),
            Self::Tls(cause) => Some(cause),
            Self::NoRoot(_) | Self::NoList(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_who_it_is() {
        let mut params =
            rcgen::CertificateParams::new(vec!["device.example".into(), "192.0.2.1".into()])
                .unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "device 7");
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0, 0xab, 0xcd]));
        let uri = "spiffe://example/device".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let chain = [made.der().clone(), made.der().clone()];
        let read = ClientCertificate::of(&chain).unwrap();
        assert!(read.subject.contains("CN=device 7"), "{}", read.subject);
        assert_eq!((read.serial.as_str(), read.sha256.len()), ("abcd", 64));
        let names = ["dns:device.example", "ip:192.0.2.1", "uri:spiffe://example/device"];
        assert_eq!(read.names, names);
        let [leaf, rest] = read.fields();
        let item = format!(":{}:", STANDARD.encode(made.der()));
        assert_eq!(leaf.as_ref().unwrap(), item.as_str());
        assert_eq!(rest.as_ref().unwrap(), item.as_str());
        assert!(ClientCertificate::of(&chain[..1]).unwrap().fields()[1].is_none());
        assert!(ClientCertificate::of(&[]).is_none());
    }
}
