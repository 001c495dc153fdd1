//! The handshake: the ClientHello is read first, then decides with which certificate, or with which
//! alert, it goes on.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use quinn::crypto::HandshakeTokenKey;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Accepted as ReadHello, ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::certs::Certs;
use super::clients::{ClientAuth, ClientCertificate, Demand};
use super::fingerprint::{self, Transport};
use super::hello::{Hello, HelloDecision, Refusal, Wish, decide};
use super::keylog::{self, Taps};
use super::stream::{Buffer, TlsStream};
use super::{Front, TlsFacts, quic};
use crate::clock::Timestamp;
use crate::fault::Fault;

/// Makes handshakes. One for all workers: they share the ticket keys, so a client may resume on any.
#[derive(Clone)]
pub struct Acceptor {
    certs: Arc<Certs>,
    later: Arc<dyn Later>,
    serve: Arc<ServerConfig>,
    quic: Quic,
    quic_tokens: Arc<dyn HandshakeTokenKey>,
    taps: Arc<Taps>,
}

/// Handshakes over QUIC of one demand.
#[derive(Clone)]
pub(super) struct Quic {
    /// As QUIC wants it.
    pub(super) ready: Arc<QuicServerConfig>,
    /// What that was made from.
    base: Arc<ServerConfig>,
}

impl Quic {
    /// The same with the certificate of another name than the client asks for; none when there is no
    /// such certificate.
    pub(super) fn named(&self, certs: &Arc<Certs>, name: &str) -> Option<Arc<QuicServerConfig>> {
        certs.find(Some(name))?;
        let mut config = ServerConfig::clone(&self.base);
        config.cert_resolver = Arc::new(Named(Arc::clone(certs), name.into()));
        QuicServerConfig::try_from(config).ok().map(Arc::new)
    }
}

/// Certificates that may come while a handshake waits.
pub trait Later: Send + Sync {
    /// Waits, within bounds of its own, until there is a certificate for this name in lower case;
    /// false when there is none.
    fn certificate_for<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

    /// Begins what is to be waited for, and waits for nothing.
    fn begin(&self, name: &str);
}

/// What is known after the ClientHello.
struct Greeting {
    /// What was read.
    input: Buffer,
    name: Option<String>,
    is_acme: bool,
    front: Front,
    /// The server name in whose place the client's stands.
    other: Option<Box<str>>,
}

/// A finished handshake.
#[expect(clippy::large_enum_variant, reason = "the large one is the rule")]
pub enum Accepted<IO> {
    /// Requests may come.
    Serve {
        /// The stream inside TLS.
        stream: TlsStream<IO>,
        /// What was established.
        facts: TlsFacts,
    },
    /// Its site has it passed on as it is.
    Pass {
        /// The stream, of which the ClientHello was read.
        io: IO,
        /// What was read.
        read: Vec<u8>,
        /// The server name.
        server_name: Option<String>,
        /// Where it goes.
        upstream: Arc<str>,
    },
    /// It was a CA's validation (RFC 8737); nothing more comes.
    Challenged,
}

/// Why there was no handshake.
#[derive(Debug)]
pub enum HandshakeError {
    /// The client spoke HTTP without TLS.
    NotTls,
    /// The ClientHello was refused; the server name that it had.
    Refused(Refusal, Option<String>),
    /// The session was resumed, and the client's certificate has ended since.
    Expired,
    /// The client took too long.
    Slow,
    /// The client broke the protocol or did not like ours.
    Tls(io::Error),
    /// The connection ended before.
    Io(io::Error),
}

