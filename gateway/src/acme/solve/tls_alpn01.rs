//! TLS-ALPN-01 (RFC 8737): a certificate for the name under validation, shown only to `acme-tls/1`.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

use crate::config::Hostname;
use crate::tls::certs::Certs;

/// A validation that is answered until this is dropped.
pub struct Answered {
    certs: Arc<Certs>,
    /// What the CA asks for: for an address the name of its reverse lookup (RFC 8738, section 6).
    name: Hostname,
}

/// Answers validations of `name` with the digest of its key authorization.
///
/// # Errors
/// When no certificate can be made.
pub fn present(
    certs: &Arc<Certs>,
    name: &Hostname,
    digest: &[u8],
) -> Result<Answered, rcgen::Error> {
    let mut params = CertificateParams::default();
    let san = match name.ip() {
        Some(ip) => SanType::IpAddress(ip),
        None => SanType::DnsName(name.as_str().try_into()?),
    };
    params.subject_alt_names = vec![san];
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let made = params.self_signed(&key)?;
    let key_pem = key.serialize_pem();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    let certified = CertifiedKey::new(vec![made.der().clone()], signer);
    let name = asked(name);
    let pem = format!("{}{}", made.pem(), key_pem);
    certs.publish_challenge(&name, Arc::new(certified), &pem);
    Ok(Answered { certs: Arc::clone(certs), name })
}

/// The name that a CA asks a server for: of an address that of its reverse lookup (RFC 8738,
/// section 6).
pub fn asked(name: &Hostname) -> Hostname {
    let reverse = match name.ip() {
        None => return name.clone(),
        Some(std::net::IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Some(std::net::IpAddr::V6(ip)) => {
            let digits = ip.octets().into_iter().rev().flat_map(|o| [o & 0xf, o >> 4]);
            let digits: Vec<String> = digits.map(|digit| format!("{digit:x}")).collect();
            format!("{}.ip6.arpa", digits.join("."))
        }
    };
    Hostname::parse(&reverse).unwrap_or_else(|_| name.clone())
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.certs.withdraw_challenge(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validation_is_answered_as_long_as_it_is_held() {
        let certs = Arc::new(Certs::default());
        let name = Hostname::parse("a.example").unwrap();
        let held = present(&certs, &name, &[7; 32]).unwrap();
        let key = certs.find_challenge("a.example").unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&key.cert[0]).unwrap();
        let oid = "1.3.6.1.5.5.7.1.31";
        let extension = leaf.extensions().iter().find(|e| e.oid.to_id_string() == oid).unwrap();
        assert!(extension.critical && extension.value.ends_with(&[7; 32]));
        drop(held);
        assert!(certs.find_challenge("a.example").is_none());
    }

    #[test]
    fn addresses_are_asked_for_by_their_reverse_name() {
        let name = |text| asked(&Hostname::parse(text).unwrap()).to_string();
        assert_eq!(name("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert!(name("2001:db8::1").ends_with("8.b.d.0.1.0.0.2.ip6.arpa"));
    }
}
