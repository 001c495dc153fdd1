//! Whether a client controls a name, as far as this machine can see it (RFC 8555, section 8; RFC 8737;
//! RFC 8738).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hickory_proto::rr::{RData, RecordType};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::extensions::GeneralName;

use super::problem::Problem;
use crate::acme::dns::Resolvers;
use crate::acme::solve::tls_alpn01;
use crate::config::{Hostname, LocalAcme};

/// How names are looked at.
#[derive(Debug, Clone)]
pub struct Look {
    /// The ports.
    pub settings: LocalAcme,
    /// The DNS servers of the configuration.
    pub resolvers: Resolvers,
    /// Whether these resolve names of hosts too; else the system does, which knows more.
    pub has_resolvers: bool,
}

impl Look {
    /// Looks once for the proof of a kind.
    ///
    /// # Errors
    /// What was found in its place.
    pub async fn at(
        &self,
        kind: &str,
        name: &Hostname,
        token: &str,
        key_authorization: &str,
    ) -> Result<(), Problem> {
        let looking = async {
            match kind {
                "http-01" => self.http01(name, token, key_authorization).await,
                "tls-alpn-01" => self.tls_alpn01(name, key_authorization).await,
                _ => self.dns01(name, key_authorization).await,
            }
        };
        let late = |_| Err(Problem::new("connection", "nothing came in time"));
        tokio::time::timeout(LOOK_TIME, looking).await.unwrap_or_else(late)
    }

    /// Connects to the first of the name's addresses that can be reached.
    async fn connect(&self, name: &Hostname, port: u16) -> Result<TcpStream, Problem> {
        let addresses = self.addresses(name).await;
        if addresses.is_empty() {
            return Err(Problem::new("dns", format!("{name} has no address")));
        }
        let mut last = String::new();
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            match TcpStream::connect((address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => last = format!("cannot connect to {address} port {port}: {cause}"),
            }
        }
        Err(Problem::new("connection", last))
    }

    async fn addresses(&self, name: &Hostname) -> Vec<IpAddr> {
        if let Some(ip) = name.ip() {
            return vec![ip];
        }
        if name.is_this_machine() {
            return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if self.has_resolvers {
            return self.resolvers.addresses(name.as_str()).await;
        }
        let found = tokio::net::lookup_host((name.as_str(), 0)).await;
        found.map(|all| all.map(|address| address.ip()).collect()).unwrap_or_default()
    }

    async fn http01(&self, name: &Hostname, token: &str, wanted: &str) -> Result<(), Problem> {
        let port = self.settings.http_port;
        let failed = |cause: &dyn std::fmt::Display| Problem::new("connection", cause.to_string());
        let stream = TokioIo::new(self.connect(name, port).await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(|e| failed(&e))?;
        let connection = tokio::spawn(connection);
        let host = match name.ip() {
            Some(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => name.to_string(),
        };
        let host = if port == 80 { host } else { format!("{host}:{port}") };
        let request = Request::get(format!("/.well-known/acme-challenge/{token}"))
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| failed(&e))?;
        let answered = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|e| failed(&e))?.to_bytes();
            let text = String::from_utf8_lossy(&body);
            match (status, text.trim_end() == wanted) {
                (StatusCode::OK, true) => Ok(()),
                (StatusCode::OK, false) => {
                    let detail =
                        format!("{name} answers with something else than the key authorization");
                    Err(Problem::new("incorrectResponse", detail))
                }
                _ => Err(Problem::new("unauthorized", format!("{name} answers {status}"))),
            }
        };
        let answered = answered.await;
        connection.abort();
        answered
    }

    async fn tls_alpn01(&self, name: &Hostname, wanted: &str) -> Result<(), Problem> {
        let failed = |cause: &dyn std::fmt::Display| Problem::new("tls", cause.to_string());
        let stream = self.connect(name, self.settings.tls_port).await?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(AnyLeaf(provider.signature_verification_algorithms));
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| failed(&e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ACME_TLS.to_vec()];
        let asked = tls_alpn01::asked(name).to_string();
        let asked = ServerName::try_from(asked).map_err(|e| failed(&e))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(asked, stream).await;
        let stream = stream.map_err(|e| failed(&e))?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(ACME_TLS) {
            return Err(Problem::new("tls", format!("{name} does not know acme-tls/1")));
        }
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| Problem::new("tls", "there is no certificate"))?;
        match is_proof(leaf, name, wanted) {
            true => Ok(()),
            false => {
                let detail = format!("{name} shows another certificate than that of the challenge");
                Err(Problem::new("incorrectResponse", detail))
            }
        }
    }

    async fn dns01(&self, name: &Hostname, wanted: &str) -> Result<(), Problem> {
        let at = format!("_acme-challenge.{name}");
        let answer = self.resolvers.ask(&at, RecordType::TXT).await;
        let answer = answer.map_err(|cause| Problem::new("dns", format!("{at}: {cause}")))?;
        let value = URL_SAFE_NO_PAD.encode(digest(&SHA256, wanted.as_bytes()));
        let has_it = answer.answers.iter().any(|record| match &record.data {
            RData::TXT(txt) => txt.txt_data.concat() == value.as_bytes(),
            _ => false,
        });
        match has_it {
            true => Ok(()),
            false => Err(Problem::new("incorrectResponse", format!("no TXT {at} has the value"))),
        }
    }
}

/// Whether a leaf is what RFC 8737, section 3, asks for.
fn is_proof(leaf: &CertificateDer<'_>, name: &Hostname, wanted: &str) -> bool {
    let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf) else { return false };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
    let is_named = match (names.value.general_names.as_slice(), name.ip()) {
        ([GeneralName::DNSName(one)], None) => one.eq_ignore_ascii_case(name.as_str()),
        ([GeneralName::IPAddress(bytes)], Some(IpAddr::V4(ip))) => *bytes == ip.octets(),
        ([GeneralName::IPAddress(bytes)], Some(IpAddr::V6(ip))) => *bytes == ip.octets(),
        _ => false,
    };
    // An OCTET STRING of 32 bytes.
    let value = [&[4, 32], digest(&SHA256, wanted.as_bytes()).as_ref()].concat();
    let is_it = |oid: String| oid == ACME_IDENTIFIER;
    let mut extensions = leaf.extensions().iter();
    is_named
        && extensions.any(|one| one.critical && one.value == value && is_it(one.oid.to_id_string()))
}

/// Takes any certificate, whose content is looked at afterwards, but no signature that is not its.
#[derive(Debug)]
struct AnyLeaf(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyLeaf {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // By the bare key: whoever looks at the certificate refuses its critical extension.
        let (_, leaf) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|_| rustls::CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(leaf.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

const ACME_TLS: &[u8] = b"acme-tls/1";
/// RFC 8737, section 3.
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";
const LOOK_TIME: Duration = Duration::from_secs(10);
const ADDRESSES_MAX: usize = 4;
const ANSWER_BYTES_MAX: usize = 4096;