impl Acceptor {
    /// Prepares handshakes with the certificates of `certs`: TLS 1.2 and 1.3, X25519MLKEM768 before
    /// the classic groups, h2 and http/1.1, tickets whose keys rotate, no early data.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(certs: Arc<Certs>, later: Arc<dyn Later>) -> Result<Self, rustls::Error> {
        let (serve, quic) = serving(&certs, None)?;
        let tokens = Prk::new_less_safe(HKDF_SHA256, certs.process().derive(&[b"tokens"]).bytes());
        let (quic_tokens, taps) = (Arc::new(tokens), Arc::default());
        Ok(Self { certs, later, serve, quic, quic_tokens, taps })
    }

    /// Who looks at secrets of handshakes.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// Handshakes over QUIC: TLS 1.3, h3, the same certificates, no early data. `find` says what the
    /// site of a server name asks of its clients.
    pub fn quic(&self, find: Arc<quic::Find>) -> Arc<quic::ByHello> {
        let (certs, later) = (Arc::clone(&self.certs), Arc::clone(&self.later));
        let find = move |name: Option<&str>, message: &[u8]| {
            let wish = find(name, message);
            let wanted = match &wish {
                Wish::Site(front) if front.passthrough.is_none() => name,
                Wish::As(other, _) => Some(&**other),
                Wish::Site(_) | Wish::Refuse(_) => None,
            };
            if let Some(name) = wanted
                && certs.find(Some(name)).is_none()
            {
                // Nothing can wait in here: this handshake is refused, and the next one, by TCP or not,
                // finds what this one has begun.
                later.begin(name);
            }
            wish
        };
        quic::ByHello::new(self.quic.clone(), Arc::clone(&self.certs), Arc::new(find))
    }

    /// The key of tokens with which clients prove their address: one for all workers, since a
    /// client may come back to another one.
    pub fn quic_tokens(&self) -> Arc<dyn HandshakeTokenKey> {
        Arc::clone(&self.quic_tokens)
    }

    /// Makes one handshake on `io`, which came to the address `local`; `wish` says what is asked of one
    /// with this server name and this ClientHello, in the records it came in. It is not asked about a
    /// validation that the gateway itself waits for. Each half of it, before and after the choice of a certificate, has to
    /// be done within `limit`.
    ///
    /// # Errors
    /// When the client is refused or goes away. The alert has then been sent.
    pub async fn accept<IO>(
        &self,
        mut io: IO,
        local: IpAddr,
        limit: Duration,
        wish: impl FnOnce(Option<&str>, &[u8], bool) -> Wish,
    ) -> Result<Accepted<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let read = tokio::time::timeout(limit, read_hello(&mut io)).await;
        let (accepted, input) = read.map_err(|_| HandshakeError::Slow)??;
        let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        let is_acme = is_acme(&accepted.client_hello());
        let is_ours = is_acme
            && name.as_deref().is_some_and(|name| self.certs.find_challenge(name).is_some());
        let (front, other) = match wish(name.as_deref(), input.filled(), is_ours) {
            Wish::Site(front) => (front, None),
            Wish::As(other, front) => (front, Some(other)),
            Wish::Refuse(refusal) => return refuse(io, refusal, name).await,
        };
        if let Some(name) = other.as_deref().or(name.as_deref())
            && !is_acme
            && front.passthrough.is_none()
            && self.certs.find_for(Some(name), local).is_none()
        {
            // Whether there is one now is seen below.
            self.later.certificate_for(name).await;
        }
        let greeting = Greeting { input, name, is_acme, front, other };
        let finish = self.finish(io, greeting, local);
        tokio::time::timeout(limit, finish).await.map_err(|_| HandshakeError::Slow)?
    }

    async fn finish<IO>(
        &self,
        io: IO,
        greeting: Greeting,
        local: IpAddr,
    ) -> Result<Accepted<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Greeting { input, name, is_acme, front, other } = greeting;
        let server_name = other.as_deref().or(name.as_deref());
        // Under another name it is no validation.
        let is_acme = is_acme && other.is_none();
        let hello = Hello { server_name, is_acme, local, front: &front };
        match decide(hello, &self.certs) {
            HelloDecision::PassThrough(upstream) => {
                let read = input.filled().to_vec();
                Ok(Accepted::Pass { io, read, server_name: name, upstream })
            }
            HelloDecision::Serve(certificate) => {
                let records = fingerprint::unwrap_records(input.filled());
                let ja4 = fingerprint::ja4(&records, Transport::Tcp);
                let serve = front.clients.as_ref().map_or(&self.serve, |clients| &clients.tcp);
                let config = match (other, hello_needs_resolver(name.as_deref(), &self.certs)) {
                    (Some(other), _) => {
                        with_resolver(serve, Arc::new(Named(Arc::clone(&self.certs), other)))
                    }
                    (None, true) => Arc::clone(serve),
                    (None, false) => with_resolver(serve, Arc::new(Fixed(certificate.key.clone()))),
                };
                let config = match front.key_log {
                    None => config,
                    Some(log) => keylog::logged(&config, log),
                };
                let stream = TlsStream::accept(io, input, config).await;
                let stream = stream.map_err(HandshakeError::Tls)?;
                let mut facts = facts(&stream, name, front.clients.as_deref());
                facts.ja4 = ja4.map(String::into_boxed_str);
                has_not_expired(&facts)?;
                Ok(Accepted::Serve { stream, facts })
            }
            HelloDecision::Challenge(key) => {
                let mut config = config(Arc::new(Fixed(key)), None).map_err(protocol)?;
                config.alpn_protocols = vec![ACME_TLS.to_vec()];
                let stream = TlsStream::accept(io, input, Arc::new(config)).await;
                let mut stream = stream.map_err(HandshakeError::Tls)?;
                let _ = stream.shutdown().await;
                Ok(Accepted::Challenged)
            }
            HelloDecision::Refuse(_) if other.is_some() => {
                refuse(io, Refusal::NoCertificate, other.map(String::from)).await
            }
            HelloDecision::Refuse(refusal) => refuse(io, refusal, name).await,
        }
    }
}

/// A fatal alert in a plain record: nothing is encrypted yet (RFC 8446, section 6).
async fn refuse<IO>(
    mut io: IO,
    refusal: Refusal,
    name: Option<String>,
) -> Result<Accepted<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let _ = io.write_all(&[21, 3, 3, 0, 2, 2, refusal.alert()]).await;
    let _ = io.shutdown().await;
    Err(HandshakeError::Refused(refusal, name))
}

/// A serving configuration with something else instead of the table: for clients without a server
/// name, whose certificate is found by the address they came to, and for those that are given
/// another name's. Tickets stay shared.
fn with_resolver(serve: &ServerConfig, resolver: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(serve);
    config.cert_resolver = resolver;
    Arc::new(config)
}

/// Whether the table itself answers for this hello when rustls asks it.
fn hello_needs_resolver(name: Option<&str>, certs: &Certs) -> bool {
    name.is_some() || certs.find(None).is_some()
}

/// Configurations for TCP and for QUIC with the certificates of the table and ticket keys of their own;
/// with those of a demand when clients are asked for certificates.
pub(super) fn serving(
    certs: &Arc<Certs>,
    clients: Option<(&Demand, &Arc<dyn ClientCertVerifier>)>,
) -> Result<(Arc<ServerConfig>, Quic), rustls::Error> {
    let verifier = clients.map(|(_, verifier)| verifier);
    let demand = clients.map(|(demand, _)| demand.as_slice()).unwrap_or_default();
    let mut tcp = config(Arc::new(FromTable(Arc::clone(certs))), verifier)?;
    tcp.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tcp.ticketer = certs.tickets().ticketer(&[b"tcp", demand]);
    // One is enough for a client that keeps its connection; each costs an encryption.
    tcp.send_tls13_tickets = 1;
    let mut quic = config(Arc::new(FromTable(Arc::clone(certs))), verifier)?;
    quic.alpn_protocols = vec![b"h3".to_vec()];
    // Tickets of its own: those of QUIC carry what those of TCP do not.
    quic.ticketer = certs.tickets().ticketer(&[b"quic", demand]);
    quic.send_tls13_tickets = 1;
    let base = Arc::new(quic);
    let ready = QuicServerConfig::try_from(ServerConfig::clone(&base))
        .map_err(|_| rustls::Error::General("no cipher suite for QUIC".to_owned()))?;
    Ok((Arc::new(tcp), Quic { ready: Arc::new(ready), base }))
}

/// The cryptography of all handshakes with clients.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    provider
}

fn config(
    resolver: Arc<dyn ResolvesServerCert>,
    verifier: Option<&Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    Ok(builder.with_cert_resolver(resolver))
}

/// A resumed session brings back a certificate that was verified then. It may have ended since.
///
/// # Errors
/// When it has.
pub fn has_not_expired(facts: &TlsFacts) -> Result<(), HandshakeError> {
    match &facts.client {
        Some(client) if client.not_after < Timestamp::now() => Err(HandshakeError::Expired),
        _ => Ok(()),
    }
}

/// Reads the ClientHello, however many records and segments it comes in, and gives back all that was
/// read: the handshake begins with it. rustls bounds the message; records of a byte each are bounded
/// here.
async fn read_hello<IO>(io: &mut IO) -> Result<(ReadHello, Buffer), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = rustls::server::Acceptor::default();
    let mut input = Buffer::default();
    let mut is_first = true;
    loop {
        let before = input.filled().len();
        if before > HELLO_BYTES_MAX {
            return Err(HandshakeError::Io(io::ErrorKind::InvalidData.into()));
        }
        let read = std::future::poll_fn(|cx| input.poll_fill(io, cx));
        read.await.map_err(HandshakeError::Io)?;
        let mut bytes = input.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        if std::mem::take(&mut is_first) && bytes.first().is_some_and(u8::is_ascii_uppercase) {
            let _ = io.write_all(NOT_TLS).await;
            let _ = io.shutdown().await;
            return Err(HandshakeError::NotTls);
        }
        while !bytes.is_empty() {
            acceptor.read_tls(&mut bytes).map_err(HandshakeError::Io)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok((accepted, input)),
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut record = Vec::new();
                    let _ = alert.write_all(&mut record);
                    let _ = io.write_all(&record).await;
                    let _ = io.shutdown().await;
                    return Err(protocol(error));
                }
            }
        }
    }
}

/// Whether a client that sends these bytes, and no more, would be given a handshake.
pub(crate) fn would_serve(bytes: &[u8], certs: &Certs) -> bool {
    let mut io = tokio::io::join(bytes, tokio::io::sink());
    let mut reading = std::pin::pin!(read_hello(&mut io));
    // Neither side ever waits.
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok((accepted, _))) = reading.as_mut().poll(&mut cx) else {
        return false;
    };
    let hello = accepted.client_hello();
    let name = hello.server_name().map(str::to_ascii_lowercase);
    let (is_acme, local) = (is_acme(&hello), std::net::Ipv4Addr::LOCALHOST.into());
    let front = Front::default();
    let hello = Hello { server_name: name.as_deref(), is_acme, local, front: &front };
    let decision = decide(hello, certs);
    !matches!(decision, HelloDecision::Refuse(_))
}

fn is_acme(hello: &ClientHello<'_>) -> bool {
    hello
        .alpn()
        .is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none())
}

fn protocol(error: rustls::Error) -> HandshakeError {
    HandshakeError::Tls(io::Error::new(io::ErrorKind::InvalidData, error))
}

fn facts<IO>(stream: &TlsStream<IO>, name: Option<String>, clients: Option<&ClientAuth>) -> TlsFacts
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let session = stream.session();
    let client = session.peer_certificates().and_then(ClientCertificate::of);
    TlsFacts {
        server_name: name.map(String::into_boxed_str),
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher_suite: session.negotiated_cipher_suite().map_or("", |s| suite_name(s.suite())),
        group: session.negotiated_key_exchange_group().map(|group| group_name(group.name())),
        alpn: match session.alpn_protocol() {
            Some(b"h2") => Some("h2"),
            Some(b"http/1.1") => Some("http/1.1"),
            _ => None,
        },
        is_h2: session.alpn_protocol() == Some(b"h2"),
        is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        ja4: None,
        demand: clients.map(|clients| clients.demand),
        client: client.map(Arc::new),
    }
}

/// Names of the IANA registry "TLS Cipher Suites", of those that we offer.
pub(crate) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}

/// Names of the IANA registry "TLS Supported Groups", of those that we offer.
pub(crate) fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "x25519",
        other => other.as_str().unwrap_or(""),
    }
}

/// Gives rustls the certificate that [`decide`] has found to exist.
#[derive(Debug)]
struct FromTable(Arc<Certs>);

impl ResolvesServerCert for FromTable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let found = self.0.find_for_client(name.as_deref(), hello.signature_schemes());
        found.map(|certificate| Arc::clone(&certificate.key))
    }
}

/// Gives rustls the certificate of another name than the client asks for.
#[derive(Debug)]
struct Named(Arc<Certs>, Box<str>);

impl ResolvesServerCert for Named {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.0.find_for_client(Some(&self.1), hello.signature_schemes());
        found.map(|certificate| Arc::clone(&certificate.key))
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl HandshakeError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        Fault::Client
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow => f.write_str("handshake not finished in time"),
            Self::NotTls => f.write_str("plain HTTP on a port that speaks https"),
            Self::Refused(Refusal::UnknownName, name) => {
                write!(f, "no certificate for {}", name.as_deref().unwrap_or_default())
            }
            Self::Refused(Refusal::NoName, _) => {
                f.write_str("no server name, and no `certificates.default`")
            }
            Self::Refused(Refusal::NoChallenge, name) => {
                let name = name.as_deref().unwrap_or_default();
                write!(f, "no validation of {name} is under way")
            }
            Self::Refused(Refusal::Plugin(alert), name) => {
                let name = name.as_deref().unwrap_or("no name");
                write!(f, "the client-hello plugin refuses {name} with alert {alert}")
            }
            Self::Refused(Refusal::PluginFailed, _) => {
                f.write_str("the client-hello plugin failed")
            }
            Self::Refused(Refusal::NoCertificate, name) => {
                let name = name.as_deref().unwrap_or_default();
                write!(
                    f,
                    "the client-hello plugin wants the certificate of {name}, which is not there"
                )
            }
            Self::Expired => f.write_str("the certificate of the client has expired"),
            Self::Tls(cause) | Self::Io(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {}

const ACME_TLS: &[u8] = b"acme-tls/1";
/// All records of a ClientHello with their headers, about.
const HELLO_BYTES_MAX: usize = 128 * 1024;
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    connection: close\r\ncontent-length: 45\r\n\r\n400 Bad Request\n\nThis port speaks https only.";

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, ClientConfig};
    use rustls_pki_types::ServerName;
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::TlsConnector;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// No certificate comes later.
    struct Never;

    impl Later for Never {
        fn certificate_for<'a>(
            &'a self,
            _: &'a str,
        ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
            Box::pin(std::future::ready(false))
        }

        fn begin(&self, _: &str) {}
    }
    use crate::config::Hostname;
    use crate::tls::certs::Origin;
    use crate::tls::certs::tests::certificate;

    fn client(certs: &[&Arc<crate::tls::certs::Certificate>]) -> ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certs {
            roots.add(certificate.key.cert[0].clone()).unwrap();
        }
        ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    }

    async fn shake(
        acceptor: &Acceptor,
        client: ClientConfig,
        name: &str,
    ) -> (Result<Accepted<tokio::io::DuplexStream>, HandshakeError>, io::Result<Vec<u8>>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let local = "127.0.0.1".parse().unwrap();
        let server = async {
            let mut accepted =
                acceptor.accept(far, local, LIMIT, |_, _, _| Wish::Site(Front::default())).await;
            if let Ok(Accepted::Serve { stream, .. }) = &mut accepted {
                stream.write_all(b"hello").await.unwrap();
                stream.shutdown().await.unwrap();
            }
            accepted
        };
        let client = async {
            let mut stream = connector.connect(name, near).await?;
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await?;
            Ok(text)
        };
        tokio::join!(server, client)
    }

    fn alert(outcome: &io::Result<Vec<u8>>) -> Option<AlertDescription> {
        let cause = outcome.as_ref().unwrap_err().get_ref()?.downcast_ref::<rustls::Error>()?;
        match cause {
            rustls::Error::AlertReceived(alert) => Some(*alert),
            _ => None,
        }
    }

    #[tokio::test]
    async fn each_name_gets_its_certificate_with_the_hybrid_group() {
        let certs = Arc::new(Certs::default());
        let a = certificate(&["a.example"], Origin::File);
        let b = certificate(&["*.b.example"], Origin::File);
        certs.publish(vec![("a".into(), Arc::clone(&a)), ("b".into(), Arc::clone(&b))]);
        let acceptor = Acceptor::new(certs, Arc::new(Never)).unwrap();
        for (name, right, wrong) in [("a.example", &a, &b), ("x.b.example", &b, &a)] {
            let (accepted, text) = shake(&acceptor, client(&[right]), name).await;
            assert_eq!(text.unwrap(), b"hello");
            let Accepted::Serve { facts, .. } = accepted.unwrap() else { panic!("served") };
            assert_eq!(facts.server_name.as_deref(), Some(name));
            assert_eq!((facts.version, facts.group), ("TLSv1.3", Some("X25519MLKEM768")));
            assert!(shake(&acceptor, client(&[wrong]), name).await.1.is_err());
        }
    }

    #[tokio::test]
    async fn tls_1_2_and_alpn() {
        let certs = Arc::new(Certs::default());
        let a = certificate(&["a.example"], Origin::File);
        certs.publish(vec![("a".into(), Arc::clone(&a))]);
        let acceptor = Acceptor::new(certs, Arc::new(Never)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(a.key.cert[0].clone()).unwrap();
        let mut old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
            .with_root_certificates(roots)
            .with_no_client_auth();
        old.alpn_protocols = vec![b"h2".to_vec()];
        let (accepted, text) = shake(&acceptor, old, "a.example").await;
        assert_eq!(text.unwrap(), b"hello");
        let Accepted::Serve { facts, .. } = accepted.unwrap() else { panic!("served") };
        assert!(facts.is_h2 && facts.version == "TLSv1.2");
    }

    #[tokio::test]
    async fn unknown_and_absent_names_get_the_alert_for_it() {
        let certs = Arc::new(Certs::default());
        let a = certificate(&["a.example"], Origin::File);
        certs.publish(vec![("a".into(), Arc::clone(&a))]);
        let acceptor = Acceptor::new(Arc::clone(&certs), Arc::new(Never)).unwrap();
        let (refused, outcome) = shake(&acceptor, client(&[&a]), "b.example").await;
        assert!(matches!(refused, Err(HandshakeError::Refused(Refusal::UnknownName, _))));
        assert_eq!(alert(&outcome), Some(AlertDescription::UnrecognisedName));
        // An IP address as the name means a hello without server name.
        let (_, outcome) = shake(&acceptor, client(&[&a]), "127.0.0.1").await;
        assert_eq!(alert(&outcome), Some(AlertDescription::UnrecognisedName));
        certs.publish(vec![("ip".into(), certificate(&["127.0.0.1"], Origin::Local))]);
        let (accepted, _) = shake(&acceptor, client(&[&a]), "127.0.0.1").await;
        assert!(accepted.is_ok() || matches!(accepted, Err(HandshakeError::Tls(_))));
    }

    #[tokio::test]
    async fn a_session_resumes_over_a_change_of_the_table() {
        let certs = Arc::new(Certs::default());
        let a = certificate(&["a.example"], Origin::File);
        certs.publish(vec![("a".into(), Arc::clone(&a))]);
        let acceptor = Acceptor::new(Arc::clone(&certs), Arc::new(Never)).unwrap();
        let client = client(&[&a]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (accepted, text) = shake(&acceptor, client.clone(), "a.example").await;
            assert_eq!(text.unwrap(), b"hello");
            let Accepted::Serve { facts, .. } = accepted.unwrap() else { panic!("served") };
            kinds.push(facts.is_resumed);
            certs.publish(vec![("b".into(), certificate(&["b.example"], Origin::File))]);
        }
        assert_eq!(kinds, [false, true]);
    }

    #[tokio::test]
    async fn a_validation_is_only_answered_when_it_is_under_way() {
        let certs = Arc::new(Certs::default());
        let a = certificate(&["a.example"], Origin::File);
        certs.publish(vec![("a".into(), Arc::clone(&a))]);
        let acceptor = Acceptor::new(Arc::clone(&certs), Arc::new(Never)).unwrap();
        let challenge = certificate(&["a.example"], Origin::Local);
        let mut client = client(&[&challenge]);
        client.alpn_protocols = vec![ACME_TLS.to_vec()];
        let (_, outcome) = shake(&acceptor, client.clone(), "a.example").await;
        assert_eq!(alert(&outcome), Some(AlertDescription::NoApplicationProtocol));
        let name = Hostname::parse("a.example").unwrap();
        certs.publish_challenge(&name, Arc::clone(&challenge.key), "");
        let (accepted, _) = shake(&acceptor, client.clone(), "a.example").await;
        assert!(matches!(accepted, Ok(Accepted::Challenged)));
        certs.withdraw_challenge(&name);
        let (_, outcome) = shake(&acceptor, client, "a.example").await;
        assert!(outcome.is_err());
    }

    #[tokio::test]
    async fn what_is_no_tls_ends_in_order() {
        let acceptor = Acceptor::new(Arc::default(), Arc::new(Never)).unwrap();
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let (mut near, far) = tokio::io::duplex(1024);
        near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(matches!(
            acceptor.accept(far, local, LIMIT, |_, _, _| Wish::Site(Front::default())).await,
            Err(HandshakeError::NotTls)
        ));
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        for garbage in
            [&b"\x16\x03\x01\xff\xff"[..], b"\x00", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"]
        {
            let (mut near, far) = tokio::io::duplex(1024);
            near.write_all(garbage).await.unwrap();
            near.shutdown().await.unwrap();
            assert!(
                acceptor
                    .accept(far, local, LIMIT, |_, _, _| Wish::Site(Front::default()))
                    .await
                    .is_err()
            );
        }
    }

    #[tokio::test]
    async fn a_hello_in_single_bytes_is_understood() {
        let certs = Arc::new(Certs::default());
        let a = certificate(&["a.example"], Origin::File);
        certs.publish(vec![("a".into(), Arc::clone(&a))]);
        let acceptor = Acceptor::new(certs, Arc::new(Never)).unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        let mut session = rustls::ClientConnection::new(Arc::new(client(&[&a])), name).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        let client = async move {
            for byte in hello {
                near.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            near.read_u8().await.unwrap()
        };
        let local = "127.0.0.1".parse().unwrap();
        let (accepted, first) = tokio::join!(
            acceptor.accept(far, local, LIMIT, |_, _, _| Wish::Site(Front::default())),
            client
        );
        // A handshake record came back; the client then left.
        assert_eq!(first, 22);
        assert!(accepted.is_err());
    }
}
